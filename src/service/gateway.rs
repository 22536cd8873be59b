//! The gateway's word for who is calling: a token that it signed.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;

use crate::domain::fault::Fault;

/// How the gateway's tokens are verified.
pub struct Gateway {
    key: DecodingKey,
    validation: Validation,
}

/// What a token says.
#[derive(Debug, Deserialize)]
pub(super) struct Token {
    #[serde(default)]
    pub(super) app: TokenApp,
    #[serde(default)]
    pub(super) user: TokenUser,
}

/// What it says about the application.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TokenApp {
    app_code: String,
    verified: bool,
    valid_error_message: String,
}

/// What it says about the user.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TokenUser {
    username: String,
    verified: bool,
    valid_error_message: String,
}

impl Gateway {
    /// Verifies with a public key in PEM, and if an issuer is named, accepts only its tokens.
    pub fn new(
        public_key: &str,
        issuer: Option<&str>,
    ) -> Result<Self, jsonwebtoken::errors::Error> {
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

    pub(super) fn verify(&self, token: &str) -> Result<Token, Fault> {
        decode(token, &self.key, &self.validation).map(|data| data.claims).map_err(|error| {
            Fault::GatewayToken(match error.kind() {
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
    pub(super) fn verified(self) -> Result<String, Fault> {
        if self.verified && !self.app_code.is_empty() {
            return Ok(self.app_code);
        }
        let default = "verify app fail, please check if the authentication parameters are correct";
        Err(refused(self.valid_error_message, default))
    }
}

impl TokenUser {
    /// The user, if the gateway verified it, or if the application is trusted about that.
    pub(super) fn verified(self, is_trusted: bool) -> Result<String, Fault> {
        if (self.verified || is_trusted) && !self.username.is_empty() {
            return Ok(self.username);
        }
        let default = "Please provide a valid user identity, such as bk_username";
        Err(refused(self.valid_error_message, default))
    }
}

fn refused(words: String, default: &str) -> Fault {
    Fault::GatewayRefused(if words.is_empty() { default.to_owned() } else { words })
}
