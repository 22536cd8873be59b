//! Whether the process is alive, and whether it can serve requests.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::time::Instant;

use super::AppState;
use crate::service;

/// How long the database may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// 200 while the process can answer.
pub(super) async fn liveness() -> &'static str {
    "ok\n"
}

/// 200 while the database answers and accepts writes, its migrations are applied, and the server is
/// not shutting down; else 503 with the reason.
pub(super) async fn readiness(State(state): State<AppState>) -> (StatusCode, String) {
    match readiness_error(&state).await {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// Why the server should get no requests, if there is a reason.
pub(super) async fn readiness_error(state: &AppState) -> Option<&'static str> {
    if *state.draining.borrow() {
        return Some("draining");
    }
    let error = service::schema::readiness_error(&state.readiness, Instant::now() + TIMEOUT).await;
    error.unwrap_or(Some("Postgres is unavailable"))
}
