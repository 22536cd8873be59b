//! Links between instances.

use std::collections::HashSet;

use sqlx::PgConnection;

use crate::domain::association::{ModelAssociation, Tenant};
use crate::domain::batch::{Detail, Fact, Verdict};
use crate::domain::caller::Caller;
use crate::domain::error::DetailError;

/// What became of a plan.
#[derive(Debug)]
pub enum Attempt {
    /// What was planned now stands: the ids, in the order of the details.
    Created(Vec<i64>),
    /// The facts are others than foreseen, so nothing was written. These are they, one for each detail.
    Refuted(Vec<Fact>),
    /// What was found before the batch is not so any more; nothing was written.
    Over,
}

/// What to write, and on what assumptions.
pub struct Batch<'a> {
    /// Under which model association.
    pub model_association: &'a ModelAssociation,
    /// Under which account.
    pub account: &'a Tenant,
    /// All details of the request.
    pub details: &'a [Detail],
    /// The facts that the verdicts follow from: one for each detail, or none if nothing is in the way.
    pub foreseen: &'a [Fact],
    /// What was decided on each detail.
    pub verdicts: &'a [Verdict],
    /// Whom the audit record names.
    pub caller: &'a Caller,
    /// And which request.
    pub request_id: &'a str,
    /// The epoch in which all that was found.
    pub mark: i64,
    /// How to keep the answer, if it is to be kept.
    pub keep: Option<&'a Keep<'a>>,
}

/// How an answer is kept for when the request comes again.
pub struct Keep<'a> {
    /// Under this key of the caller's.
    pub key: &'a str,
    /// Tells what the request asks for.
    pub request_hash: [u8; 32],
    /// The language that the answer is written in.
    pub language: &'static str,
}

/// Writes the accepted details, their audit record and what is to be kept if the facts are as foreseen, else
/// reports the facts.
///
/// One statement, so one commit: no plan is carried out on facts that have changed. Whatever another
/// commit changes while this one runs makes it fail as a lost race, with nothing written.
///
/// Links are written in the order of their targets, so that batches that compete for the same places wait
/// for each other in one direction. Under 1:1 a link takes two places and no order serves both, so such
/// batches take turns.
#[tracing::instrument(skip_all, name = "db.instance_association.create")]
pub async fn create(conn: &mut PgConnection, batch: &Batch<'_>) -> sqlx::Result<Attempt> {
    let Batch {
        model_association,
        account,
        details,
        foreseen,
        verdicts,
        caller,
        request_id,
        mark,
        keep,
    } = *batch;
    let sources: Vec<_> = details.iter().map(|detail| detail.source).collect();
    let targets: Vec<_> = details.iter().map(|detail| detail.target).collect();
    let accepted: Vec<_> = verdicts.iter().map(Result::is_ok).collect();
    let refusals: Vec<_> =
        verdicts.iter().map(|verdict| verdict.err().map(DetailError::code)).collect();
    let source_missing: Vec<_> = foreseen.iter().map(|fact| fact.source_missing).collect();
    let target_missing: Vec<_> = foreseen.iter().map(|fact| fact.target_missing).collect();
    let source_of_target: Vec<_> = foreseen.iter().map(|fact| fact.source_of_target).collect();
    let target_of_source: Vec<_> = foreseen.iter().map(|fact| fact.target_of_source).collect();

    let row = sqlx::query_file!(
        "src/db/create_links.sql",
        model_association.id,
        account.as_str(),
        model_association.source_model_id,
        model_association.target_model_id,
        &sources as &[Option<i64>],
        &targets as &[Option<i64>],
        &accepted,
        &source_missing,
        &target_missing,
        &source_of_target as &[Option<i64>],
        &target_of_source as &[Option<i64>],
        request_id,
        caller.app,
        caller.user,
        keep.map(|keep| keep.key),
        keep.map(|keep| keep.request_hash.as_slice()),
        keep.map(|keep| keep.language),
        &refusals as &[Option<i32>],
        different(&sources),
        different(&targets),
        mark,
    )
    .fetch_one(conn)
    .await?;

    if row.is_over {
        return Ok(Attempt::Over);
    }
    let Some(source_missing) = row.source_missing else {
        return Ok(Attempt::Created(row.created.unwrap_or_default()));
    };
    let facts = source_missing
        .into_iter()
        .zip(row.target_missing.unwrap_or_default())
        .zip(row.source_of_target.unwrap_or_default())
        .zip(row.target_of_source.unwrap_or_default())
        .map(|(((source_missing, target_missing), source_of_target), target_of_source)| Fact {
            source_missing,
            target_missing,
            source_of_target,
            target_of_source,
        });
    Ok(Attempt::Refuted(facts.collect()))
}

fn different(ids: &[Option<i64>]) -> i64 {
    ids.iter().flatten().collect::<HashSet<_>>().len().try_into().unwrap_or(i64::MAX)
}
