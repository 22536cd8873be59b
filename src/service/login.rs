//! Users by their login: asks the login service whose a token is.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use opentelemetry::global;
use opentelemetry_http::HeaderInjector;
use reqwest::header::HeaderMap;
use reqwest::{Client, Url};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tracing::{Span, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::domain::error::RequestError;

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

/// The longest token that the service is asked about, in bytes.
const TOKEN_LIMIT: usize = 4096;

/// The longest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 64 << 10;

/// What it answers, in the shapes of its versions 1, 2 and 3. Where it refuses, the data is of any kind.
#[derive(Deserialize)]
struct Answer {
    result: bool,
    #[serde(default)]
    data: serde_json::Value,
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
            // Nobody else gets to see tokens, whatever the environment says.
            .no_proxy()
            .build()?;
        let known = Cache::builder().max_capacity(10_000).time_to_live(REMEMBERED).build();
        Ok(Self { address, client, known })
    }

    /// Whose token this is. One request for a token at a time: whoever asks meanwhile gets its answer.
    pub(super) async fn user_of(&self, token: &str) -> Result<String, RequestError> {
        if token.len() > TOKEN_LIMIT {
            return Err(RequestError::InvalidToken);
        }
        let key: [u8; 32] = Sha256::digest(token).into();
        let asked = self.known.try_get_with(key, self.ask(token)).await;
        asked.map_err(|fault: Arc<RequestError>| RequestError::clone(&fault))
    }

    async fn ask(&self, token: &str) -> Result<String, RequestError> {
        let unavailable = |why: &str| {
            warn!(why, "the login service is unavailable");
            RequestError::Unavailable("login service")
        };
        let mut address = self.address.clone();
        address.query_pairs_mut().append_pair("bk_token", token);
        // Errors of the client name the address, which has the token.
        let broken = |error: reqwest::Error| unavailable(&error.without_url().to_string());
        let mut trace = HeaderMap::new();
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&Span::current().context(), &mut HeaderInjector(&mut trace));
        });
        let asked = self.client.get(address).headers(trace).send();
        let mut response = asked.await.map_err(broken)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(unavailable(response.status().as_str()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_LIMIT {
                return Err(unavailable("its answer is too long"));
            }
        }
        let nonsense = |_| unavailable("its answer is not what it should be");
        let answer: Answer = serde_json::from_slice(&body).map_err(nonsense)?;
        if !answer.result {
            return Err(RequestError::InvalidToken);
        }
        let data: Data = serde_json::from_value(answer.data).map_err(nonsense)?;
        let name = data.bk_username.or(data.username).filter(|name| !name.is_empty());
        name.ok_or_else(|| unavailable("its answer names no user"))
    }
}
