//! How the links that satisfy a condition are found: by their keys, or by reading all links of a
//! model association.

use sqlx::{Postgres, QueryBuilder};

use super::{Group, LinkColumn, LinkSelection};
use crate::domain::condition::{Condition, Test};

/// The keys of a few links: every link that satisfies the condition has one of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    /// Ids of links.
    pub(super) ids: Vec<i64>,
    /// Ids of source instances.
    pub(super) sources: Vec<i64>,
    /// Ids of target instances.
    pub(super) targets: Vec<i64>,
}

impl Keys {
    /// The keys that a condition limits links to; `None` if it does not.
    pub(super) fn of(condition: &Condition<LinkColumn>) -> Option<Self> {
        let mut keys = Self::find(condition)?;
        for list in [&mut keys.ids, &mut keys.sources, &mut keys.targets] {
            list.sort_unstable();
            list.dedup();
        }
        Some(keys)
    }

    fn find(condition: &Condition<LinkColumn>) -> Option<Self> {
        match condition {
            Condition::Test(column, Test::IntegerIn(list)) => {
                let (mut keys, list) = (Self::default(), list.clone());
                match column {
                    LinkColumn::Id => keys.ids = list,
                    LinkColumn::Source => keys.sources = list,
                    LinkColumn::Target => keys.targets = list,
                }
                Some(keys)
            }
            // The shortest list of keys suffices.
            Condition::All(parts) => parts.iter().filter_map(Self::find).min_by_key(Self::cost),
            Condition::Any(parts) => parts.iter().try_fold(Self::default(), |mut all, part| {
                let Self { ids, sources, targets } = Self::find(part)?;
                all.ids.extend(ids);
                all.sources.extend(sources);
                all.targets.extend(targets);
                Some(all)
            }),
            Condition::Test(..) | Condition::Not(_) => None,
        }
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len() + self.sources.len() + self.targets.len()
    }

    /// A link has one id, but an instance may have many links.
    fn cost(&self) -> usize {
        self.ids.len() + 100 * (self.sources.len() + self.targets.len())
    }
}

/// The ids that links may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdRange {
    pub(super) min: i64,
    pub(super) max: i64,
}

impl IdRange {
    const ALL: Self = Self { min: i64::MIN, max: i64::MAX };

    /// Ids above `after` in a range that holds every link that satisfies the condition.
    pub(super) fn of(condition: &Condition<LinkColumn>, after: i64) -> Self {
        let Self { min, max } = Self::find(condition);
        if after == i64::MIN {
            Self { min, max }
        } else {
            Self { min: min.max(after.saturating_add(1)), max }
        }
    }

    fn find(condition: &Condition<LinkColumn>) -> Self {
        match condition {
            Condition::Test(LinkColumn::Id, Test::IntegerRange { min, max }) => {
                Self { min: *min, max: *max }
            }
            Condition::All(parts) => parts.iter().map(Self::find).fold(Self::ALL, |all, part| {
                Self { min: all.min.max(part.min), max: all.max.min(part.max) }
            }),
            Condition::Test(..) | Condition::Any(_) | Condition::Not(_) => Self::ALL,
        }
    }

    /// Whether a condition says nothing but what its range says.
    pub(super) fn is(condition: &Condition<LinkColumn>) -> bool {
        match condition {
            Condition::Test(column, Test::IntegerRange { .. }) => *column == LinkColumn::Id,
            Condition::All(parts) => parts.iter().all(Self::is),
            Condition::Test(..) | Condition::Any(_) | Condition::Not(_) => false,
        }
    }

    /// Adds the bounds to a list of conditions that is not empty.
    pub(super) fn push(self, builder: &mut QueryBuilder<Postgres>) {
        if self.min > i64::MIN {
            builder.push(" and id >= ").push_bind(self.min);
        }
        if self.max < i64::MAX {
            builder.push(" and id <= ").push_bind(self.max);
        }
    }
}

/// The most model associations of a kept statement that has a branch for each of them.
const KEPT_BRANCHES: usize = 32;

/// Whether the statement of a selection is kept prepared, with its plan: one of a common shape,
/// whose plan is small. A connection keeps the 100 statements that were used last.
pub(super) fn is_kept(LinkSelection { groups, .. }: &LinkSelection) -> bool {
    let is_list = |test: &_| matches!(test, Condition::Test(_, Test::IntegerIn(_)));
    match groups.as_slice() {
        [Group { associations, condition }] if IdRange::is(condition) => {
            associations.len() <= KEPT_BRANCHES
        }
        groups => {
            groups.len() <= 3
                && groups.iter().all(|group| match &group.condition {
                    Condition::Any(parts) => parts.len() <= 2 && parts.iter().all(is_list),
                    condition => is_list(condition),
                })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LinkOrder, Slice, list_statement};
    use super::*;

    fn is_in(column: LinkColumn, list: &[i64]) -> Condition<LinkColumn> {
        Condition::Test(column, Test::IntegerIn(list.to_vec()))
    }

    #[test]
    fn the_most_selective_part_of_a_conjunction_gives_the_keys() {
        use LinkColumn::{Id, Source, Target};
        let above = Condition::Test(Id, Test::IntegerRange { min: 5, max: i64::MAX });
        let all =
            Condition::all([above.clone(), is_in(Source, &[2, 1, 2]), is_in(Target, &[7; 9])]);
        let keys = Keys { sources: vec![1, 2], ..Keys::default() };
        assert_eq!(Keys::of(&all), Some(keys));
        let keys = Keys { ids: vec![8, 9], ..Keys::default() };
        assert_eq!(Keys::of(&Condition::all([all, is_in(Id, &[9, 8])])), Some(keys));
        assert_eq!(Keys::of(&Condition::all([above.clone(), Condition::not(above)])), None);
    }

    #[test]
    fn a_disjunction_has_keys_if_all_its_parts_have() {
        use LinkColumn::{Id, Source, Target};
        let any = Condition::any([is_in(Source, &[1]), is_in(Target, &[1]), is_in(Source, &[3])]);
        let keys = Keys { sources: vec![1, 3], targets: vec![1], ids: Vec::new() };
        assert_eq!(Keys::of(&any), Some(keys));
        let other = Condition::not(is_in(Id, &[1]));
        assert_eq!(Keys::of(&Condition::any([any, other])), None);
    }

    /// The statement of a selection, if it is kept.
    fn kept(condition: Condition<LinkColumn>, associations: Vec<i32>) -> Option<String> {
        let groups = vec![Group { associations, condition }];
        let selection = LinkSelection { tenant_id: 0, groups };
        let slice = Slice { after: i64::MIN, skip: 0, limit: 500 };
        let statement = list_statement(&selection, &LinkOrder::new(), slice);
        is_kept(&selection).then(|| statement.sql().as_str().to_owned())
    }

    #[test]
    fn kept_statements_differ_in_their_form_only() {
        use LinkColumn::{Id, Source, Target};
        let above = |min| Condition::Test(Id, Test::IntegerRange { min, max: i64::MAX });
        let either = |id| Condition::any([is_in(Source, &[id]), is_in(Target, &[id])]);
        let pages = [kept(Condition::always(), vec![5]), kept(above(9), vec![13])];
        assert!(pages[0].is_some() && pages[0] == pages[1]);
        let links = [kept(either(1), vec![5, 9]), kept(either(2), (0..200).collect())];
        assert!(links[0].is_some() && links[0] == links[1]);
        let others = [above(1), Condition::not(above(1)), is_in(Source, &[1])];
        assert_eq!(kept(Condition::all(others), vec![5]), None);
        assert_eq!(kept(Condition::always(), (0..200).collect()), None);
    }
}
