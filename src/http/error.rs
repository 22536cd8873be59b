//! The error table: code, HTTP status, texts in both languages and headers of every refusal.

use std::borrow::Cow;
use std::fmt::Display;

use axum::http::{HeaderMap, HeaderName, StatusCode, header};

use super::change_error;
use crate::domain::batch::DETAIL_LIMIT;
use crate::domain::error::{DetailError, End, NotJson, RateLimit, RequestError};
use crate::domain::keys::IDEMPOTENCY_KEY_LIMIT;
use crate::domain::language::Language;
use crate::domain::permission::{Action, MissingPermission};

/// How a refused request is answered.
pub struct ErrorAnswer {
    /// The original's error code.
    pub code: u32,
    /// The HTTP status: 200 for most errors, as in the original.
    pub status: StatusCode,
    /// The English text.
    pub english: String,
    /// The Chinese text. The gateway's own errors (13xxxxx) have none.
    pub chinese: Option<String>,
}

/// An error of the gateway.
fn gateway(code: u32, english: impl Into<String>) -> ErrorAnswer {
    ErrorAnswer { code, status: StatusCode::OK, english: english.into(), chinese: None }
}

/// An error of the gateway without a code of its own.
fn common_error(english: impl Into<String>) -> ErrorAnswer {
    gateway(1_306_000, english)
}

fn parameter_error(english: impl Display) -> ErrorAnswer {
    gateway(1_306_406, format!("Parameters error, {english}"))
}

fn unavailable(reason: impl Display) -> ErrorAnswer {
    let answer = gateway(1_306_201, format!("{reason}, please try again later"));
    answer.with(StatusCode::SERVICE_UNAVAILABLE)
}

/// An error of the CMDB.
pub(super) fn cmdb(
    code: u32, english: impl Into<String>, chinese: impl Into<String>,
) -> ErrorAnswer {
    ErrorAnswer { chinese: Some(chinese.into()), ..gateway(code, english) }
}

impl ErrorAnswer {
    /// The text in a language.
    pub fn text(self, language: Language) -> String {
        match (language, self.chinese) {
            (Language::Chinese, Some(chinese)) => chinese,
            _ => self.english,
        }
    }

    fn with(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

/// The row of the table for an error.
#[expect(clippy::too_many_lines, reason = "it is the table")]
pub fn answer_to(error: &RequestError) -> ErrorAnswer {
    use RequestError as E;
    match error {
        E::NotFound => gateway(1_306_404, "The content does not exist").with(StatusCode::NOT_FOUND),
        E::MethodNotAllowed(_) => {
            gateway(1_306_209, "The interface does not support the request method")
                .with(StatusCode::METHOD_NOT_ALLOWED)
        }
        E::Overloaded => unavailable("The server is overloaded"),
        E::Unavailable(service) => unavailable(format_args!("{service} is unavailable")),
        E::NeedsAttention => {
            gateway(1_306_201, "The database needs attention, please contact the administrator")
                .with(StatusCode::SERVICE_UNAVAILABLE)
        }
        E::Internal => {
            common_error("Internal error, please try again later or contact the administrator")
                .with(StatusCode::INTERNAL_SERVER_ERROR)
        }
        E::TooManyHeaders(limit) => {
            parameter_error(format_args!("the request has more than {limit} headers"))
                .with(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        }
        E::BodyTooLarge(limit) => {
            parameter_error(format_args!("the request body is larger than {limit} bytes"))
                .with(StatusCode::PAYLOAD_TOO_LARGE)
        }
        E::BodyTimeout | E::NotJson(_) => {
            common_error("Request JSON string is wrong in format, which cannot be analyzed.")
        }
        E::MissingPathVariable(name) => parameter_error(format_args!("param {name} is required")),
        E::AuthorizationNotJson => parameter_error(
            "request header X-Bkapi-Authorization is not a valid JSON format string",
        ),
        E::AppMissing => {
            common_error("APP Code [bk_app_code] and APP Secret [bk_app_secret] cannot be empty")
        }
        E::AppCodeMissing => common_error("APP Code [bk_app_code] cannot be empty"),
        E::AppSecretMissing => common_error("APP Secret [bk_app_secret] cannot be empty"),
        E::InvalidIdentityHeader(reason) => {
            gateway(1_306_408, format!("APIGateway JWT verification failed, {reason}"))
        }
        E::UserHeaderMissing => {
            gateway(1_306_408, "APIGateway JWT verification failed, [BK_USER] is missing")
        }
        // Only the log names the address.
        E::UntrustedPeer(_) | E::GatewayTokenMissing => {
            gateway(1_306_408, "APIGateway JWT verification failed, [X-Bkapi-JWT] is missing")
        }
        E::NotVerifiedByGateway(message) => common_error(message),
        E::SignatureUnsupported => {
            common_error("bk_signature is not supported, please use bk_app_secret")
        }
        E::AccessTokenUnsupported => {
            common_error("bk_access_token is not supported, please use bk_token or bk_username")
        }
        E::UnknownApp(code) => common_error(format!(
            "Invalid APP Code [bk_app_code={code}], please confirm if the APP Code has been \
             registered"
        )),
        E::WrongSecret(code) => common_error(format!(
            "APP Secret verification failed, please confirm if the APP Secret and APP Code \
             [bk_app_code={code}] match"
        )),
        E::InvalidToken => {
            common_error("User authentication failed, please check if the bk_token is valid")
        }
        E::UserMissing => common_error(
            "User authentication failed, please provide a valid user identity, such as bk_token, \
             bk_username",
        ),
        E::AppNotAllowed(name) => {
            let english = format!(
                "APP permission is insufficient, APP has no permission to access the component \
                 ({name}) of the system (CC)."
            );
            gateway(1_306_403, english)
        }
        E::InvalidIdempotencyKey => parameter_error(format_args!(
            "Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_LIMIT} visible ASCII characters"
        )),
        E::IdempotencyKeysDiffer => {
            parameter_error("Idempotency-Key and idempotency_key are not the same")
        }
        E::IdempotencyKeyReused => {
            parameter_error("Idempotency-Key was used with a different request")
        }
        E::RateLimited(RateLimit { app, rate, .. }) => {
            let caller = app.as_ref().map_or("the user".to_owned(), |app| format!("APP [{app}]"));
            let english = format!(
                "Access frequency limit, Access frequency of {caller} exceeds the limit; the \
                 frequency limit is [{rate} details per second], please try again later"
            );
            gateway(1_306_429, english).with(StatusCode::TOO_MANY_REQUESTS)
        }

        E::WrongType { path, problem } => cmdb(
            1_199_000,
            format!("Deserializing JSON data failed: {path}: {problem}"),
            format!("反序列化JSON数据失败: {path}: {problem}"),
        ),
        E::MissingField(field) => cmdb(
            1_199_011,
            format!("'{field}' the parameter is invalid or does not exist"),
            format!("'{field}' 参数无效或不存在"),
        ),
        E::UnassignedField(field) => {
            cmdb(1_199_010, format!("'{field}' unassigned"), format!("'{field}' 未赋值"))
        }
        E::NotAnInteger(field) => cmdb(
            1_199_009,
            format!("'{field}' parameters must be integral"),
            format!("'{field}' 参数必须是整型"),
        ),
        E::InvalidInput => cmdb(1_199_003, "invalid input parameter", "输入参数无效"),
        E::InvalidField(field) => cmdb(
            1_199_006,
            format!("'{field}' data parameter verification does not pass"),
            format!("'{field}' 数据参数校验不通过"),
        ),
        E::WithoutCode(why) => cmdb(
            1_199_998,
            format!("Unknown or unrecognized error: {why}"),
            format!("未知或未能识别的异常: {why}"),
        ),
        // The original suggests 200 whatever the limit is.
        E::PageTooLarge => cmdb(
            1_199_059,
            "page limit is exceeded. suggestion 200",
            "分页查询数量超过限制的最大值, 建议值200",
        ),
        E::NoDetails => cmdb(1_199_038, "details must not be empty", "数据 details 不能为空"),
        E::TooManyDetails => cmdb(
            1_199_035,
            format!("details exceed the limit {DETAIL_LIMIT}"),
            format!("details 超过限制 {DETAIL_LIMIT}"),
        ),
        E::UnknownModelAssociation => {
            cmdb(1_101_046, "object association does not exist.", "模型的关联关系不存在")
        }
        E::ModelMismatch(End::Source) => answer_to(&E::InvalidField("bk_obj_id".into())),
        E::ModelMismatch(End::Target) => answer_to(&E::InvalidField("bk_asst_obj_id".into())),
        E::LinkRefused(DetailError::AlreadyExists) => cmdb(
            1_199_014,
            "duplicated instances exist, fields [association] duplicated",
            "数据唯一性校验失败， association 重复",
        ),
        E::LinkRefused(error) => {
            // The text of these errors does not name the models.
            let text = |language| detail_text(*error, language, "", "");
            cmdb(error.code().unsigned_abs(), text(Language::English), text(Language::Chinese))
        }
        E::DetailRefused { error, source_model, target_model } => {
            let text = |language| detail_text(*error, language, source_model, target_model);
            cmdb(error.code().unsigned_abs(), text(Language::English), text(Language::Chinese))
        }
        E::Change(error) => change_error::answer_to(error),
        E::PermissionDenied(_) => {
            cmdb(9_900_403, "Do not have access permission.", "没有操作的权限")
        }
    }
}

/// The text of a detail's error, for a pair of models.
pub fn detail_text(
    error: DetailError, language: Language, source: &str, target: &str,
) -> Cow<'static, str> {
    use DetailError as E;
    let is_english = language == Language::English;
    let (english, chinese) = match error {
        E::AlreadyExists if is_english => {
            return format!("the associations {source}->{target} already exist").into();
        }
        E::AlreadyExists => return format!("关联关系 {source}->{target} 重复").into(),
        E::SourceMissing => ("Association instance does not exist", "关联实例不存在"),
        E::TargetMissing => ("Associated instance does not exist", "被关联实例不存在"),
        E::OneToOneTaken => (
            "can not create multiple instance association for a 1:1 association.",
            "关联关系为1:1的，不能同时关联多个实例",
        ),
        E::OneToManyTaken => (
            "The relationship is 1:n, and multiple source model instances cannot be associated at \
             the same time.",
            "关联关系为1:n的，不能同时关联多个源模型实例",
        ),
    };
    Cow::Borrowed(if is_english { english } else { chinese })
}

/// The headers that belong to an error.
pub(super) fn headers_of(error: &RequestError) -> HeaderMap {
    let headers = match error {
        RequestError::MethodNotAllowed(method) => vec![(header::ALLOW, (*method).to_owned())],
        RequestError::RateLimited(RateLimit { rate, burst, remaining, wait, .. }) => {
            // Two are of the IETF draft "RateLimit header fields for HTTP".
            let policy = format!("\"details\";q={burst};w={}", burst.div_ceil(*rate));
            let state = format!("\"details\";r={remaining};t={wait}");
            vec![
                (header::RETRY_AFTER, wait.to_string()),
                (HeaderName::from_static("ratelimit-policy"), policy),
                (HeaderName::from_static("ratelimit"), state),
            ]
        }
        RequestError::Unavailable(_) | RequestError::Overloaded => {
            vec![(header::RETRY_AFTER, "2".to_owned())]
        }
        // A person has to repair it.
        RequestError::NeedsAttention => vec![(header::RETRY_AFTER, "30".to_owned())],
        _ => Vec::new(),
    };
    headers.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect()
}

/// One error of each kind with which every endpoint may refuse a request, roughly in the order in
/// which they are found. The API description shows them.
pub fn common_errors(endpoint: &'static str) -> Vec<RequestError> {
    use RequestError as E;
    let app = || "my_app".to_owned();
    vec![
        E::NotFound,
        E::MethodNotAllowed("POST"),
        E::Overloaded,
        E::TooManyHeaders(100),
        E::BodyTooLarge(1 << 20),
        E::BodyTimeout,
        E::NotJson(NotJson::Empty),
        E::AuthorizationNotJson,
        E::AppMissing,
        E::AppCodeMissing,
        E::AppSecretMissing,
        E::InvalidIdentityHeader("[X-Bkapi-JWT] has expired"),
        E::UserHeaderMissing,
        E::UntrustedPeer(None),
        E::GatewayTokenMissing,
        E::NotVerifiedByGateway("app not found".to_owned()),
        E::SignatureUnsupported,
        E::AccessTokenUnsupported,
        E::UnknownApp(app()),
        E::WrongSecret(app()),
        E::InvalidToken,
        E::UserMissing,
        E::AppNotAllowed(endpoint),
        E::WrongType {
            path: "details[3].bk_inst_id".to_owned(),
            problem: "expected an integer, got a string".to_owned(),
        },
        E::MissingPathVariable("bk_obj_id"),
        E::WithoutCode("condition.id: the operator $mod is not supported".into()),
        E::InvalidIdempotencyKey,
        E::IdempotencyKeysDiffer,
        E::RateLimited(RateLimit {
            app: Some(app()),
            rate: 100,
            burst: 500,
            remaining: 0,
            wait: 2,
        }),
        E::PermissionDenied(vec![MissingPermission {
            action: Action::EditInstances,
            model: "bk_switch".to_owned(),
            model_name: "switch".to_owned(),
            model_number: 7,
            instance_id: Some(11),
            instance_name: Some("sw-11".to_owned()),
        }]),
        E::Unavailable("Postgres"),
        E::Unavailable("login service"),
        E::NeedsAttention,
        E::Internal,
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::mem::discriminant;

    use strum::EnumCount;

    use super::*;
    use crate::http::endpoints::ENDPOINTS;

    #[test]
    fn every_error_is_described_for_some_endpoint_with_its_texts() {
        let own = ENDPOINTS.iter().flat_map(|endpoint| (endpoint.errors)());
        let errors: Vec<_> = common_errors("name").into_iter().chain(own).collect();
        let kinds: HashSet<_> = errors.iter().map(discriminant).collect();
        assert_eq!(kinds.len(), RequestError::COUNT, "an error is missing in the description");
        for error in &errors {
            let ErrorAnswer { code, english, chinese, .. } = answer_to(error);
            assert!(!english.is_empty() && chinese.as_deref() != Some(""), "{error:?}");
            // The gateway's errors are English only, the CMDB's are in both languages.
            assert_eq!(chinese.is_none(), (1_300_000..1_400_000).contains(&code), "{error:?}");
        }
    }

    #[test]
    fn every_detail_error_has_a_text_in_each_language() {
        for &error in DetailError::ALL {
            let english = detail_text(error, Language::English, "a", "b");
            let chinese = detail_text(error, Language::Chinese, "a", "b");
            assert!(english.is_ascii() && !chinese.is_ascii(), "{english} {chinese}");
        }
    }
}
