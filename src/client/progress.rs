//! The progress file: the id of a run, what it was started with, and what was answered.
//!
//! It is a file of JSON lines that only grows. A line that was cut off by a crash is ignored, with
//! what follows: the batches of such lines are sent again under the same key, and the server
//! repeats its answer. A batch of names is written with its ids before it is sent, so that it is
//! the same batch if it is sent again.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::api::Observer;
use super::{BatchResult, ResolvedBatch};

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The first line.
    Run {
        /// A random id.
        id: String,
        /// What the run was started with.
        fingerprint: Map<String, Value>,
    },
    /// What is about to be sent.
    Resolved(ResolvedBatch),
    /// What was answered.
    Answered(BatchResult),
    /// The last line: the rows that were refused are in their file.
    Finished {},
}

/// A line to be stored.
pub struct Message {
    /// The line.
    pub entry: Entry,
    /// How many rows it answers.
    pub rows: u64,
    /// Is told when the line is durable.
    pub stored: Option<oneshot::Sender<()>>,
}

/// The progress file of a run. It is locked, so that no other process sends the same rows.
pub struct Progress {
    path: PathBuf,
    file: File,
    /// The length of the lines that are valid.
    length: u64,
    /// The random id of the run.
    pub run: String,
    /// The batches that were resolved, and not answered, when the file was opened.
    pub resolved: HashMap<u64, ResolvedBatch>,
    /// Where the answer to each batch is.
    answers: HashMap<u64, u64>,
    /// How long ago the file was changed, if the run is continued.
    pub continued: Option<Duration>,
}

impl Progress {
    /// Opens a file, or creates it. Continues its run, or starts a new one if it is finished or
    /// `restarts`. Fails if the run that is continued was started with something else.
    pub fn open(
        path: &Path, fingerprint: &Map<String, Value>, restarts: bool,
    ) -> anyhow::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                bail!("{} is in use by another process", path.display());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).context(format!("cannot lock {}", path.display()));
            }
            Ok(()) => {}
        }
        let mut progress = Self {
            path: path.to_owned(),
            file,
            length: 0,
            run: Uuid::new_v4().simple().to_string(),
            resolved: HashMap::new(),
            answers: HashMap::new(),
            continued: None,
        };
        progress.read(fingerprint, restarts)?;
        // Even to the same length, it would change the time of the last change.
        if progress.file.metadata()?.len() > progress.length {
            progress.file.set_len(progress.length)?;
        }
        progress.file.seek(SeekFrom::End(0))?;
        if progress.length == 0 {
            let entry = Entry::Run { id: progress.run.clone(), fingerprint: fingerprint.clone() };
            progress.write(&entry)?;
            progress.file.sync_all()?;
            sync_folder(path)?;
        }
        Ok(progress)
    }

    /// Reads the lines up to the first one that is not valid.
    fn read(&mut self, fingerprint: &Map<String, Value>, restarts: bool) -> anyhow::Result<()> {
        let modified = self.file.metadata()?.modified()?;
        let mut lines = BufReader::new(&self.file);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            let entry = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok());
            match entry {
                Some(Entry::Run { .. }) if restarts => return Ok(()),
                Some(Entry::Run { id, fingerprint: other }) if self.length == 0 => {
                    self.run = id;
                    self.continued = Some(modified.elapsed().unwrap_or_default());
                    let differs =
                        fingerprint.iter().find(|(key, value)| other.get(*key) != Some(*value));
                    if let Some((key, _)) = differs
                        && !is_finished(&self.file)?
                    {
                        let path = self.path.display();
                        bail!(
                            "{path} has a run that is not finished and was started with another \
                             {key}: finish it with the command that started it, or delete {path} \
                             to start a new one"
                        );
                    }
                }
                Some(Entry::Resolved(resolved)) if self.length > 0 => {
                    self.resolved.insert(resolved.batch, resolved);
                }
                Some(Entry::Answered(result)) if self.length > 0 => {
                    self.resolved.remove(&result.batch);
                    self.answers.insert(result.batch, self.length);
                }
                Some(Entry::Finished {}) => {
                    self.run = Uuid::new_v4().simple().to_string();
                    (self.resolved, self.answers) = (HashMap::new(), HashMap::new());
                    (self.length, self.continued) = (0, None);
                    return Ok(());
                }
                _ if self.length == 0 && !is_cut_off_start(&line) => {
                    bail!("{} is not a progress file: rename it", self.path.display());
                }
                _ => return Ok(()),
            }
            self.length += line.len() as u64;
            line.clear();
        }
        Ok(())
    }

    /// Whether a batch was answered.
    pub fn is_answered(&self, batch: u64) -> bool {
        self.answers.contains_key(&batch)
    }

    /// The batches that were answered.
    pub fn answered(&self) -> impl Iterator<Item = u64> {
        self.answers.keys().copied()
    }

    /// What was answered to a batch.
    pub fn answer(&self, batch: u64) -> anyhow::Result<BatchResult> {
        let read = || {
            let start = *self.answers.get(&batch)?;
            let mut file = &self.file;
            file.seek(SeekFrom::Start(start)).ok()?;
            let mut line = Vec::new();
            BufReader::new(file).read_until(b'\n', &mut line).ok()?;
            match serde_json::from_slice(&line).ok()? {
                Entry::Answered(result) => Some(result),
                _ => None,
            }
        };
        read().with_context(|| format!("{} has no answer to batch {batch}", self.path.display()))
    }

    /// Stores lines until there are no more. Those that wait are made durable together, and only
    /// then count as answered.
    pub fn store(
        mut self, mut messages: mpsc::Receiver<Message>, observer: &Arc<dyn Observer>,
    ) -> anyhow::Result<Self> {
        while let Some(first) = messages.blocking_recv() {
            let mut waiting = vec![first];
            waiting.extend(std::iter::from_fn(|| messages.try_recv().ok()));
            let mut store = || {
                waiting.iter().try_for_each(|message| self.write(&message.entry))?;
                self.file.sync_data()
            };
            store().with_context(|| format!("cannot write {}", self.path.display()))?;
            for Message { rows, stored, .. } in waiting {
                observer.answered(rows);
                // A worker that was stopped does not wait.
                stored.map(|stored| stored.send(()));
            }
        }
        Ok(self)
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        if let Entry::Answered(result) = entry {
            self.answers.insert(result.batch, self.length);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Removes the file of a run in which this process could not create anything, so that another
    /// one can be started with other flags. Keeps one that was continued.
    pub fn discard(self) -> io::Result<()> {
        match self.continued {
            Some(_) => Ok(()),
            None => fs::remove_file(&self.path),
        }
    }

    /// Marks the run as finished.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.file.seek(SeekFrom::End(0))?;
        self.write(&Entry::Finished {})?;
        self.file.sync_all()?;
        Ok(())
    }
}

/// Whether a first line that is not valid is the start of one, which a crash has cut off.
fn is_cut_off_start(line: &[u8]) -> bool {
    let start = b"{\"run\":";
    line.starts_with(start) || start.starts_with(line)
}

/// Whether the last line says that the run is finished.
fn is_finished(mut file: &File) -> io::Result<bool> {
    let position = file.stream_position()?;
    let last = serde_json::to_string(&Entry::Finished {})? + "\n";
    let length = file.metadata()?.len();
    let mut end = String::new();
    file.seek(SeekFrom::Start(length.saturating_sub(last.len() as u64)))?;
    // A line that was cut off is no UTF-8, perhaps.
    let read = file.read_to_string(&mut end);
    file.seek(SeekFrom::Start(position))?;
    Ok(read.is_ok() && end == last)
}

/// Makes the names in a file's folder durable.
pub fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn fingerprint(endpoint: &str) -> Map<String, Value> {
        Map::from_iter([("--endpoint".to_owned(), json!(endpoint))])
    }

    fn result(batch: u64) -> BatchResult {
        BatchResult { batch, created: BTreeMap::from([(0, 73)]), ..BatchResult::default() }
    }

    #[test]
    fn a_run_goes_on_after_the_last_complete_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("links.progress");
        let mut progress = Progress::open(&path, &fingerprint("a"), false).unwrap();
        assert!(progress.continued.is_none());
        let error = Progress::open(&path, &fingerprint("a"), false).err().unwrap().to_string();
        assert!(error.ends_with("is in use by another process"), "{error}");
        let resolved = ResolvedBatch { batch: 4, ..ResolvedBatch::default() };
        progress.write(&Entry::Resolved(resolved.clone())).unwrap();
        progress
            .write(&Entry::Resolved(ResolvedBatch { batch: 3, ..ResolvedBatch::default() }))
            .unwrap();
        progress.write(&Entry::Answered(result(3))).unwrap();
        let run = progress.run.clone();
        drop(progress);
        let stored = fs::read(&path).unwrap();
        for torn in ["", "{\"answered\":{\"batch\":5", "\0\0\0\n", "{}\n{\"finished\":{}}\n"] {
            fs::write(&path, [&stored, torn.as_bytes()].concat()).unwrap();
            let progress = Progress::open(&path, &fingerprint("a"), false).unwrap();
            assert!(progress.continued.is_some());
            assert_eq!(progress.run, run, "{torn}");
            assert_eq!(progress.answered().collect::<Vec<_>>(), [3]);
            assert_eq!(progress.answer(3).unwrap(), result(3));
            assert_eq!(progress.resolved, HashMap::from([(4, resolved.clone())]));
            drop(progress);
            assert_eq!(fs::read(&path).unwrap(), stored);
        }
    }

    #[test]
    fn a_run_is_not_continued_with_something_else_unless_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("links.progress");
        let first = Progress::open(&path, &fingerprint("a"), false).unwrap();
        let run = first.run.clone();
        drop(first);
        let error = Progress::open(&path, &fingerprint("b"), false).err().unwrap().to_string();
        assert!(error.contains("started with another --endpoint"), "{error}");
        Progress::open(&path, &fingerprint("a"), false).unwrap().finish().unwrap();
        let second = Progress::open(&path, &fingerprint("b"), false).unwrap();
        assert_ne!(second.run, run);
        assert!(second.continued.is_none());
    }

    #[test]
    fn a_header_that_was_cut_off_starts_a_new_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("links.progress");
        fs::write(&path, "{\"run\":{\"id\":\"x").unwrap();
        let progress = Progress::open(&path, &fingerprint("a"), false).unwrap();
        assert!(progress.continued.is_none());
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_file_of_another_program_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("links.progress");
        for content in ["done: 7\n", "{}\n", "{\"finished\":{}"] {
            fs::write(&path, content).unwrap();
            let error = Progress::open(&path, &fingerprint("a"), false).err().unwrap().to_string();
            assert!(error.ends_with("is not a progress file: rename it"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_run_without_an_effect_leaves_no_file_unless_it_was_continued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("links.progress");
        Progress::open(&path, &fingerprint("a"), false).unwrap().discard().unwrap();
        assert!(!path.exists());
        drop(Progress::open(&path, &fingerprint("a"), false).unwrap());
        Progress::open(&path, &fingerprint("a"), false).unwrap().discard().unwrap();
        assert!(path.exists());
        // One that starts anew does not depend on how the last one was started.
        let mut progress = Progress::open(&path, &fingerprint("b"), true).unwrap();
        assert!(progress.continued.is_none());
        progress.write(&Entry::Answered(result(0))).unwrap();
        progress.discard().unwrap();
        assert!(!path.exists());
    }
}
