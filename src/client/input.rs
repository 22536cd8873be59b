//! The input: a CSV file whose first two columns are the sources and the targets.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail};
use csv::{ByteRecord, Position};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::RowError;
use crate::domain::batch::DETAIL_LIMIT;
use crate::domain::instance::NAME_LIMIT;

/// How many rows of the file are a batch, also if some of them are not sent.
pub const BATCH_ROWS: u64 = DETAIL_LIMIT as u64;

/// The longest row, in bytes. A quotation mark that is not closed makes the rest of the file a row.
const ROW_LIMIT: u64 = 1 << 20;

/// What a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ColumnKind {
    /// Ids of instances.
    Ids,
    /// Names of instances.
    Names,
}

/// An instance, as a row names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// By its id.
    Id(i64),
    /// By its name.
    Name(String),
}

/// What was found out about a file before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSummary {
    /// The SHA-256 hash of its content, in hex.
    pub sha256: String,
    /// For each batch, a hash of all rows up to its end.
    pub checksums: Vec<u64>,
    /// Whether it begins with a byte order mark.
    pub has_bom: bool,
    /// The first row, if it is a header.
    pub header: Option<Vec<String>>,
    /// How many rows follow.
    pub rows: u64,
    /// How many columns the widest row has.
    pub columns: usize,
    /// What the first two columns have.
    pub kinds: [ColumnKind; 2],
}

impl FileSummary {
    /// How many batches the rows are.
    pub fn batches(&self) -> u64 {
        self.rows.div_ceil(BATCH_ROWS)
    }

    /// How many rows a batch has.
    pub fn rows_of(&self, batch: u64) -> u64 {
        self.rows.saturating_sub(batch * BATCH_ROWS).min(BATCH_ROWS)
    }
}

/// A file that is hashed as it is read.
struct HashingReader {
    file: File,
    hash: Sha256,
    /// The first bytes.
    start: Vec<u8>,
    /// How many bytes the row may still have.
    left: u64,
}

impl Read for HashingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let text = "a row is longer than 1 MiB; perhaps a quotation mark is not closed";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let length = self.file.read(buffer)?;
        let read = buffer.get(..length).unwrap_or_default();
        self.hash.update(read);
        let missing = 3_usize.saturating_sub(self.start.len());
        self.start.extend(read.iter().take(missing));
        self.left = self.left.saturating_sub(length as u64);
        Ok(length)
    }
}

/// The rows of a file, without empty ones.
pub struct Rows {
    reader: csv::Reader<HashingReader>,
    record: ByteRecord,
    hasher: DefaultHasher,
}

impl Rows {
    /// Opens a file. The header is a row, too.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let source =
            HashingReader { file, hash: Sha256::new(), start: Vec::new(), left: ROW_LIMIT };
        let mut builder = csv::ReaderBuilder::new();
        let builder = builder.has_headers(false).flexible(true).buffer_capacity(64 << 10);
        let reader = builder.from_reader(source);
        Ok(Self { reader, record: ByteRecord::new(), hasher: DefaultHasher::new() })
    }

    /// Like [`Self::open`], after the header, if there is one.
    pub fn open_after_header(path: &Path, summary: &FileSummary) -> anyhow::Result<Self> {
        let mut rows = Self::open(path)?;
        if summary.header.is_some() {
            rows.next_filled()?;
        }
        Ok(rows)
    }

    /// The next row with a cell that is not empty.
    pub fn next_filled(&mut self) -> anyhow::Result<Option<&ByteRecord>> {
        loop {
            self.reader.get_mut().left = ROW_LIMIT;
            if !self.reader.read_byte_record(&mut self.record)? {
                return Ok(None);
            }
            if self.record.iter().any(|cell| !cell.trim_ascii().is_empty()) {
                for cell in &self.record {
                    self.hasher.write(cell);
                    self.hasher.write_usize(cell.len());
                }
                self.hasher.write_usize(self.record.len());
                return Ok(Some(&self.record));
            }
        }
    }

    /// A hash of the rows that were read, which differs in other versions of this program.
    pub fn checksum(&self) -> u64 {
        self.hasher.finish()
    }

    /// The hash of what was read.
    pub fn sha256(&self) -> String {
        let hash = self.reader.get_ref().hash.clone().finalize();
        hash.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }
}

/// Reads a whole file, checks its encoding, and finds out what its columns have, unless that is
/// given.
pub fn summarize(path: &Path, given: [Option<ColumnKind>; 2]) -> anyhow::Result<FileSummary> {
    let mut rows = Rows::open(path)?;
    let mut first: Option<Vec<String>> = None;
    // How many cells after the first row are ids, and how many are not.
    let mut counts = [[0_u64; 2]; 2];
    let (mut total, mut columns) = (0_u64, 0);
    // Those without a header, and those after one.
    let mut checksums = [Vec::new(), Vec::new()];
    while let Some(row) = rows.next_filled().with_context(|| path.display().to_string())? {
        for cell in row {
            if let Err(error) = std::str::from_utf8(cell) {
                let line = row.position().map_or(0, Position::line);
                bail!("{}", wrong_encoding(path, line, cell, error.valid_up_to()));
            }
        }
        columns = columns.max(row.len());
        if first.is_none() {
            first = Some(row.iter().map(text).collect());
        } else {
            for (count, cell) in counts.iter_mut().zip(row) {
                let [ids, others] = count;
                let cell = text(cell);
                match parse_id(&cell) {
                    Some(_) => *ids += 1,
                    None if !cell.is_empty() => *others += 1,
                    None => {}
                }
            }
        }
        total += 1;
        for (header, checksums) in (0..).zip(&mut checksums) {
            if total > header && (total - header).is_multiple_of(BATCH_ROWS) {
                checksums.push(rows.checksum());
            }
        }
    }
    let first = first.unwrap_or_default();
    let (kinds, is_header) = classify(&first, counts, given);
    let row_count = total - u64::from(is_header);
    let [without_header, after_header] = checksums;
    let mut checksums = if is_header { after_header } else { without_header };
    if !row_count.is_multiple_of(BATCH_ROWS) {
        checksums.push(rows.checksum());
    }
    Ok(FileSummary {
        sha256: rows.sha256(),
        checksums,
        has_bom: rows.reader.get_ref().start == "\u{feff}".as_bytes(),
        rows: row_count,
        columns,
        kinds,
        header: is_header.then_some(first),
    })
}

/// What the columns have, and whether the first row is a header: if none of its two cells is a
/// number, and one of them is the key of an id or a name, or is in a column of ids and does not
/// begin with a digit.
fn classify(
    first: &[String], counts: [[u64; 2]; 2], given: [Option<ColumnKind>; 2],
) -> ([ColumnKind; 2], bool) {
    let cell = |column: usize| first.get(column).map(String::as_str).unwrap_or_default();
    let is_text = (0..2).all(|column| parse_id(cell(column)).is_none() && !cell(column).is_empty());
    let mut kinds = [ColumnKind::Ids; 2];
    let mut is_header = false;
    for (column, ((kind, [ids, others]), given)) in
        kinds.iter_mut().zip(counts).zip(given).enumerate()
    {
        let named = kind_of_key(cell(column)).filter(|_| is_text);
        // A file of one row has no others that decide.
        let is_names = if ids + others == 0 { named.is_none() && is_text } else { others > ids };
        let found = named.unwrap_or(if is_names { ColumnKind::Names } else { ColumnKind::Ids });
        *kind = given.unwrap_or(found);
        let is_above_ids =
            *kind == ColumnKind::Ids && !cell(column).starts_with(|c: char| c.is_numeric());
        is_header |= named.is_some() || is_above_ids && ids + others > 0;
    }
    (kinds, is_text && is_header)
}

/// What a column has according to its header.
pub fn kind_of_key(key: &str) -> Option<ColumnKind> {
    let key = key.to_lowercase();
    match key.as_str() {
        "id" => Some(ColumnKind::Ids),
        "name" | "ip" => Some(ColumnKind::Names),
        _ if key.ends_with("_id") => Some(ColumnKind::Ids),
        _ if ["_name", "_ip", "_innerip"].iter().any(|end| key.ends_with(end)) => {
            Some(ColumnKind::Names)
        }
        _ => None,
    }
}

/// The text of a cell that is UTF-8.
pub fn text(cell: &[u8]) -> String {
    String::from_utf8_lossy(cell.trim_ascii()).trim().to_owned()
}

fn parse_id(cell: &str) -> Option<i64> {
    cell.parse().ok().filter(|_| !cell.starts_with('+'))
}

/// What a row asks to link, or why it is not sent.
pub fn parse(row: &ByteRecord, kinds: [ColumnKind; 2]) -> Result<[Cell; 2], RowError> {
    let (Some(source), Some(target)) = (row.get(0), row.get(1)) else {
        return Err(RowError::unsent("too_few_columns", "the row has one column, not two"));
    };
    let parse = |cell: &[u8], kind, end| {
        let cell = text(cell);
        match kind {
            _ if cell.is_empty() => Err(RowError::unsent("empty", format!("the {end} is empty"))),
            ColumnKind::Ids => parse_id(&cell).map(Cell::Id).ok_or_else(|| {
                RowError::unsent("not_an_id", format!("the {end} is not an integer of 64 bits"))
            }),
            ColumnKind::Names if cell.len() > NAME_LIMIT => {
                let text = format!("the {end} is a name of more than {NAME_LIMIT} bytes");
                Err(RowError::unsent("name_too_long", text))
            }
            ColumnKind::Names => Ok(Cell::Name(cell)),
        }
    };
    let [of_source, of_target] = kinds;
    Ok([parse(source, of_source, "source")?, parse(target, of_target, "target")?])
}

fn wrong_encoding(path: &Path, line: u64, cell: &[u8], valid: usize) -> String {
    let seems = match cell {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it looks like UTF-16",
        _ if is_gbk(cell.get(valid..).unwrap_or_default()) => "it looks like GBK",
        _ => "its encoding is unknown",
    };
    format!("{}, line {line}: the file is not UTF-8; {seems}: save it as UTF-8", path.display())
}

/// Whether bytes could be text in GBK: ASCII, and pairs of bytes.
fn is_gbk(mut bytes: &[u8]) -> bool {
    loop {
        bytes = match bytes {
            [] => return true,
            [0..=0x7f, rest @ ..] | [0x81..=0xfe, 0x40..=0x7e | 0x80..=0xfe, rest @ ..] => rest,
            _ => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use ColumnKind::{Ids, Names};

    fn summary_of(content: &[u8]) -> anyhow::Result<FileSummary> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("links.csv");
        fs::write(&path, content).unwrap();
        summarize(&path, [None; 2])
    }

    #[test]
    fn columns_have_ids_or_names_and_a_header_is_recognized() {
        for (content, kinds, header, rows) in [
            ("1,2\n3,4\n", [Ids, Ids], false, 2),
            ("source,target\n1,2\n", [Ids, Ids], true, 1),
            ("\u{feff}源,目标\r\n1,2\r\n\r\n,,\r\n", [Ids, Ids], true, 1),
            ("sw-1,10.0.0.1\nsw-2,10.0.0.2\n", [Names, Names], false, 2),
            ("bk_inst_name,bk_host_innerip\nsw-2,10.0.0.2\n", [Names, Names], true, 1),
            ("switch,host_id\nsw-2,7\n", [Names, Ids], true, 1),
            ("name,id\n12,13\n", [Names, Ids], true, 1),
            ("sw-1,1\nsw-2,2\nsw-3,2\n17,3\n", [Names, Ids], false, 4),
            ("x1,1\n2,2\n3,3\n", [Ids, Ids], false, 3),
            ("1x,y\n2,2\n3,3\n", [Ids, Ids], true, 2),
            ("1x,2y\n2,2\n3,3\n", [Ids, Ids], false, 3),
            ("sw-1,10.0.0.1\n", [Names, Names], false, 1),
            ("source_id,target_id\n", [Ids, Ids], true, 0),
            ("7,8\n", [Ids, Ids], false, 1),
            ("", [Ids, Ids], false, 0),
        ] {
            let summary = summary_of(content.as_bytes()).unwrap();
            assert_eq!((summary.kinds, summary.rows), (kinds, rows), "{content:?}");
            assert_eq!(summary.header.is_some(), header, "{content:?}");
            assert_eq!(summary.has_bom, content.starts_with('\u{feff}'), "{content:?}");
        }
    }

    #[test]
    fn a_file_in_another_encoding_is_refused_with_its_name() {
        for (content, encoding) in [
            (&b"1,2\n\xbd\xbb\xbb\xbb\xbb\xfa,2\n"[..], "looks like GBK"),
            (b"\xff\xfe1\0,\0", "looks like UTF-16"),
            (b"1,caf\xe9\n", "encoding is unknown"),
        ] {
            let error = summary_of(content).unwrap_err().to_string();
            assert!(error.contains("not UTF-8") && error.contains(encoding), "{error}");
            assert!(error.ends_with("save it as UTF-8"), "{error}");
        }
    }

    #[test]
    fn a_quotation_mark_that_is_not_closed_does_not_fill_the_memory() {
        let content = [b"1,\"2\n".to_vec(), b"3,4\n".repeat(300_000)].concat();
        let error = format!("{:#}", summary_of(&content).unwrap_err());
        assert!(error.contains("a quotation mark is not closed"), "{error}");
        assert_eq!(summary_of(&b"3,4\n".repeat(300_000)).unwrap().rows, 300_000);
    }

    #[test]
    fn a_row_that_names_no_two_instances_is_refused() {
        let parse_row = |cells: &[&str], kinds| {
            parse(&ByteRecord::from(cells.to_vec()), kinds).map_err(|error| error.reason)
        };
        let refused = |reason: &str| Err(reason.to_owned());
        assert_eq!(parse_row(&[" 1 ", "-2", "x"], [Ids; 2]), Ok([Cell::Id(1), Cell::Id(-2)]));
        let name = Cell::Name("机 柜".to_owned());
        assert_eq!(parse_row(&[" 机 柜 ", "2"], [Names, Ids]), Ok([name, Cell::Id(2)]));
        assert_eq!(parse_row(&["1"], [Ids; 2]), refused("too_few_columns"));
        assert_eq!(parse_row(&["1", " "], [Ids; 2]), refused("empty"));
        for id in ["1.0", "1e3", "+1", "x", "9223372036854775808"] {
            assert_eq!(parse_row(&["1", id], [Ids; 2]), refused("not_an_id"), "{id}");
        }
        assert_eq!(parse_row(&[&"x".repeat(257), "1"], [Names; 2]), refused("name_too_long"));
    }
}
