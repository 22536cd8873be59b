//! How much the server takes on, and what it does with more.

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

/// Nothing here takes this long unless it hangs.
const HANGS: Duration = Duration::from_secs(20);

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn requests_beyond_the_places_are_refused_and_served_again_when_there_are_some(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let app = Arc::new(TestApp::with_places(pool.clone(), 2));
    let holder = block_link_writers(&pool).await;
    let taken_on = [1, 2].map(|n| {
        let app = Arc::clone(&app);
        tokio::spawn(async move { app.post(batch("bk_switch_default_host", &[(n, n)])).await })
    });
    wait_until_blocked(&pool, 2).await;
    let refused = app.post(batch("bk_switch_default_host", &[(3, 3)])).await;
    refused.assert_refused(503, 1_306_201, OVERLOADED);
    assert_eq!(refused.headers["retry-after"], "1");
    // Busy is not broken.
    assert_eq!(app.get("/readyz").await.0, 200);
    holder.rollback().await.unwrap();
    for request in taken_on {
        assert_eq!(request.await.unwrap().ids().len(), 1);
    }
    assert_eq!(app.post(batch("bk_switch_default_host", &[(3, 3)])).await.ids().len(), 1);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn whoever_connects_beyond_the_limit_is_told_so(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { connections: 1, ..LIMITS };
    let address = open(app.router.clone(), limits).await;
    let mut served = Client::connect(address).await.unwrap();
    served.post(batch("bk_switch_default_host", &[(1, 1)])).await.unwrap();
    assert_eq!(served.answer().await.unwrap().json()["code"], 0);

    let mut surplus = Client::connect(address).await.unwrap();
    surplus.post(batch("bk_switch_default_host", &[(2, 2)])).await.unwrap();
    let refused = surplus.answer().await.unwrap();
    assert_eq!((refused.status, refused.closes), (503, true));
    assert_eq!(refused.json()["message"], OVERLOADED);
    assert!(surplus.answer().await.is_none());
    // Whoever watches still sees that it lives.
    let mut surplus = Client::connect(address).await.unwrap();
    surplus.get("/healthz").await.unwrap();
    assert_eq!(surplus.answer().await.unwrap().status, 200);

    // The one that is served goes on, and when it leaves there is a place for another.
    served.post(batch("bk_switch_default_host", &[(3, 3)])).await.unwrap();
    assert_eq!(served.answer().await.unwrap().json()["code"], 0);
    drop(served);
    let started = Instant::now();
    loop {
        let mut next = Client::connect(address).await.unwrap();
        next.post(batch("bk_switch_default_host", &[(4, 4)])).await.unwrap();
        if next.answer().await.unwrap().status == 200 {
            break;
        }
        assert!(started.elapsed() < HANGS);
    }
}

/// Whoever connects now is answered once something has happened.
async fn newcomer(address: SocketAddr, happens: impl FnOnce()) {
    let mut next = Client::connect(address).await.unwrap();
    next.get("/healthz").await.unwrap();
    happens();
    let answer = tokio::time::timeout(HANGS, next.answer()).await.expect("it hangs");
    assert_eq!(answer.unwrap().status, 200);
}

#[sqlx::test]
async fn connections_that_say_nothing_make_room_after_the_heads_time(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { connections: 1, head_timeout: Duration::from_millis(200), ..LIMITS };
    let address = open(app.router.clone(), limits).await;
    // One that is served, one that is surplus: whoever comes now waits to be accepted.
    let _silent =
        [Client::connect(address).await.unwrap(), Client::connect(address).await.unwrap()];
    newcomer(address, || ()).await;
}

/// The others are not kept waiting by those who are only told that there are too many.
#[sqlx::test]
async fn whoever_comes_is_served_as_soon_as_there_is_a_place(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { connections: 1, head_timeout: Duration::from_hours(1), ..LIMITS };
    let address = open(app.router.clone(), limits).await;
    let served = Client::connect(address).await.unwrap();
    let _silent = Client::connect(address).await.unwrap();
    newcomer(address, || drop(served)).await;
}

/// Nor does a silent one among those keep its place for long.
#[sqlx::test]
async fn whoever_comes_is_told_soon_though_there_is_no_place(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { connections: 1, head_timeout: Duration::from_hours(1), ..LIMITS };
    let address = open(app.router.clone(), limits).await;
    let _silent =
        [Client::connect(address).await.unwrap(), Client::connect(address).await.unwrap()];
    newcomer(address, || ()).await;
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn whoever_does_not_read_loses_his_place(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { connections: 1, read_timeout: Duration::from_millis(500), ..LIMITS };
    let address = open(app.router.clone(), limits).await;
    let mut deaf = Client::connect(address).await.unwrap();
    // Until neither side's buffers hold any more.
    let asks = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    while let Ok(sent) = tokio::time::timeout(Duration::from_millis(300), deaf.send(&asks)).await {
        sent.unwrap();
    }
    let started = Instant::now();
    loop {
        let mut next = Client::connect(address).await.unwrap();
        next.post(batch("bk_switch_default_host", &[(1, 1)])).await.unwrap();
        if next.answer().await.unwrap().status == 200 {
            break;
        }
        assert!(started.elapsed() < HANGS, "its place is never free again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_body_that_leaves_no_time_for_its_work_is_late(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let app = TestApp::with_deadline(pool, Duration::from_secs(1));
    let mut slow = Client::connect(open(app.router.clone(), LIMITS).await).await.unwrap();
    slow.send(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{").as_bytes())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    slow.send(b"}").await.unwrap();
    let answer = slow.answer().await.unwrap();
    assert_eq!(answer.json()["message"], NOT_JSON);
}

/// Otherwise it could not read the answer.
#[sqlx::test]
async fn whoever_sends_much_to_a_wrong_path_or_method_is_listened_to(pool: PgPool) {
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

#[sqlx::test]
async fn a_head_that_comes_a_byte_at_a_time_is_cut_off(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { head_timeout: Duration::from_millis(300), ..LIMITS };
    let mut slow = Client::connect(open(app.router.clone(), limits).await).await.unwrap();
    let started = Instant::now();
    for byte in format!("POST {PATH} HTTP/1.1\r\nx: ").bytes().chain(std::iter::repeat(b'x')) {
        if slow.send(&[byte]).await.is_err() {
            break;
        }
        assert!(started.elapsed() < HANGS, "it is still listened to");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[sqlx::test]
async fn a_huge_head_is_refused_early(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut client = Client::connect(open(app.router.clone(), LIMITS).await).await.unwrap();
    client.send(format!("POST {PATH} HTTP/1.1\r\nx: ").as_bytes()).await.unwrap();
    let some = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while sent < 64 << 20 && client.send(&some).await.is_ok() {
        sent += 1 << 16;
    }
    assert!(sent < 32 << 20, "{sent} bytes of a head were taken");
}

#[sqlx::test]
async fn a_body_of_ten_million_details_is_cut_off_after_8_mib(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut client = Client::connect(open(app.router.clone(), LIMITS).await).await.unwrap();
    let detail = br#"{"bk_inst_id":1,"bk_asst_inst_id":1},"#;
    let length = detail.len() * 10_000_000;
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    client.send(head.as_bytes()).await.unwrap();
    let some = detail.repeat(10_000);
    let mut sent = 0;
    while sent < length && client.send(&some).await.is_ok() {
        sent += some.len();
    }
    assert!(sent < 64 << 20, "{sent} bytes of a body were taken");
}

/// One that has sent 8 MiB at most gets to read what is wrong.
#[sqlx::test]
async fn a_client_that_sends_up_to_8_mib_reads_the_refusal(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut client = Client::connect(open(app.router.clone(), LIMITS).await).await.unwrap();
    let body = vec![b'x'; 8 << 20];
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(head.as_bytes()).await.unwrap();
    client.send(&body).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, 413);
}

/// Bodies that stall hold no more memory than there is room for.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn bodies_beyond_the_room_for_them_are_refused(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let app = Arc::new(TestApp::with_deadline(pool, Duration::from_secs(8)));
    let stalled: Vec<_> = (0..70)
        .map(|_| {
            let app = Arc::clone(&app);
            let begun = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![
                    b' ';
                    1 << 20
                ]))]);
            let body = Body::from_stream(begun.chain(futures_util::stream::pending()));
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

/// A body within the limit can hold far more than 200 of anything.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn what_is_deep_or_many_is_read_in_full_and_refused_in_clear_words(pool: PgPool) {
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
    let type_of = |place: &str| format!("Deserializing JSON data failed: {place}");
    for (details, code, message) in [
        (many("null", 200_000), 1_199_035, "details exceed the limit 200".to_owned()),
        (many("{}", 300_000), 1_199_035, "details exceed the limit 200".to_owned()),
        (
            format!("[{},1]", vec!["{}"; 100_000].join(",")),
            1_199_000,
            type_of("details[100000]: expected an object, got an integer"),
        ),
        (deep(100), 1_199_000, type_of("details[0]: expected an object, got an array")),
        (deep(400_000), 1_199_000, type_of("details[0]: expected an object, got an array")),
        (
            format!(r#"[{{"bk_inst_id":{}}}]"#, deep(200_000)),
            1_199_000,
            type_of("details[0].bk_inst_id: expected an integer, got an array"),
        ),
    ] {
        app.post_raw(with(&details)).await.assert_refused(200, code, &message);
    }
    // In what nobody reads it does not matter.
    let body = with("[{\"bk_inst_id\":1,\"bk_asst_inst_id\":1}]").replacen(
        '{',
        &format!("{{\"x\":{},", deep(400_000)),
        1,
    );
    assert_eq!(app.post_raw(body).await.ids().len(), 1);
}
