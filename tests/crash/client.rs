//! Sending batches without a pause, and remembering what was said.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::{RwLock, watch};

const PATH: &str = "/api/c/compapi/v2/cc/batch_create_instance_association/";

/// A request, and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// The user that it is sent for: nobody else's.
    pub(crate) user: String,
    pub(crate) association: &'static str,
    pub(crate) details: Vec<(i64, i64)>,
    pub(crate) has_key: bool,
    /// The answer, once there is one with code 0.
    pub(crate) answer: Option<Value>,
    /// Whether it was sent again after a crash.
    pub(crate) was_asked_again: bool,
    /// Whether that answer repeated one that was lost.
    pub(crate) is_replayed: bool,
}

/// The clients together.
pub(crate) struct Load {
    client: Client,
    address: watch::Sender<String>,
    next: AtomicU64,
    /// Clients hold it to send; whoever writes makes them pause.
    gate: Arc<RwLock<()>>,
    held: Mutex<Option<tokio::sync::OwnedRwLockWriteGuard<()>>>,
    pub(crate) sent: Mutex<Vec<Sent>>,
    /// How many requests were answered by a refusal or not at all.
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
            held: Mutex::default(),
            sent: Mutex::default(),
            unanswered: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// A number that looks random.
    pub(crate) fn dice(&self, seed: u64) -> u64 {
        let mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 20
    }

    pub(crate) fn go_to(&self, address: &str) {
        self.address.send_replace(address.to_owned());
    }

    /// Waits until nothing is under way, and lets nobody begin.
    pub(crate) async fn pause(&self) {
        let guard = Arc::clone(&self.gate).write_owned().await;
        *self.held.lock().unwrap() = Some(guard);
    }

    pub(crate) fn resume(&self) {
        *self.held.lock().unwrap() = None;
    }

    /// Sends one batch after another until it is over.
    pub(crate) async fn send(self: Arc<Self>, seed: u64) {
        let mut roll = seed;
        let mut dice = |sides: u64| {
            roll = roll.wrapping_add(1_000_003);
            self.dice(roll) % sides
        };
        while !self.is_over.load(Ordering::SeqCst) {
            let _open = self.gate.read().await;
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let association =
                ["bk_switch_default_host", "bk_switch_connect_host", "bk_switch_run_host"]
                    [usize::try_from(dice(3)).unwrap()];
            let mut id = || i64::try_from(1 + dice(3_000)).unwrap();
            let mut details: Vec<_> = (0..200).map(|_| (id(), id())).collect();
            details.truncate(usize::try_from(1 + dice(200)).unwrap());
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let mut sent = Sent {
                user: format!("user-{number}"),
                association,
                details,
                has_key: number % 2 == 0,
                answer: None,
                was_asked_again: false,
                is_replayed: false,
            };
            self.post(&mut sent).await;
            if sent.answer.is_none() {
                self.unanswered.fetch_add(1, Ordering::SeqCst);
                // Whoever is refused comes back a little later.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            self.sent.lock().unwrap().push(sent);
        }
    }

    /// Sends a request and takes down its answer. One that was not answered leaves everything open.
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

    /// Sends again what has a key and was not answered.
    pub(crate) async fn ask_again(&self) {
        let open = |sent: &&Sent| sent.has_key && sent.answer.is_none();
        let open: Vec<_> = self.sent.lock().unwrap().iter().filter(open).cloned().collect();
        for mut sent in open {
            sent.was_asked_again = true;
            self.post(&mut sent).await;
            assert!(sent.answer.is_some(), "not answered after everything was up again: {sent:?}");
            let mut all = self.sent.lock().unwrap();
            let place = all.iter().position(|one| one.user == sent.user).unwrap();
            all[place] = sent;
        }
    }
}
