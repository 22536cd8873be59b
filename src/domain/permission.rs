//! Permissions of users on models and instances.

/// Whether permissions are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// Users may do what they were granted.
    Grants,
    /// Users may do everything.
    Off,
}

/// What a grant allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::Type, strum::IntoStaticStr)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum GrantAction {
    /// To edit instances, and to view the models of which every instance may be edited.
    #[default]
    Edit,
    /// To view a model with its instances and links.
    View,
    /// To create, change and delete models, association kinds and model associations. No other
    /// grant allows it, and it allows nothing else.
    Models,
    /// To create instances of the models.
    Create,
    /// To delete instances of the models.
    Delete,
}

/// What a grant is for; by default to edit every instance of every model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// What the user may do.
    pub action: GrantAction,
    /// The key of the model; `None`: of every model. A grant to change models names none.
    pub model: Option<String>,
    /// The id of the instance; `None`: every instance. Only a grant to edit may name one.
    pub instance: Option<i64>,
}

/// What a user must be allowed to do. A grant to view a model allows both kinds of viewing, and a
/// grant to change models allows all that follows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// To edit instances.
    #[default]
    EditInstances,
    /// To view the instances and links of a model.
    ViewInstances,
    /// To view the model itself, and its model associations.
    ViewModel,
    /// To create instances of a model.
    CreateInstances,
    /// To delete instances of a model.
    DeleteInstances,
    /// To create models.
    CreateModels,
    /// To change models and to create, change and delete model associations.
    EditModels,
    /// To delete models.
    DeleteModels,
    /// To create association kinds.
    CreateKinds,
    /// To change association kinds.
    EditKinds,
    /// To delete association kinds.
    DeleteKinds,
}

/// A permission that the user lacks, on an instance, on a whole model, or to change models. The
/// latter has no other field than the action.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingPermission {
    /// What the user may not do.
    pub action: Action,
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
