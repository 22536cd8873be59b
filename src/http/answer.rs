//! Around every request at an API path: its id, its answer, its line in the log.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio_util::task::TaskTracker;
use tracing::field::Empty;
use tracing::{Instrument, error, error_span, info, warn};

use super::api::Api;
use super::envelope::Envelope;
use super::metrics;
use crate::domain::error::{Limit, RequestError};
use crate::domain::language::Language;
use crate::service;
use crate::service::instance_association::Outcome;
use crate::telemetry::{error_chain, traces};

/// What a handler has to say. It travels to [`answer`] as an extension of an otherwise empty response.
#[derive(Clone)]
pub(super) struct Reply(Arc<Result<Outcome, service::Error>>);

impl Reply {
    pub(super) fn refused(fault: RequestError) -> Self {
        Self::from(Err(fault.into()))
    }
}

impl From<Result<Outcome, service::Error>> for Reply {
    fn from(result: Result<Outcome, service::Error>) -> Self {
        Self(Arc::new(result))
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}

/// What a panic below is answered with. Its text goes to the log, by the panic hook.
pub(super) fn panicked(_: Box<dyn Any + Send>) -> Response {
    Reply::refused(RequestError::Internal).into_response()
}

/// What the request is called in the answer, the log and the audit record.
#[derive(Clone)]
pub(super) struct RequestId(pub(super) Arc<str>);

const REQUEST_ID_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-bkapi-request-id"), HeaderName::from_static("x-request-id")];

/// Says that the answer was given before.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The fields of the IETF's draft on rate limits.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Runs the request, answers with what it replied, and logs one line. In a task of its own, so that a caller
/// who hangs up does not cut it short: what was begun ends, and is logged.
pub(super) async fn answer(
    door: Api,
    in_flight: TaskTracker,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let request_id = RequestId(door.request_id(request.headers()));
    let language = door.language(request.headers());
    let route = request.extensions().get().map_or("other", MatchedPath::as_str).to_owned();
    let trace = traces::request(request.method(), &route, request.headers());
    // Of the highest level, so that its id is in whatever is logged.
    let span = error_span!(
        "request",
        id = &*request_id.0,
        method = request.method().as_str(),
        path = request.uri().path(),
        app = Empty,
        user = Empty,
        trace_id = Empty,
    );
    if let Some(id) = traces::id(&trace) {
        span.record("trace_id", id);
    }
    request.extensions_mut().insert(request_id.clone());
    request.extensions_mut().insert(door);
    let answered = trace.clone();
    let answering = async move {
        // A response that is no reply is a hole in the router: a bug like any other.
        let reply = next.run(request).await.extensions_mut().remove::<Reply>();
        let reply = reply.unwrap_or_else(|| Reply::refused(RequestError::Internal));
        let result = reply.0.as_ref().as_ref().map_err(|error| (error.fault(), error));
        log(&result, started);
        let result = result.as_ref().map(|outcome| *outcome).map_err(|(fault, _)| fault);
        let status = result.err().map_or(StatusCode::OK, status);
        metrics::count(route, status, result, started.elapsed());
        traces::answered(&answered, status, result.err().map_or(0, RequestError::code));
        render(result, status, door, language, &request_id)
    };
    let answered = in_flight.spawn(answering.instrument(span).instrument(trace)).await;
    // Panics below were caught, and nobody aborts the task.
    answered.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn render(
    result: Result<&Outcome, &RequestError>,
    status: StatusCode,
    door: Api,
    language: Language,
    request_id: &RequestId,
) -> Response {
    // An answer that was given before is given as it was; only the headers are this request's.
    let original = result.ok().and_then(|outcome| outcome.original.as_ref());
    let (language, named) = match original {
        Some(original) => (original.language, &*original.request_id),
        None => (language, &*request_id.0),
    };
    let envelope = Envelope::new(door, result, language, named);
    // Serializing these types cannot fail.
    let body = serde_json::to_vec(&envelope).unwrap_or_default();
    let mut headers = headers(result.err(), request_id);
    if original.is_some() {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    (status, headers, body).into_response()
}

/// 200 for whatever clients expect to read from the body, so for every refusal of a request.
pub(super) fn status(fault: &RequestError) -> StatusCode {
    match fault {
        RequestError::NotFound => StatusCode::NOT_FOUND,
        RequestError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        RequestError::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        RequestError::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
        RequestError::Unavailable(_) | RequestError::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        RequestError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    }
}

fn headers(fault: Option<&RequestError>, request_id: &RequestId) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, json);
    for name in REQUEST_ID_HEADERS {
        headers.extend(HeaderValue::from_str(&request_id.0).ok().map(|value| (name, value)));
    }
    match fault {
        Some(RequestError::MethodNotAllowed) => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        Some(RequestError::RateLimited(limit)) => {
            let Limit { rate, burst, remaining, wait, .. } = limit;
            headers.insert(header::RETRY_AFTER, (*wait).into());
            let policy = format!("\"details\";q={burst};w={}", burst.div_ceil(*rate));
            headers.extend(policy.parse().ok().map(|policy| (RATE_LIMIT_POLICY, policy)));
            let state = format!("\"details\";r={remaining};t={wait}");
            headers.extend(state.parse().ok().map(|state| (RATE_LIMIT, state)));
        }
        Some(RequestError::Unavailable(_) | RequestError::Overloaded) => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    headers
}

/// One line a request; the cause of a failure is in it, and only there.
fn log(result: &Result<&Outcome, (RequestError, &service::Error)>, started: Instant) {
    let micros = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
    let duration_ms = f64::from(micros) / 1000.0;
    match result {
        Ok(outcome) => {
            let (created, refused) = (outcome.created.len(), outcome.refused.len());
            let repeats = outcome.original.as_ref().map(|original| &*original.request_id);
            info!(code = 0, created, refused, duration_ms, repeats, "answered");
        }
        Err((fault, error)) => {
            let (code, cause) = (fault.code(), error_chain(error));
            match fault {
                RequestError::Internal => error!(code, duration_ms, cause, "failed"),
                RequestError::Unavailable(_) => warn!(code, duration_ms, cause, "unavailable"),
                RequestError::Overloaded => warn!(code, duration_ms, cause, "shed"),
                _ => info!(code, duration_ms, cause, "refused"),
            }
        }
    }
}
