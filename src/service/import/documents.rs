//! The documents of a file, one after another, however large the file.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::collection::Document;

/// Why the reading of a file stopped.
pub(super) enum Stop {
    /// The file says what cannot be read, on this line.
    Unreadable(u64, String),
    /// Whoever took the documents wants no more of them.
    Unwanted,
}

/// Hands each document of a file to `take`, with the line on which it begins and how many bytes were
/// read so far. The file is one JSON document after another, as `mongoexport` writes it, or one JSON array
/// of them (`--jsonArray`).
pub(super) fn read(
    file: impl Read,
    mut take: impl FnMut(Document, u64, u64) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let broken =
        |line: u64, error: &dyn std::fmt::Display| Stop::Unreadable(line, error.to_string());
    let mut reader = BufReader::new(file);
    let position = Position::default();
    let is_array = begins_array(&mut reader, &position).map_err(|error| broken(1, &error))?;
    let skipped = position.newlines.get();
    let mut json = serde_json::Deserializer::from_reader(Counting { reader, position: &position });

    let mut stop = None;
    let mut one = One { position: &position, take: &mut take, stop: &mut stop };
    let result = if is_array {
        Deserializer::deserialize_seq(&mut json, one).and_then(|()| json.end())
    } else {
        // `end` fails at the first byte of another document, without taking it.
        let mut read = Ok(());
        while read.is_ok() && json.end().is_err() {
            read = one.by_ref().deserialize(&mut json);
        }
        read
    };
    match (stop, result) {
        (Some(stop), _) => Err(stop),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => {
            let why = match error.classify() {
                Category::Eof => "it ends in the middle of a document".to_owned(),
                // Without serde_json's own place, which does not count what was skipped.
                _ => error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
            };
            Err(broken(skipped + error.line() as u64, &why))
        }
    }
}

/// Whether the first thing in the file is a bracket. Skips a byte order mark, which some shells add.
fn begins_array(reader: &mut impl BufRead, position: &Position) -> io::Result<bool> {
    if reader.fill_buf()?.starts_with(b"\xEF\xBB\xBF") {
        reader.consume(3);
    }
    loop {
        match reader.fill_buf()?.first() {
            Some(space @ (b' ' | b'\t' | b'\r' | b'\n')) => {
                position.pass(std::slice::from_ref(space));
                reader.consume(1);
            }
            first => return Ok(first == Some(&b'[')),
        }
    }
}

/// How far the reading has come.
#[derive(Default)]
struct Position {
    bytes: Cell<u64>,
    newlines: Cell<u64>,
}

impl Position {
    fn pass(&self, bytes: &[u8]) {
        let newlines: u64 = bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum();
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
        self.newlines.set(self.newlines.get() + newlines);
    }

    fn line(&self) -> u64 {
        self.newlines.get() + 1
    }
}

/// A reader that knows how far it has come. `serde_json` takes single bytes, so that is to the byte.
struct Counting<'a, R> {
    reader: R,
    position: &'a Position,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.position.pass(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// Takes one document, or an array of them.
struct One<'a, F> {
    position: &'a Position,
    take: &'a mut F,
    stop: &'a mut Option<Stop>,
}

impl<F> One<'_, F> {
    fn by_ref(&mut self) -> One<'_, F> {
        One { position: self.position, take: self.take, stop: self.stop }
    }
}

impl<'de, F: FnMut(Document, u64, u64) -> Result<(), Stop>> DeserializeSeed<'de> for One<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(Document, u64, u64) -> Result<(), Stop>> Visitor<'de> for One<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let line = self.position.line();
        let document = Document::deserialize(MapAccessDeserializer::new(map))?;
        (self.take)(document, line, self.position.bytes.get()).map_err(|stop| {
            *self.stop = Some(stop);
            A::Error::custom("stopped")
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.by_ref())?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines on which documents begin, and what stopped the reading.
    fn lines(content: &str) -> (Vec<u64>, Option<(u64, String)>) {
        let mut lines = Vec::new();
        let result = read(content.as_bytes(), |_, line, _| {
            lines.push(line);
            Ok(())
        });
        let stopped = match result {
            Err(Stop::Unreadable(line, why)) => Some((line, why)),
            _ => None,
        };
        (lines, stopped)
    }

    #[test]
    fn documents_come_as_lines_or_as_one_array_however_laid_out() {
        assert_eq!(lines("{\"a\":1}\n{\"a\":2}\n\n{\"a\":3}"), (vec![1, 2, 4], None));
        assert_eq!(lines("\u{feff}[{\"a\":1},\n{\"a\":2}]\n"), (vec![1, 2], None));
        assert_eq!(lines("\n[\n{\n\"a\":1\n},{\"a\":2}\n]"), (vec![3, 5], None));
        assert_eq!(lines(""), (vec![], None));
        assert_eq!(lines("[]"), (vec![], None));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        let stopped = |content: &str| lines(content).1.map(|(line, _)| line);
        assert_eq!(stopped("{}\n{\"a\":\n"), Some(3));
        assert_eq!(stopped("{}\n\"x\"\n"), Some(2));
        assert_eq!(stopped("[{},\n{}"), Some(2));
        assert_eq!(stopped("[{}]\n\n{}"), Some(3));
    }
}
