//! The HTTP client that sends traces to the collector. It counts and logs failures: the exporter
//! that uses it drops their causes.

use std::num::NonZeroU32;

use async_trait::async_trait;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use metrics::counter;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tracing::warn;

use super::error_chain;
use crate::config;

/// The client. It blocks, because the exporter has a thread without a runtime.
#[derive(Debug)]
pub(super) struct CollectorClient {
    client: reqwest::blocking::Client,
    warnings: DefaultDirectRateLimiter,
}

impl CollectorClient {
    /// A client with the configured timeout.
    pub(super) fn new() -> reqwest::Result<Self> {
        let client = reqwest::blocking::Client::builder().timeout(config::trace_timeout());
        let warnings = RateLimiter::direct(Quota::per_minute(NonZeroU32::MIN));
        Ok(Self { client: client.build()?, warnings })
    }

    /// Counts a failure, and logs it unless another one was logged within the last minute.
    fn report(&self, cause: &str) {
        counter!("cmdb_trace_export_failures_total").increment(1);
        if self.warnings.check().is_ok() {
            warn!(cause, "cannot export traces");
        }
    }
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let result = self.client.send_bytes(request).await.map_err(without_url);
        match &result {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => self.report(&format!("the collector answered {}", response.status())),
            Err(error) => self.report(&error_chain(error.as_ref())),
        }
        result
    }
}

/// The error without the URL of the collector, which may contain a password.
fn without_url(error: HttpError) -> HttpError {
    let error = error.downcast::<reqwest::Error>();
    error.map_or_else(|other| other, |error| error.without_url().into())
}
