//! The `Idempotency-Key` of a request: in the header, or in the body, because some gateways drop
//! the header.

use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::ToSchema;

use super::json::JsonObject;
use crate::domain::error::RequestError;
use crate::domain::keys::is_valid_idempotency_key;

/// The key in a body.
#[derive(Default, Deserialize, ToSchema)]
pub(super) struct IdempotencyField {
    /// The same as the header `Idempotency-Key`, for callers behind a gateway that drops it. If
    /// both are sent, they must be equal.
    #[schema(min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
}

/// The request's key, if it has one. Several headers are refused.
pub(super) fn idempotency_key(
    headers: &HeaderMap, body: &JsonObject<'_>,
) -> Result<Option<String>, RequestError> {
    let valid = |key: &str| {
        let is_valid = is_valid_idempotency_key(key);
        if is_valid { Ok(key.to_owned()) } else { Err(RequestError::InvalidIdempotencyKey) }
    };
    let in_body = body.decode::<IdempotencyField>()?.idempotency_key;
    let in_body = in_body.map(|key| valid(&key)).transpose()?;
    let mut values = headers.get_all("idempotency-key").iter();
    let in_header = values.next().map(|value| valid(value.to_str().unwrap_or_default()));
    let in_header = in_header.transpose()?;
    if values.next().is_some() {
        return Err(RequestError::InvalidIdempotencyKey);
    }
    match (in_header, in_body) {
        (Some(header), Some(body)) if header != body => Err(RequestError::IdempotencyKeysDiffer),
        (header, body) => Ok(header.or(body)),
    }
}
