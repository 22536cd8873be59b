//! Several hosts of one database, of which the writable one is used, and commits that wait for a
//! synchronous standby.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use cmdb_associations::config::database_at;
use cmdb_associations::db::session::Database;
use cmdb_associations::service::commits::CommitProbe;
use cmdb_associations::service::{Abandoned, Pool};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::app::{Reply, TestApp, batch, pool_of, pooled, server_database};
use crate::binary::Program;
use crate::cluster::Cluster;
use crate::faults::with_fixture;

/// The directory of the cluster's data, which tells clusters apart.
async fn directory(conn: &mut PgConnection) -> String {
    sqlx::query_scalar("select current_setting('data_directory')").fetch_one(conn).await.unwrap()
}

async fn directory_of(cluster: &Cluster) -> String {
    directory(&mut cluster.options().connect().await.unwrap()).await
}

/// A URL of these addresses, and of the clusters.
fn url(addresses: &[u16], clusters: &[&Cluster]) -> String {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for port in addresses {
        hosts.push("127.0.0.1".to_owned());
        ports.push(port.to_string());
    }
    for options in clusters.iter().map(|cluster| pooled(cluster.options())) {
        hosts.push(options.get_socket().unwrap().display().to_string());
        ports.push(options.get_port().to_string());
    }
    let options = clusters[0].options();
    let (user, name) = (options.get_username(), options.get_database().unwrap());
    format!(
        "postgresql://{user}@localhost/{name}?host={}&port={}",
        hosts.join(","),
        ports.join(",")
    )
}

/// Acquires a connection, as soon as that is possible.
async fn acquire(pool: &Pool) -> String {
    let started = Instant::now();
    loop {
        match pool.acquire().await {
            Ok(mut conn) => {
                let directory = directory(&mut conn).await;
                conn.release();
                return directory;
            }
            Err(error) => assert!(started.elapsed() < Duration::from_secs(10), "{error}"),
        }
    }
}

#[tokio::test]
async fn connections_lead_to_the_host_that_accepts_writes_wherever_that_is() {
    let (first, second) = (Cluster::start(), Cluster::start());
    let directories = [directory_of(&first).await, directory_of(&second).await];
    second.does("stop");
    second.does("start-standby");
    // Nothing listens at one address, and nothing answers at another one.
    let port = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (closed, silent) = (port().await.local_addr().unwrap().port(), port().await);
    let addresses = [closed, silent.local_addr().unwrap().port()];
    let hosts = database_at(&url(&addresses, &[&second, &first])).unwrap();
    let pool = Pool::new(Database::new(hosts), 1);
    assert_eq!(acquire(&pool).await, directories[0]);

    // The other one is promoted. It is not connected to while it is a standby.
    first.does("kill");
    let error = pool.acquire().await.map(drop).unwrap_err();
    assert!(!error.to_string().contains("pool timed out"), "{error}");
    second.does("promote");
    assert_eq!(acquire(&pool).await, directories[1]);
    first.does("start-standby");
    assert_eq!(acquire(&pool).await, directories[1]);

    // A connection is verified again after it was idle.
    first.does("promote");
    let mut conn = second.options().connect().await.unwrap();
    for sql in ["alter system set default_transaction_read_only = on", "select pg_reload_conf()"] {
        sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    }
    sleep(Duration::from_millis(1_100)).await;
    assert_eq!(acquire(&pool).await, directories[0]);
    conn.close().await.unwrap();
    pool.close().await;
}

#[tokio::test]
async fn the_reason_for_each_host_is_reported_if_none_accepts_writes() {
    let cluster = Cluster::start();
    cluster.does("stop");
    cluster.does("start-standby");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = url(&[port], &[&cluster]);
    let output = Program::at(&url).run(&["app", "list"]);
    assert_eq!(output.status, 2);
    for text in [&format!("at 127.0.0.1:{port},/"), "Connection refused", "it is a standby"] {
        assert!(output.stderr.contains(text), "{text}: {}", output.stderr);
    }
}

/// How many commits wait, and for how long they may.
async fn waiting_commits(conn: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select count(*) from pg_stat_activity where wait_event = 'SyncRep'")
        .fetch_one(conn)
        .await
        .unwrap()
}

/// Waits until the probe reports that commits are acknowledged, or that they are not.
async fn until_commits(problem: &mut watch::Receiver<Option<String>>, are_acknowledged: bool) {
    let changed = problem.wait_for(|problem| problem.is_none() == are_acknowledged);
    tokio::time::timeout(Duration::from_secs(20), changed).await.unwrap().unwrap();
}

#[tokio::test]
async fn commits_without_a_synchronous_standby_use_a_limited_number_of_connections() {
    const CONNECTIONS: u32 = 2;
    let cluster = with_fixture().await;
    let mut conn = cluster.options().connect().await.unwrap();
    let database = server_database(cluster.options());
    let abandoned = Arc::<Abandoned>::default();
    let serving = Pool::limited(database.clone(), CONNECTIONS, Arc::clone(&abandoned));
    let probe = CommitProbe::new(database, abandoned);
    let mut problem = probe.problem();
    let app = TestApp::with(pool_of(cluster.options(), 1), |setup| {
        setup.serving = Some(serving);
        setup.commit_problem = probe.problem();
        // A write is begun if the statement has its 5 s left.
        setup.request_timeout = Duration::from_millis(5_200);
    })
    .await;
    let set_standby = async |conn: &mut PgConnection, name: &str| {
        let set = format!("alter system set synchronous_standby_names = '{name}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut *conn).await.unwrap();
        sqlx::raw_sql("select pg_reload_conf()").execute(conn).await.unwrap();
    };
    set_standby(&mut conn, "nobody").await;
    let mut running = JoinSet::new();
    running.spawn(probe.run(Duration::from_millis(100)));
    until_commits(&mut problem, false).await;
    let (status, reason) = app.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{reason}");
    assert!(reason.contains("perhaps a synchronous standby is away"), "{reason}");

    // Each request that is written waits, is abandoned, and leaves a connection that waits. The
    // third round finds none that may be opened.
    let send = async |n: i64| {
        let body = batch("bk_switch_default_host", &[(n, 1), (n, 2)]);
        app.post_with(&[("idempotency-key", &*n.to_string())], body).await
    };
    let mut waiting = Vec::new();
    for round in 0..3 {
        let replies = futures_util::future::join_all((1..=3).map(|n| send(round * 3 + n))).await;
        assert!(replies.iter().all(|reply: &Reply| reply.status == 503));
        waiting.push(waiting_commits(&mut conn).await);
    }
    let limit = i64::from(2 * CONNECTIONS) + 3;
    assert!(waiting[0] > 0 && waiting[2] <= limit, "{waiting:?}");
    assert_eq!(waiting[1], waiting[2]);

    // The standby is back.
    set_standby(&mut conn, "").await;
    until_commits(&mut problem, true).await;
    assert_eq!(app.get("/readyz").await.0, StatusCode::OK);
    assert_eq!(waiting_commits(&mut conn).await, 0);
    let mut replayed = 0;
    for n in 1..=9 {
        let reply = send(n).await;
        assert_eq!(reply.ids().len(), 2, "the batch is created once: {}", reply.json);
        replayed += usize::from(reply.headers.contains_key("idempotent-replayed"));
    }
    assert!(replayed > 0, "no abandoned batch was committed");
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 18);
    running.shutdown().await;
    app.serving.close().await;
}
