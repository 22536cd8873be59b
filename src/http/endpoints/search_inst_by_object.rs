//! `search_inst_by_object`: the instances of a model that satisfy a condition in MongoDB's form.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::http::filter::{MongoCondition, parse_mongo_condition};
use crate::http::instance::require_own_model;
use crate::http::instance_search::{InstancesData, limit_or_all, parse_keys, stream_instances};
use crate::http::json::RawJson;
use crate::http::page::Page;
use crate::http::path::PathVariable;
use crate::http::success::Success;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance_search::{InstanceSearch, condition_too_expensive, find};

/// A search for instances of a model.
#[derive(Deserialize, ToSchema)]
pub(super) struct SearchByObjectBody {
    /// The tenant at the gateway API. In the path at the CMDB API it has no effect: the header says
    /// the tenant.
    #[serde(rename = "bk_supplier_account")]
    #[schema(nullable = false)]
    _bk_supplier_account: Option<PathVariable>,
    /// The model.
    #[schema(required, nullable = false)]
    bk_obj_id: Option<PathVariable>,
    /// Which instances to return; all of them by default.
    #[schema(value_type = Option<MongoCondition>)]
    condition: Option<RawJson>,
    /// The keys of each instance to return. Empty or absent: all.
    fields: Option<Vec<String>>,
    /// The part of the list; all of it by default.
    page: Option<Page>,
}

pub(super) struct SearchInstByObject;

impl Endpoint for SearchInstByObject {
    type Body = SearchByObjectBody;
    type Input = InstanceSearch;
    type Data = InstancesData;

    const SUMMARY: &'static str =
        "Search the instances of a model by a condition of MongoDB's form";

    const DESCRIPTION: &'static str = "Returns the tenant's instances of a model. An unknown model \
        has none.";

    const ONLY_READS: bool = true;

    fn check(body: SearchByObjectBody) -> Result<InstanceSearch, RequestError> {
        let model = require_own_model(body.bk_obj_id, &[])?;
        let condition = parse_mongo_condition(body.condition)?;
        let page = body.page.unwrap_or_default();
        Ok(InstanceSearch {
            model,
            condition,
            sort: page.sort()?,
            start: page.start()?,
            limit: limit_or_all(&page)?,
            fields: parse_keys("fields", body.fields)?,
        })
    }

    async fn handle(
        cx: &RequestContext<'_>, input: &InstanceSearch,
    ) -> Result<Success<InstancesData>, Error> {
        let found = find(cx, input).await?;
        stream_instances(cx, Some(found)).await
    }

    fn example() -> (Value, Value) {
        let body = json!({
            "bk_supplier_account": "0",
            "bk_obj_id": "rack",
            "condition": {"bk_inst_name": {"$regex": "^rack-[12]$"}},
            "fields": ["bk_inst_id", "bk_inst_name"],
            "page": {"limit": 1},
        });
        let info = json!([{"bk_inst_id": 21, "bk_inst_name": "rack-1"}]);
        (body, json!({"count": 2, "info": info}))
    }

    fn errors() -> Vec<RequestError> {
        vec![
            ChangeError::BuiltInInstance.into(),
            RequestError::InvalidField("page.limit".into()),
            condition_too_expensive(),
        ]
    }
}
