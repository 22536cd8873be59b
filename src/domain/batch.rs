//! What requests to create links do: which pairs become links, which are refused, and why.

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

/// One detail of a batch. Without an id it refers to an instance that does not exist.
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

/// Decides details that are each created by a request of its own.
///
/// The checks are those of a batch in another order: the mapping comes first, so a pair that is
/// linked already counts as taken under 1:1 and 1:n. `stored` is as for [`plan`].
pub fn plan_alone(mapping: Mapping, details: &[Detail], stored: &[StoredState]) -> Vec<Decision> {
    let stored = stored.iter().copied().chain(std::iter::repeat(StoredState::default()));
    let decide = |(detail, stored): (&Detail, StoredState)| {
        if stored.source_of_target.is_some() || stored.target_of_source.is_some() {
            return Err(match mapping {
                Mapping::OneToOne => DetailError::OneToOneTaken,
                Mapping::OneToMany => DetailError::OneToManyTaken,
                Mapping::ManyToMany => DetailError::AlreadyExists,
            });
        }
        let source = detail.source.filter(|_| !stored.source_missing);
        let source = source.ok_or(DetailError::SourceMissing)?;
        let target = detail.target.filter(|_| !stored.target_missing);
        let target = target.ok_or(DetailError::TargetMissing)?;
        Ok(Link { source, target })
    };
    details.iter().zip(stored).map(decide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Detail = Detail { source: Some(1), target: Some(2) };

    fn decide_alone(mapping: Mapping, stored: StoredState) -> Decision {
        plan_alone(mapping, &[PAIR], &[stored])[0]
    }

    #[test]
    fn the_mapping_decides_on_a_pair_alone_before_its_instances_do() {
        let missing =
            StoredState { source_missing: true, target_missing: true, ..StoredState::default() };
        let other_source = StoredState { source_of_target: Some(9), ..missing };
        let other_target = StoredState { target_of_source: Some(9), ..missing };
        let same = StoredState { source_of_target: Some(1), ..StoredState::default() };
        for (mapping, stored, error) in [
            (Mapping::OneToOne, other_source, DetailError::OneToOneTaken),
            (Mapping::OneToOne, other_target, DetailError::OneToOneTaken),
            (Mapping::OneToOne, same, DetailError::OneToOneTaken),
            (Mapping::OneToMany, other_source, DetailError::OneToManyTaken),
            (Mapping::OneToMany, same, DetailError::OneToManyTaken),
            (Mapping::ManyToMany, same, DetailError::AlreadyExists),
        ] {
            assert_eq!(decide_alone(mapping, stored), Err(error), "{mapping:?} {stored:?}");
        }
    }

    #[test]
    fn the_source_of_a_pair_alone_is_checked_before_its_target() {
        let none = StoredState::default();
        let no_target = StoredState { target_missing: true, ..none };
        let neither = StoredState { source_missing: true, ..no_target };
        let link = Link { source: 1, target: 2 };
        for mapping in [Mapping::OneToOne, Mapping::OneToMany, Mapping::ManyToMany] {
            assert_eq!(decide_alone(mapping, neither), Err(DetailError::SourceMissing));
            assert_eq!(decide_alone(mapping, no_target), Err(DetailError::TargetMissing));
            assert_eq!(decide_alone(mapping, none), Ok(link));
            // Without a stored state nothing prevents the link.
            assert_eq!(plan_alone(mapping, &[PAIR], &[]), [Ok(link)]);
        }
    }
}
