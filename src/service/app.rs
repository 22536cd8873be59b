//! Applications and their secrets.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sqlx::PgConnection;

use crate::db;
use crate::db::app::StoredSecret;
pub use crate::db::app::{App, list};
use crate::domain::error::RequestError;
use crate::domain::keys::{has_control_character, is_valid_key, is_valid_name};

/// Why an application cannot be changed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum Error {
    #[error("the application {0:?} exists already")]
    Exists(String),
    #[error("there is no application {0:?}")]
    Unknown(String),
    #[error("an application's code has 1 to 128 characters, none of them a control character")]
    InvalidCode,
    #[error("a tenant's key has 1 to 128 characters, none of them a control character")]
    InvalidTenant,
    #[error("a secret has 1 to 1024 characters on one line")]
    InvalidSecret,
    #[error("the system provides no random numbers")]
    NoRandomness(#[from] getrandom::Error),
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Adds an application and returns its secret: `given_secret` or a new one.
pub async fn add(
    conn: &mut PgConnection, code: &str, trusts_username: bool, given_secret: Option<String>,
) -> Result<String, Error> {
    if !is_valid_name(code) {
        return Err(Error::InvalidCode);
    }
    let secret = given_secret.map_or_else(new_secret, accept_secret)?;
    if !db::app::insert(conn, code, trusts_username, &store(&secret)?).await? {
        return Err(Error::Exists(code.to_owned()));
    }
    Ok(secret)
}

/// Adds a secret, `given_secret` or a new one, and returns it. The previous one stays valid, older
/// ones do not.
pub async fn rotate(
    conn: &mut PgConnection, code: &str, given_secret: Option<String>,
) -> Result<String, Error> {
    let secret = given_secret.map_or_else(new_secret, accept_secret)?;
    require_known(db::app::insert_secret(conn, code, &store(&secret)?).await?, code)?;
    Ok(secret)
}

/// Deletes all secrets but the newest and returns whether there were any.
pub async fn retire(conn: &mut PgConnection, code: &str) -> Result<bool, Error> {
    let deleted = db::app::delete_older_secrets(conn, code).await?;
    require_known(deleted.is_some(), code)?;
    Ok(deleted != Some(0))
}

/// Enables or disables an application.
pub async fn set_enabled(conn: &mut PgConnection, code: &str, enabled: bool) -> Result<(), Error> {
    require_known(db::app::set_enabled(conn, code, enabled).await?, code)
}

/// Limits an application to endpoints and tenants: empty means all, `None` leaves the limit as it
/// is.
pub async fn limit(
    conn: &mut PgConnection, code: &str, apis: Option<&[String]>, tenants: Option<&[String]>,
) -> Result<(), Error> {
    if tenants.unwrap_or_default().iter().any(|tenant| !is_valid_name(tenant)) {
        return Err(Error::InvalidTenant);
    }
    require_known(db::app::limit(conn, code, apis, tenants).await?, code)
}

fn require_known(is_known: bool, code: &str) -> Result<(), Error> {
    if is_known { Ok(()) } else { Err(Error::Unknown(code.to_owned())) }
}

/// 256 random bits in hex.
fn new_secret() -> Result<String, Error> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)?;
    Ok(bits.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")))
}

fn accept_secret(secret: String) -> Result<String, Error> {
    let is_valid = is_valid_key(&secret, 1024) && !has_control_character(&secret);
    if is_valid { Ok(secret) } else { Err(Error::InvalidSecret) }
}

fn store(secret: &str) -> Result<StoredSecret, Error> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)?;
    let hash = keyed_hash(&salt).chain_update(secret).finalize().into_bytes();
    Ok(StoredSecret { salt: salt.to_vec(), hash: hash.to_vec() })
}

/// Whether the secret is one of the application's, compared in constant time.
pub fn has_secret(app: &App, secret: &str) -> bool {
    let mut stored = app.salts.iter().zip(&app.hashes);
    stored.any(|(salt, hash)| keyed_hash(salt).chain_update(secret).verify_slice(hash).is_ok())
}

/// The hash of secrets with one salt. A fast hash suffices: secrets are long and random.
fn keyed_hash(salt: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(salt).expect("HMAC accepts keys of any length")
}

/// Refuses what the application may not do: to call the endpoint, or to act for a tenant when it
/// calls the endpoint. `allowed` are the keys of what it may do; `None`: all.
pub fn require_allowed(
    allowed: Option<&Vec<String>>, key: &str, endpoint: &'static str,
) -> Result<(), RequestError> {
    let is_allowed = allowed.is_none_or(|allowed| allowed.iter().any(|one| one == key));
    if is_allowed { Ok(()) } else { Err(RequestError::AppNotAllowed(endpoint)) }
}
