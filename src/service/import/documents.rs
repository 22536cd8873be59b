//! Reads the documents of a file one by one, in bounded memory.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Read};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Error;

/// A document as `mongoexport` wrote it.
pub(super) type Document = Map<String, Value>;

/// A file of JSON documents, as `mongoexport` writes them, or of a JSON array of documents
/// (`--jsonArray`).
pub(super) struct Documents<'a, R> {
    name: &'a str,
    reader: BufReader<R>,
    line: i64,
    is_array: bool,
    /// The number of documents read.
    pub(super) count: i64,
}

impl<'a, R: Read> Documents<'a, R> {
    pub(super) fn new(name: &'a str, file: R) -> Result<Self, Error> {
        let reader = BufReader::new(file);
        let mut documents = Self { name, reader, line: 1, is_array: false, count: 0 };
        // Some shells add a byte order mark.
        if documents.fill_buf()?.starts_with(b"\xEF\xBB\xBF") {
            documents.reader.consume(3);
        }
        documents.is_array = documents.skip(b'[')?;
        Ok(documents)
    }

    /// Reads the next document. Returns it with the line on which it begins.
    pub(super) fn read_next(&mut self) -> Result<Option<(i64, Document)>, Error> {
        if self.is_array && self.skip(b']')? {
            self.is_array = false;
            if self.peek()?.is_some() {
                return Err(self.error("trailing characters"));
            }
        } else if self.is_array && self.count > 0 && !self.skip(b',')? {
            return Err(self.error("expected `,` or `]` after a document"));
        }
        let next = self.peek()?;
        if next.is_none() && !self.is_array {
            return Ok(None);
        }
        self.count += 1;
        let line = self.line;
        // The deserializer reads single bytes and stops after the closing brace.
        let mut json = serde_json::Deserializer::from_reader(&mut *self);
        match Document::deserialize(&mut json) {
            Ok(document) => Ok(Some((line, document))),
            Err(error) if error.is_eof() => Err(self.error("the file ends inside a document")),
            Err(error) => {
                // Without serde_json's line, which is relative to the document.
                let reason = error.to_string();
                Err(self.error(reason.split(" at line ").next().unwrap_or_default()))
            }
        }
    }

    /// Skips white space, and then `byte` if it is next. Returns whether it was.
    fn skip(&mut self, byte: u8) -> Result<bool, Error> {
        let is_next = self.peek()? == Some(byte);
        if is_next {
            self.reader.consume(1);
        }
        Ok(is_next)
    }

    /// Skips white space and returns the next byte.
    fn peek(&mut self) -> Result<Option<u8>, Error> {
        loop {
            let next = self.fill_buf()?.first().copied();
            let Some(space @ (b' ' | b'\t' | b'\r' | b'\n')) = next else { return Ok(next) };
            self.line += i64::from(space == b'\n');
            self.reader.consume(1);
        }
    }

    fn fill_buf(&mut self) -> Result<&[u8], Error> {
        let (name, line) = (self.name, self.line);
        self.reader.fill_buf().map_err(|error| Error::unreadable(name, line, error))
    }

    fn error(&self, reason: &str) -> Error {
        self.error_at(self.line, reason)
    }

    /// An error in this file.
    pub(super) fn error_at(&self, line: i64, reason: impl Display) -> Error {
        Error::unreadable(self.name, line, reason)
    }
}

/// Counts the lines that a deserializer reads.
impl<R: Read> Read for Documents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.line += buffer.iter().take(length).map(|byte| i64::from(*byte == b'\n')).sum::<i64>();
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines on which documents begin, and the line of the error.
    fn lines(content: &str) -> (Vec<i64>, Option<i64>) {
        let mut documents = Documents::new("", content.as_bytes()).unwrap();
        let mut lines = Vec::new();
        loop {
            match documents.read_next() {
                Ok(Some((line, _))) => lines.push(line),
                Ok(None) => return (lines, None),
                Err(Error::Unreadable { line, .. }) => return (lines, Some(line)),
                Err(error) => panic!("{error}"),
            }
        }
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
        assert_eq!(lines("{}\n{\"a\":\n"), (vec![1], Some(3)));
        assert_eq!(lines("{}\n\"x\"\n"), (vec![1], Some(2)));
        assert_eq!(lines("[{},\n{}"), (vec![1, 2], Some(2)));
        assert_eq!(lines("[{}]\n\n{}"), (vec![1], Some(3)));
        assert_eq!(lines("[{},\n]"), (vec![1], Some(2)));
        assert_eq!(lines("[{}\n{}]"), (vec![1], Some(2)));
    }
}
