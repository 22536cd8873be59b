//! Who sends a request: the application and the user.

/// An application that may call.
#[derive(Debug)]
pub struct App {
    /// Whether its requests are accepted.
    pub enabled: bool,
    /// Whether a user name that it sends is accepted without further proof.
    pub trusts_username: bool,
    /// The names of the endpoints that it may call; `None`: all.
    pub apis: Option<Vec<String>>,
    /// The keys of the tenants that it may act for; `None`: all.
    pub tenants: Option<Vec<String>>,
    /// The valid secrets, at most two.
    pub secrets: Vec<StoredSecret>,
}

/// A secret as it is stored.
#[derive(Debug)]
pub struct StoredSecret {
    /// The key of the hash, 16 random bytes.
    pub salt: Vec<u8>,
    /// HMAC-SHA-256 of the secret.
    pub hash: Vec<u8>,
}

/// The verified sender of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The application's code; empty if a trusted peer named none.
    pub app: String,
    /// The user's name.
    pub user: String,
}

/// Ways to prove an identity that the original supports and this server does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnsupportedScheme {
    /// The SHA-1 signature of the query string (`bk_signature`).
    Signature,
    /// A user token issued by the gateway (`bk_access_token`).
    AccessToken,
}
