//! The rows of the table: two sides that are compared, what they are given, and how they are measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::batches::{Mapping, Mix, batch};
use crate::side::{Answer, Side};
use crate::world::World;

/// How many requests a side sends in a round of a row with one client.
const REQUESTS: usize = 60;

/// How long a side of a row with several clients works in a round.
const WINDOW: Duration = Duration::from_millis(1_500);

/// What is compared.
pub(crate) struct Row {
    pub(crate) mapping: Mapping,
    pub(crate) mix: Mix,
    pub(crate) details: usize,
    pub(crate) clients: usize,
    /// Which of the databases: 0 is the smallest.
    pub(crate) world: usize,
    /// With whom, and in which database. Whatever the endpoint is given, the floor and the twin are given as many
    /// fresh pairs.
    pub(crate) against: (Side, usize),
    /// The goal: with one client, the endpoint's median divided by the other's at most; with several, its
    /// throughput divided by the other's at least.
    pub(crate) goal: Option<f64>,
}

pub(crate) const fn row(
    mapping: Mapping,
    mix: Mix,
    details: usize,
    clients: usize,
    world: usize,
    against: (Side, usize),
    goal: Option<f64>,
) -> Row {
    Row { mapping, mix, details, clients, world, against, goal }
}

/// All of them.
pub(crate) static ROWS: [Row; 18] = {
    use Mapping::{ManyToMany as NN, OneToMany as ON, OneToOne as OO};
    use Mix::{Duplicates, Fresh, HalfRefused};
    use Side::{Checked, Endpoint, Floor, Twin};
    [
        row(NN, Fresh, 1, 1, 1, (Floor, 1), Some(3.0)),
        row(NN, Fresh, 10, 1, 1, (Floor, 1), None),
        row(NN, Fresh, 50, 1, 1, (Floor, 1), None),
        row(NN, Fresh, 200, 1, 1, (Floor, 1), Some(1.8)),
        row(NN, Fresh, 200, 1, 1, (Checked, 1), None),
        row(NN, Fresh, 200, 1, 1, (Twin, 1), Some(0.05)),
        row(NN, Duplicates, 200, 1, 1, (Floor, 1), Some(1.0)),
        row(NN, HalfRefused, 200, 1, 1, (Floor, 1), None),
        row(ON, Fresh, 200, 1, 1, (Floor, 1), None),
        row(OO, Fresh, 200, 1, 1, (Floor, 1), None),
        row(NN, Fresh, 200, 1, 0, (Floor, 0), None),
        row(NN, Fresh, 200, 1, 2, (Floor, 2), None),
        row(NN, Fresh, 200, 1, 2, (Endpoint, 0), Some(1.3)),
        row(NN, Fresh, 200, 8, 1, (Floor, 1), Some(0.6)),
        row(NN, Fresh, 200, 8, 1, (Checked, 1), None),
        row(NN, Fresh, 200, 64, 1, (Floor, 1), None),
        row(ON, Fresh, 200, 8, 1, (Floor, 1), None),
        row(NN, Fresh, 1, 8, 1, (Floor, 1), None),
    ]
};

/// What one round measured: a figure for each request in milliseconds, or one for the round in requests a second.
pub(crate) struct Measured {
    endpoint: Vec<f64>,
    against: Vec<f64>,
}

/// What all rounds measured.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) endpoint: Vec<f64>,
    pub(crate) against: Vec<f64>,
    /// The ratio of the medians, round by round.
    pub(crate) ratios: Vec<f64>,
}

impl Samples {
    pub(crate) fn add(&mut self, measured: Measured) {
        self.ratios.push(quantile(&measured.endpoint, 0.5) / quantile(&measured.against, 0.5));
        self.endpoint.extend(measured.endpoint);
        self.against.extend(measured.against);
    }
}

impl Row {
    pub(crate) async fn measure(&'static self, worlds: &[World], round: usize) -> Measured {
        if self.clients == 1 {
            self.one_by_one(worlds).await
        } else {
            self.at_once(worlds, round).await
        }
    }

    /// Hardly ever two pairs that were meant to be new are the same.
    fn verify(&self, answer: &Answer) {
        let expected = match self.mix {
            Mix::Fresh => self.details,
            Mix::HalfRefused => self.details / 2,
            Mix::Duplicates => 0,
        };
        let Answer::Created(created) = *answer else { panic!("refused below the limits") };
        assert!(created <= expected && created + 5 >= expected, "{created} of {expected} created");
    }

    /// The two sides take turns, request by request.
    async fn one_by_one(&self, worlds: &[World]) -> Measured {
        let (side, other_world) = self.against;
        let mut endpoint = Side::Endpoint.connect(&worlds[self.world]).await;
        let mut against = side.connect(&worlds[other_world]).await;
        // The twin takes its time.
        let requests = if side == Side::Twin { REQUESTS / 20 } else { REQUESTS };
        let mut measured = Measured { endpoint: Vec::new(), against: Vec::new() };
        for _ in 0..requests {
            let given = batch(self.mapping, self.mix, self.details, worlds[self.world].size);
            let started = Instant::now();
            let answer = endpoint.send(&given).await;
            measured.endpoint.push(started.elapsed().as_secs_f64() * 1e3);
            self.verify(&answer);
            let given =
                batch(Mapping::ManyToMany, Mix::Fresh, self.details, worlds[other_world].size);
            let started = Instant::now();
            against.send(&given).await;
            measured.against.push(started.elapsed().as_secs_f64() * 1e3);
        }
        measured
    }

    /// One side after the other, every other round in the other order.
    async fn at_once(&'static self, worlds: &[World], round: usize) -> Measured {
        let (side, other_world) = self.against;
        let endpoint = || rate(Side::Endpoint, &worlds[self.world], self, WINDOW);
        let against = || rate(side, &worlds[other_world], self, WINDOW);
        let (endpoint, against) = if round.is_multiple_of(2) {
            (endpoint().await, against().await)
        } else {
            let against = against().await;
            (endpoint().await, against)
        };
        Measured { endpoint: vec![endpoint], against: vec![against] }
    }
}

/// How many requests a second all clients together get done.
pub(crate) async fn rate(side: Side, world: &World, row: &'static Row, window: Duration) -> f64 {
    let is_over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let stored = world.size;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..row.clients {
        let mut client = side.connect(world).await;
        let (is_over, done) = (Arc::clone(&is_over), Arc::clone(&done));
        clients.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let given = batch(row.mapping, row.mix, row.details, stored);
                let answer = client.send(&given).await;
                if side == Side::Endpoint {
                    row.verify(&answer);
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // From when all of them are at work until they are told to stop.
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

/// The value that so much of `values` is below.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a short list"
    )]
    let place = ((values.len() - 1) as f64 * part).round() as usize;
    values[place]
}
