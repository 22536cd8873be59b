//! The attempts to serve a request: what each looks up, in caches or in the database, and whether
//! it must be repeated, because a cached value was stale or another transaction conflicted.

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use sqlx::PgConnection;
use tokio::time::Instant;

use super::{Error, Service, with_connection};
use crate::db;
use crate::db::app::App;
use crate::db::cache_version::CacheVersion;
use crate::db::permission::{ModelAccess, ModelAssociationAccess, find_model_access};
use crate::domain::keys::Tenant;

/// How often a request is run again at most. So many conflicts within 15 s do not come from other
/// transactions alone, and the request fails.
const MAX_RETRIES: usize = 100;

/// The caches of a server: applications by their codes; model associations by user, key and tenant;
/// models alike.
pub struct Caches {
    apps: Cache<String, Arc<App>>,
    associations: Cache<[String; 3], Arc<ModelAssociationAccess>>,
    models: Cache<[String; 3], Arc<ModelAccess>>,
}

impl Default for Caches {
    fn default() -> Self {
        Self { apps: new_cache(), associations: new_cache(), models: new_cache() }
    }
}

fn new_cache<K: Hash + Eq + Send + Sync + 'static, T: Send + Sync + 'static>() -> Cache<K, Arc<T>> {
    Cache::builder().max_capacity(10_000).time_to_live(Duration::from_mins(5)).build()
}

/// The lookups of one attempt to serve a request. All of them are of one version, or the attempt
/// fails with [`Error::Stale`].
pub struct Lookups<'a> {
    service: &'a Service,
    deadline: Instant,
    uses_caches: bool,
    used: Mutex<Used>,
}

/// The version of the lookups of an attempt.
#[derive(Clone, Copy, Default)]
struct Used {
    version: Option<CacheVersion>,
    /// Whether a value came from a cache, and no statement has compared its version since.
    is_version_unchecked: bool,
}

impl Lookups<'_> {
    /// The application with this code. That there is none is cached too: gateways verify others.
    pub async fn app(&self, code: &str) -> Result<Option<Arc<App>>, Error> {
        let query = async |conn: &mut PgConnection| Ok(Some(db::app::find(conn, code).await?));
        self.find(&self.service.caches.apps, code.to_owned(), query, |app| app.version).await
    }

    /// The model association with this key that is visible to the tenant, with the user's access.
    pub(super) async fn model_association_access(
        &self, user: &str, key: &str, tenant: &Tenant,
    ) -> Result<Option<Arc<ModelAssociationAccess>>, Error> {
        let query = async |conn: &mut PgConnection| {
            db::permission::find_model_association_access(conn, user, key, tenant).await
        };
        let cache_key = [user, key, tenant.as_str()].map(str::to_owned);
        let cache = &self.service.caches.associations;
        self.find(cache, cache_key, query, |access| access.version).await
    }

    /// The model with this key that is visible to the tenant, with the user's access.
    pub(super) async fn model_access(
        &self, user: &str, key: &str, tenant: &Tenant,
    ) -> Result<Option<Arc<ModelAccess>>, Error> {
        let query =
            async |conn: &mut PgConnection| find_model_access(conn, user, key, tenant).await;
        let cache_key = [user, key, tenant.as_str()].map(str::to_owned);
        self.find(&self.service.caches.models, cache_key, query, |access| access.version).await
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
            self.used().is_version_unchecked = true;
            return Ok(Some(value));
        }
        cache.invalidate(&key);
        let work = async |conn: &mut PgConnection| Ok(query(conn).await?);
        let found = with_connection(&self.service.pool, self.deadline, work).await?;
        let Some(value) = found.map(Arc::new) else { return Ok(None) };
        self.require_version(version_of(&value))?;
        cache.insert(key, Arc::clone(&value));
        Ok(Some(value))
    }

    /// Must be called when a statement has found the version to be the current one.
    pub(super) fn set_cache_version_checked(&self) {
        self.used().is_version_unchecked = false;
    }

    /// Fails unless everything that was looked up is of this version.
    pub(super) fn require_version(&self, version: CacheVersion) -> Result<(), Error> {
        let used = *self.used().version.get_or_insert(version);
        if used == version { Ok(()) } else { Err(Error::Stale) }
    }

    /// Whether the version of the lookups is the current one.
    async fn are_current(&self) -> Result<bool, Error> {
        let Used { version, is_version_unchecked } = *self.used();
        if !is_version_unchecked {
            return Ok(true);
        }
        let find = async |conn: &mut PgConnection| Ok(db::cache_version::find(conn).await?);
        let current = with_connection(&self.service.pool, self.deadline, find).await?;
        Ok(version == Some(current))
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows from the result of an attempt.
pub enum Next<T> {
    /// The request was carried out: the answer is sent.
    Answer(T),
    /// The request must be run again.
    Repeat,
}

/// Decides whether a request is run again: because of a conflict with another transaction, or
/// because lookups were stale. No answer or refusal is returned unless a statement has found the
/// version of its lookups current.
pub struct Retry<'a> {
    service: &'a Service,
    deadline: Instant,
    uses_caches: bool,
    retries: usize,
}

impl<'a> Retry<'a> {
    /// For a request that must be answered at `deadline`.
    pub fn new(service: &'a Service, deadline: Instant) -> Self {
        Self { service, deadline, uses_caches: true, retries: 0 }
    }

    /// The lookups of the next attempt.
    pub fn lookups(&self) -> Lookups<'a> {
        let Self { service, deadline, uses_caches, .. } = *self;
        Lookups { service, deadline, uses_caches, used: Mutex::default() }
    }

    /// Whether the result of an attempt is final. If it is an error, returns it.
    pub async fn accept<T>(
        &mut self, lookups: &Lookups<'_>, result: Result<T, Error>,
    ) -> Result<Next<T>, Error> {
        match result {
            Err(Error::Stale) => self.uses_caches = false,
            Err(Error::Conflict) => {}
            Err(error @ (Error::Database(_) | Error::OutOfTime)) => return Err(error),
            Ok(_) | Err(Error::Refused(_)) => {
                if lookups.are_current().await? {
                    return result.map(Next::Answer);
                }
                self.uses_caches = false;
            }
        }
        self.retries += 1;
        if self.retries > MAX_RETRIES { Err(Error::Conflict) } else { Ok(Next::Repeat) }
    }
}
