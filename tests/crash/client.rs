//! Clients that send batches without a pause, and the record of their requests and answers.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::{RwLock, watch};

const PATH: &str = "/api/c/compapi/v2/cc/batch_create_instance_association/";

/// A request and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// The user name, which only this request has.
    pub(crate) user: String,
    pub(crate) association: &'static str,
    pub(crate) details: Vec<(i64, i64)>,
    pub(crate) has_key: bool,
    /// The answer, if one with code 0 has arrived.
    pub(crate) answer: Option<Value>,
    /// Whether the request was sent again after a crash.
    pub(crate) was_retried: bool,
    /// Whether the answer is a replay of one that was lost.
    pub(crate) is_replayed: bool,
}

/// The clients, and what they have sent.
pub(crate) struct Load {
    client: Client,
    address: watch::Sender<String>,
    next: AtomicU64,
    /// Clients hold a read lock while they send. The write lock pauses them.
    gate: Arc<RwLock<()>>,
    paused: Mutex<Option<tokio::sync::OwnedRwLockWriteGuard<()>>>,
    pub(crate) sent: Mutex<Vec<Sent>>,
    /// How many requests were refused with 503 or not answered.
    pub(crate) unanswered: AtomicUsize,
    pub(crate) is_over: AtomicBool,
}

impl Load {
    pub(crate) fn new(address: &str) -> Self {
        Self {
            client: Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap(),
            address: watch::Sender::new(address.to_owned()),
            next: AtomicU64::new(0),
            gate: Arc::default(),
            paused: Mutex::default(),
            sent: Mutex::default(),
            unanswered: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// A pseudo-random number.
    pub(crate) fn random(seed: u64) -> u64 {
        let mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 20
    }

    /// Sets the address of the server.
    pub(crate) fn send_to(&self, address: &str) {
        self.address.send_replace(address.to_owned());
    }

    /// Waits until no request is in flight, and keeps the clients from sending.
    pub(crate) async fn pause(&self) {
        let guard = Arc::clone(&self.gate).write_owned().await;
        *self.paused.lock().unwrap() = Some(guard);
    }

    pub(crate) fn resume(&self) {
        *self.paused.lock().unwrap() = None;
    }

    /// Sends one batch after another until `is_over` is set.
    pub(crate) async fn send(self: Arc<Self>, seed: u64) {
        let mut state = seed;
        let mut random = |bound: u64| {
            state = state.wrapping_add(1_000_003);
            Self::random(state) % bound
        };
        while !self.is_over.load(Ordering::SeqCst) {
            let _open = self.gate.read().await;
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let association =
                ["bk_switch_default_host", "bk_switch_connect_host", "bk_switch_run_host"]
                    [usize::try_from(random(3)).unwrap()];
            let mut id = || i64::try_from(1 + random(3_000)).unwrap();
            let mut details: Vec<_> = (0..200).map(|_| (id(), id())).collect();
            details.truncate(usize::try_from(1 + random(200)).unwrap());
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let mut sent = Sent {
                user: format!("user-{number}"),
                association,
                details,
                has_key: number.is_multiple_of(2),
                answer: None,
                was_retried: false,
                is_replayed: false,
            };
            self.post(&mut sent).await;
            if sent.answer.is_none() {
                self.unanswered.fetch_add(1, Ordering::SeqCst);
                // Wait a little after a refusal.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            self.sent.lock().unwrap().push(sent);
        }
    }

    /// Sends a request and records its answer. Without an answer its outcome is unknown.
    async fn post(&self, sent: &mut Sent) {
        let body = json!({
            "bk_app_code": "crash", "bk_app_secret": "crash", "bk_username": sent.user,
            "bk_obj_id": "bk_switch", "bk_asst_obj_id": "host", "bk_obj_asst_id": sent.association,
            "details": sent.details.iter().map(|(s, t)| json!({"bk_inst_id": s, "bk_asst_inst_id": t})).collect::<Vec<_>>(),
        });
        let url = format!("http://{}{PATH}", self.address.borrow().clone());
        let mut request = self.client.post(url).body(body.to_string());
        if sent.has_key {
            request = request.header("idempotency-key", "the-only-one");
        }
        let Ok(response) = request.send().await else { return };
        let is_replayed = response.headers().contains_key("idempotent-replayed");
        let Ok(text) = response.text().await else { return };
        let answer: Value = serde_json::from_str(&text).unwrap();
        match answer["code"].as_i64() {
            Some(0) => (sent.answer, sent.is_replayed) = (Some(answer), is_replayed),
            Some(1_306_201) => {}
            _ => panic!("{text}"),
        }
    }

    /// Sends the unanswered requests again that have an idempotency key.
    pub(crate) async fn retry_unanswered(&self) {
        let is_open = |sent: &&Sent| sent.has_key && sent.answer.is_none();
        let open: Vec<_> = self.sent.lock().unwrap().iter().filter(is_open).cloned().collect();
        for mut sent in open {
            sent.was_retried = true;
            // On a machine under load the first requests may still be answered with 503.
            for _ in 0..10 {
                self.post(&mut sent).await;
                if sent.answer.is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            assert!(sent.answer.is_some(), "not answered after the recovery: {sent:?}");
            let mut all = self.sent.lock().unwrap();
            let index = all.iter().position(|one| one.user == sent.user).unwrap();
            all[index] = sent;
        }
    }
}
