//! Stopping under load: nobody who was listened to is left without an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::{PgPool, Postgres, Transaction};

use crate::app::{TestApp, batch};
use crate::binary::{Program, Server};
use crate::constraints::{block_link_writers, wait_until_blocked};
use crate::socket::Client;

/// What clients saw until nobody accepted their connections any more.
#[derive(Default)]
struct Seen {
    next: AtomicI64,
    created: AtomicUsize,
    lost: AtomicUsize,
    /// Answers that came after `/readyz` had turned.
    after_notice: AtomicUsize,
    notices: AtomicUsize,
}

/// Sends one detail after another, each connection for as long as the server keeps it.
async fn send(address: SocketAddr, seen: Arc<Seen>) {
    while let Ok(mut client) = Client::connect(address).await {
        loop {
            let n = seen.next.fetch_add(1, Ordering::SeqCst);
            let sent =
                client.post(batch("bk_switch_default_host", &[(n / 200 + 1, n % 200 + 1)])).await;
            let answer = client.answer().await;
            let (Ok(()), Some(answer)) = (sent, answer) else {
                seen.lost.fetch_add(1, Ordering::SeqCst);
                break;
            };
            assert_eq!(
                answer.json()["data"]["error_msg"],
                serde_json::json!({}),
                "{}",
                answer.body
            );
            seen.created.fetch_add(1, Ordering::SeqCst);
            seen.after_notice
                .fetch_add(seen.notices.load(Ordering::SeqCst).min(1), Ordering::SeqCst);
            if answer.closes {
                break;
            }
        }
    }
}

/// Asks whether the server is ready until it does not answer any more.
async fn watch(address: SocketAddr, seen: Arc<Seen>) {
    while let Ok(mut client) = Client::connect(address).await {
        client.get("/readyz").await.unwrap();
        let answer = client.answer().await.expect("an answer");
        if answer.status == 503 {
            assert_eq!(answer.body, "draining\n");
            seen.notices.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_server_that_is_stopped_under_load_answers_everybody_first(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let server = Program::on(&pool).serve(&[]);
    let address = server.address.parse().unwrap();
    let seen = Arc::new(Seen::default());
    let mut clients: Vec<_> =
        (0..8).map(|_| tokio::spawn(send(address, Arc::clone(&seen)))).collect();
    clients.push(tokio::spawn(watch(address, Arc::clone(&seen))));
    while seen.created.load(Ordering::SeqCst) < 50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stopped = Instant::now();
    server.signal("TERM");
    for client in clients {
        client.await.unwrap();
    }
    let (status, log) = tokio::task::spawn_blocking(|| server.wait()).await.unwrap();
    assert_eq!(status, Some(0), "{log}");
    assert!(stopped.elapsed() < Duration::from_secs(20));
    let count = |number: &AtomicUsize| number.load(Ordering::SeqCst);
    assert_eq!(count(&seen.lost), 0, "requests without an answer");
    assert!(count(&seen.notices) > 0, "/readyz did not turn while the server still answered");
    assert!(count(&seen.after_notice) > 0, "nobody was answered after that");
    let stored: i64 = sqlx::query_scalar("select count(*) from instance_association")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(usize::try_from(stored), Ok(count(&seen.created)));
}

/// A server, a client whose request waits for the database, and what it waits for.
async fn with_a_request_that_waits(
    pool: &PgPool,
) -> (Server, Client, Transaction<'static, Postgres>) {
    TestApp::new(pool.clone()).await;
    let server = Program::on(pool).serve(&[]);
    let holder = block_link_writers(pool).await;
    let mut client = Client::connect(server.address.parse().unwrap()).await.unwrap();
    client.post(batch("bk_switch_default_host", &[(1, 1)])).await.unwrap();
    wait_until_blocked(pool, 1).await;
    (server, client, holder)
}

/// Whoever had sent a request when the server stopped listening is answered, however long the database takes.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_that_waits_for_the_database_is_answered_before_the_end(pool: PgPool) {
    let (server, mut client, holder) = with_a_request_that_waits(&pool).await;
    let address: SocketAddr = server.address.parse().unwrap();
    server.signal("TERM");
    // Until nobody gets in any more, and a little longer.
    while Client::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    holder.rollback().await.unwrap();
    let answer = client.answer().await.expect("an answer");
    assert_eq!(answer.json()["data"]["error_msg"], serde_json::json!({}));
    assert!(answer.closes);
    let (status, log) = tokio::task::spawn_blocking(|| server.wait()).await.unwrap();
    assert_eq!(status, Some(0), "{log}");
}

/// A caller who hangs up does not cut short what was begun, and neither does a stop.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_whose_caller_has_left_ends_before_the_server_does(pool: PgPool) {
    let (server, client, holder) = with_a_request_that_waits(&pool).await;
    drop(client);
    server.signal("TERM");
    // Longer than a server takes that has nothing to do.
    tokio::time::sleep(Duration::from_secs(3)).await;
    holder.rollback().await.unwrap();
    let (status, log) = tokio::task::spawn_blocking(|| server.wait()).await.unwrap();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("answered"), "{log}");
}
