//! Users verified by the login service. A stub on loopback can be slow, unreachable or wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::routing::get;
use cmdb_associations::http::auth::login_token::LoginService;
use cmdb_associations::server::tls::Tls;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{PATH, Reply, Setup, TestApp, batch, pool_of};
use crate::binary::Program;
use crate::operations::generate_certificate;
use crate::socket::{LIMITS, open, open_tls};

const BAD_TOKEN: &str = "User authentication failed, please check if the bk_token is valid";
const UNAVAILABLE: &str = "login service is unavailable, please try again later";

/// A login service, and how many requests it has received.
struct Stub {
    address: String,
    requests: Arc<AtomicUsize>,
}

async fn stub(answer: fn(&str) -> (StatusCode, String), delay: Duration) -> Stub {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let is_login = move |RawQuery(query): RawQuery| async move {
        count.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(delay).await;
        answer(query.unwrap().strip_prefix("bk_token=").unwrap())
    };
    let router = Router::new().route("/login/accounts/is_login/", get(is_login));
    let address = format!("http://{}", open(router, LIMITS).await);
    Stub { address, requests }
}

async fn app(pool: PgPool, address: &str) -> TestApp {
    let login = LoginService::new(address).unwrap();
    TestApp::with(pool, |setup| setup.authenticator.login = Some(login)).await
}

async fn send(app: &TestApp, token: &str, n: i64) -> Reply {
    let mut body = batch("bk_switch_default_host", &[(n, n)]);
    let credentials = json!({"bk_app_code": "stranger", "bk_app_secret": "xxx", "bk_token": token, "bk_username": "admin"});
    body.as_object_mut().unwrap().extend(credentials.as_object().unwrap().clone());
    app.post_raw(body.to_string()).await
}

/// The only permit is free while another request waits for the login service.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_holds_no_permit_while_it_waits_for_the_login_service(pool: PgPool) {
    let stub = stub(versions, Duration::from_secs(1)).await;
    let login = LoginService::new(&stub.address).unwrap();
    let set = |setup: &mut Setup| {
        (setup.authenticator.login, setup.permits) = (Some(login), 1);
    };
    let app = Arc::new(TestApp::with(pool, set).await);
    let asking = Arc::clone(&app);
    let slow = tokio::spawn(async move { send(&asking, "v1", 1).await });
    while stub.requests.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.post(batch("bk_switch_default_host", &[(2, 2)])).await.ids().len(), 1);
    assert_eq!(stub.requests.load(Ordering::SeqCst), 1);
    assert_eq!(slow.await.unwrap().ids().len(), 1);
}

/// Accepts `v1`, `v2` and `v3`, each in the form of that version, and refuses others likewise.
fn versions(token: &str) -> (StatusCode, String) {
    let answer = match token {
        "v1" => {
            json!({"result": true, "code": "00", "message": "用户验证成功", "data": {"username": "admin"}})
        }
        "v2" => {
            json!({"result": true, "bk_error_code": 0, "bk_error_msg": "", "data": {"bk_username": "admin"}})
        }
        "v3" => json!({"result": true, "code": 0, "message": "", "data": {"bk_username": "admin"}}),
        "bad1" => json!({"result": false, "code": "1200", "message": "x", "data": {}}),
        "bad0" => json!({"result": false, "data": []}),
        "bad2" => {
            json!({"result": false, "bk_error_code": 1_302_100, "bk_error_msg": "x", "data": {}})
        }
        _ => json!({"result": false, "code": 1_302_100, "message": "x", "data": null}),
    };
    (StatusCode::OK, answer.to_string())
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_token_is_accepted_from_each_version_of_the_login_service(pool: PgPool) {
    let stub = stub(versions, Duration::ZERO).await;
    let app = app(pool, &stub.address).await;
    for (n, token) in [(1, "v1"), (2, "v2"), (3, "v3")] {
        assert_eq!(send(&app, token, n).await.ids().len(), 1, "{token}");
    }
    // A refused token is never replaced by the user name.
    for token in ["bad0", "bad1", "bad2", "bad3", "a&b=c %", &"x".repeat(5000)] {
        send(&app, token, 9).await.assert_refused(200, 1_306_000, BAD_TOKEN);
    }
    let users: Vec<String> = sqlx::query_scalar("select distinct user_name from cmdb.audit_log")
        .fetch_all(&app.pool)
        .await
        .unwrap();
    assert_eq!(users, ["admin"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_accepted_token_is_cached_and_a_refused_one_is_not(pool: PgPool) {
    let stub = stub(versions, Duration::from_millis(100)).await;
    let app = Arc::new(app(pool, &stub.address).await);
    let clients = (1..=8).map(|n| {
        let app = Arc::clone(&app);
        tokio::spawn(async move { send(&app, "v3", n).await.ids().len() })
    });
    for client in clients.collect::<Vec<_>>() {
        assert_eq!(client.await.unwrap(), 1);
    }
    send(&app, "v3", 9).await.ids();
    assert_eq!(stub.requests.load(Ordering::SeqCst), 1);
    send(&app, "bad", 9).await;
    send(&app, "bad", 9).await;
    assert_eq!(stub.requests.load(Ordering::SeqCst), 3);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_invalid_answer_of_the_login_service_is_answered_with_503(pool: PgPool) {
    fn invalid_answers(token: &str) -> (StatusCode, String) {
        let ok = |body: Value| (StatusCode::OK, body.to_string());
        match token {
            "500" => (StatusCode::INTERNAL_SERVER_ERROR, r#"{"result":false}"#.into()),
            "302" => (StatusCode::FOUND, String::new()),
            "404" => (StatusCode::NOT_FOUND, r#"{"result":false}"#.into()),
            "html" => (StatusCode::OK, "<html>".into()),
            "empty" => (StatusCode::OK, String::new()),
            "no-result" => ok(json!({"code": 0})),
            "odd-result" => ok(json!({"result": "yes", "data": {"bk_username": "admin"}})),
            "long" => ok(json!({"result": true, "data": {"bk_username": "x".repeat(100_000)}})),
            "nobody" => ok(json!({"result": true, "data": {}})),
            _ => ok(json!({"result": true, "data": {"bk_username": ""}})),
        }
    }
    let stub = stub(invalid_answers, Duration::ZERO).await;
    let app = app(pool, &stub.address).await;
    for token in [
        "500",
        "302",
        "404",
        "html",
        "empty",
        "no-result",
        "odd-result",
        "long",
        "nobody",
        "nameless",
    ] {
        let reply = send(&app, token, 1).await;
        reply.assert_refused(503, 1_306_201, UNAVAILABLE);
        assert_eq!(reply.headers["retry-after"], "2");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_unreachable_or_slow_login_service_is_answered_with_503_and_holds_no_connection(
    pool: PgPool,
) {
    let down = app(pool.clone(), "http://127.0.0.1:1").await;
    let started = Instant::now();
    send(&down, "t", 1).await.assert_refused(503, 1_306_201, UNAVAILABLE);
    // The timeout is 1.5 s. A busy machine gets more, but not the request's whole deadline.
    assert!(started.elapsed() < Duration::from_secs(8));

    let slow = stub(versions, Duration::from_hours(1)).await;
    let login = LoginService::new(&slow.address).unwrap();
    let one = pool_of(pool.connect_options().as_ref().clone(), 1);
    let apps = sqlx::query("delete from cmdb.app").execute(&pool).await.unwrap();
    assert_eq!(apps.rows_affected(), 2);
    let slow_app = TestApp::with(one, |setup| setup.authenticator.login = Some(login)).await;
    let slow_app = Arc::new(slow_app);
    let waiting = tokio::spawn({
        let app = Arc::clone(&slow_app);
        async move { send(&app, "t", 1).await.assert_refused(503, 1_306_201, UNAVAILABLE) }
    });
    while slow.requests.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The only connection to the database is free meanwhile.
    assert_eq!(slow_app.post(batch("bk_switch_default_host", &[(7, 7)])).await.ids().len(), 1);
    waiting.await.unwrap();
    slow_app.serving.close().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_certificate_authority_of_the_login_service_is_in_ssl_cert_file(pool: PgPool) {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = generate_certificate(dir.path());
    let other = generate_certificate(other_dir.path()).certificate;
    let tls = Tls::new(files.certificate.clone(), files.key).unwrap();
    let refuse = get(async || r#"{"result": false}"#);
    let router = Router::new().route("/login/accounts/is_login/", refuse);
    let port = open_tls(router, LIMITS, Some(tls.acceptor())).await.port();
    let url = format!("https://localhost:{port}");
    let program = Program::on(&pool);
    let secret = program.run(&["app", "add", "demo"]).stdout;
    let mut body = batch("bk_switch_default_host", &[(1, 1)]);
    let credentials = [("bk_app_code", "demo"), ("bk_app_secret", &secret), ("bk_token", "marker")];
    for (key, value) in credentials {
        body[key] = value.trim_end().into();
    }
    for (authority, code) in [(files.certificate, 1_306_000), (other, 1_306_201)] {
        let variables = [("SSL_CERT_FILE", authority.to_str().unwrap())];
        let server = program.serve_in(&variables, &["--login-url", &url]);
        let request = reqwest::Client::new().post(server.url(PATH)).body(body.to_string());
        let answer = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["code"], code, "{answer}");
        server.signal("TERM");
        let (_, log) = server.wait();
        let cause = "invalid peer certificate";
        assert_eq!(log.contains(cause), code == 1_306_201, "{log}");
        assert!(!log.contains("marker"), "{log}");
    }
}

#[test]
fn an_invalid_address_of_the_login_service_is_refused() {
    for address in ["", "paas.example.com", "ftp://x", "http://"] {
        assert!(LoginService::new(address).is_err(), "{address:?}");
    }
}
