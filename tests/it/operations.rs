//! What operators see: metrics, traces, the listener of their own, TLS and its renewal.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use cmdb_associations::http::TrustedSources;
use cmdb_associations::server::{Tls, TlsFiles};
use cmdb_associations::service::limit::Limiter;
use cmdb_associations::telemetry::metrics::Metrics;
use serde_json::json;
use sqlx::PgPool;
use tokio::net::{TcpListener, TcpStream};

use crate::app::{PATH, TestApp, batch};
use crate::binary::Program;
use crate::guards::hold_writers;
use crate::socket::{LIMITS, open};
use crate::tidy::files;

/// The value of a series in Prometheus' text format.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

/// The test's own counting: a test runs on one thread.
fn counting() -> (metrics::LocalRecorderGuard<'static>, Metrics) {
    let (recorder, counted) = Metrics::new().unwrap();
    let guard = metrics::set_default_local_recorder(Box::leak(Box::new(recorder)));
    counted.describe();
    (guard, counted)
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn requests_and_details_are_counted_by_what_became_of_them(pool: PgPool) {
    let (_guard, counted) = counting();
    let app = TestApp::new(pool).await;
    let text = counted.render();
    assert!(
        (value(&text, r#"cmdb_details_total{verdict="created"}"#)).abs() < 0.5,
        "zero at first"
    );
    app.post(batch("bk_switch_default_host", &[(1, 1), (1, 1), (1, 999_999), (999_999, 1)])).await;
    app.post(json!({"bk_obj_id": "bk_switch"})).await;
    let key = [("idempotency-key", "k")];
    for _ in 0..2 {
        app.post_with(&key, batch("bk_switch_default_host", &[(2, 2)])).await;
    }
    let text = counted.render();
    let of = |series: &str| value(&text, series);
    for (verdict, count) in [
        ("created", 2.0),
        ("already_exists", 1.0),
        ("source_missing", 1.0),
        ("target_missing", 1.0),
    ] {
        let series = format!(r#"cmdb_details_total{{verdict="{verdict}"}}"#);
        assert!((of(&series) - count).abs() < 0.5, "{series}: {}", of(&series));
    }
    let requests = |code: &str| {
        of(&format!(r#"cmdb_requests_total{{route="{PATH}",status="200",code="{code}"}}"#))
    };
    assert!((requests("0") - 3.0).abs() < 0.5 && (requests("1199011") - 1.0).abs() < 0.5, "{text}");
    assert!(of(&format!(r#"cmdb_request_duration_seconds_count{{route="{PATH}"}}"#)) > 3.5);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn what_is_refused_for_its_amount_is_counted(pool: PgPool) {
    let (_guard, counted) = counting();
    TestApp::new(pool.clone()).await;
    let app = Arc::new(TestApp::with_places(pool.clone(), 1));
    let holder = hold_writers(&pool).await;
    let waiting = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.post(batch("bk_switch_default_host", &[(1, 1)])).await }
    });
    crate::guards::many_wait(&pool, 1).await;
    assert_eq!(app.post(batch("bk_switch_default_host", &[(2, 2)])).await.status, 503);
    assert!((value(&counted.render(), "cmdb_requests_shed_total") - 1.0).abs() < 0.5);
    holder.rollback().await.unwrap();
    waiting.await.unwrap();
    let limited = TestApp::with(pool.clone(), TrustedSources::default(), |service| {
        service.limiter = Some(Limiter::new(NonZeroU32::MIN));
    });
    sqlx::query("delete from app").execute(&pool).await.unwrap();
    let limited = limited.await;
    let pairs: Vec<_> = (1..=200).map(|n| (n, 100)).collect();
    assert_eq!(limited.post(batch("bk_switch_default_host", &pairs)).await.status, 200);
    assert_eq!(limited.post(batch("bk_switch_default_host", &pairs)).await.status, 429);
    assert!((value(&counted.render(), "cmdb_requests_limited_total") - 1.0).abs() < 0.5);
    // The only connections are taken: whoever comes waits in vain.
    let mut held = Vec::new();
    for _ in 0..app.serving.status().limit {
        held.push(app.serving.acquire().await.unwrap());
    }
    assert_eq!(app.post(batch("bk_switch_default_host", &[(3, 3)])).await.status, 503);
    assert!((value(&counted.render(), "cmdb_database_timeouts_total") - 1.0).abs() < 0.5);
}

/// Whatever is sent, the labels are ours.
#[sqlx::test]
async fn no_label_comes_from_a_request(pool: PgPool) {
    let (_guard, counted) = counting();
    let app = TestApp::on(pool);
    for path in ["/marker", "/api/marker", "/api/c/compapi/v2/cc/marker?marker=1"] {
        let request = axum::http::Request::builder().method("MARKER").uri(path);
        app.send(request.body(axum::body::Body::empty()).unwrap()).await;
    }
    app.post(json!({"bk_app_code": "marker", "bk_obj_id": "marker"})).await;
    let text = counted.render();
    assert!(text.contains(r#"route="other",status="404""#), "{text}");
    assert!(!text.to_lowercase().contains("marker"), "{text}");
}

/// Every name in `deploy` is one that the server has, and the other way round.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn the_files_for_operators_name_metrics_that_there_are(pool: PgPool) {
    let (_guard, counted) = counting();
    let app = TestApp::new(pool).await;
    app.post(batch("bk_switch_default_host", &[(1, 1)])).await;
    app.get("/metrics").await;
    let rendered = counted.render();
    let mut known: BTreeSet<_> = rendered
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    // These need TLS, and the program's own layers of spans.
    known.extend(
        ["cmdb_tls_certificate_expiry_seconds", "cmdb_statement_duration_seconds"]
            .map(String::from),
    );
    let mut found = 0;
    let pages = [["docs/operators.md".into(), "README.md".into()].to_vec(), files("deploy", "")];
    for path in pages.concat() {
        let text = std::fs::read_to_string(&path).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        for word in words.filter(|word| word.starts_with("cmdb_") || word.starts_with("process_")) {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            let is_known = known.contains(word) || base.is_some_and(|base| known.contains(base));
            assert!(is_known || word == "process_", "{}: {word}", path.display());
            found += 1;
        }
    }
    assert!(found > 20, "{found}");
}

#[sqlx::test]
async fn operators_are_served_at_their_own_address_and_nowhere_else(pool: PgPool) {
    let program = Program::on(&pool);
    let server = program.serve(&["--ops-listen", "127.0.0.1:0"]);
    let operators = server.operators.clone().unwrap();
    let status = async |url: String| reqwest::get(url).await.unwrap().status().as_u16();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(status(format!("http://{operators}{path}")).await, 200, "{path}");
        assert_eq!(status(server.url(path)).await, 404, "{path}");
    }
    assert_eq!(status(format!("http://{operators}{PATH}")).await, 404);
    let text =
        reqwest::get(format!("http://{operators}/metrics")).await.unwrap().text().await.unwrap();
    assert!(value(&text, "cmdb_ready") > 0.5);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    let asked =
        program.run(&["healthcheck", "--listen", &server.address, "--ops-listen", &operators]);
    assert_eq!(asked.status, 0, "{}", asked.stderr);
    assert_eq!(program.run(&["healthcheck", "--listen", &server.address]).status, 1);
}

/// A certificate for `localhost` that signed itself.
fn certify(folder: &Path) -> TlsFiles {
    let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&files.key)
        .arg("-out")
        .arg(&files.certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    files
}

fn client_that_trusts(files: &TlsFiles) -> reqwest::Client {
    client_of(&std::fs::read(&files.certificate).unwrap())
}

fn client_of(certificate: &[u8]) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(certificate).unwrap();
    // A connection each: what was agreed on one is kept.
    let client = reqwest::Client::builder().tls_certs_only([root]).pool_max_idle_per_host(0);
    client.build().unwrap()
}

#[sqlx::test]
async fn clients_speak_tls_where_there_is_a_certificate(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let files = certify(folder.path());
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (certificate, key) = (path(&files.certificate), path(&files.key));
    let program = Program::on(&pool);
    let args = ["--tls-certificate", &certificate, "--tls-key", &key];
    let server = program.serve(&args);
    let url = format!("https://{}/readyz", server.address.replace("127.0.0.1", "localhost"));
    assert_eq!(client_that_trusts(&files).get(&url).send().await.unwrap().status(), 200);
    assert!(reqwest::get(server.url("/readyz")).await.is_err(), "it is not served in the clear");
    let metrics = client_that_trusts(&files).get(url.replace("readyz", "metrics")).send().await;
    let expiry =
        value(&metrics.unwrap().text().await.unwrap(), "cmdb_tls_certificate_expiry_seconds");
    let now = "select extract(epoch from now())::double precision";
    let now: f64 = sqlx::query_scalar(now).fetch_one(&pool).await.unwrap();
    assert!((expiry - now - 2.0 * 86_400.0).abs() < 3_600.0, "{expiry}");
    let listen = ["healthcheck", "--listen", &server.address];
    let asked = program.run(&[&listen[..], &args[..]].concat());
    assert_eq!(asked.status, 0, "{}", asked.stderr);
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let first = certify(folder.path());
    let tls = Tls::new(first.clone()).unwrap();
    let acceptor = tls.acceptor();
    let old = std::fs::read(&first.certificate).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (draining, _) = tokio::sync::watch::channel(false);
    let router = Router::new().route("/", get(async || "ok"));
    let socket = cmdb_associations::server::Socket { listener, tls: Some(acceptor) };
    let tracker = tokio_util::task::TaskTracker::new();
    tokio::spawn(cmdb_associations::server::serve(
        socket,
        router,
        LIMITS,
        tracker,
        draining,
        std::future::pending(),
    ));
    tokio::spawn(tls.renew(Duration::from_millis(10)));
    let url = format!("https://localhost:{port}/");
    assert_eq!(client_of(&old).get(&url).send().await.unwrap().status(), 200);
    // Half written: the last one stays.
    std::fs::write(&first.certificate, "-----BEGIN CERT").unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client_of(&old).get(&url).send().await.unwrap().status(), 200);
    let new = client_that_trusts(&certify(folder.path()));
    let started = Instant::now();
    while new.get(&url).send().await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "it is not renewed");
    }
    assert!(client_of(&old).get(&url).send().await.is_err());
    // Whoever says nothing is no hindrance to others.
    let _silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert_eq!(new.get(&url).send().await.unwrap().status(), 200);
}

#[sqlx::test]
async fn tls_files_of_no_use_are_refused_with_their_names(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let files = certify(folder.path());
    let (certificate, key) = (files.certificate.to_str().unwrap(), files.key.to_str().unwrap());
    let other = tempfile::tempdir().unwrap();
    let stranger = certify(other.path());
    for (certificate, key, why) in [
        ("/nowhere", key, "cannot read /nowhere"),
        (key, key, "holds no certificate"),
        (certificate, certificate, "holds no private key"),
        (certificate, stranger.key.to_str().unwrap(), "certificate and key are of no use"),
    ] {
        let mut program = Program::on(&pool).command(&["serve"]);
        program.env("CMDB_TLS_CERTIFICATE", certificate).env("CMDB_TLS_KEY", key);
        let output = crate::binary::finish(&mut program, "");
        assert_eq!(output.status, 2);
        assert!(
            output.stderr.contains(why) && output.stderr.contains("CMDB_TLS_"),
            "{}",
            output.stderr
        );
    }
}

/// Spans arrive at a collector, in the caller's trace, and the trace goes on to the login service.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_is_a_span_with_its_steps_in_the_callers_trace(pool: PgPool) {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let exported = Arc::new(Mutex::new(Vec::new()));
    let passed_on = Arc::new(Mutex::new(String::new()));
    let (taken, told) = (Arc::clone(&exported), Arc::clone(&passed_on));
    let collector = Router::new()
        .route("/v1/traces", post(async move |body: Bytes| taken.lock().unwrap().extend(body)))
        .route(
            "/login/accounts/is_login/",
            get(async move |headers: HeaderMap| {
                let parent = headers["traceparent"].to_str().unwrap();
                parent.clone_into(&mut told.lock().unwrap());
                r#"{"result": true, "data": {"bk_username": "admin"}}"#
            }),
        );
    let address = format!("http://{}", open(collector, LIMITS).await);
    let program = Program::on(&pool);
    let secret = program.run(&["app", "add", "demo"]).stdout;
    program.run(&["grant", "add", "--user", "admin", "--all"]);
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*address)];
    let server = program.serve_in(&variables, &["--login-url", &address, "--log-format", "json"]);
    let mut body = batch("bk_switch_default_host", &[(1, 1)]);
    body["bk_app_code"] = "demo".into();
    body["bk_app_secret"] = secret.trim_end().into();
    body["bk_token"] = "t".into();
    let request = reqwest::Client::new().post(server.url(PATH)).body(body.to_string());
    let request = request.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let reply = request.send().await.unwrap().text().await.unwrap();
    assert!(reply.contains(r#""success_created":{"0":1}"#), "{reply}");
    assert!(passed_on.lock().unwrap().contains(TRACE), "{passed_on:?}");
    // What is left is sent when it ends.
    server.signal("TERM");
    let (_, log) = tokio::task::spawn_blocking(|| server.wait()).await.unwrap();
    assert!(log.contains(&format!(r#""trace_id":"{TRACE}""#)), "{log}");
    let exported = exported.lock().unwrap();
    let holds = |bytes: &[u8]| exported.windows(bytes.len()).any(|window| window == bytes);
    let id = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    assert!(holds(&id));
    let name = format!("POST {PATH}");
    let steps = ["credentials", "login", "facts", "permission", "plan", "write"];
    for span in
        steps.into_iter().chain(["cmdb-associations", &name, "db.instance_association.create"])
    {
        let length = u8::try_from(span.len()).unwrap();
        // In protobuf, a text has its length before it.
        assert!(holds(&[&[length], span.as_bytes()].concat()), "no {span}");
    }
}

/// Named, with the request that it is of.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_slow_statement_is_named_in_the_log(pool: PgPool) {
    let program = Program::on(&pool);
    let secret = program.run(&["app", "add", "demo", "--trust-username"]).stdout;
    program.run(&["grant", "add", "--user", "admin", "--all"]);
    let server = program.serve(&["--log-format", "json"]);
    let mut body = batch("bk_switch_default_host", &[(1, 1)]);
    body["bk_app_code"] = "demo".into();
    body["bk_app_secret"] = secret.trim_end().into();
    body["bk_username"] = "admin".into();
    let holder = hold_writers(&pool).await;
    let request = reqwest::Client::new().post(server.url(PATH)).body(body.to_string());
    let sent = tokio::spawn(request.send());
    crate::guards::many_wait(&pool, 1).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    holder.rollback().await.unwrap();
    let reply = sent.await.unwrap().unwrap().text().await.unwrap();
    let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
    let id = reply["request_id"].as_str().unwrap();
    server.signal("TERM");
    let (_, log) = server.wait();
    let slow = log.lines().find(|line| line.contains("slow statement")).expect(&log);
    assert!(
        slow.contains(r#""statement":"instance_association.create""#) && slow.contains(id),
        "{slow}"
    );
}
