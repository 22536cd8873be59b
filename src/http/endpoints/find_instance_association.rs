//! `find_instance_association`: all links of a model that satisfy a condition.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::error::RequestError;
use crate::http::filter::{MongoCondition, parse_mongo_condition};
use crate::http::json::RawJson;
use crate::http::link::{self, LinkData, LinkFields};
use crate::http::stream;
use crate::http::success::Success;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::link_search::{LinkSearch, LinkSearchPages, condition_too_expensive, search};

/// A search for the links of a model.
#[derive(Deserialize, ToSchema)]
pub(super) struct FindLinksBody {
    /// The model, at either end of the links.
    #[schema(required, nullable = false, min_length = 1, examples("bk_switch"))]
    pub(super) bk_obj_id: Option<String>,
    /// Which links to return; all of them by default.
    #[schema(value_type = Option<MongoCondition>)]
    pub(super) condition: Option<RawJson>,
}

/// All links that were found, in the order of their ids.
#[derive(Serialize, ToSchema)]
pub(super) struct FindLinksData(Vec<LinkData>);

pub(super) struct FindInstanceAssociation;

impl Endpoint for FindInstanceAssociation {
    type Body = FindLinksBody;
    type Input = LinkSearch;
    type Data = FindLinksData;

    const SUMMARY: &'static str = "Find all associations of a model that satisfy a condition";

    const DESCRIPTION: &'static str = "Returns the tenant's associations of which an instance of \
        the model is the source or the target: all of them, however many there are. An unknown \
        model has none. For the outgoing ones only, put `bk_obj_id` into the condition, too.";

    const ONLY_READS: bool = true;

    fn check(body: FindLinksBody) -> Result<LinkSearch, RequestError> {
        body.into_search()
    }

    async fn handle(
        cx: &RequestContext<'_>, input: &LinkSearch,
    ) -> Result<Success<FindLinksData>, Error> {
        list(cx, search(cx, input).await?).await
    }

    fn example() -> (Value, Value) {
        let condition = json!({
            "bk_obj_asst_id": "bk_switch_connect_host",
            "bk_inst_id": 11,
            "bk_asst_inst_id": {"$lt": 103},
        });
        let link = |id, target| {
            json!({
                "id": id, "bk_inst_id": 11, "bk_obj_id": "bk_switch",
                "bk_asst_inst_id": target, "bk_asst_obj_id": "host", "bk_supplier_account": "0",
                "bk_obj_asst_id": "bk_switch_connect_host", "bk_asst_id": "connect",
            })
        };
        let body = json!({"bk_obj_id": "bk_switch", "condition": condition});
        (body, json!([link(1, 101), link(2, 102)]))
    }

    fn errors() -> Vec<RequestError> {
        vec![RequestError::UnassignedField("bk_obj_id"), condition_too_expensive()]
    }
}

impl FindLinksBody {
    pub(super) fn into_search(self) -> Result<LinkSearch, RequestError> {
        let model = self.bk_obj_id.filter(|key| !key.is_empty());
        let model = model.ok_or(RequestError::UnassignedField("bk_obj_id"))?;
        let condition = parse_mongo_condition(self.condition)?;
        Ok(LinkSearch { model, condition, start: 0, page: None })
    }
}

/// Answers with the links that a search has found.
pub(super) async fn list(
    cx: &RequestContext<'_>, pages: LinkSearchPages,
) -> Result<Success<FindLinksData>, Error> {
    stream::list(cx, pages, |links| link::select(links, LinkFields::ALL), FindLinksData).await
}
