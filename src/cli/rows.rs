//! Rows on stdin: lines, JSON lines and CSV. No more than a row is held in memory.

use std::io::{self, BufRead, Read};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::domain::instance::DOCUMENT_LIMIT;

/// The longest row, in bytes. A JSON line may have escapes and blanks.
const ROW_LIMIT: usize = DOCUMENT_LIMIT * 2;

const TOO_LONG: &str = "longer than 128 KiB";

/// What rows look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A row of keys, then a row of values for each instance. Empty values are left out
    Csv,
    /// A line with a JSON object for each instance
    Jsonl,
}

/// A row with its number from 1: of a line, or of a row in a spreadsheet; its content, or why it
/// cannot be used.
pub(super) type Row<T> = (u64, Result<T, String>);

/// The lines of an input.
pub(super) struct Lines<R> {
    input: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, number: 0 }
    }

    /// The next line that is not empty, without its ending.
    pub(super) fn next_filled(&mut self) -> io::Result<Option<Row<String>>> {
        while let Some((number, line)) = self.next()? {
            let line = line.map(|line| without_ending(&line).to_owned());
            if line.as_ref().map_or(true, |line| !line.trim().is_empty()) {
                return Ok(Some((number, line)));
            }
        }
        Ok(None)
    }

    /// The next line, with its ending.
    fn next(&mut self) -> io::Result<Option<Row<String>>> {
        let mut line = Vec::new();
        let limit = u64::try_from(ROW_LIMIT).unwrap_or(u64::MAX) + 1;
        if self.input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.len() > ROW_LIMIT {
            if !line.ends_with(b"\n") {
                self.input.skip_until(b'\n')?;
            }
            return Ok(Some((self.number, Err(TOO_LONG.to_owned()))));
        }
        let mut text = String::from_utf8(line).or(Err("not UTF-8".to_owned()));
        if let Ok(text) = &mut text
            && self.number == 1
            && text.starts_with('\u{feff}')
        {
            text.remove(0);
        }
        Ok(Some((self.number, text)))
    }
}

/// A line without its ending.
fn without_ending(line: &str) -> &str {
    let text = line.strip_suffix('\n').unwrap_or(line);
    text.strip_suffix('\r').unwrap_or(text)
}

/// Rows of JSON lines or of CSV, as JSON text.
pub(super) enum Documents<R> {
    Jsonl(Lines<R>),
    Csv(Box<csv::Reader<R>>),
}

impl<R: BufRead> Documents<R> {
    /// Reads the keys, if the format has them.
    pub(super) fn new(input: R, format: Format) -> anyhow::Result<Self> {
        if format == Format::Jsonl {
            return Ok(Self::Jsonl(Lines::new(input)));
        }
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
        let keys = reader.headers().context("the row of keys")?;
        if keys.is_empty() {
            bail!("there is no row of keys");
        }
        for (column, key) in keys.iter().enumerate() {
            if key.is_empty() {
                bail!("column {} has no key", column + 1);
            }
            if keys.iter().skip(column + 1).any(|other| other == key) {
                bail!("two columns have the key {key:?}");
            }
        }
        Ok(Self::Csv(Box::new(reader)))
    }

    /// The next row.
    pub(super) fn next(&mut self) -> io::Result<Option<Row<String>>> {
        let reader = match self {
            Self::Jsonl(lines) => return lines.next_filled(),
            Self::Csv(reader) => reader,
        };
        let mut cells = csv::ByteRecord::new();
        if !reader.read_byte_record(&mut cells)? {
            return Ok(None);
        }
        let number = cells.position().map_or(0, csv::Position::record) + 1;
        Ok(Some((number, object(reader.headers()?, cells))))
    }
}

/// The JSON object of a row of CSV. Empty values are left out.
fn object(keys: &csv::StringRecord, cells: csv::ByteRecord) -> Result<String, String> {
    if cells.as_slice().len() > ROW_LIMIT {
        return Err(TOO_LONG.to_owned());
    }
    if cells.len() != keys.len() {
        return Err(format!("{} values for {} keys", cells.len(), keys.len()));
    }
    let cells = csv::StringRecord::from_byte_record(cells).or(Err("not UTF-8".to_owned()))?;
    let filled = keys.iter().zip(&cells).filter(|(_, cell)| !cell.is_empty());
    let fields = filled.map(|(key, cell)| (key.to_owned(), Value::from(cell)));
    Ok(Value::Object(fields.collect::<Map<_, _>>()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of an input. A refusal is its text.
    fn read(format: Format, input: &[u8]) -> Vec<(u64, String)> {
        let mut documents = Documents::new(input, format).unwrap();
        let mut rows = Vec::new();
        while let Some((number, row)) = documents.next().unwrap() {
            rows.push((number, row.unwrap_or_else(|problem| problem)));
        }
        rows
    }

    #[track_caller]
    fn assert_rows(format: Format, input: impl AsRef<[u8]>, expected: &[(u64, &str)]) {
        let rows = read(format, input.as_ref());
        let rows: Vec<_> = rows.iter().map(|(number, row)| (*number, row.as_str())).collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_row_of_csv_becomes_an_object_of_texts_without_empty_values() {
        assert_rows(
            Format::Csv,
            "\u{feff}a,b\r\n1,\r\n\r\n\"x, \"\"y\"\"\",\"\"\n\"two\r\nlines\",机柜\n,",
            &[
                (2, r#"{"a":"1"}"#),
                (3, r#"{"a":"x, \"y\""}"#),
                (4, r#"{"a":"two\r\nlines","b":"机柜"}"#),
                (5, "{}"),
            ],
        );
        assert_rows(Format::Csv, "a\n\"\"\n", &[(2, "{}")]);
        assert_rows(Format::Csv, "a\n", &[]);
    }

    #[test]
    fn a_row_of_csv_with_other_columns_is_refused_and_the_next_one_is_read() {
        assert_rows(
            Format::Csv,
            b"a,b\n1\n1,2,3\n\xff,2\n3,4\n",
            &[
                (2, "1 values for 2 keys"),
                (3, "3 values for 2 keys"),
                (4, "not UTF-8"),
                (5, r#"{"a":"3","b":"4"}"#),
            ],
        );
    }

    #[test]
    fn a_row_that_is_too_long_is_refused_and_the_next_one_is_read() {
        let long = "x".repeat(ROW_LIMIT);
        let row = |text: &str| format!("{text}\n");
        let next = (3, "{}");
        assert_rows(Format::Jsonl, format!("\n{}{{}}", row(&long)), &[(2, TOO_LONG), next]);
        let fits = "x".repeat(ROW_LIMIT - 1);
        assert_rows(Format::Jsonl, row(&fits), &[(1, &*fits)]);
        let rows = [(2, TOO_LONG), (3, r#"{"a":"1"}"#)];
        assert_rows(Format::Csv, format!("a\n{}1\n", row(&(long + "x"))), &rows);
    }

    #[test]
    fn lines_that_are_empty_are_skipped_and_counted() {
        assert_rows(
            Format::Jsonl,
            b"\n {\"a\":1} \r\n\n\xff\n[]",
            &[(2, " {\"a\":1} "), (4, "not UTF-8"), (5, "[]")],
        );
        assert_rows(Format::Jsonl, "", &[]);
    }

    #[test]
    fn the_row_of_keys_is_required_and_its_keys_are_distinct() {
        for (input, problem) in [
            ("", "there is no row of keys"),
            ("\n\n", "there is no row of keys"),
            ("a,,b\n", "column 2 has no key"),
            ("\na,b,a\n", "two columns have the key \"a\""),
        ] {
            let error = Documents::new(input.as_bytes(), Format::Csv).err().unwrap();
            assert_eq!(error.to_string(), problem);
        }
    }
}
