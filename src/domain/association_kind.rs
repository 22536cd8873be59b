//! Association kinds: what a new one must be like.

use super::change_error::{ChangeError, check_texts};
use super::error::RequestError;
use super::keys::{IDENTIFIER, KEY_LIMIT, is_identifier};

/// The kind of the model associations that make up the topology of BlueKing CMDB.
pub const MAINLINE: &str = "bk_mainline";

/// An association kind that is to be created. What is optional is empty if it was not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewKind {
    /// Its key.
    pub key: String,
    /// Whether it is shown as a part of BlueKing CMDB, and cannot be deleted.
    pub is_predefined: Option<bool>,
    /// The texts that can be changed.
    pub texts: KindTexts,
}

/// What can be changed of an association kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KindTexts {
    /// Its name.
    pub name: String,
    /// How the source relates to the target.
    pub source_text: String,
    /// How the target relates to the source.
    pub target_text: String,
    /// The direction of arrows in user interfaces.
    pub direction: String,
}

impl KindTexts {
    /// Checks that they can be stored.
    pub fn check(&self) -> Result<(), RequestError> {
        check_texts([
            ("bk_asst_name", &*self.name),
            ("src_des", &self.source_text),
            ("dest_des", &self.target_text),
            ("direction", &self.direction),
        ])
    }
}

impl NewKind {
    /// Checks what must be so before stored data can be asked for. The other checks come later, as
    /// in the original.
    pub fn check(&self) -> Result<(), RequestError> {
        if self.key.contains('\0') { Err(invalid_key()) } else { self.texts.check() }
    }

    /// Decides whether the kind can be created. `is_key_taken`: whether the tenant sees a kind with
    /// this key.
    pub fn decide(&self, is_key_taken: bool) -> Result<(), RequestError> {
        if is_key_taken {
            let problem = "an association kind has the key already";
            return Err(ChangeError::Duplicate { shown: "bk_asst_id".into(), problem }.into());
        }
        if self.key.chars().count() > KEY_LIMIT {
            return Err(ChangeError::TooLong { field: "bk_asst_id", limit: KEY_LIMIT }.into());
        }
        if is_identifier(&self.key) { Ok(()) } else { Err(invalid_key()) }
    }
}

fn invalid_key() -> RequestError {
    ChangeError::Invalid { field: "bk_asst_id", problem: IDENTIFIER }.into()
}

/// What is stored of an association kind that is to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindUse {
    /// Whether it is predefined.
    pub is_predefined: bool,
    /// Whether model associations have it, of any tenant.
    pub is_used: bool,
}

impl KindUse {
    /// Decides whether the kind can be deleted.
    pub fn decide(self) -> Result<(), RequestError> {
        if self.is_predefined {
            Err(ChangeError::PredefinedKind.into())
        } else if self.is_used {
            Err(ChangeError::KindIsUsed.into())
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_an_identifier_of_at_most_128_characters() {
        let decide =
            |key: &str| NewKind { key: key.to_owned(), ..NewKind::default() }.decide(false);
        assert_eq!(decide(&"k".repeat(128)), Ok(()));
        let too_long = ChangeError::TooLong { field: "bk_asst_id", limit: 128 };
        assert_eq!(decide(&"k".repeat(129)), Err(too_long.into()));
        for key in ["", "1a", "a-b", "类"] {
            assert_eq!(decide(key), Err(invalid_key()), "{key}");
        }
    }

    #[test]
    fn a_kind_that_is_predefined_or_used_cannot_be_deleted() {
        let decide = |is_predefined, is_used| KindUse { is_predefined, is_used }.decide();
        assert_eq!(decide(false, false), Ok(()));
        assert_eq!(decide(false, true), Err(ChangeError::KindIsUsed.into()));
        assert_eq!(decide(true, true), Err(ChangeError::PredefinedKind.into()));
    }
}
