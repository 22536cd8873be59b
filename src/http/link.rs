//! Links as callers see them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::service::instance_association::StoredLink;

/// A link. Fields that were not asked for, and ids that are 0, are absent.
#[derive(Serialize, ToSchema)]
pub(super) struct LinkData {
    /// The link's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    /// The source instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    bk_inst_id: Option<i64>,
    /// The source model.
    #[serde(skip_serializing_if = "Option::is_none")]
    bk_obj_id: Option<String>,
    /// The target instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    bk_asst_inst_id: Option<i64>,
    /// The target model.
    #[serde(skip_serializing_if = "Option::is_none")]
    bk_asst_obj_id: Option<String>,
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    bk_supplier_account: Option<String>,
    /// The association between the models.
    #[serde(skip_serializing_if = "Option::is_none")]
    bk_obj_asst_id: Option<String>,
    /// The kind of that association.
    #[serde(skip_serializing_if = "Option::is_none")]
    bk_asst_id: Option<String>,
}

/// Which fields of links a caller wants.
#[derive(Debug, Clone)]
pub(super) enum LinkFields {
    /// All of them.
    All,
    /// Those with these names. Unknown names are ignored.
    Only(Vec<String>),
}

impl LinkFields {
    /// As most endpoints take them: an empty list, and names that are empty, mean all fields.
    pub(super) fn new(names: Option<Vec<String>>) -> Self {
        let names: Vec<_> = names.into_iter().flatten().filter(|name| !name.is_empty()).collect();
        if names.is_empty() { Self::All } else { Self::Only(names) }
    }

    fn contain(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|wanted| wanted == name),
        }
    }
}

/// The wanted fields of each link.
pub(super) fn select(links: Vec<StoredLink>, fields: &LinkFields) -> Vec<LinkData> {
    let id = |name, id: i64| (id != 0 && fields.contain(name)).then_some(id);
    let key = |name, key| fields.contain(name).then_some(key);
    let data = |link: StoredLink| LinkData {
        id: id("id", link.id),
        bk_inst_id: id("bk_inst_id", link.source_id),
        bk_obj_id: key("bk_obj_id", link.source_model),
        bk_asst_inst_id: id("bk_asst_inst_id", link.target_id),
        bk_asst_obj_id: key("bk_asst_obj_id", link.target_model),
        bk_supplier_account: key("bk_supplier_account", link.tenant),
        bk_obj_asst_id: key("bk_obj_asst_id", link.model_association),
        bk_asst_id: key("bk_asst_id", link.kind),
    };
    links.into_iter().map(data).collect()
}
