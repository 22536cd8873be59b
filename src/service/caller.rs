//! Who is calling: the application first, then the user, then whether the application may call.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tracing::Span;

use super::gateway::Token;
use super::{Error, Service};
use crate::db;
use crate::db::app::{App, StoredSecret};
use crate::domain::association::{SupplierAccount, can_name};
use crate::domain::caller::{
    APP_CODE_LIMIT, Caller, Claim, Credentials, USERNAME_LIMIT, Unsupported, UserClaim,
};
use crate::domain::fault::Fault;

/// Who is calling, and what its application is limited to.
#[derive(Debug)]
pub(super) struct Identified {
    /// Who.
    pub(super) caller: Caller,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Limits {
    apis: Option<Vec<String>>,
    supplier_accounts: Option<Vec<String>>,
}

impl Identified {
    /// Refuses an account that the application may not call for.
    pub(super) fn check_account(
        &self,
        account: &SupplierAccount,
        api: &'static str,
    ) -> Result<(), Fault> {
        permit(self.limits.supplier_accounts.as_deref(), account.as_str(), api)
    }
}

fn permit(allowed: Option<&[String]>, wanted: &str, api: &'static str) -> Result<(), Fault> {
    match allowed {
        Some(allowed) if !allowed.iter().any(|one| one == wanted) => Err(Fault::ApiForbidden(api)),
        _ => Ok(()),
    }
}

/// Believes who is calling an API or refuses it: the application, then the user, then that it may call.
pub(super) async fn identify(
    service: &Service,
    credentials: Believable,
    api: &'static str,
) -> Result<Identified, Error> {
    let (app_code, app, user) = match credentials {
        Believable::Claim(Claim { app_code, app_secret, user }) => {
            let Some(app) = find(service, &app_code).await?.filter(|app| app.enabled) else {
                return Err(Fault::UnknownApp(app_code).into());
            };
            if !app.secrets.iter().any(|stored| matches(stored, &app_secret)) {
                return Err(Fault::WrongSecret(app_code).into());
            }
            Span::current().record("app", &app_code);
            let user = identify_user(service, &app, user).await?;
            (app_code, Some(app), user)
        }
        Believable::Token(token) => {
            let app_code = token.app.verified()?;
            Span::current().record("app", &app_code);
            let app = find_enabled(service, &app_code).await?;
            let user = token.user.verified(app.as_ref().is_some_and(|app| app.trusts_username))?;
            (app_code, app, user)
        }
        Believable::Peer(app_code, user) => {
            let app_code = app_code.unwrap_or_default();
            Span::current().record("app", &app_code);
            let app = find_enabled(service, &app_code).await?;
            (app_code, app, user.ok_or(Fault::NoUser)?)
        }
    };
    if !can_name(&user, USERNAME_LIMIT) {
        return Err(Fault::NoUser.into());
    }
    Span::current().record("user", &user);
    let limits = app.map_or_else(Limits::default, |app| Limits {
        apis: app.apis,
        supplier_accounts: app.supplier_accounts,
    });
    permit(limits.apis.as_deref(), api, api)?;
    Ok(Identified { caller: Caller { app: app_code, user }, limits })
}

/// An identity that is offered and not accepted never falls through to a weaker one.
async fn identify_user(service: &Service, app: &App, user: UserClaim) -> Result<String, Fault> {
    match (user, &service.login) {
        (UserClaim::AccessToken, _) => Err(Fault::Unsupported(Unsupported::AccessToken)),
        (UserClaim::Token(token), Some(login)) => login.user_of(&token).await,
        (UserClaim::Token(_), None) => Err(Fault::InvalidToken),
        (UserClaim::Name(name), _) if app.trusts_username => Ok(name),
        (UserClaim::Name(_) | UserClaim::Nobody, _) => Err(Fault::NoUser),
    }
}

/// With a connection of its own: none is kept while the login service is asked.
async fn find(service: &Service, code: &str) -> sqlx::Result<Option<App>> {
    if !can_name(code, APP_CODE_LIMIT) {
        return Ok(None);
    }
    db::app::find(&mut *service.pool.acquire().await?, code).await
}

/// An application that somebody else vouches for need not be known here; if it is, it may be disabled.
async fn find_enabled(service: &Service, code: &str) -> Result<Option<App>, Error> {
    match find(service, code).await? {
        Some(app) if !app.enabled => Err(Fault::UnknownApp(code.to_owned()).into()),
        app => Ok(app),
    }
}

/// Credentials that are complete and of a kind that is taken here.
pub(super) enum Believable {
    /// To be looked up.
    Claim(Claim),
    /// Verified already.
    Token(Token),
    /// Of a peer that is trusted.
    Peer(Option<String>, Option<String>),
}

/// Refuses what needs no database to be refused.
pub(super) fn check(service: &Service, credentials: Credentials) -> Result<Believable, Fault> {
    let missing = Fault::GatewayToken("[X-Bkapi-JWT] is missing");
    match (credentials, &service.gateway) {
        (Credentials::Own(own), _) => own.check().map(Believable::Claim),
        (Credentials::Gateway(token), Some(gateway)) => {
            gateway.verify(&token).map(Believable::Token)
        }
        (Credentials::Peer(app, user), _) => Ok(Believable::Peer(app, user)),
        (Credentials::Gateway(_), None) | (Credentials::Unsigned, _) => Err(missing),
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
