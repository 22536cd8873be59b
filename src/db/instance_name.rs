//! The names of new instances, and the cloud areas of hosts.

use sqlx::PgConnection;

use super::instance::OwnInstances;

/// A name that a new instance is to have.
pub struct WantedName {
    /// The name that no other instance may have; of a host its cloud area and its address. `None`
    /// if any may have it.
    pub unique_name: Option<String>,
    /// Whether an instance of the model and the tenant has it.
    pub is_taken: bool,
    /// The size of the document, in bytes of text.
    pub size: i32,
}

/// Finds the names that new instances with these attributes, which are JSON texts, would have.
#[tracing::instrument(skip_all, name = "db.instance_name.find")]
pub async fn find(
    conn: &mut PgConnection, of: OwnInstances<'_>, documents: &[String],
) -> sqlx::Result<Vec<WantedName>> {
    sqlx::query_as!(
        WantedName,
        r#"select unique_name, octet_length(document::text) as "size!", (
                   select true from cmdb.instance_document holder
                   where holder.model_id = $1 and holder.tenant_id = $2
                       and holder.unique_name = wanted.unique_name
                       and holder.unique_name is not null
               ) is true as "is_taken!"
           from (
               select position, document,
                   cmdb.unique_name($3, document, document ->> cmdb.name_field($3)) as unique_name
               from (
                   select text::jsonb as document, position
                   from unnest($4::text[]) with ordinality given (text, position)
               ) given
               offset 0
           ) wanted
           order by position"#,
        of.model_id,
        of.tenant_id,
        of.model,
        documents,
    )
    .fetch_all(conn)
    .await
}

/// Those of these ids that are of no cloud area that the tenant sees. Area 0 always exists.
#[tracing::instrument(skip_all, name = "db.instance_name.list_unknown_areas")]
pub async fn list_unknown_areas(
    conn: &mut PgConnection, tenant_id: i32, ids: &[i64],
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar!(
        r#"select id as "id!" from unnest($2::bigint[]) wanted (id)
           where id <> 0 and (
               select true from cmdb.instance
               where model_id = (select model.id from cmdb.model where key = 'plat')
                   and instance_id = wanted.id and tenant_id in (0, $1)
           ) is not true"#,
        tenant_id,
        ids,
    )
    .fetch_all(conn)
    .await
}
