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

/// A part of the links.
#[derive(Debug)]
pub struct LinkSlice {
    /// The order of the links, each column with whether it descends; in the end that of their ids.
    pub sort: Vec<(SortColumn, bool)>,
    /// How many links to skip.
    pub skip: i64,
    /// The most links; `None`: all.
    pub limit: Option<i64>,
}

/// The other ends of links.
#[derive(Debug)]
pub struct OtherEnds {
    /// How many links there are, whatever the slice is.
    pub count: i64,
    /// The distinct ids at the other ends of the links in the slice, in ascending order. Their
    /// instances may be gone.
    pub ids: Vec<i64>,
}

/// Finds the other ends of the links in a slice.
#[tracing::instrument(skip_all, name = "db.linked_instance.list_ids")]
pub async fn list_ids(
    conn: &mut PgConnection, links: &LinksOfInstance, slice: &LinkSlice,
) -> sqlx::Result<OtherEnds> {
    let sort = |(column, descends): &(SortColumn, bool)| {
        let code = *column as i32;
        if *descends { -code } else { code }
    };
    let sort: Vec<_> = slice.sort.iter().map(sort).collect();
    let other_ends = sqlx::query_as!(
        OtherEnds,
        // The materialized expressions, and OFFSET 0 in the subqueries, keep PostgreSQL from
        // joining in another way than by one search for each model association. Texts are the same
        // for all links of a model association, so links have their ranks.
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
           wanted as (
               select other_id
               from link
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
           )
           select (select count(*) from link) as "count!",
               coalesce(array_agg(distinct other_id order by other_id), '{}') as "ids!"
           from wanted"#,
        links.source_model_id,
        links.target_model_id,
        links.instance_id,
        links.is_target,
        links.tenant_id,
        &sort,
        slice.skip,
        slice.limit,
    );
    other_ends.fetch_one(conn).await
}

/// An instance, as far as it is shown.
#[derive(Debug)]
pub struct NamedInstance {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: Option<String>,
}

/// Finds the instances of a model with these ids that a tenant sees, in the order of the ids.
#[tracing::instrument(skip_all, name = "db.linked_instance.list_named")]
pub async fn list_named(
    conn: &mut PgConnection, model_id: i32, tenant_id: i32, ids: &[i64],
) -> sqlx::Result<Vec<NamedInstance>> {
    let instances = sqlx::query_as!(
        NamedInstance,
        // OFFSET 0 keeps PostgreSQL from joining in another way than by one search for each
        // instance.
        "select instance_id as id, name
         from unnest($3::bigint[]) wanted_id
         cross join lateral (
             select instance_id, name from cmdb.instance
             where model_id = $1 and instance_id = wanted_id
                 and (tenant_id = $2
                     or tenant_id = 0 and (select is_built_in from cmdb.model where id = $1))
             offset 0
         ) instance
         order by instance_id",
        model_id,
        tenant_id,
        ids,
    );
    instances.fetch_all(conn).await
}
