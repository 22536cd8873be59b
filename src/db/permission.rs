//! What users may do: lookups for the authorization of a request, and the grants themselves.

use sqlx::PgConnection;

use super::cache_version::CacheVersion;
use crate::domain::association::Mapping;
use crate::domain::keys::Tenant;
use crate::domain::permission::{MissingPermission, Scope};

/// A model association, and whether a user may edit all instances of its models.
#[derive(Debug)]
pub struct ModelAssociationAccess {
    /// The cache version when it was read.
    pub version: CacheVersion,
    /// The model association's surrogate key.
    pub id: i32,
    /// The source model's surrogate key.
    pub source_model_id: i32,
    /// The source model's key.
    pub source_model: String,
    /// The target model's surrogate key.
    pub target_model_id: i32,
    /// The target model's key.
    pub target_model: String,
    /// How many instances it allows at each end.
    pub mapping: Mapping,
    /// Whether the user may edit every instance of the source model.
    pub may_edit_sources: bool,
    /// Whether the user may edit every instance of the target model.
    pub may_edit_targets: bool,
}

/// A model, and whether a user may edit all of its instances.
#[derive(Debug)]
pub struct ModelAccess {
    /// The cache version when it was read.
    pub version: CacheVersion,
    /// The model's surrogate key.
    pub id: i32,
    /// The model's name.
    pub name: String,
    /// The number in the ids of the model's permission actions.
    pub number: i64,
    /// Whether the user may edit every instance.
    pub may_edit_all: bool,
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
    /// The key of the model that the user may edit; `None`: every model.
    pub model: Option<String>,
    /// The id of the instance; `None`: every instance.
    pub instance: Option<i64>,
}

/// Finds a model association by its key, the tenant's own before the shared one.
#[tracing::instrument(skip_all, name = "db.permission.find_model_association_access")]
pub async fn find_model_association_access(
    conn: &mut PgConnection, user: &str, key: &str, tenant: &Tenant,
) -> sqlx::Result<Option<ModelAssociationAccess>> {
    let access = sqlx::query_as!(
        ModelAssociationAccess,
        r#"select (select version from cache_version) as "version!: CacheVersion",
               association.id, source_model_id, source.key as source_model,
               target_model_id, target.key as target_model, mapping as "mapping: Mapping",
               exists (
                   select from permission_grant
                   where user_name = $1 and instance_id is null
                       and (model_id is null or model_id = source_model_id)
               ) as "may_edit_sources!",
               exists (
                   select from permission_grant
                   where user_name = $1 and instance_id is null
                       and (model_id is null or model_id = target_model_id)
               ) as "may_edit_targets!"
           from model_association association
           join tenant on tenant.id = association.tenant_id
           join model source on source.id = source_model_id
           join model target on target.id = target_model_id
           where association.key = $2 and tenant.key in ($3, $4)
           order by tenant.key = $3 desc
           limit 1"#,
        user,
        key,
        tenant.as_str(),
        Tenant::SHARED,
    );
    access.fetch_optional(conn).await
}

/// Finds a model that is visible to the tenant by its key.
#[tracing::instrument(skip_all, name = "db.permission.find_model_access")]
pub async fn find_model_access(
    conn: &mut PgConnection, user: &str, key: &str, tenant: &Tenant,
) -> sqlx::Result<Option<ModelAccess>> {
    let access = sqlx::query_as!(
        ModelAccess,
        r#"select (select version from cache_version) as "version!: CacheVersion",
               id, name, coalesce(export_number, id) as "number!",
               exists (
                   select from permission_grant
                   where user_name = $1 and instance_id is null
                       and (model_id is null or model_id = model.id)
               ) as "may_edit_all!"
           from model
           where key = $2 and tenant_id in (0, (select id from tenant where key = $3))"#,
        user,
        key,
        tenant.as_str(),
    );
    access.fetch_optional(conn).await
}

/// The visible instances among the given ids, sources first, in order of their ids, with the user's
/// access to each.
#[tracing::instrument(skip_all, name = "db.permission.list_instance_access")]
pub async fn list_instance_access(
    conn: &mut PgConnection, user: &str, access: &ModelAssociationAccess, tenant: &Tenant,
    source_ids: &[i64], target_ids: &[i64],
) -> sqlx::Result<Vec<InstanceAccess>> {
    let rows = sqlx::query!(
        r#"select model.id as model_id, model.key, model.name as model_name,
               coalesce(export_number, model.id) as "model_number!",
               instance.instance_id, instance.name,
               wanted.may_edit_all or exists (
                   select from permission_grant
                   where user_name = $1 and permission_grant.model_id = wanted.model_id
                       and permission_grant.instance_id = wanted.id) as "may_edit!"
           from (
               select $2::integer as model_id, id, $4::boolean as may_edit_all, 0 as side
               from unnest($3::bigint[]) id
               union
               select $5::integer, id, $7::boolean, case when $2 = $5 then 0 else 1 end
               from unnest($6::bigint[]) id
           ) wanted
           join instance on instance.model_id = wanted.model_id and instance.instance_id = wanted.id
           join model on model.id = wanted.model_id
           where instance.tenant_id in (0, (select id from tenant where key = $8))
           order by side, instance_id"#,
        user,
        access.source_model_id,
        source_ids,
        access.may_edit_sources,
        access.target_model_id,
        target_ids,
        access.may_edit_targets,
        tenant.as_str(),
    )
    .fetch_all(conn)
    .await?;
    let access = rows.into_iter().map(|row| InstanceAccess {
        model_id: row.model_id,
        instance_id: row.instance_id,
        missing: (!row.may_edit).then_some(MissingPermission {
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
    let (models, instances) = columns(scopes);
    let all_known = sqlx::query_scalar!(
        r#"with wanted as (
               select key, instance_id, model.id as model_id
               from unnest($2::text[], $3::bigint[]) wanted (key, instance_id)
               left join model using (key)
           ),
           inserted as (
               insert into permission_grant (user_name, model_id, instance_id)
               select $1, model_id, instance_id from wanted
               where not exists (select from wanted where key is not null and model_id is null)
               on conflict do nothing
           )
           select not exists (select from wanted where key is not null and model_id is null)
               as "all_known!""#,
        user,
        &models as &[Option<String>],
        &instances as &[Option<i64>],
    );
    all_known.fetch_one(conn).await
}

/// Removes exactly these grants from a user and returns how many there were.
pub async fn delete(conn: &mut PgConnection, user: &str, scopes: &[Scope]) -> sqlx::Result<u64> {
    let (models, instances) = columns(scopes);
    let deleted = sqlx::query!(
        "delete from permission_grant
         using unnest($2::text[], $3::bigint[]) unwanted (key, instance_id)
         left join model using (key)
         where user_name = $1
             and (unwanted.key is null) = (permission_grant.model_id is null)
             and (permission_grant.model_id, permission_grant.instance_id)
                 is not distinct from (model.id, unwanted.instance_id)",
        user,
        &models as &[Option<String>],
        &instances as &[Option<i64>],
    );
    Ok(deleted.execute(conn).await?.rows_affected())
}

/// All grants, or those of one user.
pub async fn list(conn: &mut PgConnection, user: Option<&str>) -> sqlx::Result<Vec<Grant>> {
    let grants = sqlx::query_as!(
        Grant,
        r#"select user_name as "user", model.key as "model?", instance_id as instance
           from permission_grant left join model on model.id = model_id
           where user_name = $1 or $1 is null
           order by user_name, model.key nulls first, instance_id nulls first"#,
        user,
    );
    grants.fetch_all(conn).await
}

fn columns(scopes: &[Scope]) -> (Vec<Option<String>>, Vec<Option<i64>>) {
    scopes.iter().map(|scope| (scope.model.clone(), scope.instance)).unzip()
}
