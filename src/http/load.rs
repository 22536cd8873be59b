//! How much is held at once. What is beyond that is refused before it costs anything.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::domain::error::RequestError;

/// The most bytes of bodies that are held at once.
const BODY_BYTES: usize = 64 << 20;

/// BodyBudget for bodies.
pub struct BodyBudget(Semaphore);

impl Default for BodyBudget {
    fn default() -> Self {
        Self(Semaphore::new(BODY_BYTES))
    }
}

impl BodyBudget {
    /// Takes room for a part of a body.
    pub(super) fn take(&self, bytes: usize) -> Result<SemaphorePermit<'_>, RequestError> {
        let bytes = u32::try_from(bytes).or(Err(RequestError::Overloaded))?;
        self.0.try_acquire_many(bytes).or(Err(RequestError::Overloaded))
    }
}

/// Marks what comes on a connection beyond those that are served.
#[derive(Debug, Clone, Copy)]
pub struct OverCapacity;
