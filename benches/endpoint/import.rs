//! The import of a large export, and of the same export again with a few changes while the server
//! creates links. `make bench-import` runs it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, PgConnection};

use crate::batches::{Mapping, Mix, batch};
use crate::binary::{EXECUTABLE, Program, Server};
use crate::cluster::Cluster;
use crate::contender::{Answer, Client, connect};
use crate::cost::peak_memory;
use crate::dataset::{INSTANCES, prepare, run};

/// How often the peak memory of the running import is read.
const POLL: Duration = Duration::from_millis(20);

/// Imports an export of `size` instances and as many links, with PostgreSQL's default settings.
pub(crate) async fn measure(size: i64) {
    assert!(size / 2 >= INSTANCES, "the requests name instances up to {INSTANCES}");
    let cluster = Cluster::start();
    let program = Program::at(cluster.options().to_url_lossy().as_str());
    prepare(&program);
    let folder = tempfile::tempdir_in("target").unwrap();
    let bytes = write_export(folder.path(), size, false);
    println!("{size} instances and as many links, {} MB", bytes / 1_000_000);

    let first = import(&program, folder.path());
    println!("\n| import | time | peak memory | estimate ÷ time | goal |");
    println!("|---|---:|---:|---:|---|");
    println!("{}", first.line("of an empty inventory", Some(60.0)));

    write_export(folder.path(), size, true);
    let server = program.serve(&[]);
    let mut conn = cluster.options().connect().await.unwrap();
    let (again, waited) = import_under_load(&program, folder.path(), &server).await;
    println!("{}", again.line("again, 1 % changed", None));
    println!("\n{}", waited.line());
    println!("{}", counts(&mut conn).await);
    println!("{}", bare(&cluster, size).await);
    let check = program.run(&["check"]);
    assert_eq!(check.status, 0, "{}", check.stdout);
}

/// What an import took.
struct Import {
    duration: Duration,
    /// In MiB.
    memory: f64,
    /// The total time that the progress bar estimated after a fifth of it, divided by the duration.
    estimate: f64,
}

impl Import {
    fn line(&self, what: &str, goal: Option<f64>) -> String {
        let Self { duration, memory, estimate } = self;
        let seconds = duration.as_secs_f64();
        let mut goals = vec![
            format!("≤ 100 MB {}", met(memory * 1.048_576 <= 100.0)),
            format!("0.67 to 1.5 {}", met((1.0 / 1.5..=1.5).contains(estimate))),
        ];
        goals.extend(goal.map(|goal| format!("≤ {goal} s {}", met(seconds <= goal))));
        let goals = goals.join(", ");
        format!("| {what} | {seconds:.1} s | {memory:.0} MiB | {estimate:.2} | {goals} |")
    }
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**missed**" }
}

/// Runs the command in a terminal until it exits, so that it draws its progress bar.
fn import(program: &Program, folder: &Path) -> Import {
    let started = Instant::now();
    let command = program.command(&["import", folder.to_str().unwrap()]);
    let line = format!("exec {EXECUTABLE} import {}", folder.display());
    let mut terminal = Command::new("script");
    terminal.args(["-qefc", &line, "/dev/null"]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    let mut child = terminal.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let estimates = std::thread::spawn({
        let output = BufReader::new(child.stdout.take().unwrap());
        move || estimates(output, started)
    });
    let mut memory: f64 = 0.0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if let Some(id) = child_of(child.id()) {
            memory = memory.max(peak_memory(id).unwrap_or_default());
        }
        std::thread::sleep(POLL);
    };
    assert!(status.success());
    let duration = started.elapsed();
    let estimates = estimates.join().unwrap();
    let (_, total) = estimates.iter().find(|(elapsed, _)| *elapsed * 5 >= duration).unwrap();
    Import { duration, memory, estimate: total.as_secs_f64() / duration.as_secs_f64() }
}

/// When the progress bar estimated which total time.
fn estimates(output: impl BufRead, started: Instant) -> Vec<(Duration, Duration)> {
    let mut estimates = Vec::new();
    for part in output.split(b'\r') {
        let part = String::from_utf8_lossy(&part.unwrap()).into_owned();
        let left = part.split_once("about ").and_then(|(_, left)| left.split_once(" s left"));
        if let Some((seconds, _)) = left {
            let elapsed = started.elapsed();
            estimates.push((elapsed, elapsed + Duration::from_secs(seconds.parse().unwrap())));
        }
    }
    estimates
}

/// The process that `script` has started.
fn child_of(id: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// How long requests took while an import ran, in seconds.
struct Waited {
    requests: usize,
    refused: usize,
    longest: f64,
}

impl Waited {
    fn line(&self) -> String {
        let Self { requests, refused, longest } = self;
        format!(
            "Meanwhile {requests} requests created a link each, {refused} were refused with 503. \
             The longest took {longest:.2} s (goal: ≤ 2 s {}).",
            met(*longest <= 2.0 && *refused == 0)
        )
    }
}

/// Imports while a client creates one link after another.
async fn import_under_load(program: &Program, folder: &Path, server: &Server) -> (Import, Waited) {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut client = Client::Endpoint(connect(&server.address).await);
    let writing = tokio::spawn({
        let is_over = Arc::clone(&is_over);
        async move {
            let mut waited = Waited { requests: 0, refused: 0, longest: 0.0 };
            while !is_over.load(Ordering::Relaxed) {
                let started = Instant::now();
                match client.send(&batch(Mapping::ManyToMany, Mix::Fresh, 1, 1)).await {
                    Answer::Created(_) => waited.requests += 1,
                    Answer::Refused => waited.refused += 1,
                }
                waited.longest = waited.longest.max(started.elapsed().as_secs_f64());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            waited
        }
    });
    let imported = tokio::task::block_in_place(|| import(program, folder));
    is_over.store(true, Ordering::Relaxed);
    (imported, writing.await.unwrap())
}

async fn counts(conn: &mut PgConnection) -> String {
    let (instances, links): (i64, i64) = sqlx::query_as(
        "select (select count(*) from cmdb.instance),
             (select count(*) from cmdb.instance_association)",
    )
    .fetch_one(conn)
    .await
    .unwrap();
    format!("The database holds {instances} instances and {links} links.")
}

/// Inserts as many rows into the same tables of another database, as they come: what the indexes
/// alone take.
async fn bare(cluster: &Cluster, size: i64) -> String {
    let mut conn = cluster.options().database("postgres").connect().await.unwrap();
    run(&mut conn, "create database bare".to_owned()).await;
    let options = cluster.options().database("bare");
    prepare(&Program::at(options.to_url_lossy().as_str()));
    let mut conn = options.connect().await.unwrap();
    let half = (size / 2).to_string();
    let started = Instant::now();
    for sql in BARE {
        let sql = sql.replace("SIZE", &size.to_string()).replace("HALF", &half);
        run(&mut conn, sql).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    format!("Two statements that insert as many rows, without files and checks: {seconds:.1} s.")
}

const BARE: [&str; 2] = [
    "insert into cmdb.instance (model_id, instance_id, name)
     select id, n, 'instance-' || n
     from cmdb.model, generate_series(1, HALF) n
     where key in ('bk_switch', 'host')
     order by 1, 2",
    "insert into cmdb.instance_association (model_association_id, source_id, target_id)
     select id, n % HALF + 1, (n % HALF * 48271 + n / HALF * 13) % HALF + 1
     from generate_series(0::bigint, SIZE - 1) n, (
         select (id | 3) as id from cmdb.model_association
         where set_config('cmdb.guard_may_skip', 'yes', true) = 'yes') association",
];

/// Writes an export, as `mongoexport` does: half of the instances are switches, half are hosts, and
/// each link is in two files. If it is changed, every hundredth instance has another name and every
/// hundredth link another target. Returns the size in bytes.
fn write_export(folder: &Path, size: i64, is_changed: bool) -> u64 {
    let half = size / 2;
    let change = |n: i64| i64::from(is_changed && n % 100 == 7);
    let object_id = |n: i64| format!("{:024x}", n + (1 << 60));
    write(folder, "cc_ObjAsst.json", 0..1, |_| {
        r#"{"id":900,"bk_obj_asst_id":"bench_n:n","bk_obj_asst_name":"","bk_obj_id":"bk_switch","bk_asst_obj_id":"host","bk_asst_id":"default","mapping":"n:n","on_delete":"none","ispre":false,"bk_supplier_account":"0"}"#.to_owned()
    });
    write(folder, "cc_ObjectBase_0_pub_bk_switch.json", 1..half + 1, |n| {
        format!(
            r#"{{"_id":{{"$oid":"{}"}},"bk_inst_id":{n},"bk_inst_name":"switch-{n}-{}","bk_obj_id":"bk_switch","bk_asset_id":"A{n:08}","bk_sn":"","bk_operator":"admin","bk_supplier_account":"0","create_time":{{"$date":"2024-05-01T08:00:00.000Z"}},"last_time":{{"$date":"2024-05-02T08:00:00.000Z"}}}}"#,
            object_id(n),
            change(n)
        )
    });
    write(folder, "cc_HostBase.json", 1..half + 1, |n| {
        format!(
            r#"{{"_id":{{"$oid":"{}"}},"bk_host_id":{n},"bk_host_innerip":["10.{}.{}.{}"],"bk_host_name":"host-{n}-{}","bk_cloud_id":0,"bk_os_type":"1","bk_cpu":8,"bk_mem":16384,"operator":["admin"],"bk_supplier_account":"0","create_time":{{"$date":"2024-05-01T08:00:00.000Z"}},"last_time":{{"$date":"2024-05-02T08:00:00.000Z"}}}}"#,
            object_id(n),
            n >> 16 & 255,
            n >> 8 & 255,
            if change(n) == 1 { 256 } else { n & 255 },
            change(n)
        )
    });
    let link = |n: i64| {
        // An id that no request is given.
        let id = n + 1 + change(n) * size * 10;
        let (source, target) = (n % half, (n % half * 48_271 + n / half * 13) % half);
        format!(
            r#"{{"_id":{{"$oid":"{}"}},"id":{id},"bk_inst_id":{},"bk_obj_id":"bk_switch","bk_asst_inst_id":{},"bk_asst_obj_id":"host","bk_obj_asst_id":"bench_n:n","bk_asst_id":"default","bk_supplier_account":"0"}}"#,
            object_id(n),
            source + 1,
            (target + change(n)) % half + 1
        )
    };
    write(folder, "cc_InstAsst_0_pub_bk_switch.json", 0..size, link);
    write(folder, "cc_InstAsst_0_pub_host.json", 0..size, link);
    let sizes = fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
    sizes.sum()
}

fn write(
    folder: &Path, name: &str, numbers: std::ops::Range<i64>, document: impl Fn(i64) -> String,
) {
    let mut file = BufWriter::new(File::create(folder.join(name)).unwrap());
    for number in numbers {
        writeln!(file, "{}", document(number)).unwrap();
    }
    file.flush().unwrap();
}
