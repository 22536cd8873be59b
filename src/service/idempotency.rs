//! The same request again, under the same key: the same answer again.
//!
//! The answer is kept in the commit of its links, by the statement that writes them. It is kept as what it says, not as bytes: the
//! texts that it is rendered to are fixed.

use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use tokio::time::Instant;
use tracing::warn;

use super::instance_association::{Original, Outcome};
use super::{Error, lend};
use crate::db;
use crate::db::idempotency::Record;
use crate::db::pool::Pool;
use crate::domain::caller::Caller;
use crate::domain::error::{DetailError, RequestError};
use crate::domain::language::Language;
use crate::domain::request::CreateLinks;

/// How often what has expired is dropped. The answers are kept for a day.
const SWEEP: Duration = Duration::from_mins(10);

/// How many records go in one statement.
const SWEPT_AT_ONCE: i64 = 5_000;

/// The answer that is kept for this request; none if its key is new.
pub(super) async fn replay(
    conn: &mut PgConnection,
    caller: &Caller,
    links: &CreateLinks,
    key: &str,
) -> Result<Option<Outcome>, Error> {
    match db::idempotency::find(conn, caller, key).await? {
        Some(record) if record.request_hash == meaning(links) => outcome(links, record).map(Some),
        Some(_) => Err(RequestError::KeyReused.into()),
        None => Ok(None),
    }
}

fn outcome(links: &CreateLinks, record: Record) -> Result<Outcome, Error> {
    // A code that is unknown is of a newer version of this program.
    let known = |code| DetailError::of_code(code).ok_or(RequestError::Internal);
    let refusals = record.refusals.into_iter().map(|code| code.map(known).transpose());
    let refusals: Vec<_> = refusals.collect::<Result<_, _>>()?;
    let language = Language::parse(&record.language);
    let original = Some(Original { request_id: record.request_id, language });
    Ok(Outcome { original, ..Outcome::of(links, refusals, record.created) })
}

/// What a request asks for, in 32 bytes. Each part says how long it is, so that none runs into the next.
pub(super) fn meaning(links: &CreateLinks) -> [u8; 32] {
    let CreateLinks { source_model, target_model, model_association, details, account, .. } = links;
    let mut hash = Sha256::new();
    for text in [account.as_str(), source_model, target_model, model_association] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    for id in details.iter().flat_map(|detail| [detail.source, detail.target]) {
        hash.update([u8::from(id.is_some())]);
        hash.update(id.unwrap_or_default().to_le_bytes());
    }
    hash.finalize().into()
}

/// Drops expired records now and then, for ever.
pub async fn sweep(pool: Pool) {
    let mut every = tokio::time::interval(SWEEP);
    loop {
        every.tick().await;
        if let Err(error) = drop_expired(&pool).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "expired idempotency keys were not dropped"
            );
        }
    }
}

/// Drops the records that were kept for long enough, a limited number a statement.
async fn drop_expired(pool: &Pool) -> Result<(), Error> {
    let delete = async |conn: &mut PgConnection| {
        Ok(db::idempotency::delete_expired(conn, SWEPT_AT_ONCE).await?)
    };
    while lend(pool, Instant::now() + db::STATEMENT_TIMEOUT, delete).await? > 0 {}
    Ok(())
}
