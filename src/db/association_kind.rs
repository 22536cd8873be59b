//! Association kinds.

use sqlx::{PgConnection, QueryBuilder};

use super::cache_version::CacheVersion;
use super::condition;
use crate::domain::association_kind::{KindTexts, KindUse, NewKind};
use crate::domain::condition::{Condition, KindField};
use crate::domain::identity::Author;
use crate::domain::keys::Tenant;
use crate::domain::sort::SortField;

/// An association kind as callers see it.
#[derive(Debug, sqlx::FromRow)]
#[expect(missing_docs, reason = "the fields are the columns of the table, which explains them")]
pub struct StoredKind {
    pub number: i64,
    pub key: String,
    /// The key of its tenant.
    pub tenant: String,
    pub name: String,
    pub source_text: String,
    pub target_text: String,
    pub direction: String,
    pub is_predefined: Option<bool>,
}

/// The column of a field, in terms of [`list`].
fn column(field: KindField) -> &'static str {
    match field {
        KindField::Id => "number",
        KindField::Key => "kind.key",
        KindField::Tenant => "tenant.key",
        KindField::Name => "name",
        KindField::SourceText => "source_text",
        KindField::TargetText => "target_text",
        KindField::Direction => "direction",
        KindField::IsPredefined => "is_predefined",
    }
}

/// The association kinds of a tenant and of tenant "0" that satisfy a condition, in this order.
/// Those that are equal in it are in the order of their numbers.
#[tracing::instrument(skip_all, name = "db.association_kind.list")]
pub async fn list(
    conn: &mut PgConnection, tenant: &Tenant, condition: &Condition<KindField>,
    order: &[SortField<KindField>],
) -> sqlx::Result<Vec<StoredKind>> {
    let mut builder = QueryBuilder::new(
        "select number, kind.key, tenant.key as tenant, name, source_text, target_text, direction,
            is_predefined
        from cmdb.association_kind kind join cmdb.tenant on tenant.id = tenant_id
        where tenant.key in (",
    );
    builder.push_bind(tenant.as_str()).push(", ").push_bind(Tenant::SHARED).push(") and ");
    condition::push(&mut builder, condition, &column);
    builder.push(" order by ");
    for (field, descends) in order {
        builder.push(column(*field)).push(match (field, descends) {
            // As in MongoDB, null is less than every value.
            (KindField::IsPredefined, false) => " nulls first, ",
            (KindField::IsPredefined, true) => " desc nulls last, ",
            (KindField::Id, false) => ", ",
            (KindField::Id, true) => " desc, ",
            (_, false) => " collate \"C\", ",
            (_, true) => " collate \"C\" desc, ",
        });
    }
    builder.push("number");
    builder.build_query_as().persistent(false).fetch_all(conn).await
}

/// The number of a tenant's own association kind.
#[tracing::instrument(skip_all, name = "db.association_kind.find_number")]
pub async fn find_number(
    conn: &mut PgConnection, key: &str, tenant: &Tenant,
) -> sqlx::Result<Option<i64>> {
    let number = sqlx::query_scalar!(
        r#"select number as "number!"
           from cmdb.association_kind kind join cmdb.tenant on tenant.id = tenant_id
           where kind.key = $1 and tenant.key = $2"#,
        key,
        tenant.as_str(),
    );
    number.fetch_optional(conn).await
}

/// Whether a tenant sees an association kind with a key, the surrogate key of the tenant, if it is
/// stored, and the cache version.
#[tracing::instrument(skip_all, name = "db.association_kind.is_key_taken")]
pub async fn is_key_taken(
    conn: &mut PgConnection, tenant: &Tenant, key: &str,
) -> sqlx::Result<(bool, Option<i32>, CacheVersion)> {
    let row = sqlx::query!(
        r#"select version as "version: CacheVersion",
               (select id from cmdb.tenant where key = $1) as tenant_id,
               exists (select from cmdb.association_kind kind
                   join cmdb.tenant on tenant.id = tenant_id
                   where kind.key = $2 and tenant.key in ($1, $3)) as "is_key_taken!"
           from cmdb.cache_version"#,
        tenant.as_str(),
        key,
        Tenant::SHARED,
    );
    let row = row.fetch_one(conn).await?;
    Ok((row.is_key_taken, row.tenant_id, row.version))
}

/// Inserts an association kind, with its audit record, and returns its number. Returns `None`, with
/// nothing written, if the cache version has changed.
#[tracing::instrument(skip_all, name = "db.association_kind.insert")]
pub async fn insert(
    conn: &mut PgConnection, version: CacheVersion, author: Author<'_>, tenant_id: i32,
    new: &NewKind,
) -> sqlx::Result<Option<i64>> {
    let number = sqlx::query_scalar!(
        r#"with expected as materialized (
               select from cmdb.cache_version where version = $1 for update
           ),
           inserted as (
               insert into cmdb.association_kind
                   (tenant_id, key, name, source_text, target_text, direction, is_predefined)
               select $5, $6, $7, $8, $9, $10, $11 from expected
               returning *
           )
           select number as "number!"
           from inserted, cmdb.audit_change(
               $2, $3, $4, $5, 'association_kind', inserted.id, null, to_jsonb(inserted))"#,
        version.0,
        author.request_id(),
        author.app(),
        author.user(),
        tenant_id,
        new.key,
        new.texts.name,
        new.texts.source_text,
        new.texts.target_text,
        new.texts.direction,
        new.is_predefined,
    );
    number.fetch_optional(conn).await
}

/// What decides about the deletion of the tenant's association kind with a number, its surrogate
/// key, if there is such a kind, and the cache version.
#[tracing::instrument(skip_all, name = "db.association_kind.find_use")]
pub async fn find_use(
    conn: &mut PgConnection, tenant: &Tenant, number: i64,
) -> sqlx::Result<(Option<(i32, KindUse)>, CacheVersion)> {
    let row = sqlx::query!(
        r#"select version as "version: CacheVersion", kind.id as "id?",
               coalesce(is_predefined, false) as "is_predefined!",
               exists (select from cmdb.model_association where association_kind_id = kind.id)
                   as "is_used!"
           from cmdb.cache_version
           left join (cmdb.association_kind kind join cmdb.tenant on tenant.id = tenant_id)
               on number = $1 and tenant.key = $2"#,
        number,
        tenant.as_str(),
    );
    let row = row.fetch_one(conn).await?;
    let (is_predefined, is_used) = (row.is_predefined, row.is_used);
    Ok((row.id.map(|id| (id, KindUse { is_predefined, is_used })), row.version))
}

/// Changes the texts of an association kind, with its audit record. Returns `false`, with nothing
/// written, if the cache version has changed.
#[tracing::instrument(skip_all, name = "db.association_kind.update")]
pub async fn update(
    conn: &mut PgConnection, version: CacheVersion, author: Author<'_>, id: i32, texts: &KindTexts,
) -> sqlx::Result<bool> {
    let updated = sqlx::query_scalar!(
        r#"with expected as materialized (
               select from cmdb.cache_version where version = $1 for update
           ),
           stored as materialized (
               select kind.* from cmdb.association_kind kind, expected where id = $5
           ),
           updated as (
               update cmdb.association_kind kind
               set name = $6, source_text = $7, target_text = $8, direction = $9
               from stored
               where kind.id = stored.id
               returning kind.*
           )
           select true as "updated!"
           from updated, stored, cmdb.audit_change(
               $2, $3, $4, updated.tenant_id, 'association_kind', updated.id,
               to_jsonb(stored), to_jsonb(updated))"#,
        version.0,
        author.request_id(),
        author.app(),
        author.user(),
        id,
        texts.name,
        texts.source_text,
        texts.target_text,
        texts.direction,
    );
    Ok(updated.fetch_optional(conn).await?.is_some())
}

/// Deletes an association kind, with its audit record. Returns `false`, with nothing written, if
/// the cache version has changed.
#[tracing::instrument(skip_all, name = "db.association_kind.delete")]
pub async fn delete(
    conn: &mut PgConnection, version: CacheVersion, author: Author<'_>, id: i32,
) -> sqlx::Result<bool> {
    let deleted = sqlx::query_scalar!(
        // An SQL client that inserts a model association locks the kind, and then the version.
        r#"with target as materialized (
               select from cmdb.association_kind where id = $5 for update
           ),
           expected as materialized (
               select from cmdb.cache_version
               -- The second condition is always true: the kind is locked first.
               where version = $1 and (select count(*) from target) >= 0
               for update
           ),
           deleted as (
               delete from cmdb.association_kind using expected where id = $5
               returning association_kind.*
           )
           select true as "deleted!"
           from deleted, cmdb.audit_change(
               $2, $3, $4, deleted.tenant_id, 'association_kind', deleted.id,
               to_jsonb(deleted), null)"#,
        version.0,
        author.request_id(),
        author.app(),
        author.user(),
        id,
    );
    Ok(deleted.fetch_optional(conn).await?.is_some())
}
