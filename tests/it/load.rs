//! Limits on connections, requests in flight and body sizes, and what happens beyond them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use cmdb_associations::server::Limits;
use futures_util::StreamExt;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{PATH, TestApp, batch};
use crate::constraints::{block_link_writers, wait_until_blocked};
use crate::socket::{Client, LIMITS, open};

const OVERLOADED: &str = "The server is overloaded, please try again later";

const NOT_JSON: &str = "Request JSON string is wrong in format, which cannot be analyzed.";

/// The time after which a test gives up waiting.
const TIMEOUT: Duration = Duration::from_secs(20);

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn requests_without_a_permit_are_refused_until_a_permit_is_free(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let app = Arc::new(TestApp::with_permits(pool.clone(), 2));
    let holder = block_link_writers(&pool).await;
    let admitted = [1, 2].map(|n| {
        let app = Arc::clone(&app);
        tokio::spawn(async move { app.post(batch("bk_switch_default_host", &[(n, n)])).await })
    });
    wait_until_blocked(&pool, 2).await;
    let refused = app.post(batch("bk_switch_default_host", &[(3, 3)])).await;
    refused.assert_refused(503, 1_306_201, OVERLOADED);
    assert_eq!(refused.headers["retry-after"], "2");
    // What is no request gets its own refusal.
    assert_eq!(app.post_raw("nonsense").await.json["code"], 1_306_000);
    // A server without free permits is still ready.
    assert_eq!(app.get("/readyz").await.0, 200);
    holder.rollback().await.unwrap();
    for request in admitted {
        assert_eq!(request.await.unwrap().ids().len(), 1);
    }
    assert_eq!(app.post(batch("bk_switch_default_host", &[(3, 3)])).await.ids().len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_connection_beyond_the_limit_is_answered_with_503_and_closed(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    let limits = Limits { connections: 1, ..LIMITS };
    let address = open(app.router.clone(), limits).await;
    let holder = block_link_writers(&pool).await;
    let mut served = Client::connect(address).await.unwrap();
    served.post(batch("bk_switch_default_host", &[(1, 1)])).await.unwrap();
    wait_until_blocked(&pool, 1).await;

    let mut excess = Client::connect(address).await.unwrap();
    excess.post(batch("bk_switch_default_host", &[(2, 2)])).await.unwrap();
    let refused = excess.answer().await.unwrap();
    assert_eq!((refused.status, refused.closes, &refused.keep_alive), (503, true, &None));
    assert_eq!(refused.json()["message"], OVERLOADED);
    assert!(excess.answer().await.is_none());
    // Liveness probes beyond the limit are still answered.
    let mut excess = Client::connect(address).await.unwrap();
    excess.get("/healthz").await.unwrap();
    assert_eq!(excess.answer().await.unwrap().status, 200);

    // The first connection is still served.
    holder.rollback().await.unwrap();
    assert_eq!(served.answer().await.unwrap().json()["code"], 0);
}

/// Asserts that a new connection is answered after `event`.
async fn assert_answered_after(address: SocketAddr, event: impl FnOnce()) {
    let mut next = Client::connect(address).await.unwrap();
    next.get("/healthz").await.unwrap();
    event();
    let answer = tokio::time::timeout(TIMEOUT, next.answer()).await.expect("no answer");
    assert_eq!(answer.unwrap().status, 200);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn silent_connections_are_closed_after_the_head_timeout(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { connections: 1, head_timeout: Duration::from_millis(200), ..LIMITS };
    let address = open(app.router.clone(), limits).await;
    // One connection is served, one is beyond the limit. A third waits to be accepted.
    let _silent =
        [Client::connect(address).await.unwrap(), Client::connect(address).await.unwrap()];
    assert_answered_after(address, || ()).await;
}

/// A silent connection beyond the limit does not delay the next one.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_new_connection_is_served_as_soon_as_another_one_is_closed(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { connections: 1, head_timeout: Duration::from_hours(1), ..LIMITS };
    let address = open(app.router.clone(), limits).await;
    let served = Client::connect(address).await.unwrap();
    let _silent = Client::connect(address).await.unwrap();
    assert_answered_after(address, || drop(served)).await;
}

/// A silent connection beyond the limit is closed soon, so that the next one is accepted.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_new_connection_is_answered_soon_when_all_others_are_silent(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { connections: 1, head_timeout: Duration::from_hours(1), ..LIMITS };
    let address = open(app.router.clone(), limits).await;
    let _silent =
        [Client::connect(address).await.unwrap(), Client::connect(address).await.unwrap()];
    assert_answered_after(address, || ()).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_client_that_does_not_read_its_answers_loses_its_connection(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { connections: 1, read_timeout: Duration::from_millis(500), ..LIMITS };
    let address = open(app.router.clone(), limits).await;
    let mut stalled = Client::connect(address).await.unwrap();
    // Send until the buffers of both sides are full.
    let requests = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    while let Ok(sent) =
        tokio::time::timeout(Duration::from_millis(300), stalled.send(&requests)).await
    {
        sent.unwrap();
    }
    let started = Instant::now();
    loop {
        let mut next = Client::connect(address).await.unwrap();
        next.post(batch("bk_switch_default_host", &[(1, 1)])).await.unwrap();
        if next.answer().await.unwrap().status == 200 {
            break;
        }
        assert!(started.elapsed() < TIMEOUT, "the connection is never closed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_body_that_arrives_too_late_to_be_handled_is_refused_as_invalid_json(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let app = TestApp::with_timeout(pool, Duration::from_secs(1));
    let mut slow = Client::connect(open(app.router.clone(), LIMITS).await).await.unwrap();
    slow.send(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{").as_bytes())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    slow.send(b"}").await.unwrap();
    let answer = slow.answer().await.unwrap();
    assert_eq!(answer.json()["message"], NOT_JSON);
}

/// A connection that is closed while the client sends would lose the answer.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_large_body_is_read_before_a_wrong_path_or_method_is_refused(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let address = open(app.router.clone(), LIMITS).await;
    for (line, status) in [("POST /unknown", 404), (&format!("PUT {PATH}"), 405)] {
        let mut client = Client::connect(address).await.unwrap();
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n");
        client.send(head.as_bytes()).await.unwrap();
        for _ in 0..300 {
            client.send(&[b'x'; 10_000]).await.unwrap();
        }
        assert_eq!(client.answer().await.unwrap().status, status);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_connection_that_sends_its_head_byte_by_byte_is_closed(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { head_timeout: Duration::from_millis(300), ..LIMITS };
    let mut slow = Client::connect(open(app.router.clone(), limits).await).await.unwrap();
    let started = Instant::now();
    for byte in format!("POST {PATH} HTTP/1.1\r\nx: ").bytes().chain(std::iter::repeat(b'x')) {
        if slow.send(&[byte]).await.is_err() {
            break;
        }
        assert!(started.elapsed() < TIMEOUT, "the connection is still open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_connection_with_a_huge_head_is_closed_before_32_mib(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut client = Client::connect(open(app.router.clone(), LIMITS).await).await.unwrap();
    client.send(format!("POST {PATH} HTTP/1.1\r\nx: ").as_bytes()).await.unwrap();
    let chunk = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while sent < 64 << 20 && client.send(&chunk).await.is_ok() {
        sent += 1 << 16;
    }
    assert!(sent < 32 << 20, "{sent} bytes of a head were read");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_connection_with_a_body_of_ten_million_details_is_closed_before_64_mib(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut client = Client::connect(open(app.router.clone(), LIMITS).await).await.unwrap();
    let detail = br#"{"bk_inst_id":1,"bk_asst_inst_id":1},"#;
    let length = detail.len() * 10_000_000;
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    client.send(head.as_bytes()).await.unwrap();
    let chunk = detail.repeat(10_000);
    let mut sent = 0;
    while sent < length && client.send(&chunk).await.is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 64 << 20, "{sent} bytes of a body were read");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_client_that_sends_up_to_8_mib_can_read_the_refusal(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut client = Client::connect(open(app.router.clone(), LIMITS).await).await.unwrap();
    let body = vec![b'x'; 8 << 20];
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(head.as_bytes()).await.unwrap();
    client.send(&body).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, 413);
}

/// Bodies that stall hold no more memory than the body budget.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn bodies_beyond_the_body_budget_are_refused(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let app = Arc::new(TestApp::with_timeout(pool, Duration::from_secs(8)));
    let stalled: Vec<_> = (0..70)
        .map(|_| {
            let app = Arc::clone(&app);
            let start = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![
                    b' ';
                    1 << 20
                ]))]);
            let body = Body::from_stream(start.chain(futures_util::stream::pending()));
            tokio::spawn(async move { app.post_raw(body).await.json["code"].clone() })
        })
        .collect();
    let started = Instant::now();
    let mut answer = Value::Null;
    while answer["message"] != OVERLOADED {
        assert!(started.elapsed() < Duration::from_secs(7), "{answer}");
        answer = app.post_raw(vec![b' '; 1 << 20]).await.json;
    }
    for request in stalled {
        let code = request.await.unwrap();
        assert!([1_306_000, 1_306_201].contains(&code.as_i64().unwrap()), "{code}");
    }
    let reply = app.post(batch("bk_switch_default_host", &[(1, 2)])).await;
    assert_eq!(reply.ids().len(), 1);
}

/// A body within the size limit can have hundreds of thousands of elements or levels.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_body_with_very_many_or_very_deep_values_is_refused_with_the_reason(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let with = |details: &str| {
        let body = json!({
            "bk_app_code": "esb_test", "bk_app_secret": "xxx", "bk_username": "admin", "bk_obj_id": "bk_switch",
            "bk_asst_obj_id": "host", "bk_obj_asst_id": "bk_switch_default_host", "details": "?",
        });
        body.to_string().replace("\"?\"", details)
    };
    let many = |element: &str, n: usize| format!("[{}]", vec![element; n].join(","));
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let wrong_type = |problem: &str| format!("Deserializing JSON data failed: {problem}");
    for (details, code, message) in [
        (many("null", 200_000), 1_199_035, "details exceed the limit 200".to_owned()),
        (many("{}", 300_000), 1_199_035, "details exceed the limit 200".to_owned()),
        (
            format!("[{},1]", vec!["{}"; 100_000].join(",")),
            1_199_000,
            wrong_type("details[100000]: expected an object, got an integer"),
        ),
        (deep(100), 1_199_000, wrong_type("details[0]: expected an object, got an array")),
        (deep(400_000), 1_199_000, wrong_type("details[0]: expected an object, got an array")),
        (
            format!(r#"[{{"bk_inst_id":{}}}]"#, deep(200_000)),
            1_199_000,
            wrong_type("details[0].bk_inst_id: expected an integer, got an array"),
        ),
    ] {
        app.post_raw(with(&details)).await.assert_refused(200, code, &message);
    }
    // Depth does not matter in a value that is not used.
    let body = with("[{\"bk_inst_id\":1,\"bk_asst_inst_id\":1}]").replacen(
        '{',
        &format!("{{\"x\":{},", deep(400_000)),
        1,
    );
    assert_eq!(app.post_raw(body).await.ids().len(), 1);
}
