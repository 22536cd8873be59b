//! The schema itself: its migrations, and whether they are applied.

use std::sync::LazyLock;

use sqlx::PgConnection;
use sqlx::migrate::Migrator;

/// The schema's story, compiled in. What a newer program added to it is left alone: each migration leaves the program
/// before it working.
pub static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!();
    migrator.set_ignore_missing(true);
    migrator
});

/// How many migrations this program knows that the database has not had.
pub async fn count_pending(conn: &mut PgConnection) -> sqlx::Result<usize> {
    // The table is sqlx's own and is not there before the first migration, so the query is not checked at
    // compile time.
    let exists: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *conn)
        .await?;
    let applied: Vec<i64> = if exists {
        sqlx::query_scalar("select version from _sqlx_migrations where success")
            .fetch_all(conn)
            .await?
    } else {
        Vec::new()
    };
    Ok(MIGRATOR.iter().filter(|migration| !applied.contains(&migration.version)).count())
}

/// Whether the database takes nothing that is written, as a replica does.
pub async fn only_reads(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select current_setting('transaction_read_only')::boolean as "only_reads!""#
    )
    .fetch_one(conn)
    .await
}
