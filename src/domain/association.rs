//! Model associations: which models may be associated, and how many instances at each end.

use super::error::{End, RequestError};

/// How many instances may stand at each end of a model association, source before target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// `1:1`: an instance has at most one link as a source and at most one as a target.
    OneToOne,
    /// `1:n`: a target has at most one source.
    OneToMany,
    /// `n:n`: only the same pair may not be linked twice.
    ManyToMany,
}

impl Mapping {
    /// Reads the text that exports and the database use.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "1:1" => Some(Self::OneToOne),
            "1:n" => Some(Self::OneToMany),
            "n:n" => Some(Self::ManyToMany),
            _ => None,
        }
    }
}

/// A stored model association.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelAssociation {
    /// Its surrogate key.
    pub id: i32,
    /// The surrogate key of the source model.
    pub source_model_id: i32,
    /// The surrogate key of the target model.
    pub target_model_id: i32,
    /// The source model's key.
    pub source_model: String,
    /// The target model's key.
    pub target_model: String,
    /// How many instances it allows at each end.
    pub mapping: Mapping,
}

/// Checks that the model association `key` was found and is between the two models.
///
/// Association keys are usually `<source>_<kind>_<target>`. If the key is unknown and does not even
/// begin or end with the given model, the error names that model, as the original's does.
pub fn check_models<'a>(
    found: Option<&'a ModelAssociation>,
    key: &str,
    source_model: &str,
    target_model: &str,
) -> Result<&'a ModelAssociation, RequestError> {
    let (source_fits, target_fits) = match found {
        Some(found) => (found.source_model == source_model, found.target_model == target_model),
        None => (key.starts_with(source_model), key.ends_with(target_model)),
    };
    if !source_fits {
        return Err(RequestError::ModelMismatch(End::Source));
    }
    if !target_fits {
        return Err(RequestError::ModelMismatch(End::Target));
    }
    found.ok_or(RequestError::UnknownModelAssociation)
}
