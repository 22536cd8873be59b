//! The rate limit: details a second, for each caller.

use std::net::IpAddr;
use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::Error;
use crate::domain::batch::DETAIL_LIMIT;
use crate::domain::error::{RateLimit, RequestError};

/// If there are more callers than this, those that are idle are removed from memory.
const CAPACITY: usize = 10_000;

/// The smallest burst. No request costs more, at any endpoint.
const MIN_BURST: NonZeroU32 = NonZeroU32::new(500).unwrap();
const _: () = assert!(DETAIL_LIMIT <= MIN_BURST.get() as usize);

/// Whose requests count together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RateLimitKey {
    /// Those of an application, by its code.
    App(String),
    /// Those of a user whose gateway names no application.
    User {
        /// The address of the gateway.
        peer: IpAddr,
        /// The user's name; empty if the gateway names none.
        name: String,
    },
}

/// The rate limit of every caller.
pub struct Limiter {
    rate: u32,
    burst: u32,
    callers: DefaultKeyedRateLimiter<RateLimitKey>,
    clock: DefaultClock,
}

impl Limiter {
    /// Allows this many details a second, and at once as many as in a second, but at least 500.
    pub fn new(rate: NonZeroU32) -> Self {
        let burst = rate.max(MIN_BURST);
        Self {
            rate: rate.get(),
            burst: burst.get(),
            callers: RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)),
            clock: DefaultClock::default(),
        }
    }

    fn charge(&self, key: &RateLimitKey, cost: usize) -> Result<(), RequestError> {
        if self.callers.len() > CAPACITY {
            self.callers.retain_recent();
        }
        let Some(cost) = u32::try_from(cost).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        // `Err` means that the cost is above the burst, which is impossible: see `Limiter::new`.
        let Ok(Err(not_until)) = self.callers.check_key_n(key, cost) else {
            return Ok(());
        };
        // What is available now is the cost without what becomes available while waiting.
        let wait = not_until.wait_time_from(self.clock.now());
        let missing = wait.as_millis().saturating_mul(self.rate.into()).div_ceil(1000);
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Err(RequestError::RateLimited(RateLimit {
            app: match key {
                RateLimitKey::App(code) => Some(code.clone()),
                RateLimitKey::User { .. } => None,
            },
            rate: self.rate,
            burst: self.burst,
            remaining: cost.get().saturating_sub(missing),
            wait: seconds.max(1),
        }))
    }
}

/// What one request costs its caller. It is charged once, however often the request is run
/// again, and nothing is given back.
pub struct RateCharge<'a> {
    limiter: Option<&'a Limiter>,
    key: RateLimitKey,
    is_charged: bool,
}

impl<'a> RateCharge<'a> {
    /// A charge for this caller. If it is an application, that must have been verified.
    pub fn new(limiter: Option<&'a Limiter>, key: RateLimitKey) -> Self {
        Self { limiter, key, is_charged: false }
    }

    /// Charges the cost, or refuses the request without charging anything.
    pub fn charge(&mut self, cost: usize) -> Result<(), RequestError> {
        if let Some(limiter) = self.limiter.filter(|_| !self.is_charged) {
            limiter.charge(&self.key, cost)?;
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
            let _ = limiter.charge(&self.key, 1);
        }
    }
}
