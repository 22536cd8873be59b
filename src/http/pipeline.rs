//! The pipeline around every endpoint. [`handle`] and [`Received::attempt`] have its steps in the
//! order in which they happen and may refuse a request. The router refuses other paths.
//! [`respond`] surrounds them.

use std::cell::Cell;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::Response;
use metrics::counter;
use serde_json::value::to_raw_value;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tracing::{Span, warn};

use super::api::{Api, OverCapacity};
use super::auth::{CredentialFields, Credentials};
use super::endpoints::{Endpoint, EndpointEntry};
use super::idempotency::{IdempotencyField, idempotency_key};
use super::json::{JsonObject, field_names};
use super::read_from::{ReadFromField, may_read_from_replica};
use super::respond::{Exchange, respond};
use super::success::{Success, Timing};
use super::{AppState, body, path};
use crate::domain::error::RequestError;
use crate::domain::identity::Caller;
use crate::service::attempt::{Lookups, Next, Retry};
use crate::service::context::RequestContext;
use crate::service::limit::RateCharge;
use crate::service::{DATABASE_TIME, Error, STATEMENT_TIMEOUT, Service, app};
use crate::telemetry::error_chain;

/// The number of headers that a request may have.
const HEADER_LIMIT: usize = 100;

/// Serves a request to an endpoint.
pub(super) fn serve<E: Endpoint>(
    entry: &'static EndpointEntry, state: AppState, api: Api, request: Request,
) -> impl Future<Output = Response> + use<E> {
    let exchange = Exchange::new(api, entry.path(api), &request);
    let handling = handle::<E>(entry, state.clone(), exchange.clone(), request);
    let handling = DATABASE_TIME.scope(Cell::default(), handling);
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
    let mut known =
        [body_fields, tenant_fields, key_field, field_names::<CredentialFields>()].concat();
    if E::ONLY_READS {
        known.extend(field_names::<ReadFromField>());
    }
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
    if let Some(field) = E::WHOLE_BODY
        && let Some(body) = text.and_then(|text| serde_json::from_str(text).ok())
    {
        json.set(field, body);
    }

    // The credentials, without any I/O.
    let credentials = Credentials::find(&state.authenticator, exchange.api, &head, &json)?;

    // A permit to use the database: not before the body, so that slow senders hold none. The other
    // steps may be repeated: after a conflict, or if a cached value was stale.
    let permit = Some(state.service.acquire_permit()?);
    let mut progress = Progress { permit, ..Progress::default() };
    let mut received = Received {
        entry,
        state: &state,
        service: &state.service,
        exchange: &exchange,
        head,
        json,
        deadline,
    };
    let replica = state.replica.as_ref().filter(|replica| {
        // A wrong value is refused later.
        E::ONLY_READS
            && *replica.is_usable.borrow()
            && may_read_from_replica(&received.json).unwrap_or(false)
    });
    let time = deadline.saturating_duration_since(Instant::now());
    if let Some(replica) = replica.filter(|_| time > 2 * STATEMENT_TIMEOUT) {
        received.service = &replica.service;
        // If it fails, there is as much time for the primary.
        received.deadline = deadline - time / 2;
    }
    let mut retry = Retry::new(received.service, received.deadline);
    let mut result = loop {
        let lookups = retry.lookups();
        let attempt = received.attempt::<E>(&credentials, &lookups, &mut progress);
        match retry.accept(&lookups, attempt.await).await {
            Ok(Next::Answer(success)) => break Ok(success),
            Ok(Next::Repeat) => {}
            Err(error) if received.is_at_replica() && !is_final(&error) => {
                if !matches!(error, Error::Refused(_)) {
                    counter!("cmdb_replica_failures_total").increment(1);
                    warn!(cause = error_chain(&error), "the replica has failed");
                }
                (received.service, received.deadline) = (&state.service, deadline);
                retry = Retry::new(&state.service, deadline);
            }
            Err(error) => break Err(error),
        }
    };
    if E::ONLY_READS && state.replica.is_some() {
        let database = if received.is_at_replica() { "replica" } else { "primary" };
        Span::current().record("database", database);
    }
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
    /// The use cases, at the primary or at a replica.
    service: &'a Arc<Service>,
    exchange: &'a Exchange,
    head: Parts,
    json: JsonObject<'a>,
    deadline: Instant,
}

/// Whether an error of the replica is one at the primary, too. A permission or a secret may have
/// been added that the replica does not show.
fn is_final(error: &Error) -> bool {
    let Error::Refused(error) = error else { return false };
    matches!(error, RequestError::RateLimited(_) | RequestError::WithoutCode(_))
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
    /// Whether a replica is asked.
    fn is_at_replica(&self) -> bool {
        !Arc::ptr_eq(self.service, &self.state.service)
    }

    /// Runs the other steps once, from the lookup of the application to the endpoint.
    async fn attempt<E: Endpoint>(
        &self, credentials: &Credentials, lookups: &Lookups<'_>, progress: &mut Progress<'a>,
    ) -> Result<Success<E::Data>, Error> {
        let Self { entry, state, service, exchange, head, json, deadline } = self;
        let started = Instant::now();

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
            RateCharge::new(state.service.limiter.as_deref(), credentials.rate_limit_key())
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

        let auth = started.elapsed();

        // May the application call this endpoint?
        let apis = app.as_ref().and_then(|app| app.apis.as_ref());
        app::require_allowed(apis, entry.name, entry.name)?;

        // The types of the body, then its own checks.
        json.require_unique_keys()?;
        let mut path_variables = entry.path_variables();
        // The tenant has a default.
        let optional = Api::Gateway.tenant_fields();
        let is_missing = |name: &&str| !optional.contains(name) && !json.has(name);
        if let Some(missing) = path_variables.find(is_missing) {
            return Err(RequestError::MissingPathVariable(missing).into());
        }
        let body = match E::USER_FIELD.filter(|_| exchange.api == Api::Gateway) {
            Some(field) => {
                let user = to_raw_value(&user).or(Err(RequestError::Internal))?;
                let mut json = json.clone();
                json.set(field, &user);
                json.decode::<E::Body>()?
            }
            None => json.decode::<E::Body>()?,
        };
        if E::ONLY_READS {
            may_read_from_replica(json)?;
        }
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
            service,
            lookups,
            request_id: &exchange.request_id,
            deadline: *deadline,
            language: exchange.language,
            caller: Caller { app: credentials.app_code.clone(), user },
            tenant,
            idempotency_key,
        };
        let mut success = match E::find_replay(&cx, &input).await? {
            Some(replay) => replay,
            None => E::handle(&cx, &input).await?,
        };
        if E::reports_timing(&input) {
            let database = DATABASE_TIME.try_with(Cell::get).unwrap_or_default();
            success.timing = Some(Timing { auth, database });
        }
        Ok(success)
    }
}
