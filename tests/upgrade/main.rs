//! Replaces a server by one of a newer version, with newer migrations, under load.
//!
//! `make upgrade-test` builds both programs and runs it. Clients send batches, single links and
//! searches without a pause, each write with an `Idempotency-Key`. The steps are those of the page
//! about operations. A request may fail only because its connection was closed or refused, and is
//! then sent again. In the end the links are compared with the answers, and both programs must find
//! the data sound.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for developers: it panics on errors and prints its results"
)]

#[path = "../it/binary.rs"]
#[expect(dead_code, reason = "some functions are used only by tests")]
mod binary;
#[path = "../it/cluster.rs"]
#[expect(dead_code, reason = "some functions are used only by tests")]
mod cluster;

mod client; // sends requests and records the answers

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection, Executor};

use self::binary::{Program, Server};
use self::client::{Link, Load};
use self::cluster::Cluster;

/// The number of concurrent clients.
const CLIENTS: u64 = 8;

/// How long the load lasts between two steps.
const STEP: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() {
    let executables: Vec<String> = std::env::args().skip(1).collect();
    let [old, new] = &executables[..] else { panic!("usage: upgrade OLD NEW") };
    let cluster = Cluster::start();
    let url = cluster.options().to_url_lossy();
    let [old, new] = [old, new].map(|executable| Program::of(executable, url.as_str()));
    let mut conn = cluster.options().connect().await.unwrap();
    prepare(&old, &mut conn).await;

    let old_server = serve(&old);
    let load = Arc::new(Load::new());
    load.send_to(&[&old_server]);
    let clients: Vec<_> = (0..CLIENTS).map(|n| tokio::spawn(Arc::clone(&load).send(n))).collect();
    tokio::time::sleep(STEP).await;

    // A report holds locks that a change of these tables waits for.
    let mut report = cluster.options().connect().await.unwrap();
    let mut reading = report.begin().await.unwrap();
    let links_and_models = "select count(*) from cmdb.instance_association, cmdb.model";
    reading.execute(links_and_models).await.unwrap();
    let blocked = migrate(&new).await;
    let is_blocked = blocked.status == 2 && blocked.stderr.contains("lock timeout");
    assert!(is_blocked || blocked.status == 0, "{}", blocked.stderr);
    println!("migrate beside a long transaction: {}", first_line(&blocked.stderr));
    reading.rollback().await.unwrap();
    if is_blocked {
        let started = Instant::now();
        let migrated = migrate(&new).await;
        assert_eq!(migrated.status, 0, "{}", migrated.stderr);
        println!("migrate: {} in {:?}", first_line(&migrated.stderr), started.elapsed());
    }
    load.finish_step("old server, migrations", STEP).await;

    let new_server = serve(&new);
    load.send_to(&[&old_server, &new_server]);
    load.finish_step("both servers", STEP).await;

    stop(old_server).await;
    load.finish_step("end of the old server", Duration::ZERO).await;
    load.send_to(&[&new_server]);
    load.finish_step("new server", STEP).await;

    // The way back.
    let old_server = serve(&old);
    load.send_to(&[&new_server, &old_server]);
    load.finish_step("back: both servers", STEP).await;
    stop(new_server).await;
    load.send_to(&[&old_server]);
    load.finish_step("back: old server", STEP).await;

    load.is_over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    compare(&load, &mut conn).await;
    for (name, program) in [("old", &old), ("new", &new)] {
        let check = program.run(&["check", "--strict"]);
        assert_eq!(check.status, 0, "check of the {name} program: {}", check.stdout);
        println!("check --strict of the {name} program: sound");
    }
}

/// Stops a server, which must answer the requests in flight and exit without an error.
async fn stop(server: Server) {
    server.signal("TERM");
    let (status, log) = tokio::task::spawn_blocking(|| server.wait()).await.unwrap();
    assert_eq!(status, Some(0), "{log}");
}

/// Applies the old program's migrations and inserts the inventory and an application.
async fn prepare(old: &Program, conn: &mut PgConnection) {
    assert_eq!(old.run(&["migrate"]).status, 0);
    conn.execute(include_str!("../fixtures/world.sql")).await.unwrap();
    conn.execute(
        "insert into cmdb.instance (model_id, instance_id)
         select model.id, n from cmdb.model, generate_series(301, 3000) n
         where key in ('bk_switch', 'host')",
    )
    .await
    .unwrap();
    let arguments = ["app", "add", client::APP, "--trust-username", "--secret-stdin"];
    assert_eq!(old.run_with(&arguments, client::APP).status, 0);
}

/// Starts a server. It exits if migrations are pending.
fn serve(program: &Program) -> Server {
    let log = "error,cmdb_associations::cli=info";
    program.serve(&["--no-migrate", "--authorization", "off", "--log", log])
}

async fn migrate(program: &Program) -> binary::Output {
    let mut command = program.command(&["migrate", "--lock-timeout", "2s"]);
    tokio::task::spawn_blocking(move || binary::finish(&mut command, "")).await.unwrap()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Compares the stored links and audit records with the answers.
async fn compare(load: &Load, conn: &mut PgConnection) {
    let failures = std::mem::take(&mut *load.failures.lock().unwrap());
    assert!(failures.is_empty(), "{} requests failed: {}", failures.len(), failures[0]);
    let stored: Vec<Link> = sqlx::query_as(
        "select link.id, key, source_id, target_id
         from cmdb.instance_association link
         join cmdb.model_association a on a.id = model_association_id",
    )
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    let stored: BTreeSet<_> = stored.into_iter().collect();
    let acknowledged = std::mem::take(&mut *load.acknowledged.lock().unwrap());
    let lost = acknowledged.difference(&stored).count();
    let unknown = stored.difference(&acknowledged).count();
    // Each request has a user of its own.
    let twice: i64 =
        sqlx::query_scalar("select count(*) - count(distinct user_name) from cmdb.audit_log")
            .fetch_one(conn)
            .await
            .unwrap();
    println!(
        "{} links acknowledged, {lost} lost, {unknown} without an answer; \
         {twice} requests carried out twice",
        acknowledged.len()
    );
    assert_eq!((lost, unknown, twice), (0, 0, 0));
    assert!(!acknowledged.is_empty());
}
