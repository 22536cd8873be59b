//! Login tokens (`bk_token`): the login service is asked for the user of a token.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use opentelemetry::global;
use opentelemetry_http::HeaderInjector;
use reqwest::header::HeaderMap;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tracing::{Span, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::domain::error::RequestError;
use crate::telemetry::error_chain;

/// How long the login service may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection to it may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long the user of a valid token is cached, and for how many tokens.
const CACHE_TTL: Duration = Duration::from_mins(1);
const CACHE_CAPACITY: u64 = 10_000;

/// The longest token that the service is asked about, in bytes.
const TOKEN_LIMIT: usize = 4096;

/// The longest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 64 << 10;

/// A client of the login service, with a cache of users by the hashes of their tokens.
pub struct LoginService {
    url: Url,
    client: Client,
    users: Cache<[u8; 32], String>,
}

/// Why the login service cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum LoginServiceError {
    #[error("it is not an URL such as https://paas.example.com")]
    Url,
    #[error("cannot create an HTTP client")]
    Client(#[from] reqwest::Error),
}

/// An answer of the login service, in any of the forms of its versions 1, 2 and 3. The data of a
/// refusal may have any type.
#[derive(Deserialize)]
struct Answer {
    result: bool,
    #[serde(default)]
    data: serde_json::Value,
}

#[derive(Deserialize)]
struct AnswerData {
    bk_username: Option<String>,
    username: Option<String>,
}

impl LoginService {
    /// A client of the service at this URL.
    pub fn new(url: &str) -> Result<Self, LoginServiceError> {
        let is_valid = |url: &Url| url.has_host() && ["http", "https"].contains(&url.scheme());
        let mut url = Url::parse(url).ok().filter(is_valid).ok_or(LoginServiceError::Url)?;
        let path = format!("{}/login/accounts/is_login/", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let client = Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            // Tokens must not be sent to a proxy that the environment names.
            .no_proxy()
            .build()?;
        let users = Cache::builder().max_capacity(CACHE_CAPACITY).time_to_live(CACHE_TTL).build();
        Ok(Self { url, client, users })
    }

    /// The name of a token's user. Concurrent requests with the same token ask once.
    pub(super) async fn user_of(&self, token: &str) -> Result<String, RequestError> {
        if token.len() > TOKEN_LIMIT {
            return Err(RequestError::InvalidToken);
        }
        let key: [u8; 32] = Sha256::digest(token).into();
        self.users.try_get_with(key, self.ask(token)).await.map_err(Arc::unwrap_or_clone)
    }

    async fn ask(&self, token: &str) -> Result<String, RequestError> {
        let unavailable = |reason: &str| {
            warn!(reason, "the login service is unavailable");
            RequestError::Unavailable("login service")
        };
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("bk_token", token);
        // The client's errors name the URL, which contains the token.
        let failed = |error: reqwest::Error| unavailable(&error_chain(&error.without_url()));
        let mut trace = HeaderMap::new();
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&Span::current().context(), &mut HeaderInjector(&mut trace));
        });
        let mut response = self.client.get(url).headers(trace).send().await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(unavailable(response.status().as_str()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_LIMIT {
                return Err(unavailable("its answer is too long"));
            }
        }
        let malformed = |_| unavailable("its answer is malformed");
        let answer: Answer = serde_json::from_slice(&body).map_err(malformed)?;
        if !answer.result {
            return Err(RequestError::InvalidToken);
        }
        let data: AnswerData = serde_json::from_value(answer.data).map_err(malformed)?;
        let name = data.bk_username.or(data.username).filter(|name| !name.is_empty());
        name.ok_or_else(|| unavailable("its answer names no user"))
    }
}
