//! Searches for links by a condition of the caller.
//!
//! The text of these statements depends on the condition, but each part of it is one of a few
//! shapes, which leave PostgreSQL one index:
//!
//! - links by their ids: the primary key;
//! - links by their sources or targets: the keys of `instance_association_by_source` and
//!   `instance_association_by_target`;
//! - all links of a model association in the order of their ids: `instance_association_list_idx`.
//!   The rest of the condition is then a filter, which may take until the statement timeout.

mod access;

use sqlx::{PgConnection, Postgres, QueryBuilder};

use self::access::Keys;
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
    builder.build_query_as().persistent(false).fetch_all(conn).await
}

/// Whether indexes alone find the links of a slice, so that it takes as long as its links are many.
pub fn is_indexed(selection: &LinkSelection, order: &LinkOrder, slice: Slice) -> bool {
    let has_index = |group: &Group| {
        Keys::of(&group.condition).is_some()
            || slice.skip == 0 && is_by_id(order) && tests_only_ids(&group.condition)
    };
    selection.groups.iter().all(has_index)
}

fn is_by_id(order: &LinkOrder) -> bool {
    order.iter().all(|(key, _)| matches!(key, SortKey::Column(LinkColumn::Id)))
}

/// The statement of [`list`].
pub fn list_statement(
    selection: &LinkSelection, order: &LinkOrder, slice: Slice,
) -> QueryBuilder<Postgres> {
    let reads_indexes_only = is_by_id(order)
        && selection
            .groups
            .iter()
            .all(|group| Keys::of(&group.condition).is_none() && tests_only_ids(&group.condition));
    let mut builder = QueryBuilder::default();
    let columns = if reads_indexes_only {
        // The rows of links that are skipped are not read.
        builder.push(
            "select page.id, page.model_association_id, link.source_id, link.target_id from (",
        );
        "id, model_association_id"
    } else {
        "id, model_association_id, source_id, target_id"
    };
    builder.push("select ").push(columns).push(" from (");
    push_branches(&mut builder, selection, columns, slice.after);
    builder.push(") link");
    push_order(&mut builder, order);
    if slice.skip > 0 {
        builder.push(" offset ").push_bind(slice.skip);
    }
    builder.push(" limit ").push_bind(slice.limit);
    if reads_indexes_only {
        builder.push(
            ") page cross join lateral (
                select source_id, target_id from cmdb.instance_association
                where id = page.id offset 0
            ) link",
        );
        let descends = order.first().is_some_and(|(_, descends)| *descends);
        builder.push(if descends { " order by page.id desc" } else { " order by page.id" });
    }
    builder
}

/// How many links are selected.
#[tracing::instrument(skip_all, name = "db.link_search.count")]
pub async fn count(conn: &mut PgConnection, selection: &LinkSelection) -> sqlx::Result<i64> {
    let mut builder = count_statement(selection);
    builder.build_query_scalar().persistent(false).fetch_one(conn).await
}

/// The statement of [`count`].
pub fn count_statement(selection: &LinkSelection) -> QueryBuilder<Postgres> {
    let mut builder = QueryBuilder::new("select count(*) from (");
    push_branches(&mut builder, selection, "id", i64::MIN);
    builder.push(") link");
    builder
}

fn tests_only_ids(condition: &Condition<LinkColumn>) -> bool {
    match condition {
        Condition::All(parts) | Condition::Any(parts) => parts.iter().all(tests_only_ids),
        Condition::Not(part) => tests_only_ids(part),
        Condition::Test(column, _) => *column == LinkColumn::Id,
    }
}

/// The links of all groups with an id above `after`, with these columns.
fn push_branches(
    builder: &mut QueryBuilder<Postgres>, selection: &LinkSelection, columns: &str, after: i64,
) {
    let mut is_first = true;
    let mut separate = |builder: &mut QueryBuilder<Postgres>| {
        builder.push(if is_first { "" } else { " union all " });
        is_first = false;
    };
    for Group { associations, condition } in &selection.groups {
        if let Some(keys) = Keys::of(condition) {
            separate(builder);
            builder.push("select ").push(columns).push(" from (");
            push_keyed(builder, associations, &keys);
            builder.push(") keyed where tenant_id = ").push_bind(selection.tenant_id);
            push_filter(builder, condition, after);
            continue;
        }
        // One search for each model association: PostgreSQL merges them in the order of ids.
        for association in associations {
            separate(builder);
            builder.push("select ").push(columns);
            builder.push(" from cmdb.instance_association where model_association_id = ");
            builder.push_bind(*association);
            builder.push(" and tenant_id = ").push_bind(selection.tenant_id);
            push_filter(builder, condition, after);
        }
    }
    if is_first {
        builder.push("select ").push(columns);
        builder.push(" from cmdb.instance_association where false");
    }
}

fn push_filter(builder: &mut QueryBuilder<Postgres>, filter: &Condition<LinkColumn>, after: i64) {
    if after > i64::MIN {
        builder.push(" and id > ").push_bind(after);
    }
    if !filter.is_always() {
        builder.push(" and ");
        condition::push(builder, filter, &LinkColumn::name);
    }
}

/// The links of these model associations with one of the keys, each once.
fn push_keyed(builder: &mut QueryBuilder<Postgres>, associations: &[i32], keys: &Keys) {
    let mut separator = "";
    if !keys.ids.is_empty() {
        // OFFSET 0 keeps the other condition from being searched by.
        builder.push("select * from (select * from cmdb.instance_association where id = any (");
        builder.push_bind(keys.ids.clone());
        builder.push(") offset 0) link where model_association_id = any (");
        builder.push_bind(associations.to_vec()).push(")");
        separator = " union ";
    }
    for (role, ids) in [("source", &keys.sources), ("target", &keys.targets)] {
        if ids.is_empty() {
            continue;
        }
        builder.push(separator).push("select link.* from unnest(");
        builder.push_bind(associations.to_vec());
        builder.push("::integer[]) association_id cross join unnest(").push_bind(ids.clone());
        builder.push(
            "::bigint[]) instance_id cross join lateral (
                select * from cmdb.instance_association_by_",
        );
        builder.push(role).push(" where model_association_id = association_id and ");
        builder.push(role).push("_id = instance_id offset 0) link");
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
