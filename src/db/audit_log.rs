//! Purges of the audit log. Its other records are inserted by `create_links.sql`,
//! `delete_links.sql` and `import/links.sql`.

use sqlx::PgConnection;
use time::OffsetDateTime;

/// What one statement of a purge has deleted.
pub struct PurgedPortion {
    /// The number of records.
    pub records: i64,
    /// The highest id that it looked at.
    pub last_id: i64,
}

/// Whether a time is so long ago that no idempotency record refers to an earlier audit record.
/// Idempotency records are deleted after 25 hours.
pub async fn is_purgeable(conn: &mut PgConnection, before: OffsetDateTime) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select $1::timestamptz <= now() - interval '26 hours' as "is_purgeable!""#,
        before,
    )
    .fetch_one(conn)
    .await
}

/// Inserts the record of a purge, without purged records. Returns its id.
pub async fn insert_purge(conn: &mut PgConnection, before: OffsetDateTime) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        "insert into cmdb.audit_log
             (origin, user_name, association_ids, purged_before, purged_records)
         values ('purge', session_user, '{}', $1, 0)
         returning id",
        before,
    )
    .fetch_one(conn)
    .await
}

/// Looks at the next `limit` records of requests and commands after an id, in the order of ids,
/// deletes those that were created before the time of a purge, and moves the ids of their links to
/// the record of the purge. Skips records that another purge is deleting. Returns `None` if it
/// deleted none: records have ids in the order of their creation, but for the seconds that a
/// request takes.
pub async fn purge_portion(
    conn: &mut PgConnection, purge: i64, after: i64, limit: i64,
) -> sqlx::Result<Option<PurgedPortion>> {
    // The array makes PostgreSQL look up the records by their ids, whatever the limit is.
    sqlx::query_as!(
        PurgedPortion,
        r#"with examined as materialized (
               select id, created_at
               from cmdb.audit_log
               where origin in ('request', 'command') and id > $2
               order by id limit $3 for update skip locked
           ),
           deleted as (
               delete from cmdb.audit_log
               where id = any (array(
                   select id from examined
                   where created_at < (select purged_before from cmdb.audit_log where id = $1)))
               returning association_ids, deleted_ids
           )
           update cmdb.audit_log
           set association_ids = audit_log.association_ids + portion.association_ids,
               deleted_ids = audit_log.deleted_ids + portion.deleted_ids,
               purged_records = purged_records + portion.records
           from (
               select count(*) as records, range_agg(association_ids) as association_ids,
                   range_agg(deleted_ids) as deleted_ids
               from deleted
           ) portion
           where id = $1 and portion.records > 0
           returning portion.records as "records!", (select max(id) from examined) as "last_id!""#,
        purge,
        after,
        limit,
    )
    .fetch_optional(conn)
    .await
}
