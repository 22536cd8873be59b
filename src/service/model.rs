//! Models: to find, create, change and delete them.

use sqlx::PgConnection;

use super::change::{Change, by_request};
use super::context::RequestContext;
use super::link_search::too_expensive;
use super::permission::viewable_models;
use super::{Error, with_connection};
use crate::db;
pub use crate::db::model::{StoredModel, find_number, list};
use crate::domain::condition::{Condition, ModelField};
use crate::domain::error::RequestError;
use crate::domain::model::{ModelChange, NewModel};
use crate::domain::permission::{Action, MissingPermission};

/// Finds the models that satisfy a condition. The user must be allowed to view all of them.
pub async fn find(
    cx: &RequestContext<'_>, condition: &Condition<ModelField>,
) -> Result<Vec<StoredModel>, Error> {
    let viewable = viewable_models(cx).await?;
    let list = async |conn: &mut PgConnection| Ok(list(conn, &cx.tenant, condition).await?);
    let found = with_connection(&cx.service.pool, cx.deadline, list).await;
    let found = found.map_err(too_expensive)?;
    let missing: Vec<_> = found
        .iter()
        .filter(|model| !viewable.contain(model.id))
        .map(|model| MissingPermission {
            action: Action::ViewModel,
            model: model.key.clone(),
            model_name: model.name.clone(),
            model_number: model.number,
            ..MissingPermission::default()
        })
        .collect();
    if missing.is_empty() { Ok(found) } else { Err(RequestError::PermissionDenied(missing).into()) }
}

/// Creates a model for a request, and returns its number.
pub async fn create(cx: &RequestContext<'_>, new: &NewModel) -> Result<i64, Error> {
    by_request(cx, Action::CreateModels, async |conn, change| add(conn, change, new).await).await
}

/// Creates a model that was checked, and returns its number.
pub async fn add(
    conn: &mut PgConnection, change: &Change<'_>, new: &NewModel,
) -> Result<i64, Error> {
    let (state, tenant_id, version) =
        db::model::find_state_for_new(conn, change.tenant, new).await?;
    change.require_version(version)?;
    new.decide(change.tenant, state)?;
    let tenant_id = change.require_tenant(conn, tenant_id).await?;
    let number = db::model::insert(conn, version, change.author, tenant_id, new).await?;
    number.ok_or(Error::Stale)
}

/// Changes the tenant's model with a number.
pub async fn update(
    cx: &RequestContext<'_>, number: i64, wanted: &ModelChange,
) -> Result<(), Error> {
    by_request(cx, Action::EditModels, async |conn, change| {
        let (state, id, version) =
            db::model::find_state_for_change(conn, change.tenant, number, wanted).await?;
        change.require_version(version)?;
        wanted.decide(id.is_some(), state)?;
        let Some(id) = id.filter(|_| *wanted != ModelChange::default()) else { return Ok(()) };
        change.require_time()?;
        let is_updated = db::model::update(conn, version, change.author, id, wanted).await?;
        if is_updated { Ok(()) } else { Err(Error::Stale) }
    })
    .await
}

/// Deletes the tenant's model with a number for a request. If there is none, nothing happens.
pub async fn delete(cx: &RequestContext<'_>, number: i64) -> Result<bool, Error> {
    by_request(cx, Action::DeleteModels, async |conn, change| remove(conn, change, number).await)
        .await
}

/// Deletes the tenant's model with a number. Returns whether there was one.
pub async fn remove(
    conn: &mut PgConnection, change: &Change<'_>, number: i64,
) -> Result<bool, Error> {
    let (found, version) = db::model::find_use(conn, change.tenant, number).await?;
    change.require_version(version)?;
    let Some((id, found)) = found else { return Ok(false) };
    found.decide()?;
    change.require_time()?;
    let is_deleted = db::model::delete(conn, version, change.author, id).await?;
    if is_deleted { Ok(true) } else { Err(Error::Stale) }
}
