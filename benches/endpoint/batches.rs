//! The requests: pairs that are new, that are stored already, or both.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::dataset::{INSTANCES, stored_pair};

/// The mapping of the model association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    ManyToMany,
    OneToMany,
    OneToOne,
}

impl Mapping {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ManyToMany => "n:n",
            Self::OneToMany => "1:n",
            Self::OneToOne => "1:1",
        }
    }
}

/// Which of the pairs are stored already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    Fresh,
    Duplicates,
    HalfRefused,
}

/// The model association and the pairs of a request.
pub(crate) struct Batch {
    pub(crate) association: String,
    pub(crate) pairs: Vec<(i64, i64)>,
}

/// The number of the next pair of each mapping, for all databases together.
static NEXT: [AtomicI64; 3] = [const { AtomicI64::new(0) }; 3];

/// A request to a database that held `size` links.
pub(crate) fn batch(mapping: Mapping, mix: Mix, length: usize, size: i64) -> Batch {
    let first = NEXT[mapping as usize].fetch_add(i64::try_from(length).unwrap(), Ordering::Relaxed);
    let pair = |n: i64| {
        let is_stored = match mix {
            Mix::Fresh => false,
            Mix::Duplicates => true,
            Mix::HalfRefused => n % 2 == 1,
        };
        // For 1:n and 1:1 a target is used once, in an order that is not sorted.
        let unused = 1 + n * 7_919 % INSTANCES;
        match mapping {
            _ if is_stored => stored_pair(pseudo_random(n, size)),
            Mapping::ManyToMany => {
                (1 + pseudo_random(n, INSTANCES), 1 + pseudo_random(n ^ 0x5bd1, INSTANCES))
            }
            Mapping::OneToMany => (1 + pseudo_random(n, INSTANCES), unused),
            Mapping::OneToOne => (unused, unused),
        }
    };
    let pairs = (first..).take(length).map(pair).collect();
    let association = match mapping {
        Mapping::ManyToMany => "bench_n:n".to_owned(),
        // Each of these model associations has room for as many links as there are instances.
        _ => format!("bench_{}_{}", mapping.name(), first / INSTANCES),
    };
    Batch { association, pairs }
}

/// A pseudo-random number below `bound` (splitmix64).
fn pseudo_random(n: i64, bound: i64) -> i64 {
    let mut z = n.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    i64::try_from((z ^ (z >> 31)) % bound.cast_unsigned()).unwrap()
}
