//! Searches and deletions, each beside the bare statement. `make bench-reads` runs it.

mod client; // a request and a statement
mod data; // the links
mod row; // the requests, and the statements beside them

use std::fs;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use sqlx::{ConnectOptions, Executor, PgConnection};

use self::client::{execute, send};
use self::data::Data;
use self::row::{DELETIONS, READS, Row};
use crate::cluster::Cluster;
use crate::contender::connect;
use crate::cost::{peak_memory, resident_memory};
use crate::row::quantile;

/// How often all rows are measured, after a first round that fills caches and pools.
const ROUNDS: usize = 3;

/// The name of the row whose memory is measured, too.
const STREAMED: &str = "all links of 10 model associations, streamed";

/// The rows that are measured again after the deletions. Until a vacuum, PostgreSQL has to read the
/// pages of the table from which links were deleted, even for searches in an index alone.
const AGAIN: [&str; 2] = ["page 1 of 500, 20 model associations", "count, 20 model associations"];

/// The durations of a row in milliseconds.
#[derive(Default)]
struct Samples {
    request: Vec<f64>,
    statement: Vec<f64>,
    /// The ratio of the medians of each round.
    ratios: Vec<f64>,
}

/// The two that take turns, and the number of the next turn.
struct Contenders {
    sender: SendRequest<Full<Bytes>>,
    conn: PgConnection,
    turn: i64,
}

/// Measures searches in so many links, and deletions, and prints a table.
pub(crate) async fn measure(links: i64) {
    let started = Instant::now();
    let cluster = Cluster::start();
    let data = Data::load(&cluster, links).await;
    println!("loaded after {:.0?}", started.elapsed());
    let sender = connect(&data.server.address).await;
    let mut conn = cluster.options().connect().await.unwrap();
    // As on the server's connections.
    conn.execute("set jit = off").await.unwrap();
    let mut contenders = Contenders { sender, conn, turn: 0 };

    let mut table = contenders.measure(&data, &READS.each_ref()).await;
    let memory = memory(&data).await;
    table.extend(contenders.measure(&data, &DELETIONS.each_ref()).await);
    let again: Vec<_> = READS.iter().filter(|row| AGAIN.contains(&row.name)).collect();
    let again = contenders.measure(&data, &again).await;

    println!("\n| request | endpoint | bare statement | ratio | lowest to highest | goal |");
    println!("|---|---:|---:|---:|---:|---|");
    println!("{}", table.join("\n"));
    println!("\nAfter the deletions, before a vacuum:\n");
    println!("{}", again.join("\n"));
    println!("\n{memory}");
    println!("\n{links} links, {ROUNDS} rounds, {:.0?} in all", started.elapsed());
}

impl Contenders {
    /// Measures rows round by round. Returns the lines of the table.
    async fn measure(&mut self, data: &Data, rows: &[&Row]) -> Vec<String> {
        let mut samples: Vec<_> = rows.iter().map(|_| Samples::default()).collect();
        self.turn = 0;
        let started = Instant::now();
        for round in 0..=ROUNDS {
            for (row, samples) in rows.iter().zip(&mut samples) {
                let (request, statement) = self.round(data, row).await;
                if round > 0 {
                    samples.ratios.push(quantile(&request, 0.5) / quantile(&statement, 0.5));
                    samples.request.extend(request);
                    samples.statement.extend(statement);
                }
            }
            println!("round {round} of {ROUNDS} after {:.0?}", started.elapsed());
        }
        rows.iter().zip(&samples).map(|(row, samples)| samples.line(row)).collect()
    }

    /// The durations of one round in milliseconds. The request and the statement take turns, and
    /// each is the first one in every other turn.
    async fn round(&mut self, data: &Data, row: &Row) -> (Vec<f64>, Vec<f64>) {
        let (mut requests, mut statements) = (Vec::new(), Vec::new());
        for _ in 0..row.repeats {
            let turn = self.turn;
            self.turn += 1;
            let (request, statement) = ((row.request)(data, turn), (row.statement)(data, turn));
            let (answer, bare) = if turn % 2 == 0 {
                let answer = send(&mut self.sender, &request).await;
                (answer, execute(&mut self.conn, statement).await)
            } else {
                let bare = execute(&mut self.conn, statement).await;
                (send(&mut self.sender, &request).await, bare)
            };
            assert_eq!(answer.number, bare.number, "{}", row.name);
            assert!(answer.number > 0, "{}", row.name);
            requests.push(milliseconds(answer.duration));
            statements.push(milliseconds(bare.duration));
        }
        (requests, statements)
    }
}

impl Samples {
    /// The line of the table. Of each it has the median.
    fn line(&self, row: &Row) -> String {
        let [request, statement] = [&self.request, &self.statement].map(|all| quantile(all, 0.5));
        let [lowest, median, highest] = [0.0, 0.5, 1.0].map(|part| quantile(&self.ratios, part));
        let goal = match row.goal {
            Some(goal) if request <= goal => format!("≤ {goal} ms met"),
            Some(goal) => format!("≤ {goal} ms **missed**"),
            None => String::new(),
        };
        format!(
            "| {} | {request:.2} ms | {statement:.2} ms | {median:.2} \
             | {lowest:.2} to {highest:.2} | {goal} |",
            row.name
        )
    }
}

/// How much memory a new server uses for a streamed answer.
async fn memory(data: &Data) -> String {
    let server = data.program.serve(&[]);
    let mut sender = connect(&server.address).await;
    let row = |name| READS.iter().find(|row| row.name == name).unwrap();
    send(&mut sender, &(row(AGAIN[0]).request)(data, 0)).await;
    let before = resident_memory(server.id()).unwrap();
    // Resets the peak.
    fs::write(format!("/proc/{}/clear_refs", server.id()), "5").unwrap();
    let answer = send(&mut sender, &(row(STREAMED).request)(data, 0)).await;
    let growth = peak_memory(server.id()).unwrap() - before;
    let met = if growth <= 50.0 { "met" } else { "**missed**" };
    format!(
        "A streamed answer of {} links, {} MB: first part after {:.1} ms, all of it after {:.0} \
         ms. The server's memory grows by {growth:.1} MiB from {before:.1} MiB at most (goal: ≤ 50 \
         MiB {met}).",
        answer.number,
        answer.size / 1_000_000,
        milliseconds(answer.first),
        milliseconds(answer.duration),
    )
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
