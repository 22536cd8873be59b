//! Permissions of users on models and instances.

/// Whether permissions are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// Users may do what they were granted.
    Grants,
    /// Users may do everything.
    Off,
}

/// What a grant lets a user edit; by default every instance of every model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The key of the model; `None`: of every model.
    pub model: Option<String>,
    /// The id of the instance; `None`: every instance.
    pub instance: Option<i64>,
}

/// A permission that the user lacks: to edit an instance, or every instance, of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingPermission {
    /// The model's key.
    pub model: String,
    /// The model's name.
    pub model_name: String,
    /// The number in the ids of the model's actions: its id in the export, else its surrogate key.
    pub model_number: i64,
    /// The instance's id; `None`: every instance.
    pub instance_id: Option<i64>,
    /// The instance's name, if it has one.
    pub instance_name: Option<String>,
}
