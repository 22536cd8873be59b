//! Connections to the database, lent to one request after the other.
//!
//! The one that came back last goes out first, since it is the warmest, here and in Postgres.

use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool::managed::{self, Manager, Metrics, Object, QueueMode, RecycleError, RecycleResult};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::timeout;

/// How long a connection lies idle until it is asked whether it still stands before it is lent again.
const FRESH: Duration = Duration::from_secs(1);

/// How long it lies idle until something between here and Postgres may have forgotten it.
const IDLE_LIMIT: Duration = Duration::from_mins(5);

/// How old it gets. Postgres frees the memory of its caches, and a database that moved is found.
const AGE_LIMIT: Duration = Duration::from_mins(30);

/// How long a goodbye may take.
const PARTING: Duration = Duration::from_secs(1);

/// A limited number of connections, made when they are needed.
#[derive(Clone)]
pub struct Pool {
    connections: managed::Pool<Connecting>,
    patience: Duration,
}

impl Pool {
    /// At most `size` connections; whoever wants one waits for it as long as `patience`.
    #[expect(clippy::missing_panics_doc, reason = "it never does")]
    pub fn new(options: PgConnectOptions, size: u32, patience: Duration) -> Self {
        let connections = managed::Pool::builder(Connecting(options))
            .max_size(size as usize)
            .queue_mode(QueueMode::Lifo)
            .build();
        Self {
            connections: connections.expect("needs no runtime without deadlines of its own"),
            patience,
        }
    }

    /// A connection that stood a moment ago.
    pub async fn get(&self) -> sqlx::Result<Loan> {
        match timeout(self.patience, self.connections.get()).await {
            Ok(Ok(connection)) => Ok(Loan(Some(connection))),
            Ok(Err(managed::PoolError::Backend(error))) => Err(error),
            Ok(Err(managed::PoolError::Closed)) => Err(sqlx::Error::PoolClosed),
            Ok(Err(_)) | Err(_) => Err(self.timed_out()),
        }
    }

    /// Why there is none: all are lent, or the database does not answer.
    fn timed_out(&self) -> sqlx::Error {
        let Status { in_use, limit, .. } = self.status();
        if in_use < limit {
            io::Error::from(io::ErrorKind::TimedOut).into()
        } else {
            sqlx::Error::PoolTimedOut
        }
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        let managed::Status { max_size, size, available, waiting } = self.connections.status();
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let (in_use, idle) = (number(size.saturating_sub(available)), number(available));
        Status { in_use, idle, waiting: number(waiting), limit: number(max_size) }
    }

    /// Lets go of those that are too old and not lent.
    pub async fn tidy(&self) {
        part_with(self.connections.retain(|_, metrics| !is_old(&metrics)).removed).await;
    }

    /// Lends none any more, and says goodbye on those that are not lent.
    pub async fn close(&self) {
        let idle = self.connections.retain(|_, _| false).removed;
        self.connections.close();
        part_with(idle).await;
    }
}

async fn part_with(connections: Vec<PgConnection>) {
    for connection in connections {
        let _ = timeout(PARTING, connection.close()).await;
    }
}

/// How a pool stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Connections that are lent.
    pub in_use: u32,
    /// Connections that are not.
    pub idle: u32,
    /// How many wait for one.
    pub waiting: u32,
    /// The most connections.
    pub limit: u32,
}

/// A connection on loan. Unless it is given back it is cut, since it may be in the middle of something.
pub struct Loan(Option<Object<Connecting>>);

impl Loan {
    /// Lets others have it. Nothing is under way on it.
    pub fn give_back(mut self) {
        drop(self.0.take());
    }
}

const LENT: &str = "lent until it is given back";

impl Deref for Loan {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect(LENT)
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect(LENT)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

/// Counted from when it was lent, which is shortly before it came back.
fn is_old(metrics: &Metrics) -> bool {
    metrics.age() > AGE_LIMIT || metrics.last_used() > IDLE_LIMIT
}

/// Makes connections, and looks at each before it is lent again.
struct Connecting(PgConnectOptions);

impl Manager for Connecting {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<PgConnection> {
        self.0.connect().await
    }

    async fn recycle(
        &self,
        connection: &mut PgConnection,
        metrics: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        if is_old(metrics) {
            return Err(RecycleError::message("too old"));
        }
        if metrics.last_used() > FRESH {
            connection.ping().await?;
        }
        Ok(())
    }
}
