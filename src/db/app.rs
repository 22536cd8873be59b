//! Applications and their secrets.

use sqlx::PgConnection;

use super::cache_version::CacheVersion;

/// An application, or that there is none with its code.
#[derive(Debug)]
pub struct App {
    /// The cache version when it was read.
    pub version: CacheVersion,
    /// Whether its requests are accepted; `None`: there is no such application.
    pub enabled: Option<bool>,
    /// Whether a user name that it sends is accepted without further proof.
    pub trusts_username: bool,
    /// The names of the endpoints that it may call; `None`: all.
    pub apis: Option<Vec<String>>,
    /// The keys of the tenants that it may act for; `None`: all.
    pub tenants: Option<Vec<String>>,
    /// The salts of the valid secrets, at most two.
    pub salts: Vec<Vec<u8>>,
    /// The hash of each: HMAC-SHA-256 with the salt as its key.
    pub hashes: Vec<Vec<u8>>,
}

/// A secret as it is stored: 16 random bytes, and the HMAC-SHA-256 with them as its key.
pub struct StoredSecret {
    /// The key of the hash.
    pub salt: Vec<u8>,
    /// The hash.
    pub hash: Vec<u8>,
}

/// An application as it is listed.
pub struct ListedApp {
    /// Its code.
    pub code: String,
    /// Whether its requests are accepted.
    pub enabled: bool,
    /// Whether a user name that it sends is accepted without further proof.
    pub trusts_username: bool,
    /// The endpoints that it may call, separated by commas; `None`: all.
    pub apis: Option<String>,
    /// The tenants that it may act for, separated by commas; `None`: all.
    pub tenants: Option<String>,
    /// The number of valid secrets.
    pub secrets: i64,
    /// When it was added: ISO 8601, UTC.
    pub created_at: String,
}

/// Finds an application by its code.
#[tracing::instrument(skip_all, name = "db.app.find")]
pub async fn find(conn: &mut PgConnection, code: &str) -> sqlx::Result<App> {
    let app = sqlx::query_as!(
        App,
        r#"select version as "version!: CacheVersion", enabled as "enabled?",
               coalesce(trusts_username, false) as "trusts_username!",
               apis as "apis?", tenants as "tenants?",
               array(
                   select salt from cmdb.app_secret where app_id = app.id order by id desc limit 2
               ) as "salts!",
               array(
                   select hash from cmdb.app_secret where app_id = app.id order by id desc limit 2
               ) as "hashes!"
           from cmdb.cache_version left join cmdb.app on code = $1"#,
        code,
    );
    app.fetch_one(conn).await
}

/// All applications, in order of their codes.
pub async fn list(conn: &mut PgConnection) -> sqlx::Result<Vec<ListedApp>> {
    let apps = sqlx::query_as!(
        ListedApp,
        r#"select code, enabled, trusts_username, array_to_string(apis, ',') as apis,
               array_to_string(tenants, ',') as tenants,
               (select least(count(*), 2) from cmdb.app_secret where app_id = app.id) as "secrets!",
               to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as "created_at!"
           from cmdb.app order by code"#,
    );
    apps.fetch_all(conn).await
}

/// Adds an application with its first secret. Returns `false` if the code exists already.
pub async fn insert(
    conn: &mut PgConnection, code: &str, trusts_username: bool, secret: &StoredSecret,
) -> sqlx::Result<bool> {
    let insert = sqlx::query!(
        "with added as (
             insert into cmdb.app (code, trusts_username) values ($1, $2)
             on conflict (code) do nothing
             returning id
         )
         insert into cmdb.app_secret (app_id, salt, hash) select id, $3, $4 from added",
        code,
        trusts_username,
        secret.salt,
        secret.hash,
    );
    Ok(insert.execute(conn).await?.rows_affected() == 1)
}

/// Adds a secret to an application and keeps only the newest two. Returns `false` if there is no
/// such application.
pub async fn insert_secret(
    conn: &mut PgConnection, code: &str, secret: &StoredSecret,
) -> sqlx::Result<bool> {
    let insert = sqlx::query!(
        "with wanted as (select id from cmdb.app where code = $1 for update),
              deleted as (
                  delete from cmdb.app_secret where app_id = (select id from wanted) and id not in (
                      select id from cmdb.app_secret where app_id = (select id from wanted)
                      order by id desc limit 1)
              )
         insert into cmdb.app_secret (app_id, salt, hash) select id, $2, $3 from wanted",
        code,
        secret.salt,
        secret.hash,
    );
    Ok(insert.execute(conn).await?.rows_affected() == 1)
}

/// Deletes all secrets of an application but the newest. Returns their number, or `None` if there
/// is no such application.
pub async fn delete_older_secrets(
    conn: &mut PgConnection, code: &str,
) -> sqlx::Result<Option<i64>> {
    let deleted = sqlx::query_scalar!(
        r#"with wanted as (select id from cmdb.app where code = $1),
                deleted as (
                    delete from cmdb.app_secret
                    where app_id = (select id from wanted) and id <> (
                        select max(id) from cmdb.app_secret where app_id = (select id from wanted))
                    returning id
                )
           select (select count(*) from deleted) as "count!" from wanted"#,
        code,
    );
    deleted.fetch_optional(conn).await
}

/// Enables or disables an application. Returns `false` if there is no such application.
pub async fn set_enabled(conn: &mut PgConnection, code: &str, enabled: bool) -> sqlx::Result<bool> {
    let update = sqlx::query!("update cmdb.app set enabled = $2 where code = $1", code, enabled);
    Ok(update.execute(conn).await?.rows_affected() == 1)
}

/// Limits an application to endpoints and tenants: empty means all, `None` leaves the limit as it
/// is. Returns `false` if there is no such application.
pub async fn limit(
    conn: &mut PgConnection, code: &str, apis: Option<&[String]>, tenants: Option<&[String]>,
) -> sqlx::Result<bool> {
    let update = sqlx::query!(
        "update cmdb.app
         set apis = case when $2::text[] is null then apis else nullif($2, '{}') end,
             tenants = case when $3::text[] is null then tenants else nullif($3, '{}') end
         where code = $1",
        code,
        apis,
        tenants,
    );
    Ok(update.execute(conn).await?.rows_affected() == 1)
}
