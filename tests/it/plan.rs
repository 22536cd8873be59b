//! Planning a batch, compared with a reference implementation that creates its details one by one.

use std::collections::HashSet;

use cmdb_associations::domain::association::Mapping;
use cmdb_associations::domain::batch::{Detail, Link, LinkedEnd, StoredState, plan};
use cmdb_associations::domain::error::DetailError;
use proptest::prelude::*;

/// The instances of two models, and their links under one model association.
#[derive(Debug, Clone)]
pub(crate) struct Inventory {
    pub(crate) mapping: Mapping,
    pub(crate) sources: HashSet<i64>,
    pub(crate) targets: HashSet<i64>,
    pub(crate) links: Vec<Link>,
}

impl Inventory {
    /// The original's algorithm for one detail: check, then write.
    pub(crate) fn create_one(&mut self, detail: &Detail) -> Result<Link, DetailError> {
        let same_pair =
            |link: &&Link| Some(link.source) == detail.source && Some(link.target) == detail.target;
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
        let absent = |id: Option<i64>, all: &HashSet<i64>| id.is_none_or(|id| !all.contains(&id));
        let of_target = |link: &&Link| Some(link.target) == detail.target;
        let of_source = |link: &&Link| Some(link.source) == detail.source;
        let linked_source = match self.mapping {
            Mapping::ManyToMany => self.links.iter().find(|l| of_target(l) && of_source(l)),
            Mapping::OneToMany | Mapping::OneToOne => self.links.iter().find(of_target),
        };
        let linked_target = self.links.iter().find(of_source);
        let end = |instance_id| LinkedEnd { instance_id, link_id: None };
        StoredState {
            source_missing: absent(detail.source, &self.sources),
            target_missing: absent(detail.target, &self.targets),
            source_of_target: linked_source.map(|link| end(link.source)),
            target_of_source: linked_target
                .filter(|_| self.mapping == Mapping::OneToOne)
                .map(|link| end(link.target)),
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
        let planned: Vec<_> =
            planned.into_iter().map(|one| one.map_err(|refusal| refusal.error)).collect();
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
    let stored =
        [StoredState { source_missing: true, ..StoredState::default() }, StoredState::default()];
    let decisions = plan(Mapping::OneToMany, &pairs(&[(1, 5), (2, 5)]), &stored);
    let errors: Vec<_> = decisions.iter().map(|one| one.err().map(|one| one.error)).collect();
    assert_eq!(errors, [Some(DetailError::SourceMissing), None]);
}
