//! Caches of what requests are authorized on. An entry carries the version of the cached state
//! (`cache_version`) at which it was read, so that nothing is decided on one that is outdated.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use crate::db::cache_version::CacheVersion;
use crate::db::permission::{AssociationAccess, ModelAccess};
use crate::domain::identity::App;

/// The most entries of each cache.
const CAPACITY: u64 = 10_000;

/// How long an entry is kept.
const TTL: Duration = Duration::from_mins(5);

/// A cached value, with the version at which it was read.
pub(super) type Versioned<T> = (CacheVersion, Arc<T>);

/// The caches of a server.
pub struct Caches {
    /// Applications by their codes.
    pub(super) apps: Cache<String, Versioned<App>>,
    /// By user, key of the model association and tenant.
    pub(super) association_access: Cache<[String; 3], Versioned<AssociationAccess>>,
    /// By user and key of the model.
    pub(super) model_access: Cache<[String; 2], Versioned<ModelAccess>>,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            apps: Cache::builder().max_capacity(CAPACITY).time_to_live(TTL).build(),
            association_access: Cache::builder().max_capacity(CAPACITY).time_to_live(TTL).build(),
            model_access: Cache::builder().max_capacity(CAPACITY).time_to_live(TTL).build(),
        }
    }
}
