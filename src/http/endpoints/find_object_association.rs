//! `find_object_association`: the model associations that satisfy a condition.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::condition::{Condition, ModelAssociationField};
use crate::domain::error::RequestError;
use crate::http::filter::{MongoCondition, parse_mongo_condition};
use crate::http::json::RawJson;
use crate::http::model_association::ModelAssociationData;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::model_association::find;

/// A search for model associations.
#[derive(Deserialize, ToSchema)]
pub(super) struct FindModelAssociationsBody {
    /// Which model associations to return. It must not be empty.
    #[schema(required, nullable = false, value_type = MongoCondition)]
    condition: Option<RawJson>,
}

/// The model associations that were found, in the order of their ids.
#[derive(Serialize, ToSchema)]
pub(super) struct FindModelAssociationsData(Vec<ModelAssociationData>);

/// What is searched for.
pub(super) struct ModelAssociationSearch {
    condition: Condition<ModelAssociationField>,
    /// The model that the condition names by `bk_obj_id`, else by `bk_asst_obj_id`.
    named_model: Option<String>,
}

pub(super) struct FindObjectAssociation;

impl Endpoint for FindObjectAssociation {
    type Body = FindModelAssociationsBody;
    type Input = ModelAssociationSearch;
    type Data = FindModelAssociationsData;

    const SUMMARY: &'static str = "Find which models may be associated";

    const DESCRIPTION: &'static str = "Returns the model associations of the tenant and of tenant \
        `0`. If the condition says what `bk_obj_id` is, or else `bk_asst_obj_id`, the user must be \
        allowed to view that model. Otherwise model associations of which the user may view \
        neither model are left out.";

    const ONLY_READS: bool = true;

    fn check(body: FindModelAssociationsBody) -> Result<ModelAssociationSearch, RequestError> {
        let missing = || RequestError::MissingField("condition".into());
        let RawJson(json) = body.condition.ok_or_else(missing)?;
        // What is no object is refused with the condition.
        let fields: Option<Map<String, Value>> = serde_json::from_str(&json).ok();
        if fields.as_ref().is_some_and(Map::is_empty) {
            return Err(missing());
        }
        let named = |name| fields.as_ref()?.get(name)?.as_str().map(str::to_owned);
        let named_model = named("bk_obj_id").or_else(|| named("bk_asst_obj_id"));
        Ok(ModelAssociationSearch {
            condition: parse_mongo_condition(Some(RawJson(json)))?,
            named_model,
        })
    }

    async fn handle(
        cx: &RequestContext<'_>, input: &ModelAssociationSearch,
    ) -> Result<Success<FindModelAssociationsData>, Error> {
        let found = find(cx, &input.condition, input.named_model.as_deref()).await?;
        let counts = Counts { rows: Some(found.len()), ..Counts::default() };
        let found = found.into_iter().map(Into::into).collect();
        Ok(Success::new(FindModelAssociationsData(found), counts))
    }

    fn example() -> (Value, Value) {
        let body = json!({"condition": {"bk_obj_id": "bk_switch", "bk_asst_obj_id": "host"}});
        let association = json!({
            "id": 1,
            "bk_supplier_account": "0",
            "bk_obj_asst_id": "bk_switch_connect_host",
            "bk_obj_asst_name": "",
            "bk_obj_id": "bk_switch",
            "bk_asst_obj_id": "host",
            "bk_asst_id": "connect",
            "mapping": "1:n",
            "on_delete": "none",
            "ispre": false,
        });
        (body, json!([association]))
    }

    fn errors() -> Vec<RequestError> {
        vec![RequestError::MissingField("condition".into())]
    }
}
