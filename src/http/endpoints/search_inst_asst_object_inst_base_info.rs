//! `search_inst_asst_object_inst_base_info`: ids and names of the instances of one model that an
//! instance is linked with.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::condition::LinkField;
use crate::domain::error::RequestError;
use crate::http::json::Integer;
use crate::http::page::Page;
use crate::http::stream;
use crate::http::success::Success;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::linked_instance::{LinkedInstanceSearch, NamedInstance, find};

/// The `page.limit` if it is 0 or absent.
const DEFAULT_LIMIT: i64 = 20;

/// The largest `page.limit`, but for [`NO_LIMIT`].
const PAGE_LIMIT: i64 = 1_000;

/// The `page.limit` that means all.
const NO_LIMIT: i64 = 999_999_999;

/// A search for the instances that an instance is associated with.
#[derive(Deserialize, ToSchema)]
pub(super) struct LinkedInstancesBody {
    /// The instance, and the model of the others.
    #[schema(required, nullable = false)]
    condition: Option<LinkedInstancesCondition>,
    /// The part of the associations. `limit` is 20 by default, at most 1,000, or 999999999 for all.
    page: Option<Page>,
}

/// An instance, and the model of those that it is associated with.
#[derive(Default, Deserialize, ToSchema)]
struct LinkedInstancesCondition {
    /// The instance's model.
    #[schema(required, nullable = false, min_length = 1, examples("bk_switch"))]
    bk_obj_id: Option<String>,
    /// The instance's id, not 0.
    #[schema(required, nullable = false)]
    bk_inst_id: Option<Integer>,
    /// The model of the others.
    #[schema(required, nullable = false, min_length = 1, examples("host"))]
    association_obj_id: Option<String>,
    /// Whether the instance is the target of the associations; by default it is the source.
    is_target_object: Option<bool>,
}

/// What was found.
#[derive(Serialize, ToSchema)]
pub(super) struct LinkedInstancesData {
    /// The number of associations, whatever the page is, with those whose other instance is gone.
    count: i64,
    /// The distinct instances of this page of associations, in the order of their ids; null if
    /// there is none.
    #[schema(required)]
    info: Option<Vec<LinkedInstanceData>>,
}

/// An instance.
#[derive(Serialize, ToSchema)]
struct LinkedInstanceData {
    /// Its id, whatever the model.
    bk_inst_id: i64,
    /// Its name, of a host its addresses.
    bk_inst_name: String,
}

pub(super) struct SearchInstAsstObjectInstBaseInfo;

impl Endpoint for SearchInstAsstObjectInstBaseInfo {
    type Body = LinkedInstancesBody;
    type Input = LinkedInstanceSearch;
    type Data = LinkedInstancesData;

    const SUMMARY: &'static str =
        "Find ids and names of the instances of a model that an instance is associated with";

    const DESCRIPTION: &'static str = "Returns the instances at the other ends of one page of the \
        tenant's associations between the instance and the model. `sort` is for the associations: \
        it says which of them are on the page. Unknown models and instances have none. It takes \
        grants to view both models.";

    const ONLY_READS: bool = true;

    fn check(body: LinkedInstancesBody) -> Result<LinkedInstanceSearch, RequestError> {
        let condition = body.condition.unwrap_or_default();
        let required = |key: Option<String>, field| {
            let key = key.filter(|key| !key.is_empty());
            key.ok_or(RequestError::UnassignedField(field))
        };
        let model = required(condition.bk_obj_id, "bk_obj_id")?;
        let instance_id = condition.bk_inst_id.filter(|id| id.0 != 0);
        let Integer(instance_id) =
            instance_id.ok_or(RequestError::UnassignedField("bk_inst_id"))?;
        let other_model = required(condition.association_obj_id, "association_obj_id")?;
        let page = body.page.unwrap_or_default();
        let limit = match page.limit()? {
            0 => Some(DEFAULT_LIMIT),
            NO_LIMIT => None,
            limit if limit > PAGE_LIMIT => return Err(RequestError::PageTooLarge),
            limit => Some(limit),
        };
        Ok(LinkedInstanceSearch {
            model,
            instance_id,
            is_target: condition.is_target_object.unwrap_or_default(),
            other_model,
            sort: page.sort::<LinkField>()?,
            start: page.start()?,
            limit,
        })
    }

    async fn handle(
        cx: &RequestContext<'_>, input: &LinkedInstanceSearch,
    ) -> Result<Success<LinkedInstancesData>, Error> {
        let (count, pages) = find(cx, input).await?;
        let row = |instance: NamedInstance| LinkedInstanceData {
            bk_inst_id: instance.id,
            bk_inst_name: instance.name.unwrap_or_default(),
        };
        let to_rows = move |page: Vec<_>| page.into_iter().map(row).collect();
        let to_data = |info: Vec<_>| LinkedInstancesData {
            count,
            info: Some(info).filter(|info| !info.is_empty()),
        };
        stream::list(cx, pages, to_rows, to_data).await
    }

    fn example() -> (Value, Value) {
        let condition =
            json!({"bk_obj_id": "power_unit", "bk_inst_id": 31, "association_obj_id": "rack"});
        let info = json!([{"bk_inst_id": 21, "bk_inst_name": "rack-1"}]);
        (json!({"condition": condition}), json!({"count": 1, "info": info}))
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::UnassignedField("association_obj_id"),
            RequestError::InvalidField("page.limit".into()),
            RequestError::PageTooLarge,
        ]
    }
}
