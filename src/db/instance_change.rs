//! Instances and their documents: changes by requests and commands.

use sqlx::PgConnection;

use super::cache_version::CacheVersion;
use super::instance::OwnInstances;
use crate::domain::identity::Author;

/// What is to be changed of instances.
pub struct InstanceChanges<'a> {
    /// The model and the tenant.
    pub of: OwnInstances<'a>,
    /// The ids, each once.
    pub ids: &'a [i64],
    /// The new values of keys, as JSON text.
    pub documents: &'a [String],
    /// The new names; `None` where the name stays.
    pub names: &'a [Option<String>],
}

/// What a change makes of an instance.
pub struct ChangedInstance {
    /// The name that no other instance may have, if it changes.
    pub unique_name: Option<String>,
    /// Whether another instance of the model and the tenant has it.
    pub is_taken: bool,
    /// The size of its document, in bytes of text.
    pub size: i32,
}

/// What the changes make of the tenant's instances that exist.
#[tracing::instrument(skip_all, name = "db.instance_change.preview")]
pub async fn preview(
    conn: &mut PgConnection, changes: &InstanceChanges<'_>,
) -> sqlx::Result<Vec<ChangedInstance>> {
    sqlx::query_as!(
        ChangedInstance,
        r#"select new.unique_name as "unique_name?", octet_length(new_document::text) as "size!",
               (select instance_id from cmdb.instance_document
                   where model_id = $1 and tenant_id = $2
                       and instance_document.unique_name = new.unique_name
                       and instance_document.unique_name is not null
               ) <> given.id is true as "is_taken!"
           from unnest($4::bigint[], $5::text[]) with ordinality given (id, patch, position)
           cross join lateral (
               select document as old_document, document || patch::jsonb as new_document
               from cmdb.instance_document
               where model_id = $1 and instance_id = given.id and tenant_id = $2
               offset 0
           ) stored
           cross join lateral (
               select old_document ->> cmdb.name_field($3) as old_name,
                   new_document ->> cmdb.name_field($3) as name
           ) names
           cross join lateral (
               select nullif(
                   cmdb.unique_name($3, new_document, name),
                   cmdb.unique_name($3, old_document, old_name)) as unique_name
           ) new
           order by position"#,
        changes.of.model_id,
        changes.of.tenant_id,
        changes.of.model,
        changes.ids,
        changes.documents,
    )
    .fetch_all(conn)
    .await
}

/// Changes the tenant's instances that exist, with their audit record, and returns how many there
/// were. Returns 0, with nothing written, if the cache version has changed.
#[tracing::instrument(skip_all, name = "db.instance_change.update")]
pub async fn update(
    conn: &mut PgConnection, version: CacheVersion, author: Author<'_>,
    changes: &InstanceChanges<'_>,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"with given as (
               select * from unnest($8::bigint[], $9::text[], $10::text[]) given (id, patch, name)
               where exists (select from cmdb.cache_version where version = $1)
                   -- Always true. The documents are changed below.
                   and set_config('cmdb.documents_are_written', 'yes', true) = 'yes'
           ),
           -- A subquery that locks rows is not joined in another order, so each id is one search.
           -- SQL clients lock the instance first, too.
           stored as materialized (
               select instance_id, document, given.patch::jsonb as patch, given.name
               from (select * from given order by id) given
               cross join lateral (
                   select instance_id from cmdb.instance
                   where model_id = $5 and instance.instance_id = given.id and tenant_id = $6
                   for no key update
               ) instance
               cross join lateral (
                   select document from cmdb.instance_document
                   where model_id = $5 and instance_document.instance_id = instance.instance_id
                   for update
               ) document
           ),
           -- The reserved name changes only if the name does. Of two that were imported with one
           -- name, the second may be sent back with it.
           named as (
               select *,
                   cmdb.unique_name($7, document, document ->> name_field) as unique_name_before,
                   cmdb.unique_name($7, new_document, new_document ->> name_field)
                       as unique_name_after
               from stored
               cross join lateral (
                   select document || patch as new_document, cmdb.name_field($7) as name_field
               ) new
           ),
           renamed as (
               update cmdb.instance set name = stored.name
               from stored
               where model_id = $5 and instance.instance_id = stored.instance_id
                   and stored.name is not null
           ),
           now as (select cmdb.document_time() as text),
           changed as (
               update cmdb.instance_document target
               set document = new_document || jsonb_build_object(
                       'last_time', now.text, 'bk_updated_at', now.text,
                       'bk_updated_by', coalesce($4, session_user)),
                   unique_name = case
                       when unique_name_after is distinct from unique_name_before
                       then unique_name_after
                       else unique_name
                   end,
                   import_hash = null
               from named, now
               where target.model_id = $5 and target.instance_id = named.instance_id
               returning target.instance_id, named.document as before, patch
           ),
           audit_record as (
               insert into cmdb.audit_log
                   (origin, request_id, app, user_name, tenant_id, association_ids, resource_type,
                    resource_id, instance_ids, before, after)
               select case when $2::text is null then 'command' else 'request' end, $2, $3,
                   coalesce($4, session_user), $6, '{}', 'instance', $5,
                   array_agg(instance_id order by instance_id),
                   jsonb_object_agg(instance_id, (
                       select coalesce(jsonb_object_agg(key, before -> key), '{}')
                       from jsonb_object_keys(patch) key)),
                   jsonb_object_agg(instance_id, patch)
               from changed
               having count(*) > 0
           )
           select count(*) as "count!" from changed"#,
        version.0,
        author.request_id(),
        author.app(),
        author.user(),
        changes.of.model_id,
        changes.of.tenant_id,
        changes.of.model,
        changes.ids,
        changes.documents,
        changes.names as &[Option<String>],
    )
    .fetch_one(conn)
    .await
}
