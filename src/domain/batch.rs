//! What requests to create links do: which pairs become links, which are refused, and why.

use std::collections::HashMap;

use super::association::Mapping;
use super::error::{DetailError, End};

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

/// One detail of a batch. Without an id it refers to an instance that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Detail {
    /// The source instance's id.
    pub source: Option<i64>,
    /// The target instance's id.
    pub target: Option<i64>,
}

/// A request to create links.
#[derive(Debug, Clone, Default)]
pub struct CreateLinks {
    /// The model association's key.
    pub model_association: String,
    /// The source model's key.
    pub source_model: String,
    /// The target model's key.
    pub target_model: String,
    /// 1 to [`DETAIL_LIMIT`] details.
    pub details: Vec<Detail>,
    /// What else the caller asks for.
    pub options: BatchOptions,
}

/// What a caller can ask for beside the links. The default is what the original does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchOptions {
    /// Whether a pair that is linked already counts as created, with the id of its link.
    pub accepts_existing: bool,
    /// Whether the answer explains refusals.
    pub explain: bool,
    /// Why the links are created, for the audit log.
    pub reason: Option<String>,
}

impl BatchOptions {
    /// Whether the answer depends on which links are in the way.
    pub fn wants_links(&self) -> bool {
        self.accepts_existing || self.explain
    }
}

/// The most characters of a reason.
pub const REASON_LIMIT: usize = 200;

/// A request to create one link.
#[derive(Debug, Clone)]
pub struct CreateLink {
    /// The model association's key.
    pub model_association: String,
    /// The pair of instances.
    pub pair: Detail,
}

/// The stored state that one detail depends on. By default nothing prevents the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredState {
    /// The source instance does not exist.
    pub source_missing: bool,
    /// The target instance does not exist.
    pub target_missing: bool,
    /// A source that the target is linked to. Under n:n it is the detail's own source or `None`.
    pub source_of_target: Option<LinkedEnd>,
    /// Under 1:1, the target that the source is linked to.
    pub target_of_source: Option<LinkedEnd>,
}

/// The other end of a stored link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkedEnd {
    /// The instance.
    pub instance_id: i64,
    /// The link, if it was looked up and is one of the caller's tenant, which sees no others.
    pub link_id: Option<i64>,
}

/// What is in the way of a detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocker {
    /// A stored link; its id, if the caller's tenant sees it.
    Link(Option<i64>),
    /// An earlier detail of the batch, by its index.
    Detail(usize),
}

/// Why a detail is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedDetail {
    /// The first check that failed.
    pub error: DetailError,
    /// What is in the way, and of which end; `None`: an instance is missing, or it is not known.
    pub blocker: Option<(End, Blocker)>,
    /// Whether the source does not exist.
    pub source_missing: bool,
    /// Whether the target does not exist.
    pub target_missing: bool,
}

/// A refusal of which nothing but the error is known.
impl From<DetailError> for RefusedDetail {
    fn from(error: DetailError) -> Self {
        Self { error, blocker: None, source_missing: false, target_missing: false }
    }
}

/// The link that a detail becomes, or why it is refused.
pub type Decision = Result<Link, RefusedDetail>;

/// Decides each detail as if the details were created one after another, in order.
///
/// `stored` has one element for each detail, or none: then nothing stored prevents any link.
pub fn plan(mapping: Mapping, details: &[Detail], stored: &[StoredState]) -> Vec<Decision> {
    let stored = || stored.iter().copied().chain(std::iter::repeat(StoredState::default()));
    let mut links = HashMap::with_capacity(details.len());
    let mut sources = HashMap::with_capacity(details.len());
    let mut targets = HashMap::with_capacity(details.len());
    let mut occupy = |source, target, blocker: Blocker| {
        links.entry(Link { source, target }).or_insert(blocker);
    };
    for (detail, stored) in details.iter().zip(stored()) {
        if let Some((end, target)) = stored.source_of_target.zip(detail.target) {
            occupy(end.instance_id, target, Blocker::Link(end.link_id));
        }
        if let Some((source, end)) = detail.source.zip(stored.target_of_source) {
            occupy(source, end.instance_id, Blocker::Link(end.link_id));
        }
    }
    for (link, blocker) in &links {
        sources.insert(link.source, *blocker);
        targets.insert(link.target, *blocker);
    }

    let mut decide = |(index, (detail, stored)): (usize, (&Detail, StoredState))| {
        let refuse =
            |error, blocker| RefusedDetail { blocker, ..RefusedDetail::of(error, detail, &stored) };
        if let (Some(source), Some(target)) = (detail.source, detail.target)
            && let Some(blocker) = links.get(&Link { source, target })
        {
            return Err(refuse(DetailError::AlreadyExists, Some((End::Target, *blocker))));
        }
        let (source, target) = existing_ends(detail, &stored)?;
        let of_source = sources.get(&source).map(|blocker| (End::Source, *blocker));
        let of_target = targets.get(&target).map(|blocker| (End::Target, *blocker));
        let (error, blocker) = match mapping {
            Mapping::OneToOne => (DetailError::OneToOneTaken, of_source.or(of_target)),
            Mapping::OneToMany => (DetailError::OneToManyTaken, of_target),
            Mapping::ManyToMany => (DetailError::AlreadyExists, None),
        };
        if blocker.is_some() {
            return Err(refuse(error, blocker));
        }
        sources.insert(source, Blocker::Detail(index));
        targets.insert(target, Blocker::Detail(index));
        links.insert(Link { source, target }, Blocker::Detail(index));
        Ok(Link { source, target })
    };
    details.iter().zip(stored()).enumerate().map(&mut decide).collect()
}

/// Decides details that are each created by a request of its own.
///
/// The checks are those of a batch in another order: the mapping comes first, so a pair that is
/// linked already counts as taken under 1:1 and 1:n. `stored` is as for [`plan`].
pub fn plan_alone(mapping: Mapping, details: &[Detail], stored: &[StoredState]) -> Vec<Decision> {
    let stored = stored.iter().copied().chain(std::iter::repeat(StoredState::default()));
    let decide = |(detail, stored): (&Detail, StoredState)| {
        if stored.source_of_target.is_some() || stored.target_of_source.is_some() {
            return Err(RefusedDetail::from(match mapping {
                Mapping::OneToOne => DetailError::OneToOneTaken,
                Mapping::OneToMany => DetailError::OneToManyTaken,
                Mapping::ManyToMany => DetailError::AlreadyExists,
            }));
        }
        let (source, target) = existing_ends(detail, &stored)?;
        Ok(Link { source, target })
    };
    details.iter().zip(stored).map(decide).collect()
}

/// The ends of a detail, which must exist.
fn existing_ends(detail: &Detail, stored: &StoredState) -> Result<(i64, i64), RefusedDetail> {
    let source = detail.source.filter(|_| !stored.source_missing);
    let target = detail.target.filter(|_| !stored.target_missing);
    let source =
        source.ok_or_else(|| RefusedDetail::of(DetailError::SourceMissing, detail, stored))?;
    let target =
        target.ok_or_else(|| RefusedDetail::of(DetailError::TargetMissing, detail, stored))?;
    Ok((source, target))
}

impl RefusedDetail {
    fn of(error: DetailError, detail: &Detail, stored: &StoredState) -> Self {
        Self {
            source_missing: detail.source.is_none() || stored.source_missing,
            target_missing: detail.target.is_none() || stored.target_missing,
            ..error.into()
        }
    }
}

/// For each detail of a batch the id of the new link, or why it was refused.
pub type DetailOutcomes = Vec<Result<i64, RefusedDetail>>;

/// The outcomes if a pair that is linked already counts as created.
pub fn accept_existing(outcomes: &DetailOutcomes) -> DetailOutcomes {
    let accept = |outcome: &Result<i64, RefusedDetail>| {
        let Err(RefusedDetail {
            error: DetailError::AlreadyExists,
            blocker: Some((_, blocker)),
            ..
        }) = outcome
        else {
            return *outcome;
        };
        match blocker {
            Blocker::Link(Some(id)) => Ok(*id),
            Blocker::Link(None) => *outcome,
            Blocker::Detail(index) => outcomes.get(*index).copied().unwrap_or(*outcome),
        }
    };
    outcomes.iter().map(accept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Detail = Detail { source: Some(1), target: Some(2) };

    fn decide_alone(mapping: Mapping, stored: StoredState) -> Decision {
        plan_alone(mapping, &[PAIR], &[stored])[0]
    }

    fn error_alone(mapping: Mapping, stored: StoredState) -> Option<DetailError> {
        decide_alone(mapping, stored).err().map(|refusal| refusal.error)
    }

    fn linked_to(instance_id: i64) -> LinkedEnd {
        LinkedEnd { instance_id, link_id: None }
    }

    #[test]
    fn the_mapping_decides_on_a_pair_alone_before_its_instances_do() {
        let missing =
            StoredState { source_missing: true, target_missing: true, ..StoredState::default() };
        let other_source = StoredState { source_of_target: Some(linked_to(9)), ..missing };
        let other_target = StoredState { target_of_source: Some(linked_to(9)), ..missing };
        let same = StoredState { source_of_target: Some(linked_to(1)), ..StoredState::default() };
        for (mapping, stored, error) in [
            (Mapping::OneToOne, other_source, DetailError::OneToOneTaken),
            (Mapping::OneToOne, other_target, DetailError::OneToOneTaken),
            (Mapping::OneToOne, same, DetailError::OneToOneTaken),
            (Mapping::OneToMany, other_source, DetailError::OneToManyTaken),
            (Mapping::OneToMany, same, DetailError::OneToManyTaken),
            (Mapping::ManyToMany, same, DetailError::AlreadyExists),
        ] {
            assert_eq!(error_alone(mapping, stored), Some(error), "{mapping:?} {stored:?}");
        }
    }

    #[test]
    fn the_source_of_a_pair_alone_is_checked_before_its_target() {
        let none = StoredState::default();
        let no_target = StoredState { target_missing: true, ..none };
        let neither = StoredState { source_missing: true, ..no_target };
        let link = Link { source: 1, target: 2 };
        for mapping in [Mapping::OneToOne, Mapping::OneToMany, Mapping::ManyToMany] {
            assert_eq!(error_alone(mapping, neither), Some(DetailError::SourceMissing));
            assert_eq!(error_alone(mapping, no_target), Some(DetailError::TargetMissing));
            assert_eq!(decide_alone(mapping, none), Ok(link));
            // Without a stored state nothing prevents the link.
            assert_eq!(plan_alone(mapping, &[PAIR], &[]), [Ok(link)]);
        }
    }

    #[test]
    fn a_refusal_says_what_is_in_the_way() {
        let detail = |source, target| Detail { source: Some(source), target: Some(target) };
        let stored = |instance_id, link_id| StoredState {
            source_of_target: Some(LinkedEnd { instance_id, link_id }),
            ..StoredState::default()
        };
        let free = StoredState::default();
        let details = [detail(1, 5), detail(2, 5), detail(3, 6), detail(1, 5), detail(4, 7)];
        let states = [free, free, stored(9, Some(73)), free, stored(8, None)];
        let decisions = plan(Mapping::OneToMany, &details, &states);
        let blockers: Vec<_> =
            decisions.iter().map(|one| one.err().map(|one| one.blocker)).collect();
        let by = |blocker| Some(Some((End::Target, blocker)));
        let expected = [
            None,
            by(Blocker::Detail(0)),
            by(Blocker::Link(Some(73))),
            by(Blocker::Detail(0)),
            by(Blocker::Link(None)),
        ];
        assert_eq!(blockers, expected);
        // Only the pair that is linked itself counts as created.
        let mut ids = [74].into_iter();
        let outcomes = decisions.iter().map(|one| one.map(|_| ids.next().unwrap())).collect();
        let accepted = accept_existing(&outcomes);
        assert_eq!(
            accepted.iter().map(Result::is_ok).collect::<Vec<_>>(),
            [true, false, false, true, false]
        );
        assert_eq!(accepted[3], Ok(74));
    }

    #[test]
    fn under_1_1_the_source_that_is_taken_is_named_before_the_target() {
        let end = |link_id| Some(LinkedEnd { instance_id: 9, link_id: Some(link_id) });
        let stored = StoredState {
            source_of_target: end(1),
            target_of_source: end(2),
            ..StoredState::default()
        };
        let refusal = plan(Mapping::OneToOne, &[PAIR], &[stored])[0].unwrap_err();
        assert_eq!(refusal.blocker, Some((End::Source, Blocker::Link(Some(2)))));
    }

    #[test]
    fn both_ends_that_are_missing_are_named() {
        let stored =
            StoredState { source_missing: true, target_missing: true, ..StoredState::default() };
        let refusal = plan(Mapping::ManyToMany, &[PAIR], &[stored])[0].unwrap_err();
        assert_eq!(refusal.error, DetailError::SourceMissing);
        assert!(refusal.source_missing && refusal.target_missing);
    }
}
