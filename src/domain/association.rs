//! Models, the associations between them, and how many instances each allows.

use std::fmt;

/// How many instances may stand at either end of a model association, source before target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// `1:1`: an instance is a source once and a target once; the two roles are counted apart.
    OneToOne,
    /// `1:n`: a target has one source.
    OneToMany,
    /// `n:n`: any pair, once.
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

/// The longest key of a model, in characters.
pub const MODEL_KEY_LIMIT: usize = 128;

/// The longest key of a model association, in characters.
pub const MODEL_ASSOCIATION_KEY_LIMIT: usize = 512;

/// Whether `key` can name something stored: not empty, at most `limit` characters, no NUL.
pub fn is_valid_key(key: &str, limit: usize) -> bool {
    !key.is_empty() && key.chars().nth(limit).is_none() && !key.contains('\0')
}

/// A tenant, as callers name it. `"0"` is everybody's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant(String);

impl Tenant {
    /// What an absent or empty account, or the number 0, stands for.
    pub const SHARED: &'static str = "0";

    /// Takes a name of 1 to 128 characters without NUL; the empty name is the shared account.
    pub fn parse(key: &str) -> Option<Self> {
        if key.is_empty() {
            return Some(Self::default());
        }
        is_valid_key(key, MODEL_KEY_LIMIT).then(|| Self(key.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self(Self::SHARED.to_owned())
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A stored model association: which models, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelAssociation {
    /// Our number for it.
    pub id: i32,
    /// Our number for the source model.
    pub source_model_id: i32,
    /// Our number for the target model.
    pub target_model_id: i32,
    /// The source model's key.
    pub source_model: String,
    /// The target model's key.
    pub target_model: String,
    /// How many instances it allows.
    pub mapping: Mapping,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_measured_in_characters() {
        assert!(is_valid_key(&"机".repeat(128), MODEL_KEY_LIMIT));
        assert!(!is_valid_key(&"机".repeat(129), MODEL_KEY_LIMIT));
        assert!(!is_valid_key("", MODEL_KEY_LIMIT));
        assert!(!is_valid_key("a\0b", MODEL_KEY_LIMIT));
    }

    #[test]
    fn an_empty_account_is_the_shared_one() {
        assert_eq!(Tenant::parse("").unwrap().as_str(), "0");
        assert_eq!(Tenant::parse("superadmin").unwrap().as_str(), "superadmin");
        assert_eq!(Tenant::parse("\0"), None);
    }
}
