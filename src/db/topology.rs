//! The topology of an instance: the instances that it is linked with, model by model.

use sqlx::PgConnection;

use super::cache_version::CacheVersion;
use super::model::Model;

/// What is shown of an instance.
#[derive(Debug)]
pub struct InstanceLabel {
    /// Its name.
    pub name: Option<String>,
    /// The icon of its model.
    pub icon: String,
}

/// Finds an instance that the tenant sees.
#[tracing::instrument(skip_all, name = "db.topology.find_instance")]
pub async fn find_instance(
    conn: &mut PgConnection, tenant_id: Option<i32>, (model_id, instance_id): (i32, i64),
) -> sqlx::Result<Option<InstanceLabel>> {
    let instance = sqlx::query_as!(
        InstanceLabel,
        "select instance.name, model.icon
         from cmdb.instance join cmdb.model on model.id = model_id
         where model_id = $1 and instance_id = $2
             and (instance.tenant_id = $3 or instance.tenant_id = 0 and model.is_built_in)",
        model_id,
        instance_id,
        tenant_id,
    );
    instance.fetch_optional(conn).await
}

/// The links of an instance, in one direction, with the instances of one model.
#[derive(Debug)]
pub struct NeighborGroup {
    /// Whether the instance is the source of these links.
    pub is_outgoing: bool,
    /// The model at their other end.
    pub model: Model,
    /// The model's icon.
    pub icon: String,
    /// How many links there are, with those whose other end is gone.
    pub count: i64,
    /// The instances at the other ends that the tenant sees, in the order of the links' ids.
    pub neighbors: Vec<Neighbor>,
}

/// An instance at the other end of a link.
#[derive(Debug)]
pub struct Neighbor {
    /// The link's id.
    pub link_id: i64,
    /// The instance's id.
    pub instance_id: i64,
    /// Its name.
    pub name: Option<String>,
}

/// The tenant's links from an instance, and on request those to it, by the model at the other end.
/// At most `limit` links in each direction; the models are in the order of the ids that callers
/// see.
#[tracing::instrument(skip_all, name = "db.topology.list_neighbors")]
pub async fn list_neighbors(
    conn: &mut PgConnection, tenant_id: Option<i32>, (model_id, instance_id): (i32, i64),
    with_incoming: bool, limit: i64,
) -> sqlx::Result<Vec<NeighborGroup>> {
    let rows = sqlx::query!(
        // The materialized expression, and OFFSET 0 in the subqueries, keep PostgreSQL from joining
        // in another way than by one search for each model association and for each instance.
        r#"with link as materialized (
               (select true as is_outgoing, link.id, association.target_model_id as model_id,
                    link.target_id as instance_id
                from cmdb.model_association association
                cross join lateral (
                    select * from cmdb.instance_association_by_source
                    where model_association_id = association.id and source_id = $2
                    offset 0
                ) link
                where association.source_model_id = $1 and link.tenant_id = $3
                limit $5)
               union all
               (select false, link.id, association.source_model_id, link.source_id
                from cmdb.model_association association
                cross join lateral (
                    select * from cmdb.instance_association_by_target
                    where model_association_id = association.id and target_id = $2
                    offset 0
                ) link
                where association.target_model_id = $1 and link.tenant_id = $3 and $4
                limit $5)
           )
           select is_outgoing as "is_outgoing!",
               (select version from cmdb.cache_version) as "version!: CacheVersion",
               model.id as model_id, model.key, model.name, icon,
               number as "number!", is_paused, count(*) as "count!",
               coalesce(array_agg(link.id order by link.id)
                   filter (where neighbor.instance_id is not null), '{}') as "link_ids!",
               coalesce(array_agg(neighbor.instance_id order by link.id)
                   filter (where neighbor.instance_id is not null), '{}') as "instance_ids!",
               coalesce(array_agg(neighbor.name order by link.id)
                   filter (where neighbor.instance_id is not null), '{}')
                   as "names!: Vec<Option<String>>"
           from link
           join cmdb.model on model.id = link.model_id
           left join lateral (
               select instance.instance_id, instance.name from cmdb.instance
               where instance.model_id = link.model_id
                   and instance.instance_id = link.instance_id
                   and (instance.tenant_id = $3 or instance.tenant_id = 0 and model.is_built_in)
               offset 0
           ) neighbor on true
           group by is_outgoing, model.id
           order by is_outgoing, number"#,
        model_id,
        instance_id,
        tenant_id,
        with_incoming,
        limit,
    )
    .fetch_all(conn)
    .await?;
    let groups = rows.into_iter().map(|row| {
        let model = Model {
            version: row.version,
            id: row.model_id,
            key: row.key,
            name: row.name,
            number: row.number,
            is_paused: row.is_paused,
        };
        let neighbors = row.link_ids.into_iter().zip(row.instance_ids).zip(row.names);
        NeighborGroup {
            is_outgoing: row.is_outgoing,
            model,
            icon: row.icon,
            count: row.count,
            neighbors: neighbors
                .map(|((link_id, instance_id), name)| Neighbor { link_id, instance_id, name })
                .collect(),
        }
    });
    Ok(groups.collect())
}
