//! Instances and their documents: creation and deletion by requests and commands.

use sqlx::PgConnection;

use super::cache_version::CacheVersion;
use crate::domain::identity::Author;
use crate::domain::permission::{Action, MissingPermission};

/// The instances of a model that a tenant sees as its own.
#[derive(Debug, Clone, Copy)]
pub struct OwnInstances<'a> {
    /// The surrogate key of the model.
    pub model_id: i32,
    /// The key of the model.
    pub model: &'a str,
    /// The surrogate key of the tenant.
    pub tenant_id: i32,
    /// The key of the tenant.
    pub tenant: &'a str,
}

/// An instance that was created.
pub struct CreatedInstance {
    /// Its id.
    pub id: i64,
    /// Its document, as JSON text.
    pub document: String,
}

/// Instances to create.
pub struct NewInstances<'a> {
    /// The model and the tenant.
    pub of: OwnInstances<'a>,
    /// Their names. Only a host may have none.
    pub names: &'a [Option<String>],
    /// The names that no other instance may have.
    pub unique_names: &'a [Option<String>],
    /// Their attributes, as JSON text.
    pub documents: &'a [String],
}

/// Creates instances with their documents and their audit record, and returns them in order.
/// Returns none, with nothing written, if the cache version has changed.
#[tracing::instrument(skip_all, name = "db.instance.insert")]
pub async fn insert(
    conn: &mut PgConnection, version: CacheVersion, author: Author<'_>, new: &NewInstances<'_>,
) -> sqlx::Result<Vec<CreatedInstance>> {
    sqlx::query_as!(
        CreatedInstance,
        r#"with new_instance as materialized (
               select case $7 when 'host' then nextval('cmdb.host_id_seq')
                       else nextval('cmdb.instance_id_seq') end as instance_id,
                   name, unique_name, document::jsonb
               from unnest($9::text[], $10::text[], $11::text[]) with ordinality
                   given (name, unique_name, document, position)
               where exists (select from cmdb.cache_version where version = $1)
                   -- Always true. The document of each instance is inserted below.
                   and set_config('cmdb.documents_are_written', 'yes', true) = 'yes'
               order by position
           ),
           now as (select cmdb.document_time() as text),
           inserted as (
               insert into cmdb.instance (model_id, instance_id, tenant_id, name)
               select $5, instance_id, $6, name from new_instance
           ),
           documents as (
               insert into cmdb.instance_document
                   (model_id, instance_id, tenant_id, unique_name, document)
               select $5, instance_id, $6, unique_name,
                   document || cmdb.new_document($7, $8, instance_id, name) || jsonb_build_object(
                       'create_time', now.text, 'last_time', now.text,
                       'bk_created_at', now.text, 'bk_updated_at', now.text,
                       'bk_created_by', coalesce($4, session_user), 'bk_updated_by', null)
               from new_instance, now
               -- So that statements that create the same names do not deadlock.
               order by unique_name collate "C"
               returning instance_id, document
           ),
           audit_record as (
               insert into cmdb.audit_log
                   (origin, request_id, app, user_name, tenant_id, association_ids, resource_type,
                    resource_id, instance_ids, after)
               select case when $2::text is null then 'command' else 'request' end, $2, $3,
                   coalesce($4, session_user), $6, '{}', 'instance', $5,
                   array_agg(instance_id order by instance_id),
                   jsonb_object_agg(instance_id, document)
               from documents
               having count(*) > 0
           )
           select instance_id as "id!", document::text as "document!"
           from documents order by instance_id"#,
        version.0,
        author.request_id(),
        author.app(),
        author.user(),
        new.of.model_id,
        new.of.tenant_id,
        new.of.model,
        new.of.tenant,
        new.names as &[Option<String>],
        new.unique_names as &[Option<String>],
        new.documents,
    )
    .fetch_all(conn)
    .await
}

/// The permissions to edit these instances of the tenant that exist, as far as a user has no grant
/// for the instance.
#[tracing::instrument(skip_all, name = "db.instance.list_not_editable")]
pub async fn list_not_editable(
    conn: &mut PgConnection, of: OwnInstances<'_>, user: &str, ids: &[i64],
) -> sqlx::Result<Vec<MissingPermission>> {
    let rows = sqlx::query!(
        r#"select model.key, model.name as model_name, number as "number!",
               instance.instance_id, instance.name
           from unnest($3::bigint[]) wanted (id)
           cross join lateral (
               select instance_id, name from cmdb.instance
               where model_id = $1 and instance_id = wanted.id and tenant_id = $2
               offset 0
           ) instance
           join cmdb.model on model.id = $1
           where not exists (
               select from cmdb.permission_grant
               where user_name = $4 and permission_grant.model_id = $1
                   and permission_grant.instance_id = wanted.id and action = 'edit')
           order by instance_id"#,
        of.model_id,
        of.tenant_id,
        ids,
        user,
    );
    let missing = rows.fetch_all(conn).await?.into_iter().map(|row| MissingPermission {
        action: Action::EditInstances,
        model: row.key,
        model_name: row.model_name,
        model_number: row.number,
        instance_id: Some(row.instance_id),
        instance_name: row.name,
    });
    Ok(missing.collect())
}

/// Which of these instances of the tenant exist, and which of them are linked.
pub struct ExistingInstances {
    /// The ids of those that exist.
    pub ids: Vec<i64>,
    /// The ids of those that a link of any tenant has.
    pub linked_ids: Vec<i64>,
    /// The cache version.
    pub version: CacheVersion,
}

/// Finds which of these instances of the tenant exist, and which of them are linked.
#[tracing::instrument(skip_all, name = "db.instance.find_existing")]
pub async fn find_existing(
    conn: &mut PgConnection, of: OwnInstances<'_>, ids: &[i64],
) -> sqlx::Result<ExistingInstances> {
    sqlx::query_as!(
        ExistingInstances,
        r#"with existing as materialized (
               select instance_id from cmdb.instance
               where model_id = $1 and instance_id = any ($3) and tenant_id = $2
           )
           select version as "version: CacheVersion",
               array(select instance_id from existing) as "ids!",
               array(
                   select instance_id from existing
                   where (select true from cmdb.model_association association
                           where association.source_model_id = $1
                               and (select true from cmdb.instance_association_by_source link
                                   where link.model_association_id = association.id
                                       and link.source_id = existing.instance_id
                                   limit 1)
                           limit 1)
                       or (select true from cmdb.model_association association
                           where association.target_model_id = $1
                               and (select true from cmdb.instance_association_by_target link
                                   where link.model_association_id = association.id
                                       and link.target_id = existing.instance_id
                                   limit 1)
                           limit 1)
               ) as "linked_ids!"
           from cmdb.cache_version"#,
        of.model_id,
        of.tenant_id,
        ids,
    )
    .fetch_one(conn)
    .await
}

/// Deletes the tenant's instances with these ids, with their documents and their audit record, and
/// returns how many there were. Waits for transactions that write links. Returns 0, with nothing
/// written, if the cache version has changed.
#[tracing::instrument(skip_all, name = "db.instance.delete")]
pub async fn delete(
    conn: &mut PgConnection, version: CacheVersion, author: Author<'_>, of: OwnInstances<'_>,
    ids: &[i64],
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        // The deletion first locks the table of links, by a trigger. Only then it locks instances.
        r#"with stored as materialized (
               select instance.instance_id, document
               from (
                   select instance_id from cmdb.instance
                   where model_id = $5 and instance_id = any ($7) and tenant_id = $6
                       and exists (select from cmdb.cache_version where version = $1)
                   order by instance_id
                   for update
               ) instance
               cross join lateral (
                   select document from cmdb.instance_document
                   where model_id = $5 and instance_document.instance_id = instance.instance_id
                   for update
               ) document
           ),
           deleted as (
               delete from cmdb.instance using stored
               where model_id = $5 and instance.instance_id = stored.instance_id
               returning stored.*
           ),
           audit_record as (
               insert into cmdb.audit_log
                   (origin, request_id, app, user_name, tenant_id, association_ids, resource_type,
                    resource_id, instance_ids, before)
               select case when $2::text is null then 'command' else 'request' end, $2, $3,
                   coalesce($4, session_user), $6, '{}', 'instance', $5,
                   array_agg(instance_id order by instance_id),
                   jsonb_object_agg(instance_id, document)
               from deleted
               having count(*) > 0
           )
           select count(*) as "count!" from deleted"#,
        version.0,
        author.request_id(),
        author.app(),
        author.user(),
        of.model_id,
        of.tenant_id,
        ids,
    )
    .fetch_one(conn)
    .await
}
