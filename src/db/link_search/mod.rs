//! Searches for links by a condition of the caller.
//!
//! The text of these statements depends on the condition, but each part of it is one of a few
//! shapes, which leave PostgreSQL one index:
//!
//! - links by their ids: the primary key;
//! - links by their sources or targets: the index of the mapping, as the migrations say;
//! - all links of a model association in the order of their ids: `instance_association_list_idx`.
//!   The rest of the condition is then a filter, which may take until the statement timeout.

mod access;

use sqlx::{PgConnection, Postgres, QueryBuilder};

use self::access::{IdRange, Keys, is_kept};
use super::condition;
use crate::domain::condition::Condition;

/// A column of `instance_association` that conditions test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkColumn {
    /// The link's id.
    Id,
    /// The source instance's id.
    Source,
    /// The target instance's id.
    Target,
}

impl LinkColumn {
    fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Source => "source_id",
            Self::Target => "target_id",
        }
    }
}

/// Model associations, and the condition on their links.
#[derive(Debug)]
pub struct Group {
    /// The surrogate keys of the model associations.
    pub associations: Vec<i32>,
    /// What their links must satisfy.
    pub condition: Condition<LinkColumn>,
}

/// The links of a tenant that a search selects. No model association is in two groups.
#[derive(Debug)]
pub struct LinkSelection {
    /// The surrogate key of the tenant.
    pub tenant_id: i32,
    /// The model associations.
    pub groups: Vec<Group>,
}

/// What links are ordered by.
#[derive(Debug, Clone)]
pub enum SortKey {
    /// A column of the link.
    Column(LinkColumn),
    /// A text of the model association: the surrogate keys, and the rank of the text of each.
    Rank(Vec<i32>, Vec<i32>),
}

/// The order of links, and whether each key descends. Links that are equal in it are in the order
/// of their ids.
pub type LinkOrder = Vec<(SortKey, bool)>;

/// The part of a list that is returned.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// Links with ids up to this one are left out.
    pub after: i64,
    /// How many of the others are left out, too.
    pub skip: i64,
    /// How many are returned at most.
    pub limit: i64,
}

/// A link that was found.
#[derive(Debug, sqlx::FromRow)]
pub struct FoundLink {
    /// Its id.
    pub id: i64,
    /// The surrogate key of its model association.
    pub model_association_id: i32,
    /// The source instance's id.
    pub source_id: i64,
    /// The target instance's id.
    pub target_id: i64,
}

/// The selected links.
#[tracing::instrument(skip_all, name = "db.link_search.list")]
pub async fn list(
    conn: &mut PgConnection, selection: &LinkSelection, order: &LinkOrder, slice: Slice,
) -> sqlx::Result<Vec<FoundLink>> {
    let mut builder = list_statement(selection, order, slice);
    let is_kept = slice.skip == 0 && is_by_id(order) && is_kept(selection);
    builder.build_query_as().persistent(is_kept).fetch_all(conn).await
}

/// The ids of all selected links above `after`, in ascending order.
#[tracing::instrument(skip_all, name = "db.link_search.list_ids")]
pub async fn list_ids(
    conn: &mut PgConnection, selection: &LinkSelection, after: i64,
) -> sqlx::Result<Vec<i64>> {
    let mut builder = QueryBuilder::new("select id from (");
    push_groups(&mut builder, selection, "id", after, None);
    builder.push(") link order by id");
    builder.build_query_scalar().persistent(false).fetch_all(conn).await
}

/// How many links are selected.
#[tracing::instrument(skip_all, name = "db.link_search.count")]
pub async fn count(conn: &mut PgConnection, selection: &LinkSelection) -> sqlx::Result<i64> {
    let mut builder = count_statement(selection);
    builder.build_query_scalar().persistent(is_kept(selection)).fetch_one(conn).await
}

const ALL_COLUMNS: &str = "id, model_association_id, source_id, target_id";

/// The most searches by a key that count as few.
const FEW_SEARCHES: usize = 50_000;

/// Whether the links of a group are few that have keys.
pub fn is_keyed(group: &Group) -> bool {
    Keys::of(&group.condition).is_some()
}

/// Whether indexes find the links of a slice at once, however many links are stored.
pub fn is_cheap(selection: &LinkSelection, order: &LinkOrder, slice: Slice) -> bool {
    let is_page = slice.skip == 0 && is_by_id(order);
    selection.groups.iter().all(|Group { associations, condition }| match Keys::of(condition) {
        Some(keys) => keys.len() * associations.len() <= FEW_SEARCHES,
        None => is_page && IdRange::is(condition),
    })
}

fn is_by_id(order: &LinkOrder) -> bool {
    order.iter().all(|(key, _)| matches!(key, SortKey::Column(LinkColumn::Id)))
}

/// The statement of [`list`].
pub fn list_statement(
    selection: &LinkSelection, order: &LinkOrder, slice: Slice,
) -> QueryBuilder<Postgres> {
    let descends = order.first().is_some_and(|(_, descends)| *descends);
    let first =
        is_by_id(order).then(|| First { number: slice.skip.saturating_add(slice.limit), descends });
    // The rows of links that are skipped need not be read.
    let reads_index_only = first.is_some()
        && slice.skip > 0
        && selection.groups.iter().all(|group| IdRange::is(&group.condition));
    let mut builder = QueryBuilder::default();
    let columns = if reads_index_only {
        builder.push(
            "select page.id, page.model_association_id, link.source_id, link.target_id from (",
        );
        "id, model_association_id"
    } else {
        ALL_COLUMNS
    };
    builder.push("select ").push(columns).push(" from (");
    push_groups(&mut builder, selection, columns, slice.after, first);
    builder.push(") link");
    match first {
        Some(first) => first.push_order(&mut builder),
        None => push_order(&mut builder, order),
    }
    if slice.skip > 0 {
        builder.push(" offset ").push_bind(slice.skip);
    }
    builder.push(" limit ").push_bind(slice.limit);
    if reads_index_only {
        builder.push(
            ") page cross join lateral (
                select source_id, target_id from cmdb.instance_association
                where id = page.id offset 0
            ) link",
        );
        builder.push(if descends { " order by page.id desc" } else { " order by page.id" });
    }
    builder
}

/// The statement of [`count`]. The links of each model association are counted on their own: they
/// are not collected first.
pub fn count_statement(selection: &LinkSelection) -> QueryBuilder<Postgres> {
    let mut builder = QueryBuilder::new("select sum(number)::bigint from (select 0 as number");
    for Group { associations, condition } in &selection.groups {
        builder.push(" union all ");
        let ids = IdRange::of(condition, i64::MIN);
        if let Some(keys) = Keys::of(condition) {
            builder.push("select count(*) from (");
            push_keyed(&mut builder, associations, &keys);
            builder.push(") keyed where tenant_id = ").push_bind(selection.tenant_id);
            builder.push(" and ");
            condition::push(&mut builder, condition, &LinkColumn::name);
        } else {
            push_each(&mut builder, associations, "number", |builder| {
                builder.push("select count(*) as number from cmdb.instance_association");
                builder.push(" where model_association_id = association_id");
                push_range(builder, selection.tenant_id, ids);
                if !IdRange::is(condition) {
                    builder.push(" and ");
                    condition::push(builder, condition, &LinkColumn::name);
                }
            });
        }
    }
    builder.push(") part");
    builder
}

/// A search for each model association: `search` refers to it by `association_id`.
fn push_each(
    builder: &mut QueryBuilder<Postgres>, associations: &[i32], columns: &str,
    search: impl FnOnce(&mut QueryBuilder<Postgres>),
) {
    builder.push("select ").push(columns).push(" from unnest(");
    builder.push_bind(associations.to_vec());
    builder.push("::integer[]) association_id cross join lateral (");
    search(builder);
    builder.push(") link");
}

/// Limits the links of a model association to a range of ids. Of all indexes only
/// `instance_association_list_idx` serves comparisons of the tenant and the id as a row.
fn push_range(builder: &mut QueryBuilder<Postgres>, tenant_id: i32, ids: IdRange) {
    for (operator, id) in [(">=", ids.min), ("<=", ids.max)] {
        builder.push(" and (tenant_id, id) ").push(operator).push(" (");
        builder.push_bind(tenant_id).push(", ").push_bind(id).push(")");
    }
}

/// The first links in the order of their ids: so many at most.
#[derive(Clone, Copy)]
struct First {
    number: i64,
    descends: bool,
}

impl First {
    /// All links of a selection are one tenant's, so this is the order of their ids, and that of
    /// `instance_association_list_idx` alone.
    fn push_order(self, builder: &mut QueryBuilder<Postgres>) {
        let order = if self.descends { "tenant_id desc, id desc" } else { "tenant_id, id" };
        builder.push(" order by ").push(order);
    }
}

/// The links of all groups with an id above `after`, with these columns and `tenant_id`; of groups
/// with a range of ids at least the first ones, if only these are wanted. Each other condition is
/// in the statement once for its group, not once for each model association: PostgreSQL would plan
/// each of them.
fn push_groups(
    builder: &mut QueryBuilder<Postgres>, selection: &LinkSelection, columns: &str, after: i64,
    first: Option<First>,
) {
    let columns = &format!("tenant_id, {columns}");
    let LinkSelection { tenant_id, groups } = selection;
    for (number, Group { associations, condition }) in groups.iter().enumerate() {
        builder.push(if number == 0 { "" } else { " union all " });
        let ids = IdRange::of(condition, after);
        if let Some(keys) = Keys::of(condition) {
            builder.push("select ").push(columns).push(" from (");
            push_keyed(builder, associations, &keys);
            builder.push(") keyed where tenant_id = ").push_bind(*tenant_id);
            ids.push(builder);
            builder.push(" and ");
            condition::push(builder, condition, &LinkColumn::name);
        } else if let Some(first) = first.filter(|_| IdRange::is(condition)) {
            push_first(builder, associations, *tenant_id, columns, ids, first);
        } else {
            push_each(builder, associations, columns, |builder| {
                builder.push("select * from cmdb.instance_association");
                builder.push(" where model_association_id = association_id");
                push_range(builder, *tenant_id, ids);
                // Without OFFSET 0, PostgreSQL may join in another way than by one search each.
                builder.push(" offset 0");
            });
            if !IdRange::is(condition) {
                builder.push(" where ");
                condition::push(builder, condition, &LinkColumn::name);
            }
        }
    }
    if groups.is_empty() {
        builder.push("select ").push(columns);
        builder.push(" from cmdb.instance_association where false");
    }
}

/// The first links of each model association. PostgreSQL merges them in the order of their ids.
fn push_first(
    builder: &mut QueryBuilder<Postgres>, associations: &[i32], tenant_id: i32, columns: &str,
    ids: IdRange, first: First,
) {
    for (number, association) in associations.iter().enumerate() {
        builder.push(if number == 0 { "(" } else { " union all (" });
        builder.push("select ").push(columns).push(" from cmdb.instance_association");
        builder.push(" where model_association_id = ").push_bind(*association);
        push_range(builder, tenant_id, ids);
        first.push_order(builder);
        builder.push(" limit ").push_bind(first.number).push(")");
    }
}

/// The links of these model associations with one of the keys, each once.
fn push_keyed(builder: &mut QueryBuilder<Postgres>, associations: &[i32], keys: &Keys) {
    let mut separator = "";
    if !keys.ids.is_empty() {
        // OFFSET 0 keeps the other condition from being searched by.
        builder.push("select * from (select * from cmdb.instance_association where id = any (");
        builder.push_bind(keys.ids.clone());
        builder.push(") offset 0) link where (model_association_id in (select unnest(");
        // As in `condition`: a hash table.
        builder.push_bind(associations.to_vec()).push("::integer[]))) is true");
        separator = " union ";
    }
    // Each role has two indexes, which differ in their mappings.
    for (column, ids, mapping) in [
        ("source_id", &keys.sources, "& 3 = 1"),
        ("source_id", &keys.sources, "& 3 <> 1"),
        ("target_id", &keys.targets, "& 3 = 3"),
        ("target_id", &keys.targets, "& 3 <> 3"),
    ] {
        if ids.is_empty() {
            continue;
        }
        builder.push(separator).push("select link.* from unnest(");
        builder.push_bind(associations.to_vec());
        builder.push("::integer[]) association_id cross join unnest(").push_bind(ids.clone());
        builder.push(format!(
            "::bigint[]) instance_id cross join lateral (
                select * from cmdb.instance_association
                where model_association_id {mapping} and model_association_id = association_id
                    and {column} = instance_id offset 0
            ) link where association_id {mapping}"
        ));
        separator = " union ";
    }
    if separator.is_empty() {
        builder.push("select * from cmdb.instance_association where false");
    }
}

fn push_order(builder: &mut QueryBuilder<Postgres>, order: &LinkOrder) {
    let ranks = order.iter().filter_map(|(key, _)| match key {
        SortKey::Rank(associations, ranks) => Some((associations, ranks)),
        SortKey::Column(_) => None,
    });
    for (number, (associations, ranks)) in ranks.enumerate() {
        builder.push(" join unnest(").push_bind(associations.clone()).push("::integer[], ");
        builder.push_bind(ranks.clone());
        builder.push(format!("::integer[]) ranked_{number} (model_association_id, rank_{number})"));
        builder.push(" using (model_association_id)");
    }
    builder.push(" order by ");
    let mut number = 0;
    for (key, descends) in order {
        match key {
            SortKey::Column(column) => {
                builder.push(column.name());
            }
            SortKey::Rank(..) => {
                builder.push(format!("rank_{number}"));
                number += 1;
            }
        }
        builder.push(if *descends { " desc, " } else { ", " });
    }
    builder.push("id");
}
