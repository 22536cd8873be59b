//! Instances: what a new or a changed one must be like.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde_json::{Map, Value};

use super::change_error::ChangeError;
use super::error::RequestError;

/// The largest document of an instance, in bytes of JSON text.
pub const DOCUMENT_LIMIT: usize = 64 << 10;

/// The largest stored document, in bytes of PostgreSQL's text of it, which has more blanks and may
/// have more digits. Changes can make a document grow.
pub const STORED_DOCUMENT_LIMIT: i32 = 128 << 10;

/// Refuses a document that would be larger than [`STORED_DOCUMENT_LIMIT`].
pub fn document_too_large() -> RequestError {
    RequestError::WrongType {
        path: "document".to_owned(),
        problem: format!("would be larger than {STORED_DOCUMENT_LIMIT} bytes"),
    }
}

/// Where a value contains NUL, which PostgreSQL cannot store: the path of the first text or key.
pub fn find_nul(value: &Value) -> Option<String> {
    /// The path within the value. It is put together only if there is one.
    fn find(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => text.contains('\0').then(String::new),
            Value::Array(elements) => elements
                .iter()
                .enumerate()
                .find_map(|(index, element)| Some(format!("[{index}]{}", find(element)?))),
            Value::Object(fields) => fields.iter().find_map(|(key, value)| {
                if key.contains('\0') {
                    return Some(format!(".{}", key.replace('\0', "\\u0000")));
                }
                Some(format!(".{key}{}", find(value)?))
            }),
            _ => None,
        }
    }
    find(value).map(|path| path.strip_prefix('.').unwrap_or(&path).to_owned())
}

/// The longest name of an instance, in bytes.
pub const NAME_LIMIT: usize = 256;

/// The keys that the program sets, in any document. A caller cannot.
const FIXED_KEYS: [&str; 9] = [
    "bk_obj_id",
    "bk_supplier_account",
    "create_time",
    "last_time",
    "bk_created_at",
    "bk_created_by",
    "bk_updated_at",
    "bk_updated_by",
    "_id",
];

/// The keys of the id and of the name of an instance.
#[derive(Debug, Clone, Copy)]
pub struct FixedFields {
    /// The key of the id.
    pub id: &'static str,
    /// The key of the name.
    pub name: &'static str,
}

impl FixedFields {
    /// Those of a model.
    pub fn of(model: &str) -> Self {
        let (id, name) = match model {
            "host" => ("bk_host_id", "bk_host_innerip"),
            "biz" => ("bk_biz_id", "bk_biz_name"),
            "set" => ("bk_set_id", "bk_set_name"),
            "module" => ("bk_module_id", "bk_module_name"),
            "process" => ("bk_process_id", "bk_process_name"),
            "plat" => ("bk_cloud_id", "bk_cloud_name"),
            "bk_biz_set_obj" => ("bk_biz_set_id", "bk_biz_set_name"),
            "bk_project" => ("id", "bk_project_name"),
            _ => ("bk_inst_id", "bk_inst_name"),
        };
        Self { id, name }
    }
}

/// The model of hosts, of which a name is an address in a cloud area.
pub const HOST: &str = "host";

/// What a caller sends of an instance: its keys and values.
#[derive(Debug, Clone, PartialEq)]
pub struct Attributes {
    /// The keys and values. Those that the program sets are left out.
    fields: Map<String, Value>,
    /// The name, if the key is there.
    pub name: Option<Result<String, InvalidName>>,
    /// The cloud area of a host, if the key is there.
    pub cloud_area: Option<CloudArea>,
    /// Whether it is a host with IPv6 addresses, or why what was sent are none.
    ipv6_addresses: Result<bool, InvalidName>,
}

/// The cloud area of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudArea {
    /// The one with this id.
    Id(i64),
    /// What was sent is not an integer.
    Invalid,
}

/// Why a value is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// It is null, or empty without blanks at its ends.
    #[error("the name of an instance is empty")]
    Empty,
    /// It is of another type.
    #[error("the name of an instance is not a text")]
    NotAText,
    /// It is longer than [`NAME_LIMIT`].
    #[error("the name of an instance is longer than {NAME_LIMIT} bytes")]
    TooLong,
    /// It is the name of a host, and not a list of IPv4 addresses, separated by commas.
    #[error("the name of a host is not its IPv4 addresses, separated by commas")]
    NotAddresses,
    /// It is not a list of IPv6 addresses.
    #[error("bk_host_innerip_v6 is not IPv6 addresses, separated by commas")]
    NotIpv6Addresses,
}

impl Attributes {
    /// No keys.
    pub fn empty() -> Self {
        Self { fields: Map::new(), name: None, cloud_area: None, ipv6_addresses: Ok(false) }
    }

    /// Reads the object at a place of a body, which is an instance of a model. `ignored` are the
    /// names of other fields of the body.
    pub fn parse(
        place: &str, json: &str, model: &str, ignored: &[&str],
    ) -> Result<Self, RequestError> {
        let wrong = |problem: String| RequestError::WrongType { path: place.to_owned(), problem };
        let too_long = || wrong(format!("larger than {DOCUMENT_LIMIT} bytes"));
        // A character may be written as an escape of six.
        if json.len() > DOCUMENT_LIMIT * 6 {
            return Err(too_long());
        }
        // A number beyond the range of doubles, and deep nesting, are refused here.
        let parsed = serde_json::from_str(json).map_err(|error| {
            let reason = error.to_string();
            wrong(format!("not JSON: {}", reason.split(" at line ").next().unwrap_or_default()))
        })?;
        let Value::Object(mut fields) = parsed else {
            return Err(wrong("expected an object".to_owned()));
        };
        let fixed = FixedFields::of(model);
        fields.retain(|key, _| {
            !FIXED_KEYS.contains(&key.as_str()) && key != fixed.id && !ignored.contains(&&**key)
        });
        let fields = Value::Object(fields);
        if let Some(path) = find_nul(&fields) {
            let path = if place.is_empty() { path } else { format!("{place}.{path}") };
            return Err(RequestError::WrongType { path, problem: "contains \\u0000".to_owned() });
        }
        if fields.to_string().len() > DOCUMENT_LIMIT {
            return Err(too_long());
        }
        let Value::Object(mut fields) = fields else { return Err(RequestError::Internal) };
        let mut new = Self::empty();
        if model == HOST {
            if let Some(value) = fields.get_mut("bk_host_innerip_v6").filter(|one| !is_empty(one)) {
                let addresses = parse_addresses::<Ipv6Addr>(value);
                new.ipv6_addresses = addresses
                    .map(|text| *value = text.into())
                    .map(|()| true)
                    .map_err(|_error| InvalidName::NotIpv6Addresses);
            }
            let cloud_area = fields.get("bk_cloud_id");
            new.cloud_area =
                cloud_area.map(|value| value.as_i64().map_or(CloudArea::Invalid, CloudArea::Id));
        }
        // A host with IPv6 addresses need not have others.
        let needs_none = |value: &Value| new.ipv6_addresses == Ok(true) && is_empty(value);
        new.name = fields.get_mut(fixed.name).filter(|value| !needs_none(value)).map(|value| {
            let name = match model {
                HOST => parse_addresses::<Ipv4Addr>(value),
                _ => parse_name(value),
            }?;
            *value = Value::String(name.clone());
            Ok(name)
        });
        Ok(Self { fields, ..new })
    }

    /// The keys and values, as JSON text.
    pub fn json(&self) -> String {
        serde_json::to_string(&self.fields).unwrap_or_default()
    }

    /// Adds those that were sent later.
    pub fn add(&mut self, later: Self) {
        self.fields.extend(later.fields);
        self.name = later.name.or(self.name.take());
        self.cloud_area = later.cloud_area.or(self.cloud_area);
        if later.ipv6_addresses != Ok(false) {
            self.ipv6_addresses = later.ipv6_addresses;
        }
    }

    /// The name of a new instance of a model. A host with an IPv6 address may have none.
    pub fn require_name(&self, model: &str) -> Result<Option<&str>, RequestError> {
        self.check_change()?;
        let name = self.name.as_ref().and_then(|name| name.as_deref().ok());
        if name.is_none() && self.ipv6_addresses != Ok(true) {
            return Err(RequestError::UnassignedField(FixedFields::of(model).name));
        }
        if model == HOST && self.cloud_area.is_none() {
            return Err(RequestError::UnassignedField("bk_cloud_id"));
        }
        Ok(name)
    }

    /// Refuses a wrong name or cloud area of an instance that is to be changed.
    pub fn check_change(&self) -> Result<(), RequestError> {
        let name =
            self.name.as_ref().map_or(Ok(()), |name| name.as_ref().map(drop).map_err(|why| *why));
        if let Err(why) = name.and(self.ipv6_addresses) {
            return Err(ChangeError::InvalidInstanceName(why).into());
        }
        match self.cloud_area {
            Some(CloudArea::Invalid) => Err(RequestError::InvalidField("bk_cloud_id".into())),
            Some(CloudArea::Id(_)) | None => Ok(()),
        }
    }
}

fn parse_name(value: &Value) -> Result<String, InvalidName> {
    let name = match value {
        Value::Null => "",
        Value::String(text) => text.trim(),
        _ => return Err(InvalidName::NotAText),
    };
    match name.len() {
        0 => Err(InvalidName::Empty),
        1..=NAME_LIMIT => Ok(name.to_owned()),
        _ => Err(InvalidName::TooLong),
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value == ""
}

/// Reads addresses, such as `10.0.0.1` or `10.0.0.1,10.0.0.2`.
fn parse_addresses<A: FromStr + ToString>(value: &Value) -> Result<String, InvalidName> {
    let text = value.as_str().unwrap_or_default();
    let addresses = text.split(',').map(|address| address.trim().parse::<A>());
    let addresses = addresses.collect::<Result<Vec<_>, _>>();
    let addresses = addresses.map_err(|_error| InvalidName::NotAddresses)?;
    let name = addresses.iter().map(A::to_string).collect::<Vec<_>>().join(",");
    if name.len() > NAME_LIMIT { Err(InvalidName::TooLong) } else { Ok(name) }
}
