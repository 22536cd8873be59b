//! Models.

use sqlx::PgConnection;

use super::cache_version::CacheVersion;
use crate::domain::keys::Tenant;

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
    /// The number in the ids of its permission actions.
    pub number: i64,
}

/// Finds a model of the tenant or of tenant "0" by its key.
#[tracing::instrument(skip_all, name = "db.model.find")]
pub async fn find(
    conn: &mut PgConnection, key: &str, tenant: &Tenant,
) -> sqlx::Result<Option<Model>> {
    let model = sqlx::query_as!(
        Model,
        r#"select (select version from cmdb.cache_version) as "version!: CacheVersion",
               model.id, model.key, name, coalesce(export_number, model.id) as "number!"
           from cmdb.model join cmdb.tenant on tenant.id = tenant_id
           where model.key = $1 and tenant.key in ($2, $3)"#,
        key,
        tenant.as_str(),
        Tenant::SHARED,
    );
    model.fetch_optional(conn).await
}
