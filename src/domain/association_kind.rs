//! Association kinds: what a new one must be like.

use super::change_error::ChangeError;
use super::error::RequestError;
use super::keys::{KEY_LIMIT, is_identifier};

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

impl NewKind {
    /// Decides whether the kind can be created. `is_key_taken`: whether the tenant sees a kind with
    /// this key.
    pub fn decide(&self, is_key_taken: bool) -> Result<(), RequestError> {
        if is_key_taken {
            return Err(ChangeError::Duplicate("bk_asst_id".into()).into());
        }
        if self.key.chars().count() > KEY_LIMIT {
            return Err(ChangeError::TooLong { field: "bk_asst_id", limit: KEY_LIMIT }.into());
        }
        if is_identifier(&self.key) {
            Ok(())
        } else {
            Err(RequestError::MissingField("bk_asst_id"))
        }
    }
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
            assert_eq!(decide(key), Err(RequestError::MissingField("bk_asst_id")), "{key}");
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
