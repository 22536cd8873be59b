//! What a batch costs beside time: statements, WAL, memory.

use std::time::Instant;

use serde::Serialize;
use sqlx::{Connection, PgConnection};

use crate::batches::{Mapping, Mix, batch};
use crate::row::quantile;
use crate::side::Side;
use crate::world::World;

/// How many requests a figure is taken from.
const REQUESTS: usize = 100;

/// The figures, of the database with a million links.
#[derive(Serialize)]
pub(crate) struct Costs {
    /// Statements of a request with one detail, each a round trip.
    statements_of_1: f64,
    /// Of one with 200.
    statements_of_200: f64,
    /// Of one with 200 of which half are refused.
    statements_half_refused: f64,
    /// Bytes of WAL for each detail, while no page is written in full.
    wal_warm: f64,
    /// The same for the floor.
    wal_warm_floor: f64,
    /// Right after a checkpoint, when the first change of a page writes all of it.
    wal_after_checkpoint: f64,
    /// The same for the floor.
    wal_after_checkpoint_floor: f64,
    /// The median of a request right after a checkpoint, in milliseconds.
    p50_after_checkpoint: f64,
    /// The same for the floor.
    p50_after_checkpoint_floor: f64,
    /// The most memory that the server took, in MiB; 64 clients at once were the most.
    pub(crate) memory: f64,
}

pub(crate) async fn measure(worlds: &[World]) -> Costs {
    let world = &worlds[1];
    let mut conn = world.connect().await;
    let warm = wal(&mut conn, world, Side::Endpoint).await;
    let warm_floor = wal(&mut conn, world, Side::Floor).await;
    // Each after a checkpoint of its own: the other would have touched nothing of its tables, but time passes.
    sqlx::query("checkpoint").execute(&mut conn).await.unwrap();
    let cold = wal(&mut conn, world, Side::Endpoint).await;
    sqlx::query("checkpoint").execute(&mut conn).await.unwrap();
    let cold_floor = wal(&mut conn, world, Side::Floor).await;
    let costs = Costs {
        statements_of_1: statements(&mut conn, world, 1, Mix::Fresh).await,
        statements_of_200: statements(&mut conn, world, 200, Mix::Fresh).await,
        statements_half_refused: statements(&mut conn, world, 200, Mix::HalfRefused).await,
        wal_warm: warm.0,
        wal_warm_floor: warm_floor.0,
        wal_after_checkpoint: cold.0,
        wal_after_checkpoint_floor: cold_floor.0,
        p50_after_checkpoint: cold.1,
        p50_after_checkpoint_floor: cold_floor.1,
        memory: peak_memory(world.server.id()),
    };
    conn.close().await.unwrap();
    costs
}

/// The most memory that a process ever took, in MiB.
fn peak_memory(id: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// Bytes of WAL a detail, and the median of a request in milliseconds.
async fn wal(conn: &mut PgConnection, world: &World, side: Side) -> (f64, f64) {
    let mut client = side.connect(world).await;
    let mapping = Mapping::ManyToMany;
    let before: String = position(conn).await;
    let mut took = Vec::new();
    for _ in 0..REQUESTS {
        let given = batch(mapping, Mix::Fresh, 200, world.size);
        let started = Instant::now();
        client.send(&given).await;
        took.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let bytes: f64 = sqlx::query_scalar(
        "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)::float8",
    )
    .bind(before)
    .fetch_one(conn)
    .await
    .unwrap();
    (bytes / f64::from(u32::try_from(REQUESTS).unwrap()) / 200.0, quantile(&took, 0.5))
}

async fn position(conn: &mut PgConnection) -> String {
    sqlx::query_scalar("select pg_current_wal_insert_lsn()::text").fetch_one(conn).await.unwrap()
}

/// Statements a request, as Postgres counted them.
async fn statements(conn: &mut PgConnection, world: &World, details: usize, mix: Mix) -> f64 {
    let mut client = Side::Endpoint.connect(world).await;
    let mapping = Mapping::ManyToMany;
    sqlx::query("select pg_stat_statements_reset()").execute(&mut *conn).await.unwrap();
    for _ in 0..REQUESTS {
        let given = batch(mapping, mix, details, world.size);
        client.send(&given).await;
    }
    let calls: i64 = sqlx::query_scalar(
        "select sum(calls)::bigint from pg_stat_statements
         where dbid = (select oid from pg_database where datname = current_database())
             and query not like '%pg_stat_statements%'",
    )
    .fetch_one(conn)
    .await
    .unwrap();
    f64::from(i32::try_from(calls).unwrap()) / f64::from(u32::try_from(REQUESTS).unwrap())
}
