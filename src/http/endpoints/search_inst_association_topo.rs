//! `search_inst_association_topo`: the instances that an instance is linked with as the source.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::error::RequestError;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::http::topology::{TopologyGroup, TopologyRequest, groups};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::topology::{Directions, too_many_links};

/// An instance.
#[derive(Deserialize, ToSchema)]
pub(super) struct TopologyBody {
    /// The instance's model.
    #[schema(examples("bk_switch"))]
    bk_obj_id: PathVariable,
    /// The instance's id.
    bk_inst_id: PathVariable,
}

/// One group for each model, in the order of the models' ids.
#[derive(Serialize, ToSchema)]
pub(super) struct TopologyData(Vec<TopologyGroup>);

pub(super) struct SearchInstAssociationTopo;

impl Endpoint for SearchInstAssociationTopo {
    type Body = TopologyBody;
    type Input = TopologyRequest;
    type Data = TopologyData;

    const SUMMARY: &'static str = "Find the instances that an instance is associated with";

    const DESCRIPTION: &'static str = "Returns the targets of the tenant's associations of which \
        the instance is the source, by their models. An association whose target is gone is \
        counted, but has no child. An instance with more than 10,000 such associations is refused \
        with 1199998; `search_related_inst_asso` lists them. The user must be allowed to view the \
        model of the instance and all models in the answer.";

    const ONLY_READS: bool = true;

    fn check(body: TopologyBody) -> Result<TopologyRequest, RequestError> {
        TopologyRequest::new(body.bk_obj_id, &body.bk_inst_id, "bk_inst_id", Directions::Outgoing)
    }

    async fn handle(
        cx: &RequestContext<'_>, input: &TopologyRequest,
    ) -> Result<Success<TopologyData>, Error> {
        let (_, topology) = input.find(cx).await?;
        let counts = Counts { rows: Some(topology.outgoing.len()), ..Counts::default() };
        Ok(Success::new(TopologyData(groups(topology.outgoing, cx.language)), counts))
    }

    fn example() -> (Value, Value) {
        let data = json!([{
            "id": "", "bk_obj_id": "rack", "bk_obj_icon": "", "bk_inst_id": 0,
            "bk_obj_name": "机柜", "bk_inst_name": "", "asso_id": 0, "count": 1,
            "children": [{
                "id": "21", "bk_obj_id": "rack", "bk_obj_icon": "", "bk_inst_id": 21,
                "bk_obj_name": "机柜", "bk_inst_name": "rack-1", "asso_id": 6,
            }],
        }]);
        (json!({"bk_obj_id": "power_unit", "bk_inst_id": 31}), data)
    }

    fn errors() -> Vec<RequestError> {
        vec![RequestError::MissingField("bk_obj_id".into()), too_many_links()]
    }
}
