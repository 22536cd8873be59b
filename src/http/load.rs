//! How much is taken on at once. What is beyond that is refused before it costs anything, so that what was taken
//! on is answered in time.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::domain::fault::Fault;

/// The most bytes of bodies that are held at once.
const BODY_BYTES: usize = 64 << 20;

/// The places that requests take.
pub struct Load {
    requests: Semaphore,
    body_bytes: Semaphore,
}

impl Load {
    /// Places for so many requests.
    pub fn new(requests: usize) -> Self {
        let requests = Semaphore::new(requests.min(Semaphore::MAX_PERMITS));
        Self { requests, body_bytes: Semaphore::new(BODY_BYTES) }
    }

    /// Takes a place for a request that is there as a whole.
    pub(super) fn request(&self) -> Result<SemaphorePermit<'_>, Fault> {
        self.requests.try_acquire().or(Err(Fault::Overloaded))
    }

    /// Takes room for a part of a body.
    pub(super) fn body(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Fault> {
        let bytes = u32::try_from(bytes).or(Err(Fault::Overloaded))?;
        self.body_bytes.try_acquire_many(bytes).or(Err(Fault::Overloaded))
    }
}

/// Marks what comes on a connection beyond those that are served.
#[derive(Debug, Clone, Copy)]
pub struct Surplus;
