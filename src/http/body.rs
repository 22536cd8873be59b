//! Reading the bytes of a body, within its limits.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use crate::domain::error::RequestError;

/// The bytes of bodies that the server holds at once.
const BUDGET_BYTES: usize = 64 << 20;

/// A body over its limit is read and dropped up to this size, so that its sender gets to read the
/// answer.
const DISCARD_LIMIT: usize = 8 << 20;

/// How long a body is read if its request is refused in any case.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// A limit on the memory for request bodies: the bytes that are still available.
pub struct BodyBudget(Semaphore);

impl Default for BodyBudget {
    fn default() -> Self {
        Self(Semaphore::new(BUDGET_BYTES))
    }
}

impl BodyBudget {
    fn take(&self, bytes: usize) -> Result<SemaphorePermit<'_>, RequestError> {
        let bytes = u32::try_from(bytes).or(Err(RequestError::Overloaded))?;
        self.0.try_acquire_many(bytes).or(Err(RequestError::Overloaded))
    }
}

/// Reads a body of at most `limit` bytes before `deadline`, and takes its part of the budget. It
/// must be UTF-8, as JSON is.
pub(super) async fn read(
    body: Body, limit: usize, budget: &BodyBudget, deadline: Instant,
) -> Result<(String, SemaphorePermit<'_>), RequestError> {
    let read = timeout_at(deadline, read_all(body, limit, budget)).await;
    read.unwrap_or(Err(RequestError::BodyTimeout))
}

async fn read_all(
    mut body: Body, limit: usize, budget: &BodyBudget,
) -> Result<(String, SemaphorePermit<'_>), RequestError> {
    let (mut bytes, mut held) = (Vec::new(), budget.take(0)?);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.or(Err(RequestError::NotJson))?.into_data() else { continue };
        let length = bytes.len() + data.len();
        let too_large = RequestError::BodyTooLarge(limit);
        let taken = if length > limit { Err(too_large) } else { budget.take(data.len()) };
        match taken {
            Ok(taken) => held.merge(taken),
            Err(error) => {
                drop((bytes, held));
                drain(&mut body, length).await;
                return Err(error);
            }
        }
        bytes.extend_from_slice(&data);
    }
    Ok((String::from_utf8(bytes).or(Err(RequestError::NotJson))?, held))
}

/// Reads a body and drops it: most clients read an answer only after they have sent everything.
pub(super) async fn discard(mut body: Body) {
    let _ = timeout(DISCARD_TIMEOUT, drain(&mut body, 0)).await;
}

/// Reads and drops the rest of a body of which `length` bytes were read.
async fn drain(body: &mut Body, mut length: usize) {
    while length <= DISCARD_LIMIT
        && let Some(Ok(frame)) = body.frame().await
    {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
}
