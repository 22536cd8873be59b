//! Granting users what they may edit, and taking it back.

use sqlx::PgConnection;

use crate::db;
pub use crate::db::permission::Grant;
use crate::domain::association::can_name;
use crate::domain::caller::USERNAME_LIMIT;
use crate::domain::permission::Scope;

/// Why grants could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such model.
    #[error("there is no such model")]
    UnknownModel,
    /// Not a user's name.
    #[error("a user's name has 1 to {USERNAME_LIMIT} characters, none of them a control character")]
    BadUser,
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Lets a user edit; what it may already, it may.
pub async fn add(conn: &mut PgConnection, user: &str, scopes: &[Scope]) -> Result<(), Error> {
    if !can_name(user, USERNAME_LIMIT) || user.chars().any(char::is_control) {
        return Err(Error::BadUser);
    }
    if db::permission::insert(conn, user, scopes).await? {
        Ok(())
    } else {
        Err(Error::UnknownModel)
    }
}

/// Takes from a user exactly what was granted in these words; whether anything was.
pub async fn remove(conn: &mut PgConnection, user: &str, scopes: &[Scope]) -> Result<bool, Error> {
    Ok(db::permission::delete(conn, user, scopes).await? > 0)
}

/// What is granted, to everybody or to one user.
pub async fn list(conn: &mut PgConnection, user: Option<&str>) -> Result<Vec<Grant>, Error> {
    Ok(db::permission::list(conn, user).await?)
}
