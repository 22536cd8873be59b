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
