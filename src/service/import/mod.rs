//! Imports an export of BlueKing CMDB in one transaction.

mod collection;
mod documents;

use std::fmt::Display;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio::sync::mpsc;

use self::collection::{Collection, RowError};
use self::documents::ReadError;
use crate::db;
use crate::db::import::{MergeCounts, RejectedRow, Stage};

/// Why an import failed. The database is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be read.
    #[error("cannot read the folder {0}")]
    Folder(PathBuf, #[source] io::Error),
    /// The folder has no file of a known collection.
    #[error("the folder {0} has no collection of an export (cc_*.json)")]
    NoCollections(PathBuf),
    /// A file cannot be read, or does not hold the documents of its collection.
    #[error("{file}:{line}: {reason}")]
    Unreadable {
        /// The file's name.
        file: String,
        /// The line on which the document begins, or on which reading failed.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// Only an empty database was to be imported into.
    #[error("the database is not empty")]
    NotEmpty,
    /// The thread that reads a file panicked.
    #[error("the thread that reads a file failed")]
    Reader(#[from] tokio::task::JoinError),
    /// A statement failed.
    #[error("the database returned an error")]
    Database(#[from] sqlx::Error),
}

/// The files of an export.
#[derive(Debug)]
pub struct Export {
    files: Vec<ExportFile>,
    /// The names of files that are not imported.
    pub ignored: Vec<String>,
    /// The total size of the files that are imported, in bytes.
    pub bytes: u64,
}

#[derive(Debug)]
struct ExportFile {
    name: String,
    path: PathBuf,
    collection: Collection,
}

/// What an import did with the rows of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// The file's name.
    pub file: String,
    /// Rows read.
    pub read: u64,
    /// Rows that were inserted.
    pub added: u64,
    /// Rows that changed a stored row.
    pub updated: u64,
    /// Rows that were not imported.
    pub rejected: u64,
}

impl Stats {
    /// Rows that are equal to a stored row or to another row.
    pub fn unchanged(&self) -> u64 {
        self.read.saturating_sub(self.added + self.updated + self.rejected)
    }
}

/// A rejected row, as it is reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejection<'a> {
    /// The file's name.
    pub file: &'a str,
    /// The line on which the row's document begins.
    pub line: u64,
    /// Why the row is not imported.
    pub reason: &'a str,
}

/// Finds the collections of an export in a folder.
pub fn find_export(folder: &Path) -> Result<Export, Error> {
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let folder_error = |error| Error::Folder(folder.to_owned(), error);
    let mut export = Export { files: Vec::new(), ignored: Vec::new(), bytes: 0 };
    for entry in entries.map_err(folder_error)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = std::fs::metadata(entry.path()).ok().filter(Metadata::is_file);
        match name.strip_suffix(".json").and_then(Collection::from_name).zip(file) {
            Some((collection, metadata)) => {
                export.bytes += metadata.len();
                export.files.push(ExportFile { name, path: entry.path(), collection });
            }
            None => export.ignored.push(name),
        }
    }
    if export.files.is_empty() {
        return Err(Error::NoCollections(folder.to_owned()));
    }
    export
        .files
        .sort_by(|a, b| (a.collection.stage(), &a.name).cmp(&(b.collection.stage(), &b.name)));
    export.ignored.sort();
    Ok(export)
}

/// Reads a collection without a database, and returns the number of its documents. That is 0 if no
/// collection of this name is imported.
///
/// `on_rows` receives rows as input of a COPY; `on_rejection`, rows that are invalid in any database.
pub fn read_collection(
    name: &str,
    file: impl Read,
    mut on_rows: impl FnMut(Stage, &str),
    mut on_rejection: impl FnMut(Rejection<'_>),
) -> Result<u64, Error> {
    let Some(collection) = Collection::from_name(name) else { return Ok(0) };
    let read = read(file, &collection, 0, |chunk| {
        on_rows(collection.stage(), &chunk.copy);
        for RejectedRow { line, reason, .. } in &chunk.rejected {
            on_rejection(Rejection { file: name, line: *line, reason });
        }
        Ok(())
    });
    read.map_err(|error| file_error(name, error))
}

fn file_error(file: &str, ReadError { line, reason }: ReadError) -> Error {
    Error::Unreadable { file: file.to_owned(), line, reason }
}

/// The progress of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// This number of bytes was read since the last report.
    Read(u64),
    /// All files are read, and their rows are being merged.
    Merging,
}

/// Imports an export. `on_rejection` receives every row that is not imported, in the order of files
/// and lines.
pub async fn import(
    conn: &mut PgConnection,
    export: &Export,
    only_if_empty: bool,
    on_progress: impl Fn(Progress),
    mut on_rejection: impl FnMut(Rejection<'_>),
) -> Result<Vec<Stats>, Error> {
    let mut tx = conn.begin().await?;
    if only_if_empty && !db::import::is_empty(&mut tx).await? {
        return Err(Error::NotEmpty);
    }
    db::import::create_stages(&mut tx).await?;
    let mut stats = Vec::new();
    for (number, file) in export.files.iter().enumerate() {
        let read = stage(&mut tx, number, file, &on_progress).await?;
        stats.push(Stats { file: file.name.clone(), read, ..Stats::default() });
    }
    on_progress(Progress::Merging);
    db::import::begin_merging(&mut tx).await?;
    for stage in Stage::ALL {
        for MergeCounts { file, added, updated } in db::import::merge(&mut tx, stage).await? {
            if let Some(stats) = stats.get_mut(file) {
                stats.added += added;
                stats.updated += updated;
            }
        }
    }
    db::import::for_each_rejected_row(&mut tx, |row| {
        if let Some(stats) = stats.get_mut(row.file) {
            stats.rejected += 1;
            on_rejection(Rejection { file: &stats.file, line: row.line, reason: &row.reason });
        }
    })
    .await?;
    tx.commit().await?;
    Ok(stats)
}

/// A part of a file's rows.
#[derive(Default)]
struct Chunk {
    /// The rows to stage, as input of a COPY.
    copy: String,
    /// Rows that are invalid in any database.
    rejected: Vec<RejectedRow>,
    /// The association ids of the rejected rows.
    assigned_ids: Vec<i64>,
    /// The number of bytes of the file that were read.
    position: u64,
}

impl Chunk {
    fn is_large(&self) -> bool {
        self.copy.len() >= 256 << 10 || self.rejected.len() >= 1_000
    }
}

/// Reads a file on a blocking thread and stages its rows. Returns the number of its documents.
async fn stage(
    conn: &mut PgConnection,
    number: usize,
    file: &ExportFile,
    on_progress: &impl Fn(Progress),
) -> Result<u64, Error> {
    let (sender, mut chunks) = mpsc::channel(2);
    let (path, collection) = (file.path.clone(), file.collection.clone());
    let reader = tokio::task::spawn_blocking(move || {
        let read_error = |error: &dyn Display| ReadError { line: 0, reason: error.to_string() };
        let file = File::open(path).map_err(|error| read_error(&error))?;
        // Sending fails only after a database error, which is returned below instead of this one.
        let send = |chunk| sender.blocking_send(chunk).map_err(|error| read_error(&error));
        read(file, &collection, number, send)
    });

    let mut position = 0;
    while let Some(chunk) = chunks.recv().await {
        db::import::stage(conn, file.collection.stage(), chunk.copy).await?;
        if !chunk.rejected.is_empty() {
            db::import::insert_rejected_rows(conn, &chunk.rejected, &chunk.assigned_ids).await?;
        }
        on_progress(Progress::Read(chunk.position - position));
        position = chunk.position;
    }
    reader.await?.map_err(|error| file_error(&file.name, error))
}

/// Reads a file and passes its rows to `take`. Returns the number of its documents.
fn read(
    file: impl Read,
    collection: &Collection,
    number: usize,
    mut take: impl FnMut(Chunk) -> Result<(), ReadError>,
) -> Result<u64, ReadError> {
    let mut documents = 0;
    let mut chunk = Chunk::default();
    let mut pass_on = |chunk: &mut Chunk| {
        let position = chunk.position;
        take(std::mem::replace(chunk, Chunk { position, ..Chunk::default() }))
    };
    documents::read(file, |document, line, position| {
        documents += 1;
        chunk.position = position;
        match collection.row(&document) {
            Ok(Some(row)) => row.write_to(&mut chunk.copy, number, line),
            Ok(None) => {}
            Err(RowError::Invalid(reason)) => {
                chunk.rejected.push(RejectedRow { file: number, line, reason });
                chunk.assigned_ids.extend(collection.assigned_id(&document));
            }
            Err(RowError::Unreadable(reason)) => return Err(ReadError { line, reason }),
        }
        if chunk.is_large() { pass_on(&mut chunk) } else { Ok(()) }
    })?;
    pass_on(&mut chunk)?;
    Ok(documents)
}
