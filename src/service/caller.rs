//! Who is calling: the application first, then the user, then whether the application may call.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sqlx::PgConnection;
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use super::gateway::{Token, TokenUser};
use super::{Error, Service, lend};
use crate::db;
use crate::db::app::{App, StoredSecret};
use crate::domain::association::{SupplierAccount, can_name};
use crate::domain::caller::{
    APP_CODE_LIMIT, Caller, Claim, Credentials, USERNAME_LIMIT, Unsupported, UserClaim,
};
use crate::domain::fault::Fault;

/// An application that proved to be itself, and whom it says it calls for.
pub(super) struct Proven {
    /// Its code; empty if a trusted peer named none.
    pub(super) app_code: String,
    app: Option<App>,
    user: Offered,
}

/// A user, before anybody believed it.
enum Offered {
    Claim(UserClaim),
    Token(TokenUser),
    Peer(Option<String>),
}

/// Believes an application or refuses it.
pub(super) async fn prove(
    service: &Service,
    deadline: Instant,
    credentials: Believable,
) -> Result<Proven, Error> {
    let find = async |code: &str| find(service, deadline, code).await;
    let (app_code, app, user) = match credentials {
        Believable::Claim(Claim { app_code, app_secret, user }) => {
            let Some(app) = find(&app_code).await?.filter(|app| app.enabled) else {
                return Err(Fault::UnknownApp(app_code).into());
            };
            if !app.secrets.iter().any(|stored| matches(stored, &app_secret)) {
                return Err(Fault::WrongSecret(app_code).into());
            }
            (app_code, Some(app), Offered::Claim(user))
        }
        Believable::Token(token) => {
            let app_code = token.app.verified()?;
            let app = enabled(&app_code, find(&app_code).await?)?;
            (app_code, app, Offered::Token(token.user))
        }
        Believable::Peer(None, user) => (String::new(), None, Offered::Peer(user)),
        Believable::Peer(Some(app_code), user) => {
            let app = enabled(&app_code, find(&app_code).await?)?;
            (app_code, app, Offered::Peer(user))
        }
    };
    Span::current().record("app", &app_code);
    Ok(Proven { app_code, app, user })
}

impl Proven {
    /// Whether only the login service can say who the user is.
    pub(super) fn offers_token(&self) -> bool {
        matches!(self.user, Offered::Claim(UserClaim::Token(_)))
    }

    /// Believes the user or refuses it. An identity that is offered and not accepted never falls through to a
    /// weaker one.
    pub(super) async fn caller(
        &self,
        service: &Service,
        deadline: Instant,
    ) -> Result<Caller, Fault> {
        let is_trusted = self.app.as_ref().is_some_and(|app| app.trusts_username);
        let user = match (&self.user, &service.login) {
            (Offered::Claim(UserClaim::AccessToken), _) => {
                Err(Fault::Unsupported(Unsupported::AccessToken))
            }
            (Offered::Claim(UserClaim::Token(token)), Some(login)) => {
                let asked = timeout_at(deadline, login.user_of(token)).await;
                asked.unwrap_or(Err(Fault::Unavailable("login service")))
            }
            (Offered::Claim(UserClaim::Token(_)), None) => Err(Fault::InvalidToken),
            (Offered::Claim(UserClaim::Name(name)), _) if is_trusted => Ok(name.clone()),
            (Offered::Claim(UserClaim::Name(_) | UserClaim::Nobody), _) => Err(Fault::NoUser),
            (Offered::Token(user), _) => user.verified(is_trusted),
            (Offered::Peer(user), _) => user.clone().ok_or(Fault::NoUser),
        };
        let user = user?;
        if !can_name(&user, USERNAME_LIMIT) {
            return Err(Fault::NoUser);
        }
        Span::current().record("user", &user);
        Ok(Caller { app: self.app_code.clone(), user })
    }

    /// Refuses an API that the application may not call.
    pub(super) fn check_api(&self, api: &'static str) -> Result<(), Fault> {
        let allowed = self.app.as_ref().and_then(|app| app.apis.as_deref());
        permit(allowed, api, api)
    }

    /// Refuses an account that the application may not call for.
    pub(super) fn check_account(
        &self,
        account: &SupplierAccount,
        api: &'static str,
    ) -> Result<(), Fault> {
        let allowed = self.app.as_ref().and_then(|app| app.supplier_accounts.as_deref());
        permit(allowed, account.as_str(), api)
    }
}

fn permit(allowed: Option<&[String]>, wanted: &str, api: &'static str) -> Result<(), Fault> {
    match allowed {
        Some(allowed) if !allowed.iter().any(|one| one == wanted) => Err(Fault::ApiForbidden(api)),
        _ => Ok(()),
    }
}

/// With a connection of its own: none is kept while the login service is asked.
async fn find(service: &Service, deadline: Instant, code: &str) -> Result<Option<App>, Error> {
    if !can_name(code, APP_CODE_LIMIT) {
        return Ok(None);
    }
    let find = async |conn: &mut PgConnection| Ok(db::app::find(conn, code).await?);
    lend(&service.pool, deadline, find).await
}

/// An application that somebody else vouches for need not be known here; if it is, it may be disabled.
fn enabled(code: &str, app: Option<App>) -> Result<Option<App>, Fault> {
    match app {
        Some(app) if app.enabled => Ok(Some(app)),
        None if can_name(code, APP_CODE_LIMIT) => Ok(None),
        Some(_) | None => Err(Fault::UnknownApp(code.to_owned())),
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
