//! How fast the endpoint is, beside what Postgres itself can do, in one run. `make bench` runs it.
//!
//! Three databases on one private, durable Postgres hold 100 thousand, 1 million and 10 million links, and a release
//! build serves each of them. Every row of the table compares two sides that take turns, round after round, so that
//! whatever else the machine does hits both.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for developers: it stops where something is wrong, and prints what it saw"
)]

#[path = "../../tests/it/binary.rs"]
#[expect(dead_code, reason = "some of it is for tests only")]
mod binary;
#[path = "../../tests/it/cluster.rs"]
mod cluster;

mod batches; // what is sent
mod cost; // statements, WAL, memory
mod overload; // more clients than can be served
mod report; // the table, the file and the picture
mod row; // two sides that are compared
mod settings; // what settings are worth
mod side; // who does the work
mod world; // the databases

use std::time::{Duration, Instant};

use self::cluster::Cluster;
use self::report::Report;
use self::row::{ROWS, Samples};
use self::world::{SIZES, World};

#[tokio::main]
async fn main() {
    // `cargo bench` adds an argument of its own.
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if given.as_deref() == Some("settings") {
        return settings::measure().await;
    }
    let rounds = given.map_or(6, |rounds| rounds.parse().unwrap());
    let started = Instant::now();
    let cluster = Cluster::start();
    let worlds = World::all(&cluster, &SIZES).await;
    println!("loaded after {:.0?}", started.elapsed());

    let mut samples: Vec<_> = ROWS.iter().map(|_| Samples::default()).collect();
    // The first round is for warming up: prepared statements, caches, connections.
    for round in 0..=rounds {
        for (row, samples) in ROWS.iter().zip(&mut samples) {
            let measured = row.measure(&worlds, round).await;
            if round > 0 {
                samples.add(measured);
            }
        }
        println!("round {round} of {rounds} after {:.0?}", started.elapsed());
    }
    let costs = cost::measure(&worlds).await;
    let load = overload::measure(&worlds, rounds).await;
    // The one that most was written to.
    let check = worlds[1].program.run(&["check"]);
    assert_eq!(check.status, 0, "{}", check.stdout);
    let took = Duration::from_secs(started.elapsed().as_secs());
    Report { samples, costs, load, rounds, took }.publish();
}
