//! A run: the rows of a file are sent in batches, by several workers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use reqwest::Client;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::answer::{batch_result, is_explained, refused_batch, refused_rows};
use super::api::{Api, CallError, Observer, body, client};
use super::input::{self, BATCH_ROWS, Cell, ColumnKind, FileSummary, Rows};
use super::names::{Resolver, has_search};
use super::options::SendOptions;
use super::progress::{Entry, Message, Progress};
use super::report::{self, Totals};
use super::{BatchResult, Mode, ResolvedBatch, RowError};

/// How long a batch, or a search for its names, is sent again before the run is given up.
const RETRY_TIMEOUT: Duration = Duration::from_mins(10);

/// The same before the first batch, when a wrong URL is likelier.
const FIRST_RETRY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a run that is stopped waits for answers.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// For how long the server promises to recognize a batch that is sent again.
const KEY_LIFETIME: Duration = Duration::from_hours(24);

/// A run whose file was checked.
pub struct Run {
    options: SendOptions,
    /// What was found out about the file.
    pub summary: FileSummary,
    progress: Progress,
}

/// What the workers share.
struct Shared {
    options: SendOptions,
    run: String,
    api: Api,
    models: [String; 2],
    resolver: Resolver,
    /// Whether rows have names.
    has_names: bool,
    /// The batches that an earlier process has resolved.
    resolved: Mutex<HashMap<u64, ResolvedBatch>>,
    batches: Mutex<mpsc::Receiver<Batch>>,
    messages: mpsc::Sender<Message>,
    is_original_known: AtomicBool,
    stop: CancellationToken,
}

/// A batch as it was read.
struct Batch {
    number: u64,
    rows: Vec<Result<[Cell; 2], RowError>>,
}

impl Run {
    /// Checks the file, and opens its progress file.
    pub fn prepare(options: SendOptions) -> anyhow::Result<Self> {
        let summary = input::summarize(&options.file, options.kinds)?;
        let restarts = options.mode == Mode::DryRun;
        let progress =
            Progress::open(&options.progress(), &options.fingerprint(&summary), restarts)?;
        Ok(Self { options, summary, progress })
    }

    /// How many rows earlier processes have sent, if the run is continued.
    pub fn continued(&self) -> Option<u64> {
        self.progress.continued?;
        Some(self.progress.answered().map(|batch| self.summary.rows_of(batch)).sum())
    }

    /// Whether the server may not recognize batches that were sent and not answered.
    pub fn is_old(&self) -> bool {
        self.progress.continued.is_some_and(|age| age >= KEY_LIFETIME)
    }

    /// Sends what was not answered, and writes the file of refused rows. Returns nothing if it is
    /// stopped: the same run goes on later.
    pub async fn send(
        self, observer: Arc<dyn Observer>, stop: CancellationToken,
    ) -> anyhow::Result<Option<Totals>> {
        let Self { options, summary, mut progress } = self;
        let (file, failed) = (options.file.clone(), options.failed());
        let retry_timeout =
            if progress.continued.is_some() { RETRY_TIMEOUT } else { FIRST_RETRY_TIMEOUT };
        let prepared = async {
            let api = Api::new(
                &options.endpoint,
                &options.credentials,
                options.tenant.as_deref(),
                Arc::clone(&observer),
                stop.clone(),
            )?;
            let models = find_models(&options, &api, summary.kinds, retry_timeout).await?;
            anyhow::Ok((api, models))
        };
        let prepared = tokio::select! {
            prepared = prepared => prepared,
            () = stop.cancelled() => return Ok(None),
        };
        let (api, models) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                progress.discard()?;
                return Err(error);
            }
        };
        let connections = options.connections.max(1);
        let (batches, received) = mpsc::channel(connections);
        let (messages, stored) = mpsc::channel(connections * 2);
        let is_answered: Vec<bool> =
            (0..summary.batches()).map(|batch| progress.is_answered(batch)).collect();
        let may_have_created = Arc::clone(&api.may_have_created);
        let shared = Arc::new(Shared {
            run: progress.run.clone(),
            api,
            resolver: Resolver::new(models.clone()),
            models,
            has_names: summary.kinds.contains(&ColumnKind::Names),
            resolved: Mutex::new(std::mem::take(&mut progress.resolved)),
            batches: Mutex::new(received),
            messages,
            is_original_known: AtomicBool::new(false),
            stop: stop.clone(),
            options,
        });
        let storing = spawn_blocking(move || progress.store(stored, &observer));
        let (path, of_reader) = (file.clone(), summary.clone());
        let reading = spawn_blocking(move || read(&path, &of_reader, &is_answered, &batches));
        let worked = work(shared, connections).await;
        let progress = storing.await??;
        if worked.is_err() && !may_have_created.load(Ordering::Relaxed) {
            progress.discard()?;
            return worked.map(|()| None);
        }
        worked?;
        if stop.is_cancelled() {
            return Ok(None);
        }
        reading.await??;
        let totals = move || {
            let totals = report::write(&file, &summary, &progress, &failed)?;
            progress.finish()?;
            anyhow::Ok(totals)
        };
        Ok(Some(spawn_blocking(totals).await??))
    }
}

/// The models of the model association. Fails if a column has names that no search finds.
async fn find_models(
    options: &SendOptions, api: &Api, kinds: [ColumnKind; 2], retry_timeout: Duration,
) -> anyhow::Result<[String; 2]> {
    let models = match &options.models {
        Some(models) => models.clone(),
        None => api.models(&client()?, &options.model_association, retry_timeout).await?,
    };
    for (model, kind) in models.iter().zip(kinds) {
        ensure!(
            kind == ColumnKind::Ids || has_search(model),
            "instances of the built-in model {model} are not found by their names: use ids"
        );
    }
    Ok(models)
}

/// Reads the batches that are not answered yet, as long as they are taken.
fn read(
    file: &Path, summary: &FileSummary, is_answered: &[bool], batches: &mpsc::Sender<Batch>,
) -> anyhow::Result<()> {
    let mut rows = Rows::open_after_header(file, summary)?;
    for (number, is_answered) in (0..).zip(is_answered) {
        let mut batch = Batch { number, rows: Vec::new() };
        for _ in 0..BATCH_ROWS {
            let Some(row) = rows.next_filled()? else { break };
            if !is_answered {
                batch.rows.push(input::parse(row, summary.kinds));
            }
        }
        let is_same = usize::try_from(number).is_ok_and(|number| {
            summary.checksums.get(number).is_some_and(|expected| *expected == rows.checksum())
        });
        ensure!(is_same, "{} was changed while it was sent", file.display());
        if !is_answered && batches.blocking_send(batch).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Lets workers send batches until all are answered, one fails, or the run is stopped.
async fn work(shared: Arc<Shared>, connections: usize) -> anyhow::Result<()> {
    let stop = shared.stop.clone();
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let (shared, client) = (Arc::clone(&shared), client()?);
        workers.spawn(async move { shared.work(&client).await });
    }
    drop(shared);
    let give_up = async {
        stop.cancelled().await;
        sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::pin!(give_up);
    loop {
        let worked = tokio::select! {
            worked = workers.join_next() => worked,
            () = &mut give_up => {
                workers.shutdown().await;
                return Ok(());
            }
        };
        match worked {
            None => return Ok(()),
            Some(Ok(Ok(()))) => {}
            Some(worked) => {
                // The others finish what they have sent, so that their answers are not lost.
                stop.cancel();
                let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, async {
                    while workers.join_next().await.is_some() {}
                })
                .await;
                workers.shutdown().await;
                return worked?;
            }
        }
    }
}

impl Shared {
    async fn work(&self, client: &Client) -> anyhow::Result<()> {
        loop {
            let next = async { self.batches.lock().await.recv().await };
            let batch = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                batch = next => batch,
            };
            let Some(batch) = batch else { return Ok(()) };
            let (number, rows) = (batch.number, batch.rows.len() as u64);
            let answered = match self.resolve(client, batch).await {
                Ok(Some(resolved)) if !self.stop.is_cancelled() => {
                    self.send(client, &resolved).await
                }
                Ok(_) => return Ok(()),
                Err(error) => Err(error),
            };
            match answered {
                Ok(result) => {
                    let entry = Entry::Answered(result);
                    // Nobody receives it if the file cannot be written, which is reported there.
                    let message = Message { entry, rows, stored: None };
                    if self.messages.send(message).await.is_err() {
                        return Ok(());
                    }
                }
                Err(CallError::Stopped) => return Ok(()),
                Err(error) => {
                    let first = number * BATCH_ROWS + 1;
                    let last = first + rows - 1;
                    return Err(self.explain(error)).context(format!("rows {first} to {last}"));
                }
            }
        }
    }

    /// The ids of a batch. With names they are stored first. Nothing if they cannot be.
    async fn resolve(
        &self, client: &Client, batch: Batch,
    ) -> Result<Option<ResolvedBatch>, CallError> {
        let earlier = self.resolved.lock().await.remove(&batch.number);
        if earlier.is_some() {
            return Ok(earlier);
        }
        let Batch { number, rows } = batch;
        let resolved =
            self.resolver.resolve(&self.api, client, number, rows, RETRY_TIMEOUT).await?;
        if !self.has_names {
            return Ok(Some(resolved));
        }
        let (stored, is_stored) = oneshot::channel();
        let entry = Entry::Resolved(resolved.clone());
        let _ = self.messages.send(Message { entry, rows: 0, stored: Some(stored) }).await;
        Ok(is_stored.await.is_ok().then_some(resolved))
    }

    /// Sends a batch.
    async fn send(&self, client: &Client, batch: &ResolvedBatch) -> Result<BatchResult, CallError> {
        let SendOptions { mode, accepts_existing, .. } = self.options;
        let is_incomplete = mode == Mode::Atomic && !batch.refused.is_empty();
        if batch.pairs.is_empty() || is_incomplete {
            return Ok(refused_batch(batch, batch.refused.clone()));
        }
        let answered =
            self.api.call(client, mode.endpoint(), self.body(batch), RETRY_TIMEOUT).await;
        let data = match answered {
            Ok(data) => data,
            Err(CallError::Refused(refused)) => {
                return refused_rows(batch, &refused).ok_or(CallError::Refused(refused));
            }
            Err(error) => return Err(error),
        };
        if !is_explained(&data) && !self.is_original_known.swap(true, Ordering::Relaxed) {
            let existing = if accepts_existing { "existing" } else { "refused: already_exists" };
            self.api.notice(&format!(
                "note: the server does not explain refusals, so it is the original, or an older \
                 version of cmdb-associations. The original does not recognize a batch that is \
                 sent again: if its answer was lost, what it had created is reported as \
                 {existing}. The column blocking_id stays empty"
            ));
        }
        batch_result(batch, data, mode, accepts_existing).map_err(CallError::Malformed)
    }

    fn body(&self, batch: &ResolvedBatch) -> Map<String, Value> {
        let [source, target] = &self.models;
        let detail =
            |[source, target]: &[i64; 2]| json!({"bk_inst_id": source, "bk_asst_inst_id": target});
        let mut body = body(json!({
            "bk_obj_id": source,
            "bk_asst_obj_id": target,
            "bk_obj_asst_id": self.options.model_association,
            "details": batch.pairs.values().map(detail).collect::<Vec<_>>(),
            "explain": true,
        }));
        if self.options.accepts_existing {
            body.insert("existing".to_owned(), "created".into());
        }
        if let Some(reason) = &self.options.reason {
            body.insert("reason".to_owned(), reason.as_str().into());
        }
        if self.options.mode != Mode::DryRun {
            let key = format!("{}-{}", self.run, batch.batch);
            body.insert("idempotency_key".to_owned(), key.into());
        }
        body
    }

    /// An error, and what it means for the run.
    fn explain(&self, error: CallError) -> anyhow::Error {
        let flag = match self.options.mode {
            Mode::Create => None,
            Mode::Atomic => Some("--atomic"),
            Mode::DryRun => Some("--dry-run"),
        };
        match (&error, flag) {
            (CallError::Refused(refused), Some(flag)) if refused.is_unknown_endpoint() => {
                anyhow!(
                    "the server has no endpoint {}, which {flag} needs. The original has none: it \
                     cannot do that. Nothing was created",
                    self.options.mode.endpoint()
                )
            }
            _ => error.into(),
        }
    }
}
