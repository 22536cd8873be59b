//! The costs of a batch other than time: statements, WAL, memory.

use std::time::Instant;

use serde::Serialize;
use sqlx::{Connection, PgConnection};

use crate::batches::{Mapping, Mix, batch};
use crate::contender::Contender;
use crate::dataset::Dataset;
use crate::row::quantile;

/// How many requests are measured for each figure.
const REQUESTS: usize = 100;

/// The figures of the database with a million links.
#[derive(Serialize)]
pub(crate) struct Costs {
    /// Statements of a request with one detail. Each is a round trip.
    statements_of_1: f64,
    /// Statements of a request with 200 details.
    statements_of_200: f64,
    /// Statements of a request with 200 details of which half are refused.
    statements_half_refused: f64,
    /// Bytes of WAL for each detail, without full-page images.
    wal_warm: f64,
    /// `wal_warm` of the floor.
    wal_warm_floor: f64,
    /// Bytes of WAL for each detail right after a checkpoint, with full-page images.
    wal_after_checkpoint: f64,
    /// `wal_after_checkpoint` of the floor.
    wal_after_checkpoint_floor: f64,
    /// The median duration of a request right after a checkpoint, in milliseconds.
    p50_after_checkpoint: f64,
    /// `p50_after_checkpoint` of the floor.
    p50_after_checkpoint_floor: f64,
    /// The server's peak memory in MiB, with at most 64 clients at once.
    pub(crate) memory: f64,
    /// What the server has allocated, in MiB. The rest are pages of the program's file.
    allocated: f64,
}

pub(crate) async fn measure(datasets: &[Dataset]) -> Costs {
    let dataset = &datasets[1];
    let mut conn = dataset.connect().await;
    let warm = wal(&mut conn, dataset, Contender::Endpoint).await;
    let warm_floor = wal(&mut conn, dataset, Contender::Floor).await;
    // One checkpoint for each contender, so that both are measured right after it.
    sqlx::query("checkpoint").execute(&mut conn).await.unwrap();
    let cold = wal(&mut conn, dataset, Contender::Endpoint).await;
    sqlx::query("checkpoint").execute(&mut conn).await.unwrap();
    let cold_floor = wal(&mut conn, dataset, Contender::Floor).await;
    let costs = Costs {
        statements_of_1: statements(&mut conn, dataset, 1, Mix::Fresh).await,
        statements_of_200: statements(&mut conn, dataset, 200, Mix::Fresh).await,
        statements_half_refused: statements(&mut conn, dataset, 200, Mix::HalfRefused).await,
        wal_warm: warm.0,
        wal_warm_floor: warm_floor.0,
        wal_after_checkpoint: cold.0,
        wal_after_checkpoint_floor: cold_floor.0,
        p50_after_checkpoint: cold.1,
        p50_after_checkpoint_floor: cold_floor.1,
        memory: peak_memory(dataset.server.id()).unwrap(),
        allocated: memory(dataset.server.id(), "RssAnon:").unwrap(),
    };
    conn.close().await.unwrap();
    costs
}

/// The peak resident memory of a process, in MiB; `None` if it has exited.
pub(crate) fn peak_memory(id: u32) -> Option<f64> {
    memory(id, "VmHWM:")
}

/// The resident memory of a process, in MiB; `None` if it has exited.
pub(crate) fn resident_memory(id: u32) -> Option<f64> {
    memory(id, "VmRSS:")
}

fn memory(id: u32, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0)
}

/// Returns the bytes of WAL for each detail, and the median duration of a request in milliseconds.
pub(crate) async fn wal(
    conn: &mut PgConnection, dataset: &Dataset, contender: Contender,
) -> (f64, f64) {
    let mut client = contender.connect(dataset).await;
    let mapping = Mapping::ManyToMany;
    let before: String = wal_position(conn).await;
    let mut durations = Vec::new();
    for _ in 0..REQUESTS {
        let request = batch(mapping, Mix::Fresh, 200, dataset.size);
        let started = Instant::now();
        client.send(&request).await;
        durations.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let bytes: f64 = sqlx::query_scalar(
        "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)::float8",
    )
    .bind(before)
    .fetch_one(conn)
    .await
    .unwrap();
    (bytes / f64::from(u32::try_from(REQUESTS).unwrap()) / 200.0, quantile(&durations, 0.5))
}

async fn wal_position(conn: &mut PgConnection) -> String {
    sqlx::query_scalar("select pg_current_wal_insert_lsn()::text").fetch_one(conn).await.unwrap()
}

/// Statements of a request, as counted by `pg_stat_statements`.
async fn statements(conn: &mut PgConnection, dataset: &Dataset, details: usize, mix: Mix) -> f64 {
    let mut client = Contender::Endpoint.connect(dataset).await;
    let mapping = Mapping::ManyToMany;
    sqlx::query("select public.pg_stat_statements_reset()").execute(&mut *conn).await.unwrap();
    for _ in 0..REQUESTS {
        let request = batch(mapping, mix, details, dataset.size);
        client.send(&request).await;
    }
    let calls: i64 = sqlx::query_scalar(
        "select sum(calls)::bigint from public.pg_stat_statements
         where dbid = (select oid from pg_database where datname = current_database())
             and query not like '%pg_stat_statements%'",
    )
    .fetch_one(conn)
    .await
    .unwrap();
    f64::from(i32::try_from(calls).unwrap()) / f64::from(u32::try_from(REQUESTS).unwrap())
}
