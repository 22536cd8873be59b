//! Permissions: authorizing requests, and granting and revoking.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::PgConnection;

use super::Error;
use super::context::RequestContext;
use crate::db;
use crate::db::model::Model;
use crate::db::model_association::ModelAssociation;
use crate::db::permission::UserPermissions;
pub use crate::db::permission::list;
use crate::domain::batch::{Detail, StoredState};
use crate::domain::error::RequestError;
use crate::domain::keys::{KEY_LIMIT, is_valid_name};
use crate::domain::permission::{Action, Authorization, MissingPermission, Scope};

/// The instances of a batch that its user was authorized to edit.
pub(super) enum AuthorizedInstances {
    /// Every instance of both models.
    All,
    /// These instances. The other instances of the batch did not exist when it was authorized.
    Only {
        /// The ids of source instances.
        sources: HashSet<i64>,
        /// The ids of target instances.
        targets: HashSet<i64>,
    },
}

/// The user's permissions; `None` if permissions are not checked.
pub(super) async fn user_permissions(
    cx: &RequestContext<'_>,
) -> Result<Option<Arc<UserPermissions>>, Error> {
    match cx.service.authorization {
        Authorization::Grants => cx.lookups.permissions(&cx.caller.user).await.map(Some),
        Authorization::Off => Ok(None),
    }
}

/// Authorizes a user with these permissions to edit every existing instance of a batch, or refuses
/// the batch.
pub(super) async fn authorize_edit(
    conn: &mut PgConnection, cx: &RequestContext<'_>, permissions: Option<&UserPermissions>,
    association: &ModelAssociation, tenant_id: Option<i32>, details: &[Detail],
) -> Result<AuthorizedInstances, Error> {
    let ModelAssociation { source_model_id, target_model_id, .. } = *association;
    let models = [source_model_id, target_model_id];
    let Some(permissions) =
        permissions.filter(|user| !models.iter().all(|model| user.may_edit_all_of(*model)))
    else {
        return Ok(AuthorizedInstances::All);
    };
    let sources: Vec<i64> = details.iter().filter_map(|detail| detail.source).collect();
    let targets: Vec<i64> = details.iter().filter_map(|detail| detail.target).collect();
    let user = &cx.caller.user;
    let list = db::permission::list_instance_access;
    let existing =
        list(conn, user, permissions, association, tenant_id, &sources, &targets).await?;
    let missing: Vec<_> = existing.iter().filter_map(|access| access.missing.clone()).collect();
    if !missing.is_empty() {
        return Err(RequestError::PermissionDenied(missing).into());
    }
    let ids_of = |model_id| {
        let of_model = existing.iter().filter(|access| access.model_id == model_id);
        of_model.map(|access| access.instance_id).collect()
    };
    let (sources, targets) = (ids_of(source_model_id), ids_of(target_model_id));
    Ok(AuthorizedInstances::Only { sources, targets })
}

/// Authorizes the user to view the instances and links of the model with this key, or refuses the
/// request. Returns `None` if there is no such model.
pub async fn authorize_view(
    cx: &RequestContext<'_>, key: &str,
) -> Result<Option<Arc<Model>>, Error> {
    let Some(model) = cx.lookups.model(key, &cx.tenant).await? else { return Ok(None) };
    authorize_view_all(cx, Action::ViewInstances, [&*model]).await?;
    Ok(Some(model))
}

/// Authorizes the user to view all these models, or refuses the request and lists each model for
/// which the permission is missing, once and in the given order.
pub async fn authorize_view_all(
    cx: &RequestContext<'_>, action: Action, models: impl IntoIterator<Item = &Model>,
) -> Result<(), Error> {
    let viewable = viewable_models(cx).await?;
    let mut listed = HashSet::new();
    let missing: Vec<_> = models
        .into_iter()
        .filter(|model| !viewable.contain(model.id) && listed.insert(model.id))
        .map(|model| MissingPermission {
            action,
            model: model.key.clone(),
            model_name: model.name.clone(),
            model_number: model.number,
            ..MissingPermission::default()
        })
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(RequestError::PermissionDenied(missing).into()) }
}

/// The models that a user may view.
pub struct ViewableModels(Option<Arc<UserPermissions>>);

impl ViewableModels {
    /// Whether the user may view the model with this surrogate key.
    pub fn contain(&self, model_id: i32) -> bool {
        self.0.as_ref().is_none_or(|permissions| permissions.may_view(model_id))
    }
}

/// The models that the user may view, to leave the others out of a list.
pub async fn viewable_models(cx: &RequestContext<'_>) -> Result<ViewableModels, Error> {
    user_permissions(cx).await.map(ViewableModels)
}

impl AuthorizedInstances {
    /// Whether every instance of the details was authorized.
    pub(super) fn cover(&self, details: &[Detail]) -> bool {
        self.cover_existing(details, &vec![StoredState::default(); details.len()])
    }

    /// Whether every instance that exists now was authorized. For a pair that is linked already the
    /// database does not look up the instances, and the detail is refused anyway.
    pub(super) fn cover_existing(&self, details: &[Detail], stored: &[StoredState]) -> bool {
        let Self::Only { sources, targets } = self else { return true };
        details.iter().zip(stored).all(|(detail, stored)| {
            let is_linked = detail.source.is_some()
                && stored.source_of_target.map(|end| end.instance_id) == detail.source;
            is_linked
                || (stored.source_missing || contains(sources, detail.source))
                    && (stored.target_missing || contains(targets, detail.target))
        })
    }
}

fn contains(ids: &HashSet<i64>, id: Option<i64>) -> bool {
    id.is_some_and(|id| ids.contains(&id))
}

/// Why grants cannot be changed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum GrantError {
    #[error("there is no such model")]
    UnknownModel,
    #[error("a user's name has 1 to {KEY_LIMIT} characters, none of them a control character")]
    InvalidUser,
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Grants a user permissions; existing grants stay.
pub async fn add(conn: &mut PgConnection, user: &str, scopes: &[Scope]) -> Result<(), GrantError> {
    if !is_valid_name(user) {
        return Err(GrantError::InvalidUser);
    }
    if db::permission::insert(conn, user, scopes).await? {
        Ok(())
    } else {
        Err(GrantError::UnknownModel)
    }
}

/// Revokes exactly these grants and returns whether there were any.
pub async fn remove(
    conn: &mut PgConnection, user: &str, scopes: &[Scope],
) -> Result<bool, GrantError> {
    Ok(db::permission::delete(conn, user, scopes).await? > 0)
}
