//! Models: what a new or a changed one must be like.

use super::change_error::{ChangeError, check_texts};
use super::error::RequestError;
use super::keys::{IDENTIFIER, KEY_LIMIT, Tenant, is_identifier, is_valid_key};

/// The models that every BlueKing CMDB has, and that have collections of their own there.
pub const BUILT_IN_MODELS: [&str; 8] =
    ["host", "biz", "set", "module", "process", "plat", "bk_biz_set_obj", "bk_project"];

/// How many bytes the key of a model and that of its tenant may have together. BlueKing CMDB stores
/// the instances in a collection `cc_ObjectBase_{tenant}_pub_{model}`, whose name has at most 115.
const MODEL_AND_TENANT_BYTES: usize = 96;

/// A model that is to be created. What is optional there is empty or false if it was not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewModel {
    /// Its key.
    pub key: String,
    /// Its name.
    pub name: String,
    /// The key of its classification; `None` if it was not given.
    pub classification: Option<String>,
    /// Its icon.
    pub icon: String,
    /// Its place in its classification, from 1; 0 or too high a number: the last one.
    pub sort_number: i64,
    /// Its description.
    pub description: String,
    /// Its place in user interfaces.
    pub position: String,
    /// Whether user interfaces do not list it.
    pub is_hidden: bool,
    /// Whether it is out of use in user interfaces.
    pub is_paused: bool,
    /// Whether it is shown as a part of BlueKing CMDB.
    pub is_predefined: bool,
}

/// What is stored that decides about a new model.
#[derive(Debug, Clone, Copy)]
pub struct StateForNewModel {
    /// Whether the classification exists.
    pub has_classification: bool,
    /// Whether a model of any tenant has the key.
    pub is_key_taken: bool,
    /// Whether a model of any tenant has the name.
    pub is_name_taken: bool,
}

impl NewModel {
    /// Checks what can be checked without stored data. The other checks come later, as in the
    /// original.
    pub fn check(&self) -> Result<(), RequestError> {
        check_key(&self.key)?;
        check_name(&self.name)?;
        let Some(classification) = &self.classification else {
            return Err(RequestError::UnassignedField("bk_classification_id"));
        };
        if BUILT_IN_MODELS.contains(&&*self.key) {
            return Err(invalid_key("every BlueKing CMDB has a model with this key"));
        }
        if classification.contains('\0') {
            return Err(ChangeError::UnknownClassification { is_new_model: true }.into());
        }
        check_texts([
            ("bk_obj_icon", &*self.icon),
            ("position", &self.position),
            ("description", &self.description),
        ])
    }

    /// Decides whether the model can be created.
    pub fn decide(&self, tenant: &Tenant, stored: StateForNewModel) -> Result<(), RequestError> {
        let is_reserved = self.key.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("bk"));
        let bytes = self.key.len() + tenant.as_str().len();
        Err(if !stored.has_classification {
            ChangeError::UnknownClassification { is_new_model: true }.into()
        } else if self.icon.is_empty() {
            RequestError::UnassignedField("bk_obj_icon")
        } else if self.sort_number < 0 {
            RequestError::InvalidField("obj_sort_number".into())
        } else if is_reserved {
            let field = "bk_obj_id value can not start with bk or BK";
            ChangeError::Invalid { field, problem: "a model's key must not begin with bk" }.into()
        } else if bytes > MODEL_AND_TENANT_BYTES {
            invalid_key("the keys of a model and of its tenant have at most 96 bytes together")
        } else if stored.is_key_taken {
            let shown = self.key.clone().into();
            let problem = "a model of this or of another tenant has the key";
            ChangeError::Duplicate { shown, problem }.into()
        } else if stored.is_name_taken {
            duplicate_name(&self.name)
        } else {
            return Ok(());
        })
    }
}

/// Checks the form of a model's key.
pub fn check_key(key: &str) -> Result<(), RequestError> {
    if key.is_empty() {
        return Err(RequestError::UnassignedField("bk_obj_id"));
    }
    if key.chars().count() > KEY_LIMIT {
        return Err(ChangeError::TooLong { field: "bk_obj_id", limit: KEY_LIMIT }.into());
    }
    if is_identifier(key) { Ok(()) } else { Err(invalid_key(IDENTIFIER)) }
}

fn invalid_key(problem: &'static str) -> RequestError {
    ChangeError::Invalid { field: "bk_obj_id", problem }.into()
}

fn duplicate_name(name: &str) -> RequestError {
    let problem = "a model of this or of another tenant has the name";
    ChangeError::Duplicate { shown: name.to_owned().into(), problem }.into()
}

/// Checks the form of a model's name.
pub fn check_name(name: &str) -> Result<(), RequestError> {
    let is_valid = is_valid_key(name, KEY_LIMIT);
    let problem = "a model's name has 1 to 128 characters";
    let invalid = ChangeError::Invalid { field: "bk_obj_name", problem };
    if is_valid { Ok(()) } else { Err(invalid.into()) }
}

/// What is to be changed of a model; `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelChange {
    /// The name.
    pub name: Option<String>,
    /// The key of the classification. In another one, the model becomes the last.
    pub classification: Option<String>,
    /// The icon.
    pub icon: Option<String>,
    /// The place in the classification, as in [`NewModel::sort_number`].
    pub sort_number: Option<i64>,
    /// The description.
    pub description: Option<String>,
    /// The place in user interfaces.
    pub position: Option<String>,
    /// Whether user interfaces do not list it.
    pub is_hidden: Option<bool>,
    /// Whether it is out of use in user interfaces.
    pub is_paused: Option<bool>,
    /// Whether it is shown as a part of BlueKing CMDB.
    pub is_predefined: Option<bool>,
}

/// What is stored that decides about the change of a model.
#[derive(Debug, Clone, Copy)]
pub struct StateForModelChange {
    /// Whether the new classification exists; true if there is none.
    pub has_classification: bool,
    /// Whether another model of any tenant has the new name.
    pub is_name_taken: bool,
}

impl ModelChange {
    /// Checks what can be checked without stored data.
    pub fn check(&self) -> Result<(), RequestError> {
        self.name.as_deref().map_or(Ok(()), check_name)?;
        if self.classification.as_ref().is_some_and(|key| key.contains('\0')) {
            return Err(ChangeError::UnknownClassification { is_new_model: false }.into());
        }
        let texts = [
            ("bk_obj_icon", &self.icon),
            ("position", &self.position),
            ("description", &self.description),
        ];
        check_texts(texts.into_iter().filter_map(|(field, text)| Some((field, &**text.as_ref()?))))
    }

    /// Decides about the change of a model that exists or not.
    pub fn decide(&self, exists: bool, stored: StateForModelChange) -> Result<(), RequestError> {
        if !stored.has_classification {
            return Err(ChangeError::UnknownClassification { is_new_model: false }.into());
        }
        if !exists {
            return Err(ChangeError::UnknownModel.into());
        }
        if self.sort_number.is_some_and(|number| number < 0) {
            return Err(RequestError::InvalidField("obj_sort_number".into()));
        }
        if stored.is_name_taken {
            return Err(duplicate_name(self.name.as_deref().unwrap_or_default()));
        }
        Ok(())
    }
}

/// What is stored of a model that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelUse {
    /// Its key.
    pub key: String,
    /// Whether it is built in.
    pub is_built_in: bool,
    /// Whether it has instances, of any tenant.
    pub has_instances: bool,
    /// Whether it is the source or the target of model associations, of any tenant.
    pub has_associations: bool,
}

impl ModelUse {
    /// Decides whether the model can be deleted.
    pub fn decide(&self) -> Result<(), RequestError> {
        if self.is_built_in {
            Err(ChangeError::BuiltInModel.into())
        } else if self.has_instances {
            Err(ChangeError::ModelHasInstances(self.key.clone()).into())
        } else if self.has_associations {
            Err(ChangeError::ModelHasAssociations.into())
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: StateForNewModel =
        StateForNewModel { has_classification: true, is_key_taken: false, is_name_taken: false };

    fn new(key: &str) -> NewModel {
        NewModel {
            key: key.to_owned(),
            name: "a rack".to_owned(),
            classification: Some("bk_network".to_owned()),
            icon: "icon".to_owned(),
            ..NewModel::default()
        }
    }

    fn decide(new: &NewModel, stored: StateForNewModel) -> Result<(), RequestError> {
        new.check().and_then(|()| new.decide(&Tenant::default(), stored))
    }

    #[test]
    fn a_key_is_an_identifier_that_does_not_begin_with_bk() {
        for key in ["rack", "R2", "a_b", "HOST", "b", &"a".repeat(95)] {
            assert_eq!(decide(&new(key), FREE), Ok(()), "{key}");
        }
        for key in ["1a", "a-b", "_a", "模型", "a b", "host", "bkx", "BK", "Bk_a", &"a".repeat(96)]
        {
            let error = decide(&new(key), FREE).unwrap_err();
            let is_invalid = matches!(error, RequestError::Change(ChangeError::Invalid { .. }));
            assert!(is_invalid, "{key}: {error}");
        }
        assert_eq!(decide(&new(""), FREE), Err(RequestError::UnassignedField("bk_obj_id")));
        let too_long = ChangeError::TooLong { field: "bk_obj_id", limit: 128 };
        assert_eq!(decide(&new(&"a".repeat(129)), FREE), Err(too_long.into()));
    }

    #[test]
    fn the_bytes_of_the_tenant_count_for_the_length_of_a_key() {
        let tenant = Tenant::parse("tenant-1").unwrap();
        assert_eq!(new(&"a".repeat(88)).decide(&tenant, FREE), Ok(()));
        assert!(new(&"a".repeat(89)).decide(&tenant, FREE).is_err());
    }

    #[test]
    fn a_name_has_1_to_128_characters() {
        let named = |name: String| decide(&NewModel { name, ..new("rack") }, FREE);
        assert_eq!(named("名".repeat(128)), Ok(()));
        for name in [String::new(), "名".repeat(129), "a\0".to_owned()] {
            assert_eq!(named(name.clone()), check_name(&name));
            assert!(named(name).is_err());
        }
    }

    #[test]
    fn the_classification_is_checked_first_and_the_name_last() {
        let unknown = ChangeError::UnknownClassification { is_new_model: true };
        let nothing =
            StateForNewModel { has_classification: false, is_key_taken: true, is_name_taken: true };
        let without_icon = NewModel { icon: String::new(), ..new("bkx") };
        assert_eq!(decide(&without_icon, nothing), Err(unknown.into()));
        let taken = StateForNewModel { has_classification: true, ..nothing };
        let shown = |taken| match decide(&new("rack"), taken).unwrap_err() {
            RequestError::Change(ChangeError::Duplicate { shown, .. }) => shown,
            error => panic!("{error}"),
        };
        assert_eq!(shown(taken), "rack");
        assert_eq!(shown(StateForNewModel { is_key_taken: false, ..taken }), "a rack");
    }

    #[test]
    fn a_model_that_is_used_cannot_be_deleted() {
        let unused = ModelUse {
            key: "rack".to_owned(),
            is_built_in: false,
            has_instances: false,
            has_associations: false,
        };
        assert_eq!(unused.decide(), Ok(()));
        let associated = ModelUse { has_associations: true, ..unused };
        assert_eq!(associated.decide(), Err(ChangeError::ModelHasAssociations.into()));
        let filled = ModelUse { has_instances: true, ..associated };
        let has_instances = ChangeError::ModelHasInstances("rack".to_owned());
        assert_eq!(filled.decide(), Err(has_instances.into()));
        let built_in = ModelUse { is_built_in: true, ..filled };
        assert_eq!(built_in.decide(), Err(ChangeError::BuiltInModel.into()));
    }
}
