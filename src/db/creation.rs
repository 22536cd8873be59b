//! Requests that created instance associations (links), from their audit records.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::permission::UserPermissions;
use crate::domain::identity::Caller;

/// The requests that a user looks for.
pub struct CreationSearch<'a> {
    /// The id of the requests.
    pub request_id: &'a str,
    /// The id of the audit record, if that is wanted only.
    pub audit_record_id: Option<i64>,
    /// The surrogate key of the tenant. `None`: there are none.
    pub tenant_id: Option<i32>,
    /// Who looks for them.
    pub caller: &'a Caller,
    /// What the user may do; `None` if permissions are not checked.
    pub permissions: Option<&'a UserPermissions>,
}

/// What a request created.
pub struct Creation {
    /// The id of its audit record.
    pub audit_record_id: i64,
    /// When it was committed.
    pub created_at: OffsetDateTime,
    /// Who sent it.
    pub caller: Caller,
    /// Why, if the request says so.
    pub reason: Option<String>,
    /// The model association of the links; `None` if it does not exist any more.
    pub association: Option<CreationAssociation>,
    /// The links, in the order of their ids.
    pub links: Vec<CreatedLink>,
    /// For each detail of the request its error's code, `None` if it was created. `None` if no
    /// idempotency record has them.
    pub refusals: Option<Vec<Option<i32>>>,
}

/// The model association of created links.
pub struct CreationAssociation {
    /// Its key.
    pub key: String,
    /// The source model's surrogate key.
    pub source_model_id: i32,
    /// The source model's key.
    pub source_model: String,
    /// The target model's key.
    pub target_model: String,
}

/// A link that a request created.
pub struct CreatedLink {
    /// Its id.
    pub id: i64,
    /// The index of its detail in the request; `None` if it does not fit the audit record. Of
    /// records from before migration 12, the position among the created links.
    pub index: Option<i16>,
    /// Its source; `None` if that was removed from the audit record.
    pub source: Option<i64>,
    /// Its target; `None` if that was removed from the audit record.
    pub target: Option<i64>,
    /// Whether it still stands.
    pub exists: bool,
}

/// Finds the last `limit` requests with an id that created links, in the order of their audit
/// records: those of the same application and user, and those whose links are between models of
/// which the user may edit every instance.
#[tracing::instrument(skip_all, name = "db.creation.find")]
pub async fn find(
    conn: &mut PgConnection, search: &CreationSearch<'_>, limit: i64,
) -> sqlx::Result<Vec<Creation>> {
    let CreationSearch { request_id, audit_record_id, tenant_id, caller, permissions } = search;
    let rows = sqlx::query!(
        // `found` is materialized, and its ids are compared in pairs, so that the index by request
        // ids serves it, not the primary key.
        // The array makes PostgreSQL look up the last records by their ids, however many there
        // are. Each other search is a scalar subquery, which only one index serves.
        r#"with found as materialized (
               select id from cmdb.audit_log record
               where origin = 'request' and request_id = $1 and tenant_id = $2
                   and model_association_id is not null
                   and (request_id, id) >= ($1, coalesce($3::bigint, 1))
                   and (request_id, id) <= ($1, coalesce($3, 9223372036854775807))
                   and (app = $4 and user_name = $5 or $6
                       or exists (
                           select from cmdb.model_association association
                           where association.id = record.model_association_id
                               and source_model_id = any ($7::integer[])
                               and target_model_id = any ($7)))
           )
           select record.id, record.created_at, app as "app!", user_name as "user_name!", reason,
               association.key as "association?", source_model_id as "source_model_id?",
               source.key as "source_model?", target.key as "target_model?",
               source_ids, target_ids, detail_indexes,
               array(
                   select id
                   from unnest(association_ids) ids, generate_series(lower(ids), upper(ids) - 1) id
                   order by id
               ) as "ids!",
               array(
                   select (
                       select true from cmdb.instance_association link where link.id = created.id
                   ) is true
                   from unnest(association_ids) ids,
                       generate_series(lower(ids), upper(ids) - 1) created (id)
                   order by created.id
               ) as "exist!",
               (
                   -- A key can be used again after the record of its first request has expired.
                   select refusals from cmdb.idempotency_record stored
                   where stored.app = record.app and stored.user_name = record.user_name
                       and key = idempotency_key and stored.request_id = record.request_id
                       and stored.association_ids = record.association_ids
               ) as "refusals: Vec<Option<i32>>"
           from cmdb.audit_log record
           left join cmdb.model_association association on association.id = model_association_id
           left join cmdb.model source on source.id = source_model_id
           left join cmdb.model target on target.id = target_model_id
           where record.id = any (array(select id from found order by id desc limit $8))
           order by record.id"#,
        request_id,
        *tenant_id,
        *audit_record_id,
        caller.app,
        caller.user,
        permissions.is_none_or(|user| user.may_edit_all_models),
        permissions.map_or(&[][..], |user| &user.editable_model_ids),
        limit,
    )
    .fetch_all(conn)
    .await?;
    let creations = rows.into_iter().map(|row| {
        let at = |ids: &Option<Vec<i64>>, position| ids.as_ref()?.get(position).copied();
        let index = |position: usize| match &row.detail_indexes {
            Some(indexes) => indexes.get(position).copied(),
            None => position.try_into().ok(),
        };
        let links = row.ids.iter().zip(row.exist).enumerate().map(|(position, (id, exists))| {
            let (source, target) = (at(&row.source_ids, position), at(&row.target_ids, position));
            CreatedLink { id: *id, index: index(position), source, target, exists }
        });
        let models = row.source_model_id.zip(row.source_model).zip(row.target_model);
        let association = row.association.zip(models).map(
            |(key, ((source_model_id, source_model), target_model))| CreationAssociation {
                key,
                source_model_id,
                source_model,
                target_model,
            },
        );
        Creation {
            audit_record_id: row.id,
            created_at: row.created_at,
            caller: Caller { app: row.app, user: row.user_name },
            reason: row.reason,
            association,
            links: links.collect(),
            refusals: row.refusals,
        }
    });
    Ok(creations.collect())
}
