//! `Idempotency-Key`: a request that is sent again under its key gets the answer of the first one.
//!
//! The statement that creates or deletes the links also stores the record, so neither exists
//! without the other. A record has the ids and error codes, and the answer is rendered from them
//! again.

use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use tokio::time::Instant;
use tracing::warn;

use super::context::RequestContext;
use super::{Error, with_connection};
use crate::db;
use crate::db::idempotency::IdempotencyRecord;
use crate::db::instance_association::IdempotencyEntry;
use crate::db::pool::Pool;
use crate::domain::error::RequestError;
use crate::domain::keys::Tenant;
use crate::domain::language::Language;

/// How often expired records are deleted.
const PURGE_INTERVAL: Duration = Duration::from_mins(10);

/// How many records one statement deletes.
const PURGE_BATCH: i64 = 5_000;

/// The answer of an earlier request with the same `Idempotency-Key`.
pub struct Replay<T> {
    /// What that request did.
    pub outcome: T,
    /// The request id in that answer.
    pub request_id: String,
    /// The language of that answer.
    pub language: Language,
}

impl<T> Replay<T> {
    /// The answer that a record stores, with the outcome that was read from it.
    pub(super) fn new(outcome: T, request_id: String, language: &str) -> Self {
        Self { outcome, request_id, language: Language::parse(language) }
    }
}

/// What to store under the request's `Idempotency-Key`, if it has one.
pub(super) fn entry<'a>(
    cx: &'a RequestContext<'_>, request_hash: impl FnOnce() -> [u8; 32],
) -> Option<IdempotencyEntry<'a>> {
    cx.idempotency_key.as_deref().map(|key| IdempotencyEntry {
        key,
        request_hash: request_hash(),
        language: cx.language.into(),
    })
}

/// The record that is stored under the request's key, if there is one. Refuses a key that was used
/// with a different request.
pub(super) async fn find(
    cx: &RequestContext<'_>, request_hash: [u8; 32],
) -> Result<Option<IdempotencyRecord>, Error> {
    let Some(key) = &cx.idempotency_key else { return Ok(None) };
    let sent = Instant::now();
    let find =
        async |conn: &mut PgConnection| Ok(db::idempotency::find(conn, &cx.caller, key).await?);
    let record = with_connection(&cx.service.pool, cx.deadline, find).await?;
    let Some(record) = record else { return Ok(None) };
    cx.lookups.set_current(record.version, sent)?;
    if record.request_hash != request_hash {
        return Err(RequestError::IdempotencyKeyReused.into());
    }
    Ok(Some(record))
}

/// SHA-256 of what a request to an endpoint asks for. Each text is preceded by its length, so that
/// no two requests are hashed alike.
pub(super) fn hash_request(
    endpoint: &str, tenant: &Tenant, texts: &[&str], ids: &[Option<i64>],
) -> [u8; 32] {
    let mut hash = Sha256::new();
    for text in [endpoint, tenant.as_str()].iter().chain(texts) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    for id in ids {
        hash.update([u8::from(id.is_some())]);
        hash.update(id.unwrap_or_default().to_le_bytes());
    }
    hash.finalize().into()
}

/// Deletes expired records at intervals. Never returns.
pub async fn purge(pool: Pool) {
    let mut interval = tokio::time::interval(PURGE_INTERVAL);
    loop {
        interval.tick().await;
        if let Err(error) = delete_expired(&pool).await {
            let error = &error as &dyn std::error::Error;
            warn!(error, "expired idempotency records were not deleted");
        }
    }
}

/// Deletes expired records. Skips those that a server is deleting.
pub(super) async fn delete_all_expired(conn: &mut PgConnection) -> sqlx::Result<()> {
    while db::idempotency::delete_expired(conn, PURGE_BATCH).await? > 0 {}
    Ok(())
}

async fn delete_expired(pool: &Pool) -> Result<(), Error> {
    let delete = async |conn: &mut PgConnection| {
        Ok(db::idempotency::delete_expired(conn, PURGE_BATCH).await?)
    };
    while with_connection(pool, Instant::now() + db::STATEMENT_TIMEOUT, delete).await? > 0 {}
    Ok(())
}
