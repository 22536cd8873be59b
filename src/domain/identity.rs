//! Who sends a request: the application and the user.

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
