//! What a batch does: who is created, who is refused, and why.

use std::collections::HashSet;

use super::association::Mapping;
use super::error::DetailError;

/// The most details a request may have.
pub const DETAIL_LIMIT: usize = 200;

/// A pair of instances under some model association.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    /// The source instance.
    pub source: i64,
    /// The target instance.
    pub target: i64,
}

/// One element of `details`. An id that was not given names no instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Detail {
    /// `bk_inst_id`.
    pub source: Option<i64>,
    /// `bk_asst_inst_id`.
    pub target: Option<i64>,
}

/// What is stored that bears on one detail. The default is that nothing stands in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fact {
    /// Its source does not exist.
    pub source_missing: bool,
    /// Its target does not exist.
    pub target_missing: bool,
    /// Whose target its target is. Under n:n a target is shared: only the detail's own source counts.
    pub source_of_target: Option<i64>,
    /// Under 1:1, whose source its source is.
    pub target_of_source: Option<i64>,
}

/// Whether a detail becomes a link.
pub type Verdict = Result<Link, DetailError>;

/// Decides each detail as if they were created one after another, in order.
///
/// `facts` has one for each detail, or none at all: then nothing stands in anybody's way.
pub fn plan(mapping: Mapping, details: &[Detail], facts: &[Fact]) -> Vec<Verdict> {
    let facts = || facts.iter().copied().chain(std::iter::repeat(Fact::default()));
    let mut standing: HashSet<Link> = HashSet::new();
    for (detail, fact) in details.iter().zip(facts()) {
        let of_target = fact.source_of_target.zip(detail.target);
        let of_source = detail.source.zip(fact.target_of_source);
        let links = of_target.into_iter().chain(of_source);
        standing.extend(links.map(|(source, target)| Link { source, target }));
    }
    let mut sources: HashSet<i64> = standing.iter().map(|link| link.source).collect();
    let mut targets: HashSet<i64> = standing.iter().map(|link| link.target).collect();

    let mut decide = |(detail, fact): (&Detail, Fact)| {
        if let (Some(source), Some(target)) = (detail.source, detail.target)
            && standing.contains(&Link { source, target })
        {
            return Err(DetailError::AlreadyExists);
        }
        let source = detail.source.filter(|_| !fact.source_missing);
        let source = source.ok_or(DetailError::SourceMissing)?;
        let target = detail.target.filter(|_| !fact.target_missing);
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
        standing.insert(Link { source, target });
        Ok(Link { source, target })
    };
    details.iter().zip(facts()).map(&mut decide).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A small inventory in which everything can be looked at: the slow twin's database.
    #[derive(Debug, Clone)]
    struct World {
        mapping: Mapping,
        sources: HashSet<i64>,
        targets: HashSet<i64>,
        links: Vec<Link>,
    }

    impl World {
        /// The original's algorithm: look, decide, write, next.
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

        /// What the database reports about a detail, and no more than that.
        fn fact(&self, detail: &Detail) -> Fact {
            let absent =
                |id: Option<i64>, all: &HashSet<i64>| id.is_none_or(|id| !all.contains(&id));
            let of_target = |link: &&Link| Some(link.target) == detail.target;
            let of_source = |link: &&Link| Some(link.source) == detail.source;
            let in_the_way = match self.mapping {
                Mapping::ManyToMany => self.links.iter().find(|l| of_target(l) && of_source(l)),
                Mapping::OneToMany | Mapping::OneToOne => self.links.iter().find(of_target),
            };
            let from_source = self.links.iter().find(of_source);
            Fact {
                source_missing: absent(detail.source, &self.sources),
                target_missing: absent(detail.target, &self.targets),
                source_of_target: in_the_way.map(|link| link.source),
                target_of_source: from_source
                    .filter(|_| self.mapping == Mapping::OneToOne)
                    .map(|link| link.target),
            }
        }
    }

    fn mapping() -> impl Strategy<Value = Mapping> {
        prop_oneof![Just(Mapping::OneToOne), Just(Mapping::OneToMany), Just(Mapping::ManyToMany)]
    }

    /// Few instances, so that details collide. With `itself`, source and target model are one.
    fn world() -> impl Strategy<Value = World> {
        let ids = || prop::collection::hash_set(0..8_i64, 0..8);
        (mapping(), ids(), ids(), any::<bool>(), details()).prop_map(
            |(mapping, sources, targets, itself, history)| {
                let targets = if itself { sources.clone() } else { targets };
                let mut world = World { mapping, sources, targets, links: Vec::new() };
                for detail in &history {
                    let _ = world.create_one(detail);
                }
                // Some instances vanish from sight: what they had still stands.
                world.sources.remove(&3);
                world
            },
        )
    }

    fn details() -> impl Strategy<Value = Vec<Detail>> {
        let id = || prop_oneof![9 => (0..10_i64).prop_map(Some), 1 => Just(None)];
        let detail = (id(), id()).prop_map(|(source, target)| Detail { source, target });
        prop::collection::vec(detail, 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_plan_is_what_one_after_another_gives(world in world(), details in details()) {
            let facts: Vec<_> = details.iter().map(|detail| world.fact(detail)).collect();
            let planned = plan(world.mapping, &details, &facts);
            let mut twin = world;
            let one_by_one: Vec<_> = details.iter().map(|detail| twin.create_one(detail)).collect();
            prop_assert_eq!(planned, one_by_one);
        }
    }

    fn pairs(details: &[(i64, i64)]) -> Vec<Detail> {
        let detail = |&(source, target)| Detail { source: Some(source), target: Some(target) };
        details.iter().map(detail).collect()
    }

    #[test]
    fn in_1_1_source_and_target_roles_are_counted_apart() {
        let details = pairs(&[(1, 2), (2, 3), (2, 1), (3, 1), (1, 1)]);
        let verdicts = plan(Mapping::OneToOne, &details, &[]);
        let created: Vec<_> = verdicts.iter().map(Result::is_ok).collect();
        assert_eq!(created, [true, true, false, true, false]);
    }

    #[test]
    fn a_refused_detail_blocks_nobody() {
        let facts = [Fact { source_missing: true, ..Fact::default() }, Fact::default()];
        let verdicts = plan(Mapping::OneToMany, &pairs(&[(1, 5), (2, 5)]), &facts);
        assert_eq!(verdicts, [Err(DetailError::SourceMissing), Ok(Link { source: 2, target: 5 })]);
    }
}
