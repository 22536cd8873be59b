//! Model associations.

use sqlx::PgConnection;

use super::cache_version::CacheVersion;
use crate::domain::association::Mapping;
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
