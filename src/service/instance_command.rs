//! Instances for commands: to list, to add and to remove them.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::Error;
use super::change::by_command;
use super::instance::{self, CreatedInstances, own_instances};
use crate::db;
use crate::db::instance_list::ListPart;
pub use crate::db::instance_list::ListedInstance;
use crate::db::model::Model;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::domain::instance::{Attributes, HOST};
use crate::domain::keys::Tenant;
use crate::domain::model::BUILT_IN_MODELS;

/// The most instances of a page of a list.
const PAGE_SIZE: i64 = 500;

/// Finds a model that the tenant sees. Refuses a built-in model other than hosts.
pub async fn find_model(
    conn: &mut PgConnection, tenant: &Tenant, key: &str,
) -> Result<Option<Model>, Error> {
    if BUILT_IN_MODELS.contains(&key) && key != HOST {
        return Err(ChangeError::BuiltInInstance.into());
    }
    Ok(db::model::find(conn, key, tenant).await?)
}

async fn require_model(
    conn: &mut PgConnection, tenant: &Tenant, key: &str,
) -> Result<Model, Error> {
    Ok(find_model(conn, tenant, key).await?.ok_or(ChangeError::UnknownModel)?)
}

/// The next of the tenant's instances of a model, in the order of their ids: those after an id, or
/// the first ones. None if there are no more.
pub async fn list_page(
    conn: &mut PgConnection, tenant: &Tenant, model: &Model, after: Option<i64>,
    with_documents: bool,
) -> Result<Vec<ListedInstance>, Error> {
    let Some(tenant) = db::tenant::find(conn, tenant).await? else { return Ok(Vec::new()) };
    let after = after.unwrap_or(i64::MIN);
    let part = ListPart { model_id: model.id, tenant_id: tenant.id, after, limit: PAGE_SIZE };
    Ok(db::instance_list::list(conn, part, with_documents).await?)
}

/// Creates instances of a model, as if they were created one after another, in one commit.
pub async fn add(
    conn: &mut PgConnection, tenant: &Tenant, model: &str, instances: &[Attributes],
) -> Result<CreatedInstances, Error> {
    by_command(conn, tenant, async |conn, change| {
        let model = require_model(conn, tenant, model).await?;
        instance::add(conn, change, &model, instances).await
    })
    .await
}

/// Deletes those of the tenant's instances of a model that are not linked, in one commit. Returns
/// the ids of the others, and why they were not deleted, in the order in which they were given.
pub async fn remove(
    conn: &mut PgConnection, tenant: &Tenant, model: &str, ids: &[i64],
) -> Result<Vec<(i64, ChangeError)>, Error> {
    by_command(conn, tenant, async |conn, change| {
        let model = require_model(conn, tenant, model).await?;
        let mut uses = HashMap::new();
        if let Some(tenant) = db::tenant::find(conn, tenant).await? {
            let of = own_instances(change, &model, tenant.id);
            let existing = db::instance::find_existing(conn, of, ids).await?;
            uses.extend(existing.ids.into_iter().map(|id| (id, false)));
            uses.extend(existing.linked_ids.into_iter().map(|id| (id, true)));
        }
        let (mut unlinked, mut others) = (Vec::new(), Vec::new());
        for id in ids {
            // The second of two equal ids finds nothing, as if it were alone.
            match uses.remove(id) {
                Some(false) => unlinked.push(*id),
                Some(true) => others.push((*id, ChangeError::LinkedInstance)),
                None => others.push((*id, ChangeError::UnknownInstance)),
            }
        }
        if unlinked.is_empty() {
            return Ok(others);
        }
        match instance::remove(conn, change, &model, &unlinked).await {
            // Others have created a link, or deleted all of them, since they were found.
            Ok(0) | Err(Error::Refused(RequestError::Change(ChangeError::LinkedInstance))) => {
                Err(Error::Conflict)
            }
            result => result.map(|_| others),
        }
    })
    .await
}
