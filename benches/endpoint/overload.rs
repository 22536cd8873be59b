//! More clients than can be served: how long the admitted wait, and how soon the others are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::batches::{Mapping, Mix, batch};
use crate::row::quantile;
use crate::side::{Answer, Side};
use crate::world::World;

/// Requests that are at work at once, unless a setting says otherwise.
const PLACES: usize = 80;

/// How long a number of clients is at work in a round.
const WINDOW: Duration = Duration::from_secs(2);

/// When a client that was refused comes back: the answer's `Retry-After`.
const COMES_BACK: Duration = Duration::from_secs(1);

/// The figures; times in milliseconds.
#[derive(Serialize, Default)]
pub(crate) struct Load {
    pub(crate) half_clients: usize,
    pub(crate) half_p99: f64,
    pub(crate) half_rate: f64,
    pub(crate) over_clients: usize,
    pub(crate) over_p99: f64,
    pub(crate) over_rate: f64,
    pub(crate) refused: usize,
    pub(crate) refused_p99: f64,
    /// Requests a second of half as many clients right afterwards.
    pub(crate) after_rate: f64,
}

#[derive(Default)]
struct Waits {
    admitted: Vec<f64>,
    refused: Vec<f64>,
}

impl Waits {
    fn add(&mut self, other: Self) {
        self.admitted.extend(other.admitted);
        self.refused.extend(other.refused);
    }

    fn rate(&self, rounds: usize) -> f64 {
        let windows = WINDOW.as_secs_f64() * f64::from(u32::try_from(rounds).unwrap());
        f64::from(u32::try_from(self.admitted.len()).unwrap()) / windows
    }
}

pub(crate) async fn measure(worlds: &[World], rounds: usize) -> Load {
    let world = &worlds[1];
    let (half_clients, over_clients) = (PLACES / 2, PLACES * 4);
    let [mut half, mut over, mut after] = [(); 3].map(|()| Waits::default());
    for _ in 0..rounds {
        half.add(at_once(world, half_clients).await);
        over.add(at_once(world, over_clients).await);
        after.add(at_once(world, half_clients).await);
    }
    assert!(half.refused.is_empty(), "refused at half load");
    Load {
        half_clients,
        half_p99: quantile(&half.admitted, 0.99),
        half_rate: half.rate(rounds),
        over_clients,
        over_p99: quantile(&over.admitted, 0.99),
        over_rate: over.rate(rounds),
        refused: over.refused.len(),
        refused_p99: quantile(&over.refused, 0.99),
        after_rate: after.rate(rounds),
    }
}

/// So many clients without a pause, but where they are refused.
async fn at_once(world: &World, clients: usize) -> Waits {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let mut client = Side::Endpoint.connect(world).await;
        let (is_over, size) = (Arc::clone(&is_over), world.size);
        running.spawn(async move {
            let mut waits = Waits::default();
            while !is_over.load(Ordering::Relaxed) {
                let given = batch(Mapping::ManyToMany, Mix::Fresh, 200, size);
                let started = Instant::now();
                let answer = client.send(&given).await;
                let waited = started.elapsed().as_secs_f64() * 1e3;
                match answer {
                    Answer::Created(_) => waits.admitted.push(waited),
                    Answer::Shed => {
                        waits.refused.push(waited);
                        tokio::time::sleep(COMES_BACK).await;
                    }
                }
            }
            waits
        });
    }
    tokio::time::sleep(WINDOW).await;
    is_over.store(true, Ordering::Relaxed);
    let mut all = Waits::default();
    while let Some(waits) = running.join_next().await {
        all.add(waits.unwrap());
    }
    all
}
