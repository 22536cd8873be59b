//! Why a change of models, association kinds, model associations or instances is refused. Codes and
//! texts are in `http::change_error`.

use std::borrow::Cow;

use strum::EnumCount;

use super::error::{End, RequestError};
use super::instance::InvalidName;

/// Why a change is refused. The messages are for the log and for commands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, EnumCount)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum ChangeError {
    #[error("{0} is missing: it must be a text")]
    NotAText(&'static str),
    #[error("the key ({field}) is longer than {limit} characters")]
    TooLong { field: &'static str, limit: usize },
    #[error("{problem}")]
    Invalid {
        /// What the caller is told: the name of a field.
        field: &'static str,
        problem: &'static str,
    },
    #[error("{problem}")]
    Duplicate {
        /// What the caller is told: a value that may be repeated, or the name of the field.
        shown: Cow<'static, str>,
        problem: &'static str,
    },
    #[error("there is no such classification")]
    UnknownClassification {
        /// Whether the model is a new one.
        is_new_model: bool,
    },
    #[error("there is no such model")]
    UnknownModel,
    #[error("a built-in model cannot be deleted")]
    BuiltInModel,
    #[error("the model {0:?} has instances")]
    ModelHasInstances(String),
    #[error("the model is the source or the target of model associations")]
    ModelHasAssociations,
    #[error(
        "model associations of the kind \"bk_mainline\" are those of BlueKing CMDB: they cannot be \
         created or deleted"
    )]
    MainlineKind,
    #[error("the association kind and both models are required")]
    MissingParameters,
    #[error("there is a model association of this kind from {source_model:?} to {target_model:?}")]
    SameAssociation { source_model: String, target_model: String },
    #[error("the model {1:?} cannot be associated with others")]
    NotAssociable(End, String),
    #[error("these fields cannot be changed")]
    FixedFields,
    #[error("a predefined model association cannot be changed or deleted")]
    PredefinedAssociation {
        /// Whether it was to be deleted; else to be changed.
        is_deletion: bool,
    },
    #[error("the id is not a positive integer")]
    InvalidAssociationId,
    #[error("instances are associated by the model association")]
    AssociationHasLinks,
    #[error("a predefined association kind cannot be deleted")]
    PredefinedKind,
    #[error("model associations have the association kind")]
    KindIsUsed,
    #[error("instances of a built-in model have endpoints of their own")]
    BuiltInInstance,
    #[error("the model is out of use")]
    PausedModel,
    #[error("there is no such instance")]
    UnknownInstance,
    #[error("{0}")]
    InvalidInstanceName(InvalidName),
    #[error("there is no cloud area with this id")]
    UnknownCloudArea {
        /// The place of the host in the request, from 0.
        index: usize,
        address: String,
    },
    #[error("not all hosts were created")]
    HostsRefused,
    #[error("an instance is linked")]
    LinkedInstance,
}

/// Refuses a text with a NUL, which PostgreSQL cannot store. Each text comes with its field.
pub fn check_texts<'a>(
    texts: impl IntoIterator<Item = (&'static str, &'a str)>,
) -> Result<(), RequestError> {
    match texts.into_iter().find(|(_, text)| text.contains('\0')) {
        Some((field, _)) => Err(RequestError::InvalidField(field.into())),
        None => Ok(()),
    }
}
