//! Clients that send writes and searches without a pause, and the record of the answers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::binary::Server;

/// The code and the secret of the application.
pub(crate) const APP: &str = "upgrade";

/// The refusal of a single link that exists.
const EXISTS: i64 = 1_199_014;

/// How long a request may be sent again, because its connections are closed or refused.
const RETRY_TIME: Duration = Duration::from_secs(10);

/// A link: its id, model association, source and target.
pub(crate) type Link = (i64, String, i64, i64);

/// What happened since the last step.
#[derive(Debug, Default)]
struct Step {
    answered: usize,
    /// Attempts that ended with a closed or refused connection.
    closed: usize,
    /// Answers that were replayed, because the first one was lost.
    replayed: usize,
    slowest: Duration,
}

/// The clients, and what they were answered.
pub(crate) struct Load {
    client: Client,
    addresses: watch::Sender<Vec<String>>,
    next: AtomicU64,
    step: Mutex<Step>,
    pub(crate) acknowledged: Mutex<BTreeSet<Link>>,
    pub(crate) failures: Mutex<Vec<String>>,
    pub(crate) is_over: AtomicBool,
}

impl Load {
    pub(crate) fn new() -> Self {
        Self {
            client: Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap(),
            addresses: watch::Sender::default(),
            next: AtomicU64::new(0),
            step: Mutex::default(),
            acknowledged: Mutex::default(),
            failures: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    /// Sets the servers, to which requests go in turn.
    pub(crate) fn send_to(&self, servers: &[&Server]) {
        let addresses = servers.iter().map(|server| server.address.clone()).collect();
        self.addresses.send_replace(addresses);
    }

    /// Waits, then prints what happened since the last step.
    pub(crate) async fn finish_step(&self, name: &str, time: Duration) {
        tokio::time::sleep(time).await;
        let Step { answered, closed, replayed, slowest } =
            std::mem::take(&mut *self.step.lock().unwrap());
        assert!(answered > 0, "{name}: no request was answered");
        println!(
            "{name}: {answered} requests answered, the slowest after {:.2} s; {closed} closed or \
             refused connections, {replayed} replayed answers",
            slowest.as_secs_f64()
        );
    }

    /// Sends one request after another until `is_over` is set.
    pub(crate) async fn send(self: Arc<Self>, seed: u64) {
        let mut state = seed;
        let mut random = |bound: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let mut id = || i64::try_from(1 + random(3_000)).unwrap();
        while !self.is_over.load(Ordering::SeqCst) {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            match number % 4 {
                0 => self.send_single(number, id(), id()).await,
                1 => self.search(number, id()).await,
                _ => self.send_batch(number, (0..50).map(|_| (id(), id())).collect()).await,
            }
        }
    }

    async fn send_single(&self, number: u64, source: i64, target: i64) {
        let key = "bk_switch_default_host";
        let body = json!({"bk_obj_asst_id": key, "bk_inst_id": source, "bk_asst_inst_id": target});
        let answer = self.post(number, "add_instance_association", body).await;
        if let Some(id) = answer["data"]["id"].as_i64() {
            self.acknowledge((id, key.to_owned(), source, target));
        }
    }

    async fn search(&self, number: u64, source: i64) {
        let rule = json!({"field": "bk_inst_id", "operator": "equal", "value": source});
        let body = json!({
            "bk_obj_id": "bk_switch", "page": {"start": 0, "limit": 100},
            "conditions": {"condition": "AND", "rules": [rule]},
        });
        self.post(number, "search_instance_associations", body).await;
    }

    async fn send_batch(&self, number: u64, details: Vec<(i64, i64)>) {
        let keys = ["bk_switch_default_host", "bk_switch_connect_host", "bk_switch_run_host"];
        let key = keys[usize::try_from(number % 3).unwrap()];
        let detail = |(s, t): &(i64, i64)| json!({"bk_inst_id": s, "bk_asst_inst_id": t});
        let body = json!({
            "bk_obj_id": "bk_switch", "bk_asst_obj_id": "host", "bk_obj_asst_id": key,
            "details": details.iter().map(detail).collect::<Vec<_>>(),
        });
        let answer = self.post(number, "batch_create_instance_association", body).await;
        for (index, id) in answer["data"]["success_created"].as_object().into_iter().flatten() {
            let (source, target) = details[index.parse::<usize>().unwrap()];
            self.acknowledge((id.as_i64().unwrap(), key.to_owned(), source, target));
        }
    }

    fn acknowledge(&self, link: Link) {
        let text = format!("{link:?} was acknowledged twice");
        assert!(self.acknowledged.lock().unwrap().insert(link), "{text}");
    }

    /// Sends a request until it is answered. Records a failure if the answer is not as expected.
    async fn post(&self, number: u64, endpoint: &str, mut body: Value) -> Value {
        body["bk_app_code"] = APP.into();
        body["bk_app_secret"] = APP.into();
        body["bk_username"] = format!("user-{number}").into();
        let started = Instant::now();
        for attempt in 0.. {
            let address = {
                let addresses = self.addresses.borrow();
                // Requests of each kind go to each server.
                let index = usize::try_from(number / 4).unwrap() + attempt;
                addresses[index % addresses.len()].clone()
            };
            let url = format!("http://{address}/api/c/compapi/v2/cc/{endpoint}/");
            let request = self.client.post(url).header("idempotency-key", "the-only-one");
            let error = match request.body(body.to_string()).send().await {
                Ok(response) => {
                    let status = response.status();
                    let is_replayed = response.headers().contains_key("idempotent-replayed");
                    match response.text().await {
                        Ok(text) => {
                            let mut step = self.step.lock().unwrap();
                            step.answered += 1;
                            step.replayed += usize::from(is_replayed);
                            step.slowest = step.slowest.max(started.elapsed());
                            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
                            let code = answer["code"].as_i64();
                            if status == 200 && (code == Some(0) || code == Some(EXISTS)) {
                                return answer;
                            }
                            self.failures.lock().unwrap().push(format!("{status} {text}"));
                            return Value::Null;
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if error.is_timeout() || started.elapsed() > RETRY_TIME {
                self.failures.lock().unwrap().push(format!("{error:?}"));
                return Value::Null;
            }
            self.step.lock().unwrap().closed += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!("the loop has no end")
    }
}
