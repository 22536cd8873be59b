//! Who is calling.

/// The longest code of an application, in characters.
pub const APP_CODE_LIMIT: usize = 128;

/// The longest name of a user that is believed, in characters.
pub const USERNAME_LIMIT: usize = 128;

/// What a request says about who sends it, before anybody believed it. Empty texts count as absent.
#[derive(Clone, Default)]
pub struct Credentials {
    /// `bk_app_code`.
    pub app_code: Option<String>,
    /// `bk_app_secret`.
    pub app_secret: Option<String>,
    /// `bk_token`.
    pub token: Option<String>,
    /// `bk_username`.
    pub username: Option<String>,
    /// A scheme that is not supported, if the request uses one.
    pub unsupported: Option<Unsupported>,
}

/// Ways to prove an identity that the original knows and we do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsupported {
    /// The SHA-1 signature of the query.
    Signature,
    /// A user token of the gateway's own.
    AccessToken,
}

/// Who was believed to be calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The application's code.
    pub app: String,
    /// The user's name.
    pub user: String,
}
