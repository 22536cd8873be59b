//! `batch_delete_inst`: deletes instances of a model in one commit.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::http::instance::require_own_model;
use crate::http::json::Integer;
use crate::http::nothing::Nothing;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance::delete;

/// A request to delete instances.
#[derive(Deserialize, ToSchema)]
pub(super) struct DeleteInstancesBody {
    /// The model.
    #[schema(required, nullable = false)]
    bk_obj_id: Option<PathVariable>,
    /// Which instances.
    delete: Option<InstanceIds>,
}

/// The ids of instances.
#[derive(Default, Deserialize, ToSchema)]
struct InstanceIds {
    /// The ids. Unknown ones are ignored.
    inst_ids: Option<Vec<Option<Integer>>>,
}

pub(super) struct BatchDeleteInst;

impl Endpoint for BatchDeleteInst {
    type Body = DeleteInstancesBody;
    /// The model, and the ids of the instances.
    type Input = (String, Vec<i64>);
    type Data = Nothing;

    const SUMMARY: &'static str = "Delete instances of a model";

    const DESCRIPTION: &'static str = "Deletes instances of the tenant in one commit. If one of \
        them has associations, none is deleted. Ids that the tenant does not have are ignored.";

    fn check(body: DeleteInstancesBody) -> Result<Self::Input, RequestError> {
        let model = require_own_model(body.bk_obj_id, &[])?;
        let ids = body.delete.unwrap_or_default().inst_ids.unwrap_or_default();
        Ok((model, ids.into_iter().flatten().map(|Integer(id)| id).collect()))
    }

    fn cost((_, ids): &Self::Input) -> usize {
        ids.len().max(1)
    }

    async fn handle(
        cx: &RequestContext<'_>, (model, ids): &Self::Input,
    ) -> Result<Success<Nothing>, Error> {
        let deleted = Some(delete(cx, model, ids).await?);
        Ok(Success::new(Nothing, Counts { deleted, ..Counts::default() }))
    }

    fn example() -> (Value, Value) {
        (json!({"bk_obj_id": "rack", "delete": {"inst_ids": [35, 36]}}), Value::Null)
    }

    fn errors() -> Vec<RequestError> {
        vec![ChangeError::BuiltInInstance.into(), ChangeError::LinkedInstance.into()]
    }
}
