//! The pipeline around every endpoint. [`handle`] and [`Received::attempt`] have its steps in the
//! order in which they happen and may refuse a request. The router refuses other paths.
//! [`respond`] and [`finish`] surround them: the answer, the log line, metrics, the trace.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use serde::Serialize;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span, error, error_span, info, warn};

use super::api::{Api, ClientAddr, OverCapacity};
use super::auth::{CredentialFields, Credentials};
use super::endpoints::{Endpoint, EndpointEntry};
use super::envelope::Envelope;
use super::error::{answer_to, headers_of};
use super::idempotency::{IdempotencyField, idempotency_key};
use super::json::{JsonObject, field_names};
use super::success::{Counts, Success};
use super::{AppState, body, metrics, path, stream};
use crate::domain::error::RequestError;
use crate::domain::identity::Caller;
use crate::domain::language::Language;
use crate::service::attempt::{Lookups, Next, Retry};
use crate::service::context::RequestContext;
use crate::service::limit::RateCharge;
use crate::service::{Error, app};
use crate::telemetry::{error_chain, traces};

/// The number of headers that a request may have.
const HEADER_LIMIT: usize = 100;

/// Serves a request to an endpoint.
pub(super) fn serve<E: Endpoint>(
    entry: &'static EndpointEntry, state: AppState, api: Api, request: Request,
) -> impl Future<Output = Response> + use<E> {
    let exchange = Exchange::new(api, entry.path(api), &request);
    let handling = handle::<E>(entry, state.clone(), exchange.clone(), request);
    respond(state, exchange, handling)
}

/// Refuses a request that no endpoint serves.
pub(super) async fn refuse(
    state: AppState, api: Api, route: String, request: Request, error: RequestError,
) -> Response {
    let exchange = Exchange::new(api, route, &request);
    let refusing = async {
        body::discard(request.into_body()).await;
        Err::<Success<()>, _>(error.into())
    };
    respond(state, exchange, refusing).await
}

/// Takes a request from its body to its result, step by step. Each step may refuse it.
async fn handle<E: Endpoint>(
    entry: &'static EndpointEntry, state: AppState, exchange: Exchange, request: Request,
) -> Result<Success<E::Data>, Error> {
    let service = &state.service;
    let (mut head, body) = request.into_parts();
    let is_over_capacity = head.extensions.get::<OverCapacity>().is_some();
    if is_over_capacity || head.headers.len() > HEADER_LIMIT {
        body::discard(body).await;
        let too_many_headers = RequestError::TooManyHeaders(HEADER_LIMIT);
        return Err(
            if is_over_capacity { RequestError::Overloaded } else { too_many_headers }.into()
        );
    }

    // The body.
    let deadline = Instant::now() + state.request_timeout;
    let read = body::read(body, state.body_limit, &state.body_budget, deadline);
    let (bytes, budget) = read.await?;
    if Instant::now() + state.request_timeout / 3 > deadline {
        // The rest of the time is for the permit, the lookups and the statements.
        return Err(RequestError::BodyTimeout.into());
    }

    // The JSON object, of which only the known keys are kept.
    let (body_fields, tenant_fields) = (field_names::<E::Body>(), exchange.api.tenant_fields());
    let key_field = field_names::<IdempotencyField>();
    let known = [body_fields, tenant_fields, key_field, field_names::<CredentialFields>()].concat();
    let text = match bytes.trim_ascii() {
        b"" | b"null" if exchange.api == Api::Cmdb && !E::REQUIRES_BODY => Some("{}"),
        _ => std::str::from_utf8(&bytes).ok(),
    };
    let json = text.and_then(|text| JsonObject::parse(text, &known));
    let not_json = || RequestError::NotJson(body::why_not_json(&head.headers, &bytes));
    let mut json = json.ok_or_else(not_json)?;

    // The variables of the path: at the gateway API they are members of the body already.
    let variables = match exchange.api {
        Api::Gateway => Vec::new(),
        Api::Cmdb => path::variables(&mut head).await?,
    };
    for (name, value) in &variables {
        json.set(name, value);
    }

    // The credentials, without any I/O.
    let credentials = Credentials::find(&state.authenticator, exchange.api, &head, &json)?;

    // A permit to use the database: not before the body, so that slow senders hold none. The other
    // steps may be repeated: after a conflict, or if a cached value was stale.
    let mut progress = Progress { permit: Some(service.acquire_permit()?), ..Progress::default() };
    let received = Received { entry, state: &state, exchange: &exchange, head, json, deadline };
    let mut retry = Retry::new(service, deadline);
    let mut result = loop {
        let lookups = retry.lookups();
        let attempt = received.attempt::<E>(&credentials, &lookups, &mut progress);
        match retry.accept(&lookups, attempt.await).await {
            Ok(Next::Answer(success)) => break Ok(success),
            Ok(Next::Repeat) => {}
            Err(error) => break Err(error),
        }
    };
    if let Some(charge) = progress.charge {
        charge.charge_if_refused(&result);
    }
    if let Ok(Success { pages: Some(pages), .. }) = &mut result {
        // A streamed answer keeps its part of the body budget until the last page.
        pages.hold(budget);
    }
    result
}

/// A request whose body and credentials were read.
struct Received<'a> {
    entry: &'static EndpointEntry,
    state: &'a AppState,
    exchange: &'a Exchange,
    head: Parts,
    json: JsonObject<'a>,
    deadline: Instant,
}

/// What the attempts to serve a request hand on to the next one.
#[derive(Default)]
struct Progress<'a> {
    permit: Option<SemaphorePermit<'a>>,
    /// The charge for the rate limit, since the application was verified.
    charge: Option<RateCharge<'a>>,
    /// Whether the user was verified.
    has_user: bool,
}

impl<'a> Received<'a> {
    /// Runs the other steps once, from the lookup of the application to the endpoint.
    async fn attempt<E: Endpoint>(
        &self, credentials: &Credentials, lookups: &Lookups<'_>, progress: &mut Progress<'a>,
    ) -> Result<Success<E::Data>, Error> {
        let Self { entry, state, exchange, head, json, deadline } = self;

        // The application.
        let app = match credentials.valid_app_code() {
            Some(code) => lookups.app(code).await?,
            None => None,
        };
        credentials.verify_app(app.as_deref())?;
        // The span of the log keeps every value that is recorded, so it is recorded once.
        let Progress { permit, charge, has_user } = progress;
        let charge = charge.get_or_insert_with(|| {
            Span::current().record("app", &credentials.app_code);
            RateCharge::new(state.service.limiter.as_ref(), credentials.rate_limit_key())
        });

        // The user. No permit is held while the login service is asked, which may take seconds. If
        // the steps are repeated, the user is cached.
        if credentials.has_login_token() && !*has_user {
            *permit = None;
        }
        let user = credentials.verify_user(&state.authenticator, app.as_ref(), *deadline).await?;
        if !std::mem::replace(has_user, true) {
            Span::current().record("user", &user);
        }
        if permit.is_none() {
            *permit = Some(state.service.acquire_permit()?);
        }

        // May the application call this endpoint?
        let apis = app.as_ref().and_then(|app| app.apis.as_ref());
        app::require_allowed(apis, entry.name, entry.name)?;

        // The types of the body, then its own checks.
        json.require_unique_keys()?;
        let mut path_variables = entry.path_variables();
        if let Some(missing) = path_variables.find(|name| !json.has(name)) {
            return Err(RequestError::MissingPathVariable(missing).into());
        }
        let body = json.decode::<E::Body>()?;
        let tenant = exchange.api.tenant(&head.headers, json)?;
        let idempotency_key = idempotency_key(&head.headers, json)?;
        let input = E::check(body)?;

        // The rate limit.
        charge.charge(E::cost(&input))?;

        // May the application act for this tenant?
        let tenants = app.as_ref().and_then(|app| app.tenants.as_ref());
        app::require_allowed(tenants, tenant.as_str(), entry.name)?;

        // The stored answer to a request with this Idempotency-Key, or the endpoint itself.
        let cx = RequestContext {
            service: &state.service,
            lookups,
            request_id: &exchange.request_id,
            deadline: *deadline,
            language: exchange.language,
            caller: Caller { app: credentials.app_code.clone(), user },
            tenant,
            idempotency_key,
        };
        match E::find_replay(&cx, &input).await? {
            Some(replay) => Ok(replay),
            None => E::handle(&cx, &input).await,
        }
    }
}

/// What identifies a request in its answer, the log, the metrics and its trace.
#[derive(Clone)]
struct Exchange {
    api: Api,
    /// The path in the list of endpoints, for metrics and traces; `other` for unknown paths.
    route: String,
    request_id: Arc<str>,
    language: Language,
    started: Instant,
    /// The span in the log.
    span: Span,
    /// The span in the caller's trace.
    trace: Span,
}

impl Exchange {
    fn new(api: Api, route: String, request: &Request) -> Self {
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
            trace_id = traces::id(&trace),
        );
        Self { api, route, request_id, language, started: Instant::now(), span, trace }
    }
}

/// Answers a request with the result of `handling`. This runs in a task of its own, so that a
/// request goes on and is logged if its client disconnects. A panic is answered.
///
/// It is not an `async fn`, whose future would have room for `handling`, which the task has, too.
fn respond<T, F>(
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
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Builds the response and writes the log line. A streamed answer is logged at its end.
fn answer<T: Serialize + Send + 'static>(
    state: &AppState, exchange: Exchange, result: Result<Success<T>, Error>,
) -> Response {
    let error = result.as_ref().err().map(Error::request_error);
    let status = error.as_ref().map_or(StatusCode::OK, |error| answer_to(error).status);
    let mut headers = error.as_ref().map(headers_of).unwrap_or_default();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    for name in REQUEST_ID_HEADERS {
        headers.extend(HeaderValue::from_str(&exchange.request_id).ok().map(|id| (name, id)));
    }
    let (data, pages, replay_of, end) = match result {
        Ok(Success { data, pages, replay_of, counts }) => {
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
    let result = data.ok_or(error.as_ref().unwrap_or(&RequestError::Internal));
    let json = stream::to_json(&Envelope::new(exchange.api, result, language, request_id));
    let Some(pages) = pages else {
        finish(&exchange, status, end, replay_of.as_ref().map(|first| &*first.request_id));
        return (status, headers, json).into_response();
    };
    let (counts, span) = (end.unwrap_or_default(), exchange.span.clone());
    let (body, sending) = stream::body(json, pages, counts, state.draining.clone());
    let streaming = async move {
        finish(&exchange, status, sending.await, None);
    };
    state.in_flight.spawn(streaming.instrument(span));
    (status, headers, body).into_response()
}

/// Writes the log line of a request, counts it, and ends its span in the trace. Callers are not
/// told the cause of a failure; it is in the log.
fn finish(
    exchange: &Exchange, status: StatusCode, result: Result<Counts, Error>, replay_of: Option<&str>,
) {
    let elapsed = exchange.started.elapsed();
    let duration_ms = f64::from(u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX)) / 1000.0;
    let error = result.as_ref().err().map(Error::request_error);
    let code = error.as_ref().map_or(0, |error| answer_to(error).code);
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
    metrics::count_request(&exchange.route, status, code, error.as_ref(), elapsed);
    traces::answered(&exchange.trace, status, code);
}
