//! Reads the documents of a file one by one, in bounded memory.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::collection::Document;

/// Why a file was not read to its end.
pub(super) struct ReadError {
    /// The line on which reading failed.
    pub(super) line: u64,
    pub(super) reason: String,
}

/// Passes each document of a file to `take`, with the line on which it begins and the number of
/// bytes read so far. The file holds JSON documents, as `mongoexport` writes them, or a JSON array
/// of them (`--jsonArray`). An error of `take` stops the reading and is returned.
pub(super) fn read(
    file: impl Read,
    take: impl FnMut(Document, u64, u64) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut reader = BufReader::new(file);
    let position = Position::default();
    let is_array = begins_array(&mut reader, &position)
        .map_err(|error| ReadError { line: 1, reason: error.to_string() })?;
    let skipped_lines = position.newlines.get();
    let mut json = serde_json::Deserializer::from_reader(Counting { reader, position: &position });

    let mut seed = DocumentSeed { position: &position, take, error: None };
    let result = if is_array {
        Deserializer::deserialize_seq(&mut json, &mut seed).and_then(|()| json.end())
    } else {
        // `end` fails at the first byte of another document, and does not consume it.
        let mut read = Ok(());
        while read.is_ok() && json.end().is_err() {
            read = seed.deserialize(&mut json);
        }
        read
    };
    result.map_err(|error| {
        let json_error = || {
            let reason = match error.classify() {
                Category::Eof => "the file ends inside a document".to_owned(),
                // Without the line of serde_json, which does not count the skipped lines.
                _ => error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
            };
            ReadError { line: skipped_lines + error.line() as u64, reason }
        };
        seed.error.unwrap_or_else(json_error)
    })
}

/// Skips white space, and the byte order mark that some shells add, and looks for a bracket.
fn begins_array(reader: &mut impl BufRead, position: &Position) -> io::Result<bool> {
    if reader.fill_buf()?.starts_with(b"\xEF\xBB\xBF") {
        reader.consume(3);
    }
    loop {
        match reader.fill_buf()?.first() {
            Some(space @ (b' ' | b'\t' | b'\r' | b'\n')) => {
                position.advance(std::slice::from_ref(space));
                reader.consume(1);
            }
            first => return Ok(first == Some(&b'[')),
        }
    }
}

/// What has been read of a file.
#[derive(Default)]
struct Position {
    bytes: Cell<u64>,
    newlines: Cell<u64>,
}

impl Position {
    fn advance(&self, bytes: &[u8]) {
        let newlines: u64 = bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum();
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
        self.newlines.set(self.newlines.get() + newlines);
    }

    fn line(&self) -> u64 {
        self.newlines.get() + 1
    }
}

/// A reader that counts. `serde_json` reads single bytes, so the position is exact.
struct Counting<'a, R> {
    reader: R,
    position: &'a Position,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.position.advance(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// Passes one document, or each document of an array, to `take`.
struct DocumentSeed<'a, F> {
    position: &'a Position,
    take: F,
    /// The error of `take`, which a `Deserializer` cannot return.
    error: Option<ReadError>,
}

impl<'de, F> DeserializeSeed<'de> for &mut DocumentSeed<'_, F>
where
    F: FnMut(Document, u64, u64) -> Result<(), ReadError>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F> Visitor<'de> for &mut DocumentSeed<'_, F>
where
    F: FnMut(Document, u64, u64) -> Result<(), ReadError>,
{
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let line = self.position.line();
        let document = Document::deserialize(MapAccessDeserializer::new(map))?;
        (self.take)(document, line, self.position.bytes.get()).map_err(|error| {
            self.error = Some(error);
            A::Error::custom("stopped")
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines on which documents begin, and the error.
    fn lines(content: &str) -> (Vec<u64>, Option<(u64, String)>) {
        let mut lines = Vec::new();
        let result = read(content.as_bytes(), |_, line, _| {
            lines.push(line);
            Ok(())
        });
        (lines, result.err().map(|error| (error.line, error.reason)))
    }

    #[test]
    fn documents_are_read_from_lines_and_from_an_array_in_any_layout() {
        assert_eq!(lines("{\"a\":1}\n{\"a\":2}\n\n{\"a\":3}"), (vec![1, 2, 4], None));
        assert_eq!(lines("\u{feff}[{\"a\":1},\n{\"a\":2}]\n"), (vec![1, 2], None));
        assert_eq!(lines("\n[\n{\n\"a\":1\n},{\"a\":2}\n]"), (vec![3, 5], None));
        assert_eq!(lines(""), (vec![], None));
        assert_eq!(lines("[]"), (vec![], None));
    }

    #[test]
    fn an_error_has_the_line_on_which_reading_failed() {
        let error_line = |content: &str| lines(content).1.map(|(line, _)| line);
        assert_eq!(error_line("{}\n{\"a\":\n"), Some(3));
        assert_eq!(error_line("{}\n\"x\"\n"), Some(2));
        assert_eq!(error_line("[{},\n{}"), Some(2));
        assert_eq!(error_line("[{}]\n\n{}"), Some(3));
    }
}
