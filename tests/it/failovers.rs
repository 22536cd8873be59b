//! Several hosts of one database, of which the writable one is used; commits that wait for a
//! synchronous standby; replicas that answer reads.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use cmdb_associations::config::database_at;
use cmdb_associations::db::session::Database;
use cmdb_associations::service::commits::CommitProbe;
use cmdb_associations::service::replica::ReplicaProbe;
use cmdb_associations::service::{Abandoned, Pool};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::app::{Reply, TestApp, batch, pool_of, pooled, server_database};
use crate::binary::Program;
use crate::cluster::Cluster;
use crate::faults::with_fixture;
use crate::permissions::{grant, model};

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

/// A connection that was idle for so long is verified.
const IDLE: Duration = Duration::from_millis(1_100);

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
    sleep(IDLE).await;
    let error = pool.acquire().await.map(drop).unwrap_err().to_string();
    assert!(error.contains("timed out"), "{error}");
    second.does("promote");
    assert_eq!(acquire(&pool).await, directories[1]);
    first.does("start-standby");
    pool.outdate();
    assert_eq!(acquire(&pool).await, directories[1]);

    // A connection is verified again after it was idle.
    first.does("promote");
    let mut conn = second.options().connect().await.unwrap();
    for sql in ["alter system set default_transaction_read_only = on", "select pg_reload_conf()"] {
        sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    }
    sleep(IDLE).await;
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

/// A primary, a replica of it, and a server with the connections of both.
struct Replicated {
    primary: Cluster,
    replica: Cluster,
    app: TestApp,
    is_usable: watch::Sender<bool>,
}

impl Replicated {
    /// With a replica that replays nothing more, and a link that it does not have.
    async fn start() -> Self {
        let primary = with_fixture().await;
        TestApp::new(pool_of(primary.options(), 1)).await;
        let replica = replica_of(&primary);
        let is_usable = watch::Sender::new(true);
        let app = TestApp::build(pool_of(primary.options(), 2), |setup| {
            let connections = Pool::new(replica.options(), 2);
            setup.replica = Some((connections, is_usable.subscribe()));
        });
        // The backup was made later than all that the test needs.
        run(&replica, "select pg_wal_replay_pause()").await;
        app.post(batch("bk_switch_default_host", &[(1, 1)])).await.ids();
        Self { primary, replica, app, is_usable }
    }

    /// How many links a request counts.
    async fn count(&self, fields: &Value) -> Value {
        let reply = self.app.post_to(COUNT, &[], count(fields)).await;
        assert_eq!(reply.json["code"], 0, "{}", reply.json);
        reply.json["data"]["count"].clone()
    }
}

/// Starts a replica of a server.
fn replica_of(primary: &Cluster) -> Cluster {
    let data = tempfile::tempdir().unwrap();
    primary.run_action(&["backup", data.path().to_str().unwrap()]);
    Cluster::run(data, "")
}

const COUNT: &str = "/api/c/compapi/v2/cc/count_instance_associations/";

/// A request that counts links, with additional fields.
fn count(fields: &Value) -> Value {
    let mut body = json!({"bk_obj_id": "bk_switch"});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

async fn run(cluster: &Cluster, sql: &'static str) {
    let mut conn = cluster.options().connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
}

#[tokio::test]
async fn a_read_is_answered_by_the_replica_unless_that_is_not_usable_or_the_caller_objects() {
    let replicated = Replicated::start().await;
    assert_eq!(replicated.count(&json!({})).await, 0);
    assert_eq!(replicated.count(&json!({"read_from": "any"})).await, 0);
    assert_eq!(replicated.count(&json!({"read_from": null})).await, 0);
    assert_eq!(replicated.count(&json!({"read_from": "primary"})).await, 1);
    replicated.is_usable.send_replace(false);
    assert_eq!(replicated.count(&json!({})).await, 1);
    replicated.is_usable.send_replace(true);
    assert_eq!(replicated.count(&json!({})).await, 0);

    // A refusal may be outdated at the replica.
    let Replicated { app, .. } = &replicated;
    grant(app, "viewer", &[model("bk_switch")]).await;
    assert_eq!(replicated.count(&json!({"bk_username": "viewer"})).await, 1);

    let reply = app.post_to(COUNT, &[], count(&json!({"read_from": "nowhere"}))).await;
    let text = "read_from: expected `primary` or `any`";
    assert!(reply.json["message"].as_str().unwrap().contains(text), "{}", reply.json);
    assert_eq!(reply.json["code"], 1_199_000);
    // An endpoint that writes does not know the field.
    let mut body = batch("bk_switch_default_host", &[(2, 1)]);
    body["read_from"] = "nowhere".into();
    assert_eq!(app.post(body).await.ids().len(), 1);
    app.serving.close().await;
}

#[tokio::test]
async fn a_read_is_answered_by_the_primary_if_the_replica_fails_meanwhile() {
    let replicated = Replicated::start().await;
    let before = replicated.count(&json!({})).await;
    replicated.replica.does("pause");
    let during = replicated.count(&json!({})).await;
    replicated.replica.does("resume");
    replicated.replica.does("kill");
    let after = replicated.count(&json!({})).await;
    assert_eq!((before, during, after), (0.into(), 1.into(), 1.into()));
    replicated.app.serving.close().await;
}

#[tokio::test]
async fn a_replica_is_usable_while_it_has_the_commits_of_the_last_seconds() {
    const SOON: Duration = Duration::from_millis(50);
    let Replicated { primary, replica, app, .. } = Replicated::start().await;
    let commits = CommitProbe::new(Database::from(primary.options()), Arc::default());
    let messages = commits.messages();
    let mut running = JoinSet::new();
    running.spawn(commits.run(SOON));
    let mut probed = Vec::new();
    let other = Cluster::start();
    for cluster in [&replica, &primary, &other] {
        let database = Database::from(cluster.options());
        let pool = Pool::new(cluster.options(), 1);
        let max_lag = Duration::from_secs(1);
        let probe = ReplicaProbe::new(database, pool, Arc::clone(&messages), max_lag);
        probed.push(probe.is_usable());
        running.spawn(probe.run(SOON));
    }
    let [of_replica, of_primary, of_other] = &mut probed[..] else { panic!() };
    let until = async |is_usable: &mut watch::Receiver<bool>, expected: bool| {
        let changed = is_usable.wait_for(|is_usable| *is_usable == expected);
        tokio::time::timeout(Duration::from_secs(20), changed).await.unwrap().unwrap();
    };
    until(of_primary, true).await;
    run(&replica, "select pg_wal_replay_resume()").await;
    until(of_replica, true).await;
    run(&replica, "select pg_wal_replay_pause()").await;
    until(of_replica, false).await;
    run(&replica, "select pg_wal_replay_resume()").await;
    until(of_replica, true).await;
    replica.does("kill");
    until(of_replica, false).await;
    replica.does("start");
    until(of_replica, true).await;
    replica.does("pause");
    until(of_replica, false).await;
    replica.does("resume");
    until(of_replica, true).await;
    assert!(!*of_other.borrow(), "it is of another cluster");
    running.shutdown().await;
    app.serving.close().await;
}

#[tokio::test]
async fn the_log_says_which_database_has_answered_a_read() {
    let primary = with_fixture().await;
    TestApp::new(pool_of(primary.options(), 1)).await;
    let replica = replica_of(&primary);
    let url = |cluster: &Cluster| cluster.options().to_url_lossy().to_string();
    let server = Program::at(&url(&primary))
        .serve_in(&[("CMDB_DATABASE_READ_URL", &url(&replica))], &["--database-connections", "2"]);
    let client = reqwest::Client::new();
    let send = async |path: &str, fields: &Value| {
        let mut body = count(fields);
        for (name, value) in
            [("app_code", "esb_test"), ("app_secret", "xxx"), ("username", "admin")]
        {
            body[format!("bk_{name}")] = value.into();
        }
        let reply = client.post(server.url(path)).body(body.to_string()).send().await.unwrap();
        assert_eq!(reply.status(), 200);
    };
    while !client
        .get(server.url("/metrics"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
        .contains("\ncmdb_replica_used 1\n")
    {
        sleep(Duration::from_millis(100)).await;
    }
    send(COUNT, &json!({})).await;
    send(COUNT, &json!({"read_from": "primary"})).await;
    send(crate::app::PATH, &json!({})).await;
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status, Some(0));
    let databases: Vec<_> = log
        .lines()
        .filter(|line| line.contains("request{"))
        .map(|line| line.split_once("database=").map(|(_, rest)| rest.split(['"', '}']).nth(1)))
        .collect();
    assert_eq!(databases, [Some(Some("replica")), Some(Some("primary")), None], "{log}");
}

/// How many commits wait for a standby.
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
    let started = Instant::now();
    // A commit that begins now shows that all abandoned ones are acknowledged.
    while app.get("/readyz").await.0 != StatusCode::OK {
        assert!(started.elapsed() < Duration::from_secs(10), "it does not recover");
        sleep(Duration::from_millis(50)).await;
    }
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
