//! `search_instance_associations`: one page of the links of a model that satisfy a condition.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::error::RequestError;
use crate::http::filter::{Dialect, QueryFilter, parse_query_filter};
use crate::http::json::RawJson;
use crate::http::link::{self, LinkData, LinkFields};
use crate::http::page::Page;
use crate::http::path::PathVariable;
use crate::http::stream;
use crate::http::success::Success;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::link_search::{LinkSearch, SortedPage, condition_too_expensive, search};

/// The largest `page.limit`.
const PAGE_LIMIT: i64 = 500;

/// A search for the links of a model.
#[derive(Deserialize, ToSchema)]
pub(super) struct SearchLinksBody {
    /// The model, at either end of the links.
    #[schema(examples("bk_switch"))]
    bk_obj_id: PathVariable,
    /// Which links to return; all of them by default.
    #[schema(value_type = Option<QueryFilter>)]
    conditions: Option<RawJson>,
    /// The fields of each link to return. Unknown names are ignored. Empty or absent: all.
    fields: Option<Vec<String>>,
    /// The part of the list. `limit` is required, 1 to 500.
    #[schema(required, nullable = false)]
    page: Option<Page>,
    /// Has no effect: links have no time.
    #[serde(rename = "time_condition")]
    _time_condition: Option<TimeCondition>,
}

/// A condition on times.
#[derive(Deserialize, ToSchema)]
struct TimeCondition {}

/// One page of links.
#[derive(Serialize, ToSchema)]
pub(super) struct SearchLinksData {
    /// The links. Unless they are sorted otherwise, they are in the order of their ids.
    info: Vec<LinkData>,
}

pub(super) struct SearchInstanceAssociations;

impl Endpoint for SearchInstanceAssociations {
    type Body = SearchLinksBody;
    type Input = (LinkSearch, LinkFields);
    type Data = SearchLinksData;

    const SUMMARY: &'static str = "Search the associations of a model, page by page";

    const DESCRIPTION: &'static str = "Returns the tenant's associations of which an instance of \
        the model is the source or the target. An unknown model has none. To read all pages, sort \
        by `id` and ask for ids greater than the last one: that takes the same time for each page.";

    const ONLY_READS: bool = true;

    fn check(body: SearchLinksBody) -> Result<Self::Input, RequestError> {
        let page = body.page.unwrap_or_default();
        let limit = page.limit()?;
        if !(1..=PAGE_LIMIT).contains(&limit) {
            return Err(RequestError::InvalidField("page.limit".into()));
        }
        let condition = parse_query_filter(Dialect::Links, "conditions", body.conditions)?;
        let search = LinkSearch {
            model: body.bk_obj_id.0,
            condition,
            start: page.start()?,
            page: Some(SortedPage { sort: page.sort()?, limit }),
        };
        Ok((search, LinkFields::new(body.fields.as_deref())))
    }

    async fn handle(
        cx: &RequestContext<'_>, (input, fields): &Self::Input,
    ) -> Result<Success<SearchLinksData>, Error> {
        let (pages, fields) = (search(cx, input).await?, *fields);
        let to_data = |info| SearchLinksData { info };
        stream::list(cx, pages, move |links| link::select(links, fields), to_data).await
    }

    fn example() -> (Value, Value) {
        let rule = json!({"field": "bk_asst_obj_id", "operator": "equal", "value": "host"});
        let body = json!({
            "bk_obj_id": "bk_switch",
            "conditions": {"condition": "AND", "rules": [rule]},
            "fields": ["id", "bk_inst_id", "bk_asst_inst_id"],
            "page": {"limit": 1, "sort": "id"},
        });
        let data = json!({"info": [{"id": 1, "bk_inst_id": 11, "bk_asst_inst_id": 101}]});
        (body, data)
    }

    fn errors() -> Vec<RequestError> {
        vec![RequestError::InvalidField("page.limit".into()), condition_too_expensive()]
    }
}
