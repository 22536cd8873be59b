//! Deleting instance associations (links) by their ids.

use std::collections::HashSet;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::context::RequestContext;
use super::idempotency::Replay;
use super::permission::user_permissions;
use super::{Error, idempotency, with_connection};
use crate::db;
use crate::db::deletion::{DeleteOutcome, Deletion, LinkEnd, NamedLinks, Undone};
use crate::db::instance_association::IdempotencyEntry;
use crate::db::permission::UserPermissions;
use crate::domain::error::RequestError;
use crate::domain::permission::MissingPermission;

/// A request to delete links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteLinks {
    /// The endpoint's name. Another endpoint cannot reuse the request's `Idempotency-Key`.
    endpoint: &'static str,
    /// The key of a model that is the source or the target of the links.
    model: String,
    /// Positive ids in ascending order, each once.
    ids: Vec<i64>,
}

impl DeleteLinks {
    /// A request to an endpoint. A repeated id counts once. No link has an id of 0 or less, so
    /// these are ignored.
    pub fn new(endpoint: &'static str, model: String, mut ids: Vec<i64>) -> Self {
        ids.retain(|id| *id > 0);
        ids.sort_unstable();
        ids.dedup();
        Self { endpoint, model, ids }
    }

    /// How many links the request names.
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    fn hash(&self, cx: &RequestContext<'_>) -> [u8; 32] {
        let ids: Vec<_> = self.ids.iter().copied().map(Some).collect();
        idempotency::hash_request(self.endpoint, &cx.tenant, &[&self.model], &ids)
    }
}

/// The stored answer to this request, if it was sent before under its `Idempotency-Key`: how many
/// links it has deleted.
pub async fn find_replay(
    cx: &RequestContext<'_>, links: &DeleteLinks,
) -> Result<Option<Replay<i64>>, Error> {
    let record = idempotency::find(cx, links.hash(cx)).await?;
    Ok(record.map(|record| Replay::new(record.deleted, record.request_id, &record.language)))
}

/// Deletes links in one commit and returns how many there were. Refuses the request if the user may
/// not edit both instances of each. Links of another tenant or model are treated as not existing.
pub async fn delete(cx: &RequestContext<'_>, request: &DeleteLinks) -> Result<i64, Error> {
    let model = cx.lookups.model(&request.model, &cx.tenant).await?;
    let permissions = user_permissions(cx).await?;
    let tenant_id = cx.lookups.tenant_id(&cx.tenant).await?;
    let named = NamedLinks { ids: &request.ids, tenant_id, model_id: model.map(|model| model.id) };

    with_connection(&cx.service.pool, cx.deadline, async |conn| {
        let idempotency = idempotency::entry(cx, || request.hash(cx));
        delete_named(conn, cx, permissions.as_deref(), named, idempotency, None).await
    })
    .await
}

/// Deletes the links that a request names, if the user may edit both instances of each, and returns
/// how many there were. All that it looked up must have been looked up before.
pub(super) async fn delete_named(
    conn: &mut PgConnection, cx: &RequestContext<'_>, permissions: Option<&UserPermissions>,
    named: NamedLinks<'_>, idempotency: Option<IdempotencyEntry<'_>>, undone: Option<Undone>,
) -> Result<i64, Error> {
    // Links that are created after the authorization are not deleted.
    let authorized_ids;
    let links = match permissions.filter(|user| !user.may_edit_all_models) {
        Some(user) => {
            let ends = db::deletion::list_ends(conn, named, &cx.caller.user, user).await?;
            authorized_ids = authorize(ends)?;
            NamedLinks { ids: &authorized_ids, ..named }
        }
        None => named,
    };
    cx.require_time_for_statement()?;
    let version = cx.lookups.version();
    let caller = &cx.caller;
    let request_id = cx.request_id;
    let deletion = Deletion { links, version, request_id, caller, idempotency, undone };
    let sent = Instant::now();
    match db::deletion::delete(conn, &deletion).await? {
        DeleteOutcome::Stale => Err(Error::Stale),
        DeleteOutcome::Deleted(count) => {
            version.map_or(Ok(()), |version| cx.lookups.set_current(version, sent))?;
            Ok(count)
        }
    }
}

/// The ids of the links in ascending order, if the user may edit both ends of each.
fn authorize(ends: Vec<LinkEnd>) -> Result<Vec<i64>, RequestError> {
    let mut ids: Vec<_> = ends.iter().map(|end| end.link_id).collect();
    let mut missing: Vec<_> = ends.into_iter().filter_map(|end| end.missing).collect();
    missing.dedup();
    // The permission to edit every instance of a model includes that for each of them.
    let is_whole = |one: &MissingPermission| one.instance_id.is_none();
    let whole_models: HashSet<_> =
        missing.iter().filter(|one| is_whole(one)).map(|one| one.model.clone()).collect();
    missing.retain(|one| is_whole(one) || !whole_models.contains(&one.model));
    if !missing.is_empty() {
        return Err(RequestError::PermissionDenied(missing));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
