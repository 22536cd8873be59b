//! Whether the process lives, and whether it can serve.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::time::Instant;

use super::AppState;
use crate::service;

/// How long the database may take to be counted as there.
const PATIENCE: Duration = Duration::from_secs(1);

/// The process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// The database answers, its schema is this program's, and the server is not about to stop.
pub(super) async fn ready(State(app): State<AppState>) -> (StatusCode, &'static str) {
    if *app.draining.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    match service::schema::is_current(&app.readiness, Instant::now() + PATIENCE).await {
        Ok(true) => (StatusCode::OK, "ready\n"),
        Ok(false) => (StatusCode::SERVICE_UNAVAILABLE, "migrations are pending\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "Postgres is unavailable\n"),
    }
}
