//! How much applications may ask for: details a second, each application by itself.

use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::domain::batch::DETAIL_LIMIT;
use crate::domain::fault::{Fault, Limit};

/// A rate limit.
pub struct Limiter {
    details: u32,
    apps: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
}

impl Limiter {
    /// Allows so many details a second, and at least one full request at once.
    pub fn new(details: NonZeroU32) -> Self {
        let burst =
            u32::try_from(DETAIL_LIMIT).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(details).allow_burst(details.max(burst));
        let (apps, clock) = (RateLimiter::keyed(quota), DefaultClock::default());
        Self { details: details.get(), apps, clock }
    }

    /// Charges an application for so many details.
    pub(super) fn charge(&self, app: &str, details: usize) -> Result<(), Fault> {
        let Some(details) = u32::try_from(details).ok().and_then(NonZeroU32::new) else {
            return Ok(());
        };
        match self.apps.check_key_n(&app.to_owned(), details) {
            // More than fits at once does not come here: it was refused.
            Err(_) | Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => {
                let wait = until.wait_time_from(self.clock.now());
                let wait = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                let limit = Limit { app: app.to_owned(), details: self.details, wait: wait.max(1) };
                Err(Fault::RateLimited(limit))
            }
        }
    }
}
