//! Instance associations (links): creating one or a batch of them, and finding those of an
//! instance.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use super::context::RequestContext;
use super::idempotency;
use super::pages::Pages;
use super::permission::{authorize_edit, authorize_view, user_permissions};
use super::{Error, Service, with_connection};
use crate::db;
pub use crate::db::instance_association::StoredLink;
use crate::db::instance_association::{IdempotencyEntry, NewLinks, WriteOutcome};
use crate::db::model_association::ModelAssociation;
use crate::domain::association::{Mapping, check_models};
use crate::domain::batch::{
    CreateLink, CreateLinks, Decision, Detail, StoredState, plan, plan_alone,
};
use crate::domain::error::{DetailError, RequestError};
use crate::domain::keys::{MODEL_ASSOCIATION_KEY_LIMIT, Tenant, is_valid_key};
use crate::domain::language::Language;

/// For each detail of a batch the id of the new link, or why it was refused.
pub type DetailOutcomes = Vec<Result<i64, DetailError>>;

/// The answer of an earlier request with the same `Idempotency-Key`.
pub struct Replay<T> {
    /// What became of each detail then; of a single link, its id.
    pub created: T,
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
    cx: &RequestContext<'_>, links: &CreateLinks,
) -> Result<Option<Replay<DetailOutcomes>>, Error> {
    find_outcomes(cx, idempotency::hash(&cx.tenant, links)).await
}

/// The stored answer to this request for one link, if it was sent before under its
/// `Idempotency-Key`.
pub async fn find_replay_of_one(
    cx: &RequestContext<'_>, link: &CreateLink,
) -> Result<Option<Replay<i64>>, Error> {
    let Some(replay) = find_outcomes(cx, hash_one(cx, link)).await? else { return Ok(None) };
    let Replay { created, request_id, language } = replay;
    // Refusals are not stored.
    let Some(Ok(created)) = created.first().copied() else {
        return Err(RequestError::Internal.into());
    };
    Ok(Some(Replay { created, request_id, language }))
}

async fn find_outcomes(
    cx: &RequestContext<'_>, request_hash: [u8; 32],
) -> Result<Option<Replay<DetailOutcomes>>, Error> {
    let Some(record) = idempotency::find(cx, request_hash).await? else { return Ok(None) };
    let mut ids = record.created.into_iter();
    let outcome = |code| match code {
        None => ids.next().map(Ok).ok_or(RequestError::Internal),
        // A code that is unknown was stored by a newer version of this program.
        Some(code) => DetailError::from_repr(code).map(Err).ok_or(RequestError::Internal),
    };
    let created = record.refusals.into_iter().map(outcome).collect::<Result<_, _>>()?;
    let language = Language::parse(&record.language);
    Ok(Some(Replay { created, request_id: record.request_id, language }))
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
    let CreateLinks { model_association: key, source_model, target_model, details } = links;
    let association = find_association(cx, key).await?;
    let found = association.as_ref().map(|found| (&*found.source_model, &*found.target_model));
    check_models(found, key, (source_model, target_model))?;
    let association = association.ok_or(RequestError::UnknownModelAssociation)?;
    let new = NewDetails {
        details,
        plan,
        idempotency: idempotency_entry(cx, || idempotency::hash(&cx.tenant, links)),
        stores_refusals: true,
    };
    create(cx, &association, &new).await
}

/// Creates one link and returns its id. It is a batch of one, with its checks in another order, and
/// a refusal is not stored under the request's `Idempotency-Key`.
pub async fn create_one(cx: &RequestContext<'_>, link: &CreateLink) -> Result<i64, Error> {
    let association = find_association(cx, &link.model_association).await?;
    let association = association.ok_or(RequestError::UnknownModelAssociation)?;
    let new = NewDetails {
        details: &[link.pair],
        plan: plan_alone,
        idempotency: idempotency_entry(cx, || hash_one(cx, link)),
        stores_refusals: false,
    };
    match create(cx, &association, &new).await?.first() {
        Some(Ok(id)) => Ok(*id),
        // Perhaps the same request has created the link since its stored answer was looked up.
        Some(Err(_)) if find_replay_of_one(cx, link).await?.is_some() => Err(Error::Conflict),
        Some(Err(error)) => Err(RequestError::LinkRefused(*error).into()),
        None => Err(RequestError::Internal.into()),
    }
}

/// The model association with this key that the tenant sees.
async fn find_association(
    cx: &RequestContext<'_>, key: &str,
) -> Result<Option<Arc<ModelAssociation>>, Error> {
    if !is_valid_key(key, MODEL_ASSOCIATION_KEY_LIMIT) {
        return Ok(None);
    }
    cx.lookups.model_association(key, &cx.tenant).await
}

/// What to store under the request's `Idempotency-Key`, if it has one.
fn idempotency_entry<'a>(
    cx: &'a RequestContext<'_>, request_hash: impl FnOnce() -> [u8; 32],
) -> Option<IdempotencyEntry<'a>> {
    cx.idempotency_key.as_deref().map(|key| IdempotencyEntry {
        key,
        request_hash: request_hash(),
        language: cx.language.into(),
    })
}

/// Details to create under one model association.
struct NewDetails<'a> {
    details: &'a [Detail],
    /// Decides the details on a stored state.
    plan: fn(Mapping, &[Detail], &[StoredState]) -> Vec<Decision>,
    /// What to store under the request's `Idempotency-Key`, if it has one.
    idempotency: Option<IdempotencyEntry<'a>>,
    /// Whether it is also stored when every detail is refused.
    stores_refusals: bool,
}

/// Creates the details that the plan accepts, in one commit.
async fn create(
    cx: &RequestContext<'_>, association: &ModelAssociation, new: &NewDetails<'_>,
) -> Result<DetailOutcomes, Error> {
    let &NewDetails { details, plan, idempotency, stores_refusals } = new;
    let permissions = user_permissions(cx).await?;
    let tenant_id = cx.lookups.tenant_id(&cx.tenant).await?;

    with_connection(&cx.service.pool, cx.deadline, async |conn| {
        let permissions = permissions.as_deref();
        let authorizing = authorize_edit(conn, cx, permissions, association, tenant_id, details);
        let authorized = authorizing.instrument(step!("authorize")).await?;
        // The first plan expects no conflicting links, and the authorized instances. If the stored
        // state differs, nothing is written, and the next plan expects that state.
        let mut expected = authorized.expected_state(details);
        let mut expected_is_stored = false;
        loop {
            let decisions =
                step!("plan").in_scope(|| plan(association.mapping, details, &expected));
            let creates_links = decisions.iter().any(Result::is_ok);
            let idempotency = idempotency.filter(|_| stores_refusals || creates_links);
            if expected_is_stored && !creates_links && idempotency.is_none() {
                return Ok(outcomes(&decisions, Vec::new()));
            }
            if expected_is_stored && tenant_id.is_none() && creates_links {
                // The first links of a tenant. A new tenant changes the cache version.
                db::tenant::insert(conn, &cx.tenant).await?;
                return Err(Error::Stale);
            }
            cx.require_time_for_statement()?;
            let new_links = NewLinks {
                association,
                tenant_id,
                details,
                decisions: &decisions,
                expected: &expected,
                request_id: cx.request_id,
                caller: &cx.caller,
                idempotency,
            };
            let sent = Instant::now();
            let write = db::instance_association::create(conn, &new_links);
            let outcome = write.instrument(step!("write")).await?;
            if !matches!(outcome, WriteOutcome::Stale) {
                cx.lookups.set_current(association.version, sent)?;
            }
            match outcome {
                WriteOutcome::Stale => return Err(Error::Stale),
                WriteOutcome::Created(ids) => return Ok(outcomes(&decisions, ids)),
                WriteOutcome::Mismatch(stored) if authorized.cover_existing(details, &stored) => {
                    (expected, expected_is_stored) = (stored, true);
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

/// A search for the links of an instance.
pub struct RelatedLinkSearch {
    /// The key of the instance's model.
    pub model: String,
    /// The instance's id.
    pub instance_id: i64,
    /// How many links to skip.
    pub start: i64,
    /// The most links to return; 0: all.
    pub limit: i64,
}

/// The most links of one page.
const PAGE_SIZE: i64 = 5_000;

/// The links of an instance, page by page. No connection is held between pages, so a link that is
/// created or deleted meanwhile may be present or missing.
pub struct RelatedLinkPages {
    service: Arc<Service>,
    tenant: Tenant,
    /// When the first page must have been read, until it is.
    deadline: Option<Instant>,
    /// The instance, with the surrogate key of its model.
    instance: (i32, i64),
    /// The id of the last link that was returned.
    after: i64,
    /// How many links to skip after it.
    skip: i64,
    /// How many links may still be returned; 0 after the last page.
    remaining: i64,
}

/// Finds the links of which an instance is the source or the target, in order of their ids. An
/// unknown model or instance has none.
pub async fn find_related(
    cx: &RequestContext<'_>, search: &RelatedLinkSearch,
) -> Result<RelatedLinkPages, Error> {
    let model = authorize_view(cx, &search.model).await?;
    let remaining = match (&model, search.limit) {
        (None, _) => 0,
        (_, 0) => i64::MAX,
        (_, limit) => limit,
    };
    Ok(RelatedLinkPages {
        service: Arc::clone(cx.service),
        tenant: cx.tenant.clone(),
        deadline: Some(cx.deadline),
        instance: (model.map_or(0, |model| model.id), search.instance_id),
        after: i64::MIN,
        skip: search.start,
        remaining,
    })
}

impl Pages for RelatedLinkPages {
    type Row = StoredLink;

    fn are_done(&self) -> bool {
        self.remaining == 0
    }

    async fn next_page(&mut self) -> Result<Vec<StoredLink>, Error> {
        if self.are_done() {
            return Ok(Vec::new());
        }
        let deadline = self.deadline.take().unwrap_or(Instant::now() + db::STATEMENT_TIMEOUT);
        let Self { tenant, instance, after, skip, remaining, .. } = &*self;
        // One more than the page tells whether there are others.
        let size = PAGE_SIZE.min(*remaining);
        let list = async |conn: &mut PgConnection| {
            let list = db::instance_association::list_of_instance;
            Ok(list(conn, tenant, *instance, *after, *skip, size + 1).await?)
        };
        let mut links = with_connection(&self.service.pool, deadline, list).await?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let has_more = links.len() > size;
        links.truncate(size);
        (self.after, self.skip) = (links.last().map_or(i64::MAX, |link| link.id), 0);
        self.remaining = if has_more { (self.remaining - PAGE_SIZE).max(0) } else { 0 };
        Ok(links)
    }
}
