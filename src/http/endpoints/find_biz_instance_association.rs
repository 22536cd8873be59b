//! `find_biz_instance_association`: all links of hosts that satisfy a condition, for users of a
//! business.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use super::find_instance_association::{FindLinksBody, FindLinksData, list};
use crate::domain::error::RequestError;
use crate::http::filter::MongoCondition;
use crate::http::json::RawJson;
use crate::http::path::PathVariable;
use crate::http::success::Success;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::link_search::{LinkSearch, condition_too_expensive, search_as_business_user};

/// The model of the links.
const MODEL: &str = "host";

/// A search for the links of hosts.
#[derive(Deserialize, ToSchema)]
pub(super) struct FindBizLinksBody {
    /// The business. It does not limit the links.
    bk_biz_id: PathVariable,
    /// The model: `host`.
    #[schema(required, nullable = false, examples("host"))]
    bk_obj_id: Option<String>,
    /// Which links to return; all of them by default.
    #[schema(value_type = Option<MongoCondition>)]
    condition: Option<RawJson>,
}

pub(super) struct FindBizInstanceAssociation;

impl Endpoint for FindBizInstanceAssociation {
    type Body = FindBizLinksBody;
    type Input = LinkSearch;
    type Data = FindLinksData;

    const SUMMARY: &'static str = "Find all associations of hosts, as a user of a business";

    const DESCRIPTION: &'static str = "As `find_instance_association` for the model `host`. The \
        user must be allowed to view businesses, too.";

    const ONLY_READS: bool = true;

    fn check(body: FindBizLinksBody) -> Result<LinkSearch, RequestError> {
        let FindBizLinksBody { bk_biz_id, bk_obj_id, condition } = body;
        if bk_biz_id.0.parse::<i64>().is_err() {
            return Err(RequestError::InvalidField("bk_biz_id".into()));
        }
        if bk_obj_id.as_deref() != Some(MODEL) {
            return Err(RequestError::InvalidField("bk_obj_id".into()));
        }
        FindLinksBody { bk_obj_id, condition }.into_search()
    }

    async fn handle(
        cx: &RequestContext<'_>, input: &LinkSearch,
    ) -> Result<Success<FindLinksData>, Error> {
        list(cx, search_as_business_user(cx, input).await?).await
    }

    fn example() -> (Value, Value) {
        let body = json!({"bk_biz_id": "2", "bk_obj_id": MODEL, "condition": {"id": 0}});
        (body, json!([]))
    }

    fn errors() -> Vec<RequestError> {
        vec![RequestError::InvalidField("bk_biz_id".into()), condition_too_expensive()]
    }
}
