//! What is sent: pairs that are new, that stand already, or both.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::world::{INSTANCES, stored};

/// A model association by its mapping.
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

/// Which of the pairs stand already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    Fresh,
    Duplicates,
    HalfRefused,
}

/// What a request names.
pub(crate) struct Batch {
    pub(crate) association: String,
    pub(crate) pairs: Vec<(i64, i64)>,
}

/// The next number of each mapping, for all databases together.
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
        // Under the other mappings every instance is used once, in an order that jumps about.
        let once = 1 + n * 7_919 % INSTANCES;
        match mapping {
            _ if is_stored => stored(scattered(n, size)),
            Mapping::ManyToMany => {
                (1 + scattered(n, INSTANCES), 1 + scattered(n ^ 0x5bd1, INSTANCES))
            }
            Mapping::OneToMany => (1 + scattered(n, INSTANCES), once),
            Mapping::OneToOne => (once, once),
        }
    };
    let pairs = (first..).take(length).map(pair).collect();
    let association = match mapping {
        Mapping::ManyToMany => "bench_n:n".to_owned(),
        // One after the other is used up.
        _ => format!("bench_{}_{}", mapping.name(), first / INSTANCES),
    };
    Batch { association, pairs }
}

/// A number below `below` that looks random (splitmix64).
fn scattered(n: i64, below: i64) -> i64 {
    let mut z = n.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    i64::try_from((z ^ (z >> 31)) % below.cast_unsigned()).unwrap()
}
