//! What happens to databases, and that the server says so, writes nothing by halves and goes on by itself.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use cmdb_associations::config::{DRAIN_TIMEOUT, REQUEST_TIMEOUT};
use cmdb_associations::db::STATEMENT_TIMEOUT;
use cmdb_associations::server::{LAST_CALL, NOTICE};
use cmdb_associations::service;
use sqlx::{ConnectOptions, PgPool};
use tokio::runtime::Handle;

use crate::app::{Reply, TestApp, batch, few};
use crate::cluster::Cluster;
use crate::constraints::Role;
use crate::proxy::{Fate, Proxy};

const UNAVAILABLE: &str = "Postgres is unavailable, please try again later";

async fn send(app: &TestApp, pair: (i64, i64)) -> Reply {
    app.post(batch("bk_switch_default_host", &[pair])).await
}

#[track_caller]
fn assert_unavailable(reply: &Reply) {
    reply.assert_refused(503, 1_306_201, UNAVAILABLE);
    assert_eq!(reply.headers["retry-after"], "1");
}

/// The supervisors' kill in our files comes after 30 s, the original's callers give up after 25.
#[test]
fn deadlines_are_in_strict_order() {
    let second = Duration::from_secs(1);
    let order = [STATEMENT_TIMEOUT, REQUEST_TIMEOUT, DRAIN_TIMEOUT, 20 * second];
    assert!(order.is_sorted_by(|one, next| *one + second < *next), "{order:?}");
    // The last second is for saying goodbye to the database.
    assert!(NOTICE + LAST_CALL + DRAIN_TIMEOUT + second < 20 * second);
}

/// Said by the statement that writes, and by no other: the application and its user, one after the other.
const WRITING: &[u8] = b"esb_test\0\0\0\x05admin";

/// Said by it where the answer is kept: the language.
const WRITING_AND_KEEPING: &[u8] = b"\0\0\0\x02en";

/// A commit of which only the database knows.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_commit_whose_answer_was_lost_is_answered_when_the_request_comes_again(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::losing(&pool.connect_options(), WRITING_AND_KEEPING, Fate::AnswerLost).await;
    let app = TestApp::on(few(proxy.options.clone(), 1));
    let key = [("idempotency-key", "4fb1")];
    let body = batch("bk_switch_default_host", &[(1, 1), (1, 2)]);
    assert_unavailable(&app.post_with(&key, body.clone()).await);
    assert!(proxy.has_lost());
    let again = app.post_with(&key, body).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let stored: Vec<i64> =
        sqlx::query_scalar("select id from instance_association").fetch_all(&pool).await.unwrap();
    assert_eq!(stored, again.ids());
    app.serving.close().await;
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn without_a_key_what_was_committed_unheard_exists_already(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::losing(&pool.connect_options(), WRITING, Fate::AnswerLost).await;
    let app = TestApp::on(few(proxy.options.clone(), 1));
    assert_unavailable(&send(&app, (1, 1)).await);
    let exists = serde_json::json!({"0": "the associations bk_switch->host already exist"});
    assert_eq!(send(&app, (1, 1)).await.maps(), (vec![], exists));
    app.serving.close().await;
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_statement_that_never_arrived_created_nothing(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::losing(&pool.connect_options(), WRITING, Fate::StatementLost).await;
    let app = TestApp::on(few(proxy.options.clone(), 1));
    assert_unavailable(&send(&app, (1, 1)).await);
    assert_eq!(send(&app, (1, 1)).await.ids().len(), 1);
    app.serving.close().await;
}

/// A connection on which nothing comes back, not even its end: it is given up, and its place with it.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_connection_that_falls_silent_is_given_up(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::to(&pool.connect_options()).await;
    // So short that no batch is written: here it is about the connection.
    let app = TestApp::with_deadline(few(proxy.options.clone(), 1), Duration::from_millis(500));
    assert_eq!(send(&app, (1, 1)).await.status, 503);
    assert_eq!(app.serving.status().idle, 1);
    proxy.stall();
    let started = Instant::now();
    assert_unavailable(&send(&app, (1, 1)).await);
    assert_eq!(app.get("/readyz").await.0, StatusCode::OK);
    assert!(started.elapsed() < Duration::from_secs(15));
    app.serving.close().await;
}

/// A server whose only connection, idle so far, has fallen silent.
async fn with_silence(pool: &PgPool) -> TestApp {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::to(&pool.connect_options()).await;
    let app = TestApp::on(few(proxy.options.clone(), 1));
    assert_eq!(app.get("/readyz").await.0, StatusCode::OK);
    proxy.stall();
    app
}

/// Whoever watches may have less patience than the server.
#[sqlx::test]
async fn a_watcher_that_hangs_up_leaves_no_silent_connection_behind(pool: PgPool) {
    let app = with_silence(&pool).await;
    let asked = tokio::time::timeout(Duration::from_millis(200), app.get("/readyz")).await;
    assert!(asked.is_err());
    let started = Instant::now();
    while app.get("/readyz").await.0 != StatusCode::OK {
        assert!(started.elapsed() < Duration::from_secs(15), "it never finds back");
    }
    app.serving.close().await;
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn dropping_what_expired_gives_up_a_silent_connection_too(pool: PgPool) {
    let app = with_silence(&pool).await;
    let sweeping = tokio::spawn(service::idempotency::sweep(app.serving.clone()));
    while app.serving.status().idle > 0 {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    while send(&app, (1, 1)).await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "its place is never free again");
    }
    sweeping.abort();
    app.serving.close().await;
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn connections_that_the_database_ended_are_replaced(pool: PgPool) {
    let app = TestApp::new(few(pool.connect_options().as_ref().clone(), 2)).await;
    assert_eq!(send(&app, (1, 1)).await.ids().len(), 1);
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and application_name = 'cmdb-associations'";
    sqlx::query(end).execute(&pool).await.unwrap();
    // Those that were in use just now are not tried out first.
    let mut replies = Vec::new();
    for n in 2..=5 {
        replies.push(send(&app, (n, n)).await);
    }
    let failed: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
    assert!(failed.len() <= 2, "as many as there were connections");
    failed.into_iter().for_each(assert_unavailable);
    assert_eq!(send(&app, (6, 6)).await.ids().len(), 1);
    app.serving.close().await;
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_database_that_is_out_of_connections_is_told_and_waited_for(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let role = Role::new(&pool, "connection limit 0").await;
    let app = TestApp::on(few(role.options(), 1));
    let started = Instant::now();
    assert_unavailable(&send(&app, (1, 1)).await);
    assert_eq!(app.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(started.elapsed() < Duration::from_secs(10));
    role.run("alter role ROLE connection limit 2").await;
    assert_eq!(send(&app, (1, 1)).await.ids().len(), 1);
    app.serving.close().await;
    role.drop().await;
}

/// The audit record, written after the links, does not fit on the device.
#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_written_by_halves() {
    let cluster = with_world().await;
    let mut conn = cluster.options().connect().await.unwrap();
    let file: String = sqlx::query_scalar(
        "select current_setting('data_directory') || '/' || pg_relation_filepath('audit_log')",
    )
    .fetch_one(&mut conn)
    .await
    .unwrap();
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/full", &file).unwrap();
    let app = TestApp::new(few(cluster.options(), 1)).await;
    assert_unavailable(&send(&app, (1, 1)).await);
    assert_eq!(app.count("select count(*) from instance_association").await, 0);
    // The table gets another file.
    sqlx::query("truncate audit_log").execute(&mut conn).await.unwrap();
    assert_eq!(send(&app, (1, 1)).await.ids().len(), 1);
    app.serving.close().await;
}

/// One server through everything, without a restart.
#[tokio::test]
async fn a_database_that_stops_dies_and_freezes_is_told_and_the_server_goes_on_after_it() {
    let cluster = with_world().await;
    let app = TestApp::new(few(cluster.options(), 4)).await;
    assert_eq!(send(&app, (1, 1)).await.ids().len(), 1);
    let tasks = Handle::current().metrics().num_alive_tasks();

    for (n, fault, end, bound) in [
        (2, "stop", "start", REQUEST_TIMEOUT),
        (3, "kill", "start", REQUEST_TIMEOUT),
        (4, "immediate", "start", REQUEST_TIMEOUT),
        (5, "pause", "resume", Duration::from_secs(20)),
    ] {
        cluster.does(fault);
        let started = Instant::now();
        assert_unavailable(&send(&app, (n, n)).await);
        assert!(started.elapsed() < bound, "{fault}: {:?}", started.elapsed());
        assert_eq!(app.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE, "{fault}");
        assert_eq!(app.get("/healthz").await.0, StatusCode::OK, "{fault}");
        cluster.does(end);
        // At most each connection that was in use fails once more.
        let mut failures = 0;
        while send(&app, (n, n)).await.status != 200 {
            failures += 1;
            assert!(failures <= 4, "{fault}: it does not recover");
        }
        assert_eq!(app.get("/readyz").await.0, StatusCode::OK, "{fault}");
    }
    // Nothing is left of all that: no task, and no connection but the pool's and this test's.
    assert_eq!(app.serving.status().in_use, 0);
    assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks);
    assert_eq!(app.count("select count(*) from instance_association").await, 5);
    assert_eq!(app.count("select sum(cardinality(source_ids)) from audit_log").await, 5);
    let connections =
        "select count(*) from pg_stat_activity where application_name = 'cmdb-associations'";
    assert!(app.count(connections).await <= 5);
    app.serving.close().await;
}

async fn with_world() -> Cluster {
    let cluster = Cluster::start();
    let mut conn = cluster.options().connect().await.unwrap();
    service::schema::migrate(&mut conn).await.unwrap();
    sqlx::raw_sql(include_str!("../fixtures/world.sql")).execute(&mut conn).await.unwrap();
    cluster
}
