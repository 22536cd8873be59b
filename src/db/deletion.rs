//! Deletions of instance associations (links) by their ids.

use sqlx::PgConnection;

use super::cache_version::CacheVersion;
use super::instance_association::IdempotencyEntry;
use super::permission::UserPermissions;
use crate::domain::identity::Caller;
use crate::domain::permission::{Action, MissingPermission};

/// The links that a request names, as far as it may delete them.
#[derive(Clone, Copy)]
pub struct NamedLinks<'a> {
    /// Their ids, in ascending order.
    pub ids: &'a [i64],
    /// The surrogate key of their tenant. `None`: there are none.
    pub tenant_id: Option<i32>,
    /// The surrogate key of a model that is their source or their target. `None`: there are none.
    pub model_id: Option<i32>,
}

/// An end of a link.
pub struct LinkEnd {
    /// The link's id.
    pub link_id: i64,
    /// The permission to edit the instance, if the user lacks it; to edit every instance of its
    /// model, if there is no such instance.
    pub missing: Option<MissingPermission>,
}

/// The ends of the links that exist, by model and instance, with the user's access to each.
#[tracing::instrument(skip_all, name = "db.deletion.list_ends")]
pub async fn list_ends(
    conn: &mut PgConnection, links: NamedLinks<'_>, user: &str, permissions: &UserPermissions,
) -> sqlx::Result<Vec<LinkEnd>> {
    let rows = sqlx::query!(
        // OFFSET 0 keeps PostgreSQL from joining links and instances in another way than by one
        // search for each of them.
        r#"select link.id as "link_id!", model.key as model, model.name as model_name,
               number as "model_number!",
               instance.instance_id as "instance_id?", instance.name as instance_name,
               model.id = any ($5) or instance.instance_id is not null and exists (
                   select from cmdb.permission_grant
                   where user_name = $4 and permission_grant.model_id = model.id
                       and permission_grant.instance_id = instance.instance_id
                       and action = 'edit') as "may_edit!"
           from unnest($1::bigint[]) wanted (id)
           cross join lateral (
               select * from cmdb.instance_association
               where id = wanted.id and tenant_id = $2
               offset 0
           ) link
           join cmdb.model_association association
               on association.id = link.model_association_id
                   and $3 in (association.source_model_id, association.target_model_id)
           cross join lateral (values
               (association.source_model_id, link.source_id),
               (association.target_model_id, link.target_id)
           ) end_of_link (model_id, instance_id)
           join cmdb.model on model.id = end_of_link.model_id
           left join lateral (
               select instance_id, name
               from cmdb.instance
               where model_id = end_of_link.model_id and instance_id = end_of_link.instance_id
                   and (tenant_id = $2 or tenant_id = 0 and model.is_built_in)
               offset 0
           ) instance on true
           order by model.key, instance.instance_id"#,
        links.ids,
        links.tenant_id,
        links.model_id,
        user,
        &permissions.editable_model_ids,
    )
    .fetch_all(conn)
    .await?;
    let ends = rows.into_iter().map(|row| LinkEnd {
        link_id: row.link_id,
        missing: (!row.may_edit).then_some(MissingPermission {
            action: Action::EditInstances,
            model: row.model,
            model_name: row.model_name,
            model_number: row.model_number,
            instance_id: row.instance_id,
            instance_name: row.instance_name,
        }),
    });
    Ok(ends.collect())
}

/// What became of an attempt to delete links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// So many links were deleted.
    Deleted(i64),
    /// What the request was authorized on has changed: the cache version. Nothing was written.
    Stale,
}

/// Links to delete, and what to record about it.
pub struct Deletion<'a> {
    /// The links. Those that do not exist are ignored.
    pub links: NamedLinks<'a>,
    /// The cache version on which the request was authorized, if it has looked anything up.
    pub version: Option<CacheVersion>,
    /// The request id in the audit record.
    pub request_id: &'a str,
    /// The caller in the audit record.
    pub caller: &'a Caller,
    /// What to store under the request's `Idempotency-Key`, if it has one.
    pub idempotency: Option<IdempotencyEntry<'a>>,
    /// The request that is undone, if one is.
    pub undone: Option<Undone>,
}

/// A request that created links, which another one removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undone {
    /// The id of its audit record.
    pub audit_record_id: i64,
    /// How many links it has created.
    pub created: i64,
}

/// Deletes links with their audit and idempotency records, in a single statement. Without links to
/// delete, it writes no audit record.
#[tracing::instrument(skip_all, name = "db.deletion.delete")]
pub async fn delete(
    conn: &mut PgConnection, deletion: &Deletion<'_>,
) -> sqlx::Result<DeleteOutcome> {
    let Deletion { links, version, request_id, caller, idempotency, undone } = deletion;
    let row = sqlx::query_file!(
        "src/db/delete_links.sql",
        // links
        links.ids,
        links.tenant_id,
        links.model_id,
        // caller
        version.map(|version| version.0),
        // audit record
        request_id,
        caller.app,
        caller.user,
        // idempotency record
        idempotency.as_ref().map(|entry| entry.key),
        idempotency.as_ref().map(|entry| entry.request_hash.as_slice()),
        idempotency.as_ref().map(|entry| entry.language),
        // audit record, idempotency record
        undone.map(|undone| undone.audit_record_id),
        undone.map(|undone| undone.created),
    )
    .fetch_one(conn)
    .await?;
    let outcome =
        if row.is_stale { DeleteOutcome::Stale } else { DeleteOutcome::Deleted(row.deleted) };
    Ok(outcome)
}
