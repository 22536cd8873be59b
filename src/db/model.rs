//! Models.
//!
//! Each statement that changes models, association kinds or model associations first locks the
//! cache version, and changes nothing unless that is still the one of the statement that read what
//! the change was decided on. So these changes are made one after another, each on current data.
//!
//! A place in a classification that an SQL client has stored may be the highest of 64 bits. It
//! stays the last.

use sqlx::{PgConnection, QueryBuilder};

use super::cache_version::CacheVersion;
use super::condition;
use crate::domain::condition::{Condition, ModelField};
use crate::domain::identity::Author;
use crate::domain::keys::Tenant;
use crate::domain::model::{
    ModelChange, ModelUse, NewModel, StateForModelChange, StateForNewModel,
};

/// A model.
#[derive(Debug)]
pub struct Model {
    /// The cache version when it was read.
    pub version: CacheVersion,
    /// Its surrogate key.
    pub id: i32,
    /// Its key.
    pub key: String,
    /// Its name.
    pub name: String,
    /// The id that callers see, which is also in the ids of its permission actions.
    pub number: i64,
    /// Whether it is out of use: `create_inst` refuses new instances then.
    pub is_paused: bool,
}

/// Finds a model of the tenant or of tenant "0" by its key.
#[tracing::instrument(skip_all, name = "db.model.find")]
pub async fn find(
    conn: &mut PgConnection, key: &str, tenant: &Tenant,
) -> sqlx::Result<Option<Model>> {
    let model = sqlx::query_as!(
        Model,
        r#"select (select version from cmdb.cache_version) as "version!: CacheVersion",
               model.id, model.key, name, number as "number!", is_paused
           from cmdb.model join cmdb.tenant on tenant.id = tenant_id
           where model.key = $1 and tenant.key in ($2, $3)"#,
        key,
        tenant.as_str(),
        Tenant::SHARED,
    );
    model.fetch_optional(conn).await
}

/// A model as callers see it.
#[derive(Debug, sqlx::FromRow)]
#[expect(missing_docs, reason = "the fields are the columns of the table, which explains them")]
pub struct StoredModel {
    pub id: i32,
    pub number: i64,
    pub key: String,
    pub name: String,
    /// The key of its tenant.
    pub tenant: String,
    pub classification: Option<String>,
    pub icon: String,
    pub is_hidden: bool,
    pub is_paused: bool,
    pub is_predefined: bool,
    pub position: String,
    pub description: String,
    pub sort_number: i64,
    pub created_by: String,
    /// In UTC, as in `2026-01-31 18:00:00`.
    pub created_at: Option<String>,
    pub updated_by: String,
    /// In UTC, as in `2026-01-31 18:00:00`.
    pub updated_at: Option<String>,
}

/// The models of a tenant and of tenant "0" that satisfy a condition, in the order of their
/// numbers.
#[tracing::instrument(skip_all, name = "db.model.list")]
pub async fn list(
    conn: &mut PgConnection, tenant: &Tenant, condition: &Condition<ModelField>,
) -> sqlx::Result<Vec<StoredModel>> {
    let mut builder = QueryBuilder::new(
        "select model.id, number, model.key, name, tenant.key as tenant, classification, icon,
            is_hidden, is_paused, is_predefined, position, description, sort_number, created_by,
            to_char(created_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as created_at,
            updated_by,
            to_char(updated_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as updated_at
        from cmdb.model join cmdb.tenant on tenant.id = tenant_id
        where tenant.key in (",
    );
    builder.push_bind(tenant.as_str()).push(", ").push_bind(Tenant::SHARED).push(") and ");
    condition::push(&mut builder, condition, &|field| match field {
        ModelField::Id => "number",
        ModelField::Key => "model.key",
        ModelField::Name => "name",
        ModelField::Tenant => "tenant.key",
        ModelField::Classification => "coalesce(classification, '')",
        ModelField::Icon => "icon",
        ModelField::IsHidden => "is_hidden",
        ModelField::IsPaused => "is_paused",
        ModelField::IsPredefined => "is_predefined",
        ModelField::Position => "position",
        ModelField::Description => "description",
        ModelField::SortNumber => "sort_number",
        ModelField::Creator => "created_by",
        ModelField::Modifier => "updated_by",
    });
    builder.push(" order by number");
    builder.build_query_as().persistent(false).fetch_all(conn).await
}

/// The number of a tenant's own model.
#[tracing::instrument(skip_all, name = "db.model.find_number")]
pub async fn find_number(
    conn: &mut PgConnection, key: &str, tenant: &Tenant,
) -> sqlx::Result<Option<i64>> {
    let number = sqlx::query_scalar!(
        r#"select number as "number!" from cmdb.model join cmdb.tenant on tenant.id = tenant_id
           where model.key = $1 and tenant.key = $2"#,
        key,
        tenant.as_str(),
    );
    number.fetch_optional(conn).await
}

/// What decides about a new model, the surrogate key of its tenant, if that is stored, and the
/// cache version.
#[tracing::instrument(skip_all, name = "db.model.find_state_for_new")]
pub async fn find_state_for_new(
    conn: &mut PgConnection, tenant: &Tenant, new: &NewModel,
) -> sqlx::Result<(StateForNewModel, Option<i32>, CacheVersion)> {
    let row = sqlx::query!(
        r#"select version as "version: CacheVersion",
               (select id from cmdb.tenant where key = $1) as tenant_id,
               exists (select from cmdb.classification where key = $2) as "has_classification!",
               exists (select from cmdb.model where key = $3) as "is_key_taken!",
               exists (select from cmdb.model where name = $4) as "is_name_taken!"
           from cmdb.cache_version"#,
        tenant.as_str(),
        new.classification,
        new.key,
        new.name,
    );
    let row = row.fetch_one(conn).await?;
    let state = StateForNewModel {
        has_classification: row.has_classification,
        is_key_taken: row.is_key_taken,
        is_name_taken: row.is_name_taken,
    };
    Ok((state, row.tenant_id, row.version))
}

/// Inserts a model, with its audit record, and returns its number. Returns `None`, with nothing
/// written, if the cache version has changed.
#[tracing::instrument(skip_all, name = "db.model.insert")]
pub async fn insert(
    conn: &mut PgConnection, version: CacheVersion, author: Author<'_>, tenant_id: i32,
    new: &NewModel,
) -> sqlx::Result<Option<i64>> {
    let number = sqlx::query_scalar!(
        r#"with expected as materialized (
               select from cmdb.cache_version where version = $1 for update
           ),
           placed as materialized (
               select case when $15::bigint between 1 and last then $15 else last + 1 end
                   as sort_number
               from expected, (
                   select least(coalesce(max(sort_number), 0), 9223372036854775806) as last
                   from cmdb.model
                   where classification = $8
               ) others
           ),
           moved as (
               update cmdb.model set sort_number = least(sort_number, 9223372036854775806) + 1
               where classification = $8 and sort_number >= (select sort_number from placed)
           ),
           inserted as (
               insert into cmdb.model
                   (tenant_id, key, name, classification, icon, is_hidden, is_paused, is_predefined,
                    position, description, sort_number, created_by, created_at, updated_by,
                    updated_at)
               select $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, sort_number,
                   coalesce($4, session_user), now(), coalesce($4, session_user), now()
               from placed
               returning *
           )
           select number as "number!"
           from inserted, cmdb.audit_change(
               $2, $3, $4, $5, 'model', inserted.id, null, to_jsonb(inserted))"#,
        version.0,
        author.request_id(),
        author.app(),
        author.user(),
        tenant_id,
        new.key,
        new.name,
        new.classification,
        new.icon,
        new.is_hidden,
        new.is_paused,
        new.is_predefined,
        new.position,
        new.description,
        new.sort_number,
    );
    number.fetch_optional(conn).await
}

/// What decides about the change of the tenant's model with a number, its surrogate key, if there
/// is such a model, and the cache version.
#[tracing::instrument(skip_all, name = "db.model.find_state_for_change")]
pub async fn find_state_for_change(
    conn: &mut PgConnection, tenant: &Tenant, number: i64, change: &ModelChange,
) -> sqlx::Result<(StateForModelChange, Option<i32>, CacheVersion)> {
    let row = sqlx::query!(
        r#"select version as "version: CacheVersion",
               (select model.id from cmdb.model join cmdb.tenant on tenant.id = tenant_id
                   where number = $1 and tenant.key = $2) as model_id,
               $3::text is null or exists (select from cmdb.classification where key = $3)
                   as "has_classification!",
               exists (select from cmdb.model where name = $4 and number <> $1)
                   and not exists (select from cmdb.model where name = $4 and number = $1)
                   as "is_name_taken!"
           from cmdb.cache_version"#,
        number,
        tenant.as_str(),
        change.classification,
        change.name,
    );
    let row = row.fetch_one(conn).await?;
    let state = StateForModelChange {
        has_classification: row.has_classification,
        is_name_taken: row.is_name_taken,
    };
    Ok((state, row.model_id, row.version))
}

/// Changes a model, with its audit record. Returns `false`, with nothing written, if the cache
/// version has changed.
#[tracing::instrument(skip_all, name = "db.model.update")]
pub async fn update(
    conn: &mut PgConnection, version: CacheVersion, author: Author<'_>, id: i32,
    change: &ModelChange,
) -> sqlx::Result<bool> {
    let updated = sqlx::query_scalar!(
        r#"with expected as materialized (
               select from cmdb.cache_version where version = $1 for update
           ),
           stored as materialized (
               select model.*, coalesce($6, classification) as new_classification
               from cmdb.model, expected where id = $5
           ),
           -- Nothing, if the place stays as it is.
           placed as materialized (
               select case when $14::bigint between 1 and last then $14 else last + 1 end
                   as sort_number, new_classification
               from stored, lateral (
                   select least(coalesce(max(sort_number), 0), 9223372036854775806) as last
                   from cmdb.model
                   where classification = new_classification and id <> $5
               ) others
               where $14::bigint is not null
                   or new_classification is distinct from classification
           ),
           moved as (
               update cmdb.model
               set sort_number = least(model.sort_number, 9223372036854775806) + 1
               from placed
               where classification = new_classification and id <> $5
                   and model.sort_number >= placed.sort_number
           ),
           updated as (
               update cmdb.model
               set classification = new_classification,
                   name = coalesce($7, stored.name),
                   has_unique_name = stored.has_unique_name or $7 <> stored.name,
                   icon = coalesce($8, stored.icon),
                   is_hidden = coalesce($9, stored.is_hidden),
                   is_paused = coalesce($10, stored.is_paused),
                   is_predefined = coalesce($11, stored.is_predefined),
                   position = coalesce($12, stored.position),
                   description = coalesce($13, stored.description),
                   sort_number = coalesce((select sort_number from placed), stored.sort_number),
                   updated_by = coalesce($4, session_user),
                   updated_at = now()
               from stored
               where model.id = stored.id
               returning model.*
           )
           select true as "updated!"
           from updated, stored, cmdb.audit_change(
               $2, $3, $4, updated.tenant_id, 'model', updated.id,
               to_jsonb(stored) - 'new_classification', to_jsonb(updated))"#,
        version.0,
        author.request_id(),
        author.app(),
        author.user(),
        id,
        change.classification,
        change.name,
        change.icon,
        change.is_hidden,
        change.is_paused,
        change.is_predefined,
        change.position,
        change.description,
        change.sort_number,
    );
    Ok(updated.fetch_optional(conn).await?.is_some())
}

/// What decides about the deletion of the tenant's model with a number, its surrogate key, if there
/// is such a model, and the cache version.
#[tracing::instrument(skip_all, name = "db.model.find_use")]
pub async fn find_use(
    conn: &mut PgConnection, tenant: &Tenant, number: i64,
) -> sqlx::Result<(Option<(i32, ModelUse)>, CacheVersion)> {
    let row = sqlx::query!(
        r#"select version as "version: CacheVersion", model.id as "id?", model.key as "key?",
               is_built_in as "is_built_in?",
               (select true from cmdb.instance where model_id = model.id
                   order by model_id, instance_id limit 1) is not null as "has_instances!",
               exists (select from cmdb.model_association
                   where source_model_id = model.id or target_model_id = model.id)
                   as "has_associations!"
           from cmdb.cache_version
           left join (cmdb.model join cmdb.tenant on tenant.id = tenant_id)
               on number = $1 and tenant.key = $2"#,
        number,
        tenant.as_str(),
    );
    let row = row.fetch_one(conn).await?;
    let found = row.id.zip(row.key).map(|(id, key)| {
        let is_built_in = row.is_built_in.unwrap_or_default();
        let (has_instances, has_associations) = (row.has_instances, row.has_associations);
        (id, ModelUse { key, is_built_in, has_instances, has_associations })
    });
    Ok((found, row.version))
}

/// Deletes a model and the grants for it, with its audit record. Returns `false`, with nothing
/// written, if the cache version has changed.
#[tracing::instrument(skip_all, name = "db.model.delete")]
pub async fn delete(
    conn: &mut PgConnection, version: CacheVersion, author: Author<'_>, id: i32,
) -> sqlx::Result<bool> {
    let deleted = sqlx::query_scalar!(
        // Who grants permissions for the model locks these rows, and then the version.
        r#"with grants as materialized (
               select from cmdb.permission_grant where model_id = $5 for update
           ),
           target as materialized (
               select from cmdb.model where id = $5 for update
           ),
           expected as materialized (
               select from cmdb.cache_version
               where version = $1
                   -- Always true: the other rows are locked first.
                   and (select count(*) from target) + (select count(*) from grants) >= 0
               for update
           ),
           deleted as (
               delete from cmdb.model using expected where id = $5 returning model.*
           )
           select true as "deleted!"
           from deleted, cmdb.audit_change(
               $2, $3, $4, deleted.tenant_id, 'model', deleted.id, to_jsonb(deleted), null)"#,
        version.0,
        author.request_id(),
        author.app(),
        author.user(),
        id,
    );
    Ok(deleted.fetch_optional(conn).await?.is_some())
}
