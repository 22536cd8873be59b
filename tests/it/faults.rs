//! Failures of PostgreSQL and of the connection to it: requests are answered with 503, no batch is
//! partially applied, and the server recovers without a restart.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use cmdb_associations::config::{DRAIN_TIMEOUT, REQUEST_TIMEOUT};
use cmdb_associations::db::STATEMENT_TIMEOUT;
use cmdb_associations::server::{BACKLOG_GRACE, SHUTDOWN_DELAY};
use cmdb_associations::service;
use sqlx::{ConnectOptions, PgPool};
use tokio::runtime::Handle;

use crate::app::{Reply, TestApp, batch, pool_of};
use crate::binary::is_pooled;
use crate::cluster::Cluster;
use crate::constraints::Role;
use crate::proxy::{InjectedFailure, Proxy};

const UNAVAILABLE: &str = "Postgres is unavailable, please try again later";

async fn send(app: &TestApp, pair: (i64, i64)) -> Reply {
    app.post(batch("bk_switch_default_host", &[pair])).await
}

#[track_caller]
fn assert_unavailable(reply: &Reply) {
    reply.assert_refused(503, 1_306_201, UNAVAILABLE);
    assert_eq!(reply.headers["retry-after"], "2");
}

/// The supervisors in `deploy/` kill after 30 s. The original's callers give up after 25 s.
#[test]
fn statement_request_and_drain_timeouts_are_in_strict_order() {
    let second = Duration::from_secs(1);
    let order = [STATEMENT_TIMEOUT, REQUEST_TIMEOUT, DRAIN_TIMEOUT, 20 * second];
    assert!(order.is_sorted_by(|one, next| *one + second < *next), "{order:?}");
    // The last second is for closing the connections to the database.
    assert!(SHUTDOWN_DELAY + BACKLOG_GRACE + DRAIN_TIMEOUT + second < 20 * second);
}

/// Bytes that only the writing statement sends: the parameters application and user, in sequence.
const WRITE: &[u8] = b"esb_test\0\0\0\x05admin";

/// Bytes that it sends only with an idempotency key: the parameter language.
const WRITE_WITH_KEY: &[u8] = b"\0\0\0\x02en";

/// The proxy loses PostgreSQL's answer to the commit.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_batch_whose_answer_was_lost_is_replayed_under_its_key(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy =
        Proxy::losing(&pool.connect_options(), WRITE_WITH_KEY, InjectedFailure::ResponseLost).await;
    let app = TestApp::on(pool_of(proxy.options.clone(), 1));
    let key = [("idempotency-key", "4fb1")];
    let body = batch("bk_switch_default_host", &[(1, 1), (1, 2)]);
    assert_unavailable(&app.post_with(&key, body.clone()).await);
    assert!(proxy.has_lost());
    let again = app.post_with(&key, body).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let stored: Vec<i64> = sqlx::query_scalar("select id from cmdb.instance_association")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(stored, again.ids());
    app.serving.close().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_batch_whose_answer_was_lost_is_refused_as_existing_without_a_key(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::losing(&pool.connect_options(), WRITE, InjectedFailure::ResponseLost).await;
    let app = TestApp::on(pool_of(proxy.options.clone(), 1));
    assert_unavailable(&send(&app, (1, 1)).await);
    let exists = serde_json::json!({"0": "the associations bk_switch->host already exist"});
    assert_eq!(send(&app, (1, 1)).await.maps(), (vec![], exists));
    app.serving.close().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_statement_that_was_lost_on_its_way_creates_nothing(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::losing(&pool.connect_options(), WRITE, InjectedFailure::StatementLost).await;
    let app = TestApp::on(pool_of(proxy.options.clone(), 1));
    assert_unavailable(&send(&app, (1, 1)).await);
    assert_eq!(send(&app, (1, 1)).await.ids().len(), 1);
    app.serving.close().await;
}

/// Nothing comes back on the connection, not even its end. The pool replaces it.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_connection_that_stops_answering_is_closed_and_replaced(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::to(&pool.connect_options()).await;
    // The deadline is too short for a write, so that only the connection is tested.
    let app = TestApp::with_timeout(pool_of(proxy.options.clone(), 1), Duration::from_millis(500));
    assert_eq!(send(&app, (1, 1)).await.status, 503);
    assert_eq!(app.serving.status().available, 1);
    proxy.stall();
    let started = Instant::now();
    // Under another model association, which is not cached and must be looked up.
    assert_unavailable(&app.post(batch("bk_switch_run_host", &[(1, 1)])).await);
    assert_eq!(app.get("/readyz").await.0, StatusCode::OK);
    assert!(started.elapsed() < Duration::from_secs(15));
    app.serving.close().await;
}

/// A server whose only, idle connection has stopped answering.
async fn with_stalled_connection(pool: &PgPool) -> TestApp {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::to(&pool.connect_options()).await;
    let app = TestApp::on(pool_of(proxy.options.clone(), 1));
    assert_eq!(app.get("/readyz").await.0, StatusCode::OK);
    proxy.stall();
    app
}

/// A probe may have a shorter timeout than the server.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_probe_that_times_out_leaves_no_stalled_connection_in_the_pool(pool: PgPool) {
    let app = with_stalled_connection(&pool).await;
    let probe = tokio::time::timeout(Duration::from_millis(200), app.get("/readyz")).await;
    assert!(probe.is_err());
    let started = Instant::now();
    while app.get("/readyz").await.0 != StatusCode::OK {
        assert!(started.elapsed() < Duration::from_secs(15), "it does not recover");
    }
    app.serving.close().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_purge_of_idempotency_records_releases_a_stalled_connection(pool: PgPool) {
    let app = with_stalled_connection(&pool).await;
    let purge = tokio::spawn(service::idempotency::purge(app.serving.clone()));
    while app.serving.status().available > 0 {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    while send(&app, (1, 1)).await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "the connection is never replaced");
    }
    purge.abort();
    app.serving.close().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn connections_that_the_database_closed_are_replaced(pool: PgPool) {
    let app = TestApp::new(pool_of(pool.connect_options().as_ref().clone(), 2)).await;
    assert_eq!(send(&app, (1, 1)).await.ids().len(), 1);
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and application_name = 'cmdb-associations'";
    sqlx::query(end).execute(&pool).await.unwrap();
    // Connections that were used a moment ago are not pinged before their next use.
    let mut replies = Vec::new();
    for n in 2..=5 {
        replies.push(send(&app, (n, n)).await);
    }
    let failed: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
    assert!(failed.len() <= 2, "more requests failed than connections were closed");
    failed.into_iter().for_each(assert_unavailable);
    assert_eq!(send(&app, (6, 6)).await.ids().len(), 1);
    app.serving.close().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_database_without_free_connections_is_answered_with_503_until_it_has_some(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let role = Role::new(&pool, "connection limit 0").await;
    let app = TestApp::on(pool_of(role.options(), 1));
    let started = Instant::now();
    assert_unavailable(&send(&app, (1, 1)).await);
    assert_eq!(app.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(started.elapsed() < Duration::from_secs(10));
    role.run("alter role ROLE connection limit 2").await;
    assert_eq!(send(&app, (1, 1)).await.ids().len(), 1);
    app.serving.close().await;
    role.drop().await;
}

/// The audit record, which is written after the links, fails with `ENOSPC`.
#[tokio::test]
async fn a_full_disk_is_answered_with_503_and_no_batch_is_partially_applied() {
    let cluster = with_fixture().await;
    let mut conn = cluster.options().connect().await.unwrap();
    let file: String = sqlx::query_scalar(
        "select current_setting('data_directory') || '/' || pg_relation_filepath('cmdb.audit_log')",
    )
    .fetch_one(&mut conn)
    .await
    .unwrap();
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/full", &file).unwrap();
    let app = TestApp::new(pool_of(cluster.options(), 1)).await;
    assert_unavailable(&send(&app, (1, 1)).await);
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 0);
    // `truncate` gives the table a new file.
    sqlx::query("truncate cmdb.audit_log").execute(&mut conn).await.unwrap();
    assert_eq!(send(&app, (1, 1)).await.ids().len(), 1);
    app.serving.close().await;
}

/// One server through all of these failures, without a restart.
#[tokio::test]
async fn a_server_recovers_after_its_database_was_stopped_killed_and_frozen() {
    let cluster = with_fixture().await;
    let app = TestApp::new(pool_of(cluster.options(), 4)).await;
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
        // pgbouncer lets statements wait for a server that is gone.
        let bound = if is_pooled() { Duration::from_secs(20) } else { bound };
        assert!(started.elapsed() < bound, "{fault}: {:?}", started.elapsed());
        assert_eq!(app.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE, "{fault}");
        assert_eq!(app.get("/healthz").await.0, StatusCode::OK, "{fault}");
        cluster.does(end);
        if is_pooled() {
            // It tries again after `server_login_retry`.
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        }
        // At most each connection that was in use fails once more.
        let mut failures = 0;
        while send(&app, (n, n)).await.status != 200 {
            failures += 1;
            assert!(failures <= 4, "{fault}: it does not recover");
        }
        assert_eq!(app.get("/readyz").await.0, StatusCode::OK, "{fault}");
    }
    // No task is left, and no connection except those of the pool and of this test.
    let status = app.serving.status();
    assert_eq!(status.available, status.size);
    assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks);
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 5);
    assert_eq!(app.count("select sum(cardinality(source_ids)) from cmdb.audit_log").await, 5);
    let connections =
        "select count(*) from pg_stat_activity where application_name = 'cmdb-associations'";
    assert!(app.count(connections).await <= 5);
    app.serving.close().await;
}

/// A PostgreSQL server of the test's own, with the test data.
pub(crate) async fn with_fixture() -> Cluster {
    let cluster = Cluster::start();
    let mut conn = cluster.options().connect().await.unwrap();
    service::database::migrate(&mut conn, "0").await.unwrap();
    sqlx::raw_sql(include_str!("../fixtures/world.sql")).execute(&mut conn).await.unwrap();
    cluster
}
