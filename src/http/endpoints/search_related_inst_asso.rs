//! `search_related_inst_asso`: the links of which an instance is the source or the target, in order
//! of their ids.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::condition::{Condition, LinkField, Test};
use crate::domain::error::RequestError;
use crate::http::json::Integer;
use crate::http::link::{self, LinkData, LinkFields};
use crate::http::stream;
use crate::http::success::Success;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::link_search::{LinkSearch, SortedPage, search};

/// The largest `page.limit`.
const PAGE_LIMIT: i64 = 500;

/// A search for the links of an instance.
#[derive(Deserialize, ToSchema)]
pub(super) struct SearchRelatedBody {
    /// The instance.
    #[schema(required, nullable = false)]
    condition: Option<RelatedCondition>,
    /// The fields of each link to return. Unknown names are ignored.
    #[schema(required, nullable = false, min_items = 1)]
    fields: Option<Vec<String>>,
    /// The part of the list to return; all of it by default.
    page: Option<RelatedPage>,
}

/// An instance.
#[derive(Default, Deserialize, ToSchema)]
struct RelatedCondition {
    /// Its model.
    #[schema(required, nullable = false, min_length = 1)]
    bk_obj_id: Option<String>,
    /// Its id, not 0.
    #[schema(required, nullable = false)]
    bk_inst_id: Option<Integer>,
}

/// A part of a list.
#[derive(Default, Deserialize, ToSchema)]
struct RelatedPage {
    /// How many links to skip; 0 by default.
    start: Option<Integer>,
    /// The most links to return, up to 500; 0 or absent: all.
    limit: Option<Integer>,
}

/// The links that were found, in order of their ids.
#[derive(Serialize, ToSchema)]
pub(super) struct RelatedLinksData(Vec<LinkData>);

pub(super) struct SearchRelatedInstAsso;

impl Endpoint for SearchRelatedInstAsso {
    type Body = SearchRelatedBody;
    type Input = (LinkSearch, LinkFields);
    type Data = RelatedLinksData;

    const SUMMARY: &'static str = "Find the associations of an instance";

    const DESCRIPTION: &'static str = "Returns the tenant's associations of which the instance is \
        the source or the target, in order of their ids. An unknown model or instance has none. \
        It takes a grant to view the model.";

    const ONLY_READS: bool = true;

    fn check(body: SearchRelatedBody) -> Result<Self::Input, RequestError> {
        let RelatedCondition { bk_obj_id, bk_inst_id } = body.condition.unwrap_or_default();
        let model = bk_obj_id.filter(|key| !key.is_empty());
        let instance_id = bk_inst_id.filter(|id| id.0 != 0);
        let (Some(model), Some(Integer(instance_id))) = (model, instance_id) else {
            return Err(RequestError::UnassignedField("'bk_inst_id' & 'bk_obj_id'"));
        };
        let fields = body.fields.filter(|fields| !fields.is_empty());
        let fields = fields.ok_or(RequestError::UnassignedField("fields"))?;
        let RelatedPage { start, limit } = body.page.unwrap_or_default();
        let (start, limit) = (start.map_or(0, |id| id.0), limit.map_or(0, |id| id.0));
        match (start, limit) {
            (..0, _) => return Err(RequestError::InvalidField("page.start".into())),
            (_, ..0) => return Err(RequestError::InvalidField("page.limit".into())),
            (_, limit) if limit > PAGE_LIMIT => return Err(RequestError::PageTooLarge),
            _ => {}
        }
        let end = |model_field, id_field| {
            let model = Condition::Test(model_field, Test::TextIn(vec![model.clone()]));
            let id = Condition::Test(id_field, Test::IntegerIn(vec![instance_id]));
            Condition::all([model, id])
        };
        let ends = [
            end(LinkField::SourceModel, LinkField::SourceId),
            end(LinkField::TargetModel, LinkField::TargetId),
        ];
        let condition = Condition::any(ends);
        let page = (limit > 0).then_some(SortedPage { sort: Vec::new(), limit });
        Ok((LinkSearch { model, condition, start, page }, LinkFields::only(&fields)))
    }

    async fn handle(
        cx: &RequestContext<'_>, (input, fields): &Self::Input,
    ) -> Result<Success<RelatedLinksData>, Error> {
        let (pages, fields) = (search(cx, input).await?, *fields);
        stream::list(cx, pages, move |links| link::select(links, fields), RelatedLinksData).await
    }

    fn example() -> (Value, Value) {
        let body = json!({
            "condition": {"bk_obj_id": "bk_switch", "bk_inst_id": 11},
            "fields": ["id", "bk_asst_inst_id"],
            "page": {"start": 0, "limit": 2},
        });
        let link = |id, target| json!({ "id": id, "bk_asst_inst_id": target });
        (body, json!([link(1, 101), link(2, 102)]))
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::UnassignedField("fields"),
            RequestError::InvalidField("page.limit".into()),
            RequestError::PageTooLarge,
        ]
    }
}
