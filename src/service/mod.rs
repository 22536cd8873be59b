//! The use cases: what a door asks for, in the order in which it is done.
//!
//! Takes a pool, calls `db`, applies `domain`. Knows no HTTP.

pub mod app;
pub mod caller;
pub mod check;
pub mod gateway;
pub mod idempotency;
pub mod import;
pub mod instance_association;
pub mod limit;
pub mod login;
pub mod memory;
pub mod permission;
pub mod schema;

use std::time::Duration;

use metrics::counter;
use sqlx::PgConnection;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use self::gateway::Gateway;
use self::limit::Limiter;
use self::login::Login;
use self::memory::Memory;
pub use crate::db::pool::Pool;
use crate::db::{self, ErrorClass, classify};
use crate::domain::error::RequestError;
use crate::domain::permission::Authorization;

/// What use cases need besides a request.
pub struct Service {
    /// The database.
    pub pool: Pool,
    /// Whether users need permission.
    pub authorization: Authorization,
    /// How much applications may ask for, if that is limited.
    pub limiter: Option<Limiter>,
    /// Who knows users by their tokens, if somebody does.
    pub login: Option<Login>,
    /// Whose word for who is calling is taken, if anybody's is.
    pub gateway: Option<Gateway>,
    /// The places of requests at work. Whoever finds none is refused at once, so that the others are answered in time.
    pub places: Semaphore,
    /// What requests were judged by.
    pub memory: Memory,
}

impl Service {
    fn place(&self) -> Result<SemaphorePermit<'_>, RequestError> {
        self.places.try_acquire().or(Err(RequestError::Overloaded))
    }
}

/// Why a use case did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] RequestError),
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The deadline came too near to begin, or passed.
    #[error("the request ran out of time")]
    OutOfTime,
}

/// How long after its deadline a statement is still waited for: Postgres has given it up by then.
const GRACE: Duration = Duration::from_secs(1);

/// Lends a connection until shortly after `deadline`. One that has not answered by then is cut, since it might
/// never do so and would keep its place in the pool; so is one that broke, or whose borrower left.
async fn lend<T>(
    pool: &Pool,
    deadline: Instant,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut loan = pool.acquire().await.inspect_err(|error| {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            counter!("cmdb_database_timeouts_total").increment(1);
        }
    })?;
    let result = timeout_at(deadline + GRACE, work(&mut loan)).await;
    match &result {
        Ok(Ok(_) | Err(Error::Refused(_) | Error::OutOfTime)) => loan.release(),
        Ok(Err(Error::Database(error))) if db::leaves_connection(error) => loan.release(),
        _ => drop(loan),
    }
    result.unwrap_or(Err(Error::OutOfTime))
}

impl Error {
    /// What the caller is told of it.
    pub fn fault(&self) -> RequestError {
        match self {
            Self::Refused(fault) => fault.clone(),
            Self::OutOfTime => RequestError::Unavailable("Postgres"),
            Self::Database(error) => match classify(error) {
                ErrorClass::Unavailable | ErrorClass::Conflict => {
                    RequestError::Unavailable("Postgres")
                }
                ErrorClass::Bug => RequestError::Internal,
            },
        }
    }
}
