//! Purges of the audit log.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::idempotency;
use crate::db;
use crate::db::session;

/// How many records one transaction of a purge deletes.
pub const PURGE_PORTION: i64 = 10_000;

/// How many portions share an audit record of the purge. Each portion writes the record's ids anew,
/// which may be many ranges.
const PORTIONS_PER_RECORD: u32 = 100;

/// Why records were not purged.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum Error {
    #[error(
        "the time is less than 26 hours ago: the answers kept for an Idempotency-Key refer to \
         later records"
    )]
    TooRecent,
    #[error("the database returned an error")]
    Database(#[from] sqlx::Error),
}

/// Deletes the audit records of requests that were created before a time, in transactions of up to
/// `portion` records. Their ids remain in audit records of the purge. Returns how many were
/// deleted.
///
/// If it fails, the committed transactions remain, and the records of the purge are right.
pub async fn purge(
    conn: &mut PgConnection, before: OffsetDateTime, portion: i64,
) -> Result<i64, Error> {
    if !db::audit_log::is_purgeable(conn, before).await? {
        return Err(Error::TooRecent);
    }
    // They refer to audit records, and no server may have run that deletes them.
    idempotency::delete_all_expired(conn).await?;
    let (mut record, mut after, mut total) = (None, 0, 0);
    for number in 1_u32.. {
        let mut tx =
            session::begin(conn, "begin isolation level read committed read write").await?;
        let id = match record {
            Some(id) => id,
            None => db::audit_log::insert_purge(&mut tx, before).await?,
        };
        let Some(purged) = db::audit_log::purge_portion(&mut tx, id, after, portion).await? else {
            tx.rollback().await?;
            break;
        };
        tx.commit().await?;
        record = (number % PORTIONS_PER_RECORD != 0).then_some(id);
        after = purged.last_id;
        total += purged.records;
    }
    Ok(total)
}
