//! What settings are worth: each one measured in turns with what it is by default.

use std::time::Duration;

use sqlx::{ConnectOptions, Executor};

use crate::batches::{Mapping, Mix, batch};
use crate::cluster::Cluster;
use crate::row::{Row, quantile, rate, row};
use crate::side::Side;
use crate::world::{World, set};

/// How often each is measured.
const ROUNDS: usize = 2;

/// For how long: long enough for checkpoints to come and go.
const WINDOW: Duration = Duration::from_secs(8);

/// Fresh pairs from so many clients.
static EIGHT: Row = row(Mapping::ManyToMany, Mix::Fresh, 200, 8, 0, (Side::Floor, 0), None);
static MANY: Row = row(Mapping::ManyToMany, Mix::Fresh, 200, 64, 0, (Side::Floor, 0), None);

/// A setting of Postgres, the value that is its default, others, and what stays the same beside it.
const POSTGRES: [(&str, &[&str], &str); 3] = [
    ("max_wal_size", &["1GB", "4GB", "16GB"], ""),
    ("wal_compression", &["off", "lz4"], "alter system set max_wal_size = '1GB'"),
    ("shared_buffers", &["128MB", "1GB", "4GB"], "alter system set max_wal_size = '16GB'"),
];

pub(crate) async fn measure() {
    let cluster = Cluster::start();
    let mut worlds = World::all(&cluster, &[10_000_000]).await;
    println!("\n| setting | value | batches/s |\n|---|---|---:|");
    for (name, values, beside) in POSTGRES {
        let mut rates = vec![Vec::new(); values.len()];
        for _ in 0..ROUNDS {
            for (value, rates) in values.iter().zip(&mut rates) {
                let mut conn = cluster.options().connect().await.unwrap();
                if !beside.is_empty() {
                    conn.execute(beside).await.unwrap();
                }
                set(&mut conn, name, value).await;
                drop(conn);
                cluster.does("stop");
                cluster.does("start");
                rates.push(measured(&worlds[0], &EIGHT).await);
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
            let world = &mut worlds[0];
            world.server =
                world.program.serve(&["--database-connections", number, "--requests", "100"]);
            rates.push(measured(world, &MANY).await);
        }
    }
    report("CMDB_DATABASE_CONNECTIONS, 64 clients", &numbers, &rates);
}

async fn measured(world: &World, row: &'static Row) -> f64 {
    let mut conn = world.connect().await;
    conn.execute("checkpoint").await.unwrap();
    // The server's connections to a Postgres that was restarted are found out one by one.
    let mut client = Side::Endpoint.connect(world).await;
    for _ in 0..30 {
        client.send(&batch(Mapping::ManyToMany, Mix::Fresh, 1, world.size)).await;
    }
    rate(Side::Endpoint, world, row, WINDOW).await
}

fn report(name: &str, values: &[&str], rates: &[Vec<f64>]) {
    for (value, rates) in values.iter().zip(rates) {
        println!("| {name} | {value} | {:.0} |", quantile(rates, 0.5));
    }
}
