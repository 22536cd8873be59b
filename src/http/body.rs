//! Reading the bytes of a body, within its limits, and saying what they are if not JSON.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::IgnoredAny;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::domain::error::{NotJson, RequestError};

/// The bytes of bodies that the server holds at once.
const BUDGET_BYTES: usize = 64 << 20;

/// A body over its limit is read and dropped up to this size, so that its sender gets to read the
/// answer.
const DISCARD_LIMIT: usize = 8 << 20;

/// How long a body is read if its request is refused in any case.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// A limit on the memory for request bodies: the bytes that are still available.
pub struct BodyBudget(Arc<Semaphore>);

impl Default for BodyBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_BYTES)))
    }
}

impl BodyBudget {
    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, RequestError> {
        let bytes = u32::try_from(bytes).or(Err(RequestError::Overloaded))?;
        Arc::clone(&self.0).try_acquire_many_owned(bytes).or(Err(RequestError::Overloaded))
    }
}

/// Reads a body of at most `limit` bytes before `deadline`, and takes its part of the budget.
pub(super) async fn read(
    body: Body, limit: usize, budget: &BodyBudget, deadline: Instant,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), RequestError> {
    let read = timeout_at(deadline, read_all(body, limit, budget)).await;
    read.unwrap_or(Err(RequestError::BodyTimeout))
}

async fn read_all(
    mut body: Body, limit: usize, budget: &BodyBudget,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), RequestError> {
    let (mut bytes, mut held) = (Vec::new(), budget.take(0)?);
    while let Some(frame) = body.frame().await {
        let frame = frame.or(Err(RequestError::NotJson(NotJson::Incomplete)))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        let too_large = RequestError::BodyTooLarge(limit);
        let taken = if length > limit { Err(too_large) } else { budget.take(data.len()) };
        match taken {
            Ok(taken) => held.merge(taken),
            Err(error) => {
                drop((bytes, held));
                drain(&mut body, length).await;
                return Err(error);
            }
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, held))
}

/// What a body is that could not be parsed as a JSON object.
pub(super) fn why_not_json(headers: &HeaderMap, body: &[u8]) -> NotJson {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let coding = header(header::CONTENT_ENCODING);
    match body.trim_ascii() {
        [] => return NotJson::Empty,
        _ if !["", "identity"].contains(&coding) => return NotJson::Compressed(coding.to_owned()),
        [0xEF, 0xBB, 0xBF, ..] => return NotJson::ByteOrderMark,
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [0, _, ..] | [_, 0, ..] => {
            return NotJson::WideCharacters;
        }
        _ => {}
    }
    let Ok(text) = std::str::from_utf8(body) else { return NotJson::NotUtf8 };
    // A form is told by its name and `=`: curl sends JSON with the content type of a form, too.
    let (name, _) = text.split_once('=').unwrap_or_default();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.+%[]".contains(c);
    let is_urlencoded = !name.is_empty() && name.chars().all(is_name);
    if is_urlencoded || header(header::CONTENT_TYPE).starts_with("multipart/form-data") {
        return NotJson::Form;
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Err(error) => NotJson::Syntax { line: error.line(), column: error.column() },
        Ok(_) if text.trim_ascii_start().starts_with('{') => NotJson::LoneSurrogate,
        Ok(_) => NotJson::NotAnObject,
    }
}

/// Reads a body and drops it: most clients read an answer only after they have sent everything.
pub(super) async fn discard(mut body: Body) {
    let _ = timeout(DISCARD_TIMEOUT, drain(&mut body, 0)).await;
}

/// Reads and drops the rest of a body of which `length` bytes were read.
async fn drain(body: &mut Body, mut length: usize) {
    while length <= DISCARD_LIMIT
        && let Some(Ok(frame)) = body.frame().await
    {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    #[test]
    fn the_log_says_what_a_body_is_that_is_not_a_json_object() {
        let utf16: Vec<u8> = "{\"a\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (header, body, expected) in [
            ("", &b""[..], "it is empty"),
            ("content-encoding: gzip", b" \n", "it is empty"),
            (
                "content-encoding: gzip",
                b"\x1f\x8b\x08\0",
                "it is compressed (Content-Encoding: gzip)",
            ),
            ("content-encoding: identity", b"{", "it has a syntax error at line 1, column 1"),
            ("", b"\xEF\xBB\xBF{}", "it begins with a byte order mark"),
            ("", b"\xFF\xFE{\0}\0", "it is UTF-16 or UTF-32, not UTF-8"),
            ("", &utf16, "it is UTF-16 or UTF-32, not UTF-8"),
            ("", b"\0{\0}", "it is UTF-16 or UTF-32, not UTF-8"),
            ("", b"{\"a\":\"\xFF\"}", "it is not UTF-8"),
            ("", b"\x1f\x8b\x08\0", "it is not UTF-8"),
            ("", b"bk_app_code=a&details=%5B%5D", "it is a form"),
            ("content-type: multipart/form-data; boundary=x", b"--x\r\n", "it is a form"),
            ("", b"{\n\"a\" 1}", "it has a syntax error at line 2, column 5"),
            (
                "content-type: application/x-www-form-urlencoded",
                b"{\"a=\":}",
                "it has a syntax error at line 1, column 7",
            ),
            ("", b"[1]", "it is JSON, but not an object"),
            ("", b" null ", "it is JSON, but not an object"),
            ("", b" {\"a\":\"\\ud800\"}", "it contains a surrogate without its other half"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header.split_once(": ") {
                headers.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            }
            let found = why_not_json(&headers, body).to_string();
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(body));
        }
    }
}
