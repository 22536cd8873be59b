//! Imports an export of BlueKing CMDB in one transaction.

mod collection;
mod documents;
mod file_name;
mod instance_document;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::fs::Metadata;
use std::future::ready;
use std::io::{self, Read};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use futures_util::TryStreamExt;
use sqlx::PgConnection;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use self::collection::{Collection, RowError, Versions};
use self::documents::Documents;
use self::file_name::FileName;
use crate::db;
use crate::db::import::{Chunk, MergeCounts, Row, Stage};
pub use crate::db::import::{ReportedRow, has_no_instance, is_empty};
use crate::db::session;

/// Why an import failed. The database is unchanged.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum Error {
    #[error("cannot read the folder {0}")]
    Folder(PathBuf, #[source] io::Error),
    #[error("the folder {0} has no collection of an export (cc_*.json){list}", list = list(.1))]
    NoCollections(PathBuf, Vec<IgnoredFile>),
    #[error("the folder {0} has files of several databases: {1}")]
    SeveralDatabases(PathBuf, String),
    /// `line` is the one on which the document begins, or on which reading failed.
    #[error("{file}:{line}: {reason}")]
    Unreadable { file: String, line: i64, reason: String },
    #[error("the database returned an error")]
    Database(#[from] sqlx::Error),
}

impl Error {
    fn unreadable(file: &str, line: i64, reason: impl Display) -> Self {
        Self::Unreadable { file: file.to_owned(), line, reason: reason.to_string() }
    }
}

/// The files of an export.
#[derive(Debug)]
pub struct Export {
    files: Vec<ExportFile>,
    /// The files that are not imported.
    pub ignored: Vec<IgnoredFile>,
    /// The total size of the files that are imported, in bytes.
    pub bytes: u64,
}

#[derive(Debug, Clone)]
struct ExportFile {
    name: String,
    path: PathBuf,
    bytes: u64,
    collection: Collection,
    is_gzip: bool,
}

/// A file that is not imported. It is displayed as a clause, such as `x.csv is not a known
/// collection`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IgnoredFile {
    name: String,
    reason: &'static str,
}

impl Display for IgnoredFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.reason)
    }
}

/// The first ignored files, as the end of a sentence.
fn list(ignored: &[IgnoredFile]) -> String {
    const LIMIT: usize = 10;
    let mut list: Vec<_> = ignored.iter().take(LIMIT).map(ToString::to_string).collect();
    if ignored.len() > LIMIT {
        list.push(format!("and {} more", ignored.len() - LIMIT));
    }
    if list.is_empty() { String::new() } else { format!(": {}", list.join("; ")) }
}

/// What an import did with the rows of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// The file's name.
    pub file: String,
    /// Rows read.
    pub read: i64,
    /// Rows that were inserted.
    pub added: i64,
    /// Rows that changed a stored row.
    pub updated: i64,
    /// Rows that were not imported.
    pub rejected: i64,
}

impl Stats {
    /// Rows that changed nothing, such as one that equals a stored row or another row.
    pub fn unchanged(&self) -> i64 {
        self.read - self.added - self.updated - self.rejected
    }
}

/// Finds the collections of an export in a folder.
pub fn find_export(folder: &Path) -> Result<Export, Error> {
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let folder_error = |error| Error::Folder(folder.to_owned(), error);
    let mut files = Vec::new();
    let mut ignored = Vec::new();
    let mut databases = BTreeSet::new();
    for entry in entries.map_err(folder_error)? {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let metadata = std::fs::metadata(&path).ok().filter(Metadata::is_file);
        match metadata.ok_or("is not a file").and_then(|file| Ok((file, FileName::parse(&name)?))) {
            Ok((file, FileName { collection, database, is_gzip })) => {
                databases.extend(database);
                files.push(ExportFile { name, path, bytes: file.len(), collection, is_gzip });
            }
            Err(reason) => ignored.push(IgnoredFile { name, reason }),
        }
    }
    // Version 3.10 does not update the collections that it replaced.
    if files.iter().any(|file| file.collection.versions == Versions::Since310) {
        let is_outdated = |file: &mut ExportFile| file.collection.versions == Versions::Before310;
        let reason = "is a collection of BlueKing CMDB before 3.10, and the folder has later ones";
        let outdated = files.extract_if(.., is_outdated);
        ignored.extend(outdated.map(|file| IgnoredFile { name: file.name, reason }));
    }
    ignored.sort();
    if databases.len() > 1 {
        let names = databases.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Error::SeveralDatabases(folder.to_owned(), names));
    }
    if files.is_empty() {
        return Err(Error::NoCollections(folder.to_owned(), ignored));
    }
    files.sort_by_cached_key(|file| (file.collection.stage, file.name.clone()));
    let bytes = files.iter().map(|file| file.bytes).sum();
    Ok(Export { files, ignored, bytes })
}

/// Imports an export.
///
/// `open` opens a file. `on_staged` is called when all files are read and before their rows are
/// merged. `on_report` receives the name of the file and the row for each row that is not imported,
/// or not as it is in the file, in the order of files and lines.
pub async fn import<R: Read + Send + 'static>(
    conn: &mut PgConnection, export: &Export, open: impl Fn(&Path) -> io::Result<R>,
    on_staged: impl FnOnce(), mut on_report: impl FnMut(&str, &ReportedRow),
) -> Result<Vec<Stats>, Error> {
    let begin = "begin isolation level read committed read write";
    let mut tx = session::begin(conn, begin).await?;
    db::import::create_stages(&mut tx).await?;
    let mut stats = BTreeMap::new();
    for (number, file) in (0..).zip(&export.files) {
        let opened = open(&file.path).map_err(|error| Error::unreadable(&file.name, 0, error))?;
        let read = stage(&mut tx, number, file, opened).await?;
        stats.insert(number, Stats { file: file.name.clone(), read, ..Stats::default() });
    }
    on_staged();
    for MergeCounts { file, added, updated } in db::import::merge(&mut tx).await? {
        if let Some(stats) = stats.get_mut(&file) {
            stats.added = added;
            stats.updated = updated;
        }
    }
    let report = |row: ReportedRow| {
        if let Some(stats) = stats.get_mut(&row.file) {
            stats.rejected += i64::from(row.is_rejected);
            on_report(&stats.file, &row);
        }
        ready(Ok(()))
    };
    db::import::reported_rows(&mut tx).try_for_each(report).await?;
    tx.commit().await?;
    Ok(stats.into_values().collect())
}

/// Reads a file and stages its rows. Returns the number of its documents.
async fn stage(
    conn: &mut PgConnection, number: i32, file: &ExportFile, opened: impl Read + Send + 'static,
) -> Result<i64, Error> {
    let ExportFile { name, collection, is_gzip, .. } = file.clone();
    let stage = collection.stage;
    // A thread reads the next chunk while PostgreSQL stores one.
    let (sender, mut chunks) = mpsc::channel(1);
    let reading = spawn_blocking(move || {
        let content: Box<dyn Read> =
            if is_gzip { Box::new(Gunzip(MultiGzDecoder::new(opened))) } else { Box::new(opened) };
        let mut documents = Documents::new(&name, content)?;
        while let Some(chunk) = read_chunk(&mut documents, &collection, number)? {
            // The receiver is gone if a row could not be stored.
            if sender.blocking_send(chunk).is_err() {
                break;
            }
        }
        Ok(documents.count)
    });
    while let Some(chunk) = chunks.recv().await {
        db::import::copy(conn, stage, chunk).await?;
    }
    reading.await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// Decompresses a file. Its errors say so.
struct Gunzip<R>(MultiGzDecoder<R>);

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let cannot = |error| format!("cannot decompress the file: {error}");
        self.0.read(buffer).map_err(|error| io::Error::new(error.kind(), cannot(error)))
    }
}

/// Reads a collection without a database, for the fuzz tests. Returns the number of its documents,
/// 0 if no collection of this name is imported.
pub fn read_collection(
    name: &str, file: impl Read, mut on_chunk: impl FnMut(Stage, Chunk),
) -> Result<i64, Error> {
    let Some(collection) = Collection::from_name(name) else { return Ok(0) };
    let mut documents = Documents::new(name, file)?;
    while let Some(chunk) = read_chunk(&mut documents, &collection, 0)? {
        on_chunk(collection.stage, chunk);
    }
    Ok(documents.count)
}

/// The size of a chunk, in bytes.
const CHUNK_SIZE: usize = 256 << 10;

/// Reads the next part of a file that has rows, or `None` at the end.
fn read_chunk(
    documents: &mut Documents<'_, impl Read>, collection: &Collection, file: i32,
) -> Result<Option<Chunk>, Error> {
    let mut chunk = Chunk::default();
    while chunk.length() < CHUNK_SIZE {
        let Some((line, document)) = documents.read_next()? else { break };
        let mut warnings = Vec::new();
        let row = collection.row(&document, &mut |warning| warnings.push(warning));
        for warning in warnings {
            Row::default().value(warning).write_to(&mut chunk.warnings, file, line);
        }
        match row {
            Ok(Some(row)) => row.write_to(&mut chunk.rows, file, line),
            Ok(None) => {}
            Err(RowError::Invalid(reason)) => Row::default()
                .value(reason)
                .optional(collection.assigned_id(&document))
                .write_to(&mut chunk.rejected_rows, file, line),
            Err(RowError::Unreadable(reason)) => return Err(documents.error_at(line, reason)),
        }
    }
    Ok((chunk.length() > 0).then_some(chunk))
}
