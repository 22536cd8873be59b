//! Answers that are kept under a key of the caller's.

use sqlx::PgConnection;

use crate::domain::caller::Caller;

/// What is kept under a key: enough to give the same answer again.
pub struct Record {
    /// Tells what the request asked for.
    pub request_hash: Vec<u8>,
    /// The id that the answer names.
    pub request_id: String,
    /// The language that the answer is written in.
    pub language: String,
    /// The ids that were created, in the order of their details.
    pub created: Vec<i64>,
    /// For each detail the code of its refusal; none if it was created.
    pub refusals: Vec<Option<i32>>,
}

/// Finds what is kept under a key of a caller's.
#[tracing::instrument(skip_all, name = "db.idempotency.find")]
pub async fn find(
    conn: &mut PgConnection,
    caller: &Caller,
    key: &str,
) -> sqlx::Result<Option<Record>> {
    sqlx::query_as!(
        Record,
        r#"select request_hash, request_id, language, refusals as "refusals!: Vec<Option<i32>>",
               array(
                   select id from unnest(association_ids) ids, generate_series(lower(ids), upper(ids) - 1) id
                   order by id
               ) as "created!"
           from idempotency_record where app = $1 and user_name = $2 and key = $3"#,
        caller.app,
        caller.user,
        key,
    )
    .fetch_optional(conn)
    .await
}

/// Drops up to `most` records that were kept for longer than a day, however long their statement took to answer; how
/// many that were. What another server is
/// dropping is left to it.
pub async fn delete_expired(conn: &mut PgConnection, most: i64) -> sqlx::Result<u64> {
    let dropped = sqlx::query!(
        "delete from idempotency_record
         where (app, user_name, key) in (
             select app, user_name, key from idempotency_record
             where created_at < now() - interval '25 hours'
             limit $1 for update skip locked)",
        most,
    )
    .execute(conn)
    .await?;
    Ok(dropped.rows_affected())
}
