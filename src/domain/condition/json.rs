//! Reads JSON one level at a time.
//!
//! A value's parts stay raw text until they are read in turn. So the parsers of conditions decide
//! how deep they go, and text that is nested deeper costs no stack. A repeated key is found, and a
//! number of any size is read.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::error::RequestError;

/// The most parts of a list or object that are kept. Every limit on them is lower.
const PART_LIMIT: usize = 10_001;

/// A JSON value, of which the parts are raw text.
pub(super) enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(String),
    /// An array: its first elements.
    List(Vec<&'a RawValue>),
    /// An object: its first members. A key can stand more than once.
    Object(Members<'a>),
}

/// The members of an object.
pub(super) type Members<'a> = Vec<(String, &'a RawValue)>;

/// A JSON number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// An integer of 64 bits, also if it is written with a fraction of zero or an exponent.
    Integer(i64),
    /// Another number; infinite if it is too large.
    Other(f64),
}

impl<'a> Json<'a> {
    /// Reads the JSON text at `place`.
    pub(super) fn read(place: &str, json: &'a str) -> Result<Self, RequestError> {
        Self::parse(json).ok_or_else(|| RequestError::WrongType {
            path: place.to_owned(),
            problem: "not JSON".to_owned(),
        })
    }

    fn parse(json: &'a str) -> Option<Self> {
        let json = json.trim_ascii();
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let value = match json.bytes().next()? {
            b'n' => return (json == "null").then_some(Self::Null),
            b't' | b'f' => return json.parse().ok().map(Self::Boolean),
            b'"' => return serde_json::from_str(json).ok().map(Self::Text),
            b'[' => Self::List(deserializer.deserialize_seq(List).ok()?),
            b'{' => Self::Object(deserializer.deserialize_map(Object).ok()?),
            _ => return Number::parse(json).map(Self::Number),
        };
        deserializer.end().ok().map(|()| value)
    }

    /// What it is, without its value.
    pub(super) fn description(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Number(Number::Integer(_)) => "an integer",
            Self::Number(Number::Other(_)) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// Whether it is an array or an object.
    pub(super) fn is_compound(&self) -> bool {
        matches!(self, Self::List(_) | Self::Object(_))
    }
}

impl Number {
    /// Its JSON text. Numbers that are too large become the largest one.
    pub(super) fn json(self) -> String {
        match self {
            Self::Integer(integer) => integer.to_string(),
            Self::Other(number) => number.clamp(f64::MIN, f64::MAX).to_string(),
        }
    }

    fn parse(json: &str) -> Option<Self> {
        if let Ok(integer) = json.parse() {
            return Some(Self::Integer(integer));
        }
        let number: f64 = json.parse().ok()?;
        let is_integer = number.fract() == 0.0 && (-I64_BOUND..I64_BOUND).contains(&number);
        Some(if is_integer { Self::Integer(truncate(number)) } else { Self::Other(number) })
    }

    /// The smallest integer that is not less, if 64 bits have one.
    pub(super) fn ceil(self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(integer),
            Self::Other(number) if number >= I64_BOUND => None,
            Self::Other(number) => Some(truncate(number.ceil())),
        }
    }

    /// The largest integer that is not greater, if 64 bits have one.
    pub(super) fn floor(self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(integer),
            Self::Other(number) if number < -I64_BOUND => None,
            Self::Other(number) => Some(truncate(number.floor())),
        }
    }
}

/// 2⁶³: integers of 64 bits are less, and not less than its negative.
const I64_BOUND: f64 = 9_223_372_036_854_775_808.0;

#[expect(clippy::cast_possible_truncation, reason = "a number beyond 64 bits becomes the bound")]
fn truncate(number: f64) -> i64 {
    number as i64
}

/// Reads the elements of an array.
struct List;

impl<'de> Visitor<'de> for List {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() < PART_LIMIT {
            let Some(element) = seq.next_element()? else { return Ok(elements) };
            elements.push(element);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(elements)
    }
}

/// Reads the members of an object.
struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while members.len() < PART_LIMIT {
            let Some(member) = map.next_entry()? else { return Ok(members) };
            members.push(member);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_integers_whatever_their_notation() {
        for (json, integer) in [
            ("5", 5),
            ("5.0", 5),
            ("5e2", 500),
            ("-0.0", 0),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("-9223372036854775808.0", i64::MIN),
        ] {
            assert_eq!(Number::parse(json), Some(Number::Integer(integer)), "{json}");
        }
    }

    #[test]
    fn other_numbers_lie_between_integers_or_beyond_64_bits() {
        for (json, floor, ceil) in [
            ("5.5", Some(5), Some(6)),
            ("-5.5", Some(-6), Some(-5)),
            ("9223372036854775808", Some(i64::MAX), None),
            ("1e400", Some(i64::MAX), None),
            ("-1e19", None, Some(i64::MIN)),
        ] {
            let number = Number::parse(json).unwrap();
            assert_eq!((number.floor(), number.ceil()), (floor, ceil), "{json}");
        }
    }

    #[test]
    fn deep_nesting_and_long_lists_are_read() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let Some(Json::List(elements)) = Json::parse(&deep) else { panic!("a list") };
        assert_eq!(elements.len(), 1);
        let long = format!("[{}0]", "0,".repeat(100_000));
        let Some(Json::List(elements)) = Json::parse(&long) else { panic!("a list") };
        assert_eq!(elements.len(), PART_LIMIT);
    }

    #[test]
    fn text_that_is_not_json_is_refused() {
        for text in ["", "nul", "tru", "[1", "[1]x", r#"{"a":}"#, r#""\ud800""#, "x"] {
            assert!(Json::parse(text).is_none(), "{text}");
        }
    }
}
