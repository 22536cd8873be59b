//! Who sends a request: credentials are found, then the application is verified, then the user.
//!
//! One file for each way of proving an identity. The first way that a request uses and that is
//! configured decides: if it fails, the request is refused, and no other way is tried.

pub mod gateway_jwt;
pub mod login_token;
mod secret;
mod trusted_peer;

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::request::Parts;
use ipnet::IpNet;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, info_span};

use self::gateway_jwt::{Claims, JwtVerifier};
use self::login_token::LoginService;
pub use self::secret::CredentialFields;
use self::secret::UserCredential;
use super::api::{Api, require_single};
use super::json::JsonObject;
use crate::domain::error::RequestError;
use crate::domain::keys::{KEY_LIMIT, has_control_character, is_valid_key, is_valid_name};
use crate::service::app::{App, has_secret};
use crate::service::limit::RateLimitKey;

const UNPRINTABLE_NAME: &str = "the name of the app or the user has a control character";

/// Refuses the name of an application or user in a header if it has a control character.
fn require_printable(name: &str) -> Result<(), RequestError> {
    if has_control_character(name) {
        return Err(RequestError::InvalidIdentityHeader(UNPRINTABLE_NAME));
    }
    Ok(())
}

/// The means to verify credentials.
#[derive(Default)]
pub struct Authenticator {
    /// Verifies the gateway's tokens, if its public key is configured.
    pub jwt: Option<JwtVerifier>,
    /// Whether the gateway API refuses requests without the gateway's token.
    pub gateway_only: bool,
    /// Finds the user of a `bk_token`, if a login service is configured.
    pub login: Option<LoginService>,
    /// The networks whose identity headers are trusted at the CMDB API.
    pub trusted_peers: Vec<IpNet>,
}

impl Authenticator {
    /// Whether any request could be authenticated at the CMDB API; otherwise it is not served.
    pub(super) fn serves_cmdb_api(&self) -> bool {
        self.jwt.is_some() || !self.trusted_peers.is_empty()
    }
}

/// The identity that a request claims. Nothing is missing, but it may not be verified yet.
pub(super) struct Credentials {
    /// The application's code; empty if a trusted peer names none.
    pub(super) app_code: String,
    proof: Proof,
}

/// What verifies the application, and who the user is.
enum Proof {
    /// The application's secret, from the body or `X-Bkapi-Authorization`.
    Secret { secret: String, user: UserCredential },
    /// The gateway's token. Its signature was verified.
    Jwt(Claims),
    /// The address of a trusted peer, a gateway that has verified the user whom it names.
    TrustedPeer { peer: IpAddr, user: Option<String> },
}

impl Credentials {
    /// Finds the credentials of a request and refuses incomplete ones, without any I/O.
    pub(super) fn find(
        authenticator: &Authenticator, api: Api, head: &Parts, body: &JsonObject<'_>,
    ) -> Result<Self, RequestError> {
        if let Some(verifier) = &authenticator.jwt
            && let Some(token) = head.headers.get("x-bkapi-jwt")
        {
            require_single(&head.headers, "x-bkapi-jwt")?;
            let claims = verifier.verify(&String::from_utf8_lossy(token.as_bytes()))?;
            return Ok(Self { app_code: claims.app_code()?, proof: Proof::Jwt(claims) });
        }
        match api {
            Api::Gateway if authenticator.gateway_only => Err(RequestError::GatewayTokenMissing),
            Api::Gateway => secret::find(head, body),
            Api::Cmdb => trusted_peer::find(&authenticator.trusted_peers, head),
        }
    }

    /// The code, if an application can have it.
    pub(super) fn valid_app_code(&self) -> Option<&str> {
        Some(&*self.app_code).filter(|code| is_valid_key(code, KEY_LIMIT))
    }

    /// Verifies the application, given what is stored about it. An application that is identified
    /// by the gateway or a trusted peer need not be stored. A disabled application is always
    /// refused.
    pub(super) fn verify_app(&self, app: Option<&App>) -> Result<(), RequestError> {
        let unknown = || Err(RequestError::UnknownApp(self.app_code.clone()));
        match (app.filter(|app| app.enabled.is_some()), &self.proof) {
            (Some(app), _) if app.enabled == Some(false) => unknown(),
            (Some(app), Proof::Secret { secret, .. }) if !has_secret(app, secret) => {
                Err(RequestError::WrongSecret(self.app_code.clone()))
            }
            (None, Proof::Secret { .. }) => unknown(),
            (None, _) if !self.app_code.is_empty() && self.valid_app_code().is_none() => unknown(),
            _ => Ok(()),
        }
    }

    /// Whose rate limit the request counts for.
    pub(super) fn rate_limit_key(&self) -> RateLimitKey {
        match &self.proof {
            Proof::TrustedPeer { peer, user } if self.app_code.is_empty() => {
                RateLimitKey::User { peer: *peer, name: user.clone().unwrap_or_default() }
            }
            _ => RateLimitKey::App(self.app_code.clone()),
        }
    }

    /// Whether the login service must be asked for the user.
    pub(super) fn has_login_token(&self) -> bool {
        matches!(self.proof, Proof::Secret { user: UserCredential::LoginToken(_), .. })
    }

    /// Verifies the user of a verified application and returns the user's name.
    pub(super) async fn verify_user(
        &self, authenticator: &Authenticator, app: Option<&Arc<App>>, deadline: Instant,
    ) -> Result<String, RequestError> {
        let trusts_username = app.is_some_and(|app| app.trusts_username);
        let user = match &self.proof {
            Proof::Secret { user: UserCredential::AccessToken, .. } => {
                return Err(RequestError::AccessTokenUnsupported);
            }
            Proof::Secret { user: UserCredential::LoginToken(token), .. } => {
                let login = authenticator.login.as_ref().ok_or(RequestError::InvalidToken)?;
                let user = login.user_of(token).instrument(info_span!(target: "trace", "login"));
                let user = timeout_at(deadline, user).await;
                Some(user.unwrap_or(Err(RequestError::Unavailable("login service")))?)
            }
            Proof::Secret { user: UserCredential::Name(name), .. } => {
                name.clone().filter(|_| trusts_username)
            }
            Proof::Jwt(claims) => Some(claims.user(trusts_username)?),
            Proof::TrustedPeer { user, .. } => user.clone(),
        };
        user.filter(|user| is_valid_name(user)).ok_or(RequestError::UserMissing)
    }
}
