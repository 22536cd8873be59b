//! Model associations.

use std::collections::HashMap;

use sqlx::{PgConnection, QueryBuilder};

use super::cache_version::CacheVersion;
use super::condition;
use crate::domain::association::Mapping;
use crate::domain::condition::{Condition, LinkField, ModelAssociationField};
use crate::domain::keys::Tenant;

/// A model association, with its models.
#[derive(Debug)]
pub struct ModelAssociation {
    /// The cache version when it was read.
    pub version: CacheVersion,
    /// Its surrogate key.
    pub id: i32,
    /// How many instances it allows at each end.
    pub mapping: Mapping,
    /// The source model's surrogate key.
    pub source_model_id: i32,
    /// The source model's key.
    pub source_model: String,
    /// Whether everybody sees the source model's instances of tenant "0".
    pub source_is_built_in: bool,
    /// The target model's surrogate key.
    pub target_model_id: i32,
    /// The target model's key.
    pub target_model: String,
    /// Whether everybody sees the target model's instances of tenant "0".
    pub target_is_built_in: bool,
}

/// Finds a model association by its key: the tenant's own, or else that of tenant "0".
#[tracing::instrument(skip_all, name = "db.model_association.find")]
pub async fn find(
    conn: &mut PgConnection, key: &str, tenant: &Tenant,
) -> sqlx::Result<Option<ModelAssociation>> {
    let association = sqlx::query_as!(
        ModelAssociation,
        r#"select (select version from cmdb.cache_version) as "version!: CacheVersion",
               association.id, mapping as "mapping: Mapping",
               source_model_id, source.key as source_model,
               source.is_built_in as source_is_built_in,
               target_model_id, target.key as target_model,
               target.is_built_in as target_is_built_in
           from cmdb.model_association association
           join cmdb.tenant on tenant.id = association.tenant_id
           join cmdb.model source on source.id = source_model_id
           join cmdb.model target on target.id = target_model_id
           where association.key = $1 and tenant.key in ($2, $3)
           order by tenant.key = $2 desc
           limit 1"#,
        key,
        tenant.as_str(),
        Tenant::SHARED,
    );
    association.fetch_optional(conn).await
}

/// The model associations of which a model is the source or the target.
#[derive(Debug)]
pub struct AssociationsOfModel {
    /// The cache version when they were read.
    pub version: CacheVersion,
    /// By their surrogate keys.
    pub by_id: HashMap<i32, AssociationOfModel>,
}

/// A model association of a model, with the texts that its links have.
#[derive(Debug)]
pub struct AssociationOfModel {
    /// Its key.
    pub key: String,
    /// The association kind's key.
    pub kind: String,
    /// The source model's surrogate key.
    pub source_model_id: i32,
    /// The source model's key.
    pub source_model: String,
    /// The target model's surrogate key.
    pub target_model_id: i32,
    /// The target model's key.
    pub target_model: String,
}

/// Finds the model associations of which a model is the source or the target. Returns `None` if
/// there are none.
#[tracing::instrument(skip_all, name = "db.model_association.list_of_model")]
pub async fn list_of_model(
    conn: &mut PgConnection, model_id: i32,
) -> sqlx::Result<Option<AssociationsOfModel>> {
    let rows = sqlx::query!(
        r#"select (select version from cmdb.cache_version) as "version!: CacheVersion",
               association.id, association.key, kind.key as kind, source_model_id,
               source.key as source_model, target_model_id, target.key as target_model
           from cmdb.model_association association
           join cmdb.association_kind kind on kind.id = association_kind_id
           join cmdb.model source on source.id = source_model_id
           join cmdb.model target on target.id = target_model_id
           where source_model_id = $1 or target_model_id = $1"#,
        model_id,
    );
    let rows = rows.fetch_all(conn).await?;
    let Some(version) = rows.first().map(|row| row.version) else { return Ok(None) };
    let by_id = rows.into_iter().map(|row| {
        let association = AssociationOfModel {
            key: row.key,
            kind: row.kind,
            source_model_id: row.source_model_id,
            source_model: row.source_model,
            target_model_id: row.target_model_id,
            target_model: row.target_model,
        };
        (row.id, association)
    });
    Ok(Some(AssociationsOfModel { version, by_id: by_id.collect() }))
}

/// The model associations of which a model is the source or the target: their surrogate keys, and
/// whether the links that a tenant has of each satisfy these tests of texts.
#[tracing::instrument(skip_all, name = "db.model_association.test_texts")]
pub async fn test_texts(
    conn: &mut PgConnection, model_id: i32, tenant: &Tenant, tests: &[Condition<LinkField>],
) -> sqlx::Result<Vec<(i32, Vec<bool>)>> {
    let mut builder = QueryBuilder::new("select association.id, array[");
    for (number, test) in tests.iter().enumerate() {
        builder.push(if number == 0 { "" } else { ", " });
        condition::push(&mut builder, test, &|field| match field {
            LinkField::SourceModel => "source.key",
            LinkField::TargetModel => "target.key",
            LinkField::Tenant => "tenant.key",
            LinkField::ModelAssociation => "association.key",
            LinkField::Kind => "kind.key",
            LinkField::Id | LinkField::SourceId | LinkField::TargetId => "null::bigint",
        });
    }
    builder.push(
        "]::boolean[]
        from cmdb.model_association association
        join cmdb.association_kind kind on kind.id = association_kind_id
        join cmdb.model source on source.id = source_model_id
        join cmdb.model target on target.id = target_model_id
        join cmdb.tenant on tenant.key = ",
    );
    builder.push_bind(tenant.as_str()).push(" where source_model_id = ").push_bind(model_id);
    builder.push(" or target_model_id = ").push_bind(model_id);
    builder.build_query_as().persistent(false).fetch_all(conn).await
}

/// A model association as callers see it.
#[derive(Debug, sqlx::FromRow)]
pub struct StoredModelAssociation {
    /// Its number, which is the id that callers see.
    pub number: i64,
    /// The key of its tenant.
    pub tenant: String,
    /// Its key.
    pub key: String,
    /// Its name.
    pub name: String,
    /// The source model's surrogate key.
    pub source_model_id: i32,
    /// The source model's key.
    pub source_model: String,
    /// The target model's surrogate key.
    pub target_model_id: i32,
    /// The target model's key.
    pub target_model: String,
    /// The association kind's key.
    pub kind: String,
    /// The mapping, as it was exported.
    pub mapping: String,
    /// What BlueKing CMDB was told to do when an instance is deleted.
    pub on_delete: String,
    /// Whether it is part of BlueKing CMDB.
    pub is_predefined: Option<bool>,
}

/// The model associations of a tenant and of tenant "0" that satisfy a condition, in the order of
/// their numbers.
#[tracing::instrument(skip_all, name = "db.model_association.list")]
pub async fn list(
    conn: &mut PgConnection, tenant: &Tenant, condition: &Condition<ModelAssociationField>,
) -> sqlx::Result<Vec<StoredModelAssociation>> {
    let mut builder = QueryBuilder::new(
        "select (association.id >> 2)::bigint as number, tenant.key as tenant, association.key,
            association.name, source_model_id, source.key as source_model, target_model_id,
            target.key as target_model, kind.key as kind,
            coalesce(exported_mapping, mapping) as mapping, on_delete,
            association.is_predefined
        from cmdb.model_association association
        join cmdb.association_kind kind on kind.id = association_kind_id
        join cmdb.model source on source.id = source_model_id
        join cmdb.model target on target.id = target_model_id
        join cmdb.tenant on tenant.id = association.tenant_id
        where tenant.key in (",
    );
    builder.push_bind(tenant.as_str()).push(", ").push_bind(Tenant::SHARED).push(") and ");
    condition::push(&mut builder, condition, &|field| match field {
        ModelAssociationField::Id => "(association.id >> 2)",
        ModelAssociationField::Tenant => "tenant.key",
        ModelAssociationField::Key => "association.key",
        ModelAssociationField::Name => "association.name",
        ModelAssociationField::SourceModel => "source.key",
        ModelAssociationField::TargetModel => "target.key",
        ModelAssociationField::Kind => "kind.key",
        ModelAssociationField::Mapping => "coalesce(exported_mapping, mapping)",
        ModelAssociationField::OnDelete => "on_delete",
        ModelAssociationField::IsPredefined => "association.is_predefined",
    });
    builder.push(" order by number");
    builder.build_query_as().persistent(false).fetch_all(conn).await
}
