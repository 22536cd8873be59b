//! Instances: to create, change and delete them, by requests and commands.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::PgConnection;

use super::change::Change;
use super::context::RequestContext;
use super::permission::user_permissions;
use super::{Error, with_connection};
use crate::db;
pub use crate::db::instance::CreatedInstance;
use crate::db::instance::{NewInstances, OwnInstances};
use crate::db::instance_change::InstanceChanges;
use crate::db::instance_name::WantedName;
use crate::db::model::Model;
use crate::db::permission::UserPermissions;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::domain::instance::{
    Attributes, CloudArea, HOST, STORED_DOCUMENT_LIMIT, document_too_large,
};
use crate::domain::permission::{Action, MissingPermission};

/// What became of each instance of a batch.
pub type CreatedInstances = Vec<Result<CreatedInstance, RequestError>>;

/// Creates an instance of a model for a request. Refuses it if the model is out of use.
pub async fn create_one(
    cx: &RequestContext<'_>, model: &str, instance: &Attributes,
) -> Result<CreatedInstance, Error> {
    let model = require_model(cx, model).await?;
    if model.is_paused {
        return Err(ChangeError::PausedModel.into());
    }
    let mut created = create_of(cx, &model, std::slice::from_ref(instance)).await?;
    Ok(created.pop().unwrap_or(Err(RequestError::Internal))?)
}

/// Creates instances of a model for a request, as if they were created one after another, in one
/// commit.
pub async fn create(
    cx: &RequestContext<'_>, model: &str, instances: &[Attributes],
) -> Result<CreatedInstances, Error> {
    create_of(cx, &*require_model(cx, model).await?, instances).await
}

async fn require_model(cx: &RequestContext<'_>, key: &str) -> Result<Arc<Model>, Error> {
    let unknown = RequestError::MissingField("bk_obj_id".into());
    Ok(cx.lookups.model(key, &cx.tenant).await?.ok_or(unknown)?)
}

async fn create_of(
    cx: &RequestContext<'_>, model: &Model, instances: &[Attributes],
) -> Result<CreatedInstances, Error> {
    authorize(cx, UserPermissions::may_create, Action::CreateInstances, model).await?;
    let change = Change::of_request(cx);
    let work = async |conn: &mut PgConnection| add(conn, &change, model, instances).await;
    let created = with_connection(&cx.service.pool, cx.deadline, work).await?;
    // Only the statement that creates some has found the version current.
    if created.iter().any(Result::is_ok) {
        cx.lookups.set_changed();
    }
    Ok(created)
}

/// Creates instances of a model, as if they were created one after another, in one commit.
pub async fn add(
    conn: &mut PgConnection, change: &Change<'_>, model: &Model, instances: &[Attributes],
) -> Result<CreatedInstances, Error> {
    let mut results: Vec<_> =
        instances.iter().map(|new| new.require_name(&model.key).map(|name| (name, None))).collect();
    if results.iter().all(Result::is_err) {
        return Ok(results.into_iter().filter_map(Result::err).map(Err).collect());
    }
    let tenant = db::tenant::find(conn, change.tenant).await?;
    let tenant_id = change.require_tenant(conn, tenant.map(|tenant| tenant.id)).await?;
    let of = own_instances(change, model, tenant_id);
    let areas = find_unknown_areas(conn, of, instances).await?;
    for (index, (result, new)) in results.iter_mut().zip(instances).enumerate() {
        if let (Ok((name, _)), Some(CloudArea::Id(area))) = (&result, new.cloud_area)
            && areas.contains(&area)
        {
            let address = name.unwrap_or_default().to_owned();
            *result = Err(ChangeError::UnknownCloudArea { index, address }.into());
        }
    }
    let accepted = |results: &[Result<_, _>]| {
        let accepted = instances.iter().zip(results).filter(|(_, result)| result.is_ok());
        accepted.map(|(new, _)| new.json()).collect::<Vec<_>>()
    };
    let documents = accepted(&results);
    let mut wanted = db::instance_name::find(conn, of, &documents).await?.into_iter();
    let mut seen = HashSet::new();
    for result in &mut results {
        if let Ok((_, unique_name)) = result {
            let WantedName { unique_name: wanted, is_taken, size } =
                wanted.next().ok_or(RequestError::Internal)?;
            match wanted {
                _ if size > STORED_DOCUMENT_LIMIT => *result = Err(document_too_large()),
                Some(name) if is_taken || !seen.insert(name.clone()) => {
                    *result = Err(same_name(model, &name));
                }
                wanted => *unique_name = wanted,
            }
        }
    }
    let documents = accepted(&results);
    let names = results.iter().flatten().cloned();
    let (names, unique_names): (Vec<_>, Vec<_>) =
        names.map(|(name, unique_name)| (name.map(str::to_owned), unique_name)).unzip();
    let mut created = Vec::new();
    if !names.is_empty() {
        let new =
            NewInstances { of, names: &names, unique_names: &unique_names, documents: &documents };
        created = db::instance::insert(conn, model.version, change.author, &new).await?;
        if created.len() != names.len() {
            return Err(Error::Stale);
        }
    }
    let mut created = created.into_iter();
    let outcome = |result: Result<_, RequestError>| {
        result.and_then(|_| created.next().ok_or(RequestError::Internal))
    };
    Ok(results.into_iter().map(outcome).collect())
}

/// Changes the tenant's instances of a model for a request, in one commit. Refuses the request if
/// one of them does not exist. The ids are distinct.
pub async fn update(
    cx: &RequestContext<'_>, model: &str, changes: &[(i64, Attributes)],
) -> Result<(), Error> {
    let unknown = || Error::from(ChangeError::UnknownInstance);
    if changes.is_empty() {
        return Ok(());
    }
    let model = cx.lookups.model(model, &cx.tenant).await?.ok_or_else(unknown)?;
    let tenant_id = cx.lookups.tenant_id(&cx.tenant).await?.ok_or_else(unknown)?;
    let permissions = user_permissions(cx).await?;
    let change = Change::of_request(cx);
    let ids: Vec<_> = changes.iter().map(|(id, _)| *id).collect();
    with_connection(&cx.service.pool, cx.deadline, async |conn| {
        let of = own_instances(&change, &model, tenant_id);
        // An instance that is created after this has not been authorized.
        let existing = db::instance::find_existing(conn, of, &ids).await?;
        change.require_version(existing.version)?;
        if permissions.as_ref().is_some_and(|user| !user.may_edit_all_of(model.id)) {
            let user = &cx.caller.user;
            let missing = db::instance::list_not_editable(conn, of, user, &ids).await?;
            if !missing.is_empty() {
                return Err(RequestError::PermissionDenied(missing).into());
            }
        }
        if existing.ids.len() != ids.len() {
            return Err(unknown());
        }
        for (_, new) in changes {
            new.check_change()?;
        }
        let new = changes.iter().map(|(_, new)| new);
        if !find_unknown_areas(conn, of, new).await?.is_empty() {
            return Err(RequestError::InvalidField("bk_cloud_id".into()).into());
        }
        let documents: Vec<_> = changes.iter().map(|(_, new)| new.json()).collect();
        let new_name = |(_, new): &(i64, Attributes)| new.name.clone().and_then(Result::ok);
        let names: Vec<_> = changes.iter().map(new_name).collect();
        let changes = InstanceChanges { of, ids: &ids, documents: &documents, names: &names };
        let mut seen = HashSet::new();
        for new in db::instance_change::preview(conn, &changes).await? {
            if new.size > STORED_DOCUMENT_LIMIT {
                return Err(document_too_large().into());
            }
            if let Some(name) = new.unique_name
                && (new.is_taken || !seen.insert(name.clone()))
            {
                return Err(same_name(&model, &name).into());
            }
        }
        change.require_time()?;
        let updated =
            db::instance_change::update(conn, existing.version, change.author, &changes).await?;
        if usize::try_from(updated) == Ok(ids.len()) { Ok(()) } else { Err(Error::Conflict) }
    })
    .await?;
    cx.lookups.set_changed();
    Ok(())
}

/// Deletes the tenant's instances of a model for a request, in one commit, and returns how many
/// there were. Refuses the request if one of them is linked.
pub async fn delete(cx: &RequestContext<'_>, model: &str, ids: &[i64]) -> Result<i64, Error> {
    let Some(model) = cx.lookups.model(model, &cx.tenant).await? else { return Ok(0) };
    if cx.lookups.tenant_id(&cx.tenant).await?.is_none() {
        return Ok(0);
    }
    authorize(cx, UserPermissions::may_delete, Action::DeleteInstances, &model).await?;
    let change = Change::of_request(cx);
    // It makes stale what other requests have looked up.
    let _lock = cx.lookups.lock_for_change().await?;
    let work = async |conn: &mut PgConnection| remove(conn, &change, &model, ids).await;
    let deleted = with_connection(&cx.service.pool, cx.deadline, work).await?;
    cx.lookups.set_changed();
    Ok(deleted)
}

/// Deletes the tenant's instances of a model, in one commit, and returns how many there were.
pub async fn remove(
    conn: &mut PgConnection, change: &Change<'_>, model: &Model, ids: &[i64],
) -> Result<i64, Error> {
    let Some(tenant) = db::tenant::find(conn, change.tenant).await? else { return Ok(0) };
    let of = own_instances(change, model, tenant.id);
    let existing = db::instance::find_existing(conn, of, ids).await?;
    change.require_version(existing.version)?;
    if !existing.linked_ids.is_empty() {
        return Err(ChangeError::LinkedInstance.into());
    }
    if existing.ids.is_empty() {
        return Ok(0);
    }
    change.require_time()?;
    let deleted =
        db::instance::delete(conn, existing.version, change.author, of, &existing.ids).await?;
    // Another transaction may have deleted some of them.
    if deleted == 0 { Err(Error::Stale) } else { Ok(deleted) }
}

/// Refuses a request whose user may not create, or not delete, instances of the model.
async fn authorize(
    cx: &RequestContext<'_>, may: fn(&UserPermissions, i32) -> bool, action: Action, model: &Model,
) -> Result<(), Error> {
    let permissions = user_permissions(cx).await?;
    if permissions.is_none_or(|user| may(&user, model.id)) {
        return Ok(());
    }
    let missing = MissingPermission {
        action,
        model: model.key.clone(),
        model_name: model.name.clone(),
        model_number: model.number,
        ..MissingPermission::default()
    };
    Err(RequestError::PermissionDenied(vec![missing]).into())
}

/// The ids of cloud areas of hosts that are of none.
async fn find_unknown_areas(
    conn: &mut PgConnection, of: OwnInstances<'_>, instances: impl IntoIterator<Item = &Attributes>,
) -> Result<HashSet<i64>, Error> {
    let areas = instances.into_iter().filter_map(|new| match new.cloud_area {
        Some(CloudArea::Id(id)) => Some(id),
        Some(CloudArea::Invalid) | None => None,
    });
    let areas: HashSet<_> = areas.collect();
    if areas.is_empty() {
        return Ok(areas);
    }
    let areas: Vec<_> = areas.into_iter().collect();
    let unknown = db::instance_name::list_unknown_areas(conn, of.tenant_id, &areas).await?;
    Ok(unknown.into_iter().collect())
}

/// The refusal of a name that another instance of the tenant and model has. Of a host it is the
/// cloud area and the address.
fn same_name(model: &Model, name: &str) -> RequestError {
    let text = |text: &str| serde_json::Value::from(text);
    let shown = match name.split_once(':').filter(|_| model.key == HOST) {
        Some((area, address)) => {
            format!(" bk_host_innerip: {}, bk_cloud_id: {area} ", text(address))
        }
        None => format!(" bk_inst_name: {} ", text(name)),
    };
    let problem = "another instance of the model has the name";
    ChangeError::Duplicate { shown: shown.into(), problem }.into()
}

/// The tenant's instances of a model.
pub(super) fn own_instances<'a>(
    change: &'a Change<'_>, model: &'a Model, tenant_id: i32,
) -> OwnInstances<'a> {
    OwnInstances {
        model_id: model.id,
        model: &model.key,
        tenant_id,
        tenant: change.tenant.as_str(),
    }
}
