//! Instance associations (links).

use std::collections::HashSet;

use sqlx::PgConnection;

use super::model_association::ModelAssociation;
use crate::domain::batch::{Decision, Detail, StoredState};
use crate::domain::error::DetailError;
use crate::domain::identity::Caller;

/// What became of an attempt to write a batch.
#[derive(Debug)]
pub enum WriteOutcome {
    /// The accepted details are links now: their ids, in the order of the details.
    Created(Vec<i64>),
    /// The stored state, of each detail, differs from the expected one. Nothing was written.
    Mismatch(Vec<StoredState>),
    /// What the request was authorized on has changed: the cache version. Nothing was written.
    Stale,
}

/// A batch to write, and the preconditions under which it is written.
pub struct NewLinks<'a> {
    /// The model association of all links, with the cache version on which the request was
    /// authorized.
    pub association: &'a ModelAssociation,
    /// The surrogate key of the tenant of the links. No link is written without it.
    pub tenant_id: Option<i32>,
    /// All details of the request.
    pub details: &'a [Detail],
    /// The decision on each detail.
    pub decisions: &'a [Decision],
    /// The state that the decisions follow from: an element for each detail, or an empty slice if
    /// no stored state prevents a link.
    pub expected: &'a [StoredState],
    /// The request id in the audit record.
    pub request_id: &'a str,
    /// The caller in the audit record.
    pub caller: &'a Caller,
    /// What to store under the request's `Idempotency-Key`, if it has one.
    pub idempotency: Option<IdempotencyEntry<'a>>,
}

/// What identifies an idempotency record and describes its answer.
#[derive(Clone, Copy)]
pub struct IdempotencyEntry<'a> {
    /// The caller's key.
    pub key: &'a str,
    /// SHA-256 of what the request asks for.
    pub request_hash: [u8; 32],
    /// The tag of the answer's language.
    pub language: &'static str,
}

/// Writes the accepted details with their audit and idempotency records if the preconditions hold,
/// and otherwise reports the stored state.
///
/// A single statement, so a single commit: no decision is carried out on a state that has changed.
/// A conflicting commit of another transaction makes the statement fail with
/// [`ErrorClass::Conflict`](super::ErrorClass::Conflict), and nothing is written.
#[tracing::instrument(skip_all, name = "db.instance_association.create")]
pub async fn create(conn: &mut PgConnection, links: &NewLinks<'_>) -> sqlx::Result<WriteOutcome> {
    let NewLinks { association, details, decisions, expected, idempotency, .. } = links;
    let source_ids: Vec<_> = details.iter().map(|detail| detail.source).collect();
    let target_ids: Vec<_> = details.iter().map(|detail| detail.target).collect();
    let accepted: Vec<_> = decisions.iter().map(Result::is_ok).collect();
    let source_missing: Vec<_> = expected.iter().map(|state| state.source_missing).collect();
    let target_missing: Vec<_> = expected.iter().map(|state| state.target_missing).collect();
    let source_of_target: Vec<_> = expected.iter().map(|state| state.source_of_target).collect();
    let target_of_source: Vec<_> = expected.iter().map(|state| state.target_of_source).collect();
    let error_codes: Vec<_> =
        decisions.iter().map(|decision| decision.err().map(DetailError::code)).collect();

    // In the groups that the statement's header lists.
    let row = sqlx::query_file!(
        "src/db/create_links.sql",
        // model association, models
        association.id,
        association.source_model_id,
        association.source_is_built_in,
        association.target_model_id,
        association.target_is_built_in,
        // caller
        links.tenant_id,
        association.version.0,
        // details
        &source_ids as &[Option<i64>],
        &target_ids as &[Option<i64>],
        &accepted,
        count_distinct(&source_ids),
        count_distinct(&target_ids),
        // expected state
        &source_missing,
        &target_missing,
        &source_of_target as &[Option<i64>],
        &target_of_source as &[Option<i64>],
        // audit record
        links.request_id,
        links.caller.app,
        links.caller.user,
        // idempotency record
        idempotency.as_ref().map(|entry| entry.key),
        idempotency.as_ref().map(|entry| entry.request_hash.as_slice()),
        idempotency.as_ref().map(|entry| entry.language),
        &error_codes as &[Option<i32>],
    )
    .fetch_one(conn)
    .await?;

    if row.is_stale {
        return Ok(WriteOutcome::Stale);
    }
    let Some(source_missing) = row.source_missing else {
        return Ok(WriteOutcome::Created(row.created.unwrap_or_default()));
    };
    let states = source_missing
        .into_iter()
        .zip(row.target_missing.unwrap_or_default())
        .zip(row.source_of_target.unwrap_or_default())
        .zip(row.target_of_source.unwrap_or_default())
        .map(|(((source_missing, target_missing), source_of_target), target_of_source)| {
            StoredState { source_missing, target_missing, source_of_target, target_of_source }
        });
    Ok(WriteOutcome::Mismatch(states.collect()))
}

fn count_distinct(ids: &[Option<i64>]) -> i64 {
    ids.iter().flatten().collect::<HashSet<_>>().len().try_into().unwrap_or(i64::MAX)
}
