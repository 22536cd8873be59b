//! Reading a body: its bytes, and the JSON in them.
//!
//! Values are kept as they were written until their field is known, so that a number is judged by its
//! digits, a wrong type is reported with its place, and a key given twice is noticed.

use std::fmt;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::load::BodyBudget;
use crate::domain::batch::{DETAIL_LIMIT, Detail};
use crate::domain::error::{Field, RequestError, Where};
use crate::domain::request::Given;

/// How much of a body that is too large is read and dropped, so that its sender gets to read the refusal.
const DRAIN_LIMIT: usize = 8 << 20;

/// For how long the body of a request is read that is refused whatever it says.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads a body and drops it, since most clients read an answer only after they have sent everything.
pub(super) async fn discard(mut body: Body) {
    let _ = timeout(PATIENCE, drain(&mut body, 0)).await;
}

/// Reads the rest of a body of which `length` bytes were read, and drops it.
async fn drain(body: &mut Body, mut length: usize) {
    while length <= DRAIN_LIMIT
        && let Some(Ok(frame)) = body.frame().await
    {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// A body, and the room that it takes.
pub(super) struct Text<'a> {
    pub(super) text: String,
    _room: Option<SemaphorePermit<'a>>,
}

/// Reads a body of at most `limit` bytes. It is UTF-8, as JSON is.
pub(super) async fn read(
    mut body: Body,
    limit: usize,
    room: &BodyBudget,
) -> Result<Text<'_>, RequestError> {
    let (mut bytes, mut held) = (Vec::new(), None::<SemaphorePermit<'_>>);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.or(Err(RequestError::NotJson))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        let taken = if length > limit {
            Err(RequestError::BodyTooLarge(limit))
        } else {
            room.take(data.len())
        };
        match (taken, &mut held) {
            (Ok(taken), Some(held)) => held.merge(taken),
            (Ok(taken), None) => held = Some(taken),
            (Err(fault), _) => {
                drop((bytes, held));
                drain(&mut body, length).await;
                return Err(fault);
            }
        }
        bytes.extend_from_slice(&data);
    }
    let text = String::from_utf8(bytes).or(Err(RequestError::NotJson))?;
    Ok(Text { text, _room: held })
}

/// The fields of a JSON object that somebody asked for, as they were written.
pub struct Fields<'a> {
    known: &'static [&'static str],
    values: Vec<Option<&'a RawValue>>,
    twice: Option<&'static str>,
}

impl<'a> Fields<'a> {
    /// Reads `json` if it is an object; what is not `known` is checked for being JSON and dropped.
    pub fn read(json: &'a str, known: &'static [&'static str]) -> Option<Self> {
        if has_lone_surrogate(json) {
            return None;
        }
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let fields = FieldsOf(known).deserialize(&mut deserializer).ok()?;
        deserializer.end().ok()?;
        Some(fields)
    }

    /// What was written for a known key. `null` counts as absent.
    fn get(&self, key: &str) -> Option<&'a RawValue> {
        let index = self.known.iter().position(|known| *known == key)?;
        self.values.get(index).copied().flatten().filter(|value| value.get() != "null")
    }

    /// The text written for a known key; none if it is empty or no string.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.get(key).and_then(text).filter(|text| !text.is_empty())
    }

    /// What was written for a known key, if it is what was `expected`.
    fn expect<T>(
        &self,
        key: &str,
        expected: &str,
        decode: impl FnOnce(&'a RawValue) -> Option<T>,
    ) -> Result<Option<T>, Where> {
        let decode = |value| decode(value).ok_or_else(|| mismatch(value, key, expected));
        self.get(key).map(decode).transpose()
    }

    pub(super) fn refuse_twice(&self) -> Result<(), Where> {
        match self.twice {
            Some(key) => Err(Where { path: key.to_owned(), problem: "given twice".to_owned() }),
            None => Ok(()),
        }
    }
}

/// The fields of the request itself, if they are of the right types.
pub fn given(fields: &Fields<'_>) -> Result<Given, Where> {
    let text_of = |field: Field| fields.expect(field.name(), "a string", text);
    let account = |value: &RawValue| text(value).or_else(|| Some(integer(value)?.to_string()));
    fields.refuse_twice()?;
    Ok(Given {
        source_model: text_of(Field::SourceModel)?,
        target_model: text_of(Field::TargetModel)?,
        model_association: text_of(Field::ModelAssociation)?,
        details: details(fields)?,
        account: fields.expect(Field::Tenant.name(), "a string or an integer", account)?,
        ..Given::default()
    })
}

fn details(fields: &Fields<'_>) -> Result<Option<Vec<Detail>>, Where> {
    fn array(value: &RawValue) -> Option<Vec<&RawValue>> {
        serde_json::from_str(value.get()).ok()
    }
    let Some(elements) = fields.expect("details", "an array", array)? else {
        return Ok(None);
    };
    let detail = |(index, element): (usize, &&RawValue)| {
        let path = format!("details[{index}]");
        let inside = |at: Where| Where { path: format!("{path}.{}", at.path), ..at };
        if element.get() == "null" {
            return Ok(Detail::default());
        }
        let fields = Fields::read(element.get(), &["bk_inst_id", "bk_asst_inst_id"])
            .ok_or_else(|| mismatch(element, &path, "an object"))?;
        fields.refuse_twice().map_err(inside)?;
        let id = |key| fields.expect(key, "an integer", integer).map_err(inside);
        Ok(Detail { source: id("bk_inst_id")?, target: id("bk_asst_inst_id")? })
    };
    let mut details = Vec::new();
    for element in elements.iter().enumerate() {
        let detail = detail(element)?;
        // One more than is allowed says that there are too many.
        if details.len() <= DETAIL_LIMIT {
            details.push(detail);
        }
    }
    Ok(Some(details))
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// An integer by its digits: `1.0` and `1e0` are none, `-0` is one.
fn integer(value: &RawValue) -> Option<i64> {
    value.get().parse().ok()
}

fn mismatch(value: &RawValue, path: &str, expected: &str) -> Where {
    let got = match value.get().as_bytes() {
        [b'"', ..] => "a string",
        [b'{', ..] => "an object",
        [b'[', ..] => "an array",
        [b't' | b'f', ..] => "a boolean",
        _ if integer(value).is_some() => "an integer",
        number if number.iter().all(|byte| b"-0123456789".contains(byte)) => {
            "a number beyond 64 bits"
        }
        _ => "a number with a fraction or an exponent",
    };
    Where { path: path.to_owned(), problem: format!("expected {expected}, got {got}") }
}

/// Whether an escaped surrogate stands alone: no text can hold it, so this is no JSON text, and `serde_json`
/// only notices where it decodes the string. Outside of strings a backslash is refused by the parser.
fn has_lone_surrogate(json: &str) -> bool {
    let mut escapes = json.split('\\').skip(1).peekable();
    let unit = |escape: &str| u16::from_str_radix(escape.strip_prefix('u')?.get(..4)?, 16).ok();
    while let Some(escape) = escapes.next() {
        match unit(escape) {
            _ if escape.is_empty() => {
                escapes.next(); // an escaped backslash: what follows it is plain text
            }
            Some(0xD800..=0xDBFF) => {
                let low = escapes.peek().and_then(|next| unit(next));
                if escape.len() > 5 || !matches!(low, Some(0xDC00..=0xDFFF)) {
                    return true;
                }
                escapes.next();
            }
            Some(0xDC00..=0xDFFF) => return true,
            _ => {}
        }
    }
    false
}

/// Collects the known keys of an object.
struct FieldsOf(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for FieldsOf {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsOf {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let known = self.0;
        let mut fields = Fields { known, values: vec![None; known.len()], twice: None };
        while let Some(index) = map.next_key_seed(KeyOf(known))? {
            let value: &RawValue = map.next_value()?;
            let Some(slot) = index.and_then(|index| fields.values.get_mut(index)) else {
                continue;
            };
            if slot.replace(value).is_some() && fields.twice.is_none() {
                fields.twice = index.and_then(|index| known.get(index)).copied();
            }
        }
        Ok(fields)
    }
}

/// Which of the known keys a key is.
struct KeyOf(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for KeyOf {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_surrogate_is_noticed_wherever_it_stands() {
        for lone in
            [r"\ud800", r"\uDC00", r"\ud800\ud800", r"\ud800x\udc00", r"\udc00\ud800", r"\\\ud800"]
        {
            assert!(has_lone_surrogate(&format!(r#"{{"a":"{lone}"}}"#)), "{lone}");
        }
        for fine in [r"\ud83d\ude00", r"\\ud800", r"\n\u0041", "", r"\\\\ud800", r"\ud83d\ude00\n"]
        {
            assert!(!has_lone_surrogate(&format!(r#"{{"a":"{fine}"}}"#)), "{fine}");
        }
    }

    #[test]
    fn an_integer_is_digits_within_64_bits() {
        let read = |json: &str| integer(serde_json::from_str::<&RawValue>(json).unwrap());
        assert_eq!(read("9223372036854775807"), Some(i64::MAX));
        assert_eq!(read("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(read("-0"), Some(0));
        for other in ["9223372036854775808", "1.0", "1e0", "1e400", "\"1\"", "true"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
