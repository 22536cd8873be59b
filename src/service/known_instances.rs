//! The instances that requests have found. A deletion of instances changes the cache version, so
//! they exist as long as it stays the same, and need not be looked up again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::db::cache_version::CacheVersion;

/// How many consecutive ids share a bitmap.
const RANGE: i64 = 128;

/// How many bitmaps are kept at most. They take up to 6 MB.
const MAX_BITMAPS: usize = 100_000;

/// A model and a tenant that sees the instances, by their surrogate keys.
type Visible = (i32, Option<i32>);

/// Instances that existed under the last version that requests were authorized on.
#[derive(Default)]
pub struct KnownInstances(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The version under which all of them were found.
    version: Option<CacheVersion>,
    /// Bitmaps of ids, by model and tenant and by the ids divided by [`RANGE`].
    bitmaps: HashMap<(Visible, i64), u128>,
}

impl KnownInstances {
    /// Those of the ids that are not known to exist under this version, each once and in order.
    pub fn unknown(
        &self, version: CacheVersion, of: Visible, ids: impl Iterator<Item = i64>,
    ) -> Vec<i64> {
        let mut ids: Vec<_> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.version == Some(version) {
            ids.retain(|id| {
                let bitmap = known.bitmaps.get(&(of, id.div_euclid(RANGE)));
                bitmap.is_none_or(|bitmap| bitmap & bit(*id) == 0)
            });
        }
        ids
    }

    /// Adds instances that exist under this version, and forgets those of another version.
    pub fn insert(&self, version: CacheVersion, of: Visible, ids: &[i64]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.version != Some(version) {
            *known = Known { version: Some(version), ..Known::default() };
        }
        for id in ids {
            if known.bitmaps.len() >= MAX_BITMAPS {
                known.bitmaps.clear();
            }
            *known.bitmaps.entry((of, id.div_euclid(RANGE))).or_default() |= bit(*id);
        }
    }
}

fn bit(id: i64) -> u128 {
    1 << id.rem_euclid(RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: Visible = (1, Some(0));

    #[test]
    fn only_instances_of_the_same_model_tenant_and_version_are_known() {
        let known = KnownInstances::default();
        let [old, new] = [CacheVersion(1), CacheVersion(2)];
        let unknown = |version, of, ids: &[i64]| known.unknown(version, of, ids.iter().copied());
        let ids = [0, 63, 64, RANGE - 1, RANGE, i64::MAX];
        assert_eq!(unknown(old, HOSTS, &[2, 1, 2]), [1, 2], "each once and in order");
        known.insert(old, HOSTS, &ids);
        assert_eq!(unknown(old, HOSTS, &ids), [0; 0]);
        assert_eq!(unknown(old, HOSTS, &[1, 63, 65, i64::MAX - 1]), [1, 65, i64::MAX - 1]);
        for other in [(2, Some(0)), (1, Some(1)), (1, None)] {
            assert_eq!(unknown(old, other, &ids), ids);
        }
        assert_eq!(unknown(new, HOSTS, &ids), ids);
        known.insert(new, HOSTS, &[5]);
        assert_eq!(unknown(new, HOSTS, &[0, 5]), [0]);
    }

    #[test]
    fn the_number_of_bitmaps_is_limited() {
        let known = KnownInstances::default();
        let version = CacheVersion(1);
        let ids: Vec<i64> = (0..=100_000).map(|bitmap| bitmap * RANGE).collect();
        let (first, last) = ids.split_at(MAX_BITMAPS);
        known.insert(version, HOSTS, first);
        assert_eq!(known.unknown(version, HOSTS, ids.iter().copied()), last);
        known.insert(version, HOSTS, last);
        assert_eq!(known.unknown(version, HOSTS, ids.iter().copied()), first);
    }
}
