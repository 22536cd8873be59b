//! A client of the gateway API that sends the rows of a CSV file as associations, in batches.
//!
//! [`input`] reads the file, [`names`] finds the ids of names, [`api`] calls the server,
//! [`response`] says whether to send a request again, [`answer`] what became of each row,
//! [`progress`] keeps what was answered, and [`report`] sums it up. [`run`] puts them together. No
//! more than some batches are in memory at once: the file is read once to check it, once to send
//! it, and once to write the rows that were refused.

pub mod answer;
pub mod api;
pub mod input;
pub mod names;
pub mod options;
pub mod progress;
pub mod report;
pub mod response;
pub mod run;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// To create what it can of each batch.
    Create,
    /// To create all of a batch or nothing.
    Atomic,
    /// To say what it would create.
    DryRun,
}

impl Mode {
    /// The endpoint that does it.
    pub fn endpoint(self) -> &'static str {
        match self {
            Self::Create => "batch_create_instance_association",
            Self::Atomic => "create_instance_associations_atomic",
            Self::DryRun => "check_instance_associations",
        }
    }
}

/// Why a row was not created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowError {
    /// The server's code. Rows that were not sent have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// A word for programs.
    pub reason: String,
    /// The reason in words.
    pub message: String,
    /// The link that is in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocking_id: Option<i64>,
}

impl RowError {
    /// Why a row is not sent.
    pub fn unsent(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into(), ..Self::default() }
    }
}

/// A batch as it is sent. The keys are positions of rows in the batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedBatch {
    /// Its number, from 0.
    pub batch: u64,
    /// The ids of source and target.
    pub pairs: BTreeMap<usize, [i64; 2]>,
    /// The rows that are not sent.
    pub refused: BTreeMap<usize, RowError>,
}

/// What became of a batch. The keys are positions of rows in the batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchResult {
    /// Its number, from 0.
    pub batch: u64,
    /// The ids of the links. In a dry run 0 for those that would be created.
    pub created: BTreeMap<usize, i64>,
    /// The links that existed already, where they are known and do not count as refused; 0 if the
    /// id is not known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub existing: BTreeMap<usize, i64>,
    /// Why the others were refused.
    pub refused: BTreeMap<usize, RowError>,
}
