//! What was counted: of requests as they are answered, of the rest when somebody asks.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use metrics::{counter, gauge, histogram};

use super::{AppState, health};
use crate::domain::error::{DetailError, RequestError};
use crate::service::instance_association::Outcome;

/// A request that was answered. The route is one of the route table's.
pub(super) fn count(
    route: String,
    status: StatusCode,
    result: Result<&Outcome, &RequestError>,
    took: Duration,
) {
    let code = result.err().map_or(0, RequestError::code).to_string();
    histogram!("cmdb_request_duration_seconds", "route" => route.clone()).record(took);
    let status = status.as_str().to_owned();
    counter!("cmdb_requests_total", "route" => route, "status" => status, "code" => code)
        .increment(1);
    match result {
        // Its details were counted when it was answered first.
        Ok(outcome) if outcome.original.is_some() => {}
        Ok(outcome) => {
            let of = |verdict| counter!("cmdb_details_total", "verdict" => verdict);
            of("created").increment(outcome.created.len() as u64);
            for fault in DetailError::ALL {
                let refused = outcome.refused.values().filter(|refusal| **refusal == fault);
                of(fault.name()).increment(refused.count() as u64);
            }
        }
        Err(RequestError::Overloaded) => counter!("cmdb_requests_shed_total").increment(1),
        Err(RequestError::RateLimited(_)) => counter!("cmdb_requests_limited_total").increment(1),
        Err(_) => {}
    }
}

/// All of it, for Prometheus.
pub(super) async fn metrics(
    State(app): State<AppState>,
) -> ([(HeaderName, &'static str); 1], String) {
    let pool = app.service.pool.status();
    for (state, number) in [("in_use", pool.in_use), ("idle", pool.idle)] {
        gauge!("cmdb_database_connections", "state" => state).set(number);
    }
    gauge!("cmdb_database_connections_max").set(pool.limit);
    gauge!("cmdb_database_waiting").set(pool.waiting);
    gauge!("cmdb_ready").set(u32::from(health::why_not_ready(&app).await.is_none()));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render())
}
