//! `find_inst_association_topo`: an instance, and those that it is linked with in both directions.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::error::RequestError;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::http::topology::{TopologyGroup, TopologyNode, TopologyRequest, groups};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::topology::{Directions, too_many_links};

/// An instance.
#[derive(Deserialize, ToSchema)]
pub(super) struct NeighborsBody {
    /// The instance's model.
    #[schema(examples("bk_switch"))]
    bk_obj_id: PathVariable,
    /// The instance's id.
    inst_id: PathVariable,
}

/// An instance and its neighbors. The groups are in the order of the models' ids.
#[derive(Serialize, ToSchema)]
pub(super) struct Neighbors {
    /// The sources of the associations of which the instance is the target.
    prev: Vec<TopologyGroup>,
    /// The targets of the associations of which the instance is the source.
    next: Vec<TopologyGroup>,
    /// The instance.
    curr: TopologyNode,
}

/// A list of one instance.
#[derive(Serialize, ToSchema)]
pub(super) struct NeighborsData([Neighbors; 1]);

pub(super) struct FindInstAssociationTopo;

impl Endpoint for FindInstAssociationTopo {
    type Body = NeighborsBody;
    type Input = TopologyRequest;
    type Data = NeighborsData;

    const SUMMARY: &'static str = "Find an instance and its neighbors in both directions";

    const DESCRIPTION: &'static str = "Returns the instance, and the instances at the other ends \
        of its associations of this tenant, by their models. An association whose other instance \
        is gone is counted, but has no child. An instance with more than 10,000 associations in \
        one direction is refused with 1199998; `search_related_inst_asso` lists them. The user \
        must be allowed to view the model of the instance and all models in the answer.";

    const ONLY_READS: bool = true;

    fn check(body: NeighborsBody) -> Result<TopologyRequest, RequestError> {
        TopologyRequest::new(body.bk_obj_id, &body.inst_id, "inst_id", Directions::Both)
    }

    async fn handle(
        cx: &RequestContext<'_>, input: &TopologyRequest,
    ) -> Result<Success<NeighborsData>, Error> {
        let (curr, topology) = input.find(cx).await?;
        let [prev, next] =
            [topology.incoming, topology.outgoing].map(|found| groups(found, cx.language));
        let counts = Counts { rows: Some(prev.len() + next.len()), ..Counts::default() };
        Ok(Success::new(NeighborsData([Neighbors { prev, next, curr }]), counts))
    }

    fn example() -> (Value, Value) {
        let node = |[model, icon, name]: [&str; 3], id: i64, instance: &str, link: i64| {
            let text = if id == 0 { String::new() } else { id.to_string() };
            json!({
                "id": text, "bk_obj_id": model, "bk_obj_icon": icon, "bk_inst_id": id,
                "bk_obj_name": name, "bk_inst_name": instance, "asso_id": link,
            })
        };
        let group = |model: [&str; 3], children: &[(i64, &str, i64)]| {
            let child = |(id, instance, link): &(i64, &str, i64)| node(model, *id, instance, *link);
            let mut group = node(model, 0, "", 0);
            if let Some(fields) = group.as_object_mut() {
                fields.insert("count".to_owned(), json!(children.len()));
                fields.insert("children".to_owned(), children.iter().map(child).collect());
            }
            group
        };
        let switches = &[(11, "sw-1", 4), (12, "sw-2", 5)];
        let data = json!([{
            "prev": [group(["power_unit", "", "电源"], &[(31, "pdu-1", 6)])],
            "next": [group(["bk_switch", "icon-cc-switch2", "Switch"], switches)],
            "curr": node(["rack", "", "机柜"], 21, "rack-1", 0),
        }]);
        (json!({"bk_obj_id": "rack", "inst_id": 21}), data)
    }

    fn errors() -> Vec<RequestError> {
        vec![RequestError::MissingField("bk_obj_id".into()), too_many_links()]
    }
}
