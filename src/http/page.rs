//! The part of a list that a caller wants (`page`).

use serde::Deserialize;
use utoipa::ToSchema;

use super::json::Integer;
use crate::domain::condition::Field;
use crate::domain::error::RequestError;
use crate::domain::sort::{self, SortField};

/// A part of a list.
#[derive(Default, Deserialize, ToSchema)]
pub(super) struct Page {
    /// How many rows to skip; 0 by default.
    start: Option<Integer>,
    /// The most rows to return.
    limit: Option<Integer>,
    /// The fields to sort by, separated by commas. `-` before a field makes it descend. Rows that
    /// are equal in them are in the order of their ids.
    #[schema(examples("-id"))]
    sort: Option<String>,
    /// Has no effect.
    #[serde(rename = "enable_count")]
    _enable_count: Option<bool>,
}

impl Page {
    /// How many rows to skip.
    pub(super) fn start(&self) -> Result<i64, RequestError> {
        not_negative(self.start, "page.start")
    }

    /// The most rows to return; 0 if the caller gave none.
    pub(super) fn limit(&self) -> Result<i64, RequestError> {
        not_negative(self.limit, "page.limit")
    }

    /// The fields to sort by.
    pub(super) fn sort<F: Field>(&self) -> Result<Vec<SortField<F>>, RequestError> {
        sort::parse(self.sort.as_deref().unwrap_or_default())
    }
}

fn not_negative(number: Option<Integer>, field: &'static str) -> Result<i64, RequestError> {
    let number = number.map_or(0, |Integer(number)| number);
    if number < 0 { Err(RequestError::InvalidField(field.into())) } else { Ok(number) }
}
