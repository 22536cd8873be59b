//! Association kinds: to find, create, change and delete them.

use sqlx::PgConnection;

use super::change::{Change, by_request};
use super::context::RequestContext;
use super::link_search::too_expensive;
use super::{Error, with_connection};
use crate::db;
pub use crate::db::association_kind::{StoredKind, find_number, list};
use crate::domain::association_kind::{KindTexts, NewKind};
use crate::domain::condition::{Condition, KindField};
use crate::domain::permission::Action;
use crate::domain::sort::SortField;

/// Finds the association kinds that satisfy a condition, in an order. Everybody may view them.
pub async fn find(
    cx: &RequestContext<'_>, condition: &Condition<KindField>, order: &[SortField<KindField>],
) -> Result<Vec<StoredKind>, Error> {
    let list = async |conn: &mut PgConnection| Ok(list(conn, &cx.tenant, condition, order).await?);
    let found = with_connection(&cx.service.pool, cx.deadline, list).await;
    found.map_err(too_expensive)
}

/// Creates an association kind for a request, and returns its number.
pub async fn create(cx: &RequestContext<'_>, new: &NewKind) -> Result<i64, Error> {
    by_request(cx, Action::CreateKinds, async |conn, change| add(conn, change, new).await).await
}

/// Creates an association kind, and returns its number.
pub async fn add(
    conn: &mut PgConnection, change: &Change<'_>, new: &NewKind,
) -> Result<i64, Error> {
    let find = db::association_kind::is_key_taken(conn, change.tenant, &new.key);
    let (is_key_taken, tenant_id, version) = find.await?;
    change.require_version(version)?;
    new.decide(is_key_taken)?;
    let tenant_id = change.require_tenant(conn, tenant_id).await?;
    let insert = db::association_kind::insert(conn, version, change.author, tenant_id, new);
    insert.await?.ok_or(Error::Stale)
}

/// Changes the texts of the tenant's association kind with a number. If there is none, nothing
/// happens.
pub async fn update(cx: &RequestContext<'_>, number: i64, texts: &KindTexts) -> Result<(), Error> {
    by_request(cx, Action::EditKinds, async |conn, change| {
        let (found, version) = db::association_kind::find_use(conn, change.tenant, number).await?;
        change.require_version(version)?;
        let Some((id, _)) = found else { return Ok(()) };
        change.require_time()?;
        let update = db::association_kind::update(conn, version, change.author, id, texts);
        if update.await? { Ok(()) } else { Err(Error::Stale) }
    })
    .await
}

/// Deletes the tenant's association kind with a number for a request. If there is none, nothing
/// happens.
pub async fn delete(cx: &RequestContext<'_>, number: i64) -> Result<bool, Error> {
    by_request(cx, Action::DeleteKinds, async |conn, change| remove(conn, change, number).await)
        .await
}

/// Deletes the tenant's association kind with a number. Returns whether there was one.
pub async fn remove(
    conn: &mut PgConnection, change: &Change<'_>, number: i64,
) -> Result<bool, Error> {
    let (found, version) = db::association_kind::find_use(conn, change.tenant, number).await?;
    change.require_version(version)?;
    let Some((id, found)) = found else { return Ok(false) };
    found.decide()?;
    change.require_time()?;
    let is_deleted = db::association_kind::delete(conn, version, change.author, id).await?;
    if is_deleted { Ok(true) } else { Err(Error::Stale) }
}
