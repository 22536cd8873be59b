//! Model associations: which models may be associated, and how many instances at each end.

use super::error::{End, RequestError};

/// How many instances may stand at each end of a model association, source before target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text")]
pub enum Mapping {
    /// An instance has at most one link as a source and at most one as a target.
    #[sqlx(rename = "1:1")]
    OneToOne,
    /// A target has at most one source.
    #[sqlx(rename = "1:n")]
    OneToMany,
    /// Only the same pair may not be linked twice.
    #[sqlx(rename = "n:n")]
    ManyToMany,
}

/// Checks that a model association was found and is between the two models.
///
/// Association keys are usually `<source>_<kind>_<target>`. If the key is unknown and does not even
/// begin or end with the given model, the error names that model, as the original's does.
pub fn check_models(
    found: Option<(&str, &str)>, key: &str, (source, target): (&str, &str),
) -> Result<(), RequestError> {
    let (source_fits, target_fits) = match found {
        Some((found_source, found_target)) => (found_source == source, found_target == target),
        None => (key.starts_with(source), key.ends_with(target)),
    };
    match (source_fits, target_fits, found) {
        (false, ..) => Err(RequestError::ModelMismatch(End::Source)),
        (_, false, _) => Err(RequestError::ModelMismatch(End::Target)),
        (.., None) => Err(RequestError::UnknownModelAssociation),
        (.., Some(_)) => Ok(()),
    }
}
