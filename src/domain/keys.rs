//! Keys: the texts by which callers name models, associations, applications, users and tenants.

/// The longest key of a model, association kind or tenant, code of an application and name of a
/// user, in characters.
pub const KEY_LIMIT: usize = 128;

/// The longest key of a model association, in characters.
pub const MODEL_ASSOCIATION_KEY_LIMIT: usize = 512;

/// The longest `Idempotency-Key`, in characters.
pub const IDEMPOTENCY_KEY_LIMIT: usize = 255;

/// Whether `key` can be stored: not empty, at most `limit` characters, no NUL.
pub fn is_valid_key(key: &str, limit: usize) -> bool {
    !key.is_empty() && key.chars().nth(limit).is_none() && !key.contains('\0')
}

/// What [`is_identifier`] requires, for messages.
pub const IDENTIFIER: &str = "a key has only ASCII letters, digits and _, and begins with a letter";

/// Whether `key` has the form of the keys of new models and association kinds: ASCII letters,
/// digits and `_`, beginning with a letter.
pub fn is_identifier(key: &str) -> bool {
    key.starts_with(|first: char| first.is_ascii_alphabetic())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether `name` can name a tenant, a user or an application: a valid key of at most [`KEY_LIMIT`]
/// characters, none of them a control character.
pub fn is_valid_name(name: &str) -> bool {
    is_valid_key(name, KEY_LIMIT) && !has_control_character(name)
}

/// Whether `text` has a control character, NUL included.
pub fn has_control_character(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// A tenant's key (`bk_supplier_account` on the wire).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant(String);

impl Tenant {
    /// The tenant whose models, association kinds, model associations and instances of built-in
    /// models every tenant sees; also the default.
    pub const SHARED: &'static str = "0";

    /// Accepts a valid name. The empty key means [`Tenant::SHARED`].
    pub fn parse(key: &str) -> Option<Self> {
        let key = if key.is_empty() { Self::SHARED } else { key };
        is_valid_name(key).then(|| Self(key.to_owned()))
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self(Self::SHARED.to_owned())
    }
}

/// Whether `key` is an `Idempotency-Key`: 1 to 255 visible ASCII characters.
pub fn is_valid_idempotency_key(key: &str) -> bool {
    (1..=IDEMPOTENCY_KEY_LIMIT).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_measured_in_characters() {
        assert!(is_valid_key(&"机".repeat(128), KEY_LIMIT));
        assert!(!is_valid_key(&"机".repeat(129), KEY_LIMIT));
        assert!(!is_valid_key("", KEY_LIMIT));
        assert!(!is_valid_key("a\0b", KEY_LIMIT));
    }

    #[test]
    fn the_empty_tenant_is_the_shared_one() {
        assert_eq!(Tenant::parse("").unwrap().as_str(), "0");
        assert_eq!(Tenant::parse("superadmin").unwrap().as_str(), "superadmin");
        assert_eq!(Tenant::parse("\0"), None);
    }

    #[test]
    fn a_name_has_no_control_characters() {
        assert!(is_valid_name("机 a"));
        for name in ["", "a\tb", "a\u{7f}", "\u{85}", &"x".repeat(129)] {
            assert!(!is_valid_name(name), "{name:?}");
        }
    }
}
