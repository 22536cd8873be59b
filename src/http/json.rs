//! Decoding JSON bodies into typed structs, without converting their values.
//!
//! Values stay raw text until their field's type is known. So `1.0` is not taken for an integer, a
//! wrong type is reported with its place and without its value, and a repeated key is found.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    Deserializer, Error as _, Expected, IntoDeserializer, MapAccess, Unexpected, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::error::RequestError;

/// A JSON integer of 64 bits; `1.0` and `1e0` are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Integer(pub i64);

/// The text of a value in a body, whatever its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawJson(pub Box<str>);

/// The name by which [`RawJson`] asks for the text of a value.
const RAW_JSON: &str = "RawJson";

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = RawJson;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_str<E: serde::de::Error>(self, json: &str) -> Result<RawJson, E> {
                Ok(RawJson(json.into()))
            }
        }

        deserializer.deserialize_newtype_struct(RAW_JSON, Text)
    }
}

/// The known members of a JSON object. If a key is repeated, its last value.
#[derive(Clone)]
pub struct JsonObject<'a> {
    /// Every known key, and its value if the object has it.
    members: Vec<(&'static str, Option<Value<'a>>)>,
    given_twice: Option<&'static str>,
}

impl<'a> JsonObject<'a> {
    /// Parses `json` if it is one JSON object and nothing else. Members that are not in `known` are
    /// checked for being JSON and dropped.
    pub fn parse(json: &'a str, known: &[&'static str]) -> Option<Self> {
        if has_lone_surrogate(json) { None } else { Self::read(json, known) }
    }

    fn read(json: &'a str, known: &[&'static str]) -> Option<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let object = deserializer.deserialize_map(ObjectVisitor(known)).ok()?;
        deserializer.end().ok()?;
        Some(object)
    }

    /// Sets the value of a known key, instead of the one that the object has.
    pub(super) fn set(&mut self, name: &str, value: &'a RawValue) {
        if let Some((_, member)) = self.members.iter_mut().find(|(key, _)| *key == name) {
            *member = Some(Value(value));
        }
    }

    /// Whether a known key has a value other than null.
    pub(super) fn has(&self, name: &str) -> bool {
        let member = self.present_members().find(|(key, _)| *key == name);
        member.is_some_and(|(_, value)| value.0.get() != "null")
    }

    /// Refuses a known key that is given twice.
    pub fn require_unique_keys(&self) -> Result<(), RequestError> {
        self.given_twice.map_or(Ok(()), |key| Err(wrong_type("", Problem::duplicate_field(key))))
    }

    /// Decodes the members that are fields of `T`, in the order of the known keys.
    pub fn decode<T: Deserialize<'a>>(&self) -> Result<T, RequestError> {
        let members = || MapDeserializer::new(self.present_members());
        // To know the path of an error takes a third longer, so only errors are decoded with it.
        T::deserialize(members()).or_else(|_: Problem| {
            serde_path_to_error::deserialize(members()).map_err(|error| {
                let path = error.path().to_string();
                wrong_type(&path, error.into_inner())
            })
        })
    }

    fn present_members(&self) -> impl Iterator<Item = (&'static str, Value<'a>)> {
        self.members.iter().filter_map(|(key, value)| Some((*key, (*value)?)))
    }
}

/// The names of a struct's fields on the wire, as its `Deserialize` implementation lists them.
pub fn field_names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // The result is always an error, after the names were stored.
    let _ = T::deserialize(FieldNames(&mut names));
    names
}

fn wrong_type(path: &str, Problem { key, text }: Problem) -> RequestError {
    let path = [path, key].into_iter().filter(|part| !["", "."].contains(part));
    RequestError::WrongType { path: path.collect::<Vec<_>>().join("."), problem: text }
}

/// Why a value cannot be decoded, without the value, which is the caller's.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Problem {
    /// The repeated key, which is not part of the place; else empty.
    key: &'static str,
    text: String,
}

impl serde::de::Error for Problem {
    fn custom<T: Display>(text: T) -> Self {
        Self { key: "", text: text.to_string() }
    }

    fn duplicate_field(key: &'static str) -> Self {
        Self { key, text: "given twice".to_owned() }
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {expected}"))
    }
}

/// A raw value.
#[derive(Clone, Copy)]
struct Value<'de>(&'de RawValue);

impl<'de> Value<'de> {
    /// Parses the value, or says that it is not what was expected.
    fn parse<T: Deserialize<'de>>(self, expected: &str) -> Result<T, Problem> {
        serde_json::from_str(self.0.get()).ok().ok_or_else(|| self.mismatch(&expected))
    }

    fn integer(self) -> Option<i64> {
        self.0.get().parse().ok()
    }

    fn mismatch(self, expected: &dyn Expected) -> Problem {
        let got = match self.0.get().as_bytes() {
            b"null" => "null",
            [b'"', ..] => "a string",
            [b'{', ..] => "an object",
            [b'[', ..] => "an array",
            [b't' | b'f', ..] => "a boolean",
            _ if self.integer().is_some() => "an integer",
            number if number.iter().all(|byte| b"-0123456789".contains(byte)) => {
                "a number beyond 64 bits"
            }
            _ => "a number with a fraction or an exponent",
        };
        Problem::custom(format_args!("expected {expected}, got {got}"))
    }
}

impl<'de> IntoDeserializer<'de, Problem> for Value<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.integer() {
            Some(integer) => visitor.visit_i64(integer),
            None if self.0.get().starts_with('"') => self.deserialize_string(visitor),
            None => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_string(self.parse("a string")?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_bool(self.parse("a boolean")?)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self, name: &'static str, visitor: V,
    ) -> Result<V::Value, Problem> {
        match name {
            RAW_JSON => visitor.visit_str(self.0.get()),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_i64(self.integer().ok_or_else(|| self.mismatch(&"an integer"))?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        if self.0.get() == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let elements: Vec<&RawValue> = self.parse("an array")?;
        visitor.visit_seq(SeqDeserializer::new(elements.into_iter().map(Value)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self, _: &'static str, fields: &'static [&'static str], visitor: V,
    ) -> Result<V::Value, Problem> {
        let object = JsonObject::read(self.0.get(), fields);
        let object = object.ok_or_else(|| self.mismatch(&"an object"))?;
        match object.given_twice {
            Some(key) => Err(Problem::duplicate_field(key)),
            None => visitor.visit_map(MapDeserializer::new(object.present_members())),
        }
    }

    /// An object with any keys.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let members: BTreeMap<String, &RawValue> = self.parse("an object")?;
        let members = members.into_iter().map(|(key, value)| (key, Value(value)));
        visitor.visit_map(MapDeserializer::new(members))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }

    // Bodies have no other types.
    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier
    }
}

/// Collects the known members of an object.
struct ObjectVisitor<'k>(&'k [&'static str]);

impl<'de> Visitor<'de> for ObjectVisitor<'_> {
    type Value = JsonObject<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonObject<'de>, A::Error> {
        let members = self.0.iter().map(|key| (*key, None)).collect();
        let mut object = JsonObject { members, given_twice: None };
        while let Some(Key(key)) = map.next_key()? {
            let value = Value(map.next_value()?);
            let member = object.members.iter_mut().find(|(known, _)| *known == key);
            if let Some((known, slot)) = member
                && slot.replace(value).is_some()
            {
                object.given_twice.get_or_insert(known);
            }
        }
        Ok(object)
    }
}

/// A key, copied only if it holds escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Records the fields that a struct asks for.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = Problem;

    fn deserialize_struct<V: Visitor<'de>>(
        self, _: &'static str, fields: &'static [&'static str], visitor: V,
    ) -> Result<V::Value, Problem> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Problem> {
        Err(Problem::custom("only the names of fields are wanted"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Whether a string holds an escaped surrogate without its other half. Such text cannot be decoded,
/// so it is not JSON here, but `serde_json` notices it only in strings that it decodes. Outside of
/// strings the parser refuses backslashes.
fn has_lone_surrogate(json: &str) -> bool {
    if !json.contains('\\') {
        return false;
    }
    let without_backslashes = json.replace(r"\\", " ");
    let units = without_backslashes.split(r"\u").skip(1).flat_map(|escape| {
        let unit = escape.get(..4).and_then(|digits| u16::from_str_radix(digits, 16).ok());
        // Text after the digits separates them from the next escape.
        let separator = (escape.len() > 4).then_some(0);
        unit.into_iter().chain(separator)
    });
    char::decode_utf16(units).any(|unit| unit.is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_surrogate_is_found_anywhere() {
        let is_found = |text: &str| has_lone_surrogate(&format!(r#"{{"a":"{text}"}}"#));
        for lone in r"\ud800 \uDC00 \ud800\ud800 \ud800x\udc00 \udc00\ud800 \\\ud800".split(' ') {
            assert!(is_found(lone), "{lone}");
        }
        for fine in r"\ud83d\ude00 \\ud800 \n\u0041 \\\\ud800 \ud83d\ude00\n x".split(' ') {
            assert!(!is_found(fine), "{fine}");
        }
    }

    #[test]
    fn an_integer_is_digits_within_64_bits() {
        let read = |json: &str| Value(serde_json::from_str(json).unwrap()).integer();
        assert_eq!(read("9223372036854775807"), Some(i64::MAX));
        assert_eq!(read("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(read("-0"), Some(0));
        for other in ["9223372036854775808", "1.0", "1e0", "1e400", "\"1\"", "true"] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        id: Option<Integer>,
        inner: Option<Vec<Option<Inner>>>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        name: Option<String>,
    }

    fn decode(json: &str) -> Result<Outer, String> {
        let object = JsonObject::parse(json, field_names::<Outer>()).unwrap();
        object.require_unique_keys().and_then(|()| object.decode()).map_err(|e| e.to_string())
    }

    #[test]
    fn absent_null_and_unknown_members_are_accepted() {
        let decoded = decode(r#"{"inner":[null,{"name":"a","x":1,"x":2},{}],"X":1e400}"#).unwrap();
        let inner = |name: Option<&str>| Some(Inner { name: name.map(str::to_owned) });
        let inner = Some(vec![None, inner(Some("a")), inner(None)]);
        assert_eq!(decoded, Outer { id: None, inner });
    }

    #[test]
    fn a_wrong_type_is_reported_with_its_place_and_without_its_value() {
        for (json, problem) in [
            (r#"{"inner":[{"name":7}],"id":"x"}"#, "id: expected an integer, got a string"),
            (r#"{"inner":[{},{"name":7}]}"#, "inner[1].name: expected a string, got an integer"),
            (r#"{"inner":[{},["a"]]}"#, "inner[1]: expected an object, got an array"),
            (r#"{"inner":{}}"#, "inner: expected an array, got an object"),
            (r#"{"inner":[{"name":"a","name":"b"}]}"#, "inner[0].name: given twice"),
            (r#"{"id":"x","inner":null,"inner":null}"#, "inner: given twice"),
        ] {
            assert_eq!(decode(json), Err(problem.to_owned()));
        }
    }
}
