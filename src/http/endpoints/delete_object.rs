//! `delete_object`: deletes a model.

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
use crate::service::context::RequestContext;
use crate::service::model::delete;

/// A request to delete a model.
#[derive(Deserialize, ToSchema)]
pub(super) struct DeleteModelBody {
    /// The id of the model.
    #[schema(required, nullable = false)]
    id: Option<PathVariable>,
}

pub(super) struct DeleteObject;

impl Endpoint for DeleteObject {
    type Body = DeleteModelBody;
    type Input = i64;
    type Data = Nothing;

    const SUMMARY: &'static str = "Delete a model";

    const DESCRIPTION: &'static str = "Deletes a model of the tenant, and the grants for it, if it \
        has neither instances nor model associations. If the tenant has no model with this id, \
        nothing happens, and the answer is the same.";

    fn check(body: DeleteModelBody) -> Result<i64, RequestError> {
        let id = body.id.and_then(|id| id.integer());
        id.ok_or(RequestError::InvalidField("id".into()))
    }

    async fn handle(cx: &RequestContext<'_>, id: &i64) -> Result<Success<Nothing>, Error> {
        let deleted = i64::from(delete(cx, *id).await?);
        let counts = Counts { deleted: Some(deleted), ..Counts::default() };
        Ok(Success::new(Nothing, counts))
    }

    fn example() -> (Value, Value) {
        (json!({"id": 27}), Value::Null)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::InvalidField("id".into()),
            ChangeError::BuiltInModel.into(),
            ChangeError::ModelHasInstances("rack".to_owned()).into(),
            ChangeError::ModelHasAssociations.into(),
        ]
    }
}
