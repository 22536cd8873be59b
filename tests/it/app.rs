//! The production router on the test's own database.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use cmdb_associations::db::session::Database;
use cmdb_associations::domain::permission::{Authorization, GrantAction, Scope};
use cmdb_associations::http::auth::Authenticator;
use cmdb_associations::http::{AppState, ClientAddr, operations, router};
use cmdb_associations::service::attempt::Caches;
use cmdb_associations::service::check::check;
use cmdb_associations::service::limit::Limiter;
use cmdb_associations::service::monitor::State;
use cmdb_associations::service::replica::Replica;
use cmdb_associations::service::{self, Pool, Service};
use cmdb_associations::telemetry::metrics::Metrics;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::binary::is_pooled;
use crate::description::assert_described;

pub(crate) const PATH: &str = "/api/c/compapi/v2/cc/batch_create_instance_association/";

/// Connections to a database, at most this many; the server gets as many.
pub(crate) fn pool_of(options: PgConnectOptions, connections: u32) -> PgPool {
    PgPoolOptions::new().max_connections(connections).connect_lazy_with(options)
}

/// The database as the server connects to it: through pgbouncer, if the tests run with it.
pub(crate) fn server_database(options: PgConnectOptions) -> Database {
    if is_pooled() { Database::new(pooled(options).into()) } else { options.into() }
}

/// How to connect through pgbouncer, if the tests run with it. The test's proxies have ports, and
/// lead through pgbouncer themselves.
pub(crate) fn pooled(options: PgConnectOptions) -> PgConnectOptions {
    match options.get_socket().filter(|_| is_pooled()) {
        Some(directory) => {
            let directory = directory.join("pooler");
            // pgbouncer 1.18 accepts this parameter only if it is configured to.
            options.socket(directory).extra_float_digits(None)
        }
        None => options,
    }
}

/// What a test may change about the server.
pub(crate) struct Setup {
    pub(crate) request_timeout: Duration,
    pub(crate) permits: usize,
    pub(crate) stream_permits: usize,
    pub(crate) authorization: Authorization,
    pub(crate) limiter: Option<Limiter>,
    pub(crate) authenticator: Authenticator,
    /// The server's connections, unless they are to be those of the test's database.
    pub(crate) serving: Option<Pool>,
    pub(crate) commit_problem: watch::Receiver<Option<String>>,
    /// The connections of a replica, and whether it is usable.
    pub(crate) replica: Option<(Pool, watch::Receiver<bool>)>,
}

pub(crate) struct TestApp {
    /// The test's connections to the database.
    pub(crate) pool: PgPool,
    /// The server's connections to the database.
    pub(crate) serving: Pool,
    pub(crate) router: Router,
    pub(crate) drain: watch::Sender<bool>,
}

impl TestApp {
    /// With two applications of the secret `xxx`: `esb_test` is trusted with user names, `stranger`
    /// is not. The user `admin` may edit everything.
    pub(crate) async fn new(pool: PgPool) -> Self {
        Self::with(pool, |_| ()).await
    }

    /// As [`Self::new`], with another setup.
    pub(crate) async fn with(pool: PgPool, change: impl FnOnce(&mut Setup)) -> Self {
        let mut conn = pool.acquire().await.unwrap();
        for (code, trusted) in [("esb_test", true), ("stranger", false)] {
            let secret = Some("xxx".to_owned());
            service::app::add(&mut conn, code, trusted, secret).await.unwrap();
        }
        service::permission::add(&mut conn, "admin", &[Scope::default()]).await.unwrap();
        drop(conn);
        Self::build(pool, change)
    }

    /// With what the database holds already, without connecting to it.
    pub(crate) fn on(pool: PgPool) -> Self {
        Self::build(pool, |_| ())
    }

    /// As [`Self::on`], with another request timeout.
    pub(crate) fn with_timeout(pool: PgPool, timeout: Duration) -> Self {
        Self::build(pool, |setup| setup.request_timeout = timeout)
    }

    /// As [`Self::on`], with permits for this many requests.
    pub(crate) fn with_permits(pool: PgPool, permits: usize) -> Self {
        Self::build(pool, |setup| setup.permits = permits)
    }

    /// As [`Self::on`], with another setup.
    pub(crate) fn build(pool: PgPool, change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup {
            request_timeout: Duration::from_secs(15),
            permits: 80,
            stream_permits: 4,
            authorization: Authorization::Grants,
            limiter: None,
            authenticator: Authenticator::default(),
            serving: None,
            commit_problem: watch::channel(None).1,
            replica: None,
        };
        change(&mut setup);
        let (drain, draining) = watch::channel(false);
        let options = pool.connect_options().as_ref().clone();
        let connections = pool.options().get_max_connections();
        let serving =
            setup.serving.unwrap_or_else(|| Pool::new(server_database(options), connections));
        // A server that listens outlives the test's function. Without its connections, the test's
        // database can be dropped at once.
        let (closed, of_server) = (pool.close_event(), serving.clone());
        tokio::spawn(async move {
            closed.await;
            of_server.close().await;
        });
        let service = Service {
            pool: serving.clone(),
            authorization: setup.authorization,
            limiter: setup.limiter.map(Arc::new),
            permits: Arc::new(Semaphore::new(setup.permits)),
            stream_permits: Arc::new(Semaphore::new(setup.stream_permits)),
            caches: Caches::default(),
        };
        let replica = setup.replica.map(|(pool, is_usable)| Replica {
            service: Arc::new(service.for_replica(pool)),
            is_usable,
        });
        let state = AppState {
            service: Arc::new(service),
            replica,
            authenticator: Arc::new(setup.authenticator),
            readiness: serving.clone(),
            database: watch::channel(State::default()).1,
            commit_problem: setup.commit_problem,
            body_budget: Arc::default(),
            body_limit: 1 << 20,
            request_timeout: setup.request_timeout,
            draining,
            in_flight: TaskTracker::new(),
            metrics: Arc::new(Metrics::new().unwrap().1),
        };
        Self { pool, serving, router: router(state.clone()).merge(operations(state)), drain }
    }

    /// Opens a connection of the server, so that its statements are not counted.
    pub(crate) async fn connect(self) -> Self {
        self.serving.acquire().await.unwrap().release();
        self
    }

    /// Sends `body` with the credentials of `esb_test` and the user `admin`.
    pub(crate) async fn post(&self, body: Value) -> Reply {
        self.post_in(body, "en").await
    }

    /// As [`Self::post`], in a language.
    pub(crate) async fn post_in(&self, body: Value, language: &str) -> Reply {
        self.post_with(&[("blueking-language", language)], body).await
    }

    /// As [`Self::post`], with headers. Credentials that the body has already stay.
    pub(crate) async fn post_with(&self, headers: &[(&str, &str)], body: Value) -> Reply {
        self.post_to(PATH, headers, body).await
    }

    /// As [`Self::post_with`], to another endpoint of the gateway API.
    pub(crate) async fn post_to(
        &self, path: &str, headers: &[(&str, &str)], mut body: Value,
    ) -> Reply {
        let body = body.as_object_mut().unwrap();
        for (key, value) in
            [("bk_app_code", "esb_test"), ("bk_app_secret", "xxx"), ("bk_username", "admin")]
        {
            body.entry(key).or_insert_with(|| value.into());
        }
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = serde_json::to_vec(body).unwrap();
        self.send(request.body(body.into()).unwrap()).await
    }

    /// Sends a body to the CMDB API, in English and as this user, from the peer 10.1.2.3. The test
    /// must trust it.
    pub(crate) async fn post_cmdb(&self, user: &str, path: &str, body: &Value) -> Reply {
        let mut request = Request::post(path)
            .header("x-bkcmdb-user", user)
            .header("x-bkcmdb-language", "en")
            .body(Body::from(body.to_string()))
            .unwrap();
        request.extensions_mut().insert(ClientAddr("10.1.2.3".parse().unwrap()));
        self.send(request).await
    }

    /// As [`Self::new`], with the CMDB API for [`Self::cmdb`]. The user `admin` may also change
    /// models, association kinds and model associations.
    pub(crate) async fn of_models(pool: PgPool) -> Self {
        let app = Self::with(pool, |setup| {
            setup.authenticator.trusted_peers = vec!["10.1.2.3/32".parse().unwrap()];
        })
        .await;
        let scope = Scope { action: GrantAction::Models, ..Scope::default() };
        let mut conn = app.pool.acquire().await.unwrap();
        service::permission::add(&mut conn, "admin", &[scope]).await.unwrap();
        drop(conn);
        app
    }

    /// As [`Self::of_models`]. The user `admin` may also create and delete instances.
    pub(crate) async fn of_instances(pool: PgPool) -> Self {
        let app = Self::of_models(pool).await;
        let scopes = [GrantAction::Create, GrantAction::Delete];
        let scopes = scopes.map(|action| Scope { action, ..Scope::default() });
        let mut conn = app.pool.acquire().await.unwrap();
        service::permission::add(&mut conn, "admin", &scopes).await.unwrap();
        drop(conn);
        app
    }

    /// Sends a body to an endpoint of the gateway API, with the credentials of [`Self::post`].
    pub(crate) async fn gateway(&self, name: &str, body: Value) -> Reply {
        self.post_to(&format!("/api/c/compapi/v2/cc/{name}/"), &[], body).await
    }

    /// Sends a body to the CMDB API, in English, as the user `admin` of a tenant. `to` is a method
    /// and what follows `/api/v3/`, as in `PUT update/object/7`. Returns the code and the data.
    pub(crate) async fn cmdb(&self, tenant: &str, to: &str, body: Value) -> (i64, Value) {
        self.cmdb_as("admin", tenant, to, body.to_string()).await
    }

    /// As [`Self::cmdb`], as another user and with any body.
    pub(crate) async fn cmdb_as(
        &self, user: &str, tenant: &str, to: &str, body: impl Into<Body>,
    ) -> (i64, Value) {
        let mut reply = self.cmdb_reply(user, tenant, to, body.into()).await;
        (reply.json["bk_error_code"].as_i64().unwrap(), reply.json["data"].take())
    }

    /// As [`Self::cmdb_as`], with the whole answer.
    pub(crate) async fn cmdb_reply(&self, user: &str, tenant: &str, to: &str, body: Body) -> Reply {
        let (method, path) = to.split_once(' ').unwrap();
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v3/{path}"))
            .header("x-bkcmdb-user", user)
            .header("x-bkcmdb-app-code", "esb_test")
            .header("x-bkcmdb-supplier-account", tenant)
            .header("x-bkcmdb-language", "en")
            .extension(ClientAddr("10.1.2.3".parse().unwrap()));
        self.send(request.body(body).unwrap()).await
    }

    /// Sends these bytes.
    pub(crate) async fn post_raw(&self, body: impl Into<Body>) -> Reply {
        self.send(Request::post(PATH).body(body.into()).unwrap()).await
    }

    /// Sends a request to an API path and checks what holds for every answer.
    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let is_head = request.method() == Method::HEAD;
        let path = request.uri().path().to_owned();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        if is_head {
            return Reply { status: head.status, headers: head.headers, text, json: Value::Null };
        }
        let reply = Reply {
            status: head.status,
            headers: head.headers,
            json: serde_json::from_str(&text).unwrap(),
            text,
        };
        assert_described(&path, &reply);
        if reply.json.get("bk_error_code").is_none() {
            let without_data = [
                "delete_instance_association",
                "update_object",
                "delete_object",
                "update_inst",
                "batch_update_inst",
                "delete_inst",
                "batch_delete_inst",
            ];
            let name = path.trim_end_matches('/').rsplit('/').next().unwrap();
            reply.check(!without_data.contains(&name));
        }
        reply
    }

    /// Gets a service path.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The status of a path, whose body may be no text.
    pub(crate) async fn status(&self, path: &str) -> StatusCode {
        let request = Request::get(path).body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap().status()
    }

    /// The JSON that a query gives.
    pub(crate) async fn json(&self, sql: &'static str) -> Value {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// The one number that a query gives.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Reply {
    /// What holds for every answer at the gateway API, to an endpoint that returns data or not.
    fn check(&self, returns_data: bool) {
        assert_eq!(self.headers["content-type"], "application/json; charset=utf-8");
        let id = self.request_id();
        assert!(
            id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
            "{id}"
        );
        assert_eq!(self.headers["x-request-id"], self.headers["x-bkapi-request-id"]);
        let repeats = self.headers.contains_key("idempotent-replayed");
        assert_eq!(self.headers["x-request-id"] != *id, repeats);
        let keys: Vec<_> = ["result", "code", "message", "permission", "request_id", "data"]
            .iter()
            .map(|key| self.text.find(&format!("\"{key}\":")).expect(key))
            .collect();
        assert!(keys.is_sorted(), "keys out of order: {}", self.text);
        assert_eq!(self.json.as_object().unwrap().len(), 6);
        assert_eq!(self.json["result"], self.json["code"] == 0);
        // Two refusals have `data`: some hosts were created; a batch of all or none was refused.
        let has_data = self.json["code"] == 0 && returns_data
            || self.json["code"] == 1_110_004
            || self.json["data"]["error_detail"].is_object();
        assert_eq!(!self.json["data"].is_null(), has_data, "{}", self.text);
        assert_eq!(self.json["permission"].is_null(), self.json["code"] != 9_900_403);
    }

    pub(crate) fn request_id(&self) -> &str {
        self.json["request_id"].as_str().unwrap()
    }

    /// The body as sent, but for the request id, which is checked apart.
    pub(crate) fn body(&self) -> String {
        self.text.replace(self.request_id(), "<id>")
    }

    /// The body of a refusal is this, to the byte.
    #[track_caller]
    pub(crate) fn assert_refused(&self, status: u16, code: u32, message: &str) {
        assert_eq!(
            self.body(),
            format!(
                r#"{{"result":false,"code":{code},"message":{},"permission":null,"request_id":"<id>","data":null}}"#,
                json!(message)
            )
        );
        assert_eq!(self.status, status);
    }

    /// The indexes created, and the texts of the others.
    #[track_caller]
    pub(crate) fn maps(&self) -> (Vec<usize>, Value) {
        assert_eq!(self.json["code"], 0, "{}", self.text);
        let created = self.json["data"]["success_created"].as_object().unwrap();
        let mut indexes: Vec<_> = created.keys().map(|index| index.parse().unwrap()).collect();
        indexes.sort_unstable();
        (indexes, self.json["data"]["error_msg"].clone())
    }

    /// The new ids, by index.
    #[track_caller]
    pub(crate) fn ids(&self) -> Vec<i64> {
        assert_eq!(self.json["code"], 0, "{}", self.text);
        let created = self.json["data"]["success_created"].as_object().unwrap();
        let id = |index| created[&format!("{index}")].as_i64().unwrap();
        self.maps().0.into_iter().map(id).collect()
    }
}

/// Asserts that no invariant is violated and that every change of a link has an audit record.
pub(crate) async fn assert_sound(pool: &PgPool) {
    let report = check(&mut pool.acquire().await.unwrap()).await.unwrap();
    let violated = report.invariants.iter().chain(&report.unaudited);
    let violated: Vec<_> = violated.filter(|(_, violations)| violations.count > 0).collect();
    assert!(violated.is_empty(), "{violated:?}");
}

/// A request under a model association of the test world.
pub(crate) fn batch(key: &str, details: &[(i64, i64)]) -> Value {
    let [source, target] = models(key);
    let detail = |(s, t): &(i64, i64)| json!({"bk_inst_id": s, "bk_asst_inst_id": t});
    json!({
        "bk_obj_id": source, "bk_asst_obj_id": target, "bk_obj_asst_id": key,
        "details": details.iter().map(detail).collect::<Vec<_>>(),
    })
}

fn models(key: &str) -> [&str; 2] {
    match key {
        "bk_switch_connect_host" | "bk_switch_default_host" | "bk_switch_run_host" => {
            ["bk_switch", "host"]
        }
        "bk_switch_group_bk_switch" | "bk_switch_default_bk_switch" => ["bk_switch", "bk_switch"],
        "host_belong_plat" => ["host", "plat"],
        other => panic!("the test world has no {other}"),
    }
}
