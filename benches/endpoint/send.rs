//! The command `send`, beside clients that send batches of the same size. `make bench-send` runs
//! it.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::batches::{Mapping, Mix, batch};
use crate::binary::{EXECUTABLE, without_settings};
use crate::cluster::Cluster;
use crate::contender::Contender;
use crate::cost::peak_memory;
use crate::dataset::{Dataset, SECRET, USER, configure};
use crate::row::{Row, quantile, rate, row, warm_up};

/// How many links the database holds.
const LINKS: i64 = 1_000_000;

/// How many rows a file has, to see whether the memory depends on it. The goal is for the larger
/// one: of the other, much of the time is the start of the command.
const SIZES: [usize; 2] = [10_000, 1_000_000];

/// How long the clients are measured before and after each file.
const WINDOW: Duration = Duration::from_secs(5);

/// What the command is compared with: as many clients as it has connections by default.
static CLIENTS: Row =
    row(Mapping::ManyToMany, Mix::Fresh, 200, 8, 0, (Contender::Endpoint, 0), None);

/// Sends each file `rounds` times and prints a table.
pub(crate) async fn measure(rounds: usize) {
    let cluster = Cluster::start();
    configure(&cluster).await;
    let dataset = Dataset::of(&cluster, EXECUTABLE, "links", LINKS).await;
    warm_up(&dataset).await;
    println!("| rows | batches/s | 8 clients | ratio | lowest to highest | peak memory | goal |");
    println!("|---:|---:|---:|---:|---|---:|---|");
    for size in SIZES {
        let (mut sent, mut clients, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let mut memory: f64 = 0.0;
        for _ in 0..rounds {
            let before = rate(Contender::Endpoint, &dataset, &CLIENTS, WINDOW).await;
            let measured = tokio::task::block_in_place(|| send(&dataset, size));
            let after = rate(Contender::Endpoint, &dataset, &CLIENTS, WINDOW).await;
            memory = memory.max(measured.memory);
            ratios.push(measured.rate * 2.0 / (before + after));
            sent.push(measured.rate);
            clients.extend([before, after]);
        }
        let [sent, clients] = [sent, clients].map(|rates| quantile(&rates, 0.5));
        let [lowest, ratio, highest] = [0.0, 0.5, 1.0].map(|part| quantile(&ratios, part));
        let goal = match ratio >= 0.7 {
            _ if size < SIZES[1] => "",
            true => "≥ 0.7 met",
            false => "≥ 0.7 **missed**",
        };
        println!(
            "| {size} | {sent:.0} | {clients:.0} | {ratio:.2} | {lowest:.2} to {highest:.2} | \
             {memory:.0} MiB | {goal} |"
        );
    }
    let check = dataset.program.run(&["check"]);
    assert_eq!(check.status, 0, "{}", check.stdout);
}

/// What sending a file took.
struct Sent {
    /// Batches a second.
    rate: f64,
    /// In MiB.
    memory: f64,
}

/// Sends a file with this many rows.
fn send(dataset: &Dataset, rows: usize) -> Sent {
    let folder = tempfile::tempdir_in("target").unwrap();
    let file = folder.path().join("links.csv");
    write(&file, rows, dataset.size);
    let endpoint = format!("http://{}", dataset.server.address);
    let mut command = without_settings();
    command.arg("send").arg(&file).args(["--endpoint", &endpoint]);
    // A few of the random pairs may exist already.
    command.args(["--model-association", "bench_n:n", "--existing", "created"]);
    command.envs([("CMDB_APP_CODE", "bench"), ("CMDB_APP_SECRET", SECRET)]);
    command.env("CMDB_USERNAME", USER).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut memory: f64 = 0.0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        memory = memory.max(peak_memory(child.id()).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(5));
    };
    let seconds = started.elapsed().as_secs_f64();
    assert!(status.success());
    Sent { rate: f64::from(u32::try_from(rows / 200).unwrap()) / seconds, memory }
}

fn write(file: &Path, rows: usize, size: i64) {
    let mut content = String::new();
    for (source, target) in batch(Mapping::ManyToMany, Mix::Fresh, rows, size).pairs {
        writeln!(content, "{source},{target}").unwrap();
    }
    fs::write(file, content).unwrap();
}
