//! Feeding an export of the original: all of it or nothing, in one transaction.

mod collection;
mod documents;

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio::sync::mpsc;

use self::collection::{Bad, Collection};
use self::documents::Stop;
use crate::db;
use crate::db::import::{MergeCounts, RejectedRow, Stage};

/// Why an import did not come about. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be looked into.
    #[error("cannot read the folder {0}")]
    Folder(PathBuf, #[source] io::Error),
    /// It holds no collection of an export.
    #[error("{0} holds no collection of an export (cc_*.json)")]
    NoCollections(PathBuf),
    /// A file says something that is not what its collection holds.
    #[error("{file}:{line}: {reason}")]
    Unreadable {
        /// The file's name.
        file: String,
        /// The line on which the document begins, or the reading broke.
        line: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The database was to be empty and is not.
    #[error("the database holds something already")]
    NotEmpty,
    /// The reading of a file was lost to a bug of ours.
    #[error("the reading of a file broke off")]
    Lost(#[from] tokio::task::JoinError),
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// The files of an export.
#[derive(Debug)]
pub struct Export {
    files: Vec<ExportFile>,
    /// Names of files that mean nothing to us.
    pub ignored: Vec<String>,
    /// The size of the others, in bytes.
    pub bytes: u64,
}

#[derive(Debug)]
struct ExportFile {
    name: String,
    path: PathBuf,
    collection: Collection,
}

/// What became of the rows of one collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// The collection's file.
    pub file: String,
    /// Rows read.
    pub read: u64,
    /// New ones.
    pub added: u64,
    /// Stored ones that say something else now.
    pub updated: u64,
    /// Rows that could not stand.
    pub left_out: u64,
}

impl Stats {
    /// Rows that say what is stored, or what another row says.
    pub fn same(&self) -> u64 {
        self.read.saturating_sub(self.added + self.updated + self.left_out)
    }
}

/// A row that was left out, for whoever reads the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Omission<'a> {
    /// The file's name.
    pub file: &'a str,
    /// The line on which the row begins.
    pub line: u64,
    /// Why it cannot stand.
    pub reason: &'a str,
}

/// Looks for collections in a folder.
pub fn find_export(folder: &Path) -> Result<Export, Error> {
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let cannot = |error| Error::Folder(folder.to_owned(), error);
    let mut export = Export { files: Vec::new(), ignored: Vec::new(), bytes: 0 };
    for entry in entries.map_err(cannot)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = std::fs::metadata(entry.path()).ok().filter(Metadata::is_file);
        match name.strip_suffix(".json").and_then(Collection::named).zip(file) {
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

/// Reads a collection without a database: how many documents it has, none if its name means nothing to us.
/// `staged` gets the rows, a line each as COPY takes it, `left_out` those that cannot stand whatever is stored.
pub fn read_collection(
    name: &str,
    file: impl Read,
    mut staged: impl FnMut(Stage, &str),
    mut left_out: impl FnMut(Omission<'_>),
) -> Result<u64, Error> {
    let Some(collection) = Collection::named(name) else { return Ok(0) };
    let read = read(file, &collection, 0, |chunk| {
        staged(collection.stage(), &chunk.copy);
        for RejectedRow { line, reason, .. } in &chunk.left_out {
            left_out(Omission { file: name, line: *line, reason });
        }
        Ok(())
    });
    read.map_err(|broken| unreadable(name, broken))
}

fn unreadable(file: &str, (line, reason): (u64, String)) -> Error {
    Error::Unreadable { file: file.to_owned(), line, reason }
}

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many more bytes were read.
    Read(u64),
    /// Everything was read.
    Merging,
}

/// Imports the export. `advanced` hears how far it has come, `left_out` of every row that cannot stand.
pub async fn import(
    conn: &mut PgConnection,
    export: &Export,
    only_if_empty: bool,
    advanced: impl Fn(Progress),
    mut left_out: impl FnMut(Omission<'_>),
) -> Result<Vec<Stats>, Error> {
    let mut tx = conn.begin().await?;
    if only_if_empty && !db::import::is_empty(&mut tx).await? {
        return Err(Error::NotEmpty);
    }
    db::import::create_stages(&mut tx).await?;
    let mut tallies = Vec::new();
    for (number, file) in export.files.iter().enumerate() {
        let read = stage(&mut tx, number, file, &advanced).await?;
        tallies.push(Stats { file: file.name.clone(), read, ..Stats::default() });
    }
    advanced(Progress::Merging);
    db::import::begin_merging(&mut tx).await?;
    for stage in Stage::ALL {
        for MergeCounts { file, added, updated } in db::import::merge(&mut tx, stage).await? {
            if let Some(tally) = tallies.get_mut(file) {
                tally.added += added;
                tally.updated += updated;
            }
        }
    }
    db::import::for_each_left_out(&mut tx, |row: RejectedRow| {
        if let Some(tally) = tallies.get_mut(row.file) {
            tally.left_out += 1;
            left_out(Omission { file: &tally.file, line: row.line, reason: &row.reason });
        }
    })
    .await?;
    tx.commit().await?;
    Ok(tallies)
}

/// What the reading of a file hands over.
#[derive(Default)]
struct Chunk {
    /// Rows to stage.
    copy: String,
    /// Rows that were found unfit already.
    left_out: Vec<RejectedRow>,
    /// Association ids that those have.
    given_ids: Vec<i64>,
    /// How far the reading has come, in bytes.
    position: u64,
}

impl Chunk {
    fn is_large(&self) -> bool {
        self.copy.len() >= 256 << 10 || self.left_out.len() >= 1_000
    }
}

/// Reads a file on a thread of its own into its staging table; how many rows it had.
async fn stage(
    conn: &mut PgConnection,
    number: usize,
    file: &ExportFile,
    advanced: &impl Fn(Progress),
) -> Result<u64, Error> {
    let (sender, mut chunks) = mpsc::channel(2);
    let (path, collection) = (file.path.clone(), file.collection.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let file = File::open(path).map_err(|error| (0, error.to_string()))?;
        read(file, &collection, number, |chunk| sender.blocking_send(chunk).or(Err(Stop::Unwanted)))
    });

    let mut position = 0;
    while let Some(chunk) = chunks.recv().await {
        db::import::stage(conn, file.collection.stage(), chunk.copy).await?;
        if !chunk.left_out.is_empty() {
            db::import::insert_left_out(conn, &chunk.left_out, &chunk.given_ids).await?;
        }
        advanced(Progress::Read(chunk.position - position));
        position = chunk.position;
    }
    reading.await?.map_err(|broken| unreadable(&file.name, broken))
}

/// Reads a file and hands its rows to `take`; how many documents it had.
fn read(
    file: impl Read,
    collection: &Collection,
    number: usize,
    mut take: impl FnMut(Chunk) -> Result<(), Stop>,
) -> Result<u64, (u64, String)> {
    let mut rows = 0;
    let mut chunk = Chunk::default();
    let mut hand_over = |chunk: &mut Chunk| {
        let position = chunk.position;
        take(std::mem::replace(chunk, Chunk { position, ..Chunk::default() }))
    };
    let read = documents::read(file, |document, line, position| {
        rows += 1;
        chunk.position = position;
        match collection.row(&document) {
            Ok(Some(row)) => row.write_to(&mut chunk.copy, number, line),
            Ok(None) => {}
            Err(Bad::Unfit(reason)) => {
                chunk.left_out.push(RejectedRow { file: number, line, reason });
                chunk.given_ids.extend(collection.given_id(&document));
            }
            Err(Bad::Unreadable(reason)) => return Err(Stop::Unreadable(line, reason)),
        }
        if chunk.is_large() { hand_over(&mut chunk) } else { Ok(()) }
    });
    match read.and_then(|()| hand_over(&mut chunk)) {
        Err(Stop::Unreadable(line, reason)) => Err((line, reason)),
        // Nobody listens any more: whoever stopped listening knows why.
        Ok(()) | Err(Stop::Unwanted) => Ok(rows),
    }
}
