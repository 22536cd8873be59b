//! Decoding JSON bodies into typed structs, exactly as written.
//!
//! Values are kept as raw text until their field's type is known. So numbers are judged by their
//! digits, a wrong type is reported with its place and never with the value that was sent, and a
//! known key that is given twice is noticed.

use std::fmt::{self, Display};

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::error::RequestError;

/// An id in a body: a JSON integer within 64 bits. `1.0` and `1e0` are none, `-0` is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Id(pub i64);

/// The known members of a JSON object, as they were written. Of a repeated key the last one counts.
pub struct JsonObject<'a> {
    members: Vec<(&'static str, &'a RawValue)>,
    given_twice: Option<&'static str>,
}

impl<'a> JsonObject<'a> {
    /// Parses `json` if it is one JSON object and nothing else. Members that are not in `known` are
    /// checked for being JSON and dropped.
    pub fn parse(json: &'a str, known: &[&'static str]) -> Option<Self> {
        if has_lone_surrogate(json) {
            return None;
        }
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let object = deserializer.deserialize_map(ObjectVisitor { known }).ok()?;
        deserializer.end().ok()?;
        Some(object)
    }

    /// Refuses a known key that is given twice.
    pub fn require_unique_keys(&self) -> Result<(), RequestError> {
        Ok(self.check_unique_keys()?)
    }

    /// Decodes the members that are fields of `T`, in the order of its fields.
    pub fn decode<T: Deserialize<'a>>(&self) -> Result<T, RequestError> {
        Ok(T::deserialize(self)?)
    }

    fn check_unique_keys(&self) -> Result<(), DecodeError> {
        match self.given_twice {
            Some(key) => Err(DecodeError::new("given twice").at_field(key)),
            None => Ok(()),
        }
    }

    fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.members.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }
}

/// The names of a struct's fields on the wire, as its `Deserialize` implementation lists them.
pub fn field_names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    let _ = T::deserialize(FieldNames(&mut names));
    names
}

/// Why a value could not be decoded, and where it is. It does not repeat the value.
#[derive(Debug, PartialEq, Eq)]
pub struct DecodeError {
    path: String,
    problem: String,
}

impl DecodeError {
    fn new(problem: impl Display) -> Self {
        Self { path: String::new(), problem: problem.to_string() }
    }

    fn at_field(self, name: &str) -> Self {
        let separator = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Self { path: format!("{name}{separator}{}", self.path), ..self }
    }

    fn at_index(self, index: usize) -> Self {
        self.at_field(&format!("[{index}]"))
    }
}

impl Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message)
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let got = match unexpected {
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Signed(_) | Unexpected::Unsigned(_) => "an integer",
            Unexpected::Str(_) => "a string",
            Unexpected::Seq => "an array",
            Unexpected::Map => "an object",
            _ => "another type",
        };
        Self::new(format_args!("expected {expected}, got {got}"))
    }

    // Without the value in `Unexpected`, which is the caller's.
    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format_args!("expected {expected}"))
    }
}

impl From<DecodeError> for RequestError {
    fn from(DecodeError { path, problem }: DecodeError) -> Self {
        Self::WrongType { path, problem }
    }
}

fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn integer(value: &RawValue) -> Option<i64> {
    value.get().parse().ok()
}

fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes() {
        b"null" => "null",
        [b'"', ..] => "a string",
        [b'{', ..] => "an object",
        [b'[', ..] => "an array",
        [b't' | b'f', ..] => "a boolean",
        _ if integer(value).is_some() => "an integer",
        number if number.iter().all(|byte| b"-0123456789".contains(byte)) => {
            "a number beyond 64 bits"
        }
        _ => "a number with a fraction or an exponent",
    }
}

/// Deserializes one raw value.
struct Value<'de>(&'de RawValue);

impl<'de> Value<'de> {
    fn mismatch(&self, expected: impl Display) -> DecodeError {
        DecodeError::new(format_args!("expected {expected}, got {}", kind(self.0)))
    }
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0.get().as_bytes() {
            [b'"', ..] => self.deserialize_string(visitor),
            [b'[', ..] => self.deserialize_seq(visitor),
            [b't' | b'f', ..] => self.deserialize_bool(visitor),
            [b'{', ..] => Err(de::Error::invalid_type(Unexpected::Map, &visitor)),
            _ => match integer(self.0) {
                Some(integer) => visitor.visit_i64(integer),
                None => Err(self.mismatch(&visitor as &dyn Expected)),
            },
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_string(string(self.0).ok_or_else(|| self.mismatch("a string"))?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_i64(integer(self.0).ok_or_else(|| self.mismatch("an integer"))?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let boolean = serde_json::from_str(self.0.get()).ok();
        visitor.visit_bool(boolean.ok_or_else(|| self.mismatch("a boolean"))?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.0.get() == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let elements: Vec<&RawValue> =
            serde_json::from_str(self.0.get()).map_err(|_| self.mismatch("an array"))?;
        visitor.visit_seq(Elements(elements.into_iter().enumerate()))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let mut deserializer = serde_json::Deserializer::from_str(self.0.get());
        let object = deserializer.deserialize_map(ObjectVisitor { known: fields });
        let object = object.map_err(|_| self.mismatch("an object"))?;
        object.check_unique_keys()?;
        object.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct map enum identifier ignored_any
    }
}

impl<'de> Deserializer<'de> for &JsonObject<'de> {
    type Error = DecodeError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_map(Members { object: self, fields: fields.iter(), current: None })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError::new("only structs are decoded from objects"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Yields the members of an object that are fields of a struct, in the order of the fields.
struct Members<'o, 'de> {
    object: &'o JsonObject<'de>,
    fields: std::slice::Iter<'static, &'static str>,
    current: Option<(&'static str, &'de RawValue)>,
}

impl<'de> MapAccess<'de> for Members<'_, 'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        self.current = self.fields.by_ref().find_map(|name| Some((*name, self.object.get(name)?)));
        let key = self.current.map(|(name, _)| BorrowedStrDeserializer::new(name));
        key.map(|key| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let (name, value) = self.current.take().ok_or_else(|| DecodeError::new("no value"))?;
        seed.deserialize(Value(value)).map_err(|error| error.at_field(name))
    }
}

/// Yields the elements of an array.
struct Elements<I>(I);

impl<'de, I: Iterator<Item = (usize, &'de RawValue)>> SeqAccess<'de> for Elements<I> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let element = self.0.next().map(|(index, value)| {
            seed.deserialize(Value(value)).map_err(|error| error.at_index(index))
        });
        element.transpose()
    }
}

/// Collects the known members of an object.
struct ObjectVisitor<'k> {
    known: &'k [&'static str],
}

impl<'de> Visitor<'de> for ObjectVisitor<'_> {
    type Value = JsonObject<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonObject<'de>, A::Error> {
        let mut object = JsonObject { members: Vec::new(), given_twice: None };
        while let Some(key) = map.next_key_seed(KnownKey(self.known))? {
            let value: &RawValue = map.next_value()?;
            let Some(key) = key else { continue };
            match object.members.iter_mut().find(|(known, _)| *known == key) {
                None => object.members.push((key, value)),
                Some(member) => {
                    member.1 = value;
                    object.given_twice.get_or_insert(key);
                }
            }
        }
        Ok(object)
    }
}

/// Reads a key if it is one of the known keys.
struct KnownKey<'k>(&'k [&'static str]);

impl<'de> DeserializeSeed<'de> for KnownKey<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KnownKey<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|known| **known == key).copied())
    }
}

/// Records the fields that a struct asks for.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = DecodeError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, DecodeError> {
        *self.0 = fields;
        Err(DecodeError::new("only the names of the fields were wanted"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError::new("not a struct"))
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
    let mut escapes = json.split('\\').skip(1).peekable();
    let unit = |escape: &str| u16::from_str_radix(escape.strip_prefix('u')?.get(..4)?, 16).ok();
    while let Some(escape) = escapes.next() {
        match unit(escape) {
            _ if escape.is_empty() => {
                escapes.next(); // an escaped backslash: plain text follows
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_surrogate_is_found_anywhere() {
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

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        id: Option<Id>,
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
            (
                r#"{"id":1.0}"#,
                "id: expected an integer, got a number with a fraction or an exponent",
            ),
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
