//! One refusal of each kind, for the description of the API.

use super::caller::Unsupported;
use super::fault::{Fault, Field, Limit, Where};
use super::permission::Needed;

/// One of each, in the order in which a request is judged.
pub fn faults() -> Vec<Fault> {
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
        Fault::NotFound,
        Fault::MethodNotAllowed,
        Fault::Overloaded,
        Fault::BodyTooLarge(1 << 20),
        Fault::UnfinishedBody,
        Fault::NotJson,
        Fault::HeaderNotJson,
        Fault::NoApp,
        Fault::NoAppCode,
        Fault::NoAppSecret,
        Fault::GatewayToken("[X-Bkapi-JWT] is missing"),
        Fault::GatewayRefused("app not found".to_owned()),
        Fault::Unsupported(Unsupported::Signature),
        Fault::Unsupported(Unsupported::AccessToken),
        Fault::UnknownApp(code()),
        Fault::WrongSecret(code()),
        Fault::InvalidToken,
        Fault::NoUser,
        Fault::ApiForbidden("batch_create_instance_association"),
        Fault::WrongType(wrong),
        Fault::Missing(Field::ModelAssociation),
        Fault::NoDetails,
        Fault::TooManyDetails,
        Fault::BadKey,
        Fault::RateLimited(limit),
        Fault::KeyReused,
        Fault::UnknownModelAssociation,
        Fault::Mismatch(Field::SourceModel),
        Fault::NoPermission(vec![needed]),
        Fault::Unavailable("Postgres"),
        Fault::Unavailable("login service"),
        Fault::Internal,
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
        assert_eq!(kinds.len(), Fault::COUNT);
    }
}
