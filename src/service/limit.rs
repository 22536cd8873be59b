//! How much applications may ask for: details a second, each application by itself.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::domain::batch::DETAIL_LIMIT;
use crate::domain::error::{Limit, RequestError};

/// How many applications are remembered before those that have not called for a while are forgotten.
const MOST_APPS: usize = 10_000;

/// A rate limit.
pub struct Limiter {
    rate: u32,
    burst: u32,
    apps: DefaultKeyedRateLimiter<String>,
    /// What was given back. The limiter itself cannot take back.
    credit: Mutex<HashMap<String, u32>>,
    clock: DefaultClock,
}

impl Limiter {
    /// Allows so many details a second, and at least one full request at once.
    pub fn new(details: NonZeroU32) -> Self {
        let full = u32::try_from(DETAIL_LIMIT).ok().and_then(NonZeroU32::new);
        let burst = details.max(full.unwrap_or(NonZeroU32::MIN));
        let quota = Quota::per_second(details).allow_burst(burst);
        Self {
            rate: details.get(),
            burst: burst.get(),
            apps: RateLimiter::keyed(quota),
            credit: Mutex::default(),
            clock: DefaultClock::default(),
        }
    }

    /// Charges an application for so many details, or says when it may come again with as many.
    fn charge(&self, app: &str, details: u32) -> Result<(), RequestError> {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        if credit.len() > MOST_APPS {
            // Gateways and peers vouch for names that nobody knows here.
            credit.retain(|_, credit| *credit > 0);
            self.apps.retain_recent();
        }
        let credit = credit.entry(app.to_owned()).or_default();
        let given_back = (*credit).min(details);
        let Some(rest) = NonZeroU32::new(details - given_back) else {
            *credit -= given_back;
            return Ok(());
        };
        match self.apps.check_key_n(&app.to_owned(), rest) {
            // More than fits at once does not come here: it was refused.
            Err(_) | Ok(Ok(())) => {
                *credit -= given_back;
                Ok(())
            }
            Ok(Err(until)) => {
                let wait = until.wait_time_from(self.clock.now());
                Err(RequestError::RateLimited(self.limit(app, details, wait)))
            }
        }
    }

    /// Gives back what an application was charged too much.
    fn give_back(&self, app: &str, details: u32) {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        let credit = credit.entry(app.to_owned()).or_default();
        *credit = credit.saturating_add(details).min(self.burst);
    }

    fn limit(&self, app: &str, wanted: u32, wait: Duration) -> Limit {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let owed = wait.as_millis().saturating_mul(self.rate.into()).div_ceil(1000);
        let owed = u32::try_from(owed).unwrap_or(u32::MAX);
        Limit {
            app: app.to_owned(),
            rate: self.rate,
            burst: self.burst,
            remaining: wanted.saturating_sub(owed),
            wait: seconds.max(1),
        }
    }
}

/// What a request costs its application.
pub(super) struct Meter<'a> {
    limiter: Option<&'a Limiter>,
    app: String,
    charged: u32,
}

impl<'a> Meter<'a> {
    pub(super) fn new(limiter: Option<&'a Limiter>, app: String) -> Self {
        Self { limiter, app, charged: 0 }
    }

    /// Charges for details, now that they were counted, and once.
    pub(super) fn charge(&mut self, details: usize) -> Result<(), RequestError> {
        let Some(limiter) = self.limiter.filter(|_| self.charged == 0) else { return Ok(()) };
        let details = u32::try_from(details).unwrap_or(u32::MAX);
        limiter.charge(&self.app, details)?;
        self.charged = details;
        Ok(())
    }

    /// A refused request costs one; one that is over the limit, nothing.
    pub(super) fn settle(&self, fault: &RequestError) {
        match (self.limiter, fault, self.charged) {
            (None, ..) | (_, RequestError::RateLimited(_), _) => {}
            (Some(limiter), _, 0) => drop(limiter.charge(&self.app, 1)),
            (Some(limiter), _, charged) => limiter.give_back(&self.app, charged - 1),
        }
    }
}
