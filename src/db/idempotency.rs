//! Idempotency records: stored answers to requests that came with an `Idempotency-Key`. They are
//! inserted by `create_links.sql` and `delete_links.sql`.

use sqlx::PgConnection;

use super::cache_version::CacheVersion;
use crate::domain::identity::Caller;

/// A stored answer.
pub struct IdempotencyRecord {
    /// SHA-256 of what the request asked for.
    pub request_hash: Vec<u8>,
    /// The request id in the answer.
    pub request_id: String,
    /// The tag of the answer's language.
    pub language: String,
    /// The ids of the created links, in the order of their details.
    pub created: Vec<i64>,
    /// For each detail its error's code, `None` if it was created.
    pub refusals: Vec<Option<i32>>,
    /// What was in the way of each detail, as JSON, if the answer depends on it.
    pub explanations: Option<String>,
    /// How many links were deleted.
    pub deleted: i64,
    /// The audit record of the request that was undone, if one was.
    pub undone_record_id: Option<i64>,
    /// How many links of that request did not stand any more.
    pub gone: Option<i64>,
    /// The cache version when it was read.
    pub version: CacheVersion,
}

/// Finds what is stored under a caller's key.
#[tracing::instrument(skip_all, name = "db.idempotency.find")]
pub async fn find(
    conn: &mut PgConnection, caller: &Caller, key: &str,
) -> sqlx::Result<Option<IdempotencyRecord>> {
    sqlx::query_as!(
        IdempotencyRecord,
        r#"select request_hash, request_id, language, refusals as "refusals!: Vec<Option<i32>>",
               array(
                   select id
                   from unnest(association_ids) ids, generate_series(lower(ids), upper(ids) - 1) id
                   order by id
               ) as "created!",
               explanations::text,
               (
                   select coalesce(sum(upper(ids) - lower(ids)), 0)::bigint
                   from unnest(deleted_ids) ids
               ) as "deleted!",
               undone_record_id, gone,
               (select version from cmdb.cache_version) as "version!: CacheVersion"
           from cmdb.idempotency_record where app = $1 and user_name = $2 and key = $3"#,
        caller.app,
        caller.user,
        key,
    )
    .fetch_optional(conn)
    .await
}

/// Deletes up to `limit` records older than 25 hours and returns their number. Skips records that
/// another server is deleting. Callers are promised 24 hours after the answer, which is later than
/// the record's `now()`.
pub async fn delete_expired(conn: &mut PgConnection, limit: i64) -> sqlx::Result<u64> {
    let deleted = sqlx::query!(
        // The locked rows cannot move. By their keys PostgreSQL might join the whole table.
        "delete from cmdb.idempotency_record
         where ctid = any (array(
             select ctid from cmdb.idempotency_record
             where created_at < now() - interval '25 hours'
             limit $1 for update skip locked))",
        limit,
    )
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected())
}
