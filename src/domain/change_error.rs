//! Why a change of models, association kinds or model associations is refused. Codes and texts are
//! in `http::change_error`.

use std::borrow::Cow;

use strum::EnumCount;

use super::error::End;

/// Why a change is refused. The messages are for the log and for commands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, EnumCount)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum ChangeError {
    #[error("{0} is missing: it must be a text")]
    NotAText(&'static str),
    #[error("{field} is longer than {limit} characters")]
    TooLong { field: &'static str, limit: usize },
    /// A value that may be repeated to the caller, or the name of the field.
    #[error("{0} exists already")]
    Duplicate(Cow<'static, str>),
    #[error("there is no such classification")]
    UnknownClassification {
        /// Whether the model is a new one.
        is_new_model: bool,
    },
    #[error("there is no such model")]
    UnknownModel,
    #[error("the model is built in")]
    BuiltInModel,
    #[error("the model {0} has instances")]
    ModelHasInstances(String),
    #[error("the model has model associations")]
    ModelHasAssociations,
    #[error("the kind bk_mainline is for the topology of BlueKing CMDB")]
    MainlineKind,
    #[error("the kind and both models are required")]
    MissingParameters,
    #[error("{source_model} and {target_model} are associated by this kind already")]
    SameAssociation { source_model: String, target_model: String },
    #[error("the {0:?} model {1} cannot be associated")]
    NotAssociable(End, String),
    #[error("these fields cannot be changed")]
    FixedFields,
    #[error("the model association is predefined")]
    PredefinedAssociation {
        /// Whether it was to be deleted; else to be changed.
        is_deletion: bool,
    },
    #[error("the id is not a positive integer")]
    InvalidAssociationId,
    #[error("the model association has links")]
    AssociationHasLinks,
    #[error("the association kind is predefined")]
    PredefinedKind,
    #[error("the association kind is used by model associations")]
    KindIsUsed,
}
