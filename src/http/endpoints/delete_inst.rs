//! `delete_inst`: deletes an instance.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::http::instance::require_own_model;
use crate::http::nothing::Nothing;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance::delete;

/// A request to delete an instance.
#[derive(Deserialize, ToSchema)]
pub(super) struct DeleteInstanceBody {
    /// The model.
    #[schema(required, nullable = false)]
    bk_obj_id: Option<PathVariable>,
    /// The id of the instance.
    #[schema(required, nullable = false)]
    bk_inst_id: Option<PathVariable>,
}

pub(super) struct DeleteInst;

impl Endpoint for DeleteInst {
    type Body = DeleteInstanceBody;
    /// The model, and the id of the instance.
    type Input = (String, i64);
    type Data = Nothing;

    const SUMMARY: &'static str = "Delete an instance";

    const DESCRIPTION: &'static str = "Deletes an instance of the tenant that has no associations. \
        If the tenant has no instance with this id, nothing happens, and the answer is the same.";

    fn check(body: DeleteInstanceBody) -> Result<Self::Input, RequestError> {
        let model = require_own_model(body.bk_obj_id, &[])?;
        let id = body.bk_inst_id.and_then(|id| id.integer());
        Ok((model, id.ok_or(RequestError::NotAnInteger("inst id"))?))
    }

    async fn handle(
        cx: &RequestContext<'_>, (model, id): &Self::Input,
    ) -> Result<Success<Nothing>, Error> {
        let deleted = Some(delete(cx, model, &[*id]).await?);
        Ok(Success::new(Nothing, Counts { deleted, ..Counts::default() }))
    }

    fn example() -> (Value, Value) {
        (json!({"bk_obj_id": "rack", "bk_inst_id": 35}), Value::Null)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            ChangeError::BuiltInInstance.into(),
            RequestError::NotAnInteger("inst id"),
            ChangeError::LinkedInstance.into(),
        ]
    }
}
