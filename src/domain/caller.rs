//! Who is calling.

use super::error::RequestError;

/// The longest code of an application, in characters.
pub const APP_CODE_LIMIT: usize = 128;

/// The longest name of a user that is believed, in characters.
pub const USERNAME_LIMIT: usize = 128;

/// How a request says who sends it.
pub enum Credentials {
    /// By itself.
    Own(OwnCredentials),
    /// By a token that the gateway signed.
    Gateway(String),
    /// By the word of a peer that is trusted like ourselves: the application, if it is named, and the user.
    ClientAddr(Option<String>, Option<String>),
    /// Not at all, where somebody else has to.
    Unsigned,
}

/// What a request itself says about who sends it, before anybody believed it. Empty texts count as absent.
#[derive(Clone, Default)]
pub struct OwnCredentials {
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

/// An application that names itself and proves it, for a user.
pub struct Claim {
    /// The application's code.
    pub app_code: String,
    /// Its secret.
    pub app_secret: String,
    /// The user.
    pub user: UserClaim,
}

/// How a user is named, the strongest way that the request offers.
pub enum UserClaim {
    /// By a token of the gateway's own.
    AccessToken,
    /// By a login token.
    Token(String),
    /// By the application's word.
    Name(String),
    /// Not at all.
    Nobody,
}

impl OwnCredentials {
    /// Refuses what is incomplete whoever it is.
    pub fn check(self) -> Result<Claim, RequestError> {
        if self.unsupported == Some(Unsupported::Signature) {
            return Err(RequestError::Unsupported(Unsupported::Signature));
        }
        let (app_code, app_secret) = match (self.app_code, self.app_secret) {
            (Some(code), Some(secret)) => (code, secret),
            (None, Some(_)) => return Err(RequestError::NoAppCode),
            (Some(_), None) => return Err(RequestError::NoAppSecret),
            (None, None) => return Err(RequestError::NoApp),
        };
        let user = match (self.unsupported, self.token, self.username) {
            (Some(_), ..) => UserClaim::AccessToken,
            (None, Some(token), _) => UserClaim::Token(token),
            (None, None, Some(name)) => UserClaim::Name(name),
            (None, None, None) => UserClaim::Nobody,
        };
        Ok(Claim { app_code, app_secret, user })
    }
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
