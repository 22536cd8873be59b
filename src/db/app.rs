//! Applications and their secrets.

use sqlx::PgConnection;

/// A secret as it is stored.
pub struct StoredSecret {
    /// The key of the hash.
    pub salt: Vec<u8>,
    /// HMAC-SHA-256 of the secret.
    pub hash: Vec<u8>,
}

/// An application, with what proves it.
pub struct App {
    /// Whether it may call at all.
    pub enabled: bool,
    /// Whether it is believed about who the user is.
    pub trusts_username: bool,
    /// The APIs that it may call; none if all.
    pub apis: Option<Vec<String>>,
    /// The accounts that it may call for; none if all.
    pub tenants: Option<Vec<String>>,
    /// The valid secrets, at most two.
    pub secrets: Vec<StoredSecret>,
}

/// A line of the list of applications.
pub struct Listed {
    /// Its code.
    pub code: String,
    /// Whether it may call at all.
    pub enabled: bool,
    /// Whether it is believed about who the user is.
    pub trusts_username: bool,
    /// The APIs that it may call, by commas; none if all.
    pub apis: Option<String>,
    /// The accounts that it may call for, by commas; none if all.
    pub tenants: Option<String>,
    /// How many secrets are valid.
    pub secrets: i64,
    /// When it was added, in ISO 8601, UTC.
    pub created_at: String,
}

/// Whether there is an application of this code.
pub async fn exists(conn: &mut PgConnection, code: &str) -> sqlx::Result<bool> {
    let exists = sqlx::query_scalar!(
        r#"select exists (select from app where code = $1) as "exists!""#,
        code,
    );
    exists.fetch_one(conn).await
}

/// Every application, by code.
pub async fn list(conn: &mut PgConnection) -> sqlx::Result<Vec<Listed>> {
    sqlx::query_as!(
        Listed,
        r#"select code, enabled, trusts_username, array_to_string(apis, ',') as apis,
               array_to_string(tenants, ',') as tenants,
               (select least(count(*), 2) from app_secret where app_id = app.id) as "secrets!",
               to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as "created_at!"
           from app order by code"#,
    )
    .fetch_all(conn)
    .await
}

/// Adds an application with its first secret; false if the code is taken.
pub async fn insert(
    conn: &mut PgConnection,
    code: &str,
    trusts_username: bool,
    secret: &StoredSecret,
) -> sqlx::Result<bool> {
    let added = sqlx::query!(
        "with added as (
             insert into app (code, trusts_username) values ($1, $2) on conflict (code) do nothing
             returning id
         )
         insert into app_secret (app_id, salt, hash) select id, $3, $4 from added",
        code,
        trusts_username,
        secret.salt,
        secret.hash,
    )
    .execute(conn)
    .await?;
    Ok(added.rows_affected() == 1)
}

/// Adds a secret to an application and drops all but the newest two; false if there is no such application.
pub async fn insert_secret(
    conn: &mut PgConnection,
    code: &str,
    secret: &StoredSecret,
) -> sqlx::Result<bool> {
    let added = sqlx::query!(
        "with target as (select id from app where code = $1 for update),
              dropped as (
                  delete from app_secret where app_id = (select id from target) and id not in (
                      select id from app_secret where app_id = (select id from target)
                      order by id desc limit 1)
              )
         insert into app_secret (app_id, salt, hash) select id, $2, $3 from target",
        code,
        secret.salt,
        secret.hash,
    )
    .execute(conn)
    .await?;
    Ok(added.rows_affected() == 1)
}

/// Drops all secrets of an application but the newest; how many that were.
pub async fn delete_older_secrets(conn: &mut PgConnection, code: &str) -> sqlx::Result<u64> {
    let dropped = sqlx::query!(
        "with newest as (
             select max(app_secret.id) as id, app_id
             from app_secret join app on app.id = app_id where code = $1 group by app_id
         )
         delete from app_secret using newest
         where app_secret.app_id = newest.app_id and app_secret.id <> newest.id",
        code,
    )
    .execute(conn)
    .await?;
    Ok(dropped.rows_affected())
}

/// Lets an application call, or not; false if there is no such application.
pub async fn set_enabled(conn: &mut PgConnection, code: &str, enabled: bool) -> sqlx::Result<bool> {
    let changed = sqlx::query!("update app set enabled = $2 where code = $1", code, enabled)
        .execute(conn)
        .await?;
    Ok(changed.rows_affected() == 1)
}

/// Limits an application to some APIs and accounts: empty means all, none means as it is. False if there is no
/// such application.
pub async fn limit(
    conn: &mut PgConnection,
    code: &str,
    apis: Option<&[String]>,
    tenants: Option<&[String]>,
) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        "update app
         set apis = case when $2::text[] is null then apis else nullif($2, '{}') end,
             tenants = case when $3::text[] is null then tenants else nullif($3, '{}') end
         where code = $1",
        code,
        apis,
        tenants,
    )
    .execute(conn)
    .await?;
    Ok(changed.rows_affected() == 1)
}
