//! HTTP: the list of endpoints, the pipeline around them, and what operators call.
//!
//! A request enters at [`router`], goes through `pipeline` and ends in one file of `endpoints`.
//! It contains no SQL, and no rules but the form of requests.

mod api;
pub mod auth;
pub mod batch;
mod body;
mod change_error;
pub mod endpoints;
mod envelope;
mod error;
mod filter;
mod health;
mod idempotency;
mod instance;
mod instance_search;
pub mod json;
mod kind;
mod known_models;
mod language;
mod link;
mod metrics;
mod model;
mod model_association;
mod nothing;
mod openapi;
mod page;
mod path;
mod permission;
mod pipeline;
mod read_from;
mod respond;
mod stream;
mod success;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{MethodFilter, get, on};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tower::util::MapRequest;

pub use self::api::{Api, ClientAddr, OverCapacity};
use self::auth::Authenticator;
pub use self::body::BodyBudget;
use self::endpoints::{ENDPOINTS, EndpointEntry};
pub use self::envelope::Envelope;
pub use self::error::{ErrorAnswer, answer_to, common_errors, detail_text};
pub use self::openapi::{REQUEST_ID, document, request_example};
use crate::domain::error::RequestError;
use crate::service::replica::Replica;
use crate::service::{Pool, Service, monitor};
use crate::telemetry::metrics::Metrics;

/// What all requests need: the service and the settings of HTTP.
#[derive(Clone)]
pub struct AppState {
    /// The use cases.
    pub service: Arc<Service>,
    /// The replica that answers reads, if there is one.
    pub replica: Option<Replica>,
    /// The means to verify credentials.
    pub authenticator: Arc<Authenticator>,
    /// A connection for `/readyz`, which must not wait for requests.
    pub readiness: Pool,
    /// What was last found about the database.
    pub database: watch::Receiver<monitor::State>,
    /// Why the database does not acknowledge commits.
    pub commit_problem: watch::Receiver<Option<String>>,
    /// The bytes of bodies that may still be held.
    pub body_budget: Arc<BodyBudget>,
    /// The largest body that is read, in bytes.
    pub body_limit: usize,
    /// How long a request may take from its head to its answer.
    pub request_timeout: Duration,
    /// Whether the server is shutting down.
    pub draining: watch::Receiver<bool>,
    /// The requests in flight, with those whose client has disconnected.
    pub in_flight: TaskTracker,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// The routes for callers.
pub fn router(state: AppState) -> Router {
    // The CMDB API is not served if nobody could be authenticated there.
    let serves_cmdb_api = state.authenticator.serves_cmdb_api();
    let apis: &'static [_] =
        if serves_cmdb_api { &[Api::Gateway, Api::Cmdb] } else { &[Api::Gateway] };
    let mut router = openapi::router(apis);
    for api in apis {
        for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.is_at(*api)) {
            router = add_routes(router, endpoint, *api, &state);
        }
    }
    let router = router.fallback(move |request: Request| {
        pipeline::refuse(state, Api::Gateway, "other".to_owned(), request, RequestError::NotFound)
    });
    Router::new().fallback_service(MapRequest::new(router, remove_repeated_slashes))
}

/// Removes repeated slashes from a path of an API: they make no difference.
fn remove_repeated_slashes(mut request: Request) -> Request {
    let path = request.uri().path();
    if !path.contains("//") {
        return request;
    }
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let normalized: String = segments.flat_map(|segment| ["/", segment]).collect();
    if normalized.starts_with("/api/") {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        if let Ok(uri) = format!("{normalized}{query}").parse() {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// Adds an endpoint's path at an API. A slash at the end of the path is optional.
fn add_routes(
    router: Router, endpoint: &'static EndpointEntry, api: Api, state: &AppState,
) -> Router {
    let (path, method) = (endpoint.path(api), endpoint.method(api));
    let (serving, refusing, route) = (state.clone(), state.clone(), path.clone());
    let serve = move |request: Request| (endpoint.serve)(endpoint, serving, api, request);
    let refuse = move |request: Request| {
        let error = RequestError::MethodNotAllowed(method.as_str());
        pipeline::refuse(refusing, api, route, request, error)
    };
    let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::POST);
    let methods = on(filter, serve).fallback(refuse);
    let without_slash = path.trim_end_matches('/');
    router.route(without_slash, methods.clone()).route(&format!("{without_slash}/"), methods)
}

/// The routes for operators.
pub fn operations(state: AppState) -> Router {
    Router::new()
        .route("/healthz", get(health::liveness))
        .route("/readyz", get(health::readiness))
        .route("/metrics", get(metrics::metrics))
        .with_state(state)
}
