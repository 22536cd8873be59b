//! Metrics of requests, and the endpoint where Prometheus reads all metrics.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use metrics::{counter, gauge, histogram};

use super::{AppState, health};
use crate::domain::error::RequestError;

/// Counts an answered request. `route` is a path of the list of endpoints, or `other`.
pub(super) fn count_request(
    route: &str, status: StatusCode, code: u32, error: Option<&RequestError>, elapsed: Duration,
) {
    let (status, code) = (status.as_str().to_owned(), code.to_string());
    histogram!("cmdb_request_duration_seconds", "route" => route.to_owned()).record(elapsed);
    counter!("cmdb_requests_total", "route" => route.to_owned(), "status" => status, "code" => code)
        .increment(1);
    match error {
        Some(RequestError::Overloaded) => counter!("cmdb_requests_shed_total").increment(1),
        Some(RequestError::RateLimited(_)) => counter!("cmdb_requests_limited_total").increment(1),
        _ => {}
    }
}

/// All metrics, in the text format of Prometheus.
#[expect(clippy::cast_precision_loss, reason = "numbers of connections are far below 2^53")]
pub(super) async fn metrics(
    State(state): State<AppState>,
) -> ([(HeaderName, &'static str); 1], String) {
    let pool = state.service.pool.status();
    for (usage, number) in [("in_use", pool.size - pool.available), ("idle", pool.available)] {
        gauge!("cmdb_database_connections", "state" => usage).set(number as f64);
    }
    gauge!("cmdb_database_connections_max").set(pool.max_size as f64);
    gauge!("cmdb_database_waiting").set(pool.waiting as f64);
    gauge!("cmdb_ready").set(u32::from(health::readiness_error(&state).await.is_none()));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render())
}
