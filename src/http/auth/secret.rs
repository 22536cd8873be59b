//! An application's code and secret, and how it names its user.

use axum::http::request::Parts;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::Credentials;
use crate::domain::error::RequestError;
use crate::domain::identity::UnsupportedScheme;
use crate::http::json::{JsonObject, field_names};

/// The credentials of a body, or of the JSON object in the header `X-Bkapi-Authorization`. A value
/// that is empty or not a string counts as absent.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct CredentialFields {
    /// The application's code. If the header `X-Bkapi-Authorization` is present, credentials are
    /// read from there only.
    #[serde(deserialize_with = "string_or_absent")]
    bk_app_code: Option<String>,
    /// The application's secret.
    #[serde(deserialize_with = "string_or_absent")]
    bk_app_secret: Option<String>,
    /// The user's login token.
    #[serde(deserialize_with = "string_or_absent")]
    bk_token: Option<String>,
    /// The user's name, from an application that is trusted with user names.
    #[serde(deserialize_with = "string_or_absent")]
    bk_username: Option<String>,
    /// The older name of `bk_app_code`.
    #[schema(deprecated)]
    #[serde(deserialize_with = "string_or_absent")]
    app_code: Option<String>,
    /// The older name of `bk_app_secret`.
    #[schema(deprecated)]
    #[serde(deserialize_with = "string_or_absent")]
    app_secret: Option<String>,
    /// The older name of `bk_username`.
    #[schema(deprecated)]
    #[serde(deserialize_with = "string_or_absent")]
    username: Option<String>,
    /// Not supported: a request with it is refused.
    #[schema(deprecated)]
    #[serde(deserialize_with = "string_or_absent")]
    bk_access_token: Option<String>,
    /// Not supported: a request with it is refused.
    #[schema(deprecated)]
    #[serde(deserialize_with = "string_or_absent")]
    access_token: Option<String>,
}

/// How an application names its user: the strongest way that the request offers.
pub(in crate::http) enum ClaimedUser {
    /// With a token of the gateway, which is not supported.
    AccessToken,
    /// With a login token, which the login service knows.
    LoginToken(String),
    /// By name.
    Name(String),
    /// Not at all.
    Absent,
}

fn string_or_absent<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    let string = String::deserialize(value).ok();
    Ok(string.filter(|string| !string.is_empty()))
}

/// Reads the credentials from the header `X-Bkapi-Authorization`, or from the body without it.
pub(super) fn find(head: &Parts, body: &JsonObject<'_>) -> Result<Credentials, RequestError> {
    let fields = match head.headers.get("x-bkapi-authorization") {
        Some(header) => {
            let is_single = head.headers.get_all("x-bkapi-authorization").iter().count() == 1;
            let json = std::str::from_utf8(header.as_bytes()).ok().filter(|_| is_single);
            json.and_then(parse_header).ok_or(RequestError::AuthorizationNotJson)?
        }
        None => body.decode()?,
    };
    let query = head.uri.query().unwrap_or_default();
    let is_signed = query.split('&').any(|pair| {
        ["bk_signature", "signature"].contains(&pair.split('=').next().unwrap_or(pair))
    });
    if is_signed {
        return Err(RequestError::UnsupportedScheme(UnsupportedScheme::Signature));
    }
    fields.check()
}

fn parse_header(json: &str) -> Option<CredentialFields> {
    let object = JsonObject::parse(json, field_names::<CredentialFields>())?;
    object.require_unique_keys().ok()?;
    object.decode().ok()
}

impl CredentialFields {
    fn check(self) -> Result<Credentials, RequestError> {
        let app_code = self.bk_app_code.or(self.app_code);
        let (app_code, secret) = match (app_code, self.bk_app_secret.or(self.app_secret)) {
            (Some(code), Some(secret)) => (code, secret),
            (None, Some(_)) => return Err(RequestError::AppCodeMissing),
            (Some(_), None) => return Err(RequestError::AppSecretMissing),
            (None, None) => return Err(RequestError::AppMissing),
        };
        let access_token = self.bk_access_token.or(self.access_token);
        let user = match (access_token, self.bk_token, self.bk_username.or(self.username)) {
            (Some(_), ..) => ClaimedUser::AccessToken,
            (None, Some(token), _) => ClaimedUser::LoginToken(token),
            (None, None, Some(name)) => ClaimedUser::Name(name),
            (None, None, None) => ClaimedUser::Absent,
        };
        Ok(Credentials::Secret { app_code, secret, user })
    }
}
