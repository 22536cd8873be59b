//! What a batch does: which details become links, which are refused, and why.

use std::collections::HashSet;

use super::association::Mapping;
use super::error::DetailError;

/// The most details a batch may have.
pub const DETAIL_LIMIT: usize = 200;

/// A pair of instances, linked or to be linked under some model association.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    /// The source instance's id.
    pub source: i64,
    /// The target instance's id.
    pub target: i64,
}

/// One detail of a batch. An absent id is an instance that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Detail {
    /// The source instance's id.
    pub source: Option<i64>,
    /// The target instance's id.
    pub target: Option<i64>,
}

/// A request to create links.
#[derive(Debug, Clone)]
pub struct CreateLinks {
    /// The model association's key.
    pub model_association: String,
    /// The source model's key.
    pub source_model: String,
    /// The target model's key.
    pub target_model: String,
    /// 1 to [`DETAIL_LIMIT`] details.
    pub details: Vec<Detail>,
}

/// What is stored that matters for one detail. The default: nothing that prevents the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredState {
    /// The source instance does not exist.
    pub source_missing: bool,
    /// The target instance does not exist.
    pub target_missing: bool,
    /// The source that the target is linked to. Under n:n only the detail's own source is reported.
    pub source_of_target: Option<i64>,
    /// Under 1:1, the target that the source is linked to.
    pub target_of_source: Option<i64>,
}

/// The link that a detail becomes, or why it is refused.
pub type Decision = Result<Link, DetailError>;

/// Decides each detail as if the details were created one after another, in order.
///
/// `stored` has one element for each detail, or none: then nothing stored prevents any link.
pub fn plan(mapping: Mapping, details: &[Detail], stored: &[StoredState]) -> Vec<Decision> {
    let stored = || stored.iter().copied().chain(std::iter::repeat(StoredState::default()));
    let mut links: HashSet<Link> = HashSet::new();
    for (detail, stored) in details.iter().zip(stored()) {
        let of_target = stored.source_of_target.zip(detail.target);
        let of_source = detail.source.zip(stored.target_of_source);
        let pairs = of_target.into_iter().chain(of_source);
        links.extend(pairs.map(|(source, target)| Link { source, target }));
    }
    let mut sources: HashSet<i64> = links.iter().map(|link| link.source).collect();
    let mut targets: HashSet<i64> = links.iter().map(|link| link.target).collect();

    let mut decide = |(detail, stored): (&Detail, StoredState)| {
        if let (Some(source), Some(target)) = (detail.source, detail.target)
            && links.contains(&Link { source, target })
        {
            return Err(DetailError::AlreadyExists);
        }
        let source = detail.source.filter(|_| !stored.source_missing);
        let source = source.ok_or(DetailError::SourceMissing)?;
        let target = detail.target.filter(|_| !stored.target_missing);
        let target = target.ok_or(DetailError::TargetMissing)?;
        match mapping {
            Mapping::OneToOne if sources.contains(&source) || targets.contains(&target) => {
                return Err(DetailError::OneToOneTaken);
            }
            Mapping::OneToMany if targets.contains(&target) => {
                return Err(DetailError::OneToManyTaken);
            }
            Mapping::OneToOne | Mapping::OneToMany | Mapping::ManyToMany => {}
        }
        sources.insert(source);
        targets.insert(target);
        links.insert(Link { source, target });
        Ok(Link { source, target })
    };
    details.iter().zip(stored()).map(&mut decide).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A small inventory, for the item-by-item reference implementation.
    #[derive(Debug, Clone)]
    struct Inventory {
        mapping: Mapping,
        sources: HashSet<i64>,
        targets: HashSet<i64>,
        links: Vec<Link>,
    }

    impl Inventory {
        /// The original's algorithm for one detail: check, then write.
        fn create_one(&mut self, detail: &Detail) -> Result<Link, DetailError> {
            let same_pair = |link: &&Link| {
                Some(link.source) == detail.source && Some(link.target) == detail.target
            };
            if self.links.iter().any(|link| same_pair(&link)) {
                return Err(DetailError::AlreadyExists);
            }
            let Some(source) = detail.source.filter(|id| self.sources.contains(id)) else {
                return Err(DetailError::SourceMissing);
            };
            let Some(target) = detail.target.filter(|id| self.targets.contains(id)) else {
                return Err(DetailError::TargetMissing);
            };
            let as_source = self.links.iter().filter(|link| link.source == source).count();
            let as_target = self.links.iter().filter(|link| link.target == target).count();
            if self.mapping == Mapping::OneToOne && as_source + as_target > 0 {
                return Err(DetailError::OneToOneTaken);
            }
            if self.mapping == Mapping::OneToMany && as_target > 0 {
                return Err(DetailError::OneToManyTaken);
            }
            self.links.push(Link { source, target });
            Ok(Link { source, target })
        }

        /// What the database reports about a detail.
        fn stored_state(&self, detail: &Detail) -> StoredState {
            let absent =
                |id: Option<i64>, all: &HashSet<i64>| id.is_none_or(|id| !all.contains(&id));
            let of_target = |link: &&Link| Some(link.target) == detail.target;
            let of_source = |link: &&Link| Some(link.source) == detail.source;
            let linked_source = match self.mapping {
                Mapping::ManyToMany => self.links.iter().find(|l| of_target(l) && of_source(l)),
                Mapping::OneToMany | Mapping::OneToOne => self.links.iter().find(of_target),
            };
            let linked_target = self.links.iter().find(of_source);
            StoredState {
                source_missing: absent(detail.source, &self.sources),
                target_missing: absent(detail.target, &self.targets),
                source_of_target: linked_source.map(|link| link.source),
                target_of_source: linked_target
                    .filter(|_| self.mapping == Mapping::OneToOne)
                    .map(|link| link.target),
            }
        }
    }

    fn mapping() -> impl Strategy<Value = Mapping> {
        prop_oneof![Just(Mapping::OneToOne), Just(Mapping::OneToMany), Just(Mapping::ManyToMany)]
    }

    /// Few instances, so that details collide. With `self_association`, both models are the same.
    fn inventory() -> impl Strategy<Value = Inventory> {
        let ids = || prop::collection::hash_set(0..8_i64, 0..8);
        (mapping(), ids(), ids(), any::<bool>(), details()).prop_map(
            |(mapping, sources, targets, self_association, history)| {
                let targets = if self_association { sources.clone() } else { targets };
                let mut inventory = Inventory { mapping, sources, targets, links: Vec::new() };
                for detail in &history {
                    let _ = inventory.create_one(detail);
                }
                // An instance that is no longer visible keeps its links.
                inventory.sources.remove(&3);
                inventory
            },
        )
    }

    fn details() -> impl Strategy<Value = Vec<Detail>> {
        let id = || prop_oneof![9 => (0..10_i64).prop_map(Some), 1 => Just(None)];
        let detail = (id(), id()).prop_map(|(source, target)| Detail { source, target });
        prop::collection::vec(detail, 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 5_000, failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn a_plan_equals_creating_the_details_one_after_another(
            mut inventory in inventory(), details in details(),
        ) {
            let stored: Vec<_> = details.iter().map(|one| inventory.stored_state(one)).collect();
            let planned = plan(inventory.mapping, &details, &stored);
            let one_by_one: Vec<_> = details.iter().map(|one| inventory.create_one(one)).collect();
            prop_assert_eq!(planned, one_by_one);
        }
    }

    fn pairs(details: &[(i64, i64)]) -> Vec<Detail> {
        let detail = |&(source, target)| Detail { source: Some(source), target: Some(target) };
        details.iter().map(detail).collect()
    }

    #[test]
    fn under_1_1_the_source_and_target_roles_are_independent() {
        let details = pairs(&[(1, 2), (2, 3), (2, 1), (3, 1), (1, 1)]);
        let decisions = plan(Mapping::OneToOne, &details, &[]);
        let created: Vec<_> = decisions.iter().map(Result::is_ok).collect();
        assert_eq!(created, [true, true, false, true, false]);
    }

    #[test]
    fn a_refused_detail_does_not_affect_the_others() {
        let stored = [
            StoredState { source_missing: true, ..StoredState::default() },
            StoredState::default(),
        ];
        let decisions = plan(Mapping::OneToMany, &pairs(&[(1, 5), (2, 5)]), &stored);
        assert_eq!(decisions, [Err(DetailError::SourceMissing), Ok(Link { source: 2, target: 5 })]);
    }
}
