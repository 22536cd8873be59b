//! The effect of settings: the throughput with each value of a setting, in turns.

use std::time::Duration;

use sqlx::{ConnectOptions, Executor};

use crate::batches::{Mapping, Mix, batch};
use crate::cluster::Cluster;
use crate::contender::Contender;
use crate::dataset::{Dataset, Size, set};
use crate::row::{Row, quantile, rate, row};

/// How often each value is measured.
const ROUNDS: usize = 2;

/// How long each value is measured: long enough for several checkpoints.
const WINDOW: Duration = Duration::from_secs(8);

/// Batches of fresh pairs from eight clients.
static EIGHT: Row = row(Mapping::ManyToMany, Mix::Fresh, 200, 8, 0, (Contender::Floor, 0), None);
/// Batches of fresh pairs from 64 clients.
static MANY: Row = row(Mapping::ManyToMany, Mix::Fresh, 200, 64, 0, (Contender::Floor, 0), None);

/// A setting of PostgreSQL, its values with the default first, and a statement that sets another
/// setting for all of them.
const POSTGRES: [(&str, &[&str], &str); 3] = [
    ("max_wal_size", &["1GB", "4GB", "16GB"], ""),
    ("wal_compression", &["off", "lz4"], "alter system set max_wal_size = '1GB'"),
    ("shared_buffers", &["128MB", "1GB", "4GB"], "alter system set max_wal_size = '16GB'"),
];

pub(crate) async fn measure() {
    let cluster = Cluster::start();
    let mut datasets =
        Dataset::all(&cluster, &[Size { links: 10_000_000, is_analyzed: true }]).await;
    println!("\n| setting | value | batches/s |\n|---|---|---:|");
    for (name, values, statement) in POSTGRES {
        let mut rates = vec![Vec::new(); values.len()];
        for _ in 0..ROUNDS {
            for (value, rates) in values.iter().zip(&mut rates) {
                let mut conn = cluster.options().connect().await.unwrap();
                if !statement.is_empty() {
                    conn.execute(statement).await.unwrap();
                }
                set(&mut conn, name, value).await;
                drop(conn);
                cluster.does("stop");
                cluster.does("start");
                rates.push(measured(&datasets[0], &EIGHT).await);
            }
        }
        report(name, values, &rates);
        let mut conn = cluster.options().connect().await.unwrap();
        set(
            &mut conn,
            name,
            if name == "wal_compression" { "off" } else { values[values.len() - 1] },
        )
        .await;
    }
    let numbers = ["2", "4", "10", "30"];
    let mut rates = vec![Vec::new(); numbers.len()];
    for _ in 0..ROUNDS {
        for (number, rates) in numbers.iter().zip(&mut rates) {
            let dataset = &mut datasets[0];
            dataset.server =
                dataset.program.serve(&["--database-connections", number, "--requests", "100"]);
            rates.push(measured(dataset, &MANY).await);
        }
    }
    report("CMDB_DATABASE_CONNECTIONS, 64 clients", &numbers, &rates);
}

async fn measured(dataset: &Dataset, row: &'static Row) -> f64 {
    let mut conn = dataset.connect().await;
    conn.execute("checkpoint").await.unwrap();
    // After a restart of PostgreSQL, the first requests replace the server's connections.
    let mut client = Contender::Endpoint.connect(dataset).await;
    for _ in 0..30 {
        client.send(&batch(Mapping::ManyToMany, Mix::Fresh, 1, dataset.size)).await;
    }
    rate(Contender::Endpoint, dataset, row, WINDOW).await
}

fn report(name: &str, values: &[&str], rates: &[Vec<f64>]) {
    for (value, rates) in values.iter().zip(rates) {
        println!("| {name} | {value} | {:.0} |", quantile(rates, 0.5));
    }
}
