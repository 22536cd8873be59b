//! What surrounds the steps of the pipeline: the task of a request, its answer, its log line, its
//! metrics and its trace.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use serde::Serialize;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span, error, error_span, info, warn};

use super::api::{Api, ClientAddr};
use super::envelope::Envelope;
use super::error::{answer_to, headers_of};
use super::success::{Counts, Success, Timing};
use super::{AppState, metrics, stream};
use crate::domain::error::RequestError;
use crate::domain::language::Language;
use crate::service::Error;
use crate::telemetry::{error_chain, traces};

/// What identifies a request in its answer, the log, the metrics and its trace.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) api: Api,
    /// The path in the list of endpoints, for metrics and traces; `other` for unknown paths.
    route: String,
    pub(super) request_id: Arc<str>,
    pub(super) language: Language,
    started: Instant,
    /// The span in the log.
    span: Span,
    /// The span in the caller's trace.
    trace: Span,
}

impl Exchange {
    pub(super) fn new(api: Api, route: String, request: &Request) -> Self {
        let headers = request.headers();
        // Below the paths of the CMDB API the gateway gives the id, also while that API is off.
        let request_id = Api::of_path(request.uri().path()).request_id(headers);
        let language = api.language(headers);
        let trace = traces::request(request.method(), &route, headers);
        let peer = request.extensions().get::<ClientAddr>();
        // At the highest level, so that the id is on every line, whatever the filter.
        let span = error_span!(
            "request",
            id = &*request_id,
            method = request.method().as_str(),
            path = request.uri().path(),
            peer = peer.map(|ClientAddr(address)| display(address.to_canonical())),
            app = Empty,
            user = Empty,
            database = Empty,
            trace_id = traces::id(&trace),
        );
        Self { api, route, request_id, language, started: Instant::now(), span, trace }
    }
}

/// Answers a request with the result of `handling`. This runs in a task of its own, so that a
/// request goes on and is logged if its client disconnects. A panic is answered.
///
/// It is not an `async fn`, whose future would have room for `handling`, which the task has, too.
pub(super) fn respond<T, F>(
    state: AppState, exchange: Exchange, handling: F,
) -> impl Future<Output = Response> + use<T, F>
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<Success<T>, Error>> + Send + 'static,
{
    let (span, trace) = (exchange.span.clone(), exchange.trace.clone());
    let in_flight = state.in_flight.clone();
    // As in a task of its own: what a panic leaves half done is dropped with the future.
    let handling = AssertUnwindSafe(handling).catch_unwind();
    let answering = async move {
        // The panic hook logs the message of a panic.
        let result = handling.await.unwrap_or_else(|_| Err(RequestError::Internal.into()));
        answer(&state, exchange, result)
    };
    let answered = in_flight.spawn(answering.instrument(span).instrument(trace));
    answered.map(|answered| {
        answered.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    })
}

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const REQUEST_ID_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-bkapi-request-id"), HeaderName::from_static("x-request-id")];
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Builds the response and writes the log line. A streamed answer is logged at its end.
fn answer<T: Serialize + Send + 'static>(
    state: &AppState, exchange: Exchange, result: Result<Success<T>, Error>,
) -> Response {
    let error = match &result {
        Ok(success) => success.error.clone(),
        Err(error) => Some(error.request_error()),
    };
    let status = error.as_ref().map_or(StatusCode::OK, |error| answer_to(error).status);
    let mut headers = error.as_ref().map(headers_of).unwrap_or_default();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    for name in REQUEST_ID_HEADERS {
        headers.extend(HeaderValue::from_str(&exchange.request_id).ok().map(|id| (name, id)));
    }
    let timing = result.as_ref().ok().and_then(|success| success.timing);
    headers.extend(timing.and_then(|timing| {
        let total = exchange.started.elapsed();
        let Timing { auth, database } = timing;
        let [auth, database, total] = [auth, database, total].map(|time| time.as_secs_f64() * 1e3);
        let text = format!("auth;dur={auth:.3}, database;dur={database:.3}, total;dur={total:.3}");
        Some((SERVER_TIMING, HeaderValue::from_str(&text).ok()?))
    }));
    let (data, pages, replay_of, end) = match result {
        Ok(Success { data, pages, replay_of, counts, .. }) => {
            (Some(data), pages, replay_of, Ok(counts))
        }
        Err(error) => (None, None, None, Err(error)),
    };
    // A stored answer is in the language and has the id of the first request.
    let (language, request_id) = match &replay_of {
        Some(first) => {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
            (first.language, &*first.request_id)
        }
        None => (exchange.language, &*exchange.request_id),
    };
    let envelope = Envelope::new(exchange.api, data, error.as_ref(), language, request_id);
    let json = stream::to_json(&envelope);
    let Some(pages) = pages else {
        let replay_of = replay_of.as_ref().map(|first| &*first.request_id);
        finish(&exchange, status, error.as_ref(), end, replay_of);
        return (status, headers, json).into_response();
    };
    let (counts, span) = (end.unwrap_or_default(), exchange.span.clone());
    let (body, sending) = stream::body(json, pages, counts, state.draining.clone());
    let streaming = async move {
        let result = sending.await;
        let error = result.as_ref().err().map(Error::request_error);
        finish(&exchange, status, error.as_ref(), result, None);
    };
    state.in_flight.spawn(streaming.instrument(span));
    (status, headers, body).into_response()
}

/// Writes the log line of a request, counts it, and ends its span in the trace. Callers are not
/// told the cause of a failure; it is in the log.
fn finish(
    exchange: &Exchange, status: StatusCode, error: Option<&RequestError>,
    result: Result<Counts, Error>, replay_of: Option<&str>,
) {
    let elapsed = exchange.started.elapsed();
    let duration_ms = f64::from(u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX)) / 1000.0;
    let code = error.map_or(0, |error| answer_to(error).code);
    match result {
        Ok(Counts { created, refused, deleted, rows, is_cut_off }) => {
            let cut_off = is_cut_off.then_some(true);
            info!(
                code,
                created, refused, deleted, rows, cut_off, duration_ms, replay_of, "answered"
            );
        }
        Err(cause) => {
            let cause = error_chain(&cause);
            match error {
                Some(RequestError::Internal | RequestError::NeedsAttention) => {
                    error!(code, duration_ms, cause, "failed");
                }
                Some(RequestError::Unavailable(_)) => {
                    warn!(code, duration_ms, cause, "unavailable");
                }
                Some(RequestError::Overloaded) => warn!(code, duration_ms, cause, "overloaded"),
                _ => info!(code, duration_ms, cause, "refused"),
            }
        }
    }
    metrics::count_request(&exchange.route, status, code, error, elapsed);
    traces::answered(&exchange.trace, status, code);
}
