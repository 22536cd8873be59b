//! The names on the wire of the fields that conditions can test.

use crate::domain::condition::{Field, FieldType, LinkField, ModelAssociationField};

impl Field for LinkField {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "bk_inst_id" => Self::SourceId,
            "bk_obj_id" => Self::SourceModel,
            "bk_asst_inst_id" => Self::TargetId,
            "bk_asst_obj_id" => Self::TargetModel,
            "bk_supplier_account" => Self::Tenant,
            "bk_obj_asst_id" => Self::ModelAssociation,
            "bk_asst_id" => Self::Kind,
            _ => return None,
        })
    }

    fn field_type(self) -> FieldType {
        self.field_type()
    }
}

impl Field for ModelAssociationField {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "bk_supplier_account" => Self::Tenant,
            "bk_obj_asst_id" => Self::Key,
            "bk_obj_asst_name" => Self::Name,
            "bk_obj_id" => Self::SourceModel,
            "bk_asst_obj_id" => Self::TargetModel,
            "bk_asst_id" => Self::Kind,
            "mapping" => Self::Mapping,
            "on_delete" => Self::OnDelete,
            "ispre" => Self::IsPredefined,
            _ => return None,
        })
    }

    fn field_type(self) -> FieldType {
        self.field_type()
    }
}
