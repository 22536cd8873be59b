//! A replica that answers reads.
//!
//! How far it is behind is measured by the messages that [`CommitProbe`](super::commits) commits:
//! the time of the last replayed transaction says nothing while the primary is idle.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::gauge;
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::database::{Database, connect_for_requests};
use super::{Pool, Service};
use crate::db::commit::{self, LogPosition};
use crate::domain::error::error_chain;

/// How often the replica is looked at.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long connecting to it may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much older than the permitted lag the last message may be. Messages are committed every 2 s,
/// and each may take 5 s.
const IDLE: Duration = Duration::from_secs(8);

/// How many messages are kept.
const MESSAGES: usize = 100;

/// The messages that were committed last, and when their commits began.
#[derive(Debug, Default)]
pub struct Messages(Mutex<VecDeque<(LogPosition, Instant)>>);

impl Messages {
    /// Adds a message whose commit was acknowledged.
    pub fn add(&self, position: LogPosition, began: Instant) {
        let mut messages = self.lock();
        // After a fail-over, positions may begin anew.
        messages.retain(|(before, _)| precedes(*before, position));
        messages.push_back((position, began));
        if messages.len() > MESSAGES {
            messages.pop_front();
        }
    }

    /// For how long a server has not shown a message, or why that is unknown.
    fn lag(&self, shown: LogPosition, max_lag: Duration) -> Result<Duration, &'static str> {
        let messages = self.lock();
        let is_shown = |(message, _): &(LogPosition, Instant)| precedes(*message, shown);
        let last = messages.back().filter(|(_, began)| began.elapsed() < max_lag + IDLE);
        if last.is_none() {
            return Err("no recent commit of the primary is known");
        }
        if !messages.front().is_some_and(is_shown) {
            return Err("it does not have the last commits of the primary");
        }
        let first_missing = messages.iter().find(|message| !is_shown(message));
        Ok(first_missing.map_or(Duration::ZERO, |(_, began)| began.elapsed()))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(LogPosition, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a position comes before another one of the same database.
fn precedes(one: LogPosition, other: LogPosition) -> bool {
    let place = |position: LogPosition| (position.cluster, position.database);
    place(one) == place(other) && one.bytes < other.bytes
}

/// A replica.
#[derive(Clone)]
pub struct Replica {
    /// The use cases, with the connections and caches of the replica.
    pub service: Arc<Service>,
    /// Whether it can be reached and is not too far behind.
    pub is_usable: watch::Receiver<bool>,
}

/// Looks at a replica again and again.
pub struct ReplicaProbe {
    database: Database,
    /// The connections of requests.
    pool: Pool,
    messages: Arc<Messages>,
    /// How far the replica may be behind.
    max_lag: Duration,
    conn: Option<PgConnection>,
    problem: Option<String>,
    is_usable: watch::Sender<bool>,
}

impl ReplicaProbe {
    /// A probe of a replica of the database in which the messages were committed.
    pub fn new(database: Database, pool: Pool, messages: Arc<Messages>, max_lag: Duration) -> Self {
        let is_usable = watch::Sender::default();
        Self { database, pool, messages, max_lag, conn: None, problem: None, is_usable }
    }

    /// Receives whether the replica can be used.
    pub fn is_usable(&self) -> watch::Receiver<bool> {
        self.is_usable.subscribe()
    }

    /// Runs the probe. Never returns.
    pub async fn run(mut self, interval: Duration) {
        loop {
            let problem = self.find_problem().await;
            self.publish(problem);
            sleep(interval).await;
        }
    }

    /// Why the replica cannot be used.
    async fn find_problem(&mut self) -> Option<String> {
        let lag = match self.find_lag().await {
            Ok(lag) => lag,
            Err(problem) => {
                gauge!("cmdb_replica_lag_seconds").set(f64::NAN);
                return Some(problem);
            }
        };
        gauge!("cmdb_replica_lag_seconds").set(lag.as_secs_f64());
        (lag > self.max_lag).then(|| format!("it is {:.1} s behind the primary", lag.as_secs_f64()))
    }

    async fn find_lag(&mut self) -> Result<Duration, String> {
        let silent = || "it does not answer".to_owned();
        if self.conn.is_none() {
            let connecting = timeout(CONNECT_TIMEOUT, connect_for_requests(&self.database));
            let connected = connecting.await.or(Err(silent()))?;
            self.conn = Some(connected.map_err(|problem| error_chain(&problem))?);
        }
        let Some(mut conn) = self.conn.take() else { return Err(silent()) };
        let looking = timeout(TIMEOUT, commit::find_replayed(&mut conn));
        let shown = looking.await.or(Err(silent()))?.map_err(|error| error_chain(&error))?;
        self.conn = Some(conn);
        Ok(self.messages.lag(shown, self.max_lag)?)
    }

    /// Publishes what was found, and logs it if it is new.
    fn publish(&mut self, problem: Option<String>) {
        let was_usable = self.is_usable.send_replace(problem.is_none());
        gauge!("cmdb_replica_used").set(u32::from(problem.is_none()));
        match &problem {
            Some(problem) if was_usable || self.problem.is_none() => {
                // New connections may lead to another server.
                self.conn = None;
                self.pool.outdate();
                warn!(problem, "the replica is not used");
            }
            None if !was_usable => info!("the replica is used"),
            _ => {}
        }
        self.problem = problem;
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::types::Oid;

    use super::*;

    fn at(bytes: i64) -> LogPosition {
        LogPosition { bytes, cluster: 7, database: Oid(1) }
    }

    const MAX_LAG: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn the_lag_is_the_age_of_the_first_message_that_a_replica_does_not_show() {
        let messages = Messages::default();
        let lag = |shown| messages.lag(shown, MAX_LAG);
        assert!(lag(at(100)).is_err(), "nothing is known");
        for bytes in [10, 20, 30] {
            messages.add(at(bytes), Instant::now());
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        for (shown, seconds) in [(31, 0), (30, 2), (21, 2), (11, 4)] {
            assert_eq!(lag(at(shown)), Ok(Duration::from_secs(seconds)), "{shown}");
        }
        assert!(lag(at(10)).is_err(), "it may be far behind");
        assert!(lag(LogPosition { cluster: 8, ..at(100) }).is_err(), "another cluster");
        assert!(lag(LogPosition { database: Oid(2), ..at(100) }).is_err(), "another database");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(lag(at(100)).is_err(), "no message for 13 s");
        // A fail-over that has lost the end of the log.
        messages.add(at(15), Instant::now());
        assert_eq!(lag(at(16)), Ok(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_has_none_of_the_kept_messages_is_too_far_behind() {
        let messages = Messages::default();
        (0..=100).for_each(|bytes| messages.add(at(bytes), Instant::now()));
        assert!(messages.lag(at(1), MAX_LAG).is_err());
        assert_eq!(messages.lag(at(101), MAX_LAG), Ok(Duration::ZERO));
    }
}
