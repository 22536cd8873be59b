//! Permits that limit the number of client connections.

use std::sync::Arc;

use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The permits of a server: some for connections that are served, and as many again for
/// connections over capacity, whose requests are refused.
pub(super) struct Permits {
    served: Arc<Semaphore>,
    over_capacity: Arc<Semaphore>,
    open_connections: Gauge,
}

impl Permits {
    pub(super) fn new(connections: usize, open_connections: Gauge) -> Self {
        Self {
            served: Arc::new(Semaphore::new(connections)),
            over_capacity: Arc::new(Semaphore::new(connections)),
            open_connections,
        }
    }

    /// Acquires a permit if one is available: one to be served if possible.
    pub(super) fn try_acquire(&self) -> Option<ConnectionPermit> {
        let permit = |semaphore: &Arc<Semaphore>| Arc::clone(semaphore).try_acquire_owned().ok();
        let (permit, over_capacity) = match permit(&self.served) {
            Some(permit) => (permit, false),
            None => (permit(&self.over_capacity)?, true),
        };
        self.open_connections.increment(1);
        let open_connections = self.open_connections.clone();
        Some(ConnectionPermit { over_capacity, open_connections, _permit: permit })
    }

    /// Acquires a permit, waiting until one is available.
    pub(super) async fn acquire(&self) -> ConnectionPermit {
        loop {
            if let Some(permit) = self.try_acquire() {
                return permit;
            }
            tokio::select! {
                _ = self.served.acquire() => {}
                _ = self.over_capacity.acquire() => {}
            }
        }
    }
}

/// Permits one connection, and counts it as open, until it is dropped.
pub(super) struct ConnectionPermit {
    /// Whether the requests of this connection are refused.
    pub(super) over_capacity: bool,
    open_connections: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.open_connections.decrement(1);
    }
}
