//! The two APIs, and what each takes from the headers of a request.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::{OneOfBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::json::{JsonObject, field_names};
use crate::domain::error::RequestError;
use crate::domain::keys::Tenant;

/// The API that was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// The gateway's API, for clients: `/api/c/compapi/v2/cc/{name}/`.
    Gateway,
    /// The CMDB's own API, for a gateway that forwards requests: `/api/v3/…`.
    Cmdb,
}

/// The IP address that a request came from, as a request extension.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddr(pub IpAddr);

/// Marks a request on a connection beyond the connection limit, as a request extension. Endpoints
/// answer it with [`RequestError::Overloaded`].
#[derive(Debug, Clone, Copy)]
pub struct OverCapacity;

impl Api {
    /// The API to which a path belongs, whether or not it is served.
    pub(super) fn of_path(path: &str) -> Self {
        if path.starts_with("/api/v3/") { Self::Cmdb } else { Self::Gateway }
    }

    /// The request's id: a new one, or at the CMDB API the one that the caller sent.
    pub(super) fn request_id(self, headers: &HeaderMap) -> Arc<str> {
        let given = ["x-request-id", "x-bkapi-request-id"].iter().find_map(|name| {
            let id = headers.get(*name)?.to_str().ok()?;
            let is_id = (1..=64).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
            is_id.then(|| Arc::from(id))
        });
        match (self, given) {
            (Self::Cmdb, Some(id)) => id,
            // Version 7 ascends, so inserts into the index by request ids stay at its end.
            _ => Uuid::now_v7().simple().to_string().into(),
        }
    }

    /// The fields that name the tenant in a body. The CMDB API ignores them.
    pub(super) fn tenant_fields(self) -> &'static [&'static str] {
        match self {
            Self::Gateway => field_names::<TenantField>(),
            Self::Cmdb => &[],
        }
    }

    /// The tenant: in the body at the gateway API, in a header at the CMDB API.
    pub(super) fn tenant(
        self, headers: &HeaderMap, body: &JsonObject<'_>,
    ) -> Result<Tenant, RequestError> {
        let names = [
            "x-bkcmdb-supplier-account",
            "x-bkapi-supplier-account",
            "http_bk_supplier_account",
            "http_blueking_supplier_id",
        ];
        match self {
            Self::Gateway => Ok(body.decode::<TenantField>()?.tenant()),
            Self::Cmdb => Tenant::parse(&first_key(headers, &names)?.unwrap_or_default())
                .ok_or(RequestError::InvalidIdentityHeader(INVALID_TENANT_HEADER)),
        }
    }
}

const INVALID_TENANT_HEADER: &str =
    "[X-Bkcmdb-Supplier-Account] is longer than 128 characters or has a control character";

/// The first of these headers that is present and not empty.
pub(super) fn first_of<'a>(headers: &'a HeaderMap, names: &[&str]) -> Option<&'a HeaderValue> {
    names.iter().filter_map(|name| headers.get(*name)).find(|value| !value.is_empty())
}

/// The key in the first of these headers that is present and not empty. A value that is not UTF-8
/// becomes NUL, which is a control character. Refuses a header that is sent twice.
pub(super) fn first_key(
    headers: &HeaderMap, names: &[&str],
) -> Result<Option<String>, RequestError> {
    names.iter().try_for_each(|name| require_single(headers, name))?;
    let key = first_of(headers, names).map(|value| value.as_bytes().to_vec());
    Ok(key.map(|key| String::from_utf8(key).unwrap_or_else(|_| "\0".to_owned())))
}

/// Refuses an identity header that is sent twice.
pub(super) fn require_single(headers: &HeaderMap, name: &str) -> Result<(), RequestError> {
    match headers.get_all(name).iter().count() {
        0 | 1 => Ok(()),
        _ => Err(RequestError::InvalidIdentityHeader("an identity header is sent twice")),
    }
}

/// The tenant in a body.
#[derive(Default, Deserialize, ToSchema)]
pub(super) struct TenantField {
    #[schema(schema_with = tenant_schema)]
    bk_supplier_account: Option<TenantKey>,
}

impl TenantField {
    fn tenant(self) -> Tenant {
        self.bk_supplier_account.map_or_else(Tenant::default, |TenantKey(tenant)| tenant)
    }
}

/// A tenant's key: a string, or an integer in its decimal digits.
struct TenantKey(Tenant);

fn tenant_schema() -> RefOr<Schema> {
    let description = "The tenant, `0` by default.";
    let types = OneOfBuilder::new().item(String::schema()).item(i64::schema());
    RefOr::T(types.description(Some(description)).build().into())
}

impl<'de> Deserialize<'de> for TenantKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TenantKeyVisitor)
    }
}

struct TenantKeyVisitor;

impl Visitor<'_> for TenantKeyVisitor {
    type Value = TenantKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an integer")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<TenantKey, E> {
        let problem = "expected at most 128 characters, none of them a control character";
        Tenant::parse(key).map(TenantKey).ok_or_else(|| E::custom(problem))
    }

    fn visit_i64<E: Error>(self, key: i64) -> Result<TenantKey, E> {
        self.visit_str(&key.to_string())
    }
}
