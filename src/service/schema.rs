//! Keeping the database's schema current.

use sqlx::PgPool;
use sqlx::migrate::MigrateError;

use crate::db;

/// Applies the migrations that are pending. Servers that start at once take turns.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    db::schema::MIGRATOR.run(pool).await
}

/// How many migrations are pending.
pub async fn count_pending(pool: &PgPool) -> sqlx::Result<usize> {
    let mut conn = pool.acquire().await?;
    db::schema::count_pending(&mut conn).await
}
