//! The pool of connections to PostgreSQL.
//!
//! The connection that was released last is acquired first (LIFO), because its PostgreSQL backend
//! has the warmest caches.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{self, Manager, Metrics, Object, PoolError, QueueMode};
use deadpool::managed::{RecycleError, RecycleResult, Status};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::session::Database;
use super::timed_out;

/// How long [`Pool::acquire`] waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A connection that was idle for longer is verified before it is acquired.
const VERIFY_AFTER_IDLE: Duration = Duration::from_secs(1);

/// How long that may take.
const VERIFY_TIMEOUT: Duration = Duration::from_millis(500);

/// An idle connection is closed after this time: a firewall on the way may have forgotten it.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// A connection is closed at this age, so that its backend's memory is freed and new connections
/// follow a database that has moved.
const MAX_LIFETIME: Duration = Duration::from_mins(30);

/// How long closing a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The connections that were dropped while a commit may have been waiting on them. PostgreSQL does
/// not notice that its client is gone until the commit is acknowledged.
#[derive(Debug, Default)]
pub struct Abandoned {
    /// Those of this server that are not forgotten.
    recent: AtomicUsize,
    /// The connections of all servers that wait for a standby, as PostgreSQL has counted them.
    waiting: AtomicUsize,
}

impl Abandoned {
    /// How many were abandoned and not forgotten.
    pub fn recent(&self) -> usize {
        self.recent.load(Ordering::Relaxed)
    }

    /// Forgets this many: a commit was acknowledged that began when they were abandoned already.
    /// Earlier commits are acknowledged first.
    pub fn forget(&self, number: usize) {
        self.recent.fetch_sub(number, Ordering::Relaxed);
    }

    /// Replaces the number of connections that wait for a standby.
    pub fn set_waiting(&self, waiting: usize) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// How many may wait. PostgreSQL's count may include recent ones.
    fn count(&self) -> usize {
        self.recent().max(self.waiting.load(Ordering::Relaxed))
    }
}

/// A limited number of connections, opened on demand.
#[derive(Clone)]
pub struct Pool(managed::Pool<Connector>);

impl Pool {
    /// A pool of at most `size` connections, each prepared for requests.
    pub fn new(database: impl Into<Database>, size: u32) -> Self {
        Self::build(Connector::new(database.into(), None), size)
    }

    /// As [`Self::new`]. No connection is opened while more than `size` were abandoned.
    pub fn limited(database: Database, size: u32, abandoned: Arc<Abandoned>) -> Self {
        Self::build(Connector::new(database, Some((abandoned, size as usize))), size)
    }

    fn build(connector: Connector, size: u32) -> Self {
        let pool = managed::Pool::builder(connector).max_size(size as usize);
        let pool = pool.queue_mode(QueueMode::Lifo).build();
        Self(pool.expect("only a pool with timeouts needs a runtime"))
    }

    /// Acquires a working connection, waiting for one if all are in use.
    pub async fn acquire(&self) -> sqlx::Result<PooledConnection> {
        match timeout(ACQUIRE_TIMEOUT, self.0.get()).await {
            Ok(Ok(connection)) => Ok(PooledConnection(Some(connection))),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Closed)) => Err(sqlx::Error::PoolClosed),
            Ok(Err(_)) | Err(_) if self.is_exhausted() => Err(sqlx::Error::PoolTimedOut),
            // The database does not respond.
            Ok(Err(_)) | Err(_) => Err(timed_out()),
        }
    }

    /// Whether all connections are in use.
    fn is_exhausted(&self) -> bool {
        let Status { max_size, size, available, .. } = self.status();
        size - available >= max_size
    }

    /// How many connections are open (`size`), idle (`available`) and waited for (`waiting`).
    pub fn status(&self) -> Status {
        self.0.status()
    }

    /// Closes the idle connections that have expired.
    pub async fn reap_idle(&self) {
        self.close_idle(is_expired).await;
    }

    /// Lets no connection be used again that is open now.
    pub fn outdate(&self) {
        self.0.manager().outdate();
    }

    /// Closes the idle connections and lets none be acquired from now on.
    pub async fn close(&self) {
        self.close_idle(|_| true).await;
        self.0.close();
    }

    async fn close_idle(&self, is_unwanted: fn(&Metrics) -> bool) {
        for connection in self.0.retain(|_, metrics| !is_unwanted(&metrics)).removed {
            let _ = timeout(CLOSE_TIMEOUT, connection.close()).await;
        }
    }
}

/// A connection acquired from a [`Pool`].
///
/// [`PooledConnection::release`] returns it to the pool. Dropping it disconnects instead, because a
/// statement may still be running on it; then it counts as abandoned.
pub struct PooledConnection(Option<Object<Connector>>);

impl PooledConnection {
    /// Returns the connection to the pool. No statement or transaction may be open on it.
    pub fn release(mut self) {
        drop(self.0.take());
    }

    /// Disconnects. No commit may be waiting on the connection.
    pub fn disconnect(mut self) {
        drop(self.0.take().map(Object::take));
    }
}

const HELD: &str = "the connection is held until it is released or dropped";

impl Deref for PooledConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect(HELD)
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect(HELD)
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let Some(connection) = self.0.take() else { return };
        if let Some(pool) = Object::pool(&connection)
            && let Some((abandoned, _)) = &pool.manager().abandoned
        {
            abandoned.recent.fetch_add(1, Ordering::Relaxed);
        }
        drop(Object::take(connection));
    }
}

/// Whether a connection is too old, or was acquired too long ago. Connections are in use for
/// seconds at most, so the latter stands for its idle time.
fn is_expired(metrics: &Metrics) -> bool {
    metrics.age() > MAX_LIFETIME || metrics.last_used() > IDLE_TIMEOUT
}

/// Opens connections, and checks each before it is acquired again.
struct Connector {
    database: Database,
    /// The connections that were abandoned, and how many may be while one is opened.
    abandoned: Option<(Arc<Abandoned>, usize)>,
    /// Connections that were opened before are not used again.
    outdated: Mutex<Option<Instant>>,
}

impl Connector {
    fn new(database: Database, abandoned: Option<(Arc<Abandoned>, usize)>) -> Self {
        Self { database, abandoned, outdated: Mutex::default() }
    }

    fn outdate(&self) {
        *self.outdated.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_outdated(&self, metrics: &Metrics) -> bool {
        let outdated = *self.outdated.lock().unwrap_or_else(PoisonError::into_inner);
        outdated.is_some_and(|outdated| metrics.created < outdated)
    }
}

impl Manager for Connector {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<PgConnection> {
        if let Some((abandoned, limit)) = &self.abandoned
            && abandoned.count() > *limit
        {
            let count = abandoned.count();
            let message = format!("commits may be waiting on {count} other connections");
            return Err(io::Error::other(message).into());
        }
        let mut conn = self.database.hosts.connect().await?;
        self.database.apply_request_settings(&mut conn).await?;
        Ok(conn)
    }

    async fn recycle(
        &self, connection: &mut PgConnection, metrics: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        if is_expired(metrics) {
            return Err(RecycleError::message("the connection has expired"));
        }
        if self.is_outdated(metrics) {
            return Err(RecycleError::message("an older connection was found unusable"));
        }
        if metrics.last_used() > VERIFY_AFTER_IDLE {
            let verifying = self.database.hosts.target().verify(connection);
            let verified = timeout(VERIFY_TIMEOUT, verifying).await;
            if let Err(error) = verified.unwrap_or_else(|_| Err(timed_out())) {
                // The host is silent, or is not the primary any more.
                self.outdate();
                return Err(error.into());
            }
        }
        Ok(())
    }
}
