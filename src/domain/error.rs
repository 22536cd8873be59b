//! Every refusal a caller can get: its code, and its text in both languages.
//!
//! A [`RequestError`] refuses a request, a [`DetailError`] one detail of it. Codes and texts are the original's,
//! except where `README.md` says how we differ.

use super::batch::DETAIL_LIMIT;
use super::caller::Unsupported;
use super::language::Language;
use super::permission::Needed;
use super::request::KEY_LIMIT;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, strum::EnumCount, thiserror::Error)]
pub enum RequestError {
    /// The body is not a JSON object.
    #[error("the body is not a JSON object")]
    NotJson,
    /// The body did not arrive in time.
    #[error("the body did not arrive in time")]
    UnfinishedBody,
    /// The authorization header is not a JSON object.
    #[error("the authorization header is not a JSON object")]
    HeaderNotJson,
    /// A secret without a code.
    #[error("no app code")]
    NoAppCode,
    /// A code without a secret.
    #[error("no app secret")]
    NoAppSecret,
    /// Neither.
    #[error("no app code and no app secret")]
    NoApp,
    /// No such application, or it is disabled.
    #[error("unknown app {:?}", clip(.0))]
    UnknownApp(String),
    /// None of the application's secrets.
    #[error("wrong secret for app {:?}", clip(.0))]
    WrongSecret(String),
    /// A scheme we do not have.
    #[error("unsupported credentials: {0:?}")]
    Unsupported(Unsupported),
    /// The gateway's token is no good.
    #[error("gateway token: {0}")]
    GatewayToken(&'static str),
    /// The gateway says that it could not verify the application or the user, in these words.
    #[error("the gateway says: {:?}", clip(.0))]
    GatewayRefused(String),
    /// The application may not call this API, or not for this account.
    #[error("the app may not call {0}")]
    ApiForbidden(&'static str),
    /// The application has asked for too much lately.
    #[error("over the rate limit")]
    RateLimited(Limit),
    /// The user may not edit these instances.
    #[error("the user may not edit {} of the instances", .0.len())]
    NoPermission(Vec<Needed>),
    /// The login service does not know the token.
    #[error("invalid bk_token")]
    InvalidToken,
    /// No user, or a user name from an application that is not trusted with it.
    #[error("no valid user identity")]
    NoUser,
    /// A known field has a wrong type, or is given twice.
    #[error("{0}")]
    WrongType(Where),
    /// A required field is missing or empty.
    #[error("{0} is missing")]
    Missing(Field),
    /// `details` is missing or empty.
    #[error("details is empty")]
    NoDetails,
    /// More than [`DETAIL_LIMIT`] details.
    #[error("more than {DETAIL_LIMIT} details")]
    TooManyDetails,
    /// The idempotency key is none.
    #[error("the idempotency key is not 1 to {KEY_LIMIT} visible ASCII characters")]
    BadKey,
    /// The idempotency key stands for another request.
    #[error("the idempotency key stands for another request")]
    KeyReused,
    /// A field does not agree with the model association.
    #[error("{0} does not fit")]
    Mismatch(Field),
    /// No such model association for this account.
    #[error("unknown model association")]
    UnknownModelAssociation,
    /// The body is larger than this many bytes.
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    /// A known path, another method than POST.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// No such path.
    #[error("not found")]
    NotFound,
    /// Something we need does not answer.
    #[error("{0} is unavailable")]
    Unavailable(&'static str),
    /// More is being asked than can be answered.
    #[error("overloaded")]
    Overloaded,
    /// A bug of ours.
    #[error("internal error")]
    Internal,
}

/// How much an application may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The application.
    pub app: String,
    /// Details a second.
    pub rate: u32,
    /// Details at once, after a pause.
    pub burst: u32,
    /// Details that are left now.
    pub remaining: u32,
    /// When as much as was asked for is there, in seconds.
    pub wait: u64,
}

/// As much of what a caller wrote as belongs in a log.
fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

/// A known field of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The source model.
    SourceModel,
    /// The target model.
    TargetModel,
    /// The model association.
    ModelAssociation,
    /// The tenant.
    Tenant,
}

impl Field {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::SourceModel => "bk_obj_id",
            Self::TargetModel => "bk_asst_obj_id",
            Self::ModelAssociation => "bk_obj_asst_id",
            Self::Tenant => "bk_supplier_account",
        }
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where in the body a type is wrong, and how: `details[3].bk_inst_id: expected an integer, got a string`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Where {
    /// The path to the value.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Why one detail was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DetailError {
    /// The pair already stands.
    AlreadyExists,
    /// The source instance does not exist.
    SourceMissing,
    /// The target instance does not exist.
    TargetMissing,
    /// 1:1, and one of the ends is taken in its role.
    OneToOneTaken,
    /// 1:n, and the target has a source.
    OneToManyTaken,
}

impl RequestError {
    /// The number that clients compare.
    pub fn code(&self) -> u32 {
        match self {
            Self::WrongType(_) => 1_199_000,
            Self::Missing(_) => 1_199_011,
            Self::NoDetails => 1_199_038,
            Self::TooManyDetails => 1_199_035,
            Self::Mismatch(_) => 1_199_006,
            Self::UnknownModelAssociation => 1_101_046,
            Self::NotJson
            | Self::UnfinishedBody
            | Self::NoAppCode
            | Self::NoAppSecret
            | Self::NoApp
            | Self::UnknownApp(_)
            | Self::WrongSecret(_)
            | Self::Unsupported(_)
            | Self::GatewayRefused(_)
            | Self::InvalidToken
            | Self::NoUser
            | Self::Internal => 1_306_000,
            Self::ApiForbidden(_) => 1_306_403,
            Self::GatewayToken(_) => 1_306_408,
            Self::RateLimited(_) => 1_306_429,
            Self::NoPermission(_) => 9_900_403,
            Self::Unavailable(_) | Self::Overloaded => 1_306_201,
            Self::MethodNotAllowed => 1_306_209,
            Self::NotFound => 1_306_404,
            Self::HeaderNotJson | Self::BodyTooLarge(_) | Self::BadKey | Self::KeyReused => {
                1_306_406
            }
        }
    }

    /// What the caller reads. The gateway's own refusals are English only.
    pub fn text(&self, language: Language) -> String {
        let both = |english: String, chinese: String| match language {
            Language::English => english,
            Language::Chinese => chinese,
        };
        match self {
            Self::WrongType(at) => both(
                format!("Deserializing JSON data failed: {at}"),
                format!("反序列化JSON数据失败: {at}"),
            ),
            Self::Missing(field) => both(
                format!("'{field}' the parameter is invalid or does not exist"),
                format!("'{field}' 参数无效或不存在"),
            ),
            Self::NoDetails => {
                both("details must not be empty".into(), "数据 details 不能为空".into())
            }
            Self::TooManyDetails => both(
                format!("details exceed the limit {DETAIL_LIMIT}"),
                format!("details 超过限制 {DETAIL_LIMIT}"),
            ),
            Self::Mismatch(field) => both(
                format!("'{field}' data parameter verification does not pass"),
                format!("'{field}' 数据参数校验不通过"),
            ),
            Self::UnknownModelAssociation => {
                both("object association does not exist.".into(), "模型的关联关系不存在".into())
            }
            Self::NoPermission(_) => {
                both("Do not have access permission.".into(), "没有操作的权限".into())
            }
            Self::GatewayToken(why) => format!("APIGateway JWT verification failed, {why}"),
            Self::GatewayRefused(words) => words.clone(),
            Self::ApiForbidden(api) => format!(
                "APP permission is insufficient, APP has no permission to access the component ({api}) of the \
                 system (CC)."
            ),
            Self::RateLimited(Limit { app, rate, .. }) => format!(
                "Access frequency limit, Access frequency of APP [{app}] exceeds the limit; the frequency limit is \
                 [{rate} details per second], please try again later"
            ),
            Self::NotJson | Self::UnfinishedBody => {
                "Request JSON string is wrong in format, which cannot be analyzed.".into()
            }
            Self::HeaderNotJson => {
                "Parameters error, request header X-Bkapi-Authorization is not a \
                                    valid JSON format string"
                    .into()
            }
            Self::BodyTooLarge(limit) => {
                format!("Parameters error, the request body is larger than {limit} bytes")
            }
            Self::BadKey => format!(
                "Parameters error, Idempotency-Key must be 1 to {KEY_LIMIT} visible ASCII characters"
            ),
            Self::KeyReused => {
                "Parameters error, Idempotency-Key was used with a different request".into()
            }
            Self::NoAppCode => "APP Code [bk_app_code] cannot be empty".into(),
            Self::NoAppSecret => "APP Secret [bk_app_secret] cannot be empty".into(),
            Self::NoApp => {
                "APP Code [bk_app_code] and APP Secret [bk_app_secret] cannot be empty".into()
            }
            Self::UnknownApp(code) => format!(
                "Invalid APP Code [bk_app_code={code}], please confirm if the APP Code has been \
                 registered"
            ),
            Self::WrongSecret(code) => format!(
                "APP Secret verification failed, please confirm if the APP Secret and APP Code \
                 [bk_app_code={code}] match"
            ),
            Self::Unsupported(Unsupported::Signature) => {
                "bk_signature is not supported, please use bk_app_secret".into()
            }
            Self::Unsupported(Unsupported::AccessToken) => {
                "bk_access_token is not supported, please use bk_token or bk_username".into()
            }
            Self::InvalidToken => {
                "User authentication failed, please check if the bk_token is valid".into()
            }
            Self::NoUser => {
                "User authentication failed, please provide a valid user identity, such \
                             as bk_token, bk_username"
                    .into()
            }
            Self::MethodNotAllowed => "The interface does not support the request method".into(),
            Self::NotFound => "The content does not exist".into(),
            Self::Unavailable(what) => format!("{what} is unavailable, please try again later"),
            Self::Overloaded => "The server is overloaded, please try again later".into(),
            Self::Internal => {
                "Internal error, please try again later or contact the administrator".into()
            }
        }
    }
}

impl DetailError {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AlreadyExists,
        Self::SourceMissing,
        Self::TargetMissing,
        Self::OneToOneTaken,
        Self::OneToManyTaken,
    ];

    /// The number that the original has for it.
    pub fn code(self) -> i32 {
        match self {
            Self::AlreadyExists => 1_101_038,
            Self::SourceMissing => 1_101_073,
            Self::TargetMissing => 1_101_074,
            Self::OneToOneTaken => 1_101_052,
            Self::OneToManyTaken => 1_101_061,
        }
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

    /// What has this number.
    pub fn of_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.code() == code)
    }

    /// What the caller reads under the detail's index, for a pair of models.
    pub fn text(self, language: Language, source_model: &str, target_model: &str) -> String {
        match (self, language) {
            (Self::AlreadyExists, Language::English) => {
                format!("the associations {source_model}->{target_model} already exist")
            }
            (Self::AlreadyExists, Language::Chinese) => {
                format!("关联关系 {source_model}->{target_model} 重复")
            }
            (Self::SourceMissing, Language::English) => "Association instance does not exist".into(),
            (Self::SourceMissing, Language::Chinese) => "关联实例不存在".into(),
            (Self::TargetMissing, Language::English) => "Associated instance does not exist".into(),
            (Self::TargetMissing, Language::Chinese) => "被关联实例不存在".into(),
            (Self::OneToOneTaken, Language::English) => {
                "can not create multiple instance association for a 1:1 association.".into()
            }
            (Self::OneToOneTaken, Language::Chinese) => {
                "关联关系为1:1的，不能同时关联多个实例".into()
            }
            (Self::OneToManyTaken, Language::English) => {
                "The relationship is 1:n, and multiple source model instances cannot be associated at the \
                 same time."
                    .into()
            }
            (Self::OneToManyTaken, Language::Chinese) => {
                "关联关系为1:n的，不能同时关联多个源模型实例".into()
            }
        }
    }
}
