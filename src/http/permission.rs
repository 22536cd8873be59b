//! The `permission` of a refused answer: what the user lacks, in the format of BlueKing's
//! permission center.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::permission::{Action as Needed, MissingPermission};

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

/// A model with actions of its own, by their ids and names in the permission center.
struct BuiltIn {
    model: &'static str,
    /// The id and name of the action to edit instances.
    edit: (&'static str, &'static str),
    /// The id and name of the action to view them.
    view: (&'static str, &'static str),
    /// The type of its instances.
    kind: &'static str,
}

const EDIT_TOPOLOGY: (&str, &str) = ("edit_biz_topology", "业务拓扑编辑");

/// The original lets everybody view sets, modules and processes. This is its action to view the
/// business that they belong to.
const VIEW_TOPOLOGY: (&str, &str) = ("find_business_resource", "业务访问");

const BUILT_IN: [BuiltIn; 8] = [
    BuiltIn {
        model: "host",
        edit: ("edit_biz_host", "业务主机编辑"),
        view: ("view_resource_pool_host", "主机池主机查看"),
        kind: "host",
    },
    BuiltIn {
        model: "biz",
        edit: ("edit_business", "业务编辑"),
        view: ("find_business", "业务查询"),
        kind: "biz",
    },
    BuiltIn { model: "set", edit: EDIT_TOPOLOGY, view: VIEW_TOPOLOGY, kind: "set" },
    BuiltIn { model: "module", edit: EDIT_TOPOLOGY, view: VIEW_TOPOLOGY, kind: "module" },
    BuiltIn {
        model: "process",
        edit: ("edit_biz_service_instance", "服务实例编辑"),
        view: VIEW_TOPOLOGY,
        kind: "process",
    },
    BuiltIn {
        model: "plat",
        edit: ("edit_cloud_area", "管控区域编辑"),
        view: ("view_cloud_area", "管控区域查看"),
        kind: "sys_cloud_area",
    },
    BuiltIn {
        model: "bk_biz_set_obj",
        edit: ("edit_business_set", "业务集编辑"),
        view: ("view_business_set", "业务集查看"),
        kind: "business_set",
    },
    BuiltIn {
        model: "bk_project",
        edit: ("edit_project", "项目编辑"),
        view: ("view_project", "项目查看"),
        kind: "project",
    },
];

impl Permission {
    /// One action for each model, with all its instances. Models that share an action, such as set
    /// and module, are resource types of one action. To view models themselves is one action, with
    /// the models as its instances.
    pub(super) fn new(missing: &[MissingPermission]) -> Self {
        let mut actions: Vec<Action> = Vec::new();
        let by_type = missing.chunk_by(|one, next| {
            one.action == next.action
                && (one.action == Needed::ViewModel || one.model == next.model)
        });
        for action in by_type.filter_map(action) {
            match actions.iter_mut().find(|known| known.id == action.id) {
                Some(known) => known.related_resource_types.extend(action.related_resource_types),
                None => actions.push(action),
            }
        }
        Self { system_id: SYSTEM_ID, system_name: SYSTEM_NAME, actions }
    }
}

/// The action for missing permissions on resources of one type.
fn action(missing: &[MissingPermission]) -> Option<Action> {
    let first = missing.first()?;
    if let Some(action) = change_action(first.action) {
        return Some(action);
    }
    let MissingPermission { model, model_name, model_number: number, .. } = first;
    let built_in = BUILT_IN.iter().find(|built_in| built_in.model == model);
    let [id, name, kind, type_name] = match (first.action, built_in) {
        (Needed::EditInstances, Some(BuiltIn { edit: (id, name), kind, .. }))
        | (Needed::ViewInstances, Some(BuiltIn { view: (id, name), kind, .. })) => {
            [*id, *name, *kind, model_name].map(str::to_owned)
        }
        (Needed::EditInstances, None) => [
            format!("edit_comobj_{number}"),
            format!("{model_name}实例编辑"),
            format!("comobj_{number}"),
            model_name.clone(),
        ],
        (Needed::CreateInstances, Some(BuiltIn { model: "host", .. })) => [
            "create_resource_pool_host",
            "主机池主机创建",
            "sys_resource_pool_directory",
            "主机池目录",
        ]
        .map(str::to_owned),
        (Needed::CreateInstances, _) => [
            format!("create_comobj_{number}"),
            format!("{model_name}实例新建"),
            format!("comobj_{number}"),
            model_name.clone(),
        ],
        (Needed::DeleteInstances, _) => [
            format!("delete_comobj_{number}"),
            format!("{model_name}实例删除"),
            format!("comobj_{number}"),
            model_name.clone(),
        ],
        (Needed::ViewInstances, None) => [
            format!("view_comobj_{number}"),
            format!("{model_name}实例查看"),
            format!("comobj_{number}"),
            model_name.clone(),
        ],
        // The others are those of `change_action`.
        (_, _) => ["view_sys_model", "模型查看", "sys_model", "模型"].map(str::to_owned),
    };
    let instance = |one: &MissingPermission| {
        let (id, name) = match one.action {
            Needed::ViewModel => (one.model_number, Some(&one.model_name)),
            _ => (one.instance_id?, one.instance_name.as_ref()),
        };
        Some([Instance {
            kind: kind.clone(),
            type_name: type_name.clone(),
            id: id.to_string(),
            name: name.cloned().unwrap_or_default(),
        }])
    };
    let resource_type = ResourceType {
        system_id: SYSTEM_ID,
        system_name: SYSTEM_NAME,
        kind: kind.clone(),
        type_name: type_name.clone(),
        instances: missing.iter().filter_map(instance).collect(),
    };
    Some(Action { id, name, related_resource_types: vec![resource_type] })
}

/// The action to change models or association kinds, if it is one. It is for all of them.
fn change_action(needed: Needed) -> Option<Action> {
    const MODELS: Option<(&str, &str)> = Some(("sys_model", "模型"));
    const KINDS: Option<(&str, &str)> = Some(("sys_association_type", "关联类型"));
    let (id, name, resource_type) = match needed {
        Needed::CreateModels => {
            ("create_sys_model", "模型新建", Some(("sys_model_group", "模型分组")))
        }
        Needed::EditModels => ("edit_sys_model", "模型编辑", MODELS),
        Needed::DeleteModels => ("delete_sys_model", "模型删除", MODELS),
        Needed::CreateKinds => ("create_association_type", "关联类型新建", None),
        Needed::EditKinds => ("edit_association_type", "关联类型编辑", KINDS),
        Needed::DeleteKinds => ("delete_association_type", "关联类型删除", KINDS),
        Needed::EditInstances
        | Needed::ViewInstances
        | Needed::CreateInstances
        | Needed::DeleteInstances
        | Needed::ViewModel => return None,
    };
    let related = resource_type.map(|(kind, type_name)| ResourceType {
        system_id: SYSTEM_ID,
        system_name: SYSTEM_NAME,
        kind: kind.to_owned(),
        type_name: type_name.to_owned(),
        instances: Vec::new(),
    });
    Some(Action {
        id: id.to_owned(),
        name: name.to_owned(),
        related_resource_types: related.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn missing(action: Needed, model: &str, number: i64) -> MissingPermission {
        MissingPermission {
            action,
            model: model.to_owned(),
            model_name: model.to_uppercase(),
            model_number: number,
            ..MissingPermission::default()
        }
    }

    fn actions(missing: &[MissingPermission]) -> Value {
        serde_json::to_value(Permission::new(missing).actions).unwrap()
    }

    /// The type of resources of an action, with their ids and names if there are any.
    fn resource_type(kind: &str, name: &str, instances: &[(&str, &str)]) -> Value {
        let instance = |(id, of)| json!([{"type": kind, "type_name": name, "id": id, "name": of}]);
        let mut resource_type = json!({
            "system_id": "bk_cmdb", "system_name": "配置平台", "type": kind, "type_name": name,
        });
        if !instances.is_empty() {
            resource_type["instances"] = instances.iter().copied().map(instance).collect();
        }
        resource_type
    }

    #[test]
    fn the_actions_to_view_instances_name_models_without_instances() {
        let view = |model| missing(Needed::ViewInstances, model, 77);
        assert_eq!(
            actions(&[view("rack"), view("set"), view("host"), view("module")]),
            json!([
                {
                    "id": "view_comobj_77",
                    "name": "RACK实例查看",
                    "related_resource_types": [resource_type("comobj_77", "RACK", &[])],
                },
                {
                    "id": "find_business_resource",
                    "name": "业务访问",
                    "related_resource_types": [
                        resource_type("set", "SET", &[]),
                        resource_type("module", "MODULE", &[]),
                    ],
                },
                {
                    "id": "view_resource_pool_host",
                    "name": "主机池主机查看",
                    "related_resource_types": [resource_type("host", "HOST", &[])],
                },
            ])
        );
    }

    #[test]
    fn the_action_to_view_models_lists_their_numbers() {
        let view = |model, number| missing(Needed::ViewModel, model, number);
        let models = resource_type("sys_model", "模型", &[("7", "RACK"), ("1", "HOST")]);
        assert_eq!(
            actions(&[view("rack", 7), view("host", 1)]),
            json!([
                {"id": "view_sys_model", "name": "模型查看", "related_resource_types": [models]}
            ])
        );
    }
}
