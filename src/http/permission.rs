//! The `permission` of a refused answer: what the user lacks, in the format of BlueKing's
//! permission center.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::permission::MissingPermission;

const SYSTEM_ID: &str = "bk_cmdb";
const SYSTEM_NAME: &str = "配置平台";

/// The permissions that the user lacks.
#[derive(Serialize, ToSchema)]
pub(super) struct Permission {
    /// `bk_cmdb`.
    system_id: &'static str,
    /// The system's name.
    system_name: &'static str,
    /// The actions that the user would have to be allowed.
    actions: Vec<Action>,
}

#[derive(Serialize, ToSchema)]
struct Action {
    /// The action's id in the permission center.
    id: String,
    /// The action's name.
    name: String,
    /// The resources that the action is for.
    related_resource_types: Vec<ResourceType>,
}

#[derive(Serialize, ToSchema)]
struct ResourceType {
    /// `bk_cmdb`.
    system_id: &'static str,
    /// The system's name.
    system_name: &'static str,
    /// The type of the resources.
    #[serde(rename = "type")]
    kind: String,
    /// The type's name.
    type_name: String,
    /// The instances, each in a list of one. If this is absent, every instance is meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    instances: Vec<[Instance; 1]>,
}

#[derive(Serialize, ToSchema)]
struct Instance {
    /// The type of the instance.
    #[serde(rename = "type")]
    kind: String,
    /// The type's name.
    type_name: String,
    /// The instance's id.
    id: String,
    /// The instance's name; empty if it has none.
    name: String,
}

/// The actions for built-in models: the model, the action's id and name, the resource type.
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
    /// One action for each model, with all its instances. Models that share an action, such as set
    /// and module, are resource types of one action.
    pub(super) fn new(missing: &[MissingPermission]) -> Self {
        let mut actions: Vec<Action> = Vec::new();
        let by_model = missing.chunk_by(|one, next| one.model == next.model);
        for action in by_model.filter_map(action) {
            match actions.iter_mut().find(|known| known.id == action.id) {
                Some(known) => known.related_resource_types.extend(action.related_resource_types),
                None => actions.push(action),
            }
        }
        Self { system_id: SYSTEM_ID, system_name: SYSTEM_NAME, actions }
    }
}

fn action(missing: &[MissingPermission]) -> Option<Action> {
    let MissingPermission { model, model_name, model_number, .. } = missing.first()?;
    let [id, name, kind] = match BUILT_IN.iter().find(|(built_in, ..)| built_in == model) {
        Some((_, id, name, kind)) => [*id, *name, *kind].map(str::to_owned),
        None => [
            format!("edit_comobj_{model_number}"),
            format!("{model_name}实例编辑"),
            format!("comobj_{model_number}"),
        ],
    };
    let instance = |one: &MissingPermission| {
        Some([Instance {
            kind: kind.clone(),
            type_name: model_name.clone(),
            id: one.instance_id?.to_string(),
            name: one.instance_name.clone().unwrap_or_default(),
        }])
    };
    let resource_type = ResourceType {
        system_id: SYSTEM_ID,
        system_name: SYSTEM_NAME,
        kind: kind.clone(),
        type_name: model_name.clone(),
        instances: missing.iter().filter_map(instance).collect(),
    };
    Some(Action { id, name, related_resource_types: vec![resource_type] })
}
