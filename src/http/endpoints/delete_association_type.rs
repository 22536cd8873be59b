//! `delete_association_type`: deletes an association kind.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::http::nothing::Nothing;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::association_kind::delete;
use crate::service::context::RequestContext;

/// A request to delete an association kind.
#[derive(Deserialize, ToSchema)]
pub(super) struct DeleteKindBody {
    /// The id of the association kind.
    #[schema(required, nullable = false)]
    id: Option<PathVariable>,
}

pub(super) struct DeleteAssociationType;

impl Endpoint for DeleteAssociationType {
    type Body = DeleteKindBody;
    type Input = i64;
    type Data = Nothing;

    const SUMMARY: &'static str = "Delete an association kind";

    const DESCRIPTION: &'static str = "Deletes an association kind of the tenant, if no model \
        association has it. If the tenant has none with this id, nothing happens, and the answer \
        is the same.";

    fn check(body: DeleteKindBody) -> Result<i64, RequestError> {
        let id = body.id.and_then(|id| id.integer());
        id.ok_or(RequestError::InvalidField("id".into()))
    }

    async fn handle(cx: &RequestContext<'_>, id: &i64) -> Result<Success<Nothing>, Error> {
        let deleted = i64::from(delete(cx, *id).await?);
        let counts = Counts { deleted: Some(deleted), ..Counts::default() };
        Ok(Success::new(Nothing, counts))
    }

    fn example() -> (Value, Value) {
        (json!({"id": 9}), Value::Null)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::InvalidField("id".into()),
            ChangeError::PredefinedKind.into(),
            ChangeError::KindIsUsed.into(),
        ]
    }
}
