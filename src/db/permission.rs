//! What users may do: lookups for the authorization of a request, and the grants themselves.

use sqlx::PgConnection;

use super::cache_version::CacheVersion;
use super::model_association::ModelAssociation;
use crate::domain::permission::{Action, GrantAction, MissingPermission, Scope};

/// What a user may do with whole models and all of their instances.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are columns of a row")]
pub struct UserPermissions {
    /// The cache version when they were read.
    pub version: CacheVersion,
    /// Whether the user may edit all instances of all models, those of the future included.
    pub may_edit_all_models: bool,
    /// The surrogate keys of the models that are granted one by one to edit.
    pub editable_model_ids: Vec<i32>,
    /// Whether the user may view all models, those of the future included.
    pub may_view_all_models: bool,
    /// The surrogate keys of the models that are granted one by one to edit or to view.
    pub viewable_model_ids: Vec<i32>,
    /// Whether the user may create, change and delete models, association kinds and model
    /// associations.
    pub may_change_models: bool,
    /// Whether the user may create instances of all models, those of the future included.
    pub may_create_all: bool,
    /// The surrogate keys of the models that are granted one by one to create instances of.
    pub creatable_model_ids: Vec<i32>,
    /// Whether the user may delete instances of all models, those of the future included.
    pub may_delete_all: bool,
    /// The surrogate keys of the models that are granted one by one to delete instances of.
    pub deletable_model_ids: Vec<i32>,
}

impl UserPermissions {
    /// Whether the user may edit every instance of the model.
    pub fn may_edit_all_of(&self, model_id: i32) -> bool {
        self.may_edit_all_models || self.editable_model_ids.contains(&model_id)
    }

    /// Whether the user may create instances of the model.
    pub fn may_create(&self, model_id: i32) -> bool {
        self.may_create_all || self.creatable_model_ids.contains(&model_id)
    }

    /// Whether the user may delete instances of the model.
    pub fn may_delete(&self, model_id: i32) -> bool {
        self.may_delete_all || self.deletable_model_ids.contains(&model_id)
    }

    /// Whether the user may view the model with its instances and links.
    pub fn may_view(&self, model_id: i32) -> bool {
        self.may_view_all_models || self.viewable_model_ids.contains(&model_id)
    }
}

/// An instance that a batch refers to.
pub struct InstanceAccess {
    /// The surrogate key of its model.
    pub model_id: i32,
    /// Its id.
    pub instance_id: i64,
    /// The permission to edit it, if the user lacks it.
    pub missing: Option<MissingPermission>,
}

/// A grant as it is listed.
pub struct Grant {
    /// The user's name.
    pub user: String,
    /// What the user may do.
    pub action: GrantAction,
    /// The key of the model; `None`: every model.
    pub model: Option<String>,
    /// The id of the instance; `None`: every instance.
    pub instance: Option<i64>,
}

/// Finds the models of which a user may edit every instance, and those that the user may view.
#[tracing::instrument(skip_all, name = "db.permission.find")]
pub async fn find(conn: &mut PgConnection, user: &str) -> sqlx::Result<UserPermissions> {
    let permissions = sqlx::query_as!(
        UserPermissions,
        r#"select version as "version: CacheVersion",
               exists (
                   select from cmdb.permission_grant
                   where user_name = $1 and model_id is null and action = 'edit'
               ) as "may_edit_all_models!",
               array(
                   select model_id from cmdb.permission_grant
                   where user_name = $1 and model_id is not null and instance_id is null
                       and action = 'edit'
               ) as "editable_model_ids!",
               exists (
                   select from cmdb.permission_grant
                   where user_name = $1 and model_id is null and action in ('edit', 'view')
               ) as "may_view_all_models!",
               array(
                   select distinct model_id from cmdb.permission_grant
                   where user_name = $1 and model_id is not null and instance_id is null
                       and action in ('edit', 'view')
               ) as "viewable_model_ids!",
               exists (
                   select from cmdb.permission_grant where user_name = $1 and action = 'models'
               ) as "may_change_models!",
               exists (
                   select from cmdb.permission_grant
                   where user_name = $1 and model_id is null and action = 'create'
               ) as "may_create_all!",
               array(
                   select model_id from cmdb.permission_grant
                   where user_name = $1 and model_id is not null and action = 'create'
               ) as "creatable_model_ids!",
               exists (
                   select from cmdb.permission_grant
                   where user_name = $1 and model_id is null and action = 'delete'
               ) as "may_delete_all!",
               array(
                   select model_id from cmdb.permission_grant
                   where user_name = $1 and model_id is not null and action = 'delete'
               ) as "deletable_model_ids!"
           from cmdb.cache_version"#,
        user,
    );
    permissions.fetch_one(conn).await
}

/// The instances among the given ids that the tenant sees, sources first, in order of their ids,
/// with the user's access to each.
#[tracing::instrument(skip_all, name = "db.permission.list_instance_access")]
pub async fn list_instance_access(
    conn: &mut PgConnection, user: &str, permissions: &UserPermissions,
    association: &ModelAssociation, tenant_id: Option<i32>, source_ids: &[i64], target_ids: &[i64],
) -> sqlx::Result<Vec<InstanceAccess>> {
    let rows = sqlx::query!(
        // OFFSET 0 keeps PostgreSQL from joining instances in another way than by one search for
        // each of them.
        r#"select model.id as model_id, model.key, model.name as model_name,
               number as "model_number!",
               instance.instance_id, instance.name,
               wanted.may_edit_all or exists (
                   select from cmdb.permission_grant
                   where user_name = $1 and permission_grant.model_id = wanted.model_id
                       and permission_grant.instance_id = wanted.id
                       and action = 'edit') as "may_edit!"
           from (
               select $2::integer as model_id, id, $4::boolean as may_edit_all, 0 as side
               from unnest($3::bigint[]) id
               union
               select $5::integer, id, $7::boolean, case when $2 = $5 then 0 else 1 end
               from unnest($6::bigint[]) id
           ) wanted
           cross join lateral (
               select instance_id, name, tenant_id from cmdb.instance
               where model_id = wanted.model_id and instance_id = wanted.id
               offset 0
           ) instance
           join cmdb.model on model.id = wanted.model_id
           where instance.tenant_id = $8 or instance.tenant_id = 0 and model.is_built_in
           order by side, instance_id"#,
        user,
        association.source_model_id,
        source_ids,
        permissions.may_edit_all_of(association.source_model_id),
        association.target_model_id,
        target_ids,
        permissions.may_edit_all_of(association.target_model_id),
        tenant_id,
    )
    .fetch_all(conn)
    .await?;
    let access = rows.into_iter().map(|row| InstanceAccess {
        model_id: row.model_id,
        instance_id: row.instance_id,
        missing: (!row.may_edit).then_some(MissingPermission {
            action: Action::EditInstances,
            model: row.key,
            model_name: row.model_name,
            model_number: row.model_number,
            instance_id: Some(row.instance_id),
            instance_name: row.name,
        }),
    });
    Ok(access.collect())
}

/// Adds grants to a user, ignoring those that exist. Returns `false`, with nothing added, if a
/// model is unknown.
pub async fn insert(conn: &mut PgConnection, user: &str, scopes: &[Scope]) -> sqlx::Result<bool> {
    let Columns { actions, models, instances } = columns(scopes);
    let all_known = sqlx::query_scalar!(
        r#"with wanted as (
               select action, key, instance_id, model.id as model_id
               from unnest($2::text[], $3::text[], $4::bigint[]) wanted (action, key, instance_id)
               left join cmdb.model using (key)
           ),
           inserted as (
               insert into cmdb.permission_grant (user_name, action, model_id, instance_id)
               select $1, action, model_id, instance_id from wanted
               where not exists (select from wanted where key is not null and model_id is null)
               on conflict do nothing
           )
           select not exists (select from wanted where key is not null and model_id is null)
               as "all_known!""#,
        user,
        &actions as &[GrantAction],
        &models as &[Option<String>],
        &instances as &[Option<i64>],
    );
    all_known.fetch_one(conn).await
}

/// Removes exactly these grants from a user and returns how many there were.
pub async fn delete(conn: &mut PgConnection, user: &str, scopes: &[Scope]) -> sqlx::Result<u64> {
    let Columns { actions, models, instances } = columns(scopes);
    let deleted = sqlx::query!(
        "delete from cmdb.permission_grant
         using unnest($2::text[], $3::text[], $4::bigint[]) unwanted (action, key, instance_id)
         left join cmdb.model using (key)
         where user_name = $1
             and permission_grant.action = unwanted.action
             and (unwanted.key is null) = (permission_grant.model_id is null)
             and (permission_grant.model_id, permission_grant.instance_id)
                 is not distinct from (model.id, unwanted.instance_id)",
        user,
        &actions as &[GrantAction],
        &models as &[Option<String>],
        &instances as &[Option<i64>],
    );
    Ok(deleted.execute(conn).await?.rows_affected())
}

/// All grants, or those of one user.
pub async fn list(conn: &mut PgConnection, user: Option<&str>) -> sqlx::Result<Vec<Grant>> {
    let grants = sqlx::query_as!(
        Grant,
        r#"select user_name as "user", action as "action: GrantAction", model.key as "model?",
               instance_id as instance
           from cmdb.permission_grant left join cmdb.model on model.id = model_id
           where user_name = $1 or $1 is null
           order by user_name, model.key nulls first, instance_id nulls first, action"#,
        user,
    );
    grants.fetch_all(conn).await
}

/// Scopes as arrays for a statement.
struct Columns {
    actions: Vec<GrantAction>,
    models: Vec<Option<String>>,
    instances: Vec<Option<i64>>,
}

fn columns(scopes: &[Scope]) -> Columns {
    Columns {
        actions: scopes.iter().map(|scope| scope.action).collect(),
        models: scopes.iter().map(|scope| scope.model.clone()).collect(),
        instances: scopes.iter().map(|scope| scope.instance).collect(),
    }
}
