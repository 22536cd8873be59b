//! The use cases: what HTTP and the command line ask for, step by step.
//!
//! Calls `db` with a connection and applies the rules of `domain`. Knows no HTTP.

pub mod app;
pub mod association_kind;
pub mod attempt;
pub mod audit;
pub mod change;
pub mod check;
pub mod commits;
pub mod context;
pub mod creation;
pub mod database;
pub mod deletion;
mod explanation;
pub mod idempotency;
pub mod import;
pub mod instance;
pub mod instance_association;
pub mod instance_command;
pub mod instance_search;
pub mod known_instances;
pub mod limit;
pub mod link_search;
pub mod linked_instance;
pub mod model;
pub mod model_association;
pub mod monitor;
pub mod pages;
pub mod permission;
pub mod replica;
pub mod topology;

use metrics::counter;
use sqlx::PgConnection;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use self::attempt::Caches;
use self::limit::Limiter;
pub use crate::db::STATEMENT_TIMEOUT;
pub use crate::db::pool::{Abandoned, Pool};
use crate::db::{self, ErrorClass, classify};
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::domain::permission::Authorization;

/// What all use cases need: the pool, limits and caches.
pub struct Service {
    /// The connections to the database.
    pub pool: Pool,
    /// Whether permissions are checked.
    pub authorization: Authorization,
    /// The rate limit of callers, if there is one.
    pub limiter: Option<Arc<Limiter>>,
    /// Permits for requests in flight. A request that gets none is refused at once, so that the
    /// others are answered in time.
    pub permits: Arc<Semaphore>,
    /// Permits for streamed answers, which hold no permit for a request.
    pub stream_permits: Arc<Semaphore>,
    /// What earlier requests have looked up.
    pub caches: Caches,
}

impl Service {
    /// The same for a replica with these connections. The limits and the lock of changes are
    /// shared, the caches are not.
    #[must_use]
    pub fn for_replica(&self, pool: Pool) -> Self {
        Self {
            pool,
            authorization: self.authorization,
            limiter: self.limiter.clone(),
            permits: Arc::clone(&self.permits),
            stream_permits: Arc::clone(&self.stream_permits),
            caches: self.caches.for_replica(),
        }
    }

    /// A permit for a request that is about to use the database.
    pub fn acquire_permit(&self) -> Result<SemaphorePermit<'_>, RequestError> {
        self.permits.try_acquire().or(Err(RequestError::Overloaded))
    }

    /// A permit for an answer that is about to be streamed.
    pub fn acquire_stream_permit(&self) -> Result<OwnedSemaphorePermit, RequestError> {
        Arc::clone(&self.stream_permits).try_acquire_owned().or(Err(RequestError::Overloaded))
    }
}

/// How many answers may be streamed at once: half as many as there are database connections, so
/// that streams cannot take all of them.
pub fn stream_limit(database_connections: usize) -> usize {
    (database_connections / 2).max(1)
}

/// Why a use case failed. After `Stale` and `Conflict` the request is run again.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] RequestError),
    #[error("what the request was authorized on has changed")]
    Stale,
    #[error("another transaction changed what the request depends on")]
    Conflict,
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
    #[error("the request ran out of time")]
    OutOfTime,
}

impl From<ChangeError> for Error {
    fn from(error: ChangeError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match classify(&error) {
            ErrorClass::Conflict => Self::Conflict,
            _ => Self::Database(error),
        }
    }
}

impl Error {
    /// What the caller is told.
    pub fn request_error(&self) -> RequestError {
        match self {
            Self::Refused(error) => error.clone(),
            Self::Database(error) => match classify(error) {
                ErrorClass::Bug => RequestError::Internal,
                ErrorClass::NeedsAttention => RequestError::NeedsAttention,
                ErrorClass::Conflict | ErrorClass::Unavailable => {
                    RequestError::Unavailable("Postgres")
                }
            },
            Self::Stale | Self::Conflict | Self::OutOfTime => RequestError::Unavailable("Postgres"),
        }
    }
}

/// How long a statement is waited for after the deadline. PostgreSQL has canceled any write before.
const GRACE: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// How long a request has used a connection, or waited for one.
    pub static DATABASE_TIME: Cell<Duration>;
}

/// Runs `work` on a connection until shortly after `deadline`. A connection on which the database
/// did not answer, that failed, or whose request was dropped is closed instead of reused: a
/// statement may still be running on it.
async fn with_connection<T>(
    pool: &Pool, deadline: Instant, work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
) -> Result<T, Error> {
    let started = Instant::now();
    let result = run_with_connection(pool, deadline, work).await;
    let add = |time: &Cell<Duration>| time.set(time.get() + started.elapsed());
    // Tasks in the background have none.
    let _ = DATABASE_TIME.try_with(add);
    result
}

async fn run_with_connection<T>(
    pool: &Pool, deadline: Instant, work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut connection = pool.acquire().await.inspect_err(|error| {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            counter!("cmdb_database_timeouts_total").increment(1);
        }
    })?;
    let result = timeout_at(deadline + GRACE, work(&mut connection)).await;
    match &result {
        Ok(Err(Error::Database(error))) if !db::is_connection_usable_after(error) => {
            // PostgreSQL has answered, so no commit waits.
            if db::sqlstate(error).is_some() {
                connection.disconnect();
            }
        }
        Ok(_) => connection.release(),
        Err(_) => {}
    }
    result.unwrap_or(Err(Error::OutOfTime))
}
