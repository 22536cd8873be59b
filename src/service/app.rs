//! Applications: adding them, and changing their secrets while they go on calling.

use hmac::Mac;
use sqlx::PgConnection;

use super::caller::keyed;
use crate::db;
pub use crate::db::app::Listed;
use crate::db::app::StoredSecret;
use crate::domain::association::{Tenant, is_valid_key};
use crate::domain::caller::APP_CODE_LIMIT;

/// Why an application could not be managed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The code is taken.
    #[error("there is an application {0:?} already")]
    Exists(String),
    /// No such application.
    #[error("there is no application {0:?}")]
    Unknown(String),
    /// Not a code.
    #[error("an application's code has 1 to 128 characters, none of them a control character")]
    BadCode,
    /// Not an tenant.
    #[error("an tenant has at most 128 characters")]
    InvalidTenant,
    /// Not a secret.
    #[error("a secret has 1 to 1024 characters on one line")]
    BadSecret,
    /// The system gives no random numbers.
    #[error("no random numbers are to be had")]
    NoRandomness(#[from] getrandom::Error),
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Adds an application and returns its secret: `brought` along, or a new one.
pub async fn add(
    conn: &mut PgConnection,
    code: &str,
    trusts_username: bool,
    brought: Option<String>,
) -> Result<String, Error> {
    if !is_valid_key(code, APP_CODE_LIMIT) || code.chars().any(char::is_control) {
        return Err(Error::BadCode);
    }
    let secret = brought.map_or_else(new_secret, accept_secret)?;
    if !db::app::insert(conn, code, trusts_username, &store(&secret)?).await? {
        return Err(Error::Exists(code.to_owned()));
    }
    Ok(secret)
}

/// Gives an application a further secret, `brought` along or a new one, and returns it. The one before stays
/// valid, older ones do not.
pub async fn rotate(
    conn: &mut PgConnection,
    code: &str,
    brought: Option<String>,
) -> Result<String, Error> {
    let secret = brought.map_or_else(new_secret, accept_secret)?;
    if !db::app::insert_secret(conn, code, &store(&secret)?).await? {
        return Err(Error::Unknown(code.to_owned()));
    }
    Ok(secret)
}

/// Ends the validity of all secrets but the newest; whether there were any.
pub async fn retire(conn: &mut PgConnection, code: &str) -> Result<bool, Error> {
    if !db::app::exists(&mut *conn, code).await? {
        return Err(Error::Unknown(code.to_owned()));
    }
    Ok(db::app::delete_older_secrets(conn, code).await? > 0)
}

/// Lets an application call, or not.
pub async fn set_enabled(conn: &mut PgConnection, code: &str, enabled: bool) -> Result<(), Error> {
    if !db::app::set_enabled(conn, code, enabled).await? {
        return Err(Error::Unknown(code.to_owned()));
    }
    Ok(())
}

/// Limits an application to these APIs and tenants: empty means all, none means as it is.
pub async fn limit(
    conn: &mut PgConnection,
    code: &str,
    apis: Option<&[String]>,
    tenants: Option<&[String]>,
) -> Result<(), Error> {
    let named = |tenant: &String| Tenant::parse(tenant).ok_or(Error::InvalidTenant);
    let tenants = tenants.map(|tenants| {
        let tenants = tenants.iter().map(|tenant| Ok(named(tenant)?.as_str().to_owned()));
        tenants.collect::<Result<Vec<_>, Error>>()
    });
    if !db::app::limit(conn, code, apis, tenants.transpose()?.as_deref()).await? {
        return Err(Error::Unknown(code.to_owned()));
    }
    Ok(())
}

/// Every application, by code.
pub async fn list(conn: &mut PgConnection) -> Result<Vec<Listed>, Error> {
    Ok(db::app::list(conn).await?)
}

/// 256 random bits in hex.
fn new_secret() -> Result<String, Error> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)?;
    let hex = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16));
    Ok(bits.iter().flat_map(hex).flatten().collect())
}

fn accept_secret(secret: String) -> Result<String, Error> {
    let fine =
        (1..=1024).contains(&secret.chars().count()) && !secret.chars().any(char::is_control);
    if fine { Ok(secret) } else { Err(Error::BadSecret) }
}

fn store(secret: &str) -> Result<StoredSecret, Error> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)?;
    let hash = keyed(&salt).chain_update(secret).finalize().into_bytes();
    Ok(StoredSecret { salt: salt.to_vec(), hash: hash.to_vec() })
}
