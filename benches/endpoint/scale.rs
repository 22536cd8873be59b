//! The first minute of a new database, and databases of different sizes: `make bench-scale`.

use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::batches::{Mapping, Mix, batch};
use crate::binary::Program;
use crate::cluster::Cluster;
use crate::contender::{Client, Contender};
use crate::cost::wal;
use crate::dataset::{Dataset, Size, load_new, run};
use crate::row::{Row, measure_rows, quantile, row, warm_up};

/// How long a new database is observed, in parts of [`PART`].
const FIRST_MINUTE: Duration = Duration::from_mins(1);
const PART: Duration = Duration::from_secs(5);

/// How often the rows are measured, after a first round that fills caches and pools.
const ROUNDS: usize = 3;

/// 200 fresh pairs in each dataset, beside the floor.
static ROWS: [Row; 2] = [at(0), at(1)];

const fn at(dataset: usize) -> Row {
    row(Mapping::ManyToMany, Mix::Fresh, 200, 1, dataset, (Contender::Floor, dataset), None)
}

/// Measures a new database, databases with 100 thousand and 10 million links, and the size of
/// `links` links.
pub(crate) async fn measure(links: i64) {
    first_minute().await;
    growth().await;
    let cluster = Cluster::start();
    let size = Size { links, is_analyzed: true };
    let datasets = Dataset::all(&cluster, &[size]).await;
    println!("\n{}", size_of(&datasets[0]).await);
}

async fn growth() {
    let cluster = Cluster::start();
    let sizes = [100_000, 10_000_000].map(|links| Size { links, is_analyzed: true });
    let datasets = Dataset::all(&cluster, &sizes).await;
    for dataset in &datasets {
        warm_up(dataset).await;
    }
    let samples = measure_rows(&ROWS, &datasets, ROUNDS).await;
    println!("\n| links | 200 fresh | floor | ratio |\n|---:|---:|---:|---:|");
    let mut ratios = Vec::new();
    for (dataset, samples) in datasets.iter().zip(&samples) {
        let [ours, floor] =
            [&samples.endpoint, &samples.against].map(|values| quantile(values, 0.5));
        println!("| {} | {ours:.2} ms | {floor:.2} ms | {:.2} |", dataset.size, ours / floor);
        ratios.push(ours / floor);
    }
    let growth = ratios[1] / ratios[0];
    println!(
        "\nThe ratio at 10 million divided by that at 100 thousand: {growth:.2} (goal: ≤ 1.1)."
    );
}

/// Batches of 200 fresh pairs into an empty database that was never analysed, with PostgreSQL's
/// default settings: autovacuum and checkpoints come as they come. The endpoint and the floor take
/// turns.
async fn first_minute() {
    let cluster = Cluster::start();
    let options = cluster.options();
    let program = Program::at(options.to_url_lossy().as_str());
    load_new(&program, &options).await;
    let server = program.serve(&[]);
    let dataset = Dataset { size: 0, options, program, server };
    let mut endpoint = Contender::Endpoint.connect(&dataset).await;
    let mut floor = Contender::Floor.connect(&dataset).await;

    println!("| seconds | 200 fresh | floor | ratio |\n|---:|---:|---:|---:|");
    let started = Instant::now();
    let mut ratios = Vec::new();
    while started.elapsed() < FIRST_MINUTE {
        let part = Instant::now();
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        while part.elapsed() < PART {
            ours.push(time(&mut endpoint).await);
            bare.push(time(&mut floor).await);
        }
        let [ours, bare] = [ours, bare].map(|values| quantile(&values, 0.5));
        let seconds = started.elapsed().as_secs();
        println!("| {seconds} | {ours:.2} ms | {bare:.2} ms | {:.2} |", ours / bare);
        ratios.push(ours / bare);
    }
    let [best, worst] = [0.0, 1.0].map(|part| quantile(&ratios, part));
    println!("\nThe highest ratio divided by the lowest: {:.2} (goal: ≤ 1.2).", worst / best);
}

/// The duration of a batch in milliseconds.
async fn time(client: &mut Client) -> f64 {
    let request = batch(Mapping::ManyToMany, Mix::Fresh, 200, 1);
    let started = Instant::now();
    client.send(&request).await;
    started.elapsed().as_secs_f64() * 1e3
}

/// What the links of a dataset take: space, WAL, and time for a vacuum.
async fn size_of(dataset: &Dataset) -> String {
    let mut conn = dataset.connect().await;
    run(&mut conn, "create extension pageinspect schema public".to_owned()).await;
    let (wal, _) = wal(&mut conn, dataset, Contender::Endpoint).await;
    let links: i64 = sqlx::query_scalar("select count(*) from cmdb.instance_association")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    let relations: Vec<(String, i64, Option<i64>)> = sqlx::query_as(
        "select relname::text, pg_relation_size(oid),
             case when relkind = 'i' then (public.bt_metap('cmdb.' || relname)).level + 1 end
         from pg_class
         where relnamespace = 'cmdb'::regnamespace and relname like 'instance\\_association%'
             and relkind in ('r', 'i') and pg_relation_size(oid) > 8192
         order by relkind desc, relname",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let mut table = vec![
        format!("{links} links:\n"),
        "| relation | size | bytes for each link | levels |\n|---|---:|---:|---:|".to_owned(),
    ];
    for (name, bytes, levels) in relations {
        let levels = levels.map_or(String::new(), |levels| levels.to_string());
        table.push(format!(
            "| `{name}` | {} MB | {} | {levels} |",
            bytes / 1_000_000,
            bytes / links
        ));
    }
    let vacuum = vacuum(&mut conn).await;
    table.push(format!("\nWAL: {wal:.0} bytes for each link. A vacuum: {vacuum:.1} s."));
    conn.close().await.unwrap();
    table.join("\n")
}

/// The duration of a vacuum in seconds.
async fn vacuum(conn: &mut PgConnection) -> f64 {
    let started = Instant::now();
    run(conn, "vacuum cmdb.instance_association".to_owned()).await;
    started.elapsed().as_secs_f64()
}
