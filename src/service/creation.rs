//! What became of requests that created instance associations (links), and undoing them.

use sqlx::PgConnection;

use super::context::RequestContext;
use super::deletion::delete_named;
use super::idempotency::Replay;
use super::permission::user_permissions;
use super::{Error, idempotency, with_connection};
use crate::db;
use crate::db::creation::CreationSearch;
pub use crate::db::creation::{CreatedLink, Creation};
use crate::db::deletion::{NamedLinks, Undone};
use crate::db::permission::UserPermissions;
use crate::domain::error::{DetailError, RequestError};
use crate::domain::keys::is_valid_name;

/// How many requests with the same id are found at most.
pub const CREATION_LIMIT: i64 = 100;

/// A request by its id, which others may have, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRequest {
    /// Its id.
    pub request_id: String,
    /// The id of its audit record, if that is given.
    pub audit_record_id: Option<i64>,
}

impl NamedRequest {
    fn hash(&self, cx: &RequestContext<'_>) -> [u8; 32] {
        let (texts, ids) = ([self.request_id.as_str()], [self.audit_record_id]);
        idempotency::hash_request("undo_instance_association_request", &cx.tenant, &texts, &ids)
    }
}

/// What became of an undone request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndoOutcome {
    /// The id of its audit record.
    pub audit_record_id: i64,
    /// How many of its links were deleted.
    pub deleted: i64,
    /// How many of its links did not stand any more.
    pub gone: i64,
}

/// Finds the last requests with this id that created links, in the order of their audit records:
/// those of the same application and user, and those between models of which the user may edit
/// every instance.
pub async fn find(cx: &RequestContext<'_>, request: &NamedRequest) -> Result<Vec<Creation>, Error> {
    let permissions = user_permissions(cx).await?;
    let tenant_id = cx.lookups.tenant_id(&cx.tenant).await?;
    with_connection(&cx.service.pool, cx.deadline, async |conn| {
        let search = search_for(cx, request, tenant_id, permissions.as_deref());
        list(conn, &search, CREATION_LIMIT).await
    })
    .await
}

fn search_for<'a>(
    cx: &'a RequestContext<'_>, request: &'a NamedRequest, tenant_id: Option<i32>,
    permissions: Option<&'a UserPermissions>,
) -> CreationSearch<'a> {
    let NamedRequest { request_id, audit_record_id } = request;
    let (caller, audit_record_id) = (&cx.caller, *audit_record_id);
    CreationSearch { request_id, audit_record_id, tenant_id, caller, permissions }
}

async fn list(
    conn: &mut PgConnection, search: &CreationSearch<'_>, limit: i64,
) -> Result<Vec<Creation>, Error> {
    // No request has another id, and PostgreSQL cannot read NUL.
    if !is_valid_name(search.request_id) {
        return Ok(Vec::new());
    }
    Ok(db::creation::find(conn, search, limit).await?)
}

/// The errors of the details that the request refused, with their indexes; `None` if they are not
/// known any more.
pub fn refusals(creation: &Creation) -> Result<Option<Vec<(usize, DetailError)>>, Error> {
    let Some(codes) = &creation.refusals else { return Ok(None) };
    let refused = codes.iter().enumerate().filter_map(|(index, code)| Some((index, (*code)?)));
    // A code that is unknown was stored by a newer version of this program.
    let error = |(index, code)| {
        let error = DetailError::from_repr(code).ok_or(RequestError::Internal)?;
        Ok((index, error))
    };
    refused.map(error).collect::<Result<_, _>>().map(Some)
}

/// The stored answer to this request to undo another, if it was sent before under its
/// `Idempotency-Key`.
pub async fn find_replay_of_undo(
    cx: &RequestContext<'_>, request: &NamedRequest,
) -> Result<Option<Replay<UndoOutcome>>, Error> {
    let Some(record) = idempotency::find(cx, request.hash(cx)).await? else { return Ok(None) };
    let (Some(audit_record_id), Some(gone)) = (record.undone_record_id, record.gone) else {
        return Err(RequestError::Internal.into());
    };
    let outcome = UndoOutcome { audit_record_id, deleted: record.deleted, gone };
    Ok(Some(Replay::new(outcome, record.request_id, &record.language)))
}

/// Deletes the links that a request created and that still stand, in one commit. Refuses it if the
/// user may not edit both instances of each, or if [`find`] finds none or several.
pub async fn undo(cx: &RequestContext<'_>, request: &NamedRequest) -> Result<UndoOutcome, Error> {
    let permissions = user_permissions(cx).await?;
    let tenant_id = cx.lookups.tenant_id(&cx.tenant).await?;
    with_connection(&cx.service.pool, cx.deadline, async |conn| {
        let search = search_for(cx, request, tenant_id, permissions.as_deref());
        let found = list(conn, &search, 2).await?;
        let creation = match (found.as_slice(), request.audit_record_id) {
            ([creation], _) => creation,
            ([], None) => return Err(RequestError::InvalidField("request_id".into()).into()),
            ([], Some(_)) => return Err(RequestError::InvalidField("audit_id".into()).into()),
            _ => return Err(RequestError::UnassignedField("audit_id").into()),
        };
        let Creation { audit_record_id, ref links, ref association, .. } = *creation;
        let ids: Vec<_> = links.iter().map(|link| link.id).collect();
        let model_id = association.as_ref().map(|association| association.source_model_id);
        let named = NamedLinks { ids: &ids, tenant_id, model_id };
        let created = i64::try_from(ids.len()).or(Err(RequestError::Internal))?;
        let undone = Some(Undone { audit_record_id, created });
        let idempotency = idempotency::entry(cx, || request.hash(cx));
        let permissions = permissions.as_deref();
        let deleted = delete_named(conn, cx, permissions, named, idempotency, undone).await?;
        Ok(UndoOutcome { audit_record_id, deleted, gone: created - deleted })
    })
    .await
}
