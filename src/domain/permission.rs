//! Permissions of users on models and instances.

/// Whether permissions are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// Users may do what they were granted.
    Grants,
    /// Users may do everything.
    Off,
}

/// What a grant lets a user edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Instances of every model.
    All,
    /// Instances of one model.
    Model(String),
    /// One instance of a model.
    Instance(String, i64),
}

/// A model, as a missing permission names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedModel {
    /// Its key.
    pub key: String,
    /// Its name.
    pub name: String,
    /// The number in the names of its permission actions: the export's, else the surrogate key.
    pub number: i64,
}

/// An instance, as a missing permission names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedInstance {
    /// Its id.
    pub id: i64,
    /// Its name, if it has one.
    pub name: Option<String>,
}

/// A permission that the user lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissingPermission {
    /// To edit an instance of a model.
    EditInstance(NamedModel, NamedInstance),
    /// To view the instances of a model.
    ViewModel(NamedModel),
}

impl MissingPermission {
    /// The model that the permission is for.
    pub fn model(&self) -> &NamedModel {
        match self {
            Self::EditInstance(model, _) | Self::ViewModel(model) => model,
        }
    }
}
