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

/// A tenant's key (`bk_supplier_account` on the wire). Every tenant sees the inventory of `"0"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant(String);

impl Tenant {
    /// The tenant whose inventory every tenant sees; also the default.
    pub const SHARED: &'static str = "0";

    /// Accepts a valid key of at most [`KEY_LIMIT`] characters. The empty key means
    /// [`Tenant::SHARED`].
    pub fn parse(key: &str) -> Option<Self> {
        let key = if key.is_empty() { Self::SHARED } else { key };
        is_valid_key(key, KEY_LIMIT).then(|| Self(key.to_owned()))
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
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
}
