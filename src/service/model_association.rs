//! Model associations: to find, create, rename and delete them.

use sqlx::PgConnection;

use super::change::{Change, by_request};
use super::context::RequestContext;
use super::link_search::too_expensive;
use super::permission::{authorize_view_all, viewable_models};
use super::{Error, with_connection};
use crate::db;
pub use crate::db::model_association::{StoredModelAssociation, list};
pub use crate::db::model_association_change::find_number;
use crate::domain::association::NewModelAssociation;
use crate::domain::change_error::ChangeError;
use crate::domain::condition::{Condition, ModelAssociationField, Test};
use crate::domain::error::RequestError;
use crate::domain::keys::{KEY_LIMIT, is_valid_key};
use crate::domain::permission::Action;

/// Finds the model associations that satisfy a condition. If the condition names a model, the user
/// must be allowed to view it. Otherwise those are left out of which the user may view no end.
pub async fn find(
    cx: &RequestContext<'_>, condition: &Condition<ModelAssociationField>,
    named_model: Option<&str>,
) -> Result<Vec<StoredModelAssociation>, Error> {
    let model = match named_model {
        Some(key) => cx.lookups.model(key, &cx.tenant).await?,
        None => None,
    };
    let is_authorized = model.is_some();
    if let Some(model) = model {
        authorize_view_all(cx, Action::ViewModel, [&*model]).await?;
    }
    let list = async |conn: &mut PgConnection| Ok(list(conn, &cx.tenant, condition).await?);
    let found = with_connection(&cx.service.pool, cx.deadline, list).await;
    let mut found = found.map_err(too_expensive)?;
    if !is_authorized {
        let viewable = viewable_models(cx).await?;
        found.retain(|association| {
            let ends = [association.source_model_id, association.target_model_id];
            ends.iter().any(|model| viewable.contain(*model))
        });
    }
    Ok(found)
}

/// Finds the model associations of these kinds, in the order of their ids. Those are left out of
/// which the user may view no end.
pub async fn find_of_kinds(
    cx: &RequestContext<'_>, kinds: &[String],
) -> Result<Vec<StoredModelAssociation>, Error> {
    let is_valid = |key: &&String| is_valid_key(key, KEY_LIMIT);
    let kinds: Vec<_> = kinds.iter().filter(is_valid).cloned().collect();
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    find(cx, &Condition::Test(ModelAssociationField::Kind, Test::TextIn(kinds)), None).await
}

/// Creates a model association for a request, and returns its number.
pub async fn create(cx: &RequestContext<'_>, new: &NewModelAssociation) -> Result<i64, Error> {
    by_request(cx, Action::EditModels, async |conn, change| add(conn, change, new).await).await
}

/// Creates a model association that was checked, and returns its number.
pub async fn add(
    conn: &mut PgConnection, change: &Change<'_>, new: &NewModelAssociation,
) -> Result<i64, Error> {
    let find = db::model_association_change::find_state_for_new(conn, change.tenant, new);
    let (state, tenant_id, version) = find.await?;
    change.require_version(version)?;
    let ends = new.decide(state)?;
    let tenant_id = change.require_tenant(conn, tenant_id).await?;
    let author = change.author;
    let insert = db::model_association_change::insert(conn, version, author, tenant_id, ends, new);
    insert.await?.ok_or(Error::Stale)
}

/// Changes the name of the tenant's model association with a number; `None` changes nothing.
pub async fn rename(cx: &RequestContext<'_>, number: i64, name: Option<&str>) -> Result<(), Error> {
    by_request(cx, Action::EditModels, async |conn, change| {
        let find = db::model_association_change::find_use(conn, change.tenant, number);
        let (found, version) = find.await?;
        change.require_version(version)?;
        let (id, found) = found.ok_or(RequestError::UnknownModelAssociation)?;
        if found.is_predefined {
            return Err(ChangeError::PredefinedAssociation { is_deletion: false }.into());
        }
        let Some(name) = name else { return Ok(()) };
        change.require_time()?;
        let author = change.author;
        let rename = db::model_association_change::rename(conn, version, author, id, name);
        if rename.await? { Ok(()) } else { Err(Error::Stale) }
    })
    .await
}

/// Deletes the tenant's model association with a number for a request. If there is none, nothing
/// happens.
pub async fn delete(cx: &RequestContext<'_>, number: i64) -> Result<bool, Error> {
    by_request(cx, Action::EditModels, async |conn, change| remove(conn, change, number).await)
        .await
}

/// Deletes the tenant's model association with a number. Returns whether there was one.
pub async fn remove(
    conn: &mut PgConnection, change: &Change<'_>, number: i64,
) -> Result<bool, Error> {
    let find = db::model_association_change::find_use(conn, change.tenant, number);
    let (found, version) = find.await?;
    change.require_version(version)?;
    let Some((id, found)) = found else { return Ok(false) };
    found.decide()?;
    change.require_time()?;
    let is_deleted = db::model_association_change::delete(conn, version, change.author, id).await?;
    if is_deleted { Ok(true) } else { Err(Error::Stale) }
}
