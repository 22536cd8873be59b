//! Model associations: which models may be associated, and how many instances at each end.

use super::association_kind::MAINLINE;
use super::change_error::{ChangeError, check_texts};
use super::error::{End, RequestError};
use super::keys::MODEL_ASSOCIATION_KEY_LIMIT;

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

impl Mapping {
    /// The mapping that callers call `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "1:1" => Some(Self::OneToOne),
            "1:n" => Some(Self::OneToMany),
            "n:n" => Some(Self::ManyToMany),
            _ => None,
        }
    }
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

/// A model association that is to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewModelAssociation {
    /// Its key.
    pub key: String,
    /// Its name; may be empty.
    pub name: String,
    /// The key of the source model.
    pub source_model: String,
    /// The key of the target model.
    pub target_model: String,
    /// The key of the association kind.
    pub kind: String,
    /// The mapping, as the caller writes it.
    pub mapping: String,
    /// What BlueKing CMDB would do when an instance is deleted. It has no effect.
    pub on_delete: String,
    /// Whether it is shown as a part of BlueKing CMDB, and cannot be changed or deleted.
    pub is_predefined: Option<bool>,
}

/// What is stored that decides about a new model association, as far as its tenant sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct StateForNewModelAssociation {
    /// The surrogate key of the source model.
    pub source_model_id: Option<i32>,
    /// The surrogate key of the target model.
    pub target_model_id: Option<i32>,
    /// The surrogate key of the association kind.
    pub kind_id: Option<i32>,
    /// Whether a model association has the same models and kind.
    pub has_same: bool,
    /// Whether a model association of the tenant itself has the key.
    pub is_key_taken: bool,
}

/// The surrogate keys and the mapping of a model association that can be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssociationEnds {
    /// The source model.
    pub source_model_id: i32,
    /// The target model.
    pub target_model_id: i32,
    /// The association kind.
    pub kind_id: i32,
    /// The mapping.
    pub mapping: Mapping,
}

/// The model that BlueKing CMDB does not let be associated.
const NOT_ASSOCIABLE: &str = "bk_project";

const SOURCE: ChangeError =
    ChangeError::Invalid { field: "bk_obj_id", problem: "there is no such source model" };
const TARGET: ChangeError =
    ChangeError::Invalid { field: "bk_asst_obj_id", problem: "there is no such target model" };
const BOTH: ChangeError = ChangeError::Invalid {
    field: "bk_obj_id&bk_asst_obj_id",
    problem: "there are no such source and target models",
};
const KIND: ChangeError =
    ChangeError::Invalid { field: "bk_asst_id", problem: "there is no such association kind" };

impl NewModelAssociation {
    /// Checks what can be checked without stored data. The other checks come later, as in the
    /// original.
    pub fn check(&self) -> Result<(), RequestError> {
        if self.kind == MAINLINE {
            return Err(ChangeError::MainlineKind.into());
        }
        if [&self.kind, &self.source_model, &self.target_model].iter().any(|key| key.is_empty()) {
            return Err(ChangeError::MissingParameters.into());
        }
        // Such keys name nothing that exists.
        let lookups =
            [(SOURCE, &self.source_model), (TARGET, &self.target_model), (KIND, &self.kind)];
        if let Some((unknown, _)) = lookups.into_iter().find(|(_, key)| key.contains('\0')) {
            return Err(unknown.into());
        }
        if self.key.contains('\0') {
            let problem = "the key must not contain a NUL character";
            return Err(ChangeError::Invalid { field: "bk_obj_asst_id", problem }.into());
        }
        check_texts([("bk_obj_asst_name", &*self.name), ("on_delete", &self.on_delete)])
    }

    /// Decides whether the model association can be created.
    pub fn decide(
        &self, stored: StateForNewModelAssociation,
    ) -> Result<AssociationEnds, RequestError> {
        let StateForNewModelAssociation { source_model_id, target_model_id, kind_id, .. } = stored;
        if stored.has_same {
            let (source_model, target_model) =
                (self.source_model.clone(), self.target_model.clone());
            return Err(ChangeError::SameAssociation { source_model, target_model }.into());
        }
        let (source_model_id, target_model_id) = match (source_model_id, target_model_id) {
            (Some(source), Some(target)) => (source, target),
            (None, None) => return Err(BOTH.into()),
            (None, _) => return Err(SOURCE.into()),
            (_, None) => return Err(TARGET.into()),
        };
        let kind_id = kind_id.ok_or(KIND)?;
        let mapping = Mapping::by_name(&self.mapping);
        let mapping = mapping.ok_or(RequestError::InvalidField("mapping".into()))?;
        if self.key.is_empty() {
            return Err(RequestError::UnassignedField("bk_obj_asst_id"));
        }
        if self.key.chars().count() > MODEL_ASSOCIATION_KEY_LIMIT {
            let (field, limit) = ("bk_obj_asst_id", MODEL_ASSOCIATION_KEY_LIMIT);
            return Err(ChangeError::TooLong { field, limit }.into());
        }
        for (end, model) in [(End::Source, &self.source_model), (End::Target, &self.target_model)] {
            if model == NOT_ASSOCIABLE {
                return Err(ChangeError::NotAssociable(end, model.clone()).into());
            }
        }
        if stored.is_key_taken {
            let problem = "a model association of the tenant has the key already";
            return Err(ChangeError::Duplicate { shown: "bk_obj_asst_id".into(), problem }.into());
        }
        Ok(AssociationEnds { source_model_id, target_model_id, kind_id, mapping })
    }
}

/// What is stored of a model association that is to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelAssociationUse {
    /// Whether its kind is [`MAINLINE`].
    pub is_mainline: bool,
    /// Whether it is predefined.
    pub is_predefined: bool,
    /// Whether it has links, of any tenant.
    pub has_links: bool,
}

impl ModelAssociationUse {
    /// Decides whether the model association can be deleted.
    pub fn decide(self) -> Result<(), RequestError> {
        if self.is_mainline {
            Err(ChangeError::MainlineKind.into())
        } else if self.is_predefined {
            Err(ChangeError::PredefinedAssociation { is_deletion: true }.into())
        } else if self.has_links {
            Err(ChangeError::AssociationHasLinks.into())
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: StateForNewModelAssociation = StateForNewModelAssociation {
        source_model_id: Some(1),
        target_model_id: Some(2),
        kind_id: Some(3),
        has_same: false,
        is_key_taken: false,
    };

    fn new() -> NewModelAssociation {
        NewModelAssociation {
            key: "rack_group_switch".to_owned(),
            source_model: "rack".to_owned(),
            target_model: "switch".to_owned(),
            kind: "group".to_owned(),
            mapping: "1:n".to_owned(),
            ..NewModelAssociation::default()
        }
    }

    #[test]
    fn a_model_association_has_one_of_three_mappings() {
        let expected = AssociationEnds {
            source_model_id: 1,
            target_model_id: 2,
            kind_id: 3,
            mapping: Mapping::OneToMany,
        };
        assert_eq!(new().decide(FREE), Ok(expected));
        for mapping in ["", "n:1", "5:7", "1:N"] {
            let new = NewModelAssociation { mapping: mapping.to_owned(), ..new() };
            assert_eq!(new.decide(FREE), Err(RequestError::InvalidField("mapping".into())));
        }
    }

    #[test]
    fn models_and_kind_must_exist() {
        let refused = |stored| new().decide(stored).unwrap_err();
        let no_source = StateForNewModelAssociation { source_model_id: None, ..FREE };
        let no_target = StateForNewModelAssociation { target_model_id: None, ..FREE };
        let neither = StateForNewModelAssociation { target_model_id: None, ..no_source };
        let no_kind = StateForNewModelAssociation { kind_id: None, ..FREE };
        for (stored, unknown) in
            [(no_source, SOURCE), (no_target, TARGET), (neither, BOTH), (no_kind, KIND)]
        {
            assert_eq!(refused(stored), unknown.into());
        }
    }

    #[test]
    fn a_key_has_1_to_512_characters() {
        let keyed = |key: String| NewModelAssociation { key, ..new() }.decide(FREE).map(|_| ());
        assert_eq!(keyed("键".repeat(512)), Ok(()));
        let too_long = ChangeError::TooLong { field: "bk_obj_asst_id", limit: 512 };
        assert_eq!(keyed("z".repeat(513)), Err(too_long.into()));
        assert_eq!(keyed(String::new()), Err(RequestError::UnassignedField("bk_obj_asst_id")));
        assert!(NewModelAssociation { key: "a\0".to_owned(), ..new() }.check().is_err());
    }

    #[test]
    fn a_model_association_in_use_cannot_be_deleted() {
        let unused =
            ModelAssociationUse { is_mainline: false, is_predefined: false, has_links: false };
        assert_eq!(unused.decide(), Ok(()));
        let linked = ModelAssociationUse { has_links: true, ..unused };
        assert_eq!(linked.decide(), Err(ChangeError::AssociationHasLinks.into()));
        let predefined = ModelAssociationUse { is_predefined: true, ..linked };
        let refused = ChangeError::PredefinedAssociation { is_deletion: true };
        assert_eq!(predefined.decide(), Err(refused.into()));
        let mainline = ModelAssociationUse { is_mainline: true, ..predefined };
        assert_eq!(mainline.decide(), Err(ChangeError::MainlineKind.into()));
    }
}
