//! The `permission` of a refused answer: what the user lacks, as the original's permission center
//! reads it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::permission::{MissingPermission, NamedInstance, NamedModel};

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
    /// Each a path of one element, without ancestors. Absent if the action is for the whole type.
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

/// A built-in model's actions in the permission center: to edit an instance, and to view the model.
struct BuiltIn {
    model: &'static str,
    edit: (&'static str, &'static str),
    view: (&'static str, &'static str),
    resource_type: &'static str,
}

const fn built_in(
    model: &'static str,
    edit: (&'static str, &'static str),
    view: (&'static str, &'static str),
    resource_type: &'static str,
) -> BuiltIn {
    BuiltIn { model, edit, view, resource_type }
}

const EDIT_TOPOLOGY: (&str, &str) = ("edit_biz_topology", "业务拓扑编辑");
const EDIT_SERVICE: (&str, &str) = ("edit_biz_service_instance", "服务实例编辑");

/// The original has no action for viewing sets, modules and processes: theirs are those for editing.
const BUILT_IN: [BuiltIn; 8] = [
    built_in(
        "host",
        ("edit_biz_host", "业务主机编辑"),
        ("view_resource_pool_host", "主机池主机查看"),
        "host",
    ),
    built_in("biz", ("edit_business", "业务编辑"), ("find_business", "业务查询"), "biz"),
    built_in("set", EDIT_TOPOLOGY, EDIT_TOPOLOGY, "set"),
    built_in("module", EDIT_TOPOLOGY, EDIT_TOPOLOGY, "module"),
    built_in("process", EDIT_SERVICE, EDIT_SERVICE, "process"),
    built_in(
        "plat",
        ("edit_cloud_area", "管控区域编辑"),
        ("view_cloud_area", "管控区域查看"),
        "sys_cloud_area",
    ),
    built_in(
        "bk_biz_set_obj",
        ("edit_business_set", "业务集编辑"),
        ("view_business_set", "业务集查看"),
        "business_set",
    ),
    built_in("bk_project", ("edit_project", "项目编辑"), ("view_project", "项目查看"), "project"),
];

impl Permission {
    /// One action for each model, with all its instances. Models that share an action, such as set
    /// and module, are resource types of one action.
    pub(super) fn new(missing: &[MissingPermission]) -> Self {
        let mut actions: Vec<Action> = Vec::new();
        for of_model in missing.chunk_by(|one, next| one.model() == next.model()) {
            let Some(action) = action(of_model) else { continue };
            match actions.iter_mut().find(|known| known.id == action.id) {
                Some(known) => known.related_resource_types.extend(action.related_resource_types),
                None => actions.push(action),
            }
        }
        Self { system_id: SYSTEM_ID, system_name: SYSTEM_NAME, actions }
    }
}

fn action(missing: &[MissingPermission]) -> Option<Action> {
    let first = missing.first()?;
    let is_view = matches!(first, MissingPermission::ViewModel(_));
    let NamedModel { key, name: model_name, number } = first.model();
    let (id, name, kind) = match BUILT_IN.iter().find(|built_in| built_in.model == key) {
        Some(BuiltIn { edit, view, resource_type, .. }) => {
            let (id, name) = if is_view { view } else { edit };
            ((*id).to_owned(), (*name).to_owned(), (*resource_type).to_owned())
        }
        None => {
            let (verb, verb_name) = if is_view { ("view", "查看") } else { ("edit", "编辑") };
            let id = format!("{verb}_comobj_{number}");
            (id, format!("{model_name}实例{verb_name}"), format!("comobj_{number}"))
        }
    };
    let instances = missing.iter().filter_map(|missing| match missing {
        MissingPermission::EditInstance(_, NamedInstance { id, name }) => Some([Instance {
            kind: kind.clone(),
            type_name: model_name.clone(),
            id: id.to_string(),
            name: name.clone().unwrap_or_default(),
        }]),
        MissingPermission::ViewModel(_) => None,
    });
    let resource_type = ResourceType {
        system_id: SYSTEM_ID,
        system_name: SYSTEM_NAME,
        kind: kind.clone(),
        type_name: model_name.clone(),
        instances: instances.collect(),
    };
    Some(Action { id, name, related_resource_types: vec![resource_type] })
}
