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

use super::Service;
use super::database::{Database, Problem, connect_for_requests};
use crate::db::commit::{self, LogPosition};
use crate::domain::error::error_chain;

/// How often the replica is looked at.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How many messages are kept.
const MESSAGES: usize = 100;

/// The messages that were committed last, and when their commits began.
#[derive(Debug, Default)]
pub struct Messages(Mutex<VecDeque<(LogPosition, Instant)>>);

impl Messages {
    /// Adds a message whose commit was acknowledged.
    pub fn add(&self, position: LogPosition, began: Instant) {
        let mut messages = self.lock();
        messages.push_back((position, began));
        if messages.len() > MESSAGES {
            messages.pop_front();
        }
    }

    /// For how long a server has not shown a message, if it is of the same cluster; `None` if it
    /// has shown none of those that are kept.
    fn lag(&self, shown: LogPosition) -> Option<Duration> {
        let messages = self.lock();
        let is_shown = |(message, _): &(LogPosition, Instant)| {
            message.cluster == shown.cluster && message.bytes < shown.bytes
        };
        let first_missing = messages.iter().position(|message| !is_shown(message));
        match first_missing {
            _ if !messages.front().is_some_and(is_shown) => None,
            None => Some(Duration::ZERO),
            Some(index) => messages.get(index).map(|(_, began)| began.elapsed()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(LogPosition, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    messages: Arc<Messages>,
    /// How far the replica may be behind.
    max_lag: Duration,
    conn: Option<PgConnection>,
    problem: Option<String>,
    is_usable: watch::Sender<bool>,
}

impl ReplicaProbe {
    /// A probe of a replica of the database in which the messages were committed.
    pub fn new(database: Database, messages: Arc<Messages>, max_lag: Duration) -> Self {
        let is_usable = watch::Sender::default();
        Self { database, messages, max_lag, conn: None, problem: None, is_usable }
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
        let looking = async {
            let mut conn = match self.conn.take() {
                Some(conn) => conn,
                None => connect_for_requests(&self.database).await?,
            };
            let shown = commit::find_replayed(&mut conn).await?;
            Ok::<_, Problem>((conn, shown))
        };
        let shown = match timeout(TIMEOUT, looking).await {
            Ok(Ok((conn, shown))) => {
                self.conn = Some(conn);
                shown
            }
            Ok(Err(problem)) => return Some(error_chain(&problem)),
            Err(_) => return Some("it does not answer".to_owned()),
        };
        let Some(lag) = self.messages.lag(shown) else {
            // A new connection may lead to another server.
            self.conn = None;
            return Some("it does not have the last commits of the primary".to_owned());
        };
        gauge!("cmdb_replica_lag_seconds").set(lag.as_secs_f64());
        (lag > self.max_lag).then(|| format!("it is {:.1} s behind the primary", lag.as_secs_f64()))
    }

    /// Publishes what was found, and logs it if it is new.
    fn publish(&mut self, problem: Option<String>) {
        let was_usable = self.is_usable.send_replace(problem.is_none());
        gauge!("cmdb_replica_used").set(u32::from(problem.is_none()));
        match &problem {
            Some(problem) if was_usable || self.problem.is_none() => {
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
    use super::*;

    fn at(bytes: i64) -> LogPosition {
        LogPosition { bytes, cluster: 7 }
    }

    #[tokio::test(start_paused = true)]
    async fn the_lag_is_the_age_of_the_first_message_that_a_replica_does_not_show() {
        let messages = Messages::default();
        assert_eq!(messages.lag(at(100)), None, "nothing is known");
        for bytes in [10, 20, 30] {
            messages.add(at(bytes), Instant::now());
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        for (shown, seconds) in [(31, Some(0)), (30, Some(2)), (21, Some(2)), (11, Some(4))] {
            assert_eq!(messages.lag(at(shown)), seconds.map(Duration::from_secs), "{shown}");
        }
        assert_eq!(messages.lag(at(10)), None, "it may be far behind");
        assert_eq!(messages.lag(LogPosition { bytes: 100, cluster: 8 }), None, "another cluster");
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_has_none_of_the_kept_messages_is_too_far_behind() {
        let messages = Messages::default();
        (0..=100).for_each(|bytes| messages.add(at(bytes), Instant::now()));
        assert_eq!(messages.lag(at(1)), None);
        assert_eq!(messages.lag(at(2)), Some(Duration::ZERO));
    }
}
