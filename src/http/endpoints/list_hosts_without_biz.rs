//! `list_hosts_without_biz`: one page of the hosts that satisfy a condition.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::error::RequestError;
use crate::domain::instance::HOST;
use crate::http::filter::{Dialect, QueryFilter, parse_query_filter};
use crate::http::instance_search::{InstancesData, limit_or_all, parse_keys, stream_instances};
use crate::http::json::RawJson;
use crate::http::page::Page;
use crate::http::success::Success;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance_search::{InstanceSearch, condition_too_expensive, find};

/// The largest `page.limit`.
const PAGE_LIMIT: i64 = 1_000;

/// A search for hosts.
#[derive(Deserialize, ToSchema)]
pub(super) struct ListHostsBody {
    /// Which hosts to return; all of them by default.
    #[schema(value_type = Option<QueryFilter>)]
    host_property_filter: Option<RawJson>,
    /// The keys of each host to return. Empty or absent: all.
    fields: Option<Vec<String>>,
    /// The part of the list, at most 1,000 hosts. Without a limit, all of it.
    page: Option<Page>,
}

pub(super) struct ListHostsWithoutBiz;

impl Endpoint for ListHostsWithoutBiz {
    type Body = ListHostsBody;
    type Input = InstanceSearch;
    type Data = InstancesData;

    const SUMMARY: &'static str = "Search hosts, page by page";

    const DESCRIPTION: &'static str = "Returns the hosts that the tenant sees, whether or not they \
        belong to a business: this server does not know that.";

    const ONLY_READS: bool = true;

    fn check(body: ListHostsBody) -> Result<InstanceSearch, RequestError> {
        let page = body.page.unwrap_or_default();
        let limit = limit_or_all(&page)?;
        if limit.is_some_and(|limit| limit > PAGE_LIMIT) {
            return Err(RequestError::InvalidField("page.limit".into()));
        }
        let start = page.start()?;
        let filter = body.host_property_filter;
        Ok(InstanceSearch {
            model: HOST.to_owned(),
            condition: parse_query_filter(Dialect::Hosts, "host_property_filter", filter)?,
            sort: page.sort()?,
            start,
            limit,
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
        let rule = json!({"field": "bk_host_name", "operator": "equal", "value": "web"});
        let body = json!({
            "host_property_filter": {"condition": "AND", "rules": [rule]},
            "fields": ["bk_host_id", "bk_host_innerip"],
            "page": {"limit": 10},
        });
        let info = json!([{"bk_host_id": 109, "bk_host_innerip": "10.0.9.1"}]);
        (body, json!({"count": 1, "info": info}))
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::InvalidField("page.limit".into()),
            RequestError::InvalidField("host_property_filter.rules".into()),
            condition_too_expensive(),
        ]
    }
}
