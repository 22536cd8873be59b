//! Keeping the database's schema current.

use sqlx::PgConnection;
use sqlx::migrate::MigrateError;
use tokio::time::{Instant, timeout_at};

use super::Error;
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

/// Why the database is of no use now, if it answers in time.
pub async fn defect(pool: &Pool, deadline: Instant) -> Result<Option<&'static str>, Error> {
    let look = async |conn: &mut PgConnection| {
        if count_pending(conn).await? > 0 {
            return Ok(Some("migrations are pending"));
        }
        let only_reads = db::schema::only_reads(conn).await?;
        Ok(only_reads.then_some("the database only reads"))
    };
    let mut loan = pool.acquire().await?;
    let found = timeout_at(deadline, look(&mut loan)).await.unwrap_or(Err(Error::OutOfTime))?;
    // With a defect it is not kept: the next connection may lead to where there is none.
    if found.is_none() {
        loan.release();
    }
    Ok(found)
}
