//! The migrations, and whether the schema still is as they made it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sqlx::PgConnection;
use sqlx::migrate::{MigrateError, Migrator};

use super::session;

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

/// The advisory lock of a transaction that migrates: "cmdb" in ASCII, twice.
const MIGRATION_LOCK: i64 = 0x636d_6462_636d_6462;

/// Applies the pending migrations in one transaction and returns their number. Concurrent calls
/// wait for each other.
///
/// The lock belongs to the transaction: sqlx's own lock belongs to the session, which a pooler may
/// give to another client.
pub async fn migrate(conn: &mut PgConnection, lock_timeout: &str) -> Result<usize, MigrateError> {
    let mut tx = session::begin(conn, "begin isolation level read committed read write").await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *tx).await?;
    // Not before: a server that waits for another one that migrates must not give up.
    sqlx::query("select set_config('lock_timeout', $1, true)")
        .bind(lock_timeout)
        .execute(&mut *tx)
        .await?;
    let Applied { pending, modified, has_schema, .. } = find_applied(&mut tx).await?;
    if let Some(version) = modified {
        return Err(MigrateError::VersionMismatch(version));
    }
    if pending == 0 {
        // sqlx would take the privilege to create its table, even if it exists.
        return Ok(0);
    }
    let mut migrator = migrator();
    migrator.set_locking(false);
    if !has_schema {
        // CREATE SCHEMA IF NOT EXISTS takes the privilege to create one, even if it exists.
        migrator.create_schema(SCHEMA);
    }
    // `run` cannot be called in a task: its bound on lifetimes is too narrow.
    migrator.run_direct(None, &mut *tx, false).await?;
    tx.commit().await?;
    Ok(pending)
}

/// Which migrations are applied to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// How many of this program's are not.
    pub pending: usize,
    /// Whether others are, which a newer program has brought.
    pub has_newer: bool,
    /// The first one that was changed after it was applied.
    pub modified: Option<i64>,
    /// Whether the schema exists.
    pub has_schema: bool,
    /// Whether the table of applied migrations exists.
    pub has_table: bool,
}

/// Finds the migrations that are applied to the database.
pub async fn find_applied(conn: &mut PgConnection) -> sqlx::Result<Applied> {
    // sqlx creates this table at the first migration, so the macros cannot check these queries.
    let (has_schema, has_table): (bool, bool) =
        sqlx::query_as("select to_regnamespace($1) is not null, to_regclass($2) is not null")
            .bind(SCHEMA)
            .bind(MIGRATIONS)
            .fetch_one(&mut *conn)
            .await?;
    let mut applied: Vec<(i64, Vec<u8>)> = Vec::new();
    if has_table {
        let all = "select version, checksum from cmdb._sqlx_migrations where success order by 1";
        applied = sqlx::query_as(all).fetch_all(conn).await?;
    }
    let find = |version| MIGRATOR.iter().find(|migration| migration.version == version);
    let known = applied.iter().filter_map(|(version, checksum)| Some((find(*version)?, checksum)));
    let pending = MIGRATOR.iter().count() - known.clone().count();
    let modified = known
        .into_iter()
        .find(|(migration, checksum)| *migration.checksum != ***checksum)
        .map(|(migration, _)| migration.version);
    let has_newer = applied.iter().any(|(version, _)| find(*version).is_none());
    Ok(Applied { pending, has_newer, modified, has_schema, has_table })
}

/// What the migrations of this program make, in the form of [`list_objects`]: kind, relation, name
/// and definition, separated by tabs. `make prepare` generates the file.
const EXPECTED_OBJECTS: &str = include_str!("schema_objects.tsv");

/// The names of the tables, views and sequences that the migrations make.
pub(super) fn expected_relations() -> impl Iterator<Item = &'static str> {
    EXPECTED_OBJECTS.lines().filter_map(|line| {
        let mut fields = line.split('\t');
        let is_relation = ["table", "view", "sequence"].contains(&fields.next()?);
        fields.nth(1).filter(|_| is_relation)
    })
}

/// An object of the schema.
struct Object {
    kind: String,
    /// The table or view to which it belongs; empty for one that stands alone.
    relation: String,
    name: String,
    definition: String,
    /// Why it is not in force, such as `disabled`.
    state: Option<String>,
}

/// Lists the objects of the schema, in the form of the file.
pub async fn list_objects(conn: &mut PgConnection) -> sqlx::Result<String> {
    let objects = find_objects(conn).await?;
    let line = |Object { kind, relation, name, definition, .. }| {
        format!("{kind}\t{relation}\t{name}\t{definition}\n")
    };
    Ok(objects.into_iter().map(line).collect())
}

async fn find_objects(conn: &mut PgConnection) -> sqlx::Result<Vec<Object>> {
    sqlx::query_file_as!(Object, "src/db/schema_objects.sql").fetch_all(conn).await
}

/// An object that is not as the migrations made it.
pub struct SchemaDifference {
    /// Whether statements that read the data fail for it.
    pub prevents_reading: bool,
    /// What differs, such as `trigger … on … is disabled`.
    pub description: String,
}

/// Finds the objects that are not as the migrations made them. Additional objects are ignored.
///
/// While migrations of a newer program are applied, which may have replaced functions and triggers,
/// only missing tables, unique indexes and guards of links count.
pub async fn find_differences(
    conn: &mut PgConnection, has_newer: bool,
) -> sqlx::Result<Vec<SchemaDifference>> {
    let found: BTreeMap<_, _> = find_objects(conn)
        .await?
        .into_iter()
        .map(|object| {
            let key = (object.kind.clone(), object.relation.clone(), object.name.clone());
            (key, object)
        })
        .collect();
    let mut differences = Vec::new();
    for line in EXPECTED_OBJECTS.lines() {
        let mut fields = line.split('\t').map(str::to_owned);
        let mut next = || fields.next().unwrap_or_default();
        let (kind, relation, name, definition) = (next(), next(), next(), next());
        let is_needed_by_all = kind == "table"
            || (kind == "index" && definition.starts_with("unique "))
            || (kind == "trigger" && ["instance", "instance_association"].contains(&&*relation));
        let key = (kind, relation, name);
        let problem = match found.get(&key) {
            None if has_newer && !is_needed_by_all => continue,
            None => "missing",
            Some(_) if has_newer => continue,
            Some(Object { state: Some(state), .. }) => state,
            Some(object) if object.definition != definition => "changed",
            Some(_) => continue,
        };
        let (kind, relation, name) = key;
        let relation = if relation.is_empty() { relation } else { format!(" on {relation}") };
        differences.push(SchemaDifference {
            prevents_reading: ["table", "column", "view", "sequence"].contains(&&*kind),
            description: format!("{kind} {name}{relation} is {problem}"),
        });
    }
    Ok(differences)
}
