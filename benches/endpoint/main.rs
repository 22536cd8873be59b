//! Measures the endpoint and what PostgreSQL itself can do, in one run. `make bench` runs it.
//!
//! Databases on one private, durable PostgreSQL server hold 100 thousand, 1 million (twice) and 10
//! million links, and a release build serves each of them. Every row of the table compares two
//! contenders that take turns, round after round, so that other load on the machine affects both.
//!
//! - `cargo bench --bench endpoint -- [ROUNDS]`: the table, `target/bench.json`, `target/bench.svg`
//! - `cargo bench --bench endpoint -- settings`: the effect of settings
//! - `cargo bench --bench endpoint -- reads [LINKS]`: searches and deletions
//! - `cargo bench --bench endpoint -- import [SIZE]`: the import of a large export
//! - `cargo bench --bench endpoint -- scale [LINKS]`: a new database, and large ones
//! - `cargo bench --bench endpoint -- send [ROUNDS]`: the command `send`
//! - `cargo bench --bench endpoint -- compare OLD [ROUNDS]`: this build and the server binary OLD

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for developers: it panics on errors and prints its results"
)]

#[path = "../../tests/it/binary.rs"]
#[expect(dead_code, reason = "some functions are used only by tests")]
mod binary;
#[path = "../../tests/it/cluster.rs"]
mod cluster;

mod batches; // the requests: pairs that are new, stored, or both
mod compare; // this build and another one, side by side
mod contender; // what is compared: a bare insert, the original's algorithm, the endpoint
mod cost; // statements, WAL and memory of a request
mod dataset; // the databases and their servers
mod import; // the import of a large export
mod overload; // more clients than the server has permits
mod reads; // searches and deletions, beside bare statements
mod report; // the table, the JSON file and the chart
mod row; // the comparisons, and how they are measured
mod scale; // a new database, and databases of different sizes
mod send; // the command `send`, beside clients
mod settings; // the effect of settings of PostgreSQL and of the server

use std::time::{Duration, Instant};

use self::cluster::Cluster;
use self::dataset::{Dataset, SIZES};
use self::report::Report;
use self::row::{ROWS, measure_rows, warm_up};

#[tokio::main]
async fn main() {
    // `cargo bench` adds the argument `--bench`.
    let arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let arguments: Vec<_> = arguments.collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["settings"] => settings::measure().await,
        ["reads"] => reads::measure(10_000_000).await,
        ["reads", links] => reads::measure(links.parse().unwrap()).await,
        ["import"] => import::measure(1_000_000).await,
        ["import", size] => import::measure(size.parse().unwrap()).await,
        ["scale"] => scale::measure(20_000_000).await,
        ["scale", links] => scale::measure(links.parse().unwrap()).await,
        ["send"] => send::measure(3).await,
        ["send", rounds] => send::measure(rounds.parse().unwrap()).await,
        ["compare", old] => compare::measure(old, 10).await,
        ["compare", old, rounds] => compare::measure(old, rounds.parse().unwrap()).await,
        [] => measure(6).await,
        [rounds] => measure(rounds.parse().unwrap()).await,
        _ => panic!("unknown arguments: {arguments:?}"),
    }
}

async fn measure(rounds: usize) {
    let started = Instant::now();
    let cluster = Cluster::start();
    let datasets = Dataset::all(&cluster, &SIZES).await;
    for dataset in &datasets {
        warm_up(dataset).await;
    }
    println!("loaded after {:.0?}", started.elapsed());

    let samples = measure_rows(&ROWS, &datasets, rounds).await;
    let costs = cost::measure(&datasets).await;
    let load = overload::measure(&datasets, rounds).await;
    // Most links were written to the second dataset.
    let check = datasets[1].program.run(&["check"]);
    assert_eq!(check.status, 0, "{}", check.stdout);
    let took = Duration::from_secs(started.elapsed().as_secs());
    Report { samples, costs, load, rounds, took }.publish();
}
