//! The options of a run: what is sent, where to, and how.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::Mode;
use super::api::{Credentials, body};
use super::input::{ColumnKind, FileSummary};

/// What is sent, where to, and how.
pub struct SendOptions {
    /// The CSV file.
    pub file: PathBuf,
    /// The URL of the server.
    pub endpoint: String,
    /// Who calls.
    pub credentials: Credentials,
    /// The tenant, unless it is the default one.
    pub tenant: Option<String>,
    /// The key of the model association.
    pub model_association: String,
    /// Its models, if the server need not be asked.
    pub models: Option<[String; 2]>,
    /// What the columns have, if that is given.
    pub kinds: [Option<ColumnKind>; 2],
    /// What is asked of the server.
    pub mode: Mode,
    /// Whether pairs that are linked already count as created.
    pub accepts_existing: bool,
    /// Why the links are created, for the audit log.
    pub reason: Option<String>,
    /// How many requests are sent at once.
    pub connections: usize,
}

impl SendOptions {
    /// The file with another ending instead of `.csv`.
    fn beside(&self, ending: &str) -> PathBuf {
        let is_csv = self.file.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv"));
        let mut name = if is_csv { self.file.with_extension("") } else { self.file.clone() };
        name.as_mut_os_string().push(ending);
        name
    }

    /// The file of the rows that were refused. A dry run has its own, as for the progress.
    pub fn failed(&self) -> PathBuf {
        self.beside(match self.mode {
            Mode::DryRun => ".dry-run.failed.csv",
            _ => ".failed.csv",
        })
    }

    /// The progress file. A dry run has its own, so that it does not touch a run that goes on.
    pub fn progress(&self) -> PathBuf {
        self.beside(if self.mode == Mode::DryRun { ".dry-run.progress" } else { ".progress" })
    }

    /// What must be the same when a run is continued. The keys name what differs in a message.
    pub(super) fn fingerprint(&self, summary: &FileSummary) -> Map<String, Value> {
        body(json!({
            "content of the file": summary.sha256,
            "--endpoint": self.endpoint.trim_end_matches('/'),
            "application or user": [self.credentials.app_code, self.credentials.username],
            "--tenant": self.tenant,
            "--model-association": self.model_association,
            "--source-model or --target-model": self.models,
            "--source or --target": summary.kinds,
            "--existing": self.accepts_existing,
            "--atomic": self.mode == Mode::Atomic,
            "--reason": self.reason,
        }))
    }
}
