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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The key of the model; `None`: of every model.
    pub model: Option<String>,
    /// The id of the instance; `None`: every instance.
    pub instance: Option<i64>,
}

impl Scope {
    /// Every instance of every model.
    pub const ALL: Self = Self { model: None, instance: None };
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

/// A permission that the user lacks: to edit an instance, or every instance, of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPermission {
    /// The model.
    pub model: NamedModel,
    /// The instance; `None`: every instance.
    pub instance: Option<NamedInstance>,
}
