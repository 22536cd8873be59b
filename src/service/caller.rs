//! Who is calling: the application first, then the user.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sqlx::PgConnection;
use tracing::Span;

use super::Error;
use crate::db;
use crate::db::app::StoredSecret;
use crate::domain::association::can_name;
use crate::domain::caller::{
    APP_CODE_LIMIT, Caller, Claim, USERNAME_LIMIT, Unsupported, UserClaim,
};
use crate::domain::fault::Fault;

/// Believes a claim or refuses it.
pub async fn identify(conn: &mut PgConnection, claim: Claim) -> Result<Caller, Error> {
    let Claim { app_code, app_secret, user } = claim;
    let known = if can_name(&app_code, APP_CODE_LIMIT) {
        db::app::find(conn, &app_code).await?
    } else {
        None
    };
    let Some(app) = known.filter(|app| app.enabled) else {
        return Err(Fault::UnknownApp(app_code).into());
    };
    if !app.secrets.iter().any(|stored| matches(stored, &app_secret)) {
        return Err(Fault::WrongSecret(app_code).into());
    }
    Span::current().record("app", &app_code);
    // An identity that is offered and not accepted never falls through to a weaker one.
    let user = match user {
        UserClaim::AccessToken => Err(Fault::Unsupported(Unsupported::AccessToken)),
        // No login service is configured that could know it.
        UserClaim::Token(_) => Err(Fault::InvalidToken),
        UserClaim::Name(name) if app.trusts_username && can_name(&name, USERNAME_LIMIT) => Ok(name),
        UserClaim::Name(_) | UserClaim::Nobody => Err(Fault::NoUser),
    };
    Ok(Caller { app: app_code, user: user? })
}

/// Compares in constant time.
fn matches(stored: &StoredSecret, secret: &str) -> bool {
    keyed(&stored.salt).chain_update(secret).verify_slice(&stored.hash).is_ok()
}

/// The hash of secrets under one salt.
pub(super) fn keyed(salt: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(salt).expect("HMAC takes a key of any length")
}
