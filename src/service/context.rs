//! The authenticated request that a use case serves.

use std::sync::Arc;

use tokio::time::Instant;

use super::attempt::Lookups;
use super::{Error, Service};
use crate::db::STATEMENT_TIMEOUT;
use crate::domain::identity::Caller;
use crate::domain::keys::Tenant;
use crate::domain::language::Language;

/// A request whose caller was authenticated and may call the endpoint for the tenant.
pub struct RequestContext<'a> {
    /// What use cases share.
    pub service: &'a Arc<Service>,
    /// The lookups of this attempt.
    pub lookups: &'a Lookups<'a>,
    /// The request's id.
    pub request_id: &'a str,
    /// When the request must have been answered.
    pub deadline: Instant,
    /// The language of the answer.
    pub language: Language,
    /// The application and the user.
    pub caller: Caller,
    /// The tenant.
    pub tenant: Tenant,
    /// The request's `Idempotency-Key`.
    pub idempotency_key: Option<String>,
}

impl RequestContext<'_> {
    /// Fails if a statement that starts now could still run at the deadline. Otherwise it might
    /// create something after the caller was answered.
    pub(super) fn require_time_for_statement(&self) -> Result<(), Error> {
        if Instant::now() + STATEMENT_TIMEOUT > self.deadline {
            return Err(Error::OutOfTime);
        }
        Ok(())
    }
}
