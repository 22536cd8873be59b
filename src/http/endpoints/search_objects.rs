//! `search_objects`: the models that satisfy a condition.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::Endpoint;
use crate::domain::condition::{Condition, ModelField};
use crate::domain::error::RequestError;
use crate::http::filter::{MongoCondition, parse_body_as_condition};
use crate::http::json::RawJson;
use crate::http::model::ModelData;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::model::find;

/// A search for models.
#[derive(Deserialize)]
pub(super) struct SearchModelsBody {
    condition: Option<RawJson>,
}

impl PartialSchema for SearchModelsBody {
    fn schema() -> RefOr<Schema> {
        MongoCondition::schema()
    }
}

impl ToSchema for SearchModelsBody {}

/// The models that were found, in the order of their ids.
#[derive(Serialize, ToSchema)]
pub(super) struct SearchModelsData(Vec<ModelData>);

pub(super) struct SearchObjects;

impl Endpoint for SearchObjects {
    type Body = SearchModelsBody;
    type Input = Condition<ModelField>;
    type Data = SearchModelsData;

    const SUMMARY: &'static str = "Find models";

    const DESCRIPTION: &'static str = "Returns the models of the tenant and of tenant `0`. The \
        fields of the body are a condition in MongoDB's form, such as `\"bk_obj_id\": \
        \"bk_switch\"` or `\"bk_ishidden\": false`; without any, all models are returned. Times \
        cannot be tested. Names are compared as they are stored, not as they are shown. The user \
        must be allowed to view all models that are found.";

    const ONLY_READS: bool = true;

    const WHOLE_BODY: Option<&'static str> = Some("condition");

    fn check(body: SearchModelsBody) -> Result<Condition<ModelField>, RequestError> {
        parse_body_as_condition(body.condition)
    }

    async fn handle(
        cx: &RequestContext<'_>, condition: &Condition<ModelField>,
    ) -> Result<Success<SearchModelsData>, Error> {
        let found = find(cx, condition).await?;
        let counts = Counts { rows: Some(found.len()), ..Counts::default() };
        let found = found.into_iter().map(|model| ModelData::new(model, cx.language)).collect();
        Ok(Success::new(SearchModelsData(found), counts))
    }

    fn example() -> (Value, Value) {
        let model = json!({
            "id": 3,
            "bk_classification_id": "bk_network",
            "bk_obj_icon": "icon-cc-switch2",
            "bk_obj_id": "bk_switch",
            "bk_obj_name": "Switch",
            "bk_ishidden": false,
            "ispre": false,
            "bk_ispaused": false,
            "position": "",
            "bk_supplier_account": "0",
            "description": "",
            "creator": "cc_system",
            "modifier": "",
            "create_time": "0001-01-01 00:00:00",
            "last_time": "0001-01-01 00:00:00",
            "obj_sort_number": 1,
        });
        (json!({"bk_obj_id": "bk_switch"}), json!([model]))
    }

    fn errors() -> Vec<RequestError> {
        Vec::new()
    }
}
