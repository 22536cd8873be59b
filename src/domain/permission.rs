//! What a user may edit, and what is asked for where that is too little.

/// Whether users need permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// They may edit what they were granted.
    Grants,
    /// They may edit everything.
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

/// An instance that a user would have to be allowed to edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// The key of its model.
    pub model: String,
    /// The name of its model.
    pub model_name: String,
    /// The number of its model in the original, else ours: permission actions of models are named by it.
    pub model_number: i64,
    /// The instance.
    pub instance_id: i64,
    /// Its name, if it has one.
    pub name: Option<String>,
}
