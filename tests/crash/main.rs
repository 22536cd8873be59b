//! Kills the server and its database under load, round after round, and counts what was lost.
//!
//! `make crash-test` runs it. Clients send batches without a pause. Each request has a user name of
//! its own, which identifies its audit record. In each round the server is killed (SIGKILL), or
//! PostgreSQL is (SIGKILL to all its processes, or an immediate stop), or both. Then the answers,
//! the links and the audit records are compared, and `check --strict` must succeed.

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
mod cluster;

mod client; // sends batches and records the answers
mod tally; // compares the answers with the stored data

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Executor};

use self::binary::{Program, Server};
use self::client::Load;
use self::cluster::Cluster;
use self::tally::Tally;

/// The number of concurrent clients.
const CLIENTS: u64 = 8;

/// The crash of each round: its name, what happens to PostgreSQL, whether the server is killed.
const CRASHES: [(&str, Option<&str>, bool); 5] = [
    ("server killed", None, true),
    ("PostgreSQL killed", Some("kill"), false),
    ("PostgreSQL stopped immediately", Some("immediate"), false),
    ("both killed", Some("kill"), true),
    ("server killed, PostgreSQL stopped immediately", Some("immediate"), true),
];

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap());
    let rounds = arguments.next().unwrap_or(25);
    let seed = arguments.next().unwrap_or(1);
    let cluster = Cluster::start();
    let program = Program::at(cluster.options().to_url_lossy().as_str());
    assert_eq!(program.run(&["migrate"]).status, 0);
    let mut conn = cluster.options().connect().await.unwrap();
    conn.execute(include_str!("../fixtures/world.sql")).await.unwrap();
    conn.execute(
        "insert into cmdb.instance (model_id, instance_id)
         select model.id, n from cmdb.model, generate_series(301, 3000) n
         where key in ('bk_switch', 'host')",
    )
    .await
    .unwrap();
    drop(conn);
    let added =
        program.run_with(&["app", "add", "crash", "--trust-username", "--secret-stdin"], "crash");
    assert_eq!(added.status, 0);

    let mut server = Some(serve(&program));
    let load = Arc::new(Load::new(&server.as_ref().unwrap().address));
    let clients: Vec<_> =
        (0..CLIENTS).map(|n| tokio::spawn(Arc::clone(&load).send(seed * CLIENTS + n))).collect();
    let mut crashes: BTreeMap<&str, u64> = BTreeMap::new();
    let mut total = Tally::default();
    for round in 0..rounds {
        let (name, fault, is_server) = CRASHES[usize::try_from(round).unwrap() % CRASHES.len()];
        *crashes.entry(name).or_default() += 1;
        // The crash comes after 10 to 500 ms of full load.
        let delay = 10 + Load::random(seed + round) % 490;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        if is_server {
            server = None;
        }
        if let Some(fault) = fault {
            cluster.does(fault);
        }
        load.pause().await;
        if fault.is_some() {
            cluster.does("start");
        }
        if is_server {
            server = Some(serve(&program));
        }
        let server = server.as_ref().unwrap();
        load.send_to(&server.address);
        wait_until_ready(server).await;
        load.retry_unanswered().await;
        total = tally::count(&cluster, &load).await;
        let check = program.run(&["check", "--strict"]);
        println!(
            "round {:>3}: {name} after {delay} ms; acknowledged {}, lost {}, check {}",
            round + 1,
            total.acknowledged,
            total.lost,
            if check.status == 0 { "sound" } else { "NOT SOUND" },
        );
        if check.status != 0 || !total.is_sound() {
            println!("{}\n{total:#?}", check.stdout);
            return ExitCode::FAILURE;
        }
        load.resume();
    }
    load.is_over.store(true, Ordering::SeqCst);
    load.resume();
    for client in clients {
        client.await.unwrap();
    }
    println!(
        "\n{rounds} rounds: {}",
        crashes.iter().map(|(name, n)| format!("{n} × {name}")).collect::<Vec<_>>().join(", ")
    );
    println!("{total}");
    ExitCode::SUCCESS
}

fn serve(program: &Program) -> Server {
    program.serve(&["--authorization", "off", "--log", "error,cmdb_associations::cli=info"])
}

/// Waits until the server has recovered by itself.
async fn wait_until_ready(server: &Server) {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    let started = Instant::now();
    loop {
        let ready = client.get(server.url("/readyz")).send().await;
        if ready.is_ok_and(|ready| ready.status() == 200) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "it does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
