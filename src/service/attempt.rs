//! The attempts to serve a request: what each looks up, in caches or in the database, and whether
//! it must be repeated, because a cached value was stale or another transaction conflicted.
//!
//! Each change of models, association kinds or model associations, and each deletion of instances,
//! makes stale what all requests have looked up. So that a client that makes one after another does
//! not keep other requests from ending, there is a lock: a server makes one change at a time, and
//! none while a request holds the lock that was stale several times.

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use sqlx::PgConnection;
use tokio::sync::{Mutex as FairMutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};

use super::known_instances::KnownInstances;
use super::{Error, Service, with_connection};
use crate::db;
use crate::db::app::App;
use crate::db::cache_version::CacheVersion;
use crate::db::model::Model;
use crate::db::model_association::{AssociationsOfModel, ModelAssociation};
use crate::db::permission::UserPermissions;
use crate::db::tenant::StoredTenant;
use crate::domain::keys::{KEY_LIMIT, MODEL_ASSOCIATION_KEY_LIMIT, Tenant, is_valid_key};

/// How often a request is run again at most. More conflicts than this within 15 s point to a bug,
/// and the request fails.
const MAX_RETRIES: usize = 100;

/// After so many attempts, a request that is stale acquires the lock of changes and holds it until
/// it ends. A change acquires it in each attempt, and holds it until it ends if it was stale.
const ATTEMPTS_WITHOUT_LOCK: usize = 3;

/// How long a version may be used for reads after a statement has found it current.
const READ_STALENESS: Duration = Duration::from_secs(5);

/// The caches of a server.
pub struct Caches {
    /// By code.
    apps: Cache<String, Arc<App>>,
    /// By key and tenant.
    models: Cache<[String; 2], Arc<Model>>,
    /// By key and tenant.
    model_associations: Cache<[String; 2], Arc<ModelAssociation>>,
    /// By the model's surrogate key.
    associations_of_models: Cache<i32, Arc<AssociationsOfModel>>,
    /// By key.
    tenants: Cache<String, Arc<StoredTenant>>,
    /// By the user's name.
    permissions: Cache<String, Arc<UserPermissions>>,
    /// The instances that exist under a version.
    pub(super) known_instances: KnownInstances,
    /// The surrogate key of the model association and the application of batches of which the last
    /// one created nothing.
    pub(super) refusing: Cache<(i32, String), ()>,
    /// The lock of changes of models, association kinds and model associations, and of deletions of
    /// instances. It is acquired in the order in which it is waited for.
    changes: Arc<FairMutex<()>>,
    /// What is known of the current version.
    current: Mutex<Option<Current>>,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            apps: new_cache(),
            models: new_cache(),
            model_associations: new_cache(),
            associations_of_models: new_cache(),
            tenants: new_cache(),
            permissions: new_cache(),
            known_instances: KnownInstances::default(),
            refusing: Cache::new(10_000),
            changes: Arc::default(),
            current: Mutex::default(),
        }
    }
}

impl Caches {
    /// Those of a replica. Changes of the primary make stale what is looked up there, too.
    pub(super) fn for_replica(&self) -> Self {
        Self { changes: Arc::clone(&self.changes), ..Self::default() }
    }

    /// Notes what a statement has found or done, unless a later one was noted.
    fn set_current(&self, version: Option<CacheVersion>, sent: Instant) {
        let mut current = lock(&self.current);
        if current.is_none_or(|current| current.sent <= sent) {
            *current = Some(Current { version, sent });
        }
    }
}

fn new_cache<K: Hash + Eq + Send + Sync + 'static, T: Send + Sync + 'static>() -> Cache<K, Arc<T>> {
    Cache::builder().max_capacity(10_000).time_to_live(Duration::from_mins(5)).build()
}

/// The version that the statement sent at this time has found to be the current one; `None` if it
/// has changed the version.
#[derive(Clone, Copy)]
struct Current {
    version: Option<CacheVersion>,
    sent: Instant,
}

/// The lookups of one attempt to serve a request. All that they find is of one version, or the
/// attempt fails with [`Error::Stale`].
pub struct Lookups<'a> {
    service: &'a Service,
    deadline: Instant,
    uses_caches: bool,
    holds_lock: bool,
    used: Mutex<Used>,
}

/// The version of the lookups of an attempt.
#[derive(Clone, Copy, Default)]
struct Used {
    version: Option<CacheVersion>,
    /// Whether a statement of this attempt has found it to be the current one.
    is_current: bool,
    /// Whether the attempt makes stale what other requests have looked up.
    is_change: bool,
}

impl Lookups<'_> {
    /// The application with this code. That it is not stored is cached, too: an application that a
    /// gateway identifies need not be.
    pub async fn app(&self, code: &str) -> Result<Option<Arc<App>>, Error> {
        let query = async |conn: &mut PgConnection| Ok(Some(db::app::find(conn, code).await?));
        self.find(&self.service.caches.apps, code.to_owned(), query, |app| app.version).await
    }

    /// The model with this key that the tenant sees.
    pub(super) async fn model(
        &self, key: &str, tenant: &Tenant,
    ) -> Result<Option<Arc<Model>>, Error> {
        if !is_valid_key(key, KEY_LIMIT) {
            return Ok(None);
        }
        let query = async |conn: &mut PgConnection| db::model::find(conn, key, tenant).await;
        let cache_key = [key, tenant.as_str()].map(str::to_owned);
        self.find(&self.service.caches.models, cache_key, query, |model| model.version).await
    }

    /// The model association with this key that the tenant sees.
    pub(super) async fn model_association(
        &self, key: &str, tenant: &Tenant,
    ) -> Result<Option<Arc<ModelAssociation>>, Error> {
        if !is_valid_key(key, MODEL_ASSOCIATION_KEY_LIMIT) {
            return Ok(None);
        }
        let query =
            async |conn: &mut PgConnection| db::model_association::find(conn, key, tenant).await;
        let cache_key = [key, tenant.as_str()].map(str::to_owned);
        let cache = &self.service.caches.model_associations;
        self.find(cache, cache_key, query, |association| association.version).await
    }

    /// The model associations of which the model with this surrogate key is the source or the
    /// target; `None` if there are none.
    pub(super) async fn associations_of_model(
        &self, model_id: i32,
    ) -> Result<Option<Arc<AssociationsOfModel>>, Error> {
        let query = async |conn: &mut PgConnection| {
            db::model_association::list_of_model(conn, model_id).await
        };
        let cache = &self.service.caches.associations_of_models;
        self.find(cache, model_id, query, |associations| associations.version).await
    }

    /// The tenant's surrogate key, if it is stored.
    pub(super) async fn tenant_id(&self, tenant: &Tenant) -> Result<Option<i32>, Error> {
        let query = async |conn: &mut PgConnection| db::tenant::find(conn, tenant).await;
        let cache = &self.service.caches.tenants;
        let key = tenant.as_str().to_owned();
        Ok(self.find(cache, key, query, |found| found.version).await?.map(|found| found.id))
    }

    /// The models of which the user may edit every instance, and those that the user may view.
    pub(super) async fn permissions(&self, user: &str) -> Result<Arc<UserPermissions>, Error> {
        let query =
            async |conn: &mut PgConnection| Ok(Some(db::permission::find(conn, user).await?));
        let cache = &self.service.caches.permissions;
        let found = self.find(cache, user.to_owned(), query, |found| found.version).await?;
        Ok(found.expect("the query finds something for every user"))
    }

    async fn find<K: Hash + Eq + Send + Sync + 'static, T: Send + Sync + 'static>(
        &self, cache: &Cache<K, Arc<T>>, key: K,
        query: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<Option<T>>,
        version_of: fn(&T) -> CacheVersion,
    ) -> Result<Option<Arc<T>>, Error> {
        if self.uses_caches
            && let Some(value) = cache.get(&key)
        {
            self.require_version(version_of(&value))?;
            return Ok(Some(value));
        }
        cache.invalidate(&key);
        let sent = Instant::now();
        let work = async |conn: &mut PgConnection| Ok(query(conn).await?);
        let found = with_connection(&self.service.pool, self.deadline, work).await?;
        let Some(value) = found.map(Arc::new) else { return Ok(None) };
        self.set_current(version_of(&value), sent)?;
        cache.insert(key, Arc::clone(&value));
        Ok(Some(value))
    }

    /// Fails unless everything that was looked up is of this version.
    fn require_version(&self, version: CacheVersion) -> Result<(), Error> {
        let used = *self.used().version.get_or_insert(version);
        if used == version { Ok(()) } else { Err(Error::Stale) }
    }

    /// Must be called when a statement that was sent at `sent` has found this version to be the
    /// current one. Fails unless everything that was looked up is of this version.
    pub(super) fn set_current(&self, version: CacheVersion, sent: Instant) -> Result<(), Error> {
        self.service.caches.set_current(Some(version), sent);
        self.require_version(version)?;
        self.used().is_current = true;
        Ok(())
    }

    /// Must be called when a statement of this attempt has found the version of everything that was
    /// looked up to be the current one, and may have changed it. Later reads look for the new one.
    pub(super) fn set_changed(&self) {
        self.service.caches.set_current(None, Instant::now());
        self.used().is_current = true;
    }

    /// Acquires the lock of changes for a change, unless the request holds it.
    pub(super) async fn lock_for_change(&self) -> Result<Option<OwnedMutexGuard<()>>, Error> {
        self.used().is_change = true;
        self.lock_changes().await
    }

    async fn lock_changes(&self) -> Result<Option<OwnedMutexGuard<()>>, Error> {
        if self.holds_lock {
            return Ok(None);
        }
        let lock = Arc::clone(&self.service.caches.changes).lock_owned();
        timeout_at(self.deadline, lock).await.map(Some).or(Err(Error::OutOfTime))
    }

    /// The version of everything that was looked up; `None` if nothing was found.
    pub(super) fn version(&self) -> Option<CacheVersion> {
        self.used().version
    }

    /// Whether an answer may be given that depends on the lookups. A refusal or a write is answered
    /// only after a statement of this attempt has found their version current. The answer to a read
    /// may follow from a version that was current within [`READ_STALENESS`].
    async fn are_current(&self, is_refusal: bool) -> Result<bool, Error> {
        let Used { version, is_current, .. } = *self.used();
        let Some(version) = version.filter(|_| !is_current) else { return Ok(true) };
        let recent = lock(&self.service.caches.current).filter(|_| !is_refusal);
        if recent.is_some_and(|current| {
            current.version == Some(version) && current.sent.elapsed() < READ_STALENESS
        }) {
            return Ok(true);
        }
        let sent = Instant::now();
        let find = async |conn: &mut PgConnection| Ok(db::cache_version::find(conn).await?);
        let current = with_connection(&self.service.pool, self.deadline, find).await?;
        match self.set_current(current, sent) {
            Err(Error::Stale) => Ok(false),
            result => result.map(|()| true),
        }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        lock(&self.used)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What follows from the result of an attempt.
pub enum Next<T> {
    /// The request was carried out: the answer is sent.
    Answer(T),
    /// The request must be run again.
    Repeat,
}

/// Decides whether a request is run again: because of a conflict with another transaction, or
/// because lookups were stale.
pub struct Retry<'a> {
    service: &'a Service,
    deadline: Instant,
    uses_caches: bool,
    retries: usize,
    lock: Option<OwnedMutexGuard<()>>,
}

impl<'a> Retry<'a> {
    /// For a request that must be answered at `deadline`.
    pub fn new(service: &'a Service, deadline: Instant) -> Self {
        Self { service, deadline, uses_caches: true, retries: 0, lock: None }
    }

    /// The lookups of the next attempt.
    pub fn lookups(&self) -> Lookups<'a> {
        let Self { service, deadline, uses_caches, .. } = *self;
        let holds_lock = self.lock.is_some();
        Lookups { service, deadline, uses_caches, holds_lock, used: Mutex::default() }
    }

    /// Whether the result of an attempt is final. If it is an error, returns it.
    pub async fn accept<T>(
        &mut self, lookups: &Lookups<'_>, result: Result<T, Error>,
    ) -> Result<Next<T>, Error> {
        let mut is_stale = true;
        match result {
            Err(Error::Stale) => {}
            Err(Error::Conflict) => is_stale = false,
            Err(error @ (Error::Database(_) | Error::OutOfTime)) => return Err(error),
            Ok(_) | Err(Error::Refused(_)) => {
                if lookups.are_current(result.is_err()).await? {
                    return result.map(Next::Answer);
                }
            }
        }
        self.retries += 1;
        if self.retries > MAX_RETRIES {
            return Err(Error::Conflict);
        }
        if is_stale {
            self.uses_caches = false;
            let is_change = lookups.used().is_change;
            if self.lock.is_none() && (is_change || self.retries >= ATTEMPTS_WITHOUT_LOCK) {
                self.lock = lookups.lock_changes().await?;
            }
        }
        Ok(Next::Repeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_sent_before_a_change_does_not_bring_the_old_version_back() {
        let (caches, version) = (Caches::default(), CacheVersion(1));
        let sent = Instant::now();
        let known = || lock(&caches.current).and_then(|current| current.version);
        caches.set_current(Some(version), sent);
        assert_eq!(known(), Some(version));
        caches.set_current(None, sent + Duration::from_millis(2));
        caches.set_current(Some(version), sent + Duration::from_millis(1));
        assert_eq!(known(), None);
        caches.set_current(Some(version), sent + Duration::from_millis(3));
        assert_eq!(known(), Some(version));
    }
}
