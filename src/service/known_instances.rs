//! The instances that requests have found. A deletion of instances changes the cache version, so
//! they exist as long as it stays the same, and need not be looked up again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::db::cache_version::CacheVersion;

/// How many consecutive ids share a bitmap.
const PAGE: i64 = 4_096;

/// How many bitmaps are kept at most. They take 0.6 kB each, so 5 MB in all.
const MAX_PAGES: usize = 8_192;

/// A model and a tenant that sees the instances, by their surrogate keys.
type Visible = (i32, Option<i32>);

/// Instances that existed under the last version that requests were authorized on.
#[derive(Default)]
pub struct KnownInstances(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The version under which all of them were found.
    version: Option<CacheVersion>,
    /// A bitmap for each model and tenant and each [`PAGE`] of ids.
    pages: HashMap<(Visible, i64), Box<[u64; PAGE as usize / 64]>>,
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
                let page = known.pages.get(&(of, id.div_euclid(PAGE)));
                page.is_none_or(|page| page[word(*id)] & bit(*id) == 0)
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
            let key = (of, id.div_euclid(PAGE));
            if known.pages.len() >= MAX_PAGES && !known.pages.contains_key(&key) {
                known.pages.clear();
            }
            let page = known.pages.entry(key).or_insert_with(|| Box::new([0; _]));
            page[word(*id)] |= bit(*id);
        }
    }
}

/// The index of the word of a bitmap that has this id.
fn word(id: i64) -> usize {
    usize::try_from(id.rem_euclid(PAGE) / 64).expect("an index of a bitmap")
}

fn bit(id: i64) -> u64 {
    1 << id.rem_euclid(64)
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
        let ids = [0, 63, 64, PAGE - 1, PAGE, i64::MAX];
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
        let ids: Vec<i64> = (0..=8_192).map(|page| page * PAGE).collect();
        known.insert(version, HOSTS, &ids[..MAX_PAGES]);
        assert_eq!(known.unknown(version, HOSTS, ids.iter().copied()), ids[MAX_PAGES..]);
        known.insert(version, HOSTS, &ids[MAX_PAGES..]);
        assert_eq!(known.unknown(version, HOSTS, ids.iter().copied()), ids[..MAX_PAGES]);
    }
}
