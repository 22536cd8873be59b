//! Whether PostgreSQL acknowledges commits.
//!
//! Without a synchronous standby that it needs, it answers reads, but commits wait for the standby.
//! A server that knows no more than that its requests take too long would leave one waiting
//! connection after another, until PostgreSQL accepts no more.

use std::sync::Arc;
use std::time::Duration;

use metrics::{gauge, histogram};
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::database::{Database, Problem, connect_for_requests};
use super::replica::Messages;
use crate::db::commit;
use crate::db::pool::Abandoned;
use crate::domain::error::error_chain;

/// How often a message is committed.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// How long its commit may take.
const COMMIT_LIMIT: Duration = Duration::from_secs(2);

/// Commits a message again and again, on a connection of its own.
pub struct CommitProbe {
    database: Database,
    /// The abandoned connections of requests.
    abandoned: Arc<Abandoned>,
    conn: Option<PgConnection>,
    /// Why commits are not acknowledged.
    problem: watch::Sender<Option<String>>,
    messages: Arc<Messages>,
}

impl CommitProbe {
    /// A probe of a database, which counts the connections that requests have abandoned.
    pub fn new(database: Database, abandoned: Arc<Abandoned>) -> Self {
        let (problem, messages) = (watch::Sender::default(), Arc::default());
        Self { database, abandoned, conn: None, problem, messages }
    }

    /// Receives why commits are not acknowledged, or `None` if they are.
    pub fn problem(&self) -> watch::Receiver<Option<String>> {
        self.problem.subscribe()
    }

    /// The messages that were committed.
    pub fn messages(&self) -> Arc<Messages> {
        Arc::clone(&self.messages)
    }

    /// Runs the probe. Never returns.
    pub async fn run(mut self, interval: Duration) {
        loop {
            self.step().await;
            sleep(interval).await;
        }
    }

    async fn step(&mut self) {
        let probing = async {
            let mut conn = match self.conn.take() {
                Some(conn) => conn,
                None => connect_for_requests(&self.database).await?,
            };
            let waiting = commit::count_waiting(&mut conn).await?;
            Ok::<_, Problem>((conn, usize::try_from(waiting).unwrap_or_default()))
        };
        // That the database cannot be reached is found elsewhere.
        let Ok(Ok((mut conn, waiting))) = timeout(COMMIT_LIMIT, probing).await else { return };
        self.abandoned.set_waiting(waiting);
        gauge!("cmdb_database_waiting_commits").set(u32::try_from(waiting).unwrap_or(u32::MAX));
        if waiting > 0 {
            // Another commit would only wait, too.
            self.conn = Some(conn);
            return self.publish(Some(format!("{waiting} commits wait for a synchronous standby")));
        }
        let started = Instant::now();
        match timeout(COMMIT_LIMIT, commit::commit_message(&mut conn)).await {
            Ok(Ok(position)) => {
                self.messages.add(position, started);
                histogram!("cmdb_database_commit_seconds").record(started.elapsed());
                self.conn = Some(conn);
                self.publish(None);
            }
            Ok(Err(error)) => self.publish(Some(error_chain(&error))),
            // It is not canceled: PostgreSQL would report a commit that no standby has.
            Err(_) => self.publish(Some(format!(
                "a commit was not acknowledged within {} s: perhaps a synchronous standby is away",
                COMMIT_LIMIT.as_secs()
            ))),
        }
    }

    /// Publishes what was found, and logs it if it is new.
    fn publish(&self, problem: Option<String>) {
        gauge!("cmdb_database_commits").set(u32::from(problem.is_none()));
        let before = self.problem.send_replace(problem);
        match (&before, &*self.problem.borrow()) {
            (None, Some(problem)) => warn!(problem, "commits are not acknowledged"),
            (Some(_), None) => info!("commits are acknowledged"),
            _ => {}
        }
    }
}
