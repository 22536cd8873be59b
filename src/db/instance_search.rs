//! Searches for instances by a condition on their documents.

use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Postgres, QueryBuilder, Row};

use super::document_condition::{self, Access, access, literal, needs_only_ids};
use crate::domain::condition::{Condition, DocumentField};
use crate::domain::sort::SortField;

/// Which instances of a model.
#[derive(Debug, Clone, Copy)]
pub struct InstanceSelection<'a> {
    /// The surrogate key of the model.
    pub model_id: i32,
    /// The key that has the id in its documents.
    pub id_field: &'static str,
    /// The surrogate keys of the tenants.
    pub tenant_ids: &'a [i32],
    /// What the documents must satisfy.
    pub condition: &'a Condition<DocumentField>,
    /// The ids among which they are; `None`: any.
    pub ids: Option<&'a [i64]>,
}

/// A page of instances.
#[derive(Debug, Clone, Copy)]
pub struct InstancePage<'a> {
    /// The order; in the end that of the ids.
    pub sort: &'a [SortField<DocumentField>],
    /// How many instances to skip.
    pub skip: i64,
    /// The most instances; `None`: all of them.
    pub limit: Option<i64>,
}

/// Finds a page of instances: their documents, as JSON text, with the wanted keys; `None`: whole.
#[tracing::instrument(skip_all, name = "db.instance_search.search")]
pub async fn search(
    conn: &mut PgConnection, selection: InstanceSelection<'_>, page: InstancePage<'_>,
    fields: Option<&[String]>,
) -> sqlx::Result<Vec<String>> {
    let InstanceSelection { condition, id_field, .. } = selection;
    let mut builder = QueryBuilder::new("with found as ");
    // Where an index may find the documents, they are found before they are sorted. Otherwise
    // PostgreSQL could read all instances in the order of the list until it has found a page.
    let is_by_id = needs_only_ids(condition, id_field);
    builder.push(if is_by_id { "not materialized" } else { "materialized" });
    builder.push(" (select instance_id, document from cmdb.instance_document where ");
    push_selection(&mut builder, selection);
    builder.push(") select ");
    push_document(&mut builder, fields);
    builder.push(" from (select instance_id, document from found order by ");
    push_order(&mut builder, page.sort, id_field);
    push_slice(&mut builder, page);
    builder.push(") page order by ");
    push_order(&mut builder, page.sort, id_field);
    let rows = fetch_all(conn, builder).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Counts instances.
#[tracing::instrument(skip_all, name = "db.instance_search.count")]
pub async fn count(conn: &mut PgConnection, selection: InstanceSelection<'_>) -> sqlx::Result<i64> {
    let mut builder = QueryBuilder::new("select count(*) from ");
    builder.push(table(selection)).push(" where ");
    push_selection(&mut builder, selection);
    let rows = fetch_all(conn, builder).await?;
    rows.first().map_or(Ok(0), |row| row.try_get(0))
}

/// The ids of a page of instances, and how many instances there are on all pages.
#[tracing::instrument(skip_all, name = "db.instance_search.list_ids")]
pub async fn list_ids(
    conn: &mut PgConnection, selection: InstanceSelection<'_>, page: InstancePage<'_>,
) -> sqlx::Result<(i64, Vec<i64>)> {
    let is_in_order = page.sort.iter().all(|(field, _)| is_id(field, selection.id_field));
    let mut builder = QueryBuilder::new("with found as materialized (select instance_id");
    if is_in_order {
        builder.push(" from ").push(table(selection));
    } else {
        builder.push(", document from cmdb.instance_document");
    }
    builder.push(" where ");
    push_selection(&mut builder, selection);
    builder.push(
        ") select (select count(*) from found), array(select instance_id from found order by ",
    );
    push_order(&mut builder, page.sort, selection.id_field);
    push_slice(&mut builder, page);
    builder.push(")");
    let rows = fetch_all(conn, builder).await?;
    rows.first().map_or(Ok((0, Vec::new())), |row| Ok((row.try_get(0)?, row.try_get(1)?)))
}

/// The targets of links, to find their sources.
#[derive(Debug, Clone, Copy)]
pub struct LinkTargets<'a> {
    /// The surrogate keys of the model associations.
    pub association_ids: &'a [i32],
    /// The instances.
    pub instances: InstanceSelection<'a>,
}

/// The distinct ids of the sources of a tenant's links to any of these targets.
#[tracing::instrument(skip_all, name = "db.instance_search.list_sources")]
pub async fn list_sources(
    conn: &mut PgConnection, tenant_id: i32, targets: &[LinkTargets<'_>],
) -> sqlx::Result<Vec<i64>> {
    let mut builder = QueryBuilder::new("select array(");
    for (index, LinkTargets { association_ids, instances }) in targets.iter().enumerate() {
        builder.push(if index == 0 { "" } else { " union " });
        // OFFSET 0 keeps PostgreSQL from joining in another way than by one search for each target.
        builder.push("select link.source_id from (select instance_id from ");
        builder.push(table(*instances)).push(" where ");
        push_selection(&mut builder, *instances);
        builder.push(" offset 0) target cross join unnest(").push_bind(*association_ids);
        builder.push(
            "::integer[]) association (id) cross join lateral (
                 select source_id from cmdb.instance_association_by_target
                 where model_association_id = association.id and target_id = target.instance_id
                     and tenant_id = ",
        );
        builder.push_bind(tenant_id).push(" offset 0) link");
    }
    builder.push(")");
    let rows = fetch_all(conn, builder).await?;
    rows.first().map_or(Ok(Vec::new()), |row| row.try_get(0))
}

/// The documents of the instances with these surrogate keys of models and ids, as JSON text and in
/// the order of the list, with the wanted keys; `None`: whole.
#[tracing::instrument(skip_all, name = "db.instance_search.list_by_ids")]
pub async fn list_by_ids(
    conn: &mut PgConnection, instances: &[(i32, i64)], tenant_ids: &[i32],
    fields: Option<&[String]>,
) -> sqlx::Result<Vec<String>> {
    let (models, ids): (Vec<_>, Vec<_>) = instances.iter().copied().unzip();
    let mut builder = QueryBuilder::new("select ");
    push_document(&mut builder, fields);
    // OFFSET 0 keeps PostgreSQL from joining in another way than by one search for each instance.
    builder.push(" from unnest(").push_bind(models).push(", ").push_bind(ids);
    builder.push(
        ") with ordinality wanted (model_id, instance_id, position) cross join lateral (
             select document from cmdb.instance_document document
             where document.model_id = wanted.model_id
                 and document.instance_id = wanted.instance_id and tenant_id = any(",
    );
    builder.push_bind(tenant_ids).push(") offset 0) found order by position");
    let rows = fetch_all(conn, builder).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Runs a query that can use a GIN index, which only bitmap scans can. It is planned for its
/// values, so that those in it are parsed once.
async fn fetch_all(
    conn: &mut PgConnection, mut builder: QueryBuilder<Postgres>,
) -> sqlx::Result<Vec<PgRow>> {
    let begin = "begin read only; set local enable_bitmapscan = on; \
                 set local plan_cache_mode = force_custom_plan";
    let mut transaction = conn.begin_with(begin).await?;
    let rows = builder.build().persistent(false).fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(rows)
}

/// The table with less to read. Both have the columns `model_id`, `instance_id` and `tenant_id`.
fn table(selection: InstanceSelection<'_>) -> &'static str {
    if needs_only_ids(selection.condition, selection.id_field) {
        "cmdb.instance"
    } else {
        "cmdb.instance_document"
    }
}

fn push_selection(builder: &mut QueryBuilder<Postgres>, selection: InstanceSelection<'_>) {
    let InstanceSelection { model_id, id_field, tenant_ids, condition, ids } = selection;
    // Only the primary key has the model as a number, only the GIN index of documents as an array.
    // So the index does not depend on statistics.
    if ids.is_none() && access(condition, id_field) == Access::Values {
        builder.push("array[model_id] @> array[").push_bind(model_id).push("::integer]");
    } else {
        builder.push("model_id = ").push_bind(model_id);
    }
    builder.push(" and tenant_id = any(").push_bind(tenant_ids).push(") and ");
    document_condition::push(builder, condition, id_field);
    if let Some(ids) = ids {
        builder.push(" and instance_id = any(").push_bind(ids).push(")");
    }
}

/// The document, or the wanted keys of it. One of an older version of BlueKing CMDB gets the times
/// of newer versions, too.
fn push_document(builder: &mut QueryBuilder<Postgres>, fields: Option<&[String]>) {
    let Some(fields) = fields else {
        builder.push(
            "(jsonb_strip_nulls(jsonb_build_object(
                'bk_created_at', document -> 'create_time',
                'bk_updated_at', document -> 'last_time')) || document)::text",
        );
        return;
    };
    // The wanted keys are joined as text, which is much faster than a new document for each row.
    // CONCAT_WS leaves out those that are missing.
    builder.push("'{' || concat_ws(',', variadic array[");
    for (index, key) in fields.iter().enumerate() {
        builder.push(if index == 0 { "" } else { ", " });
        builder.push_bind(format!("{}:", literal(key))).push(" || coalesce(document -> ");
        builder.push_bind(key.clone()).push(match key.as_str() {
            "bk_created_at" => ", nullif(document -> 'create_time', 'null'))::text",
            "bk_updated_at" => ", nullif(document -> 'last_time', 'null'))::text",
            _ => ")::text",
        });
    }
    builder.push("]::text[]) || '}'");
}

fn push_slice(builder: &mut QueryBuilder<Postgres>, page: InstancePage<'_>) {
    builder.push(" offset ").push_bind(page.skip).push(" limit ").push_bind(page.limit);
}

fn is_id(DocumentField(keys): &DocumentField, id_field: &str) -> bool {
    keys.as_slice() == [id_field]
}

fn push_order(
    builder: &mut QueryBuilder<Postgres>, sort: &[SortField<DocumentField>], id_field: &str,
) {
    for (field, descends) in sort {
        let direction = if *descends { " desc" } else { "" };
        if is_id(field, id_field) {
            // Ids differ, so other fields make no difference.
            builder.push("instance_id").push(direction);
            return;
        }
        push_sort_keys(builder, field, direction);
    }
    builder.push("instance_id");
}

/// Values are in the order of MongoDB: null and missing ones, numbers, texts, objects, arrays,
/// booleans.
fn push_sort_keys(
    builder: &mut QueryBuilder<Postgres>, DocumentField(keys): &DocumentField,
    direction: &'static str,
) {
    let value = |builder: &mut QueryBuilder<Postgres>, operator: &'static str| {
        builder.push("(document ").push(operator).push(" ").push_bind(keys.clone()).push(")");
    };
    builder.push("coalesce(array_position('{number,string,object,array,boolean}', jsonb_typeof(");
    value(builder, "#>");
    builder.push(")), 0)").push(direction);
    builder.push(", case jsonb_typeof(");
    value(builder, "#>");
    builder.push(") when 'string' then null else ");
    value(builder, "#>");
    builder.push(" end").push(direction).push(", ");
    value(builder, "#>>");
    builder.push(" collate \"C\"").push(direction).push(", ");
}
