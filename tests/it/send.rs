//! The command `send`: against the server, and with a gateway between that fails on demand.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tower::ServiceExt;

use crate::app::{TestApp, assert_sound};
use crate::binary::{Output, Program, finish, without_settings};
use crate::socket::{LIMITS, open};

/// What happens to a request of a batch instead of an answer.
enum InjectedFailure {
    /// This answer is given, and the request is not forwarded.
    Answer(u16, &'static [(&'static str, &'static str)], String),
    /// The request is forwarded, and the connection breaks before the answer.
    Lost,
    /// The request is forwarded, and its answer is cut off by a proxy.
    CutOff,
}

/// A gateway in front of the server.
#[derive(Clone)]
struct Gateway {
    router: Router,
    /// What happens to the next requests of batches.
    failures: Arc<Mutex<VecDeque<InjectedFailure>>>,
    /// The bodies of all requests, with the names of their endpoints.
    requests: Arc<Mutex<Vec<(String, Value)>>>,
    /// Whether it has only the endpoints and fields of the original.
    is_original: bool,
    delay: Duration,
}

async fn forward(State(gateway): State<Gateway>, request: Request) -> Response {
    let name = request.uri().path().trim_matches('/').rsplit('/').next().unwrap().to_owned();
    let (mut head, body) = request.into_parts();
    let mut body = body.collect().await.unwrap().to_bytes();
    let mut fields: Value = serde_json::from_slice(&body).unwrap();
    gateway.requests.lock().unwrap().push((name.clone(), fields.clone()));
    let searches = ["find_object_association", "search_object_instances", "list_hosts_without_biz"];
    let is_batch = !searches.contains(&name.as_str());
    if gateway.is_original && is_batch && name != "batch_create_instance_association" {
        let answer = r#"{"result":false,"data":null,"message":"The content does not exist"}"#;
        return (StatusCode::NOT_FOUND, answer).into_response();
    }
    if gateway.is_original {
        for field in ["existing", "explain", "reason", "idempotency_key"] {
            fields.as_object_mut().unwrap().remove(field);
        }
        body = fields.to_string().into();
        head.headers.remove("content-length");
    }
    let failure = if is_batch { gateway.failures.lock().unwrap().pop_front() } else { None };
    if let Some(InjectedFailure::Answer(status, headers, body)) = failure {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        return response.body(body.into()).unwrap();
    }
    if is_batch {
        tokio::time::sleep(gateway.delay).await;
    }
    let answer = gateway.router.oneshot(Request::from_parts(head, Body::from(body))).await.unwrap();
    match failure {
        Some(InjectedFailure::Lost) => {
            let broken = std::io::Error::other("broken");
            let body = futures_util::stream::iter([Err::<Vec<u8>, _>(broken)]);
            Response::new(Body::from_stream(body))
        }
        Some(_) => Response::new(r#"{"result": true, "code": 0, "data": {"succ"#.into()),
        None => answer,
    }
}

/// A server, a gateway in front of it, and a folder with files to send.
struct SendTest {
    app: TestApp,
    gateway: Gateway,
    endpoint: String,
    folder: TempDir,
}

impl SendTest {
    async fn new(pool: PgPool) -> Self {
        Self::with(pool, |_| ()).await
    }

    async fn with(pool: PgPool, change: impl FnOnce(&mut Gateway)) -> Self {
        let app = TestApp::new(pool).await;
        let mut gateway = Gateway {
            router: app.router.clone(),
            failures: Arc::default(),
            requests: Arc::default(),
            is_original: false,
            delay: Duration::ZERO,
        };
        change(&mut gateway);
        let router = Router::new().fallback(forward).with_state(gateway.clone());
        let endpoint = format!("http://{}", open(router, LIMITS).await);
        Self { app, gateway, endpoint, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The command that sends a file under the n:n association, unless `args` name another.
    fn command(&self, file: &str, args: &[&str]) -> Command {
        let mut command = without_settings();
        command.current_dir(self.folder.path()).args(["send", file, "--endpoint", &self.endpoint]);
        if !args.contains(&"--model-association") {
            command.args(["--model-association", "bk_switch_default_host"]);
        }
        command.args(args).envs([
            ("CMDB_APP_CODE", "esb_test"),
            ("CMDB_APP_SECRET", "xxx"),
            ("CMDB_USERNAME", "admin"),
        ]);
        command
    }

    async fn send(&self, file: &str, args: &[&str]) -> Output {
        let mut command = self.command(file, args);
        spawn_blocking(move || finish(&mut command, "")).await.unwrap()
    }

    /// Starts the command, and does not wait for its end.
    fn start(&self, file: &str, args: &[&str]) -> Child {
        let mut command = self.command(file, args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Sends a file. Returns the exit code and the table.
    async fn sent(&self, file: &str, args: &[&str]) -> (i32, String) {
        let output = self.send(file, args).await;
        assert_ne!(output.status, 2, "{}", output.stderr);
        (output.status, output.stdout)
    }

    /// Sends a file, which fails. Returns the message.
    async fn failed(&self, file: &str, args: &[&str]) -> String {
        let output = self.send(file, args).await;
        assert_eq!((output.status, output.stdout.as_str()), (2, ""), "{}", output.stderr);
        output.stderr
    }

    async fn links(&self) -> i64 {
        self.app.count("select count(*) from cmdb.instance_association").await
    }

    /// The idempotency keys of the batches that were requested.
    fn keys(&self) -> Vec<String> {
        let requests = self.gateway.requests.lock().unwrap();
        let key = |(_, body): &(String, Value)| Some(body["idempotency_key"].as_str()?.to_owned());
        requests.iter().filter_map(key).collect()
    }

    /// The name of the endpoint of the last request, and its body.
    fn last_request(&self) -> (String, Value) {
        self.gateway.requests.lock().unwrap().last().unwrap().clone()
    }

    fn fail(&self, failures: impl IntoIterator<Item = InjectedFailure>) {
        self.gateway.failures.lock().unwrap().extend(failures);
    }
}

/// Waits until this is so.
async fn until(condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.unwrap();
}

/// Rows of distinct pairs.
fn pairs(count: usize) -> String {
    let row = |n| format!("{},{}\n", n / 300 + 1, n % 300 + 1);
    (0..count).map(row).collect::<Vec<_>>().concat()
}

fn created(count: usize) -> (i32, String) {
    (0, format!("created\t\t\t{count}\n"))
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn refused_rows_are_in_a_file_that_can_be_mended_and_sent_again(pool: PgPool) {
    let test = SendTest::new(pool).await;
    let special = "7,7,\"a, b\"\n7,7\n7,999\n\n1.5,2\n9\n";
    test.write("links.csv", format!("switch,host,note\n{}{special}", pairs(250)));
    // With one connection, the first of two equal rows is the one that is created.
    let (status, table) = test.sent("links.csv", &["--connections", "1"]).await;
    assert_eq!(status, 1);
    let expected = [
        "created\t\t\t251",
        "refused\t\tnot_an_id\t1",
        "refused\t\ttoo_few_columns\t1",
        "refused\t1101038\talready_exists\t1",
        "refused\t1101074\ttarget_missing\t1",
    ];
    assert_eq!(table.lines().collect::<Vec<_>>(), expected);
    let failed = test.read("links.failed.csv");
    let lines: Vec<_> = failed.lines().collect();
    assert_eq!(lines[0], "source_id,target_id,note,code,reason,blocking_id,message");
    // The second batch has created the 251st link.
    let existing = "7,7,,1101038,already_exists,251,the associations bk_switch->host already exist";
    assert_eq!(lines[1], existing);
    let missing = "7,999,,1101074,target_missing,,Associated instance does not exist";
    assert_eq!(lines[2], missing);
    assert!(lines[3].starts_with("1.5,2,,,not_an_id,,"), "{failed}");
    assert!(lines[4].starts_with("9,,,,too_few_columns,,"), "{failed}");
    assert_eq!(lines.len(), 5);

    let mended = failed.replace("7,999", "8,8").replace("1.5,2", "8,9").replace("\n9,,", "\n9,9,");
    test.write("links.failed.csv", mended.replace("7,7,", "7,8,"));
    assert_eq!(test.sent("links.failed.csv", &[]).await, created(4));
    assert!(!test.path("links.failed.failed.csv").exists());
    assert_eq!(test.links().await, 255);
    assert_sound(&test.app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_run_that_was_killed_goes_on_and_creates_nothing_twice(pool: PgPool) {
    let test = SendTest::with(pool, |gateway| gateway.delay = Duration::from_millis(50)).await;
    test.write("links.csv", pairs(6_000));
    for requests in [3, 9, 15] {
        let mut child = test.start("links.csv", &["--connections", "4"]);
        until(async || test.keys().len() >= requests).await;
        child.kill().unwrap();
        spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    }
    // As if the last write had been cut off by a power cut.
    let stored = fs::read(test.path("links.progress")).unwrap();
    test.write("links.progress", &stored[..stored.len() - 5]);
    let output = test.send("links.csv", &["--connections", "4"]).await;
    assert!(output.stderr.contains("continuing: "), "{}", output.stderr);
    assert_eq!((output.status, output.stdout), created(6_000));
    assert_eq!(test.links().await, 6_000);
    let mut keys = test.keys();
    let requests = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 30);
    assert!((31..60).contains(&requests), "{requests} requests");
    assert!(!test.read("links.progress").contains("xxx"));
    assert_sound(&test.app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_second_ctrl_c_stops_a_run_at_once(pool: PgPool) {
    let test = SendTest::with(pool, |gateway| gateway.delay = Duration::from_secs(8)).await;
    test.write("links.csv", pairs(4_000));
    let mut child = test.start("links.csv", &[]);
    until(async || !test.keys().is_empty()).await;
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let interrupt = || {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    };
    interrupt();
    assert!(stderr.any(|line| line.unwrap().contains("stopping: ")));
    interrupt();
    let stopped = std::time::Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert!(stopped.elapsed() < Duration::from_secs(5));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn ctrl_c_stops_a_run_after_the_answers_and_the_same_command_goes_on(pool: PgPool) {
    let test = SendTest::with(pool, |gateway| gateway.delay = Duration::from_millis(100)).await;
    test.write("links.csv", pairs(4_000));
    let child = test.start("links.csv", &["--connections", "2"]);
    until(async || test.keys().len() >= 4).await;
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let output = spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(2), Vec::new()), "{stderr}");
    assert!(stderr.contains("interrupted: the same command goes on"), "{stderr}");
    let sent = test.keys().len();
    assert_eq!(test.sent("links.csv", &[]).await, created(4_000));
    // All batches that were sent were answered, so none was sent twice.
    assert_eq!(test.keys().len(), 20);
    assert!(sent < 20);
    assert_eq!(test.links().await, 4_000);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn what_may_pass_is_sent_again_until_it_is_answered(pool: PgPool) {
    let test = SendTest::new(pool).await;
    let refusal = |code, message| {
        json!({"result": false, "code": code, "message": message, "data": null}).to_string()
    };
    test.fail([
        InjectedFailure::Answer(
            503,
            &[("retry-after", "2")],
            refusal(1_306_201, "Postgres is unavailable"),
        ),
        InjectedFailure::Answer(
            429,
            &[("retry-after", "1")],
            refusal(1_306_429, "Access frequency limit"),
        ),
        InjectedFailure::Answer(
            200,
            &[],
            refusal(1_306_201, "Component request third-party system [CC]"),
        ),
        InjectedFailure::Answer(200, &[], refusal(1_306_429, "Access frequency limit")),
        InjectedFailure::Answer(200, &[], refusal(1_306_000, "Request interface error, …")),
        InjectedFailure::Answer(502, &[], "<html>".to_owned()),
        InjectedFailure::Lost,
        InjectedFailure::CutOff,
    ]);
    test.write("links.csv", pairs(2_000));
    let output = test.send("links.csv", &[]).await;
    assert!(output.stderr.contains("sending again: "), "{}", output.stderr);
    assert_eq!((output.status, output.stdout), created(2_000));
    assert_eq!(test.keys().len(), 18);
    assert_eq!(test.links().await, 2_000);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_run_that_is_refused_can_go_on_and_only_with_the_same_file_and_flags(pool: PgPool) {
    let test = SendTest::new(pool).await;
    test.write("links.csv", pairs(600));
    let refusal = json!({"code": 1_306_000, "message": "APP Secret verification failed"});
    // The first request may have created something, so the run is kept.
    let refused = InjectedFailure::Answer(200, &[], refusal.to_string());
    test.fail([InjectedFailure::Lost, refused]);
    let args = ["--connections", "1"];
    let message = test.failed("links.csv", &args).await;
    assert!(message.contains("the same command goes on"), "{message}");
    assert!(message.contains("rows 1 to 200: "), "{message}");
    assert!(message.contains("1306000: APP Secret verification failed"), "{message}");

    let message = test.failed("links.csv", &["--existing", "created"]).await;
    assert!(message.contains("was started with another --existing"), "{message}");
    test.write("links.csv", pairs(601));
    let message = test.failed("links.csv", &args).await;
    assert!(message.contains("was started with another content of the file"), "{message}");
    test.write("links.csv", pairs(600));
    // The number of connections may change.
    assert_eq!(test.sent("links.csv", &[]).await, created(600));
    // A finished run starts a new one.
    let (status, table) = test.sent("links.csv", &args).await;
    assert_eq!(
        (status, table.as_str()),
        (1, "created\t\t\t0\nrefused\t1101038\talready_exists\t600\n")
    );
    let runs = test.keys().into_iter().map(|key| key.split_once('-').unwrap().0.to_owned());
    let mut runs: Vec<_> = runs.collect();
    runs.dedup();
    assert_eq!(runs.len(), 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_run_that_created_nothing_can_be_started_again_with_other_flags(pool: PgPool) {
    let mut test = SendTest::new(pool).await;
    test.write("links.csv", pairs(600));
    let endpoint = std::mem::replace(&mut test.endpoint, "paas.example.com".to_owned());
    let message = test.failed("links.csv", &[]).await;
    assert!(message.contains("--endpoint: it should look like"), "{message}");
    assert!(!test.path("links.progress").exists());
    test.endpoint = endpoint;
    let message = test.failed("links.csv", &["--reason", &"x".repeat(201)]).await;
    assert!(message.contains("1199000"), "{message}");
    assert!(!test.path("links.progress").exists());
    assert_eq!(test.sent("links.csv", &["--reason", "x"]).await, created(600));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_file_that_changes_while_it_is_sent_stops_the_run_and_no_row_is_lost(pool: PgPool) {
    let test = SendTest::with(pool, |gateway| gateway.delay = Duration::from_millis(50)).await;
    test.write("links.csv", pairs(20_000));
    let child = test.start("links.csv", &["--connections", "2"]);
    until(async || test.keys().len() >= 3).await;
    // More than the program has read ahead is cut off.
    test.write("links.csv", pairs(15_000));
    let output = spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("links.csv was changed while it was sent"), "{stderr}");
    test.write("links.csv", pairs(20_000));
    assert_eq!(test.sent("links.csv", &[]).await, created(20_000));
    assert_eq!(test.links().await, 20_000);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn names_are_resolved_and_ambiguous_and_unknown_ones_are_refused(pool: PgPool) {
    let test = SendTest::new(pool).await;
    let rename = "update cmdb.instance set name = case instance_id when 3 then '交换机 3' \
                  else 'twin' end where instance_id in (3, 4, 5) and name like 'bk_switch-%'";
    sqlx::query(rename).execute(&test.app.pool).await.unwrap();
    let pairs = (10..300).map(|n| format!("bk_switch-{n},host-{n}\n")).collect::<Vec<_>>();
    let special = "交换机 3,host-1\ntwin,host-2\nbk_switch-1,host-999\n";
    let rows = format!("{special}{}", pairs.concat());
    test.write("links.csv", format!("\u{feff}bk_inst_name,bk_host_innerip\n{rows}"));
    let (status, table) = test.sent("links.csv", &[]).await;
    let refused = "refused\t\tambiguous_name\t1\nrefused\t\tunknown_name\t1\n";
    assert_eq!((status, table), (1, format!("created\t\t\t291\n{refused}")));
    let failed = test.read("links.failed.csv");
    let lines: Vec<_> = failed.lines().collect();
    let header = "\u{feff}bk_inst_name,bk_host_innerip,code,reason,blocking_id,message";
    assert_eq!(lines[0], header);
    let several =
        "twin,host-2,,ambiguous_name,,several instances of model bk_switch have the name twin";
    assert_eq!(lines[1], several);
    assert!(lines[2].starts_with("bk_switch-1,host-999,,unknown_name,,"), "{failed}");
    let linked =
        "select count(*) from cmdb.instance_association where source_id = 3 and target_id = 1";
    assert_eq!(test.app.count(linked).await, 1);

    // Ids of one model, names of the other.
    test.write("mixed.csv", "1,host-3\n2,host-4\n");
    assert_eq!(test.sent("mixed.csv", &[]).await, created(2));
}

/// Without the stored ids, the second attempt would be another request under the same key.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_batch_of_names_is_sent_again_with_the_ids_of_the_first_attempt(pool: PgPool) {
    let test = SendTest::new(pool).await;
    test.write("links.csv", "bk_switch-1,host-1\nbk_switch-2,host-2\n");
    test.fail([InjectedFailure::Lost]);
    let mut child = test.start("links.csv", &[]);
    until(async || test.links().await == 2).await;
    // Before it is sent again, after 2 s.
    child.kill().unwrap();
    spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    let rename = "update cmdb.instance set name = 'renamed' where name = 'host-2'";
    sqlx::query(rename).execute(&test.app.pool).await.unwrap();
    assert_eq!(test.sent("links.csv", &[]).await, created(2));
    assert_eq!(test.links().await, 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_file_is_utf_8_with_or_without_a_byte_order_mark(pool: PgPool) {
    let test = SendTest::new(pool).await;
    test.write("gbk.csv", b"\xbd\xbb\xbb\xbb\xbb\xfa,\xd6\xf7\xbb\xfa\n1,2\n");
    let message = test.failed("gbk.csv", &[]).await;
    assert!(
        message.contains("gbk.csv, line 1: the file is not UTF-8; it looks like GBK"),
        "{message}"
    );
    assert!(!test.path("gbk.progress").exists());
    assert_eq!(test.keys().len(), 0);
    test.write("bom.csv", "\u{feff}交换机,主机\r\n1,2\r\n\"3\",\"4\"\r\n");
    assert_eq!(test.sent("bom.csv", &[]).await, created(2));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_original_works_and_what_it_cannot_do_is_said(pool: PgPool) {
    let test = SendTest::with(pool, |gateway| gateway.is_original = true).await;
    test.write("links.csv", "1,1\n1,1\n2,2\n");
    for flag in ["--dry-run", "--atomic"] {
        let message = test.failed("links.csv", &[flag]).await;
        let needs = format!("which {flag} needs. The original has none");
        assert!(message.contains(&needs), "{message}");
        // Nothing was sent, so another command can follow.
        assert!(!test.path("links.progress").exists());
    }
    assert_eq!(test.links().await, 0);
    let args = ["--existing", "created"];
    let output = test.send("links.csv", &args).await;
    assert!(output.stderr.contains("does not recognize a batch"), "{}", output.stderr);
    let expected = "created\t\t\t2\nexisting\t\t\t1\n";
    assert_eq!((output.status, output.stdout.as_str()), (0, expected));
    assert_eq!(test.links().await, 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_dry_run_says_what_would_happen_and_creates_nothing(pool: PgPool) {
    let test = SendTest::new(pool).await;
    let one_to_n = ["--model-association", "bk_switch_connect_host"];
    test.write("links.csv", "1,1\n2,2\n");
    assert_eq!(test.sent("links.csv", &one_to_n).await, created(2));
    test.write("links.csv", "1,1\nx,2\n3,3\n1,2\n4,3\n3,3\n");
    let args = ["--existing", "created", "--reason", "move 42", "--dry-run"];
    let (status, table) = test.sent("links.csv", &[&one_to_n[..], &args].concat()).await;
    let expected = [
        "would be created\t\t\t1",
        "existing\t\t\t2",
        "refused\t\tnot_an_id\t1",
        "refused\t1101061\ttarget_taken\t2",
    ];
    assert_eq!((status, table.lines().collect::<Vec<_>>()), (1, expected.to_vec()));
    assert!(!test.path("links.failed.csv").exists());
    let failed = test.read("links.dry-run.failed.csv");
    // The second one is refused because of a link that does not exist yet.
    for start in ["1,2,1101061,target_taken,2,\"The", "4,3,1101061,target_taken,,\"The"] {
        assert!(failed.lines().any(|line| line.starts_with(start)), "{failed}");
    }
    assert!(test.path("links.dry-run.progress").exists());
    let (name, body) = test.last_request();
    assert_eq!(name, "check_instance_associations");
    let fields = ["existing", "explain", "reason", "idempotency_key"].map(|key| &body[key]);
    assert_eq!(json!(fields), json!(["created", true, "move 42", null]));
    assert_eq!(test.links().await, 2);
    assert_eq!(test.app.count("select count(*) from cmdb.audit_log").await, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn of_an_atomic_batch_with_a_refused_row_nothing_is_created(pool: PgPool) {
    let test = SendTest::new(pool).await;
    let rows = pairs(600);
    let rows: Vec<_> = rows.lines().collect();
    let replaced = |row: usize, cells: &'static str| {
        let mut rows = rows.clone();
        rows[row] = cells;
        rows.join("\n")
    };
    // A row that is not sent refuses its batch, too.
    test.write("links.csv", replaced(0, "x,1"));
    let (status, table) = test.sent("links.csv", &["--atomic"]).await;
    let expected = "created\t\t\t400\nrefused\t\tbatch_refused\t199\nrefused\t\tnot_an_id\t1\n";
    assert_eq!((status, table.as_str()), (1, expected));
    assert_eq!(test.links().await, 400);

    test.write("links.csv", replaced(7, "7,999"));
    let args = ["--atomic", "--existing", "created", "--reason", "move 42"];
    let (status, table) = test.sent("links.csv", &args).await;
    let expected = "created or existing\t\t\t400\nrefused\t\tbatch_refused\t199\n\
                    refused\t1101074\ttarget_missing\t1\n";
    assert_eq!((status, table.as_str()), (1, expected));
    assert_eq!(test.links().await, 400);

    let mended = test.read("links.failed.csv").replace("7,999", "7,9");
    test.write("links.failed.csv", mended);
    assert_eq!(test.sent("links.failed.csv", &args).await.0, 0);
    let (name, body) = test.last_request();
    assert_eq!(name, "create_instance_associations_atomic");
    assert!(body["idempotency_key"].as_str().unwrap().ends_with("-0"));
    let reasons = "select count(*) from cmdb.audit_log where reason = 'move 42'";
    assert_eq!((test.links().await, test.app.count(reasons).await), (600, 1));
    assert_sound(&test.app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn credentials_come_from_the_environment_or_a_file(pool: PgPool) {
    let test = SendTest::new(pool).await;
    test.write("links.csv", "1,1\n");
    test.write("secret", "xxx\n");
    let run = async |set: &[(&str, &str)], removed: &str| {
        let mut command = test.command("links.csv", &[]);
        command.envs(set.iter().copied()).env_remove(removed);
        spawn_blocking(move || finish(&mut command, "")).await.unwrap()
    };
    let file = ("CMDB_APP_SECRET_FILE", "secret");
    let output = run(&[file], "CMDB_APP_SECRET").await;
    assert_eq!((output.status, output.stdout.as_str()), (0, "created\t\t\t1\n"));
    let both = run(&[file], "NOTHING").await;
    assert!(both.stderr.contains("CMDB_APP_SECRET and CMDB_APP_SECRET_FILE are both set"));
    for (name, message) in [
        ("CMDB_APP_CODE", "CMDB_APP_CODE is not set"),
        ("CMDB_APP_SECRET", "CMDB_APP_SECRET is not set"),
        ("CMDB_USERNAME", "CMDB_USERNAME and CMDB_BK_TOKEN are not set"),
    ] {
        let output = run(&[], name).await;
        assert_eq!(output.status, 2);
        assert!(output.stderr.contains(message), "{}", output.stderr);
    }
    let wrong = run(&[("CMDB_APP_SECRET", "very-wrong")], "NOTHING").await;
    assert!(wrong.stderr.contains("APP Secret verification failed"), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("very-wrong"));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_unknown_model_association_and_rows_without_a_permission_are_named(pool: PgPool) {
    let test = SendTest::new(pool).await;
    test.write("links.csv", "1,1\n2,2\n");
    let message = test.failed("links.csv", &["--model-association", "nothing"]).await;
    assert!(message.contains("the server has no model association nothing"), "{message}");

    sqlx::query("delete from cmdb.permission_grant").execute(&test.app.pool).await.unwrap();
    let program = Program::on(&test.app.pool);
    let args = "grant add --user admin --model host";
    assert_eq!(program.run(&args.split(' ').collect::<Vec<_>>()).status, 0);
    let args = "grant add --user admin --model bk_switch --instance 1";
    assert_eq!(program.run(&args.split(' ').collect::<Vec<_>>()).status, 0);
    let args = ["--source-model", "bk_switch", "--target-model", "host"];
    let (status, table) = test.sent("links.csv", &args).await;
    let expected = "created\t\t\t0\nrefused\t9900403\tpermission\t2\n";
    assert_eq!((status, table.as_str()), (1, expected));
    assert!(test.read("links.failed.csv").contains("Instances: 2"));
}
