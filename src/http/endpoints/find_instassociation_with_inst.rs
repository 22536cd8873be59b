//! `find_instassociation_with_inst`: one page of the links of a model that satisfy a condition,
//! with the instances at their ends.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::error::RequestError;
use crate::http::filter::{Dialect, QueryFilter, parse_query_filter};
use crate::http::instance::InstanceData;
use crate::http::instance_search::parse_keys;
use crate::http::json::RawJson;
use crate::http::link::{self, LinkData, LinkFields};
use crate::http::page::Page;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance_search::{WantedEnds, WantedKeys, list_ends};
use crate::service::link_search::{LinkSearch, SortedPage, condition_too_expensive, search};
use crate::service::pages::Pages;

/// The largest `page.limit`.
const PAGE_LIMIT: i64 = 200;

/// A search for the links of a model.
#[derive(Deserialize, ToSchema)]
pub(super) struct LinksWithInstancesBody {
    /// The model, at either end of the links.
    #[schema(examples("bk_switch"))]
    bk_obj_id: PathVariable,
    /// Which links to return, and what of them.
    #[schema(required, nullable = false)]
    condition: Option<DetailCondition>,
    /// The part of the list of links. `limit` is required, 1 to 200.
    #[schema(required, nullable = false)]
    page: Option<Page>,
}

/// Which links to return, and what of them.
#[derive(Default, Deserialize, ToSchema)]
struct DetailCondition {
    /// Which links.
    #[schema(required, nullable = false, value_type = QueryFilter)]
    asst_filter: Option<RawJson>,
    /// The fields of each link. Unknown names are ignored. Empty or absent: all.
    asst_fields: Option<Vec<String>>,
    /// Whether the source instances are wanted; by default they are not.
    src_detail: Option<bool>,
    /// The keys of each source instance. Empty or absent: all.
    src_fields: Option<Vec<String>>,
    /// Whether the target instances are wanted; by default they are not.
    dst_detail: Option<bool>,
    /// The keys of each target instance. Empty or absent: all.
    dst_fields: Option<Vec<String>>,
}

/// One page of links, and the instances at their ends, each of them once.
#[derive(Serialize, ToSchema)]
pub(super) struct LinksWithInstancesData {
    /// The links. Unless they are sorted otherwise, they are in the order of their ids.
    association: Vec<LinkData>,
    /// The source instances; null if they are not wanted, or there are none.
    #[schema(required)]
    src: Option<Vec<InstanceData>>,
    /// The target instances; null if they are not wanted, or there are none.
    #[schema(required)]
    dst: Option<Vec<InstanceData>>,
}

/// What a search is for.
pub(super) struct DetailSearch {
    links: LinkSearch,
    fields: LinkFields,
    ends: WantedEnds,
}

pub(super) struct FindInstassociationWithInst;

impl Endpoint for FindInstassociationWithInst {
    type Body = LinksWithInstancesBody;
    type Input = DetailSearch;
    type Data = LinksWithInstancesData;

    const SUMMARY: &'static str = "Search the associations of a model with the instances";

    const DESCRIPTION: &'static str = "Returns the tenant's associations of which an instance of \
        the model is the source or the target. An unknown model has none. It takes a grant to view \
        the model and, if instances are wanted, to view the models at both ends of each \
        association.";

    const ONLY_READS: bool = true;

    fn check(body: LinksWithInstancesBody) -> Result<DetailSearch, RequestError> {
        const FILTER: &str = "condition.asst_filter";
        let condition = body.condition.unwrap_or_default();
        let missing = RequestError::MissingField(FILTER.into());
        let filter = Some(condition.asst_filter.ok_or(missing)?);
        let filter = parse_query_filter(Dialect::DetailedLinks, FILTER, filter);
        let filter = filter.map_err(|error| match error {
            RequestError::InvalidField(place) => RequestError::MissingField(place),
            error => error,
        })?;
        let page = body.page.unwrap_or_default();
        let limit = match page.limit()? {
            limit if limit > PAGE_LIMIT => return Err(RequestError::PageTooLarge),
            0 => return Err(RequestError::UnassignedField("page.limit")),
            limit => limit,
        };
        let wanted = |is_wanted: Option<bool>, name: &str, fields: Option<Vec<String>>| {
            let keys = parse_keys(name, fields)?;
            Ok::<_, RequestError>(is_wanted.unwrap_or_default().then_some(WantedKeys(keys)))
        };
        Ok(DetailSearch {
            links: LinkSearch {
                model: body.bk_obj_id.0,
                condition: filter,
                start: page.start()?,
                page: Some(SortedPage { sort: page.sort()?, limit }),
            },
            fields: LinkFields::new(condition.asst_fields.as_deref()),
            ends: WantedEnds {
                sources: wanted(condition.src_detail, "src_fields", condition.src_fields)?,
                targets: wanted(condition.dst_detail, "dst_fields", condition.dst_fields)?,
            },
        })
    }

    async fn handle(
        cx: &RequestContext<'_>, input: &DetailSearch,
    ) -> Result<Success<LinksWithInstancesData>, Error> {
        let links = search(cx, &input.links).await?.next_page().await?;
        let [sources, targets] = list_ends(cx, &links, &input.ends).await?;
        let instances = |documents: Vec<String>| {
            let instances = documents.into_iter().map(InstanceData::new).collect::<Vec<_>>();
            Some(instances).filter(|instances| !instances.is_empty())
        };
        let counts = Counts { rows: Some(links.len()), ..Counts::default() };
        let data = LinksWithInstancesData {
            association: link::select(links, input.fields),
            src: instances(sources),
            dst: instances(targets),
        };
        Ok(Success::new(data, counts))
    }

    fn example() -> (Value, Value) {
        let rule = json!({"field": "bk_asst_obj_id", "operator": "equal", "value": "rack"});
        let condition = json!({
            "asst_filter": {"condition": "AND", "rules": [rule]},
            "asst_fields": ["id"],
            "dst_detail": true,
            "dst_fields": ["bk_inst_name"],
        });
        let body = json!({"bk_obj_id": "power_unit", "condition": condition, "page": {"limit": 1}});
        let data = json!({
            "association": [{"id": 6}], "src": null, "dst": [{"bk_inst_name": "rack-1"}],
        });
        (body, data)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::MissingField("condition.asst_filter".into()),
            RequestError::PageTooLarge,
            RequestError::UnassignedField("page.limit"),
            RequestError::InvalidField("page.start".into()),
            condition_too_expensive(),
        ]
    }
}
