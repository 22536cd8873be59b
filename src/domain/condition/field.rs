//! The fields that conditions can test. Their names on the wire are in `http::fields`.

use super::{FieldType, ValueType};

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

impl LinkField {
    /// What values it has.
    pub fn field_type(self) -> FieldType {
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

impl ModelAssociationField {
    /// What values it has.
    pub fn field_type(self) -> FieldType {
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
        FieldType { value, is_nullable: self == Self::IsPredefined }
    }
}
