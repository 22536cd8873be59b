//! `batch_create_instance_association`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use tokio::time::{Instant, timeout_at};

use super::AppState;
use super::answer::{Reply, RequestId};
use super::api::{Api, ClientAddr};
use super::body::{self, Fields};
use super::load::OverCapacity;
use crate::domain::error::RequestError;
use crate::domain::request::Given;
use crate::service;
use crate::service::instance_association::{Incoming, Outcome};

/// Every key of the body that means something.
pub const KEYS: [&str; 14] = [
    "bk_obj_id",
    "bk_asst_obj_id",
    "bk_obj_asst_id",
    "details",
    "bk_supplier_account",
    // Credentials: see there.
    "bk_app_code",
    "bk_app_secret",
    "bk_token",
    "bk_username",
    "app_code",
    "app_secret",
    "username",
    "bk_access_token",
    "access_token",
];

/// Creates up to 200 links and says for each what became of it.
pub(super) async fn create_many(
    State(app): State<AppState>,
    Extension(door): Extension<Api>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    peer: Option<Extension<ClientAddr>>,
    request: Request,
) -> Reply {
    let peer = peer.map(|Extension(peer)| peer);
    create(&app, door, request_id, peer, request).await.into()
}

async fn create(
    app: &AppState,
    door: Api,
    request_id: Arc<str>,
    peer: Option<ClientAddr>,
    request: Request,
) -> Result<Outcome, service::Error> {
    let (head, body) = request.into_parts();
    if head.extensions.get::<OverCapacity>().is_some() {
        body::discard(body).await;
        return Err(RequestError::Overloaded.into());
    }
    let body = body::read(body, app.body_limit, &app.room);
    let started = Instant::now();
    let deadline = started + app.deadline;
    // A body that does not arrive in time is as broken as one that ends early, and so is one after which nothing
    // would be written any more.
    let body = timeout_at(deadline, body).await.unwrap_or(Err(RequestError::UnfinishedBody))?;
    if started.elapsed() > app.deadline * 2 / 3 {
        return Err(RequestError::UnfinishedBody.into());
    }
    let fields = Fields::read(&body.text, &KEYS).ok_or(RequestError::NotJson)?;
    let credentials = door.credentials(&app.trust, peer, &head.headers, &head.uri, &fields)?;
    let given = body::given(&fields).map_err(RequestError::WrongType);
    let account = door.account(&head.headers);
    let key = idempotency_key(&head.headers);
    let given = given.map(|given| Given { account: account.or(given.account), key, ..given });
    let language = door.language(&head.headers);
    let incoming = Incoming { request_id, deadline, credentials, language, given };
    service::instance_association::create_many(&app.service, incoming).await
}

/// What the caller calls this request. Several headers make no key, since it has no blank.
fn idempotency_key(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all("idempotency-key").iter();
    let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(", "))
}
