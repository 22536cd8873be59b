//! The command `send`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Outcome, shutdown_signal, table};
use crate::client::Mode;
use crate::client::api::{Credentials, Observer};
use crate::client::input::ColumnKind;
use crate::client::options::SendOptions;
use crate::client::report::Totals;
use crate::client::run::Run;
use crate::config;
use crate::domain::batch::DETAIL_LIMIT;

/// How often a problem is printed, at most.
const PROBLEM_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// CSV file in UTF-8. The first two columns are the source and the target, others are ignored
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// URL of the server or of the gateway, such as `https://paas.example.com`
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// Key of the model association (`bk_obj_asst_id`)
    #[arg(long, value_name = "ID")]
    model_association: String,
    /// `created`: pairs that are associated already are not refused
    #[arg(long, value_name = "HOW")]
    existing: Option<Existing>,
    /// Create nothing, and say what would happen to each row as things are now. Of two rows in
    /// different batches, one does not see the other. The original cannot do this
    #[arg(long, conflicts_with = "atomic")]
    dry_run: bool,
    /// Create all rows of a batch or none of them: each 200 rows of the file are a batch. The
    /// original cannot do this
    #[arg(long)]
    atomic: bool,
    /// Why the associations are created, for the audit log; at most 200 characters
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Key of the tenant (`bk_supplier_account`). Default: that of the server
    #[arg(long, value_name = "KEY")]
    tenant: Option<String>,
    /// What the first column has. Default: what its header says, as in `bk_inst_id`,
    /// `bk_inst_name` or `bk_host_innerip`, else ids if at least half of its values are integers
    #[arg(long, value_name = "WHAT")]
    source: Option<ColumnKind>,
    /// What the second column has. Default: as for the first one
    #[arg(long, value_name = "WHAT")]
    target: Option<ColumnKind>,
    /// Source model (`bk_obj_id`), if the user may not view the model association
    #[arg(long, value_name = "KEY", requires = "target_model")]
    source_model: Option<String>,
    /// Target model (`bk_asst_obj_id`), likewise
    #[arg(long, value_name = "KEY", requires = "source_model")]
    target_model: Option<String>,
    /// How many batches are sent at once, 1 to 64. With 1, they are sent in the order of the file
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
    connections: u8,
}

/// What is done with pairs that are linked already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Existing {
    /// They count as created
    Created,
}

impl SendArgs {
    pub(super) async fn run(self) -> anyhow::Result<Outcome> {
        let config::Credentials { app_code, app_secret, username, token } = config::credentials()?;
        let mode = match (self.dry_run, self.atomic) {
            (true, _) => Mode::DryRun,
            (_, true) => Mode::Atomic,
            _ => Mode::Create,
        };
        let options = SendOptions {
            file: self.file,
            endpoint: self.endpoint,
            credentials: Credentials { app_code, app_secret, username, token },
            tenant: self.tenant,
            model_association: self.model_association,
            models: self
                .source_model
                .zip(self.target_model)
                .map(|(source, target)| [source, target]),
            kinds: [self.source, self.target],
            mode,
            accepts_existing: self.existing == Some(Existing::Created),
            reason: self.reason,
            connections: self.connections.into(),
        };
        let (failed, progress_file) = (options.failed(), options.progress());
        let accepts_existing = options.accepts_existing;
        let run = spawn_blocking(move || Run::prepare(options)).await??;
        let messages = Arc::new(Messages::new(&run)?);
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        tokio::spawn(stop_on_signal(stop.clone(), abort.clone(), Arc::clone(&messages))?);
        let observer: Arc<dyn Observer> = Arc::<Messages>::clone(&messages);
        let sent = tokio::select! {
            sent = run.send(observer, stop) => sent,
            () = abort.cancelled() => Ok(None),
        };
        messages.progress.finish_and_clear();
        let stored = progress_file.display();
        let goes_on = format!("the same command goes on; {stored} has the answers");
        let totals = match sent {
            Ok(Some(totals)) => totals,
            Ok(None) => return Err(anyhow!("interrupted: {goes_on}")),
            Err(error) if progress_file.exists() => return Err(anyhow!("{error:#}; {goes_on}")),
            Err(error) => return Err(error),
        };
        print_totals(&totals, mode, accepts_existing)?;
        if totals.refused.is_empty() {
            return Ok(Outcome::Success);
        }
        writeln!(io::stderr(), "the rows that were refused are in {}", failed.display())?;
        Ok(Outcome::Negative)
    }
}

/// Stops the run on SIGINT or SIGTERM, and aborts it on a second one.
fn stop_on_signal(
    stop: CancellationToken, abort: CancellationToken, messages: Arc<Messages>,
) -> io::Result<impl Future<Output = ()>> {
    let first = shutdown_signal()?;
    Ok(async move {
        first.await;
        // A handler that cannot be installed again leaves the second signal without effect.
        let second = shutdown_signal();
        messages.print("stopping: waiting for up to 10 s for answers; again to stop at once");
        stop.cancel();
        if let Ok(second) = second {
            second.await;
            abort.cancel();
        }
    })
}

/// The progress bar, and messages on stderr above it.
struct Messages {
    progress: ProgressBar,
    /// When a problem was printed last.
    last_problem: Mutex<Option<Instant>>,
}

impl Messages {
    /// Says what was found out about a file.
    fn new(run: &Run) -> anyhow::Result<Self> {
        let summary = &run.summary;
        let template = "{bar:40} {human_pos} of {human_len} rows, {per_sec}, {eta} left";
        let progress = ProgressBar::new(summary.rows);
        let messages = Self {
            progress: progress.with_style(ProgressStyle::with_template(template)?),
            last_problem: Mutex::new(None),
        };
        let [source, target] = summary.kinds.map(|kind| match kind {
            ColumnKind::Ids => "ids",
            ColumnKind::Names => "names",
        });
        let header = if summary.header.is_some() { " after the header" } else { "" };
        messages.print(&format!(
            "{} rows{header} in batches of {DETAIL_LIMIT}; sources: {source}, targets: {target}",
            summary.rows
        ));
        if let Some(rows) = run.continued() {
            messages.print(&format!("continuing: {rows} rows were answered before"));
            messages.progress.set_position(rows);
            messages.progress.reset_eta();
        }
        if run.is_old() {
            messages.print(
                "note: the run was interrupted more than 24 hours ago. If a batch was sent and not \
                 answered then, the server may not recognize it: what it had created is reported \
                 as already_exists",
            );
        }
        messages.progress.enable_steady_tick(Duration::from_millis(200));
        Ok(messages)
    }

    fn print(&self, text: &str) {
        self.progress.suspend(|| {
            let _ = writeln!(io::stderr(), "{text}");
        });
    }
}

impl Observer for Messages {
    fn waiting(&self, problem: &str) {
        let mut last = self.last_problem.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= PROBLEM_INTERVAL) {
            *last = Some(Instant::now());
            self.print(&format!("sending again: {problem}"));
        }
    }

    fn notice(&self, text: &str) {
        self.print(text);
    }

    fn answered(&self, rows: u64) {
        self.progress.inc(rows);
    }
}

fn print_totals(totals: &Totals, mode: Mode, accepts_existing: bool) -> io::Result<()> {
    let created = match mode {
        Mode::DryRun => "would be created",
        // Only the original's answers tell them apart.
        _ if accepts_existing && totals.existing == 0 => "created or existing",
        _ => "created",
    };
    let row = |what: &str, code: Option<i64>, reason: &str, rows: u64| {
        let code = code.map(|code| code.to_string()).unwrap_or_default();
        [what.to_owned(), code, reason.to_owned(), rows.to_string()]
    };
    let mut rows = vec![row(created, None, "", totals.created)];
    if totals.existing > 0 {
        rows.push(row("existing", None, "", totals.existing));
    }
    let refused = totals.refused.iter();
    rows.extend(refused.map(|((code, reason), rows)| row("refused", *code, reason, *rows)));
    table::print(["outcome", "code", "reason", "rows"], rows)
}
