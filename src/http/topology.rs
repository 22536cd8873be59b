//! The topology of an instance as callers see it.

use serde::Serialize;
use utoipa::ToSchema;

use super::known_models::name_in;
use super::path::PathVariable;
use crate::domain::error::RequestError;
use crate::domain::instance::FixedFields;
use crate::domain::language::Language;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::topology::{
    Directions, Model, NeighborGroup, Topology, find_model, find_topology,
};

/// An instance, or the head of a group of instances of one model.
#[derive(Serialize, ToSchema)]
pub(super) struct TopologyNode {
    /// The instance's id as a text; empty for a group.
    id: String,
    /// The model.
    bk_obj_id: String,
    /// The model's icon.
    bk_obj_icon: String,
    /// The instance's id; 0 for a group.
    bk_inst_id: i64,
    /// The model's name. Those of models of the original are in the caller's language.
    bk_obj_name: String,
    /// The instance's name, of a host its addresses; empty for a group.
    bk_inst_name: String,
    /// The id of the association that leads to the instance; 0 for a group.
    asso_id: i64,
}

/// The instances of one model that an instance is associated with.
#[derive(Serialize, ToSchema)]
pub(super) struct TopologyGroup {
    #[serde(flatten)]
    model: TopologyNode,
    /// The number of associations, with those whose other instance is gone.
    count: i64,
    /// The instances, one for each association, in the order of the ids of the associations.
    children: Vec<TopologyNode>,
}

/// The instance whose topology a request wants.
pub(super) struct TopologyRequest {
    model: String,
    instance_id: i64,
    directions: Directions,
}

impl TopologyRequest {
    /// The id must be an integer. `id_variable` is the name of the path variable that has it.
    pub(super) fn new(
        model: PathVariable, instance_id: &PathVariable, id_variable: &str, directions: Directions,
    ) -> Result<Self, RequestError> {
        let not_an_integer = |_| {
            let why = format!("{id_variable} is not an integer of 64 bits");
            RequestError::WithoutCode(why.into())
        };
        let instance_id = instance_id.0.parse().map_err(not_an_integer)?;
        Ok(Self { model: model.0, instance_id, directions })
    }

    /// Finds the topology, and its instance as a node.
    pub(super) async fn find(
        &self, cx: &RequestContext<'_>,
    ) -> Result<(TopologyNode, Topology), Error> {
        let model = find_model(cx, &self.model).await?;
        let model = model.ok_or(RequestError::MissingField("bk_obj_id".into()))?;
        let topology = find_topology(cx, &model, self.instance_id, self.directions).await?;
        let topology =
            topology.ok_or(RequestError::MissingField(FixedFields::of(&model.key).id.into()))?;
        let node = TopologyNode {
            id: self.instance_id.to_string(),
            bk_inst_id: self.instance_id,
            bk_inst_name: topology.instance.name.clone().unwrap_or_default(),
            ..model_node(&model, &topology.instance.icon, cx.language)
        };
        Ok((node, topology))
    }
}

/// The head of a group.
fn model_node(model: &Model, icon: &str, language: Language) -> TopologyNode {
    TopologyNode {
        id: String::new(),
        bk_obj_id: model.key.clone(),
        bk_obj_icon: icon.to_owned(),
        bk_inst_id: 0,
        bk_obj_name: name_in(language, &model.key, &model.name).to_owned(),
        bk_inst_name: String::new(),
        asso_id: 0,
    }
}

/// Groups in a language.
pub(super) fn groups(found: Vec<NeighborGroup>, language: Language) -> Vec<TopologyGroup> {
    let group = |group: NeighborGroup| {
        let head = || model_node(&group.model, &group.icon, language);
        let children = group.neighbors.into_iter().map(|neighbor| TopologyNode {
            id: neighbor.instance_id.to_string(),
            bk_inst_id: neighbor.instance_id,
            bk_inst_name: neighbor.name.unwrap_or_default(),
            asso_id: neighbor.link_id,
            ..head()
        });
        TopologyGroup { children: children.collect(), model: head(), count: group.count }
    };
    found.into_iter().map(group).collect()
}
