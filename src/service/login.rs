//! Users by their login: asks the login service whose a token is.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use reqwest::{Client, Url};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::domain::fault::Fault;

/// How long the login service may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take to be reached.
const CONNECT_PATIENCE: Duration = Duration::from_millis(1_500);

/// How long it is believed about a token.
const REMEMBERED: Duration = Duration::from_mins(1);

/// A login service, and whom it knew lately. Tokens are remembered by their hash.
pub struct Login {
    address: Url,
    client: Client,
    known: Cache<[u8; 32], String>,
}

/// Why a login service cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The address is none.
    #[error("it is not an address like https://paas.example.com")]
    Address,
    /// There is no client to ask with.
    #[error("there is no HTTP client to ask it with")]
    Client(#[from] reqwest::Error),
}

/// What it answers, in the shapes of its versions 1, 2 and 3.
#[derive(Deserialize)]
struct Answer {
    result: bool,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    bk_username: Option<String>,
    username: Option<String>,
}

impl Login {
    /// Asks the service at this address.
    pub fn new(address: &str) -> Result<Self, LoginError> {
        let is_fine = |url: &Url| url.has_host() && ["http", "https"].contains(&url.scheme());
        let mut address = Url::parse(address).ok().filter(is_fine).ok_or(LoginError::Address)?;
        let path = format!("{}/login/accounts/is_login/", address.path().trim_end_matches('/'));
        address.set_path(&path);
        let client = Client::builder()
            .timeout(PATIENCE)
            .connect_timeout(CONNECT_PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let known = Cache::builder().max_capacity(10_000).time_to_live(REMEMBERED).build();
        Ok(Self { address, client, known })
    }

    /// Whose token this is. One request for a token at a time: whoever asks meanwhile gets its answer.
    pub(super) async fn user_of(&self, token: &str) -> Result<String, Fault> {
        let key: [u8; 32] = Sha256::digest(token).into();
        let asked = self.known.try_get_with(key, self.ask(token)).await;
        asked.map_err(|fault: Arc<Fault>| Fault::clone(&fault))
    }

    async fn ask(&self, token: &str) -> Result<String, Fault> {
        let unavailable = |why: &str| {
            warn!(why, "the login service is unavailable");
            Fault::Unavailable("login service")
        };
        let mut address = self.address.clone();
        address.query_pairs_mut().append_pair("bk_token", token);
        // Errors of the client name the address, which has the token.
        let response = self.client.get(address).send().await;
        let response = response.map_err(|error| unavailable(&error.without_url().to_string()))?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(unavailable(response.status().as_str()));
        }
        let body = response.bytes().await;
        let body = body.map_err(|error| unavailable(&error.without_url().to_string()))?;
        let answer: Answer = serde_json::from_slice(&body)
            .or(Err(unavailable("its answer is not what it should be")))?;
        if !answer.result {
            return Err(Fault::InvalidToken);
        }
        let name = answer.data.and_then(|data| data.bk_username.or(data.username));
        name.filter(|name| !name.is_empty()).ok_or_else(|| unavailable("its answer names no user"))
    }
}
