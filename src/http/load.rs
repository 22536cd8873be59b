//! How much is held at once. What is beyond that is refused before it costs anything.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::domain::fault::Fault;

/// The most bytes of bodies that are held at once.
const BODY_BYTES: usize = 64 << 20;

/// Room for bodies.
pub struct Room(Semaphore);

impl Default for Room {
    fn default() -> Self {
        Self(Semaphore::new(BODY_BYTES))
    }
}

impl Room {
    /// Takes room for a part of a body.
    pub(super) fn take(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Fault> {
        let bytes = u32::try_from(bytes).or(Err(Fault::Overloaded))?;
        self.0.try_acquire_many(bytes).or(Err(Fault::Overloaded))
    }
}

/// Marks what comes on a connection beyond those that are served.
#[derive(Debug, Clone, Copy)]
pub struct Surplus;
