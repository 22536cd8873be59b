//! Migrations, and whether the database is ready for requests.

use sqlx::PgConnection;
use sqlx::migrate::MigrateError;
use tokio::time::{Instant, timeout_at};

use super::Error;
use crate::db;
use crate::db::pool::Pool;
use crate::db::schema::is_read_only;
pub use crate::db::schema::{MIGRATOR, count_pending};

/// Applies the pending migrations and returns their number. Concurrent calls wait for each other.
pub async fn migrate(conn: &mut PgConnection) -> Result<usize, MigrateError> {
    let pending = count_pending(conn).await?;
    db::schema::migrate(conn).await?;
    Ok(pending)
}

/// Returns why the database is not ready for requests, or `None` if it is.
///
/// Fails if the database cannot be reached or does not answer before `deadline`.
pub async fn readiness_error(
    pool: &Pool, deadline: Instant,
) -> Result<Option<&'static str>, Error> {
    let find_error = async |conn: &mut PgConnection| {
        if count_pending(conn).await? > 0 {
            return Ok(Some("migrations are pending"));
        }
        Ok(is_read_only(conn).await?.then_some("the database is read-only"))
    };
    let mut conn = pool.acquire().await?;
    let error =
        timeout_at(deadline, find_error(&mut conn)).await.unwrap_or(Err(Error::OutOfTime))?;
    // A connection to an unready database is closed: a new one may lead to another server.
    if error.is_none() {
        conn.release();
    }
    Ok(error)
}
