//! What holds for every input. The fuzz targets search for input that breaks it, and a test replays
//! their corpus.

mod oracle;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use cmdb_associations::db::import::{Chunk, Stage};
use cmdb_associations::domain::condition::query_filter::{self, Dialect};
use cmdb_associations::domain::condition::{Condition, DocumentField, mongo};
use cmdb_associations::domain::error::RequestError;
use cmdb_associations::domain::instance::{Attributes, DOCUMENT_LIMIT};
use cmdb_associations::domain::permission::Authorization;
use cmdb_associations::http::auth::Authenticator;
use cmdb_associations::http::auth::gateway_jwt::JwtVerifier;
use cmdb_associations::http::{AppState, ClientAddr, operations, router};
use cmdb_associations::service::attempt::Caches;
use cmdb_associations::service::import::{Error, read_collection};
use cmdb_associations::service::limit::Limiter;
use cmdb_associations::service::monitor::State;
use cmdb_associations::service::{Pool, Service};
use cmdb_associations::telemetry::metrics::Metrics;
use futures_util::stream;
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use sqlx::postgres::PgConnectOptions;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

const GATEWAY_PATH: &str = "/api/c/compapi/v2/cc/batch_create_instance_association";
const CMDB_PATH: &str = "/api/v3/createmany/instassociation";
const PUBLIC_KEY: &str = include_str!("../tests/fixtures/gateway.pub.pem");

/// Small, so that the fuzzer finds bodies that are too large.
const BODY_LIMIT: usize = 1 << 15;

/// An address whose identity headers are trusted.
const TRUSTED_PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

thread_local! {
    static SERVER: (Runtime, Router) = server();
}

/// The production router with both APIs, without a database.
fn server() -> (Runtime, Router) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let pool = Pool::new(PgConnectOptions::new_without_pgpass(), 1);
    runtime.block_on(pool.close());
    let service = Service {
        pool: pool.clone(),
        authorization: Authorization::Grants,
        limiter: NonZeroU32::new(10_000).map(Limiter::new).map(Arc::new),
        permits: Arc::new(Semaphore::new(1)),
        stream_permits: Arc::new(Semaphore::new(1)),
        caches: Caches::default(),
    };
    let authenticator = Authenticator {
        jwt: Some(JwtVerifier::new(PUBLIC_KEY, None).unwrap()),
        gateway_only: false,
        login: None,
        trusted_peers: vec!["10.1.0.0/16".parse().unwrap()],
    };
    let state = AppState {
        service: Arc::new(service),
        replica: None,
        authenticator: Arc::new(authenticator),
        readiness: pool,
        database: watch::channel(State::default()).1,
        commit_problem: watch::channel(None).1,
        body_budget: Arc::default(),
        body_limit: BODY_LIMIT,
        request_timeout: Duration::from_secs(15),
        draining: watch::channel(false).1,
        in_flight: TaskTracker::new(),
        metrics: Arc::new(Metrics::new().unwrap().1),
    };
    (runtime, router(state.clone()).merge(operations(state)))
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

fn send(request: Request<Body>) -> Answer {
    SERVER.with(|(runtime, router)| {
        runtime.block_on(async {
            let (head, body) = router.clone().oneshot(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes().to_vec();
            let body = String::from_utf8(body).unwrap();
            Answer { status: head.status.as_u16(), headers: head.headers, body }
        })
    })
}

/// A body that arrives in one frame for each line.
fn in_frames(bytes: &[u8]) -> Body {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let frames: Vec<_> = lines.map(|line| Ok::<_, Infallible>(line.to_vec())).collect();
    Body::from_stream(stream::iter(frames))
}

/// The input is a request as text: a line with the method, the target and optionally the client's
/// address, header lines, an empty line, the body. The answer is one that a client may get while
/// the database is unavailable.
pub fn request(data: &[u8]) {
    // hyper refuses requests with an invalid method or target.
    let Some(request) = parse(data) else { return };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = send(request);
    if ["/healthz", "/readyz"].contains(&path.as_str()) {
        assert!([200, 405, 503].contains(&answer.status), "status {}", answer.status);
        assert!(["", "ok\n", "Postgres is unavailable\n"].contains(&answer.body.as_str()));
        return;
    }
    // Slashes that are repeated or at the end make no difference.
    let segments = |path: &str| -> Vec<String> {
        path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
    };
    let is_cmdb_api = segments(&path) == segments(CMDB_PATH);
    let is_known = is_cmdb_api || segments(&path) == segments(GATEWAY_PATH);
    assert_eq!(answer.status == 404, !is_known, "{path}");
    assert_eq!(answer.status == 405, is_known && method != Method::POST, "{method}");
    if method == Method::HEAD {
        assert_eq!(answer.body, "");
        return;
    }
    answer.refusal(is_cmdb_api);
}

fn parse(data: &[u8]) -> Option<Request<Body>> {
    let mut rest = data;
    let mut line = || {
        let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let (line, after) = rest.split_at(length);
        rest = after.get(1..).unwrap_or_default();
        line.strip_suffix(b"\r").unwrap_or(line)
    };
    let mut words = line().split(|byte| *byte == b' ');
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(words.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(words.next()?).ok()?;
    let peer = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
    peer.map(|address| request.extensions_mut().insert(ClientAddr(address)));
    loop {
        let line = line();
        if line.is_empty() {
            return Some(request.map(|()| in_frames(rest)));
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().and_then(|name| HeaderName::from_bytes(name).ok());
        let value = parts.next().and_then(|value| HeaderValue::from_bytes(value.trim_ascii()).ok());
        let header = name.zip(value);
        header.map(|(name, value)| request.headers_mut().try_append(name, value));
    }
}

impl Answer {
    /// Asserts that the answer is a refusal in the envelope of its API. Returns its code and text.
    fn refusal(&self, is_cmdb_api: bool) -> (u64, String) {
        assert_eq!(self.headers["content-type"], "application/json; charset=utf-8");
        let id = self.headers["x-request-id"].to_str().unwrap();
        assert_eq!(self.headers["x-bkapi-request-id"], id);
        let is_id = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        assert!((1..=64).contains(&id.len()) && id.bytes().all(is_id), "{id}");

        let body: Map<String, Value> = serde_json::from_str(&self.body).unwrap();
        let keys: &[&str] = if is_cmdb_api {
            &["result", "bk_error_code", "bk_error_msg", "permission", "data"]
        } else {
            assert_eq!(body["request_id"], id);
            assert_eq!(id.len(), 32);
            &["result", "code", "message", "permission", "request_id", "data"]
        };
        let positions: Vec<_> =
            keys.iter().map(|key| self.body.find(&format!("\"{key}\":"))).collect();
        assert!(positions.iter().all(Option::is_some) && positions.is_sorted(), "{}", self.body);
        assert_eq!(body.len(), keys.len(), "{}", self.body);
        // Without a database no link is created and no permission is checked.
        assert_eq!(body["result"], false);
        assert!(body["permission"].is_null() && body["data"].is_null(), "{}", self.body);

        let code = body[keys[1]].as_u64().unwrap();
        let text = body[keys[2]].as_str().unwrap();
        let codes: &[u64] = match self.status {
            200 => &[
                1_101_046, 1_306_000, 1_306_406, 1_306_408, 1_199_000, 1_199_006, 1_199_011,
                1_199_035, 1_199_038,
            ],
            404 => &[1_306_404],
            405 => &[1_306_209],
            413 | 431 => &[1_306_406],
            429 => &[1_306_429],
            503 => &[1_306_201],
            other => panic!("status {other}: {}", self.body),
        };
        assert!(codes.contains(&code), "{} with status {}", self.body, self.status);
        assert_eq!(self.headers.contains_key("retry-after"), [429, 503].contains(&self.status));
        assert_eq!(self.headers.contains_key("allow"), self.status == 405);
        assert!(!text.is_empty() && !text.starts_with("Internal error"), "{text}");
        (code, text.to_owned())
    }
}

/// The input is a body from a trusted peer, which needs no database to be authenticated. It is
/// refused as the oracle predicts; a valid body is refused for the database or the rate limit.
pub fn body(data: &[u8]) {
    let mut request = Request::post(CMDB_PATH)
        .header("bk_user", "admin")
        .header("http_blueking_language", "en")
        .body(in_frames(data))
        .unwrap();
    request.extensions_mut().insert(ClientAddr(TRUSTED_PEER));
    let answer = send(request);
    let refusal = answer.refusal(true);
    match oracle::refusal(data, BODY_LIMIT) {
        Some(expected) => assert_eq!(refusal, expected),
        None if answer.status == 429 => {}
        None => match oracle::refusal_after_rate_limit(data) {
            Some(expected) => assert_eq!(refusal, expected),
            None => assert_eq!(answer.status, 503, "{refusal:?}"),
        },
    }
}

/// A condition on instances, or an instance, which the first byte selects.
pub fn condition(data: &[u8]) {
    let Some((selector, json)) = data.split_first() else { return };
    let Ok(json) = std::str::from_utf8(json) else { return };
    let dialects = [Dialect::Links, Dialect::DetailedLinks, Dialect::Hosts, Dialect::Instances];
    let condition = match selector % 8 {
        form @ 0..4 => query_filter::parse(dialects[usize::from(form)], "conditions", json),
        4 => mongo::parse("condition", json),
        form => {
            let model = ["bk_switch", "host", "biz"][usize::from(form - 5)];
            let Ok(instance) = Attributes::parse("", json, model, &[]) else { return };
            assert!(instance.json().len() <= DOCUMENT_LIMIT);
            return;
        }
    };
    let condition: Condition<DocumentField> = match condition {
        Ok(condition) => condition,
        Err(RequestError::Internal) => panic!("{json}"),
        Err(_) => return,
    };
    let (tests, values) = condition.size();
    assert!(values <= json.len() && tests <= 1 + 2 * json.len());
}

/// The collections that the first byte of an import selects; `0` selects the first one.
const COLLECTIONS: [&str; 8] = [
    "cc_ObjDes",
    "cc_AsstDes",
    "cc_ObjAsst",
    "cc_HostBase",
    "cc_ObjectBase_0_pub_bk_switch",
    "cc_InstAsst_0_pub_bk_switch",
    "cc_idgenerator",
    "cc_ObjectBase",
];

/// The input is a byte that selects the collection, and a file of an export. Each document becomes
/// a row for `COPY` or is rejected, or the file is refused at one of its lines.
pub fn import(data: &[u8]) {
    let Some((selector, content)) = data.split_first() else { return };
    let collection = COLLECTIONS[usize::from(*selector) % COLLECTIONS.len()];
    let lines = i64::try_from(content.split(|byte| *byte == b'\n').count()).unwrap();
    let (mut rows, mut rejected_rows) = (0, 0);
    let on_chunk = |stage, chunk: Chunk| {
        rows += check_rows(&chunk.rows, columns(stage), lines);
        rejected_rows += check_rows(&chunk.rejected_rows, 2, lines);
    };
    match read_collection(collection, content, on_chunk) {
        Ok(count) => {
            assert_eq!(Some(count), documents(content));
            // Most documents of this collection are not used.
            if collection != "cc_idgenerator" {
                assert_eq!(rows + rejected_rows, count);
            }
        }
        Err(Error::Unreadable { line, reason, .. }) => {
            assert!((1..=lines).contains(&line), "line {line} of {lines}: {reason}");
        }
        Err(other) => panic!("{other}"),
    }
}

/// The number of a stage's own columns.
fn columns(stage: Stage) -> usize {
    match stage {
        Stage::Classifications => 1,
        Stage::AssignedIds => 2,
        Stage::Instances => 6,
        Stage::Links => 7,
        Stage::Kinds => 8,
        Stage::Models => 16,
        Stage::ModelAssociations => 12,
    }
}

/// Checks the input of a `COPY`, and returns the number of its rows.
fn check_rows(copy: &str, own_columns: usize, lines: i64) -> i64 {
    assert!(copy.is_empty() || copy.ends_with('\n'));
    copy.split_terminator('\n').for_each(|row| check_row(row, own_columns, lines));
    copy.split_terminator('\n').count().try_into().unwrap()
}

/// Asserts that a row has the columns of its staging table, each a text without NUL or null.
fn check_row(row: &str, own_columns: usize, lines: i64) {
    let columns: Vec<&str> = row.split('\t').collect();
    assert_eq!(columns.len(), 2 + own_columns, "{row:?}");
    assert_eq!(columns[0], "0");
    assert!((1..=lines).contains(&columns[1].parse().unwrap()), "{row:?}");
    assert!(!row.contains(['\0', '\r']), "{row:?}");
    for column in columns.iter().filter(|column| **column != "\\N") {
        let mut escapes = column.split('\\').skip(1);
        while let Some(escape) = escapes.next() {
            if escape.is_empty() {
                escapes.next().unwrap();
            } else {
                assert!(escape.starts_with(['n', 'r', 't']), "{column:?}");
            }
        }
    }
}

/// The number of documents of a file that consists only of documents.
fn documents(content: &[u8]) -> Option<i64> {
    let content = content.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(content);
    let documents: Vec<Map<String, Value>> = if content.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(content).ok()?
    } else {
        serde_json::Deserializer::from_slice(content).into_iter().collect::<Result<_, _>>().ok()?
    };
    documents.len().try_into().ok()
}
