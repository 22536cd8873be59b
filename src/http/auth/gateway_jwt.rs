//! The JWT that an API gateway signs (`X-Bkapi-JWT`, RS512): it names the application and the user.

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;

use super::require_printable;
use crate::domain::error::RequestError;

/// Verifies tokens with the gateway's public key.
pub struct JwtVerifier {
    key: DecodingKey,
    validation: Validation,
}

/// The claims of a token.
#[derive(Deserialize)]
pub(super) struct Claims {
    app: Option<Claim>,
    user: Option<Claim>,
}

/// An application or a user, and whether the gateway verified it.
#[derive(Deserialize)]
struct Claim {
    app_code: Option<String>,
    username: Option<String>,
    verified: Option<bool>,
    valid_error_message: Option<String>,
}

impl JwtVerifier {
    /// Verifies with a public key in PEM. If an issuer is given, only its tokens are accepted.
    pub fn new(public_key: &str, issuer: Option<&str>) -> Result<Self, Error> {
        // The library also accepts a private key, with which no token is valid.
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

    pub(super) fn verify(&self, token: &str) -> Result<Claims, RequestError> {
        let token = decode::<Claims>(token, &self.key, &self.validation).map_err(|error| {
            RequestError::InvalidIdentityHeader(match error.kind() {
                ErrorKind::ExpiredSignature => "[X-Bkapi-JWT] has expired",
                ErrorKind::ImmatureSignature => "[X-Bkapi-JWT] is not valid yet",
                ErrorKind::InvalidIssuer => "[X-Bkapi-JWT] has invalid issuer",
                _ => {
                    "[X-Bkapi-JWT] decode error, please check if jwt is correct, or if its \
                     private key is correct"
                }
            })
        })?;
        // RFC 7515, section 4.1.11. No extension is understood here.
        match token.header.crit {
            Some(_) => Err(RequestError::InvalidIdentityHeader(
                "[X-Bkapi-JWT] has an unsupported critical extension",
            )),
            None => Ok(token.claims),
        }
    }
}

impl Claims {
    /// The application's code, if the gateway verified the application.
    pub(super) fn app_code(&self) -> Result<String, RequestError> {
        let error = "verify app fail, please check if the authentication parameters are correct";
        name(self.app.as_ref(), |app| &app.app_code, false, error)
    }

    /// The user's name, if the gateway verified the user or the application is trusted with user
    /// names: gateways also sign names that they did not verify.
    pub(super) fn user(&self, trusts_username: bool) -> Result<String, RequestError> {
        let error = "Please provide a valid user identity, such as bk_username";
        name(self.user.as_ref(), |user| &user.username, trusts_username, error)
    }
}

/// The name in a claim that is verified or trusted; else the gateway's error, or `default_error`.
fn name(
    claim: Option<&Claim>, field: fn(&Claim) -> &Option<String>, is_trusted: bool,
    default_error: &str,
) -> Result<String, RequestError> {
    let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let accepted = claim.filter(|claim| claim.verified == Some(true) || is_trusted);
    let name = accepted.and_then(|claim| text(field(claim))).ok_or_else(|| {
        let error = claim.and_then(|claim| text(&claim.valid_error_message));
        RequestError::NotVerifiedByGateway(error.unwrap_or_else(|| default_error.to_owned()))
    })?;
    require_printable(&name)?;
    Ok(name)
}
