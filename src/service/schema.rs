//! Keeping the database's schema current.

use sqlx::PgConnection;
use sqlx::migrate::MigrateError;
use tokio::time::Instant;

use super::{Error, lend};
use crate::db;
use crate::db::pool::Pool;

/// Applies the migrations that are pending; how many there were. Servers that start at once take turns.
pub async fn migrate(conn: &mut PgConnection) -> Result<usize, MigrateError> {
    let pending = count_pending(conn).await?;
    db::schema::MIGRATOR.run(conn).await?;
    Ok(pending)
}

/// How many migrations are pending.
pub async fn count_pending(conn: &mut PgConnection) -> sqlx::Result<usize> {
    db::schema::count_pending(conn).await
}

/// Whether the database answers in time and has every migration.
pub async fn is_current(pool: &Pool, deadline: Instant) -> Result<bool, Error> {
    let count = async |conn: &mut PgConnection| Ok(count_pending(conn).await?);
    Ok(lend(pool, deadline, count).await? == 0)
}
