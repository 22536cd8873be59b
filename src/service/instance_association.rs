//! Creating instance associations (links): one, or a batch of them.

use sqlx::PgConnection;
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use super::context::RequestContext;
use super::idempotency;
use super::idempotency::Replay;
use super::known_instances::UnknownInstances;
use super::permission::{authorize_edit, user_permissions, viewable_models};
use super::{Error, explanation, with_connection};
use crate::db;
use crate::db::instance_association::{AuditRecord, IdempotencyEntry, NewLinks};
use crate::db::model_association::ModelAssociation;
use crate::domain::association::{Mapping, check_models};
use crate::domain::batch::{
    BatchOptions, Blocker, CreateLink, CreateLinks, Decision, Detail, DetailOutcomes, Link,
    RefusedDetail, StoredState, accept_existing, plan, plan_alone,
};
use crate::domain::error::{DetailError, RequestError};

/// A step of a request in its trace. Spans with this target are not in the log.
macro_rules! step {
    ($name:literal) => {
        info_span!(target: "trace", $name)
    };
}

/// The stored answer to this batch, if it was sent before under its `Idempotency-Key`: what became
/// of each detail.
pub async fn find_replay(
    cx: &RequestContext<'_>, links: &CreateLinks,
) -> Result<Option<Replay<DetailOutcomes>>, Error> {
    find_outcomes(cx, hash_many(cx, links, Mode::Each)).await
}

/// Finds the stored answer as [`find_replay`], to a batch of which all links are created or none.
pub async fn find_replay_of_all(
    cx: &RequestContext<'_>, links: &CreateLinks,
) -> Result<Option<Replay<DetailOutcomes>>, Error> {
    find_outcomes(cx, hash_many(cx, links, Mode::All)).await
}

/// The stored answer to this request for one link, if it was sent before under its
/// `Idempotency-Key`: the link's id.
pub async fn find_replay_of_one(
    cx: &RequestContext<'_>, link: &CreateLink,
) -> Result<Option<Replay<i64>>, Error> {
    let Some(replay) = find_outcomes(cx, hash_one(cx, link)).await? else { return Ok(None) };
    // Refusals are not stored.
    let Some(Ok(id)) = replay.outcome.first().copied() else {
        return Err(RequestError::Internal.into());
    };
    let Replay { request_id, language, .. } = replay;
    Ok(Some(Replay { outcome: id, request_id, language }))
}

async fn find_outcomes(
    cx: &RequestContext<'_>, request_hash: [u8; 32],
) -> Result<Option<Replay<DetailOutcomes>>, Error> {
    let Some(record) = idempotency::find(cx, request_hash).await? else { return Ok(None) };
    let mut ids = record.created.into_iter();
    let explanations = record.explanations.as_deref().map(explanation::parse).transpose();
    let mut explanations =
        explanations.or(Err(RequestError::Internal))?.into_iter().flatten().fuse();
    let outcome = |code| match (code, explanations.next().flatten()) {
        (None, _) => ids.next().map(Ok).ok_or(RequestError::Internal),
        // A code that is unknown was stored by a newer version of this program.
        (Some(code), explanation) => {
            let error = DetailError::from_repr(code).ok_or(RequestError::Internal)?;
            Ok(Err(explanation.unwrap_or_default().refusal(error)))
        }
    };
    let outcomes = record.refusals.into_iter().map(outcome).collect::<Result<_, _>>()?;
    Ok(Some(Replay::new(outcomes, record.request_id, &record.language)))
}

/// Without options, the hash is the one of versions that had none.
fn hash_many(cx: &RequestContext<'_>, links: &CreateLinks, mode: Mode) -> [u8; 32] {
    let CreateLinks { source_model, target_model, model_association, details, options } = links;
    let BatchOptions { accepts_existing, explain, reason } = options;
    let mut texts = vec![source_model.as_str(), target_model, model_association];
    let endpoint = match mode {
        Mode::All => "create_instance_associations_atomic",
        _ if *options == BatchOptions::default() => "batch_create_instance_association",
        _ => "batch_create_instance_association with options",
    };
    if mode == Mode::All || *options != BatchOptions::default() {
        texts.push(if *accepts_existing { "existing" } else { "" });
        texts.push(if *explain { "explain" } else { "" });
        texts.push(if reason.is_some() { "reason" } else { "" });
        texts.push(reason.as_deref().unwrap_or_default());
    }
    let ids: Vec<_> = details.iter().flat_map(|detail| [detail.source, detail.target]).collect();
    idempotency::hash_request(endpoint, &cx.tenant, &texts, &ids)
}

fn hash_one(cx: &RequestContext<'_>, link: &CreateLink) -> [u8; 32] {
    let CreateLink { model_association, pair } = link;
    let ids = [pair.source, pair.target];
    idempotency::hash_request("add_instance_association", &cx.tenant, &[model_association], &ids)
}

/// Creates the links of a batch, as if its details were created one after another, in one commit.
pub async fn create_many(
    cx: &RequestContext<'_>, links: &CreateLinks,
) -> Result<DetailOutcomes, Error> {
    create_batch(cx, links, Mode::Each).await
}

/// Creates the links of a batch, as [`create_many`], if no detail is refused. Otherwise nothing is
/// created, and the ids of the other details are 0.
pub async fn create_all(
    cx: &RequestContext<'_>, links: &CreateLinks,
) -> Result<DetailOutcomes, Error> {
    create_batch(cx, links, Mode::All).await
}

/// What [`create_many`] would do now. The ids of links that would be created are 0.
pub async fn check_many(
    cx: &RequestContext<'_>, links: &CreateLinks,
) -> Result<DetailOutcomes, Error> {
    create_batch(cx, links, Mode::None).await
}

/// Which links of a batch are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Each of which the detail is accepted.
    Each,
    /// All, or none if any detail is refused.
    All,
    /// None.
    None,
}

async fn create_batch(
    cx: &RequestContext<'_>, links: &CreateLinks, mode: Mode,
) -> Result<DetailOutcomes, Error> {
    let CreateLinks { model_association: key, source_model, target_model, details, options } =
        links;
    let association = cx.lookups.model_association(key, &cx.tenant).await?;
    let found = association.as_ref().map(|found| (&*found.source_model, &*found.target_model));
    check_models(found, key, (source_model, target_model))?;
    let association = association.ok_or(RequestError::UnknownModelAssociation)?;
    let new = NewDetails {
        details,
        options,
        plan,
        mode,
        idempotency: idempotency::entry(cx, || hash_many(cx, links, mode)),
        stores_refusals: true,
    };
    create(cx, &association, &new).await
}

/// Creates one link and returns its id. It is a batch of one, with its checks in another order, and
/// a refusal is not stored under the request's `Idempotency-Key`.
pub async fn create_one(cx: &RequestContext<'_>, link: &CreateLink) -> Result<i64, Error> {
    let association = cx.lookups.model_association(&link.model_association, &cx.tenant).await?;
    let association = association.ok_or(RequestError::UnknownModelAssociation)?;
    let new = NewDetails {
        details: &[link.pair],
        options: &BatchOptions::default(),
        plan: plan_alone,
        mode: Mode::Each,
        idempotency: idempotency::entry(cx, || hash_one(cx, link)),
        stores_refusals: false,
    };
    match create(cx, &association, &new).await?.first() {
        Some(Ok(id)) => Ok(*id),
        // Perhaps the same request has created the link since its stored answer was looked up.
        Some(Err(_)) if find_replay_of_one(cx, link).await?.is_some() => Err(Error::Conflict),
        Some(Err(refusal)) => Err(RequestError::LinkRefused(refusal.error).into()),
        None => Err(RequestError::Internal.into()),
    }
}

/// Details to create under one model association.
struct NewDetails<'a> {
    details: &'a [Detail],
    options: &'a BatchOptions,
    mode: Mode,
    /// Decides the details on a stored state.
    plan: fn(Mapping, &[Detail], &[StoredState]) -> Vec<Decision>,
    /// What to store under the request's `Idempotency-Key`, if it has one.
    idempotency: Option<IdempotencyEntry<'a>>,
    /// Whether it is also stored when every detail is refused.
    stores_refusals: bool,
}

/// Creates the details that the plan accepts, in one commit, or only says what it decides.
async fn create(
    cx: &RequestContext<'_>, association: &ModelAssociation, new: &NewDetails<'_>,
) -> Result<DetailOutcomes, Error> {
    let &NewDetails { details, options, mode, plan, idempotency, stores_refusals } = new;
    let permissions = user_permissions(cx).await?;
    let tenant_id = cx.lookups.tenant_id(&cx.tenant).await?;
    let plan_on = |stored: &[StoredState]| {
        step!("plan").in_scope(|| plan(association.mapping, details, stored))
    };

    // Of models that the user may not view, searches show no links.
    let hides_blockers = options.explain && {
        let viewable = viewable_models(cx).await?;
        let models = [association.source_model_id, association.target_model_id];
        !models.into_iter().any(|id| viewable.contain(id))
    };

    with_connection(&cx.service.pool, cx.deadline, async |conn| {
        let permissions = permissions.as_deref();
        let authorizing = authorize_edit(conn, cx, permissions, association, tenant_id, details);
        let authorized = authorizing.instrument(step!("authorize")).await?;
        let batch = Batch { cx, association, tenant_id, options };

        // If nothing that is stored is in the way, one statement is enough. It is not tried if the
        // last batch created nothing: a script that sends the same again sends many of these.
        let alone = plan_on(&[]);
        let refusing = &cx.service.caches.refusing;
        let sender = (association.id, cx.caller.app.clone());
        if mode != Mode::None
            && tenant_id.is_some()
            && alone.iter().all(Result::is_ok)
            && authorized.cover(details)
            && !refusing.contains_key(&sender)
            && let Some(ids) = batch.write(conn, &alone, idempotency).await?
        {
            return Ok(outcomes(&alone, ids));
        }

        // The stored state decides. It may change before the write, which then writes nothing.
        cx.require_time_for_statement()?;
        let sent = Instant::now();
        let finding = db::instance_association::find_state(conn, association, tenant_id, details);
        let (mut stored, version) = finding.instrument(step!("find state")).await?;
        cx.lookups.set_current(version, sent)?;
        if !authorized.cover_existing(details, &stored) {
            // An instance was added after the authorization.
            return Err(Error::Conflict);
        }
        if options.wants_links() {
            let stored = &mut stored;
            let finding = db::instance_association::find_link_ids(
                conn,
                association,
                tenant_id,
                details,
                stored,
            );
            if !finding.instrument(step!("find link ids")).await? {
                // A link was deleted after the state was read.
                return Err(Error::Conflict);
            }
        }
        let mut decisions = plan_on(&stored);
        if hides_blockers {
            hide_blockers(&mut decisions);
        }
        if mode == Mode::None || mode == Mode::All && refuses_any(&decisions, options) {
            let none = vec![0; decisions.len()];
            return Ok(outcomes(&decisions, none));
        }
        let creates_links = decisions.iter().any(Result::is_ok);
        if creates_links {
            refusing.invalidate(&sender);
        } else {
            refusing.insert(sender, ());
        }
        let idempotency = idempotency.filter(|_| stores_refusals || creates_links);
        if !creates_links && idempotency.is_none() {
            return Ok(outcomes(&decisions, Vec::new()));
        }
        if creates_links && tenant_id.is_none() {
            // The first links of a tenant. A new tenant changes the cache version.
            db::tenant::insert(conn, &cx.tenant).await?;
            return Err(Error::Stale);
        }
        let Some(ids) = batch.write(conn, &decisions, idempotency).await? else {
            // The state has changed, or the database has lost its last commits.
            cx.service.caches.known_instances.clear();
            return Err(Error::Conflict);
        };
        Ok(outcomes(&decisions, ids))
    })
    .await
}

/// A batch that was authorized.
struct Batch<'a> {
    cx: &'a RequestContext<'a>,
    association: &'a ModelAssociation,
    tenant_id: Option<i32>,
    options: &'a BatchOptions,
}

impl Batch<'_> {
    /// Writes the links of these decisions and returns their ids, or `None` if something is in the
    /// way.
    async fn write(
        &self, conn: &mut PgConnection, decisions: &[Decision],
        idempotency: Option<IdempotencyEntry<'_>>,
    ) -> Result<Option<Vec<i64>>, Error> {
        let Self { cx, association, tenant_id, options } = *self;
        cx.require_time_for_statement()?;
        let links: Vec<Link> = decisions.iter().filter_map(|decision| decision.ok()).collect();
        let mut unknown = UnknownInstances::all(
            association.version,
            [association.source_model_id, association.target_model_id].map(|id| (id, tenant_id)),
            [
                links.iter().map(|link| link.source).collect(),
                links.iter().map(|link| link.target).collect(),
            ],
        );
        let known = &cx.service.caches.known_instances;
        known.remove_known(&mut unknown);
        let [unknown_sources, unknown_targets] = &unknown.ids;
        let code = |decision: &Decision| decision.err().map(|refusal| refusal.error.code());
        let explanations = idempotency.filter(|_| options.wants_links());
        let new_links = NewLinks {
            association,
            tenant_id,
            links: &links,
            unknown_sources,
            unknown_targets,
            found_by: unknown.found_by.as_ref(),
            request_id: cx.request_id,
            caller: &cx.caller,
            idempotency,
            error_codes: &decisions.iter().map(code).collect::<Vec<_>>(),
            reason: options.reason.as_deref(),
            detail_indexes: detail_indexes(decisions),
            explanations: explanations.map(|_| explanation::json(decisions)),
        };
        let sent = Instant::now();
        let creating = db::instance_association::create(conn, &new_links);
        let Some(created) = creating.instrument(step!("write")).await? else { return Ok(None) };
        cx.lookups.set_current(association.version, sent)?;
        if let Some(id) = created.audit_record_id {
            known.insert(&unknown, AuditRecord { id, request_id: cx.request_id.to_owned() });
        }
        Ok(Some(created.ids))
    }
}

/// Whether a detail is refused that does not count as created.
fn refuses_any(decisions: &[Decision], options: &BatchOptions) -> bool {
    let mut refused = outcomes(decisions, vec![0; decisions.len()]);
    if options.accepts_existing {
        refused = accept_existing(&refused);
    }
    refused.iter().any(Result::is_err)
}

/// Leaves out the stored links that are in the way of other pairs.
fn hide_blockers(decisions: &mut [Decision]) {
    for refusal in decisions.iter_mut().filter_map(|decision| decision.as_mut().err()) {
        if let RefusedDetail { error, blocker: Some((_, Blocker::Link(id))), .. } = refusal
            && *error != DetailError::AlreadyExists
        {
            *id = None;
        }
    }
}

/// The indexes of the details that are accepted; `None` if they are 0, 1, 2 and so on.
fn detail_indexes(decisions: &[Decision]) -> Option<Vec<i16>> {
    let accepted = || decisions.iter().enumerate().filter(|(_, decision)| decision.is_ok());
    let is_gapless = accepted().enumerate().all(|(position, (index, _))| position == index);
    let indexes = || accepted().filter_map(|(index, _)| index.try_into().ok()).collect();
    (!is_gapless).then(indexes)
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
