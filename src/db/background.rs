//! What a request is judged by before its details: the application, the model association, what the user may edit.

use sqlx::PgConnection;

use super::app::{App, StoredSecret};
use crate::domain::association::{Mapping, ModelAssociation, Tenant};

/// What a request names. What it does not name, or what can be no name, is empty, and nothing is found for it.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// The application's code.
    pub app_code: &'a str,
    /// The user, whether he is believed or not.
    pub user: &'a str,
    /// The model association's key.
    pub model_association: &'a str,
    /// The account.
    pub account: &'a str,
}

/// What was found for it.
pub struct Background {
    /// Of the epoch in which it was found: another one, and it may be otherwise.
    pub mark: i64,
    /// The application.
    pub app: Option<App>,
    /// The model association: the account's own before the shared one.
    pub found: Option<Found>,
}

/// A model association, and what a user may edit of its models.
pub struct Found {
    /// It.
    pub model_association: ModelAssociation,
    /// Whether the user may edit every instance of the source model.
    pub may_edit_sources: bool,
    /// Whether the user may edit every instance of the target model.
    pub may_edit_targets: bool,
}

/// Finds all of it at once.
#[tracing::instrument(skip_all, name = "db.background.find")]
pub async fn find(conn: &mut PgConnection, named: &Named<'_>) -> sqlx::Result<Background> {
    let row = sqlx::query!(
        r#"select (select version from cache_version) as "version!", app.enabled as "enabled?", app.trusts_username as "trusts_username?", app.apis, app.tenants,
               array(select salt from app_secret where app_id = app.id order by id desc limit 2) as "salts!",
               array(select hash from app_secret where app_id = app.id order by id desc limit 2) as "hashes!",
               association.id as "association_id?", source_model_id as "source_model_id?",
               target_model_id as "target_model_id?", mapping as "mapping?",
               source.key as "source_model?", target.key as "target_model?",
               exists (
                   select from permission_grant
                   where user_name = $4 and (model_id is null or (model_id = source_model_id and instance_id is null))
               ) as "may_edit_sources!",
               exists (
                   select from permission_grant
                   where user_name = $4 and (model_id is null or (model_id = target_model_id and instance_id is null))
               ) as "may_edit_targets!"
           from (select) request
           left join app on app.code = $1
           left join lateral (
               select association.*
               from model_association association
               join tenant owner on owner.id = association.tenant_id
               where association.key = $2 and owner.key in ($3, $5)
               order by owner.key = $3 desc
               limit 1
           ) association on true
           left join model source on source.id = source_model_id
           left join model target on target.id = target_model_id"#,
        named.app_code,
        named.model_association,
        named.account,
        named.user,
        Tenant::SHARED,
    )
    .fetch_one(conn)
    .await?;
    let secret = |(salt, hash)| StoredSecret { salt, hash };
    let secrets = row.salts.into_iter().zip(row.hashes).map(secret).collect();
    let app = row.enabled.zip(row.trusts_username).map(|(enabled, trusts_username)| App {
        enabled,
        trusts_username,
        apis: row.apis,
        tenants: row.tenants,
        secrets,
    });
    // Each of these is there if the first is.
    let parts = (
        row.association_id.zip(row.mapping),
        row.source_model_id.zip(row.source_model),
        row.target_model_id.zip(row.target_model),
    );
    let (
        Some((id, mapping)),
        Some((source_model_id, source_model)),
        Some((target_model_id, target_model)),
    ) = parts
    else {
        return Ok(Background { mark: row.version, app, found: None });
    };
    let mapping = Mapping::parse(&mapping)
        .ok_or_else(|| sqlx::Error::Decode(format!("mapping {mapping:?}").into()))?;
    let model_association = ModelAssociation {
        id,
        source_model_id,
        target_model_id,
        source_model,
        target_model,
        mapping,
    };
    let found = Found {
        model_association,
        may_edit_sources: row.may_edit_sources,
        may_edit_targets: row.may_edit_targets,
    };
    Ok(Background { mark: row.version, app, found: Some(found) })
}

/// The mark of the epoch that it is.
#[tracing::instrument(skip_all, name = "db.background.mark")]
pub async fn mark(conn: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!("select version from cache_version").fetch_one(conn).await
}
