//! A flood of connections from one address. `make test-large` runs it with 1,000 connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use crate::app::{TestApp, batch};
use crate::binary::{Program, Server};
use crate::operations::value;
use crate::socket::Client;

const FLOODER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// The number of sockets of a flood, as many as the server has connections, and of rounds with it
/// and without it, each with this many requests.
const SMALL: [usize; 3] = [100, 1, 20];
const LARGE: [usize; 3] = [1_000, 3, 400];

/// How much the large flood may lengthen the client's 99th percentile.
const BOUND: u32 = 3;

/// While `is_on`, keeps sockets open that never finish the head of a request, and opens a new one
/// for each that is closed.
async fn flood(address: SocketAddr, sockets: usize, is_on: watch::Receiver<bool>) {
    let sockets = (0..sockets).map(|_| {
        let mut is_on = is_on.clone();
        async move {
            while is_on.wait_for(|is_on| *is_on).await.is_ok() {
                let attack = async {
                    if let Ok(mut socket) = Client::connect_from(FLOODER, address).await {
                        let _ = socket.send(b"GET /").await;
                        let _ = socket.0.read_u8().await;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                };
                let mut is_off = is_on.clone();
                tokio::select! {
                    () = attack => {}
                    _ = is_off.wait_for(|is_on| !is_on) => {}
                }
            }
        }
    });
    futures_util::future::join_all(sockets).await;
}

/// Waits until the number of open connections is as `wanted`.
async fn wait_for_connections(server: &Server, wanted: impl Fn(f64) -> bool) {
    let started = Instant::now();
    loop {
        let metrics = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
        let open = value(&metrics, "cmdb_client_connections");
        if wanted(open) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{open} connections");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
#[expect(clippy::print_stdout, reason = "make test-large shows the durations")]
async fn a_client_is_served_as_before_while_another_one_floods_the_server(pool: PgPool) {
    let is_large = std::env::var_os("CMDB_LARGE_TESTS").is_some();
    let [sockets, rounds, requests] = if is_large { LARGE } else { SMALL };
    rlimit::increase_nofile_limit(4 * sockets as u64).unwrap();
    TestApp::new(pool.clone()).await;
    let server = Program::on(&pool).serve(&["--connections", &sockets.to_string()]);
    let address: SocketAddr = server.address.parse().unwrap();
    let (is_on, flooding) = watch::channel(false);
    // On a thread of its own, so that it does not delay the client.
    let flooder = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(flood(address, sockets, flooding));
    });
    let mut durations = [Vec::new(), Vec::new()];
    let mut pairs = (1..=200).flat_map(|source| (1..=200).map(move |target| (source, target)));
    for round in 0..2 * rounds {
        let has_flood = round % 2 == 1;
        is_on.send_replace(has_flood);
        let half = f64::from(u32::try_from(sockets / 2).unwrap());
        let is_as_wanted = |open| if has_flood { open >= half } else { open < 10.0 };
        wait_for_connections(&server, is_as_wanted).await;
        for _ in 0..requests {
            let started = Instant::now();
            let mut client = Client::connect_from(CLIENT, address).await.unwrap();
            let pair = pairs.next().unwrap();
            client.post(batch("bk_switch_default_host", &[pair])).await.unwrap();
            assert_eq!(client.answer().await.unwrap().json()["code"], 0);
            durations[usize::from(has_flood)].push(started.elapsed());
        }
    }
    is_on.send_replace(false);
    drop(is_on);
    flooder.join().unwrap();
    server.signal("TERM");
    let (_, log) = tokio::task::spawn_blocking(|| server.wait()).await.unwrap();
    let warning = format!("too many connections peer=127.0.0.2 limit={}", sockets / 2);
    assert!(log.contains(&warning), "{log}");
    let [without, with] = durations.map(|mut durations| {
        durations.sort_unstable();
        durations[durations.len() * 99 / 100]
    });
    println!("99th percentile: {without:.1?} without the flood, {with:.1?} with it");
    assert!(
        !is_large || with <= without * BOUND,
        "{with:?} is more than {BOUND} times {without:?}"
    );
}
