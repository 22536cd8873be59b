//! Two builds of the server side by side. `make bench-compare` runs it.
//!
//! Each build has a database of its own on the same PostgreSQL server, created by its own
//! migrations and loaded with the same data.

use crate::batches::{Mapping, Mix};
use crate::binary::EXECUTABLE;
use crate::cluster::Cluster;
use crate::contender::Contender;
use crate::dataset::{Dataset, configure};
use crate::row::{Row, measure_rows, quantile, row};

/// How many links each database holds.
const LINKS: i64 = 1_000_000;

/// A row that compares the endpoint of this build with that of the other one.
const fn pair(mapping: Mapping, mix: Mix, details: usize, clients: usize) -> Row {
    row(mapping, mix, details, clients, 0, (Contender::Endpoint, 1), None)
}

static ROWS: [Row; 10] = {
    use Mapping::{ManyToMany as NN, OneToMany as ON, OneToOne as OO};
    use Mix::{Duplicates, Fresh, HalfRefused};
    [
        pair(NN, Fresh, 1, 1),
        pair(NN, Fresh, 10, 1),
        pair(NN, Fresh, 50, 1),
        pair(NN, Fresh, 200, 1),
        pair(NN, Duplicates, 200, 1),
        pair(NN, HalfRefused, 200, 1),
        pair(ON, Fresh, 200, 1),
        pair(OO, Fresh, 200, 1),
        pair(NN, Fresh, 200, 8),
        pair(NN, Fresh, 1, 8),
    ]
};

/// Compares this build with the server binary `old` and prints a table.
pub(crate) async fn measure(old: &str, rounds: usize) {
    let cluster = Cluster::start();
    configure(&cluster).await;
    let datasets = [
        Dataset::of(&cluster, EXECUTABLE, "this_build", LINKS).await,
        Dataset::of(&cluster, old, "other_build", LINKS).await,
    ];
    let samples = measure_rows(&ROWS, &datasets, rounds).await;
    for dataset in &datasets {
        let check = dataset.program.run(&["check"]);
        assert_eq!(check.status, 0, "{}", check.stdout);
    }
    println!("\n| batches | this build | {old} | ratio | lowest to highest |");
    println!("|---|---:|---:|---:|---:|");
    for (row, samples) in ROWS.iter().zip(samples) {
        let [this, other] =
            [&samples.endpoint, &samples.against].map(|values| quantile(values, 0.5));
        let [lowest, median, highest] = [0.0, 0.5, 1.0].map(|part| quantile(&samples.ratios, part));
        let (name, unit) = (row.requests(), row.unit());
        let digits = if row.clients == 1 { 2 } else { 0 };
        println!(
            "| {name} | {this:.digits$} {unit} | {other:.digits$} {unit} \
             | {median:.2} | {lowest:.2} to {highest:.2} |"
        );
    }
    println!(
        "\n{rounds} rounds on {LINKS} links. The ratio is this build divided by {old}: the median \
         of the ratios of the rounds.\nThis build is faster where a ratio of ms is below 1 and a \
         ratio of batches/s is above 1."
    );
}
