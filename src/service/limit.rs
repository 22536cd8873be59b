//! The rate limit: details a second, for each application.

use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::Error;
use crate::domain::batch::DETAIL_LIMIT;
use crate::domain::error::{RateLimit, RequestError};

/// If there are more applications than this, those that are idle are removed from memory.
const CAPACITY: usize = 10_000;

/// The rate limit of every application.
pub struct Limiter {
    rate: u32,
    burst: u32,
    apps: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
}

impl Limiter {
    /// Allows this many details a second, and at once at least as many as a batch may have.
    pub fn new(rate: NonZeroU32) -> Self {
        let batch = u32::try_from(DETAIL_LIMIT).ok().and_then(NonZeroU32::new);
        let burst = rate.max(batch.unwrap_or(NonZeroU32::MIN));
        Self {
            rate: rate.get(),
            burst: burst.get(),
            apps: RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)),
            clock: DefaultClock::default(),
        }
    }

    fn charge(&self, app: &str, cost: usize) -> Result<(), RequestError> {
        if self.apps.len() > CAPACITY {
            self.apps.retain_recent();
        }
        let Some(cost) = u32::try_from(cost).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        // `Err` means that the cost is above the burst, which is impossible: see `Limiter::new`.
        let Ok(Err(not_until)) = self.apps.check_key_n(&app.to_owned(), cost) else {
            return Ok(());
        };
        // What is available now is the cost without what becomes available while waiting.
        let wait = not_until.wait_time_from(self.clock.now());
        let missing = wait.as_millis().saturating_mul(self.rate.into()).div_ceil(1000);
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Err(RequestError::RateLimited(RateLimit {
            app: app.to_owned(),
            rate: self.rate,
            burst: self.burst,
            remaining: cost.get().saturating_sub(missing),
            wait: seconds.max(1),
        }))
    }
}

/// What one request costs its application. It is charged once, however often the request is run
/// again, and nothing is given back.
pub struct RateCharge<'a> {
    limiter: Option<&'a Limiter>,
    app: &'a str,
    is_charged: bool,
}

impl<'a> RateCharge<'a> {
    /// A charge for the application with this code, which must have been verified.
    pub fn new(limiter: Option<&'a Limiter>, app: &'a str) -> Self {
        Self { limiter, app, is_charged: false }
    }

    /// Charges the cost, or refuses the request without charging anything.
    pub fn charge(&mut self, cost: usize) -> Result<(), RequestError> {
        if let Some(limiter) = self.limiter.filter(|_| !self.is_charged) {
            limiter.charge(self.app, cost)?;
        }
        self.is_charged = true;
        Ok(())
    }

    /// Charges 1 for a request that was refused before its cost was charged, if that much is left.
    /// A request that was refused for the rate limit costs nothing.
    pub fn charge_if_refused<T>(&self, result: &Result<T, Error>) {
        if let (Err(Error::Refused(error)), Some(limiter)) = (result, self.limiter)
            && !self.is_charged
            && !matches!(error, RequestError::RateLimited(_))
        {
            let _ = limiter.charge(self.app, 1);
        }
    }
}
