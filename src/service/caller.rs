//! Who is calling: the application first, then the user, then whether the application may call.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tracing::Span;

use super::Service;
use super::gateway::TokenUser;
use crate::db::app::{App, StoredSecret};
use crate::domain::association::{SupplierAccount, can_name};
use crate::domain::caller::{
    APP_CODE_LIMIT, Caller, Claim, Credentials, USERNAME_LIMIT, Unsupported, UserClaim,
};
use crate::domain::fault::Fault;

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
    Login(Result<String, Fault>),
    Token(TokenUser),
    Peer(Option<String>),
}

/// Refuses what needs no database to be refused.
pub(super) fn check(service: &Service, credentials: Credentials) -> Result<Claimed, Fault> {
    let (app_code, proof, user) = match (credentials, &service.gateway) {
        (Credentials::Own(own), _) => {
            let Claim { app_code, app_secret, user } = own.check()?;
            (app_code, Proof::Secret(app_secret), Offered::Claim(user))
        }
        (Credentials::Gateway(token), Some(gateway)) => {
            let token = gateway.verify(&token)?;
            (token.app.verified()?, Proof::Word, Offered::Token(token.user))
        }
        (Credentials::Peer(app, user), _) => {
            (app.unwrap_or_default(), Proof::Word, Offered::Peer(user))
        }
        (Credentials::Gateway(_), None) | (Credentials::Unsigned, _) => {
            return Err(Fault::GatewayToken("[X-Bkapi-JWT] is missing"));
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
            Offered::Peer(name) => name.as_deref(),
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
    pub(super) fn learn(&mut self, user: Result<String, Fault>) {
        self.user = Offered::Login(user);
    }

    /// Believes the application or refuses it.
    pub(super) fn prove(&self, app: Option<&App>) -> Result<(), Fault> {
        let enabled = app.filter(|app| app.enabled);
        let is_believed = match &self.proof {
            Proof::Secret(_) => enabled.is_some(),
            Proof::Word if app.is_some() => enabled.is_some(),
            Proof::Word => self.app_code.is_empty() || can_name(&self.app_code, APP_CODE_LIMIT),
        };
        if !is_believed {
            return Err(Fault::UnknownApp(self.app_code.clone()));
        }
        if let Proof::Secret(secret) = &self.proof
            && !enabled.is_some_and(|app| app.secrets.iter().any(|stored| matches(stored, secret)))
        {
            return Err(Fault::WrongSecret(self.app_code.clone()));
        }
        Span::current().record("app", &self.app_code);
        Ok(())
    }

    /// Believes the user or refuses it. An identity that is offered and not accepted never falls through to a
    /// weaker one.
    pub(super) fn caller(&self, app: Option<&App>) -> Result<Caller, Fault> {
        let is_trusted = app.is_some_and(|app| app.trusts_username);
        let user = match &self.user {
            Offered::Claim(UserClaim::AccessToken) => {
                Err(Fault::Unsupported(Unsupported::AccessToken))
            }
            Offered::Claim(UserClaim::Token(_)) => Err(Fault::InvalidToken),
            Offered::Claim(UserClaim::Name(name)) if is_trusted => Ok(name.clone()),
            Offered::Claim(UserClaim::Name(_) | UserClaim::Nobody) => Err(Fault::NoUser),
            Offered::Login(user) => user.clone(),
            Offered::Token(user) => user.verified(is_trusted),
            Offered::Peer(user) => user.clone().ok_or(Fault::NoUser),
        };
        let user = user?;
        if !can_name(&user, USERNAME_LIMIT) {
            return Err(Fault::NoUser);
        }
        Span::current().record("user", &user);
        Ok(Caller { app: self.app_code.clone(), user })
    }
}

/// Refuses an API that the application may not call.
pub(super) fn check_api(app: Option<&App>, api: &'static str) -> Result<(), Fault> {
    permit(app.and_then(|app| app.apis.as_deref()), api, api)
}

/// Refuses an account that the application may not call for.
pub(super) fn check_account(
    app: Option<&App>,
    account: &SupplierAccount,
    api: &'static str,
) -> Result<(), Fault> {
    permit(app.and_then(|app| app.supplier_accounts.as_deref()), account.as_str(), api)
}

fn permit(allowed: Option<&[String]>, wanted: &str, api: &'static str) -> Result<(), Fault> {
    match allowed {
        Some(allowed) if !allowed.iter().any(|one| one == wanted) => Err(Fault::ApiForbidden(api)),
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
