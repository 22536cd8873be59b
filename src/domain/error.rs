//! Why a request, or one detail of a batch, is refused. Codes and texts are in `http::error`.

use super::identity::UnsupportedScheme;
use super::permission::MissingPermission;

/// Why a whole request is refused. The messages here are for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(test, derive(strum::EnumCount))]
pub enum RequestError {
    /// No such path.
    #[error("not found")]
    NotFound,
    /// The path exists, but not with this method; the methods it has.
    #[error("method not allowed")]
    MethodNotAllowed(&'static str),
    /// More requests, connections or bytes of bodies are in flight than the limits allow.
    #[error("overloaded")]
    Overloaded,
    /// The body is larger than this many bytes.
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    /// The body did not arrive in time.
    #[error("the body did not arrive in time")]
    BodyTimeout,
    /// The body is not a JSON object.
    #[error("the body is not a JSON object")]
    NotJson,

    /// The header `X-Bkapi-Authorization` is not a JSON object.
    #[error("the authorization header is not a JSON object")]
    AuthorizationNotJson,
    /// Neither an application code nor a secret.
    #[error("no app code and no app secret")]
    AppMissing,
    /// A secret without an application code.
    #[error("no app code")]
    AppCodeMissing,
    /// An application code without a secret.
    #[error("no app secret")]
    AppSecretMissing,
    /// The gateway's JWT is missing or invalid, for this reason.
    #[error("gateway token: {0}")]
    InvalidJwt(&'static str),
    /// The gateway's JWT says that application or user could not be verified, in these words.
    #[error("the gateway says: {:?}", truncate(.0))]
    NotVerifiedByGateway(String),
    /// Credentials of a kind that is not supported.
    #[error("unsupported credentials: {0:?}")]
    UnsupportedScheme(UnsupportedScheme),
    /// No application has this code, or it is disabled.
    #[error("unknown app {:?}", truncate(.0))]
    UnknownApp(String),
    /// The secret is none of the application's.
    #[error("wrong secret for app {:?}", truncate(.0))]
    WrongSecret(String),
    /// The login service does not know the token.
    #[error("invalid bk_token")]
    InvalidToken,
    /// No user, or a user name from an application that is not trusted with user names.
    #[error("no valid user identity")]
    UserMissing,
    /// The application may not call this endpoint, or not for this tenant; the endpoint's name.
    #[error("the app may not call {0}")]
    ApiForbidden(&'static str),

    /// A field has a wrong type or is given twice.
    #[error("{path}: {problem}")]
    WrongType {
        /// Where, as in `details[3].bk_inst_id`.
        path: String,
        /// What is wrong, without the value that was sent.
        problem: String,
    },
    /// The `Idempotency-Key` is malformed.
    #[error("the idempotency key is not 1 to 255 visible ASCII characters")]
    InvalidIdempotencyKey,
    /// A required field is missing or empty.
    #[error("{0} is missing")]
    MissingField(&'static str),
    /// A field has a value outside what is allowed.
    #[error("{0} is invalid")]
    InvalidField(&'static str),
    /// `details` is missing or empty.
    #[error("details is empty")]
    NoDetails,
    /// More details than a batch may have.
    #[error("too many details")]
    TooManyDetails,
    /// The application is over its rate limit.
    #[error("over the rate limit")]
    RateLimited(RateLimit),
    /// The `Idempotency-Key` was used with a different request.
    #[error("the idempotency key was used with a different request")]
    IdempotencyKeyReused,

    /// No such model association is visible to the tenant.
    #[error("unknown model association")]
    UnknownModelAssociation,
    /// The model association is between other models; the end that differs.
    #[error("the {0:?} model is not the association's")]
    ModelMismatch(End),
    /// The user lacks these permissions.
    #[error("the user lacks {} permissions", .0.len())]
    PermissionDenied(Vec<MissingPermission>),

    /// A service that is needed does not answer; its name.
    #[error("{0} is unavailable")]
    Unavailable(&'static str),
    /// A bug of this server.
    #[error("internal error")]
    Internal,
}

/// The ends of an association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where it starts.
    Source,
    /// Where it leads.
    Target,
}

/// An application's rate limit, at the moment when it is exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// The application's code.
    pub app: String,
    /// Details a second.
    pub rate: u32,
    /// The most details at once.
    pub burst: u32,
    /// The details that are left now.
    pub remaining: u32,
    /// Seconds until the same request fits.
    pub wait: u64,
}

/// Why one detail of a batch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetailError {
    /// This pair is linked already under this model association.
    AlreadyExists,
    /// The source instance does not exist.
    SourceMissing,
    /// The target instance does not exist.
    TargetMissing,
    /// Under 1:1, the source or the target has a link already.
    OneToOneTaken,
    /// Under 1:n, the target has a source already.
    OneToManyTaken,
}

impl DetailError {
    /// All of them, in the order in which a detail is checked.
    pub const ALL: [Self; 5] = [
        Self::AlreadyExists,
        Self::SourceMissing,
        Self::TargetMissing,
        Self::OneToOneTaken,
        Self::OneToManyTaken,
    ];

    /// The original's error code, which idempotency records store.
    pub fn code(self) -> i32 {
        match self {
            Self::AlreadyExists => 1_101_038,
            Self::SourceMissing => 1_101_073,
            Self::TargetMissing => 1_101_074,
            Self::OneToOneTaken => 1_101_052,
            Self::OneToManyTaken => 1_101_061,
        }
    }

    /// The error with this code.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.code() == code)
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::AlreadyExists => "already_exists",
            Self::SourceMissing => "source_missing",
            Self::TargetMissing => "target_missing",
            Self::OneToOneTaken => "one_to_one_taken",
            Self::OneToManyTaken => "one_to_many_taken",
        }
    }
}

/// The first characters of a text that a caller sent, for the log.
fn truncate(text: &str) -> String {
    text.chars().take(64).collect()
}
