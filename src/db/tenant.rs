//! Tenants.

use sqlx::PgConnection;

use super::cache_version::CacheVersion;
use crate::domain::keys::Tenant;

/// The surrogate key of the tenant whose instances of built-in models all tenants see.
pub const SHARED_ID: i32 = 0;

/// A tenant as it is stored.
#[derive(Debug)]
pub struct StoredTenant {
    /// The cache version when it was read.
    pub version: CacheVersion,
    /// Its surrogate key.
    pub id: i32,
}

/// Finds a tenant. It is stored with its first instance or link.
#[tracing::instrument(skip_all, name = "db.tenant.find")]
pub async fn find(conn: &mut PgConnection, tenant: &Tenant) -> sqlx::Result<Option<StoredTenant>> {
    let found = sqlx::query_as!(
        StoredTenant,
        r#"select id, (select version from cmdb.cache_version) as "version!: CacheVersion"
           from cmdb.tenant where key = $1"#,
        tenant.as_str(),
    );
    found.fetch_optional(conn).await
}

/// Stores a tenant, unless it is stored already.
#[tracing::instrument(skip_all, name = "db.tenant.insert")]
pub async fn insert(conn: &mut PgConnection, tenant: &Tenant) -> sqlx::Result<()> {
    let insert = sqlx::query!(
        "insert into cmdb.tenant (key) values ($1) on conflict (key) do nothing",
        tenant.as_str(),
    );
    insert.execute(conn).await.map(drop)
}
