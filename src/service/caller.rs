//! Who is calling: the application first, then the user.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sqlx::PgConnection;
use tracing::Span;

use super::Error;
use crate::db;
use crate::db::app::{App, StoredSecret};
use crate::domain::association::can_name;
use crate::domain::caller::{APP_CODE_LIMIT, Caller, Credentials, USERNAME_LIMIT, Unsupported};
use crate::domain::fault::Fault;

/// Believes the credentials or refuses them.
pub async fn identify(conn: &mut PgConnection, given: Credentials) -> Result<Caller, Error> {
    if given.unsupported == Some(Unsupported::Signature) {
        return Err(Fault::Unsupported(Unsupported::Signature).into());
    }
    let (code, secret) = match (given.app_code, given.app_secret) {
        (Some(code), Some(secret)) => (code, secret),
        (None, Some(_)) => return Err(Fault::NoAppCode.into()),
        (Some(_), None) => return Err(Fault::NoAppSecret.into()),
        (None, None) => return Err(Fault::NoApp.into()),
    };
    let known =
        if can_name(&code, APP_CODE_LIMIT) { db::app::find(conn, &code).await? } else { None };
    let Some(app) = known.filter(|app| app.enabled) else {
        return Err(Fault::UnknownApp(code).into());
    };
    if !app.secrets.iter().any(|stored| matches(stored, &secret)) {
        return Err(Fault::WrongSecret(code).into());
    }
    Span::current().record("app", &code);
    let user = identify_user(&app, given.unsupported, given.token.as_deref(), given.username)?;
    Ok(Caller { app: code, user })
}

/// An identity that is offered and not accepted never falls through to a weaker one.
fn identify_user(
    app: &App,
    unsupported: Option<Unsupported>,
    token: Option<&str>,
    username: Option<String>,
) -> Result<String, Fault> {
    if let Some(unsupported) = unsupported {
        return Err(Fault::Unsupported(unsupported));
    }
    if token.is_some() {
        return Err(Fault::InvalidToken); // no login service is configured that could know it
    }
    username
        .filter(|name| app.trusts_username && can_name(name, USERNAME_LIMIT))
        .ok_or(Fault::NoUser)
}

/// Compares in constant time.
fn matches(stored: &StoredSecret, secret: &str) -> bool {
    keyed(&stored.salt).chain_update(secret).verify_slice(&stored.hash).is_ok()
}

/// The hash of secrets under one salt.
pub(super) fn keyed(salt: &[u8]) -> Hmac<Sha256> {
    // HMAC takes a key of any length.
    <Hmac<Sha256> as KeyInit>::new_from_slice(salt).unwrap_or_else(|_| unreachable!())
}
