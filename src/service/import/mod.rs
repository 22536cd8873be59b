//! Feeding an export of the original: all of it or nothing, in one transaction.

mod collection;
mod documents;

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio::sync::mpsc;

use self::collection::{Bad, Collection};
use self::documents::Stop;
use crate::db;
use crate::db::import::{LeftOut, Merged, Stage};

/// How much COPY text is sent at a time, in bytes.
const CHUNK: usize = 256 << 10;

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
pub struct Tally {
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

impl Tally {
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
        let metadata = std::fs::metadata(entry.path()).map_err(cannot)?;
        match name.strip_suffix(".json").and_then(Collection::named).filter(|_| metadata.is_file())
        {
            Some(collection) => {
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

/// Feeds the export. `advanced` hears of every so many bytes read, `left_out` of every row that cannot stand.
pub async fn import(
    conn: &mut PgConnection,
    export: &Export,
    only_if_empty: bool,
    advanced: impl Fn(u64),
    mut left_out: impl FnMut(Omission<'_>),
) -> Result<Vec<Tally>, Error> {
    let mut tx = conn.begin().await?;
    if only_if_empty && !db::import::is_empty(&mut tx).await? {
        return Err(Error::NotEmpty);
    }
    db::import::create_stages(&mut tx).await?;
    let mut tallies = Vec::new();
    for (number, file) in export.files.iter().enumerate() {
        let read = stage(&mut tx, number, file, &advanced).await?;
        tallies.push(Tally { file: file.name.clone(), read, ..Tally::default() });
    }
    db::import::begin_merging(&mut tx).await?;
    for stage in Stage::ALL {
        for Merged { file, added, updated } in db::import::merge(&mut tx, stage).await? {
            if let Some(tally) = tallies.get_mut(file) {
                tally.added += added;
                tally.updated += updated;
            }
        }
    }
    db::import::for_each_left_out(&mut tx, |row: LeftOut| {
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
struct Chunk {
    copy: String,
    left_out: Vec<LeftOut>,
    bytes: u64,
}

/// Reads a file on a thread of its own into its staging table; how many rows it had.
async fn stage(
    conn: &mut PgConnection,
    number: usize,
    file: &ExportFile,
    advanced: &impl Fn(u64),
) -> Result<u64, Error> {
    let (sender, mut chunks) = mpsc::channel(2);
    let (path, collection) = (file.path.clone(), file.collection.clone());
    let reading = tokio::task::spawn_blocking(move || read(&path, &collection, number, &sender));

    let mut left_out = Vec::new();
    let mut copy = db::import::stage(conn, file.collection.stage()).await?;
    while let Some(chunk) = chunks.recv().await {
        let Chunk { copy: text, left_out: unfit, bytes } = chunk;
        copy.send(text.into_bytes()).await?;
        left_out.extend(unfit);
        advanced(bytes);
    }
    match reading.await? {
        Ok(rows) => {
            copy.finish().await?;
            db::import::insert_left_out(conn, &left_out).await?;
            Ok(rows)
        }
        Err((line, reason)) => {
            copy.abort("unreadable").await?;
            Err(Error::Unreadable { file: file.name.clone(), line, reason })
        }
    }
}

fn read(
    path: &Path,
    collection: &Collection,
    number: usize,
    sender: &mpsc::Sender<Chunk>,
) -> Result<u64, (u64, String)> {
    let (mut rows, mut told) = (0, 0);
    let mut copy = String::new();
    let mut left_out = Vec::new();
    let mut hand_over = |copy: &mut String, left_out: &mut Vec<LeftOut>, position: u64| {
        let bytes = position - told;
        told = position;
        let chunk = Chunk { copy: std::mem::take(copy), left_out: std::mem::take(left_out), bytes };
        sender.blocking_send(chunk).or(Err(Stop::Unwanted))
    };
    let mut last = 0;
    let read = documents::read(path, |document, line, position| {
        rows += 1;
        last = position;
        match collection.row(&document) {
            Ok(Some(row)) => row.write_to(&mut copy, number, line),
            Ok(None) => {}
            Err(Bad::Unfit(reason)) => left_out.push(LeftOut { file: number, line, reason }),
            Err(Bad::Unreadable(reason)) => return Err(Stop::Unreadable(line, reason)),
        }
        if copy.len() + left_out.len() > CHUNK {
            hand_over(&mut copy, &mut left_out, position)?;
        }
        Ok(())
    });
    match read.and_then(|()| hand_over(&mut copy, &mut left_out, last)) {
        Err(Stop::Unreadable(line, reason)) => Err((line, reason)),
        // Nobody listens any more: whoever stopped listening knows why.
        Ok(()) | Err(Stop::Unwanted) => Ok(rows),
    }
}
