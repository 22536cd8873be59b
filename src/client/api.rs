//! Calls of the gateway API, which are repeated until they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use reqwest::header::{HeaderValue, RETRY_AFTER};
use reqwest::{Client, Url};
use serde_json::{Map, Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::response::{Problem, RefusedRequest, Response, classify_response, pause};
use crate::domain::error::error_chain;

/// How long an answer may take. The server answers within 20 s; ESB waits 30 s for it.
const TIMEOUT: Duration = Duration::from_secs(40);

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Who calls. `Debug` is not derived, because there are secrets.
#[derive(Clone)]
pub struct Credentials {
    /// The application's code.
    pub app_code: String,
    /// The application's secret.
    pub app_secret: String,
    /// The user's name.
    pub username: Option<String>,
    /// The user's login token.
    pub token: Option<String>,
}

/// Is told what happens, for people.
pub trait Observer: Send + Sync {
    /// A request will be sent again, because of this problem.
    fn waiting(&self, problem: &str);
    /// Something that the user should know, once.
    fn notice(&self, text: &str);
    /// The answers to so many more rows are stored.
    fn answered(&self, rows: u64);
}

/// The gateway API of a server.
pub struct Api {
    base: String,
    authorization: HeaderValue,
    /// What every body has.
    common: Map<String, Value>,
    observer: Arc<dyn Observer>,
    /// No request is sent again after this.
    stop: CancellationToken,
    /// Whether a request with an `idempotency_key` may have created something.
    pub may_have_created: Arc<AtomicBool>,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Sending it again has the same result.
    #[error(transparent)]
    Refused(#[from] RefusedRequest),
    /// It was sent for too long without an answer.
    #[error("no answer for {seconds} s; the last problem was: {problem}")]
    #[expect(missing_docs, reason = "the message says what they mean")]
    GaveUp { seconds: u64, problem: String },
    /// The answer cannot be read.
    #[error("the answer has another form than expected")]
    Malformed(#[source] serde_json::Error),
    /// The program was asked to stop.
    #[error("stopped")]
    Stopped,
}

/// A client with one connection, which it keeps.
pub fn client() -> reqwest::Result<Client> {
    Client::builder()
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(1)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        // Secrets must not be sent to a proxy that the environment names.
        .no_proxy()
        .build()
}

impl Api {
    /// The API at a URL, such as `http://127.0.0.1:8090`.
    pub fn new(
        endpoint: &str, credentials: &Credentials, tenant: Option<&str>,
        observer: Arc<dyn Observer>, stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let example = "it should look like https://paas.example.com";
        let url = Url::parse(endpoint).with_context(|| format!("--endpoint: {example}"))?;
        let is_http = ["http", "https"].contains(&url.scheme()) && url.has_host();
        ensure!(is_http && url.query().is_none(), "--endpoint: {example}");
        ensure!(
            url.username().is_empty() && url.password().is_none(),
            "--endpoint: credentials are set in the environment, not in the URL"
        );
        let base = format!("{}/api/c/compapi/v2/cc/", url.as_str().trim_end_matches('/'));
        let mut common = Map::new();
        common.insert("bk_app_code".to_owned(), credentials.app_code.clone().into());
        common.insert("bk_app_secret".to_owned(), credentials.app_secret.clone().into());
        for (key, value) in
            [("bk_username", &credentials.username), ("bk_token", &credentials.token)]
        {
            common.extend(value.clone().map(|value| (key.to_owned(), value.into())));
        }
        // The older ESB reads credentials in the body only, the API gateway those in the header.
        let mut authorization = HeaderValue::from_str(&ascii(&json!(common).to_string()))?;
        authorization.set_sensitive(true);
        common.extend(tenant.map(|key| ("bk_supplier_account".to_owned(), key.into())));
        let may_have_created = Arc::default();
        Ok(Self { base, authorization, common, observer, stop, may_have_created })
    }

    /// Sends a request until it is answered, for some time at most, or for as long as a rate limit
    /// is in the way. Returns the answer's `data`.
    pub async fn call(
        &self, client: &Client, name: &str, mut body: Map<String, Value>, retry_timeout: Duration,
    ) -> Result<Value, CallError> {
        body.extend(self.common.clone());
        let creates = body.contains_key("idempotency_key");
        let body = Value::Object(body).to_string();
        let (mut started, mut last) = (Instant::now(), Duration::ZERO);
        loop {
            let response = self.send(client, name, body.clone()).await;
            if creates && !matches!(response, Response::Refused(_)) {
                self.may_have_created.store(true, Ordering::Relaxed);
            }
            let problem = match response {
                Response::Done(data) => return Ok(data),
                Response::Refused(refused) => return Err(refused.into()),
                Response::Again(problem) => problem,
            };
            if problem.is_rate_limit {
                started = Instant::now();
            }
            let elapsed = started.elapsed();
            last = pause(&problem, elapsed, last);
            if !problem.is_rate_limit && elapsed + last > retry_timeout {
                return Err(CallError::GaveUp {
                    seconds: elapsed.as_secs(),
                    problem: problem.text,
                });
            }
            self.observer.waiting(&problem.text);
            // Callers that failed together do not return together.
            let random = u64::from(getrandom::u32().unwrap_or_default() % 1_000);
            tokio::select! {
                () = sleep(last + Duration::from_millis(random)) => {}
                () = self.stop.cancelled() => return Err(CallError::Stopped),
            }
        }
    }

    /// Sends a request once.
    async fn send(&self, client: &Client, name: &str, body: String) -> Response {
        let request = client
            .post(format!("{}{name}/", self.base))
            .header("content-type", "application/json")
            .header("blueking-language", "en")
            .header("x-bkapi-authorization", self.authorization.clone())
            .body(body);
        let answered = async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            let after = response.headers().get(RETRY_AFTER);
            let after = after.and_then(|seconds| seconds.to_str().ok()?.trim().parse().ok());
            Ok((status, after, response.bytes().await?))
        };
        match answered.await {
            Ok((status, after, body)) => classify_response(status, after, &body),
            Err::<_, reqwest::Error>(error) => {
                let text = error_chain(&error.without_url());
                Response::Again(Problem { text, is_rate_limit: false, after: None })
            }
        }
    }

    /// The source model and the target model of a model association. Of two with the same key, the
    /// one of the caller's tenant counts.
    pub async fn models(
        &self, client: &Client, model_association: &str, retry_timeout: Duration,
    ) -> anyhow::Result<[String; 2]> {
        let body = body(json!({"condition": {"bk_obj_asst_id": model_association}}));
        let found = self.call(client, "find_object_association", body, retry_timeout).await?;
        let found = found.as_array().cloned().unwrap_or_default();
        let tenant = self.common.get("bk_supplier_account").and_then(Value::as_str).unwrap_or("0");
        let is_own = |one: &&Value| one.get("bk_supplier_account") == Some(&tenant.into());
        let Some(one) = found.iter().find(is_own).or(found.first()) else {
            bail!(
                "the server has no model association {model_association} that the user may view; \
                 if there is one, name its models with --source-model and --target-model"
            );
        };
        let model = |key: &str| one.get(key).and_then(Value::as_str).map(str::to_owned);
        let models = model("bk_obj_id").zip(model("bk_asst_obj_id"));
        let (source, target) = models.context("the model association has no models")?;
        Ok([source, target])
    }

    /// Tells the observer something.
    pub fn notice(&self, text: &str) {
        self.observer.notice(text);
    }
}

/// The fields of a JSON object.
pub fn body(fields: Value) -> Map<String, Value> {
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// JSON text in ASCII, for a header.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            let units = character.encode_utf16(&mut [0; 2]).to_vec();
            text.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_a_header_is_ascii_and_has_the_same_meaning() {
        let value = json!({"bk_username": "张三 😀 \"x\""});
        let text = ascii(&value.to_string());
        assert!(text.is_ascii());
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
