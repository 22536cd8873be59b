//! `add_instance_association`: creates one link.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::batch::{CreateLink, Detail};
use crate::domain::error::{DetailError, RequestError};
use crate::http::json::Integer;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance_association::{create_one, find_replay_of_one};

/// A request to create a link.
#[derive(Deserialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the fields are those on the wire")]
pub(super) struct AddBody {
    /// The association between the two models.
    #[schema(required, nullable = false)]
    bk_obj_asst_id: Option<String>,
    /// The source instance.
    #[schema(required, nullable = false)]
    bk_inst_id: Option<Integer>,
    /// The target instance.
    #[schema(required, nullable = false)]
    bk_asst_inst_id: Option<Integer>,
}

/// The new link.
#[derive(Serialize, ToSchema)]
pub(super) struct AddData {
    /// Its id.
    id: i64,
}

pub(super) struct AddInstanceAssociation;

impl Endpoint for AddInstanceAssociation {
    type Body = AddBody;
    type Input = CreateLink;
    type Data = AddData;

    const SUMMARY: &'static str = "Create an association between two instances";

    const DESCRIPTION: &'static str = "The checks are made in this order: the model association \
        exists, its mapping allows another association of these instances, the same association \
        does not exist, the source exists, the target exists.";

    /// Only the database knows what is wrong: no model association has an empty key, and without an
    /// id the instance does not exist.
    fn check(body: AddBody) -> Result<CreateLink, RequestError> {
        let AddBody { bk_obj_asst_id, bk_inst_id, bk_asst_inst_id } = body;
        let pair =
            Detail { source: bk_inst_id.map(|id| id.0), target: bk_asst_inst_id.map(|id| id.0) };
        Ok(CreateLink { model_association: bk_obj_asst_id.unwrap_or_default(), pair })
    }

    async fn find_replay(
        cx: &RequestContext<'_>, link: &CreateLink,
    ) -> Result<Option<Success<AddData>>, Error> {
        let replay = find_replay_of_one(cx, link).await?;
        Ok(replay.map(|replay| Success::replayed(replay, success)))
    }

    async fn handle(cx: &RequestContext<'_>, link: &CreateLink) -> Result<Success<AddData>, Error> {
        create_one(cx, link).await.map(success)
    }

    fn example() -> (Value, Value) {
        let body = json!({
            "bk_obj_asst_id": "rack_group_bk_switch",
            "bk_inst_id": 22,
            "bk_asst_inst_id": 13,
        });
        (body, json!({"id": 74}))
    }

    fn errors() -> Vec<RequestError> {
        let refusals = DetailError::ALL.iter().map(|error| RequestError::LinkRefused(*error));
        let own = [RequestError::IdempotencyKeyReused, RequestError::UnknownModelAssociation];
        own.into_iter().chain(refusals).collect()
    }
}

fn success(id: i64) -> Success<AddData> {
    Success::new(AddData { id }, Counts { created: Some(1), ..Counts::default() })
}
