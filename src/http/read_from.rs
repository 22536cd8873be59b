//! From which database a request that only reads is answered.

use serde::Deserialize;
use utoipa::ToSchema;

use super::json::JsonObject;
use crate::domain::error::RequestError;

/// Where to read from, in a body.
#[derive(Default, Deserialize, ToSchema)]
pub(super) struct ReadFromField {
    /// `primary`: from the database that is written, with everything that was answered before.
    /// `any`, the default: perhaps from a replica, which may be some seconds behind.
    #[schema(value_type = Option<ReadFrom>)]
    read_from: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it describes the values of the field")]
enum ReadFrom {
    Primary,
    Any,
}

/// Whether a replica may answer. Fails if the field has a wrong value.
pub(super) fn may_read_from_replica(body: &JsonObject<'_>) -> Result<bool, RequestError> {
    match body.decode::<ReadFromField>()?.read_from.as_deref() {
        None | Some("any") => Ok(true),
        Some("primary") => Ok(false),
        Some(_) => Err(RequestError::WrongType {
            path: "read_from".to_owned(),
            problem: "expected `primary` or `any`".to_owned(),
        }),
    }
}
