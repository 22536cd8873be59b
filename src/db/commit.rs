//! Commits on their way: to the standby that must acknowledge them, and to the replicas.
//!
//! With synchronous replication, PostgreSQL acknowledges a commit only when a standby has it, and
//! waits for that without a limit.

use sqlx::PgConnection;
use sqlx::postgres::types::Oid;

/// A position in the write-ahead log of a database cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPosition {
    /// The number of bytes before it.
    pub bytes: i64,
    /// The identifier that a cluster shares with its replicas only.
    pub cluster: i64,
    /// The oid of the database, which replicas share.
    pub database: Oid,
}

/// A connection's process in PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    id: i32,
    /// When it was started, in seconds since 1970: ids are used again.
    started: f64,
}

/// The process of a connection.
pub async fn find_backend(conn: &mut PgConnection) -> sqlx::Result<Backend> {
    sqlx::query_as!(
        Backend,
        r#"select pid as "id!", extract(epoch from backend_start)::float8 as "started!"
           from pg_stat_activity where pid = pg_backend_pid()"#
    )
    .fetch_one(conn)
    .await
}

/// Whether the server of a connection has this process.
pub async fn is_connected(conn: &mut PgConnection, backend: Backend) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
               select from pg_stat_activity
               where pid = $1 and extract(epoch from backend_start)::float8 = $2
           ) as "exists!""#,
        backend.id,
        backend.started
    )
    .fetch_one(conn)
    .await
}

/// How many connections of the current role to this database have waited for a standby for longer
/// than 5 s after the start of their statement, which no working commit takes.
pub async fn count_waiting(conn: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!"
           from pg_stat_activity
           where usename = current_user and datname = current_database()
               and wait_event = 'SyncRep' and query_start < now() - interval '5 s'"#
    )
    .fetch_one(conn)
    .await
}

/// Commits a message that is in the write-ahead log only, and returns where. The commit waits as
/// any other.
pub async fn commit_message(conn: &mut PgConnection) -> sqlx::Result<LogPosition> {
    sqlx::query_as!(
        LogPosition,
        r#"select pg_wal_lsn_diff(
                   pg_logical_emit_message(true, 'cmdb-associations', ''), '0/0'
               )::bigint as "bytes!",
               system_identifier as "cluster!",
               (select oid from pg_database where datname = current_database()) as "database!"
           from pg_control_system()"#
    )
    .fetch_one(conn)
    .await
}

/// What of the write-ahead log a server shows: all, or what a replica has replayed.
pub async fn find_replayed(conn: &mut PgConnection) -> sqlx::Result<LogPosition> {
    sqlx::query_as!(
        LogPosition,
        r#"select pg_wal_lsn_diff(
                   case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                       else pg_current_wal_insert_lsn()
                   end, '0/0'
               )::bigint as "bytes!",
               system_identifier as "cluster!",
               (select oid from pg_database where datname = current_database()) as "database!"
           from pg_control_system()"#
    )
    .fetch_one(conn)
    .await
}
