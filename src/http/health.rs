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

/// The database answers and takes what is written, its schema is this program's, and the server is not about to stop.
pub(super) async fn ready(State(app): State<AppState>) -> (StatusCode, String) {
    match why_not_ready(&app).await {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Why no requests should come, if so.
pub(super) async fn why_not_ready(app: &AppState) -> Option<&'static str> {
    if *app.draining.borrow() {
        return Some("draining");
    }
    let found = service::schema::readiness_error(&app.readiness, Instant::now() + PATIENCE).await;
    found.unwrap_or(Some("Postgres is unavailable"))
}
