//! Reads the documents of a file one by one. None may be longer than [`DOCUMENT_LIMIT`].

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Error;

/// The longest document, in bytes. A BSON document has at most 16 MiB, and is shorter than JSON.
const DOCUMENT_LIMIT: usize = 64 << 20;

/// How many bytes of a file are read at once.
const BUFFER_SIZE: usize = 256 << 10;

/// A document as `mongoexport` wrote it.
pub(super) type Document = Map<String, Value>;

/// A file of JSON documents, as `mongoexport` writes them, or of a JSON array of documents
/// (`--jsonArray`).
pub(super) struct Documents<'a, R> {
    name: &'a str,
    reader: BufReader<Chain<Cursor<Vec<u8>>, R>>,
    line: i64,
    document_limit: usize,
    /// The number of bytes of the current document so far.
    document_length: usize,
    /// The last bytes that a deserializer read.
    last_bytes: [u8; 2],
    is_array: bool,
    /// The number of documents read.
    pub(super) count: i64,
}

impl<'a, R: Read> Documents<'a, R> {
    pub(super) fn new(name: &'a str, mut file: R) -> Result<Self, Error> {
        let mut start = Vec::new();
        let read = file.by_ref().take(3).read_to_end(&mut start);
        read.map_err(|error| Error::unreadable(name, 1, error))?;
        if is_utf_16(&start) {
            let reason = "the file is UTF-16, not UTF-8: write it with mongoexport --out instead \
                          of >, or convert it";
            return Err(Error::unreadable(name, 1, reason));
        }
        // Some shells add a byte order mark.
        if start == b"\xEF\xBB\xBF" {
            start.clear();
        }
        let reader = BufReader::with_capacity(BUFFER_SIZE, Cursor::new(start).chain(file));
        let mut documents = Self {
            name,
            reader,
            line: 1,
            document_limit: DOCUMENT_LIMIT,
            document_length: 0,
            last_bytes: [0; 2],
            is_array: false,
            count: 0,
        };
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
        if let Some(document) = self.read_buffered()? {
            return Ok(Some((line, document)));
        }
        self.document_length = 0;
        // The deserializer reads single bytes and stops after the closing brace.
        let mut json = serde_json::Deserializer::from_reader(&mut *self);
        match Document::deserialize(&mut json) {
            Ok(document) => Ok(Some((line, document))),
            Err(error) if error.is_eof() => Err(self.error("the file ends inside a document")),
            Err(error) => {
                let line = self.line;
                if let Some(number) = self.non_finite_number() {
                    let reason =
                        format!("{number} is not JSON: export again with mongoexport 4.2 or later");
                    return Err(self.error_at(line, reason));
                }
                // Without serde_json's line, which is relative to the document.
                let reason = error.to_string();
                Err(self.error_at(line, reason.split(" at line ").next().unwrap_or_default()))
            }
        }
    }

    /// Reads the next document if it is valid and the buffer has all of it, which is faster.
    fn read_buffered(&mut self) -> Result<Option<Document>, Error> {
        let limit = self.document_limit;
        let buffer = self.fill_buf()?;
        let mut documents = serde_json::Deserializer::from_slice(buffer).into_iter();
        let Some(Ok(document)) = documents.next() else { return Ok(None) };
        let length = documents.byte_offset();
        if length > limit {
            return Ok(None);
        }
        let lines = buffer.iter().take(length).filter(|byte| **byte == b'\n').count();
        self.line += i64::try_from(lines).unwrap_or(i64::MAX);
        self.reader.consume(length);
        Ok(Some(document))
    }

    /// `NaN` or `Infinity`, if the deserializer stopped there. It has read a sign, the first
    /// letter, or the first two letters after a `-`.
    fn non_finite_number(&mut self) -> Option<&'static str> {
        let mut near = self.last_bytes.to_vec();
        self.reader.by_ref().take(8).read_to_end(&mut near).ok()?;
        let is_at =
            |number: &&str| near.windows(number.len()).take(3).any(|w| w == number.as_bytes());
        ["NaN", "Infinity"].into_iter().find(is_at)
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
        self.document_length += length;
        if self.document_length > self.document_limit {
            let limit = self.document_limit;
            return Err(io::Error::other(format!("the document is longer than {limit} bytes")));
        }
        for byte in buffer.iter().take(length) {
            self.line += i64::from(*byte == b'\n');
            self.last_bytes = [self.last_bytes[1], *byte];
        }
        Ok(length)
    }
}

/// Whether a file that starts like this is UTF-16: it has a byte order mark, or one byte of its
/// first character is NUL.
fn is_utf_16(start: &[u8]) -> bool {
    matches!(start, [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [0, 1..=255, ..] | [1..=255, 0, ..])
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

    /// The message of the error that reading the file ends with.
    fn error(content: &[u8]) -> String {
        let read = || {
            let mut documents = Documents::new("file", content)?;
            while documents.read_next()?.is_some() {}
            Ok::<_, Error>(())
        };
        read().unwrap_err().to_string()
    }

    #[test]
    fn a_document_has_a_limited_length() {
        let mut documents =
            Documents::new("file", &b"{\"a\":\"123\"}\n{\"a\":\"1234\"}"[..]).unwrap();
        documents.document_limit = 11;
        assert!(documents.read_next().unwrap().is_some());
        let error = documents.read_next().unwrap_err().to_string();
        assert_eq!(error, "file:2: the document is longer than 11 bytes");
    }

    #[test]
    fn utf_16_is_named_as_such() {
        let little_endian: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big_endian: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let marked = |mark: &[u8], content: &[u8]| [mark, content].concat();
        for content in [
            marked(b"\xFF\xFE", &little_endian),
            marked(b"\xFE\xFF", &big_endian),
            little_endian,
            big_endian,
        ] {
            assert!(error(&content).starts_with("file:1: the file is UTF-16, not UTF-8"));
        }
    }

    #[test]
    fn a_number_that_is_not_finite_is_named_as_such() {
        for (content, number) in [
            ("{\"a\":NaN}", "NaN"),
            ("{\"a\": [1, -NaN]}", "NaN"),
            ("{\"a\":Infinity}", "Infinity"),
            ("{\"a\":-Infinity}", "Infinity"),
            ("{\"a\":{\"b\":+Infinity}}", "Infinity"),
        ] {
            let expected = format!("file:2: {number} is not JSON: export again");
            let message = error(format!("{{}}\n{content}\n").as_bytes());
            assert!(message.starts_with(&expected), "{message}");
        }
        assert_eq!(error(b"{\"NaN\":x}"), "file:1: expected value");
    }
}
