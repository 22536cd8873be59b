//! Model associations as callers see them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::association::NewModelAssociation;
use crate::service::model_association::StoredModelAssociation;

/// A model association: which models may be associated.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelAssociationData {
    /// Its id, a number.
    id: i64,
    /// The tenant.
    bk_supplier_account: String,
    /// The name by which other endpoints refer to it.
    bk_obj_asst_id: String,
    /// The name in user interfaces.
    bk_obj_asst_name: String,
    /// The source model.
    bk_obj_id: String,
    /// The target model.
    bk_asst_obj_id: String,
    /// The association kind.
    bk_asst_id: String,
    /// How many associations an instance may have: `1:1`, `1:n` or `n:n`. Anything else is like
    /// `n:n`.
    mapping: String,
    /// What BlueKing CMDB was told to do when an instance is deleted. It has no effect.
    on_delete: String,
    /// Whether it is part of BlueKing CMDB.
    #[schema(required)]
    ispre: Option<bool>,
}

impl From<StoredModelAssociation> for ModelAssociationData {
    fn from(stored: StoredModelAssociation) -> Self {
        Self {
            id: stored.number,
            bk_supplier_account: stored.tenant,
            bk_obj_asst_id: stored.key,
            bk_obj_asst_name: stored.name,
            bk_obj_id: stored.source_model,
            bk_asst_obj_id: stored.target_model,
            bk_asst_id: stored.kind,
            mapping: stored.mapping,
            on_delete: stored.on_delete,
            ispre: stored.is_predefined,
        }
    }
}

impl ModelAssociationData {
    /// The answer to the creation: what was sent, and the id. As in the original, the tenant is
    /// empty.
    pub(super) fn created(id: i64, new: NewModelAssociation) -> Self {
        Self {
            id,
            bk_supplier_account: String::new(),
            bk_obj_asst_id: new.key,
            bk_obj_asst_name: new.name,
            bk_obj_id: new.source_model,
            bk_asst_obj_id: new.target_model,
            bk_asst_id: new.kind,
            mapping: new.mapping,
            on_delete: new.on_delete,
            ispre: new.is_predefined,
        }
    }
}
