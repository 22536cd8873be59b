//! Model associations: which models may be associated, and how many instances at each end.

use super::error::{End, RequestError};

/// How many links an instance may have as a source and as a target of a model association.
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
/// Keys of model associations are usually `<source>_<kind>_<target>`. If there is none with this
/// key, and the key does not begin with the source or end with the target, the error is that of a
/// wrong source or target, as in the original.
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
