//! The payload that says which permissions are missing, as the original's permission centre reads it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::permission::Needed;

const SYSTEM_ID: &str = "bk_cmdb";
const SYSTEM_NAME: &str = "配置平台";

/// What to ask the permission centre for.
#[derive(Serialize, ToSchema)]
pub(super) struct Permission {
    /// `bk_cmdb`.
    system_id: &'static str,
    /// Its name.
    system_name: &'static str,
    /// What the user would have to be allowed.
    actions: Vec<Action>,
}

#[derive(Serialize, ToSchema)]
struct Action {
    /// The action, as the permission centre calls it.
    id: String,
    /// Its name.
    name: String,
    /// On what.
    related_resource_types: Vec<ResourceType>,
}

#[derive(Serialize, ToSchema)]
struct ResourceType {
    /// `bk_cmdb`.
    system_id: &'static str,
    /// Its name.
    system_name: &'static str,
    /// The kind of instances.
    #[serde(rename = "type")]
    kind: String,
    /// Its name.
    type_name: String,
    /// Each a path; ours have one element, without ancestors.
    instances: Vec<[Instance; 1]>,
}

#[derive(Serialize, ToSchema)]
struct Instance {
    /// The kind of instance.
    #[serde(rename = "type")]
    kind: String,
    /// Its name.
    type_name: String,
    /// The instance's id.
    id: String,
    /// The instance's name; empty if it has none.
    name: String,
}

/// Built-in models have actions of their own: model, action, its name, resource type.
const BUILT_IN: [(&str, &str, &str, &str); 8] = [
    ("host", "edit_biz_host", "业务主机编辑", "host"),
    ("biz", "edit_business", "业务编辑", "biz"),
    ("set", "edit_biz_topology", "业务拓扑编辑", "set"),
    ("module", "edit_biz_topology", "业务拓扑编辑", "module"),
    ("process", "edit_biz_service_instance", "服务实例编辑", "process"),
    ("plat", "edit_cloud_area", "管控区域编辑", "sys_cloud_area"),
    ("bk_biz_set_obj", "edit_business_set", "业务集编辑", "business_set"),
    ("bk_project", "edit_project", "项目编辑", "project"),
];

impl Permission {
    /// One action for each model, with all its instances; models that share an action, like set and module, are
    /// resource types of one.
    pub(super) fn needed(needed: &[Needed]) -> Self {
        let mut actions: Vec<Action> = Vec::new();
        let of_one_model = needed.chunk_by(|one, next| one.model == next.model);
        for action in of_one_model.filter_map(action) {
            match actions.iter_mut().find(|known| known.id == action.id) {
                Some(known) => known.related_resource_types.extend(action.related_resource_types),
                None => actions.push(action),
            }
        }
        Self { system_id: SYSTEM_ID, system_name: SYSTEM_NAME, actions }
    }
}

fn action(needed: &[Needed]) -> Option<Action> {
    let Needed { model, model_name, model_number, .. } = needed.first()?;
    let built_in = BUILT_IN.iter().find(|(key, ..)| key == model);
    let (id, name, kind) = match built_in {
        Some((_, id, name, kind)) => ((*id).to_owned(), (*name).to_owned(), (*kind).to_owned()),
        None => (
            format!("edit_comobj_{model_number}"),
            format!("{model_name}实例编辑"),
            format!("comobj_{model_number}"),
        ),
    };
    let instance = |needed: &Needed| {
        [Instance {
            kind: kind.clone(),
            type_name: model_name.clone(),
            id: needed.instance_id.to_string(),
            name: needed.name.clone().unwrap_or_default(),
        }]
    };
    let instances = needed.iter().map(instance).collect();
    let resource = ResourceType {
        system_id: SYSTEM_ID,
        system_name: SYSTEM_NAME,
        kind: kind.clone(),
        type_name: model_name.clone(),
        instances,
    };
    Some(Action { id, name, related_resource_types: vec![resource] })
}
