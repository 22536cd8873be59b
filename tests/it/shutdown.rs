//! Shutdown under load: every request that the server has read is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::{PgPool, Postgres, Transaction};

use crate::app::{TestApp, batch};
use crate::binary::{Program, Server};
use crate::constraints::{block_link_writers, wait_until_blocked};
use crate::socket::Client;

/// What the clients observed until the server refused new connections.
#[derive(Default)]
struct Observed {
    next: AtomicI64,
    created: AtomicUsize,
    unanswered: AtomicUsize,
    /// Answers that came after the first `draining` of `/readyz`.
    answered_while_draining: AtomicUsize,
    /// How often `/readyz` answered `draining`.
    draining: AtomicUsize,
}

/// Sends one detail after another; a connection is used for as long as the server keeps it.
async fn send(address: SocketAddr, observed: Arc<Observed>) {
    while let Ok(mut client) = Client::connect(address).await {
        loop {
            let n = observed.next.fetch_add(1, Ordering::SeqCst);
            let sent =
                client.post(batch("bk_switch_default_host", &[(n / 200 + 1, n % 200 + 1)])).await;
            let answer = client.answer().await;
            let (Ok(()), Some(answer)) = (sent, answer) else {
                observed.unanswered.fetch_add(1, Ordering::SeqCst);
                break;
            };
            assert_eq!(
                answer.json()["data"]["error_msg"],
                serde_json::json!({}),
                "{}",
                answer.body
            );
            observed.created.fetch_add(1, Ordering::SeqCst);
            observed
                .answered_while_draining
                .fetch_add(observed.draining.load(Ordering::SeqCst).min(1), Ordering::SeqCst);
            if answer.closes {
                break;
            }
        }
    }
}

/// Asks `/readyz` until the server refuses connections.
async fn watch_readiness(address: SocketAddr, observed: Arc<Observed>) {
    while let Ok(mut client) = Client::connect(address).await {
        let sent = client.get("/readyz").await;
        // The server may end while the connection waits to be accepted.
        let (Ok(()), Some(answer)) = (sent, client.answer().await) else { break };
        if answer.status == 503 {
            assert_eq!(answer.body, "draining\n");
            observed.draining.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_server_that_is_stopped_under_load_answers_every_request_it_read(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let server = Program::on(&pool).serve(&[]);
    let address = server.address.parse().unwrap();
    let observed = Arc::new(Observed::default());
    let mut clients: Vec<_> =
        (0..8).map(|_| tokio::spawn(send(address, Arc::clone(&observed)))).collect();
    clients.push(tokio::spawn(watch_readiness(address, Arc::clone(&observed))));
    while observed.created.load(Ordering::SeqCst) < 50 {
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
    assert_eq!(count(&observed.unanswered), 0, "requests without an answer");
    assert!(count(&observed.draining) > 0, "/readyz never answered `draining`");
    assert!(count(&observed.answered_while_draining) > 0, "no answer while draining");
    let stored: i64 = sqlx::query_scalar("select count(*) from cmdb.instance_association")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(usize::try_from(stored), Ok(count(&observed.created)));
}

/// A server, a client whose request waits for a lock, and the transaction that holds the lock.
async fn with_a_blocked_request(pool: &PgPool) -> (Server, Client, Transaction<'static, Postgres>) {
    TestApp::new(pool.clone()).await;
    let server = Program::on(pool).serve(&[]);
    let holder = block_link_writers(pool).await;
    let mut client = Client::connect(server.address.parse().unwrap()).await.unwrap();
    client.post(batch("bk_switch_default_host", &[(1, 1)])).await.unwrap();
    wait_until_blocked(pool, 1).await;
    (server, client, holder)
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_that_waits_for_the_database_is_answered_before_the_server_exits(pool: PgPool) {
    let (server, mut client, holder) = with_a_blocked_request(&pool).await;
    let address: SocketAddr = server.address.parse().unwrap();
    server.signal("TERM");
    // Wait until new connections are refused, and a little longer.
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

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_idle_connection_does_not_delay_the_exit(pool: PgPool) {
    let server = Program::on(&pool).serve(&[]);
    let mut idle = Client::connect(server.address.parse().unwrap()).await.unwrap();
    idle.get("/healthz").await.unwrap();
    assert_eq!(idle.answer().await.unwrap().status, 200);
    server.signal("TERM");
    assert!(idle.answer().await.is_none());
    let (status, log) = tokio::task::spawn_blocking(|| server.wait()).await.unwrap();
    assert_eq!(status, Some(0), "{log}");
    assert!(!log.contains("timed out"), "{log}");
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_whose_client_has_disconnected_completes_before_the_server_exits(pool: PgPool) {
    let (server, client, holder) = with_a_blocked_request(&pool).await;
    drop(client);
    server.signal("TERM");
    // An idle server would have exited by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    holder.rollback().await.unwrap();
    let (status, log) = tokio::task::spawn_blocking(|| server.wait()).await.unwrap();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("answered"), "{log}");
}
