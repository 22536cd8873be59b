//! Who is calling: the application first, then the user, then whether the application may call.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tracing::Span;

use super::Service;
use super::gateway::TokenUser;
use crate::db::app::{App, StoredSecret};
use crate::domain::association::{Tenant, is_valid_key};
use crate::domain::caller::{
    APP_CODE_LIMIT, Caller, Claim, Credentials, USERNAME_LIMIT, Unsupported, UserClaim,
};
use crate::domain::error::RequestError;

/// Who a request says sends it: complete, of a kind that is taken here, and not looked up yet.
pub(super) struct Claimed {
    /// The application's code; empty if a trusted peer named none.
    pub(super) app_code: String,
    proof: Proof,
    user: Offered,
}

/// What makes an application be itself.
enum Proof {
    Secret(String),
    /// Somebody who is believed says so. The application need not be known here; if it is, it may be disabled.
    Word,
}

/// A user, before anybody believed it.
enum Offered {
    Claim(UserClaim),
    /// What the login service said.
    Login(Result<String, RequestError>),
    Token(TokenUser),
    ClientAddr(Option<String>),
}

/// Refuses what needs no database to be refused.
pub(super) fn check(service: &Service, credentials: Credentials) -> Result<Claimed, RequestError> {
    let (app_code, proof, user) = match (credentials, &service.gateway) {
        (Credentials::Own(own), _) => {
            let Claim { app_code, app_secret, user } = own.check()?;
            (app_code, Proof::Secret(app_secret), Offered::Claim(user))
        }
        (Credentials::Gateway(token), Some(gateway)) => {
            let token = gateway.verify(&token)?;
            (token.app.verified()?, Proof::Word, Offered::Token(token.user))
        }
        (Credentials::ClientAddr(app, user), _) => {
            (app.unwrap_or_default(), Proof::Word, Offered::ClientAddr(user))
        }
        (Credentials::Gateway(_), None) | (Credentials::Unsigned, _) => {
            return Err(RequestError::GatewayToken("[X-Bkapi-JWT] is missing"));
        }
    };
    Ok(Claimed { app_code, proof, user })
}

impl Claimed {
    /// The user's name, if it is known without asking anybody.
    pub(super) fn user(&self) -> &str {
        let name = match &self.user {
            Offered::Claim(UserClaim::Name(name)) | Offered::Login(Ok(name)) => Some(&**name),
            Offered::Token(user) => user.name(),
            Offered::ClientAddr(name) => name.as_deref(),
            Offered::Claim(_) | Offered::Login(Err(_)) => None,
        };
        name.unwrap_or_default()
    }

    /// The token whose user only the login service knows.
    pub(super) fn token(&self) -> Option<&str> {
        match &self.user {
            Offered::Claim(UserClaim::Token(token)) => Some(token),
            _ => None,
        }
    }

    /// Takes what the login service said about the token.
    pub(super) fn learn(&mut self, user: Result<String, RequestError>) {
        self.user = Offered::Login(user);
    }

    /// Believes the application or refuses it.
    pub(super) fn prove(&self, app: Option<&App>) -> Result<(), RequestError> {
        let enabled = app.filter(|app| app.enabled);
        let is_believed = match &self.proof {
            Proof::Secret(_) => enabled.is_some(),
            Proof::Word if app.is_some() => enabled.is_some(),
            Proof::Word => self.app_code.is_empty() || is_valid_key(&self.app_code, APP_CODE_LIMIT),
        };
        if !is_believed {
            return Err(RequestError::UnknownApp(self.app_code.clone()));
        }
        if let Proof::Secret(secret) = &self.proof
            && !enabled.is_some_and(|app| app.secrets.iter().any(|stored| matches(stored, secret)))
        {
            return Err(RequestError::WrongSecret(self.app_code.clone()));
        }
        Span::current().record("app", &self.app_code);
        Ok(())
    }

    /// Believes the user or refuses it. An identity that is offered and not accepted never falls through to a
    /// weaker one.
    pub(super) fn caller(&self, app: Option<&App>) -> Result<Caller, RequestError> {
        let is_trusted = app.is_some_and(|app| app.trusts_username);
        let user = match &self.user {
            Offered::Claim(UserClaim::AccessToken) => {
                Err(RequestError::Unsupported(Unsupported::AccessToken))
            }
            Offered::Claim(UserClaim::Token(_)) => Err(RequestError::InvalidToken),
            Offered::Claim(UserClaim::Name(name)) if is_trusted => Ok(name.clone()),
            Offered::Claim(UserClaim::Name(_) | UserClaim::Nobody) => Err(RequestError::NoUser),
            Offered::Login(user) => user.clone(),
            Offered::Token(user) => user.verified(is_trusted),
            Offered::ClientAddr(user) => user.clone().ok_or(RequestError::NoUser),
        };
        let user = user?;
        if !is_valid_key(&user, USERNAME_LIMIT) {
            return Err(RequestError::NoUser);
        }
        Span::current().record("user", &user);
        Ok(Caller { app: self.app_code.clone(), user })
    }
}

/// Refuses an API that the application may not call.
pub(super) fn check_api(app: Option<&App>, api: &'static str) -> Result<(), RequestError> {
    permit(app.and_then(|app| app.apis.as_deref()), api, api)
}

/// Refuses an account that the application may not call for.
pub(super) fn check_account(
    app: Option<&App>,
    account: &Tenant,
    api: &'static str,
) -> Result<(), RequestError> {
    permit(app.and_then(|app| app.tenants.as_deref()), account.as_str(), api)
}

fn permit(allowed: Option<&[String]>, wanted: &str, api: &'static str) -> Result<(), RequestError> {
    match allowed {
        Some(allowed) if !allowed.iter().any(|one| one == wanted) => {
            Err(RequestError::ApiForbidden(api))
        }
        _ => Ok(()),
    }
}

/// Compares in constant time.
fn matches(stored: &StoredSecret, secret: &str) -> bool {
    keyed(&stored.salt).chain_update(secret).verify_slice(&stored.hash).is_ok()
}

/// The hash of secrets under one salt.
pub(super) fn keyed(salt: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(salt).expect("HMAC takes a key of any length")
}
