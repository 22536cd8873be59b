//! What the wire looks like: every path, and what surrounds each request.
//!
//! Knows axum; knows no SQL and no rule. A handler reads, calls a service, and hands back a `Reply`;
//! `answer` is the one place that turns replies into bytes.

mod answer;
mod api;
mod body;
mod credentials;
mod envelope;
mod health;
mod instance_association;
mod language;
mod load;
mod metrics;
mod openapi;
mod permission;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn;
use axum::routing::{get, post};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;

use self::answer::Reply;
pub use self::api::{Api, ClientAddr, TrustedSources};
pub use self::body::{Fields, given};
pub use self::envelope::Envelope;
pub use self::instance_association::KEYS;
pub use self::load::{BodyBudget, OverCapacity};
pub use self::openapi::{document, request_example};
use crate::domain::error::RequestError;
use crate::service::{Pool, Service};
use crate::telemetry::metrics::Metrics;

/// Where the gateway's clients ask.
const GATEWAY_PATH: &str = "/api/c/compapi/v2/cc/batch_create_instance_association/";

/// Where the original CMDB is asked by its gateway.
const CMDB_PATH: &str = "/api/v3/createmany/instassociation";

/// What handlers share.
#[derive(Clone)]
pub struct AppState {
    /// The use cases.
    pub service: Arc<Service>,
    /// Whom the doors believe.
    pub trust: TrustedSources,
    /// The database, for asking whether it is there: a busy server is ready.
    pub readiness: Pool,
    /// BodyBudget for bodies.
    pub room: Arc<BodyBudget>,
    /// The largest body that is read, in bytes.
    pub body_limit: usize,
    /// How long a request may take from its last header to its answer.
    pub deadline: Duration,
    /// Whether the server has been told to stop.
    pub draining: watch::Receiver<bool>,
    /// The requests that are under way, also those whose caller has left.
    pub in_flight: TaskTracker,
    /// What was counted so far.
    pub metrics: Arc<Metrics>,
}

/// What callers reach.
pub fn router(state: AppState) -> Router {
    let create_many = || post(instance_association::create_many);
    let gateway = Router::new()
        .route(GATEWAY_PATH, create_many())
        .route(GATEWAY_PATH.trim_end_matches('/'), create_many())
        .fallback(async |request: Request| refuse(RequestError::NotFound, request).await);
    // Closed, it is a path like any unknown one.
    let mut cmdb = Router::new();
    if state.trust.serves_cmdb_api() {
        cmdb = cmdb.route(CMDB_PATH, create_many());
    }
    openapi::router(state.trust.serves_cmdb_api())
        .merge(answered(Api::Cmdb, cmdb, &state.in_flight))
        .fallback_service(
            answered(Api::Gateway, gateway, &state.in_flight).with_state(state.clone()),
        )
        .with_state(state)
}

/// What operators reach.
pub fn operations(state: AppState) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .with_state(state)
}

/// Surrounds the paths of a door. Innermost first: another method than the paths have is refused, a panic
/// becomes a reply, and every reply an answer.
fn answered<S>(door: Api, paths: Router<S>, in_flight: &TaskTracker) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let in_flight = in_flight.clone();
    paths
        .method_not_allowed_fallback(async |request: Request| {
            refuse(RequestError::MethodNotAllowed, request).await
        })
        .layer(CatchPanicLayer::custom(answer::panicked))
        .layer(from_fn(move |request, next| answer::answer(door, in_flight.clone(), request, next)))
}

async fn refuse(fault: RequestError, request: Request) -> Reply {
    body::discard(request.into_body()).await;
    Reply::refused(fault)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn answer_of(router: Router) -> (u16, String) {
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response =
            answered(Api::Gateway, router, &TaskTracker::new()).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_panic_and_a_handler_that_forgot_to_reply_are_answered_in_the_envelope() {
        async fn panics() -> Reply {
            panic!("internals")
        }
        for router in [
            Router::new().route("/", get(panics)),
            Router::new().route("/", get(async || "internals")),
        ] {
            let (status, body) = answer_of(router).await;
            assert_eq!(status, 500);
            assert!(
                body.starts_with(r#"{"result":false,"code":1306000,"message":"Internal error, "#)
            );
            assert!(!body.contains("internals"), "{body}");
        }
    }
}
