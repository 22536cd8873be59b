//! The migrations, and the state of the database.

use std::sync::LazyLock;

use sqlx::PgConnection;
use sqlx::migrate::{MigrateError, Migrator};

/// The schema of all tables, and its table of applied migrations.
const SCHEMA: &str = "cmdb";
const MIGRATIONS: &str = "cmdb._sqlx_migrations";

/// The migrations, compiled in. Running them creates the schema.
pub static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = migrator();
    migrator.create_schema(SCHEMA);
    migrator
});

/// Migrations of a newer program in the database are ignored: each one leaves the previous release
/// of the program working.
fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!();
    // Dangerous only for a database that has a table of applied migrations under another name.
    migrator.dangerous_set_table_name(MIGRATIONS);
    migrator.set_ignore_missing(true);
    migrator
}

/// Applies the pending migrations. Concurrent calls wait for each other.
pub async fn migrate(conn: &mut PgConnection) -> Result<(), MigrateError> {
    let schema_exists: bool = sqlx::query_scalar("select to_regnamespace($1) is not null")
        .bind(SCHEMA)
        .fetch_one(&mut *conn)
        .await?;
    if schema_exists {
        // CREATE SCHEMA IF NOT EXISTS takes the privilege to create one, even if it exists.
        migrator().run(conn).await
    } else {
        MIGRATOR.run(conn).await
    }
}

/// Counts the migrations that are not applied to the database.
pub async fn count_pending(conn: &mut PgConnection) -> sqlx::Result<usize> {
    // sqlx creates this table at the first migration, so the macros cannot check these queries.
    let exists: bool = sqlx::query_scalar("select to_regclass($1) is not null")
        .bind(MIGRATIONS)
        .fetch_one(&mut *conn)
        .await?;
    let mut applied: Vec<i64> = Vec::new();
    if exists {
        let versions = "select version from cmdb._sqlx_migrations where success";
        applied = sqlx::query_scalar(versions).fetch_all(conn).await?;
    }
    Ok(MIGRATOR.iter().filter(|migration| !applied.contains(&migration.version)).count())
}

/// Whether the database is read-only, as a replica is.
pub async fn is_read_only(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select current_setting('transaction_read_only')::boolean as "is_read_only!""#
    )
    .fetch_one(conn)
    .await
}
