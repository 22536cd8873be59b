//! The version of what servers cache: it changes with each commit that changes an application, a
//! secret, a grant, a model, an association kind, a model association or a tenant, or that removes
//! an instance.

use sqlx::PgConnection;

/// A version. Versions are random and compared for equality only: a database that is restored from
/// a backup does not repeat one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct CacheVersion(pub(crate) i64);

/// The current version.
#[tracing::instrument(skip_all, name = "db.cache_version.find")]
pub async fn find(conn: &mut PgConnection) -> sqlx::Result<CacheVersion> {
    let version =
        sqlx::query_scalar!(r#"select version as "version: CacheVersion" from cmdb.cache_version"#);
    version.fetch_one(conn).await
}
