//! `search_object_instances`: one page of the instances of a model that satisfy a condition.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::condition::Condition;
use crate::domain::error::RequestError;
use crate::http::filter::{Dialect, QueryFilter, parse_query_filter};
use crate::http::instance::{InstanceData, require_own_model};
use crate::http::instance_search::{InstanceTimeCondition, parse_keys};
use crate::http::json::RawJson;
use crate::http::page::Page;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance_search::{InstanceSearch, condition_too_expensive, search};

/// The largest `page.limit`.
const PAGE_LIMIT: i64 = 500;

/// A search for instances of a model.
#[derive(Deserialize, ToSchema)]
pub(super) struct SearchInstancesBody {
    /// The model.
    #[schema(required, nullable = false)]
    bk_obj_id: Option<PathVariable>,
    /// Which instances to return; all of them by default.
    #[schema(value_type = Option<QueryFilter>)]
    conditions: Option<RawJson>,
    /// When they were created or changed.
    time_condition: Option<InstanceTimeCondition>,
    /// The keys of each instance to return. Empty or absent: all.
    fields: Option<Vec<String>>,
    /// The part of the list. `limit` is required, 1 to 500.
    #[schema(required, nullable = false)]
    page: Option<Page>,
}

/// One page of instances.
#[derive(Serialize, ToSchema)]
pub(super) struct SearchInstancesData {
    /// The instances; null if there are none.
    info: Option<Vec<InstanceData>>,
}

pub(super) struct SearchObjectInstances;

impl Endpoint for SearchObjectInstances {
    type Body = SearchInstancesBody;
    type Input = InstanceSearch;
    type Data = SearchInstancesData;

    const SUMMARY: &'static str = "Search the instances of a model, page by page";

    const DESCRIPTION: &'static str = "Returns the tenant's instances of a model. An unknown model \
        has none. An index serves conditions of fields that equal a value.";

    const ONLY_READS: bool = true;

    fn check(body: SearchInstancesBody) -> Result<InstanceSearch, RequestError> {
        let model = require_own_model(body.bk_obj_id, &[])?;
        let page = body.page.unwrap_or_default();
        let limit = page.limit()?;
        if !(1..=PAGE_LIMIT).contains(&limit) {
            return Err(RequestError::InvalidField("page.limit".into()));
        }
        let condition = parse_query_filter(Dialect::Instances, "conditions", body.conditions)?;
        let time = body.time_condition.map(InstanceTimeCondition::parse).transpose()?;
        Ok(InstanceSearch {
            model,
            condition: Condition::all([condition].into_iter().chain(time)),
            sort: page.sort()?,
            start: page.start()?,
            limit: Some(limit),
            fields: parse_keys("fields", body.fields)?,
        })
    }

    async fn handle(
        cx: &RequestContext<'_>, input: &InstanceSearch,
    ) -> Result<Success<SearchInstancesData>, Error> {
        let found = search(cx, input).await?;
        let rows = found.len();
        let info: Vec<_> = found.into_iter().map(InstanceData::new).collect();
        let data = SearchInstancesData { info: Some(info).filter(|info| !info.is_empty()) };
        Ok(Success::new(data, Counts { rows: Some(rows), ..Counts::default() }))
    }

    fn example() -> (Value, Value) {
        let body = json!({
            "bk_obj_id": "rack",
            "conditions": {"field": "rows", "operator": "equal", "value": 42},
            "fields": ["bk_inst_id", "bk_inst_name"],
            "page": {"limit": 10},
        });
        (body, json!({"info": [{"bk_inst_id": 34, "bk_inst_name": "rack-9"}]}))
    }

    fn errors() -> Vec<RequestError> {
        vec![
            ChangeError::BuiltInInstance.into(),
            RequestError::InvalidField("page.limit".into()),
            RequestError::UnassignedField("time_condition.rules"),
            condition_too_expensive(),
        ]
    }
}
