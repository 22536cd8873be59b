//! `delete_related_inst_asso`: deletes up to 500 links by their ids and says how many there were.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::error::RequestError;
use crate::http::json::Integer;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::deletion::{DeleteLinks, delete, find_replay};

/// The most ids of a request, repeated ones included.
const ID_LIMIT: usize = 500;

/// A request to delete associations.
#[derive(Deserialize, ToSchema)]
pub(super) struct DeleteManyBody {
    /// The ids of the associations. 0 and negative ones are ignored.
    #[schema(required, nullable = false, min_items = 1, max_items = 500)]
    id: Option<Vec<Option<Integer>>>,
    /// The source or the target model of the associations.
    #[schema(required, nullable = false, min_length = 1)]
    bk_obj_id: Option<String>,
}

/// How many associations were deleted.
#[derive(Serialize, ToSchema)]
pub(super) struct DeleteManyData(i64);

pub(super) struct DeleteRelatedInstAsso;

impl Endpoint for DeleteRelatedInstAsso {
    type Body = DeleteManyBody;
    type Input = DeleteLinks;
    type Data = DeleteManyData;

    const SUMMARY: &'static str = "Delete associations by their ids";

    const DESCRIPTION: &'static str = "Deletes up to 500 associations in one commit. `data` is the \
        number of those that were there. Ids that are unknown, or of another tenant or model, are \
        ignored. Deleting takes a grant to edit both instances of each association; if an instance \
        is gone, a grant to edit all instances of its model. Without one, nothing is deleted.";

    fn check(body: DeleteManyBody) -> Result<DeleteLinks, RequestError> {
        let ids = body.id.filter(|ids| !ids.is_empty()).ok_or(RequestError::InvalidInput)?;
        if ids.len() > ID_LIMIT {
            return Err(RequestError::PageTooLarge);
        }
        let model = body.bk_obj_id.filter(|key| !key.is_empty());
        let model = model.ok_or(RequestError::UnassignedField("bk_obj_id"))?;
        let ids = ids.into_iter().flatten().map(|id| id.0).collect();
        Ok(DeleteLinks::new("delete_related_inst_asso", model, ids))
    }

    fn cost(links: &DeleteLinks) -> usize {
        links.count().max(1)
    }

    async fn find_replay(
        cx: &RequestContext<'_>, links: &DeleteLinks,
    ) -> Result<Option<Success<DeleteManyData>>, Error> {
        let replay = find_replay(cx, links).await?;
        Ok(replay.map(|replay| Success::replayed(replay, success)))
    }

    async fn handle(
        cx: &RequestContext<'_>, links: &DeleteLinks,
    ) -> Result<Success<DeleteManyData>, Error> {
        delete(cx, links).await.map(success)
    }

    fn example() -> (Value, Value) {
        (json!({"bk_obj_id": "host", "id": [7, 8, 999]}), json!(2))
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::InvalidInput,
            RequestError::PageTooLarge,
            RequestError::UnassignedField("bk_obj_id"),
            RequestError::IdempotencyKeyReused,
        ]
    }
}

fn success(deleted: i64) -> Success<DeleteManyData> {
    let counts = Counts { deleted: Some(deleted), ..Counts::default() };
    Success::new(DeleteManyData(deleted), counts)
}
