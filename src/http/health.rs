//! Whether the process is alive, and whether it can serve requests.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::time::Instant;

use super::AppState;
use crate::domain::error::{RequestError, error_chain};
use crate::service;

/// How long the database may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// 200 while the process can answer.
pub(super) async fn liveness() -> &'static str {
    "ok\n"
}

/// 200 while the database answers, accepts and acknowledges writes, and is as the program needs it,
/// and the server is not shutting down; else 503 with the reason.
pub(super) async fn readiness(State(state): State<AppState>) -> (StatusCode, String) {
    if let Some(reason) = readiness_error(&state).await {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
    }
    let warning = state.database.borrow().warning.as_ref().map(|warning| format!("{warning}\n"));
    (StatusCode::OK, format!("ready\n{}", warning.unwrap_or_default()))
}

/// Why the server should get no requests, if there is a reason.
pub(super) async fn readiness_error(state: &AppState) -> Option<String> {
    if *state.draining.borrow() {
        return Some("draining".to_owned());
    }
    let found_before = || {
        let problem = state.database.borrow().problem.clone();
        problem.or_else(|| state.commit_problem.borrow().clone())
    };
    match service::monitor::find_problem(&state.readiness, Instant::now() + TIMEOUT).await {
        Ok(found) => found.or_else(found_before),
        Err(error) if error.request_error() == RequestError::NeedsAttention => {
            found_before().or_else(|| Some(error_chain(&error)))
        }
        Err(_) => Some("Postgres is unavailable".to_owned()),
    }
}
