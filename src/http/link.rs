//! Links as callers see them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::service::link_search::StoredLink;

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

/// The names of the fields of links.
const NAMES: [&str; 8] = [
    "id",
    "bk_inst_id",
    "bk_obj_id",
    "bk_asst_inst_id",
    "bk_asst_obj_id",
    "bk_supplier_account",
    "bk_obj_asst_id",
    "bk_asst_id",
];

/// Which fields of links a caller wants, in the order of [`NAMES`].
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkFields([bool; NAMES.len()]);

impl LinkFields {
    pub(super) const ALL: Self = Self([true; NAMES.len()]);

    /// Those with these names. Unknown names are ignored.
    pub(super) fn only(names: &[String]) -> Self {
        Self(NAMES.map(|field| names.iter().any(|name| name == field)))
    }

    /// As most endpoints take them: an empty list, and names that are empty, mean all fields.
    pub(super) fn new(names: Option<&[String]>) -> Self {
        let names = names.unwrap_or_default();
        if names.iter().all(String::is_empty) { Self::ALL } else { Self::only(names) }
    }
}

/// The wanted fields of each link.
pub(super) fn select(links: Vec<StoredLink>, fields: LinkFields) -> Vec<LinkData> {
    let LinkFields(wanted) = fields;
    let [id, source, source_model, target, target_model, tenant, association, kind] = wanted;
    let number = |is_wanted: bool, id: i64| (is_wanted && id != 0).then_some(id);
    let data = |link: StoredLink| LinkData {
        id: number(id, link.id),
        bk_inst_id: number(source, link.source_id),
        bk_obj_id: source_model.then_some(link.source_model),
        bk_asst_inst_id: number(target, link.target_id),
        bk_asst_obj_id: target_model.then_some(link.target_model),
        bk_supplier_account: tenant.then_some(link.tenant),
        bk_obj_asst_id: association.then_some(link.model_association),
        bk_asst_id: kind.then_some(link.kind),
    };
    links.into_iter().map(data).collect()
}
