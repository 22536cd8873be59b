//! An application's code and secret, and how it names its user.

use axum::http::request::Parts;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{Credentials, Proof, UNPRINTABLE_NAME};
use crate::domain::error::RequestError;
use crate::domain::keys::has_control_character;
use crate::http::json::{JsonObject, field_names};

/// The credentials of a body, or of the JSON object in the header `X-Bkapi-Authorization`.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct CredentialFields {
    /// The application's code. If the header `X-Bkapi-Authorization` is present, credentials are
    /// read from there only.
    #[serde(deserialize_with = "name")]
    bk_app_code: CredentialText,
    /// The application's secret.
    bk_app_secret: CredentialText,
    /// The user's login token.
    bk_token: CredentialText,
    /// The user's name, from an application that is trusted with user names.
    #[serde(deserialize_with = "name")]
    bk_username: CredentialText,
    /// The older name of `bk_app_code`.
    #[schema(deprecated)]
    #[serde(deserialize_with = "name")]
    app_code: CredentialText,
    /// The older name of `bk_app_secret`.
    #[schema(deprecated)]
    app_secret: CredentialText,
    /// The older name of `bk_username`.
    #[schema(deprecated)]
    #[serde(deserialize_with = "name")]
    username: CredentialText,
    /// Not supported: a request with it is refused.
    #[schema(deprecated)]
    bk_access_token: CredentialText,
    /// Not supported: a request with it is refused.
    #[schema(deprecated)]
    access_token: CredentialText,
}

/// How an application names its user. If a request has several of these, the first counts.
pub(super) enum UserCredential {
    /// With a token of the gateway, which is not supported.
    AccessToken,
    /// With a login token, which the login service knows.
    LoginToken(String),
    /// By name, or not at all.
    Name(Option<String>),
}

/// A string. An empty string, or a value of another type, counts as absent.
#[derive(Default, Serialize, ToSchema)]
struct CredentialText(Option<String>);

impl<'de> Deserialize<'de> for CredentialText {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let string = String::deserialize(value).ok();
        Ok(Self(string.filter(|string| !string.is_empty())))
    }
}

/// A name of an application or user. Control characters are refused.
fn name<'de, D: Deserializer<'de>>(value: D) -> Result<CredentialText, D::Error> {
    let text = CredentialText::deserialize(value)?;
    if text.0.as_deref().is_some_and(has_control_character) {
        return Err(D::Error::custom("expected no control characters"));
    }
    Ok(text)
}

/// Reads the credentials from the header `X-Bkapi-Authorization`, or from the body without it.
pub(super) fn find(head: &Parts, body: &JsonObject<'_>) -> Result<Credentials, RequestError> {
    let fields = match head.headers.get("x-bkapi-authorization") {
        Some(header) => {
            let is_single = head.headers.get_all("x-bkapi-authorization").iter().count() == 1;
            let json = std::str::from_utf8(header.as_bytes()).ok().filter(|_| is_single);
            parse_header(json.ok_or(RequestError::AuthorizationNotJson)?)?
        }
        None => body.decode()?,
    };
    let mut pairs = head.uri.query().unwrap_or_default().split('&');
    if pairs.any(|pair| matches!(pair.split('=').next(), Some("bk_signature" | "signature"))) {
        return Err(RequestError::SignatureUnsupported);
    }
    fields.check()
}

fn parse_header(json: &str) -> Result<CredentialFields, RequestError> {
    let object = JsonObject::parse(json, field_names::<CredentialFields>());
    let object = object.filter(|object| object.require_unique_keys().is_ok());
    let object = object.ok_or(RequestError::AuthorizationNotJson)?;
    object.decode().or(Err(RequestError::InvalidIdentityHeader(UNPRINTABLE_NAME)))
}

impl CredentialFields {
    fn check(self) -> Result<Credentials, RequestError> {
        let app_code = self.bk_app_code.0.or(self.app_code.0);
        let (app_code, secret) = match (app_code, self.bk_app_secret.0.or(self.app_secret.0)) {
            (Some(code), Some(secret)) => (code, secret),
            (None, Some(_)) => return Err(RequestError::AppCodeMissing),
            (Some(_), None) => return Err(RequestError::AppSecretMissing),
            (None, None) => return Err(RequestError::AppMissing),
        };
        let user = match (self.bk_access_token.0.or(self.access_token.0), self.bk_token.0) {
            (Some(_), _) => UserCredential::AccessToken,
            (None, Some(token)) => UserCredential::LoginToken(token),
            (None, None) => UserCredential::Name(self.bk_username.0.or(self.username.0)),
        };
        Ok(Credentials { app_code, proof: Proof::Secret { secret, user } })
    }
}
