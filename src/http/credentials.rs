//! Where a request says who sends it.

use axum::http::{HeaderMap, Uri};

use super::body::Fields;
use crate::domain::caller::{OwnCredentials, Unsupported};
use crate::domain::error::RequestError;

/// The keys that credentials come under, in the header and in the body; the older names after the newer.
pub(super) const KEYS: [&str; 9] = [
    "bk_app_code",
    "bk_app_secret",
    "bk_token",
    "bk_username",
    "app_code",
    "app_secret",
    "username",
    "bk_access_token",
    "access_token",
];

/// Reads the header made for credentials, or the body if there is no such header.
pub(super) fn own(
    headers: &HeaderMap,
    uri: &Uri,
    body: &Fields<'_>,
) -> Result<OwnCredentials, RequestError> {
    let signed = uri.query().unwrap_or_default().split('&').any(|pair| {
        ["bk_signature", "signature"].contains(&pair.split('=').next().unwrap_or(pair))
    });
    let mut credentials = match headers.get("x-bkapi-authorization") {
        Some(header) => {
            let header = std::str::from_utf8(header.as_bytes()).ok();
            let header = header.and_then(|header| Fields::read(header, &KEYS));
            let is_once = headers.get_all("x-bkapi-authorization").iter().count() == 1;
            let header = header.filter(|header| is_once && header.refuse_twice().is_ok());
            from(&header.ok_or(RequestError::HeaderNotJson)?)
        }
        None => from(body),
    };
    if signed {
        credentials.unsupported = Some(Unsupported::Signature);
    }
    Ok(credentials)
}

fn from(fields: &Fields<'_>) -> OwnCredentials {
    let text = |newer, older| fields.text(newer).or_else(|| fields.text(older));
    OwnCredentials {
        app_code: text("bk_app_code", "app_code"),
        app_secret: text("bk_app_secret", "app_secret"),
        token: fields.text("bk_token"),
        username: text("bk_username", "username"),
        unsupported: text("bk_access_token", "access_token").map(|_| Unsupported::AccessToken),
    }
}
