//! What was in the way of the details of a batch, as the idempotency record stores it.

use serde::{Deserialize, Serialize};

use crate::domain::batch::{Blocker, Decision, RefusedDetail};
use crate::domain::error::{DetailError, End};

/// What was in the way of one detail.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Explanation {
    /// The end that is taken, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    taken: Option<StoredEnd>,
    /// The link that has taken it.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<i64>,
    /// The index of the earlier detail that has taken it.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<usize>,
    /// The ends whose instances do not exist.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<StoredEnd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredEnd {
    Source,
    Target,
}

impl Explanation {
    fn new(refusal: &RefusedDetail) -> Self {
        let RefusedDetail { blocker, source_missing, target_missing, .. } = *refusal;
        let missing = [(source_missing, StoredEnd::Source), (target_missing, StoredEnd::Target)];
        let missing = missing.into_iter().filter_map(|(is, end)| is.then_some(end)).collect();
        let taken = blocker.map(|(end, _)| match end {
            End::Source => StoredEnd::Source,
            End::Target => StoredEnd::Target,
        });
        let (link, detail) = match blocker {
            Some((_, Blocker::Link(id))) => (id, None),
            Some((_, Blocker::Detail(index))) => (None, Some(index)),
            None => (None, None),
        };
        Self { taken, link, detail, missing }
    }

    /// The refusal with an error.
    pub(super) fn refusal(&self, error: DetailError) -> RefusedDetail {
        let blocker = self.detail.map_or(Blocker::Link(self.link), Blocker::Detail);
        let taken = self.taken.map(|end| match end {
            StoredEnd::Source => End::Source,
            StoredEnd::Target => End::Target,
        });
        RefusedDetail {
            error,
            blocker: taken.map(|end| (end, blocker)),
            source_missing: self.missing.contains(&StoredEnd::Source),
            target_missing: self.missing.contains(&StoredEnd::Target),
        }
    }
}

/// What was in the way of each detail, as JSON: null for those that were accepted.
pub(super) fn json(decisions: &[Decision]) -> String {
    let explain = |decision: &Decision| decision.err().map(|refusal| Explanation::new(&refusal));
    serde_json::json!(decisions.iter().map(explain).collect::<Vec<_>>()).to_string()
}

/// Reads what [`json`] has made.
pub(super) fn parse(json: &str) -> serde_json::Result<Vec<Option<Explanation>>> {
    serde_json::from_str(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_as_it_was_stored() {
        let missing = RefusedDetail {
            source_missing: true,
            target_missing: true,
            ..DetailError::SourceMissing.into()
        };
        let taken = |end, blocker| RefusedDetail {
            blocker: Some((end, blocker)),
            ..DetailError::OneToOneTaken.into()
        };
        let refusals = [
            missing,
            taken(End::Source, Blocker::Link(Some(73))),
            taken(End::Target, Blocker::Link(None)),
            taken(End::Target, Blocker::Detail(0)),
        ];
        let decisions: Vec<_> = refusals.into_iter().map(Err).collect();
        let stored = parse(&json(&decisions)).unwrap();
        for (refusal, explanation) in refusals.iter().zip(stored) {
            assert_eq!(explanation.unwrap().refusal(refusal.error), *refusal);
        }
    }
}
