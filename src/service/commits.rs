//! Whether PostgreSQL acknowledges commits.
//!
//! Without a synchronous standby that it needs, it answers reads, but commits wait for the standby.
//! A server that knows no more than that its requests take too long would leave one waiting
//! connection after another, until PostgreSQL accepts no more.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use metrics::{gauge, histogram};
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::database::{Database, Problem, connect_for_requests};
use super::replica::Messages;
use crate::db::commit::{self, Backend, LogPosition};
use crate::db::pool::Abandoned;
use crate::domain::error::error_chain;

/// How often a message is committed.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// How long its commit may take. A disk that is busy with a checkpoint takes some seconds; a server
/// that is not ready for that would only add an outage.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);

/// How long a query before it may take.
const QUERY_LIMIT: Duration = Duration::from_secs(2);

/// Commits a message again and again, on a connection of its own.
pub struct CommitProbe {
    database: Database,
    /// The abandoned connections of requests.
    abandoned: Arc<Abandoned>,
    conn: Option<(PgConnection, Backend)>,
    /// A commit that was not acknowledged in time. It is not canceled: PostgreSQL would report a
    /// commit that no standby has. Nor is it abandoned while it waits.
    pending: Option<Pending>,
    /// Why commits are not acknowledged.
    problem: watch::Sender<Option<String>>,
    messages: Arc<Messages>,
}

/// A commit that was sent.
struct Pending {
    commit: JoinHandle<sqlx::Result<(PgConnection, LogPosition)>>,
    backend: Backend,
    began: Instant,
    /// How many connections had been abandoned when it began.
    abandoned: usize,
}

impl Pending {
    fn send(mut conn: PgConnection, backend: Backend, abandoned: usize) -> Self {
        let commit = tokio::spawn(async move {
            commit::commit_message(&mut conn).await.map(|position| (conn, position))
        });
        Self { commit, backend, began: Instant::now(), abandoned }
    }
}

impl CommitProbe {
    /// A probe of a database, which counts the connections that requests have abandoned.
    pub fn new(database: Database, abandoned: Arc<Abandoned>) -> Self {
        let (problem, messages) = (watch::Sender::default(), Arc::default());
        Self { database, abandoned, conn: None, pending: None, problem, messages }
    }

    /// Receives why commits are not acknowledged, or `None` if they are.
    pub fn problem(&self) -> watch::Receiver<Option<String>> {
        self.problem.subscribe()
    }

    /// The messages that were committed.
    pub fn messages(&self) -> Arc<Messages> {
        Arc::clone(&self.messages)
    }

    /// Runs the probe, and more often while it is waited for. Never returns.
    pub async fn run(mut self, interval: Duration) {
        loop {
            let is_waited_for = self.problem.borrow().is_some() || self.abandoned.recent() > 0;
            sleep(if is_waited_for { interval / 4 } else { interval }).await;
            self.step().await;
        }
    }

    /// Commits a message, or waits for the one that was sent, and publishes what follows.
    pub async fn step(&mut self) {
        let problem = match self.try_commit().await {
            Ok(problem) => problem,
            Err(error) => Some(error_chain(&error)),
        };
        gauge!("cmdb_database_commits").set(u32::from(problem.is_none()));
        let before = self.problem.send_replace(problem);
        match (&before, &*self.problem.borrow()) {
            (None, Some(problem)) => warn!(problem, "commits are not acknowledged"),
            (Some(_), None) => info!("commits are acknowledged"),
            _ => {}
        }
    }

    /// Returns why commits are not acknowledged.
    async fn try_commit(&mut self) -> Result<Option<String>, Problem> {
        if self.pending.is_none() {
            let (mut conn, backend) = self.connect().await?;
            let waiting = self.count_waiting(&mut conn).await?;
            if waiting > 0 {
                // Another commit would only wait, too.
                self.conn = Some((conn, backend));
                return Ok(Some(format!("{waiting} commits wait for a synchronous standby")));
            }
            self.pending = Some(Pending::send(conn, backend, self.abandoned.recent()));
        }
        let Some(mut pending) = self.pending.take() else { return Ok(None) };
        if let Ok(committed) = timeout(COMMIT_LIMIT, &mut pending.commit).await {
            let (conn, position) =
                committed.map_err(|error| sqlx::Error::Io(io::Error::other(error)))??;
            self.abandoned.forget(pending.abandoned);
            self.messages.add(position, pending.began);
            histogram!("cmdb_database_commit_seconds").record(pending.began.elapsed());
            self.conn = Some((conn, pending.backend));
            return Ok(None);
        }
        // It no longer waits if its server is not the primary any more.
        let backend = pending.backend;
        self.pending = Some(pending);
        let (mut conn, own) = self.connect().await?;
        self.count_waiting(&mut conn).await?;
        if !limited(commit::is_connected(&mut conn, backend)).await?
            && let Some(pending) = self.pending.take()
        {
            pending.commit.abort();
        }
        self.conn = Some((conn, own));
        let seconds = COMMIT_LIMIT.as_secs();
        Ok(Some(format!(
            "a commit was not acknowledged within {seconds} s: perhaps a synchronous standby is \
             away"
        )))
    }

    /// The connection of the last step, or a new one.
    async fn connect(&mut self) -> Result<(PgConnection, Backend), Problem> {
        if let Some((mut conn, backend)) = self.conn.take()
            && limited(self.database.hosts.target().verify(&mut conn)).await.is_ok()
        {
            return Ok((conn, backend));
        }
        let mut conn = connect_for_requests(&self.database).await?;
        let backend = limited(commit::find_backend(&mut conn)).await?;
        Ok((conn, backend))
    }

    async fn count_waiting(&self, conn: &mut PgConnection) -> Result<usize, Problem> {
        let waiting = limited(commit::count_waiting(conn)).await?;
        let waiting = usize::try_from(waiting).unwrap_or_default();
        self.abandoned.set_waiting(waiting);
        gauge!("cmdb_database_waiting_commits").set(u32::try_from(waiting).unwrap_or(u32::MAX));
        Ok(waiting)
    }
}

async fn limited<T>(query: impl Future<Output = sqlx::Result<T>>) -> Result<T, Problem> {
    Ok(timeout(QUERY_LIMIT, query).await.or(Err(Problem::Timeout))??)
}
