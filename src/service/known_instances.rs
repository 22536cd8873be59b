//! The instances that batches have found, so that later ones need not look them up again.
//!
//! A deletion of instances changes the cache version, so an instance exists while the version under
//! which it was found stands. But a database may lose its last commits: in a fail-over to a replica
//! that did not have them, or because it is restored from a backup. Then the instance may be lost
//! while the version stands. The commit of a batch that has found an instance comes after the one
//! that created it. So the instance was not lost if the audit record of that batch is there, which
//! the statement that writes the next batch verifies.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::db::cache_version::CacheVersion;
use crate::db::instance_association::AuditRecord;

/// How many consecutive ids share a bitmap.
const RANGE: i64 = 128;

/// How many bitmaps are kept at most. They take up to 6 MB.
const MAX_BITMAPS: usize = 100_000;

/// A model and a tenant that sees the instances, by their surrogate keys.
type Visible = (i32, Option<i32>);

/// The instances that exist.
#[derive(Default)]
pub struct KnownInstances(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The version under which all of them were found.
    version: Option<CacheVersion>,
    /// The last of the batches that have found them.
    found_by: Option<AuditRecord>,
    /// Bitmaps of ids, by model and tenant and by the ids divided by [`RANGE`].
    bitmaps: HashMap<(Visible, i64), u128>,
}

/// Instances that must be looked up.
pub struct UnknownInstances {
    /// Their ids, of sources and of targets, each once.
    pub ids: [Vec<i64>; 2],
    of: [Visible; 2],
    version: CacheVersion,
    /// The last of the batches that have found the known ones.
    pub found_by: Option<AuditRecord>,
}

impl UnknownInstances {
    /// All these instances, of sources and of targets.
    pub fn all(version: CacheVersion, of: [Visible; 2], mut ids: [Vec<i64>; 2]) -> Self {
        for ids in &mut ids {
            ids.sort_unstable();
            ids.dedup();
        }
        Self { ids, of, version, found_by: None }
    }
}

impl KnownInstances {
    /// Removes the instances that are known to exist under the same version.
    pub fn remove_known(&self, unknown: &mut UnknownInstances) {
        let known = self.lock();
        if known.version != Some(unknown.version) {
            return;
        }
        for (ids, of) in unknown.ids.iter_mut().zip(unknown.of) {
            ids.retain(|id| {
                let bitmap = known.bitmaps.get(&(of, id.div_euclid(RANGE)));
                bitmap.is_none_or(|bitmap| bitmap & bit(*id) == 0)
            });
        }
        unknown.found_by.clone_from(&known.found_by);
    }

    /// Adds instances that a batch has found. They are not added if that batch need not come after
    /// all the batches that have found the others.
    pub fn insert(&self, found: &UnknownInstances, found_by: AuditRecord) {
        let mut known = self.lock();
        if known.version != Some(found.version) {
            *known = Known { version: Some(found.version), ..Known::default() };
        }
        if found.ids.iter().all(Vec::is_empty) || known.found_by != found.found_by {
            return;
        }
        for (ids, of) in found.ids.iter().zip(found.of) {
            for id in ids {
                if known.bitmaps.len() >= MAX_BITMAPS {
                    known.bitmaps.clear();
                }
                *known.bitmaps.entry((of, id.div_euclid(RANGE))).or_default() |= bit(*id);
            }
        }
        known.found_by = Some(found_by);
    }

    /// Forgets all instances.
    pub fn clear(&self) {
        *self.lock() = Known::default();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bit(id: i64) -> u128 {
    1 << id.rem_euclid(RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: CacheVersion = CacheVersion(1);
    const NEW: CacheVersion = CacheVersion(2);
    const HOSTS: Visible = (1, Some(0));
    const SWITCHES: Visible = (2, Some(0));

    fn of(version: CacheVersion, of: Visible, ids: &[i64]) -> UnknownInstances {
        UnknownInstances::all(version, [of, SWITCHES], [ids.to_vec(), Vec::new()])
    }

    fn unknown(known: &KnownInstances, mut of: UnknownInstances) -> UnknownInstances {
        known.remove_known(&mut of);
        of
    }

    fn batch(id: i64) -> AuditRecord {
        AuditRecord { id, request_id: "id".to_owned() }
    }

    #[test]
    fn only_instances_of_the_same_model_tenant_and_version_are_known() {
        let known = KnownInstances::default();
        let ids = [0, 63, 64, RANGE - 1, RANGE, i64::MAX];
        let found = unknown(&known, of(OLD, HOSTS, &[ids, ids].concat()));
        assert_eq!((&*found.ids[0], found.found_by.clone()), (&ids[..], None));
        known.insert(&found, batch(1));
        let others = unknown(&known, of(OLD, HOSTS, &[1, 63, 65, i64::MAX - 1]));
        assert_eq!(
            (&*others.ids[0], others.found_by),
            (&[1, 65, i64::MAX - 1][..], Some(batch(1)))
        );
        for (version, model) in
            [(OLD, SWITCHES), (OLD, (1, Some(1))), (OLD, (1, None)), (NEW, HOSTS)]
        {
            assert_eq!(unknown(&known, of(version, model, &ids)).ids[0], ids);
        }
        known.insert(&of(NEW, HOSTS, &[5]), batch(2));
        assert_eq!(unknown(&known, of(NEW, HOSTS, &[0, 5])).ids[0], [0]);
    }

    #[test]
    fn what_a_batch_has_found_is_not_known_unless_it_came_after_the_last_one() {
        let known = KnownInstances::default();
        let [first, second] = [1, 2].map(|id| unknown(&known, of(OLD, HOSTS, &[id])));
        known.insert(&first, batch(1));
        known.insert(&second, batch(2));
        let third = unknown(&known, of(OLD, HOSTS, &[1, 2]));
        assert_eq!((&*third.ids[0], third.found_by.clone()), (&[2][..], Some(batch(1))));
        known.insert(&third, batch(3));
        let rest = unknown(&known, of(OLD, HOSTS, &[1, 2]));
        assert_eq!((rest.ids[0].len(), rest.found_by), (0, Some(batch(3))));
    }

    #[test]
    fn the_number_of_bitmaps_is_limited() {
        let known = KnownInstances::default();
        let ids: Vec<i64> = (0..=100_000).map(|bitmap| bitmap * RANGE).collect();
        let (first, last) = ids.split_at(MAX_BITMAPS);
        known.insert(&of(OLD, HOSTS, first), batch(1));
        let found = unknown(&known, of(OLD, HOSTS, &ids));
        assert_eq!(found.ids[0], last);
        known.insert(&found, batch(2));
        assert_eq!(unknown(&known, of(OLD, HOSTS, &ids)).ids[0], first);
    }
}
