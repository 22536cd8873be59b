//! Commits that wait. With synchronous replication, PostgreSQL acknowledges a commit only when a
//! standby has it, and waits for that without a limit.

use sqlx::PgConnection;

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

/// Commits a message that is in PostgreSQL's write-ahead log only. It waits as any other commit.
pub async fn commit_message(conn: &mut PgConnection) -> sqlx::Result<()> {
    let commit = sqlx::query_scalar!(
        r#"select pg_logical_emit_message(true, 'cmdb-associations', '')::text as "position!""#
    );
    commit.fetch_one(conn).await.map(drop)
}
