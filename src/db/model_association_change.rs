//! Changes of model associations.

use sqlx::PgConnection;

use super::cache_version::CacheVersion;
use crate::domain::association::{
    AssociationEnds, ModelAssociationUse, NewModelAssociation, StateForNewModelAssociation,
};
use crate::domain::association_kind::MAINLINE;
use crate::domain::identity::Author;
use crate::domain::keys::Tenant;

/// The number of a tenant's own model association.
#[tracing::instrument(skip_all, name = "db.model_association.find_number")]
pub async fn find_number(
    conn: &mut PgConnection, key: &str, tenant: &Tenant,
) -> sqlx::Result<Option<i64>> {
    let number = sqlx::query_scalar!(
        r#"select (association.id >> 2)::bigint as "number!"
           from cmdb.model_association association join cmdb.tenant on tenant.id = tenant_id
           where association.key = $1 and tenant.key = $2"#,
        key,
        tenant.as_str(),
    );
    number.fetch_optional(conn).await
}

/// What decides about a new model association, the surrogate key of its tenant, if that is stored,
/// and the cache version. The tenant's own association kind is preferred to that of tenant "0".
#[tracing::instrument(skip_all, name = "db.model_association.find_state_for_new")]
pub async fn find_state_for_new(
    conn: &mut PgConnection, tenant: &Tenant, new: &NewModelAssociation,
) -> sqlx::Result<(StateForNewModelAssociation, Option<i32>, CacheVersion)> {
    let row = sqlx::query!(
        r#"with visible as materialized (
               select id, key = $1 as is_own from cmdb.tenant where key in ($1, $2)
           ),
           state as materialized (
               select
                   (select id from visible where is_own) as tenant_id,
                   (select model.id from cmdb.model join visible on visible.id = tenant_id
                       where key = $3) as source_model_id,
                   (select model.id from cmdb.model join visible on visible.id = tenant_id
                       where key = $4) as target_model_id,
                   (select kind.id from cmdb.association_kind kind
                       join visible on visible.id = tenant_id
                       where key = $5 order by is_own desc limit 1) as kind_id
           )
           select version as "version: CacheVersion", tenant_id as "tenant_id?",
               source_model_id as "source_model_id?", target_model_id as "target_model_id?",
               kind_id as "kind_id?",
               exists (
                   select from cmdb.model_association association
                   join cmdb.association_kind kind on kind.id = association_kind_id
                   where association.tenant_id in (select id from visible)
                       and (association.source_model_id, association.target_model_id, kind.key)
                           = (state.source_model_id, state.target_model_id, $5)
               ) as "has_same!",
               exists (
                   select from cmdb.model_association association
                   where key = $6 and association.tenant_id = state.tenant_id
               ) as "is_key_taken!"
           from cmdb.cache_version, state"#,
        tenant.as_str(),
        Tenant::SHARED,
        new.source_model,
        new.target_model,
        new.kind,
        new.key,
    );
    let row = row.fetch_one(conn).await?;
    let state = StateForNewModelAssociation {
        source_model_id: row.source_model_id,
        target_model_id: row.target_model_id,
        kind_id: row.kind_id,
        has_same: row.has_same,
        is_key_taken: row.is_key_taken,
    };
    Ok((state, row.tenant_id, row.version))
}

/// Inserts a model association, with its audit record, and returns its number. Returns `None`, with
/// nothing written, if the cache version has changed.
#[tracing::instrument(skip_all, name = "db.model_association.insert")]
pub async fn insert(
    conn: &mut PgConnection, version: CacheVersion, author: Author<'_>, tenant_id: i32,
    ends: AssociationEnds, new: &NewModelAssociation,
) -> sqlx::Result<Option<i64>> {
    let number = sqlx::query_scalar!(
        r#"with expected as materialized (
               select from cmdb.cache_version where version = $1 for update
           ),
           inserted as (
               insert into cmdb.model_association
                   (tenant_id, key, name, source_model_id, target_model_id, association_kind_id,
                    mapping, on_delete, is_predefined)
               select $5, $6, $7, $8, $9, $10, $11, $12, $13 from expected
               returning *
           )
           select (id >> 2)::bigint as "number!"
           from inserted, cmdb.audit_change(
               $2, $3, $4, $5, 'model_association', inserted.id, null, to_jsonb(inserted))"#,
        version.0,
        author.request_id(),
        author.app(),
        author.user(),
        tenant_id,
        new.key,
        new.name,
        ends.source_model_id,
        ends.target_model_id,
        ends.kind_id,
        ends.mapping as _,
        new.on_delete,
        new.is_predefined,
    );
    number.fetch_optional(conn).await
}

/// What decides about the change or the deletion of the tenant's model association with a number,
/// its surrogate key, if there is such a model association, and the cache version.
#[tracing::instrument(skip_all, name = "db.model_association.find_use")]
pub async fn find_use(
    conn: &mut PgConnection, tenant: &Tenant, number: i64,
) -> sqlx::Result<(Option<(i32, ModelAssociationUse)>, CacheVersion)> {
    let row = sqlx::query!(
        r#"select version as "version: CacheVersion", association.id as "id?",
               coalesce(kind.key = $3, false) as "is_mainline!",
               coalesce(association.is_predefined, false) as "is_predefined!",
               (select true from cmdb.instance_association
                   where model_association_id = association.id
                   order by model_association_id, tenant_id, id limit 1) is not null
                   as "has_links!"
           from cmdb.cache_version
           left join (
               cmdb.model_association association
               join cmdb.tenant on tenant.id = association.tenant_id
               join cmdb.association_kind kind on kind.id = association_kind_id
           ) on (association.id >> 2) = $1 and tenant.key = $2"#,
        i32::try_from(number).ok(),
        tenant.as_str(),
        MAINLINE,
    );
    let row = row.fetch_one(conn).await?;
    let found = row.id.map(|id| {
        let (is_mainline, is_predefined) = (row.is_mainline, row.is_predefined);
        (id, ModelAssociationUse { is_mainline, is_predefined, has_links: row.has_links })
    });
    Ok((found, row.version))
}

/// Changes the name of a model association, with its audit record. Returns `false`, with nothing
/// written, if the cache version has changed.
#[tracing::instrument(skip_all, name = "db.model_association.rename")]
pub async fn rename(
    conn: &mut PgConnection, version: CacheVersion, author: Author<'_>, id: i32, name: &str,
) -> sqlx::Result<bool> {
    let updated = sqlx::query_scalar!(
        r#"with expected as materialized (
               select from cmdb.cache_version where version = $1 for update
           ),
           stored as materialized (
               select association.* from cmdb.model_association association, expected where id = $5
           ),
           updated as (
               update cmdb.model_association association set name = $6
               from stored
               where association.id = stored.id
               returning association.*
           )
           select true as "updated!"
           from updated, stored, cmdb.audit_change(
               $2, $3, $4, updated.tenant_id, 'model_association', updated.id,
               to_jsonb(stored), to_jsonb(updated))"#,
        version.0,
        author.request_id(),
        author.app(),
        author.user(),
        id,
        name,
    );
    Ok(updated.fetch_optional(conn).await?.is_some())
}

/// Deletes a model association, with its audit record. Waits for transactions that write links.
/// Returns `false`, with nothing written, if the cache version has changed.
#[tracing::instrument(skip_all, name = "db.model_association.delete")]
pub async fn delete(
    conn: &mut PgConnection, version: CacheVersion, author: Author<'_>, id: i32,
) -> sqlx::Result<bool> {
    let deleted = sqlx::query_scalar!(
        // A trigger locks the table of links before the first row is deleted, so before the version
        // is locked. SQL clients lock them in the same order.
        r#"with expected as materialized (
               select from cmdb.cache_version where version = $1 for update
           ),
           deleted as (
               delete from cmdb.model_association using expected where id = $5
               returning model_association.*
           )
           select true as "deleted!"
           from deleted, cmdb.audit_change(
               $2, $3, $4, deleted.tenant_id, 'model_association', deleted.id,
               to_jsonb(deleted), null)"#,
        version.0,
        author.request_id(),
        author.app(),
        author.user(),
        id,
    );
    Ok(deleted.fetch_optional(conn).await?.is_some())
}
