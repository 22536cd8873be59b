//! Why a request, or one detail of a batch, is refused. Codes and texts are in `http::error`.

use std::borrow::Cow;
use std::error::Error;
use std::iter::successors;
use std::net::IpAddr;

use strum::{EnumCount, FromRepr, IntoStaticStr, VariantArray};

use super::change_error::ChangeError;
use super::permission::MissingPermission;

/// Why a whole request is refused. The messages are for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, EnumCount)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum RequestError {
    #[error("not found")]
    NotFound,
    #[error("method not allowed")]
    MethodNotAllowed(&'static str),
    #[error("overloaded")]
    Overloaded,
    #[error("more than {0} headers")]
    TooManyHeaders(usize),
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    #[error("the body did not arrive in time")]
    BodyTimeout,
    #[error("the body is not a JSON object: {0}")]
    NotJson(NotJson),

    #[error("the authorization header is not a JSON object")]
    AuthorizationNotJson,
    #[error("no app code and no app secret")]
    AppMissing,
    #[error("no app code")]
    AppCodeMissing,
    #[error("no app secret")]
    AppSecretMissing,
    #[error("identity header: {0}")]
    InvalidIdentityHeader(&'static str),
    #[error(
        "no BK_USER: a proxy drops headers with underscores (nginx: underscores_in_headers on)"
    )]
    UserHeaderMissing,
    #[error("no gateway token, and CMDB_TRUSTED_PEERS does not contain {}", address(.0.as_ref()))]
    UntrustedPeer(Option<IpAddr>),
    #[error("no gateway token, and CMDB_GATEWAY_ONLY is set")]
    GatewayTokenMissing,
    #[error("the gateway says: {:?}", truncate(.0))]
    NotVerifiedByGateway(String),
    #[error("unsupported credentials: bk_signature")]
    SignatureUnsupported,
    #[error("unsupported credentials: bk_access_token")]
    AccessTokenUnsupported,
    #[error("unknown app {:?}", truncate(.0))]
    UnknownApp(String),
    #[error("wrong secret for app {:?}", truncate(.0))]
    WrongSecret(String),
    #[error("invalid bk_token")]
    InvalidToken,
    #[error("no valid user identity")]
    UserMissing,
    #[error("the app may not call {0}")]
    AppNotAllowed(&'static str),

    #[error("{path}: {problem}")]
    WrongType {
        /// Where, as in `details[3].bk_inst_id`.
        path: String,
        /// What is wrong, without the value that was sent.
        problem: String,
    },
    #[error("the idempotency key is not 1 to 255 visible ASCII characters")]
    InvalidIdempotencyKey,
    #[error("the parameter {0} is missing")]
    MissingPathVariable(&'static str),
    #[error("{0} is missing, invalid or unknown")]
    MissingField(Cow<'static, str>),
    #[error("{0} is missing or empty")]
    UnassignedField(&'static str),
    #[error("{0} is not an integer")]
    NotAnInteger(&'static str),
    #[error("the input is invalid")]
    InvalidInput,
    #[error("{0} is invalid")]
    InvalidField(Cow<'static, str>),
    /// A refusal for which the original has no code of its own: it accepts the request, or fails
    /// with the error of its database. So only the text says what is wrong.
    #[error("{0}")]
    WithoutCode(Cow<'static, str>),
    #[error("the limit of a page is too large")]
    PageTooLarge,
    #[error("details is empty")]
    NoDetails,
    #[error("too many details")]
    TooManyDetails,
    #[error("over the rate limit")]
    RateLimited(RateLimit),
    #[error("the idempotency keys in header and body differ")]
    IdempotencyKeysDiffer,
    #[error("the idempotency key was used with a different request")]
    IdempotencyKeyReused,

    #[error("unknown model association")]
    UnknownModelAssociation,
    #[error("the {0:?} model is not the association's")]
    ModelMismatch(End),
    #[error("the link is refused: {}", .0.name())]
    LinkRefused(DetailError),
    #[error("a detail is refused: {}", .error.name())]
    DetailRefused {
        /// Why.
        error: DetailError,
        /// The key of the source model.
        source_model: String,
        /// The key of the target model.
        target_model: String,
    },
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("the user lacks {} permissions", .0.len())]
    PermissionDenied(Vec<MissingPermission>),

    #[error("{0} is unavailable")]
    Unavailable(&'static str),
    #[error("the database needs attention")]
    NeedsAttention,
    #[error("internal error")]
    Internal,
}

/// What a body is that is not a JSON object. The messages are for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum NotJson {
    #[error("it did not arrive completely")]
    Incomplete,
    #[error("it is empty")]
    Empty,
    #[error("it is compressed (Content-Encoding: {})", truncate(.0))]
    Compressed(String),
    #[error("it begins with a byte order mark")]
    ByteOrderMark,
    #[error("it is UTF-16 or UTF-32, not UTF-8")]
    WideCharacters,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it is a form")]
    Form,
    #[error("it has a syntax error at line {line}, column {column}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The byte in the line, from 1; 0 at the end of the line before.
        column: usize,
    },
    #[error("it is JSON, but not an object")]
    NotAnObject,
    #[error("it contains a surrogate without its other half")]
    LoneSurrogate,
}

/// The ends of an association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where it starts.
    Source,
    /// Where it leads.
    Target,
}

/// A caller's rate limit, at the moment when it is exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// The application's code, if the caller is an application.
    pub app: Option<String>,
    /// Details a second.
    pub rate: u32,
    /// The most details at once.
    pub burst: u32,
    /// The details that are left now.
    pub remaining: u32,
    /// Seconds until the same request fits.
    pub wait: u64,
}

/// Why one detail of a batch, or a single link, is refused, with the original's error code for a
/// detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRepr, IntoStaticStr, VariantArray)]
#[repr(i32)]
#[strum(serialize_all = "snake_case")]
pub enum DetailError {
    /// This pair is linked already under this model association.
    AlreadyExists = 1_101_038,
    /// The source instance does not exist.
    SourceMissing = 1_101_073,
    /// The target instance does not exist.
    TargetMissing = 1_101_074,
    /// Under 1:1, the source or the target has a link already.
    OneToOneTaken = 1_101_052,
    /// Under 1:n, the target has a source already.
    OneToManyTaken = 1_101_061,
}

impl DetailError {
    /// All of them, in the order in which a detail is checked.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The original's error code, which idempotency records store.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// An error and its causes in one line. A cause whose text is already at the end is not repeated.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in successors(error.source(), |&cause| cause.source()).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The address of a peer, for the log.
fn address(peer: Option<&IpAddr>) -> String {
    peer.map_or("the peer".to_owned(), IpAddr::to_string)
}

/// The first characters of a text that a caller sent, for the log.
fn truncate(text: &str) -> String {
    text.chars().take(64).collect()
}
