//! The instances of one model that an instance is linked with.

use sqlx::PgConnection;

/// Which links of an instance are searched.
#[derive(Debug, Clone)]
pub struct LinksOfInstance {
    /// The surrogate key of the source model.
    pub source_model_id: i32,
    /// The surrogate key of the target model.
    pub target_model_id: i32,
    /// The id of the instance.
    pub instance_id: i64,
    /// Whether the instance is the target of the links.
    pub is_target: bool,
    /// The surrogate key of the tenant of the links.
    pub tenant_id: i32,
}

/// A column to sort links by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortColumn {
    /// The link's id.
    Link = 1,
    /// The id of the instance at the other end.
    OtherInstance = 2,
    /// The key of the model association.
    ModelAssociation = 3,
    /// The key of the association kind.
    Kind = 4,
}

/// The part of the links whose other ends are wanted, and the part of these.
#[derive(Debug, Clone)]
pub struct LinkedSlice {
    /// The order of the links, each column with whether it descends; in the end that of their ids.
    pub sort: Vec<(SortColumn, bool)>,
    /// How many links to skip.
    pub skip: i64,
    /// The most links; `None`: all.
    pub limit: Option<i64>,
    /// The instances with ids up to this one are left out.
    pub after: i64,
    /// The most instances.
    pub size: i64,
}

/// The instances at the other ends of links.
#[derive(Debug)]
pub struct LinkedInstances {
    /// How many links there are, whatever the slice is, with those whose other end is gone.
    pub count: i64,
    /// The distinct instances that the tenant sees: ids and names, in the order of the ids.
    pub instances: Vec<(i64, Option<String>)>,
}

/// Finds the instances at the other ends of the links in a slice.
#[tracing::instrument(skip_all, name = "db.linked_instance.list")]
pub async fn list(
    conn: &mut PgConnection, links: &LinksOfInstance, slice: &LinkedSlice,
) -> sqlx::Result<LinkedInstances> {
    let sort = |(column, descends): &(SortColumn, bool)| {
        let code = *column as i32;
        if *descends { -code } else { code }
    };
    let sort: Vec<_> = slice.sort.iter().map(sort).collect();
    let row = sqlx::query!(
        // The materialized expressions, and OFFSET 0 in the subqueries, keep PostgreSQL from
        // joining in another way than by one search for each model association and each instance.
        // Texts are the same for all links of a model association, so links have their ranks.
        r#"with association as materialized (
               select association.id, dense_rank() over (order by association.key) as key_rank,
                   dense_rank() over (order by kind.key) as kind_rank
               from cmdb.model_association association
               join cmdb.association_kind kind on kind.id = association_kind_id
               where source_model_id = $1 and target_model_id = $2
           ),
           link as materialized (
               select link.id, link.target_id as other_id, key_rank, kind_rank
               from association
               cross join lateral (
                   select * from cmdb.instance_association_by_source
                   where model_association_id = association.id and source_id = $3
                   offset 0
               ) link
               where link.tenant_id = $5 and not $4
               union all
               select link.id, link.source_id, key_rank, kind_rank
               from association
               cross join lateral (
                   select * from cmdb.instance_association_by_target
                   where model_association_id = association.id and target_id = $3
                   offset 0
               ) link
               where link.tenant_id = $5 and $4
           ),
           wanted as materialized (
               select other_id
               from link
               where $7::bigint > 0 or $8::bigint is not null or other_id > $9
               order by
                   case when cardinality($6::integer[]) > 0 then array(
                       select case when code < 0 then -1 else 1 end * case abs(code)
                           when 1 then link.id
                           when 2 then other_id
                           when 3 then key_rank
                           when 4 then kind_rank
                       end
                       from unnest($6::integer[]) with ordinality sort_column (code, position)
                       order by position
                   ) end,
                   link.id
               offset $7 limit $8
           ),
           linked as materialized (
               select instance.instance_id, instance.name
               from (
                   select distinct other_id from wanted where other_id > $9
                   order by other_id
                   offset 0
               ) other
               cross join lateral (
                   select instance_id, name from cmdb.instance
                   where model_id = case when $4 then $1 else $2 end
                       and instance_id = other.other_id
                       and (tenant_id = $5
                           or tenant_id = 0 and (
                               select is_built_in from cmdb.model
                               where id = case when $4 then $1 else $2 end))
                   offset 0
               ) instance
               order by other_id
               limit $10
           )
           select (select count(*) from link) as "count!",
               coalesce(array_agg(instance_id order by instance_id), '{}') as "ids!",
               coalesce(array_agg(name order by instance_id), '{}')
                   as "names!: Vec<Option<String>>"
           from linked"#,
        links.source_model_id,
        links.target_model_id,
        links.instance_id,
        links.is_target,
        links.tenant_id,
        &sort,
        slice.skip,
        slice.limit,
        slice.after,
        slice.size,
    )
    .fetch_one(conn)
    .await?;
    Ok(LinkedInstances {
        count: row.count,
        instances: row.ids.into_iter().zip(row.names).collect(),
    })
}
