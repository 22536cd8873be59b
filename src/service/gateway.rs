//! The gateway's word for who is calling: a token that it signed.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::{Deserialize, Deserializer};

use crate::domain::error::RequestError;

/// How the gateway's tokens are verified.
pub struct Gateway {
    key: DecodingKey,
    validation: Validation,
}

/// What a token says.
#[derive(Debug, Deserialize)]
pub(super) struct Token {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) app: TokenApp,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) user: TokenUser,
}

/// What it says about the application.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenApp {
    app_code: Option<String>,
    verified: Option<bool>,
    valid_error_message: Option<String>,
}

/// What it says about the user.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenUser {
    username: Option<String>,
    verified: Option<bool>,
    valid_error_message: Option<String>,
}

/// Null counts as absent.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Gateway {
    /// Verifies with a public key in PEM, and if an issuer is named, accepts only its tokens.
    pub fn new(
        public_key: &str,
        issuer: Option<&str>,
    ) -> Result<Self, jsonwebtoken::errors::Error> {
        // A private key would be taken, too, and verify nothing.
        if !public_key.contains("PUBLIC KEY-----") {
            return Err(ErrorKind::InvalidKeyFormat.into());
        }
        let key = DecodingKey::from_rsa_pem(public_key.as_bytes())?;
        let mut validation = Validation::new(Algorithm::RS512);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            validation.set_required_spec_claims(&["exp", "iss"]);
        }
        Ok(Self { key, validation })
    }

    pub(super) fn verify(&self, token: &str) -> Result<Token, RequestError> {
        decode(token, &self.key, &self.validation).map(|data| data.claims).map_err(|error| {
            RequestError::GatewayToken(match error.kind() {
                ErrorKind::ExpiredSignature => "[X-Bkapi-JWT] has expired",
                ErrorKind::ImmatureSignature => "[X-Bkapi-JWT] is not valid yet",
                ErrorKind::InvalidIssuer => "[X-Bkapi-JWT] has invalid issuer",
                _ => {
                    "[X-Bkapi-JWT] decode error, please check if jwt is correct, or if its private key is correct"
                }
            })
        })
    }
}

impl TokenApp {
    /// The application, if the gateway verified it.
    pub(super) fn verified(self) -> Result<String, RequestError> {
        let code = self.app_code.filter(|code| self.verified == Some(true) && !code.is_empty());
        let default = "verify app fail, please check if the authentication parameters are correct";
        code.ok_or_else(|| refused(self.valid_error_message.as_deref(), default))
    }
}

impl TokenUser {
    /// The user's name, whoever believes it.
    pub(super) fn name(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The user, if the gateway verified it, or if the application is trusted about that.
    pub(super) fn verified(&self, is_trusted: bool) -> Result<String, RequestError> {
        let is_believed = self.verified == Some(true) || is_trusted;
        let name = self.username.clone().filter(|name| is_believed && !name.is_empty());
        let default = "Please provide a valid user identity, such as bk_username";
        name.ok_or_else(|| refused(self.valid_error_message.as_deref(), default))
    }
}

fn refused(words: Option<&str>, default: &str) -> RequestError {
    RequestError::GatewayRefused(
        words.filter(|words| !words.is_empty()).unwrap_or(default).to_owned(),
    )
}
