//! The document of an instance, made from an exported one.

use serde_json::{Map, Number, Value, json};
use sha2::{Digest, Sha256};

use super::documents::Document;
use super::value::{integer, time_text};
use crate::domain::instance::DOCUMENT_LIMIT;

/// A document to store, and a hash of it.
pub(super) struct StoredDocument {
    /// JSON text.
    pub(super) json: String,
    /// The same for the same document.
    pub(super) hash: i64,
}

/// The keys of hosts whose values BlueKing CMDB stores as lists and shows as text.
const HOST_LISTS: [&str; 6] = [
    "bk_host_innerip",
    "bk_host_outerip",
    "bk_host_innerip_v6",
    "bk_host_outerip_v6",
    "operator",
    "bk_bak_operator",
];

/// Makes the document of an instance. `fixed` has the keys that the instance determines. If the
/// document cannot be stored, says why.
pub(super) fn convert(
    exported: &Document, model: &str, fixed: impl IntoIterator<Item = (&'static str, Value)>,
) -> Result<StoredDocument, String> {
    let mut document = Map::new();
    for (key, value) in exported.iter().filter(|(key, _)| *key != "_id") {
        let value = match value {
            Value::Array(list) if model == "host" && HOST_LISTS.contains(&key.as_str()) => {
                json!(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","))
            }
            value => plain(value),
        };
        document.insert(key.clone(), value);
    }
    for (key, value) in fixed {
        document.insert(key.to_owned(), value);
    }
    let document = Value::Object(document);
    if let Some(path) = crate::domain::instance::find_nul(&document) {
        return Err(format!("{path} contains \\u0000: the document is left out"));
    }
    let json = document.to_string();
    if json.len() > DOCUMENT_LIMIT {
        return Err(format!("the document is larger than {DOCUMENT_LIMIT} bytes and is left out"));
    }
    let digest = Sha256::digest(&json);
    let hash = digest.first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes));
    Ok(StoredDocument { json, hash })
}

/// A value without the wrappers of `mongoexport`: a time becomes a text, a number a number.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(elements) => elements.iter().map(plain).collect(),
        Value::Object(fields) => match wrapped(fields) {
            Some(value) => value,
            None => fields.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        },
        other => other.clone(),
    }
}

/// The value in a wrapper such as `{"$date": …}`.
fn wrapped(fields: &Map<String, Value>) -> Option<Value> {
    let (key, value) = fields.iter().next().filter(|_| fields.len() == 1)?;
    match (key.as_str(), value) {
        ("$date" | "$oid", Value::String(text)) => Some(json!(text)),
        ("$date", milliseconds) => Some(json!(time_text(integer(milliseconds)?)?)),
        ("$numberLong" | "$numberInt", Value::String(digits)) => {
            digits.parse().ok().map(|number: i64| json!(number))
        }
        ("$numberDouble", Value::String(digits)) => {
            Number::from_f64(digits.parse().ok()?).map(Value::Number)
        }
        _ => None,
    }
}
