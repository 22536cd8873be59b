//! More clients than the server has permits: the latency of admitted and of refused requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::batches::{Mapping, Mix, batch};
use crate::contender::{Answer, Contender};
use crate::dataset::Dataset;
use crate::row::quantile;

/// How many requests the server admits at once by default.
const PERMITS: usize = 80;

/// How long the clients send in a round.
const WINDOW: Duration = Duration::from_secs(2);

/// The `Retry-After` of a refusal, which the clients respect.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The figures. Durations are in milliseconds, rates in requests a second.
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
    /// The rate of `half_clients` clients right after the overload.
    pub(crate) after_rate: f64,
}

#[derive(Default)]
struct Durations {
    admitted: Vec<f64>,
    refused: Vec<f64>,
}

impl Durations {
    fn add(&mut self, other: Self) {
        self.admitted.extend(other.admitted);
        self.refused.extend(other.refused);
    }

    fn rate(&self, rounds: usize) -> f64 {
        let windows = WINDOW.as_secs_f64() * f64::from(u32::try_from(rounds).unwrap());
        f64::from(u32::try_from(self.admitted.len()).unwrap()) / windows
    }
}

pub(crate) async fn measure(datasets: &[Dataset], rounds: usize) -> Load {
    let dataset = &datasets[1];
    let (half_clients, over_clients) = (PERMITS / 2, PERMITS * 4);
    let [mut half, mut over, mut after] = [(); 3].map(|()| Durations::default());
    for _ in 0..rounds {
        half.add(at_once(dataset, half_clients).await);
        over.add(at_once(dataset, over_clients).await);
        after.add(at_once(dataset, half_clients).await);
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

/// Clients that send without a pause, except after a refusal.
async fn at_once(dataset: &Dataset, clients: usize) -> Durations {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let mut client = Contender::Endpoint.connect(dataset).await;
        let (is_over, size) = (Arc::clone(&is_over), dataset.size);
        running.spawn(async move {
            let mut durations = Durations::default();
            while !is_over.load(Ordering::Relaxed) {
                let request = batch(Mapping::ManyToMany, Mix::Fresh, 200, size);
                let started = Instant::now();
                let answer = client.send(&request).await;
                let duration = started.elapsed().as_secs_f64() * 1e3;
                match answer {
                    Answer::Created(_) => durations.admitted.push(duration),
                    Answer::Refused => {
                        durations.refused.push(duration);
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            }
            durations
        });
    }
    tokio::time::sleep(WINDOW).await;
    is_over.store(true, Ordering::Relaxed);
    let mut all = Durations::default();
    while let Some(durations) = running.join_next().await {
        all.add(durations.unwrap());
    }
    all
}
