//! One refusal of each kind, for the description of the API.

use super::caller::Unsupported;
use super::error::{Field, Limit, RequestError, Where};
use super::permission::Needed;

/// One of each, in the order in which a request is judged.
pub fn faults() -> Vec<RequestError> {
    let code = || "my_app".to_owned();
    let wrong = Where {
        path: "details[3].bk_inst_id".to_owned(),
        problem: "expected an integer, got a string".to_owned(),
    };
    let limit = Limit { app: code(), rate: 100, burst: 200, remaining: 0, wait: 2 };
    let needed = Needed {
        model: "bk_switch".to_owned(),
        model_name: "switch".to_owned(),
        model_number: 7,
        instance_id: 11,
        name: Some("sw-11".to_owned()),
    };
    vec![
        RequestError::NotFound,
        RequestError::MethodNotAllowed,
        RequestError::Overloaded,
        RequestError::BodyTooLarge(1 << 20),
        RequestError::UnfinishedBody,
        RequestError::NotJson,
        RequestError::HeaderNotJson,
        RequestError::NoApp,
        RequestError::NoAppCode,
        RequestError::NoAppSecret,
        RequestError::GatewayToken("[X-Bkapi-JWT] is missing"),
        RequestError::GatewayRefused("app not found".to_owned()),
        RequestError::Unsupported(Unsupported::Signature),
        RequestError::Unsupported(Unsupported::AccessToken),
        RequestError::UnknownApp(code()),
        RequestError::WrongSecret(code()),
        RequestError::InvalidToken,
        RequestError::NoUser,
        RequestError::ApiForbidden("batch_create_instance_association"),
        RequestError::WrongType(wrong),
        RequestError::Missing(Field::ModelAssociation),
        RequestError::NoDetails,
        RequestError::TooManyDetails,
        RequestError::BadKey,
        RequestError::RateLimited(limit),
        RequestError::KeyReused,
        RequestError::UnknownModelAssociation,
        RequestError::Mismatch(Field::SourceModel),
        RequestError::NoPermission(vec![needed]),
        RequestError::Unavailable("Postgres"),
        RequestError::Unavailable("login service"),
        RequestError::Internal,
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::mem::discriminant;

    use strum::EnumCount;

    use super::*;

    #[test]
    fn there_is_one_of_each_kind() {
        let kinds: HashSet<_> = faults().iter().map(discriminant).collect();
        assert_eq!(kinds.len(), RequestError::COUNT);
    }
}
