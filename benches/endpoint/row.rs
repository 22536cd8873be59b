//! The rows of the table: two contenders, their requests, and how they are measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::batches::{Batch, Mapping, Mix, batch};
use crate::contender::{Answer, Client, Contender};
use crate::dataset::{Dataset, INSTANCES};

/// How many requests a contender gets in a round of a row with one client.
const REQUESTS: usize = 60;

/// How long a contender is measured in a round of a row with several clients.
const WINDOW: Duration = Duration::from_millis(1_500);

/// A comparison of the endpoint with another contender.
pub(crate) struct Row {
    pub(crate) mapping: Mapping,
    pub(crate) mix: Mix,
    pub(crate) details: usize,
    pub(crate) clients: usize,
    /// The index of the endpoint's dataset.
    pub(crate) dataset: usize,
    /// The other contender, and the index of its dataset. Another endpoint gets requests of the
    /// same kind, every other contender the same number of fresh n:n pairs.
    pub(crate) against: (Contender, usize),
    /// The goal. With one client: the highest ratio of the endpoint's median to the other's. With
    /// several clients: the lowest ratio of the endpoint's throughput to the other's.
    pub(crate) goal: Option<f64>,
}

pub(crate) const fn row(
    mapping: Mapping, mix: Mix, details: usize, clients: usize, dataset: usize,
    against: (Contender, usize), goal: Option<f64>,
) -> Row {
    Row { mapping, mix, details, clients, dataset, against, goal }
}

/// The rows of `make bench`.
pub(crate) static ROWS: [Row; 23] = {
    use Contender::{Baseline, Empty, Endpoint, Floor, Statement};
    use Mapping::{ManyToMany as NN, OneToMany as ON, OneToOne as OO};
    use Mix::{Duplicates, Fresh, HalfRefused};
    [
        row(NN, Fresh, 1, 1, 1, (Floor, 1), Some(1.8)),
        row(NN, Fresh, 1, 1, 1, (Statement, 1), None),
        row(NN, Fresh, 20, 1, 1, (Floor, 1), None),
        row(NN, Fresh, 200, 1, 1, (Floor, 1), Some(1.8)),
        row(NN, Fresh, 200, 1, 1, (Statement, 1), Some(1.1)),
        row(NN, Fresh, 200, 1, 1, (Baseline, 1), Some(0.05)),
        row(NN, Duplicates, 200, 1, 1, (Floor, 1), Some(0.8)),
        row(NN, HalfRefused, 200, 1, 1, (Floor, 1), Some(2.1)),
        row(ON, Fresh, 200, 1, 1, (Floor, 1), None),
        row(OO, Fresh, 200, 1, 1, (Floor, 1), None),
        row(NN, Fresh, 200, 1, 0, (Floor, 0), None),
        row(NN, Fresh, 200, 1, 2, (Floor, 2), None),
        row(NN, Fresh, 200, 1, 2, (Endpoint, 0), Some(1.3)),
        row(NN, Fresh, 1, 1, 3, (Endpoint, 1), Some(1.1)),
        row(NN, Fresh, 20, 1, 3, (Endpoint, 1), Some(1.1)),
        row(NN, Fresh, 200, 1, 3, (Endpoint, 1), Some(1.1)),
        row(NN, Fresh, 200, 8, 1, (Floor, 1), Some(0.62)),
        row(NN, Fresh, 200, 8, 1, (Statement, 1), None),
        row(NN, Fresh, 200, 64, 1, (Floor, 1), None),
        row(NN, Fresh, 20, 8, 1, (Floor, 1), Some(0.55)),
        row(NN, Fresh, 1, 8, 1, (Floor, 1), Some(0.45)),
        row(NN, Fresh, 1, 8, 1, (Statement, 1), None),
        row(NN, Fresh, 1, 8, 1, (Empty, 1), None),
    ]
};

/// The figures of one round: one for each request in milliseconds, or one in requests a second.
pub(crate) struct Measured {
    endpoint: Vec<f64>,
    against: Vec<f64>,
}

/// The figures of all rounds.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) endpoint: Vec<f64>,
    pub(crate) against: Vec<f64>,
    /// The ratio of the medians of each round.
    pub(crate) ratios: Vec<f64>,
}

impl Samples {
    pub(crate) fn add(&mut self, measured: Measured) {
        self.ratios.push(quantile(&measured.endpoint, 0.5) / quantile(&measured.against, 0.5));
        self.endpoint.extend(measured.endpoint);
        self.against.extend(measured.against);
    }
}

/// Measures all rows round by round, after a first round that fills caches and pools.
pub(crate) async fn measure_rows(
    rows: &'static [Row], datasets: &[Dataset], rounds: usize,
) -> Vec<Samples> {
    let started = Instant::now();
    let mut samples: Vec<_> = rows.iter().map(|_| Samples::default()).collect();
    for round in 0..=rounds {
        for (row, samples) in rows.iter().zip(&mut samples) {
            let measured = row.measure(datasets, round).await;
            if round > 0 {
                samples.add(measured);
            }
        }
        println!("round {round} of {rounds} after {:.0?}", started.elapsed());
    }
    samples
}

/// Creates a link of every instance, so that the server knows them all, as it does after some time.
pub(crate) async fn warm_up(dataset: &Dataset) {
    let mut client = Contender::Endpoint.connect(dataset).await;
    for first in (1..=INSTANCES).step_by(200) {
        let pair = |source: i64| (source, 1 + source * 7_919 % INSTANCES);
        let pairs = (first..first + 200).map(pair).collect();
        client.send(&Batch { association: "bench_n:n".to_owned(), pairs }).await;
    }
}

impl Row {
    async fn measure(&'static self, datasets: &[Dataset], round: usize) -> Measured {
        if self.clients == 1 {
            self.one_client(datasets).await
        } else {
            self.several_clients(datasets, round).await
        }
    }

    /// The mapping and the pairs of a contender's requests.
    fn requests_of(&self, contender: Contender) -> (Mapping, Mix) {
        match contender {
            Contender::Endpoint => (self.mapping, self.mix),
            _ => (Mapping::ManyToMany, Mix::Fresh),
        }
    }

    /// Checks how many links were created. A few of the random fresh pairs may exist already.
    fn verify(&self, answer: &Answer) {
        let expected = match self.mix {
            Mix::Fresh => self.details,
            Mix::HalfRefused => self.details / 2,
            Mix::Duplicates => 0,
        };
        let Answer::Created(created) = *answer else { panic!("refused below the limits") };
        assert!(created <= expected && created + 5 >= expected, "{created} of {expected} created");
    }

    /// The two contenders take turns, request by request.
    async fn one_client(&self, datasets: &[Dataset]) -> Measured {
        let (contender, index) = self.against;
        let (own, other) = (&datasets[self.dataset], &datasets[index]);
        let mut endpoint = Contender::Endpoint.connect(own).await;
        let mut against = contender.connect(other).await;
        // The baseline needs far more time for a request.
        let is_slow = contender == Contender::Baseline;
        let requests = if is_slow { REQUESTS / 20 } else { REQUESTS };
        let mut measured = Measured { endpoint: Vec::new(), against: Vec::new() };
        for n in 0..requests {
            // Each of them is the first one in every other turn.
            if n.is_multiple_of(2) {
                measured.endpoint.push(self.time(Contender::Endpoint, &mut endpoint, own).await);
            }
            measured.against.push(self.time(contender, &mut against, other).await);
            if !n.is_multiple_of(2) {
                measured.endpoint.push(self.time(Contender::Endpoint, &mut endpoint, own).await);
            }
        }
        measured
    }

    /// The duration of one request in milliseconds.
    async fn time(&self, contender: Contender, client: &mut Client, dataset: &Dataset) -> f64 {
        let (mapping, mix) = self.requests_of(contender);
        let request = batch(mapping, mix, self.details, dataset.size);
        let started = Instant::now();
        let answer = client.send(&request).await;
        let duration = started.elapsed();
        if contender == Contender::Endpoint {
            self.verify(&answer);
        }
        duration.as_secs_f64() * 1e3
    }

    /// One contender after the other, in every other round in the other order.
    async fn several_clients(&'static self, datasets: &[Dataset], round: usize) -> Measured {
        let (contender, index) = self.against;
        let endpoint = || rate(Contender::Endpoint, &datasets[self.dataset], self, WINDOW);
        let against = || rate(contender, &datasets[index], self, WINDOW);
        let (endpoint, against) = if round.is_multiple_of(2) {
            (endpoint().await, against().await)
        } else {
            let against = against().await;
            (endpoint().await, against)
        };
        Measured { endpoint: vec![endpoint], against: vec![against] }
    }
}

/// How many requests a second all clients complete together.
pub(crate) async fn rate(
    contender: Contender, dataset: &Dataset, row: &'static Row, window: Duration,
) -> f64 {
    let is_over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let size = dataset.size;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..row.clients {
        let mut client = contender.connect(dataset).await;
        let (is_over, done) = (Arc::clone(&is_over), Arc::clone(&done));
        clients.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let request = batch(row.mapping, row.mix, row.details, size);
                let answer = client.send(&request).await;
                if contender == Contender::Endpoint {
                    row.verify(&answer);
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // Measure while all clients are sending.
    tokio::time::sleep(window / 10).await;
    let (before, started) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(window).await;
    let (after, elapsed) = (done.load(Ordering::Relaxed), started.elapsed());
    is_over.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    f64::from(u32::try_from(after - before).unwrap()) / elapsed.as_secs_f64()
}

/// The quantile `part` of `values`: 0.5 is the median.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index of a short list"
    )]
    let index = ((values.len() - 1) as f64 * part).round() as usize;
    values[index]
}
