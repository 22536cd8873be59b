//! Instance associations (links): creating batches of them.

use tracing::{Instrument, info_span};

use super::context::RequestContext;
use super::idempotency;
use super::permission::authorize_edit;
use super::{Error, with_connection};
use crate::db;
use crate::db::instance_association::{IdempotencyEntry, NewLinks, WriteOutcome};
use crate::domain::association::check_models;
use crate::domain::batch::{CreateLinks, Decision, plan};
use crate::domain::error::{DetailError, RequestError};
use crate::domain::keys::{MODEL_ASSOCIATION_KEY_LIMIT, is_valid_key};
use crate::domain::language::Language;

/// For each detail of a batch the id of the new link, or why it was refused.
pub type DetailOutcomes = Vec<Result<i64, DetailError>>;

/// The answer of an earlier request with the same `Idempotency-Key`.
pub struct Replay {
    /// What became of each detail then.
    pub outcomes: DetailOutcomes,
    /// The request id in that answer.
    pub request_id: String,
    /// The language of that answer.
    pub language: Language,
}

/// A step of a request in its trace. Spans with this target are not in the log.
macro_rules! step {
    ($name:literal) => {
        info_span!(target: "trace", $name)
    };
}

/// The stored answer to this batch, if it was sent before under its `Idempotency-Key`.
pub async fn find_replay(
    cx: &RequestContext<'_>,
    links: &CreateLinks,
) -> Result<Option<Replay>, Error> {
    let record = idempotency::find(cx, idempotency::hash(&cx.tenant, links)).await?;
    let Some(record) = record else { return Ok(None) };
    let mut ids = record.created.into_iter();
    let outcome = |code| match code {
        None => ids.next().map(Ok).ok_or(RequestError::Internal),
        // A code that is unknown was stored by a newer version of this program.
        Some(code) => DetailError::from_code(code).map(Err).ok_or(RequestError::Internal),
    };
    let outcomes = record.refusals.into_iter().map(outcome).collect::<Result<_, _>>()?;
    let language = Language::parse(&record.language);
    Ok(Some(Replay { outcomes, request_id: record.request_id, language }))
}

/// Creates the links of a batch, as if its details were created one after another, in one commit.
pub async fn create_many(
    cx: &RequestContext<'_>,
    links: &CreateLinks,
) -> Result<DetailOutcomes, Error> {
    let CreateLinks { model_association: key, source_model, target_model, details } = links;
    let access = if is_valid_key(key, MODEL_ASSOCIATION_KEY_LIMIT) {
        cx.lookups.association_access(&cx.caller.user, key, &cx.tenant).await?
    } else {
        None
    };
    let found = access.as_ref().map(|access| &access.model_association);
    check_models(found, key, source_model, target_model)?;
    let access = access.ok_or(RequestError::UnknownModelAssociation)?;
    let version = cx.lookups.version().ok_or(Error::Stale)?;
    let model_association = &access.model_association;

    with_connection(&cx.service.pool, cx.deadline, async |conn| {
        let authorized =
            authorize_edit(conn, cx, &access, details).instrument(step!("authorize")).await?;
        // First the expected state is that nothing prevents a link. If that is wrong, the statement
        // writes nothing and returns the stored state, which is expected in the next round.
        let mut expected = authorized.expected_state(details);
        let mut is_stored_state = false;
        loop {
            let decisions =
                step!("plan").in_scope(|| plan(model_association.mapping, details, &expected));
            let writes_nothing =
                cx.idempotency_key.is_none() && decisions.iter().all(Result::is_err);
            if is_stored_state && writes_nothing {
                return Ok(outcomes(&decisions, Vec::new()));
            }
            cx.require_time_for_statement()?;
            let idempotency = cx.idempotency_key.as_deref().map(|key| IdempotencyEntry {
                key,
                request_hash: idempotency::hash(&cx.tenant, links),
                language: cx.language.tag(),
            });
            let new_links = NewLinks {
                model_association,
                tenant: &cx.tenant,
                version,
                details,
                decisions: &decisions,
                expected: &expected,
                request_id: cx.request_id,
                caller: &cx.caller,
                idempotency,
            };
            let write = db::instance_association::create(conn, &new_links);
            match write.instrument(step!("write")).await? {
                WriteOutcome::Stale => return Err(Error::Stale),
                WriteOutcome::Created(ids) => {
                    cx.lookups.confirm();
                    return Ok(outcomes(&decisions, ids));
                }
                WriteOutcome::Mismatch(stored) if authorized.cover(details, &stored) => {
                    cx.lookups.confirm();
                    (expected, is_stored_state) = (stored, true);
                }
                // An instance was added after the authorization.
                WriteOutcome::Mismatch(_) => return Err(Error::Conflict),
            }
        }
    })
    .await
}

/// The outcome of each detail. `ids` are those of the accepted details, in order.
fn outcomes(decisions: &[Decision], ids: Vec<i64>) -> DetailOutcomes {
    let mut ids = ids.into_iter();
    let outcome = |decision: &Decision| match decision {
        Ok(_) => ids.next().map(Ok),
        Err(error) => Some(Err(*error)),
    };
    decisions.iter().filter_map(outcome).collect()
}
