//! Instances of a model in the order of their ids.

use sqlx::PgConnection;

/// An instance in a list.
pub struct ListedInstance {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: Option<String>,
    /// Its document as JSON text, if it was asked for.
    pub document: Option<String>,
}

/// Which instances of a model to list.
#[derive(Debug, Clone, Copy)]
pub struct ListPart {
    /// The surrogate key of the model.
    pub model_id: i32,
    /// The surrogate key of the tenant.
    pub tenant_id: i32,
    /// Those with a higher id.
    pub after: i64,
    /// The most instances.
    pub limit: i64,
}

/// Lists a part of the tenant's instances of a model in the order of their ids.
#[tracing::instrument(skip_all, name = "db.instance_list.list")]
pub async fn list(
    conn: &mut PgConnection, part: ListPart, with_documents: bool,
) -> sqlx::Result<Vec<ListedInstance>> {
    // The instances of other tenants are skipped in the index. Scalar subqueries are index lookups.
    sqlx::query_as!(
        ListedInstance,
        r#"select instance_id as id,
               (select name from cmdb.instance
                   where model_id = $1 and instance_id = page.instance_id) as name,
               case when $5 then (
                   select document::text from cmdb.instance_document
                   where model_id = $1 and instance_id = page.instance_id) end as document
           from (
               select instance_id from cmdb.instance
               where model_id = $1 and tenant_id = $2 and instance_id > $3
               order by instance_id limit $4
           ) page
           order by instance_id"#,
        part.model_id,
        part.tenant_id,
        part.after,
        part.limit,
        with_documents,
    )
    .fetch_all(conn)
    .await
}
