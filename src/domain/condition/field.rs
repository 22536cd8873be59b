//! The fields that conditions can test. Callers write conditions, so a field has the name by which
//! they know it.

use super::{Field, FieldType, ValueType};

/// A field of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkField {
    /// The link's id.
    Id,
    /// The source instance's id.
    SourceId,
    /// The source model's key.
    SourceModel,
    /// The target instance's id.
    TargetId,
    /// The target model's key.
    TargetModel,
    /// The tenant's key.
    Tenant,
    /// The model association's key.
    ModelAssociation,
    /// The association kind's key.
    Kind,
}

/// A field of a model association.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelAssociationField {
    /// The model association's id.
    Id,
    /// The tenant's key.
    Tenant,
    /// The model association's key.
    Key,
    /// Its name in user interfaces.
    Name,
    /// The source model's key.
    SourceModel,
    /// The target model's key.
    TargetModel,
    /// The association kind's key.
    Kind,
    /// The mapping, such as `1:n`.
    Mapping,
    /// What BlueKing CMDB was told to do when an instance is deleted.
    OnDelete,
    /// Whether it is part of BlueKing CMDB; null counts as false and is shown as null.
    IsPredefined,
}

/// A field of a model. Times cannot be tested: callers send texts, which are never equal to times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelField {
    /// The model's id.
    Id,
    /// Its key.
    Key,
    /// Its name.
    Name,
    /// The tenant's key.
    Tenant,
    /// The key of its classification; empty if it has none.
    Classification,
    /// Its icon.
    Icon,
    /// Whether user interfaces do not list it.
    IsHidden,
    /// Whether it is out of use.
    IsPaused,
    /// Whether it is shown as a part of BlueKing CMDB.
    IsPredefined,
    /// Its place in user interfaces.
    Position,
    /// Its description.
    Description,
    /// Its place in its classification.
    SortNumber,
    /// The user who created it.
    Creator,
    /// The user who changed it last.
    Modifier,
}

/// A field of an association kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KindField {
    /// The association kind's id.
    Id,
    /// Its key.
    Key,
    /// The tenant's key.
    Tenant,
    /// Its name.
    Name,
    /// How the source relates to the target.
    SourceText,
    /// How the target relates to the source.
    TargetText,
    /// The direction of arrows in user interfaces.
    Direction,
    /// Whether it is part of BlueKing CMDB; null counts as false and is shown as null.
    IsPredefined,
}

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

    fn field_type(&self) -> FieldType {
        let value = match self {
            Self::Id | Self::SourceId | Self::TargetId => ValueType::Integer,
            Self::SourceModel
            | Self::TargetModel
            | Self::Tenant
            | Self::ModelAssociation
            | Self::Kind => ValueType::Text,
        };
        FieldType { value, is_nullable: false }
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

    fn field_type(&self) -> FieldType {
        let value = match self {
            Self::Id => ValueType::Integer,
            Self::IsPredefined => ValueType::Boolean,
            Self::Tenant
            | Self::Key
            | Self::Name
            | Self::SourceModel
            | Self::TargetModel
            | Self::Kind
            | Self::Mapping
            | Self::OnDelete => ValueType::Text,
        };
        FieldType { value, is_nullable: *self == Self::IsPredefined }
    }
}

impl Field for ModelField {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "bk_obj_id" => Self::Key,
            "bk_obj_name" => Self::Name,
            "bk_supplier_account" => Self::Tenant,
            "bk_classification_id" => Self::Classification,
            "bk_obj_icon" => Self::Icon,
            "bk_ishidden" => Self::IsHidden,
            "bk_ispaused" => Self::IsPaused,
            "ispre" => Self::IsPredefined,
            "position" => Self::Position,
            "description" => Self::Description,
            "obj_sort_number" => Self::SortNumber,
            "creator" => Self::Creator,
            "modifier" => Self::Modifier,
            _ => return None,
        })
    }

    fn field_type(&self) -> FieldType {
        let value = match self {
            Self::Id | Self::SortNumber => ValueType::Integer,
            Self::IsHidden | Self::IsPaused | Self::IsPredefined => ValueType::Boolean,
            Self::Key
            | Self::Name
            | Self::Tenant
            | Self::Classification
            | Self::Icon
            | Self::Position
            | Self::Description
            | Self::Creator
            | Self::Modifier => ValueType::Text,
        };
        FieldType { value, is_nullable: false }
    }
}

impl Field for KindField {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "bk_asst_id" => Self::Key,
            "bk_supplier_account" => Self::Tenant,
            "bk_asst_name" => Self::Name,
            "src_des" => Self::SourceText,
            "dest_des" => Self::TargetText,
            "direction" => Self::Direction,
            "ispre" => Self::IsPredefined,
            _ => return None,
        })
    }

    fn field_type(&self) -> FieldType {
        let value = match self {
            Self::Id => ValueType::Integer,
            Self::IsPredefined => ValueType::Boolean,
            Self::Key
            | Self::Tenant
            | Self::Name
            | Self::SourceText
            | Self::TargetText
            | Self::Direction => ValueType::Text,
        };
        FieldType { value, is_nullable: *self == Self::IsPredefined }
    }
}

/// A field of documents, with any name: the keys that lead to it, from the outermost.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DocumentField(pub Vec<String>);

impl DocumentField {
    /// The longest name, in bytes. Longer ones are those of no field.
    const NAME_LIMIT: usize = 1_000;

    /// The most keys in a name.
    const DEPTH_LIMIT: usize = 32;
}

impl Field for DocumentField {
    fn by_name(name: &str) -> Option<Self> {
        let keys: Vec<_> = name.split('.').map(str::to_owned).collect();
        // jsonb has no key with a NUL.
        let is_field = name.len() <= Self::NAME_LIMIT
            && keys.len() <= Self::DEPTH_LIMIT
            && !name.contains('\0');
        is_field.then_some(Self(keys))
    }

    fn field_type(&self) -> FieldType {
        FieldType { value: ValueType::Json, is_nullable: true }
    }

    fn inner(&self, Self(inner): &Self) -> Option<Self> {
        Some(Self([self.0.as_slice(), inner].concat()))
    }

    fn is_known(_: &str) -> bool {
        false
    }
}
