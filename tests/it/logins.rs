//! Users by the login service, a real one on loopback that can be slow, down or wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::routing::get;
use cmdb_associations::http::TrustedSources;
use cmdb_associations::service::Service;
use cmdb_associations::service::login::Login;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::Semaphore;

use crate::app::{Reply, TestApp, batch, few};
use crate::socket::{LIMITS, open};

const BAD_TOKEN: &str = "User authentication failed, please check if the bk_token is valid";
const UNAVAILABLE: &str = "login service is unavailable, please try again later";

/// What the login service says to a token, and how often it was asked.
struct Stub {
    address: String,
    asked: Arc<AtomicUsize>,
}

async fn stub(answer: fn(&str) -> (StatusCode, String), delay: Duration) -> Stub {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let is_login = move |RawQuery(query): RawQuery| async move {
        count.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(delay).await;
        answer(query.unwrap().strip_prefix("bk_token=").unwrap())
    };
    let router = Router::new().route("/login/accounts/is_login/", get(is_login));
    let address = format!("http://{}", open(router, LIMITS).await);
    Stub { address, asked }
}

async fn app(pool: PgPool, address: &str) -> TestApp {
    let login = Login::new(address).unwrap();
    TestApp::with(pool, TrustedSources::default(), |service| service.login = Some(login)).await
}

async fn send(app: &TestApp, token: &str, n: i64) -> Reply {
    let mut body = batch("bk_switch_default_host", &[(n, n)]);
    let credentials = json!({"bk_app_code": "stranger", "bk_app_secret": "xxx", "bk_token": token, "bk_username": "admin"});
    body.as_object_mut().unwrap().extend(credentials.as_object().unwrap().clone());
    app.post_raw(body.to_string()).await
}

/// What takes its time elsewhere takes nobody's place here.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn while_the_login_service_is_asked_others_have_the_place(pool: PgPool) {
    let stub = stub(versions, Duration::from_secs(1)).await;
    let login = Login::new(&stub.address).unwrap();
    let set = |service: &mut Service| {
        (service.login, service.places) = (Some(login), Semaphore::new(1));
    };
    let app = Arc::new(TestApp::with(pool, TrustedSources::default(), set).await);
    let asking = Arc::clone(&app);
    let slow = tokio::spawn(async move { send(&asking, "v1", 1).await });
    while stub.asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.post(batch("bk_switch_default_host", &[(2, 2)])).await.ids().len(), 1);
    assert_eq!(stub.asked.load(Ordering::SeqCst), 1);
    assert_eq!(slow.await.unwrap().ids().len(), 1);
}

/// Knows `v1`, `v2` and `v3`, each in that version's way, and refuses the rest likewise.
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

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_token_is_a_user_in_each_version_of_the_login_service(pool: PgPool) {
    let stub = stub(versions, Duration::ZERO).await;
    let app = app(pool, &stub.address).await;
    for (n, token) in [(1, "v1"), (2, "v2"), (3, "v3")] {
        assert_eq!(send(&app, token, n).await.ids().len(), 1, "{token}");
    }
    // It never falls through to the name.
    for token in ["bad0", "bad1", "bad2", "bad3", "a&b=c %", &"x".repeat(5000)] {
        send(&app, token, 9).await.assert_refused(200, 1_306_000, BAD_TOKEN);
    }
    let signed: Vec<String> = sqlx::query_scalar("select distinct user_name from audit_log")
        .fetch_all(&app.pool)
        .await
        .unwrap();
    assert_eq!(signed, ["admin"]);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_token_is_asked_about_once_and_remembered_unless_it_was_refused(pool: PgPool) {
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
    assert_eq!(stub.asked.load(Ordering::SeqCst), 1);
    send(&app, "bad", 9).await;
    send(&app, "bad", 9).await;
    assert_eq!(stub.asked.load(Ordering::SeqCst), 3);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_login_service_that_fails_is_unavailable_and_never_an_invalid_token(pool: PgPool) {
    fn nonsense(token: &str) -> (StatusCode, String) {
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
    let stub = stub(nonsense, Duration::ZERO).await;
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
        assert_eq!(reply.headers["retry-after"], "1");
    }
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_login_service_that_is_down_or_slow_is_told_in_time_and_keeps_no_connection(
    pool: PgPool,
) {
    let down = app(pool.clone(), "http://127.0.0.1:1").await;
    let started = Instant::now();
    send(&down, "t", 1).await.assert_refused(503, 1_306_201, UNAVAILABLE);
    // It is given 1.5 s; a busy machine gets some more, but not the request's whole deadline.
    assert!(started.elapsed() < Duration::from_secs(8));

    let slow = stub(versions, Duration::from_hours(1)).await;
    let login = Login::new(&slow.address).unwrap();
    let one = few(pool.connect_options().as_ref().clone(), 1);
    let apps = sqlx::query("delete from app").execute(&pool).await.unwrap();
    assert_eq!(apps.rows_affected(), 2);
    let slow_app =
        TestApp::with(one, TrustedSources::default(), |service| service.login = Some(login)).await;
    let slow_app = Arc::new(slow_app);
    let waiting = tokio::spawn({
        let app = Arc::clone(&slow_app);
        async move { send(&app, "t", 1).await.assert_refused(503, 1_306_201, UNAVAILABLE) }
    });
    while slow.asked.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The only connection is free meanwhile.
    assert_eq!(slow_app.post(batch("bk_switch_default_host", &[(7, 7)])).await.ids().len(), 1);
    waiting.await.unwrap();
    slow_app.serving.close().await;
}

#[test]
fn an_address_that_is_none_is_refused() {
    for address in ["", "paas.example.com", "ftp://x", "http://"] {
        assert!(Login::new(address).is_err(), "{address:?}");
    }
}
