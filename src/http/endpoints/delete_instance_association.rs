//! `delete_instance_association`: deletes one link by its id.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::error::RequestError;
use crate::http::nothing::Nothing;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::deletion::{DeleteLinks, delete, find_replay};

/// A request to delete an association.
#[derive(Deserialize, ToSchema)]
pub(super) struct DeleteBody {
    /// The source or the target model of the association.
    #[schema(required, nullable = false)]
    bk_obj_id: Option<PathVariable>,
    /// The id of the association.
    #[schema(required, nullable = false)]
    id: Option<PathVariable>,
}

pub(super) struct DeleteInstanceAssociation;

impl Endpoint for DeleteInstanceAssociation {
    type Body = DeleteBody;
    type Input = DeleteLinks;
    type Data = Nothing;

    const SUMMARY: &'static str = "Delete an association";

    const DESCRIPTION: &'static str = "Deletes the association with this id, if it is one of the \
        tenant and of the model; otherwise nothing happens, and the answer is the same. Deleting \
        takes a grant to edit both instances; if an instance is gone, a grant to edit all \
        instances of its model.";

    fn check(body: DeleteBody) -> Result<DeleteLinks, RequestError> {
        let model = body.bk_obj_id.map(|PathVariable(key)| key).filter(|key| !key.is_empty());
        let model = model.ok_or(RequestError::UnassignedField("bk_obj_id"))?;
        let id = body.id.and_then(|id| id.integer());
        let id = id.ok_or(RequestError::NotAnInteger("association_id"))?;
        Ok(DeleteLinks::new("delete_instance_association", model, vec![id]))
    }

    async fn find_replay(
        cx: &RequestContext<'_>, links: &DeleteLinks,
    ) -> Result<Option<Success<Nothing>>, Error> {
        let replay = find_replay(cx, links).await?;
        Ok(replay.map(|replay| Success::replayed(replay, success)))
    }

    async fn handle(
        cx: &RequestContext<'_>, links: &DeleteLinks,
    ) -> Result<Success<Nothing>, Error> {
        delete(cx, links).await.map(success)
    }

    fn example() -> (Value, Value) {
        (json!({"bk_obj_id": "bk_switch", "id": 3}), Value::Null)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::UnassignedField("bk_obj_id"),
            RequestError::NotAnInteger("association_id"),
            RequestError::IdempotencyKeyReused,
        ]
    }
}

fn success(deleted: i64) -> Success<Nothing> {
    let counts = Counts { deleted: Some(deleted), ..Counts::default() };
    Success::new(Nothing, counts)
}
