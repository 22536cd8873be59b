//! The variables of paths at the CMDB API, which are fields of the body at the gateway API.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use serde::{Deserialize, Deserializer};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::openapi::{OneOfBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::json::RawJson;
use crate::domain::error::RequestError;

/// A variable of an endpoint's path. In a body it may be a string, or another value, of which the
/// JSON text counts: the original's gateway writes it into a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathVariable(pub(super) String);

impl PathVariable {
    /// The integer, if it is one.
    pub(super) fn integer(&self) -> Option<i64> {
        self.0.parse().ok()
    }
}

impl PartialSchema for PathVariable {
    fn schema() -> RefOr<Schema> {
        let types = OneOfBuilder::new().item(String::schema()).item(i64::schema());
        RefOr::T(types.description(Some("A text or an integer.")).build().into())
    }
}

impl ToSchema for PathVariable {}

impl<'de> Deserialize<'de> for PathVariable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let RawJson(json) = RawJson::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(&json).unwrap_or_else(|_| json.into())))
    }
}

/// The names and values of the variables of the requested path, the values as JSON strings.
pub(super) async fn variables(
    head: &mut Parts,
) -> Result<Vec<(String, Box<RawValue>)>, RequestError> {
    // It fails if a value is not UTF-8. Such a path is unknown.
    let Ok(variables) = RawPathParams::from_request_parts(head, &()).await else {
        return Err(RequestError::NotFound);
    };
    let variable = |(name, value): (&str, &str)| {
        let value = to_raw_value(value).or(Err(RequestError::NotFound))?;
        Ok((name.to_owned(), value))
    };
    variables.iter().map(variable).collect()
}
