//! Operations: metrics, traces, slow statements, the separate operations address, TLS.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use cmdb_associations::server::tls::Tls;
use cmdb_associations::service::limit::Limiter;
use cmdb_associations::telemetry::metrics::Metrics;
use serde_json::json;
use sqlx::PgPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::app::{PATH, TestApp, batch};
use crate::binary::Program;
use crate::constraints::block_link_writers;
use crate::socket::{LIMITS, open, open_tls};
use crate::tidy::files;

/// The value of a series in the text format of Prometheus.
pub(crate) fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

/// Records the metrics of this test only, which works because a test runs on one thread.
pub(crate) fn record_metrics() -> (metrics::LocalRecorderGuard<'static>, Metrics) {
    let (recorder, metrics) = Metrics::new().unwrap();
    let guard = metrics::set_default_local_recorder(Box::leak(Box::new(recorder)));
    metrics.describe();
    (guard, metrics)
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn requests_and_details_are_counted_by_result(pool: PgPool) {
    let (_guard, metrics) = record_metrics();
    let app = TestApp::new(pool).await;
    let text = metrics.render();
    assert!(
        (value(&text, r#"cmdb_details_total{verdict="created"}"#)).abs() < 0.5,
        "counters start at zero"
    );
    app.post(batch("bk_switch_default_host", &[(1, 1), (1, 1), (1, 999_999), (999_999, 1)])).await;
    app.post(json!({"bk_obj_id": "bk_switch"})).await;
    let key = [("idempotency-key", "k")];
    for _ in 0..2 {
        app.post_with(&key, batch("bk_switch_default_host", &[(2, 2)])).await;
    }
    let text = metrics.render();
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

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn requests_refused_by_overload_rate_limit_or_pool_timeout_are_counted(pool: PgPool) {
    let (_guard, metrics) = record_metrics();
    TestApp::new(pool.clone()).await;
    let app = Arc::new(TestApp::with_permits(pool.clone(), 1));
    let holder = block_link_writers(&pool).await;
    let waiting = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.post(batch("bk_switch_default_host", &[(1, 1)])).await }
    });
    crate::constraints::wait_until_blocked(&pool, 1).await;
    assert_eq!(app.post(batch("bk_switch_default_host", &[(2, 2)])).await.status, 503);
    assert!((value(&metrics.render(), "cmdb_requests_shed_total") - 1.0).abs() < 0.5);
    holder.rollback().await.unwrap();
    waiting.await.unwrap();
    let limited = TestApp::with(pool.clone(), |setup| {
        setup.limiter = Some(Limiter::new(NonZeroU32::MIN));
    });
    sqlx::query("delete from cmdb.app").execute(&pool).await.unwrap();
    let limited = limited.await;
    let pairs: Vec<_> = (1..=200).map(|n| (n, 100)).collect();
    for _ in 0..2 {
        assert_eq!(limited.post(batch("bk_switch_default_host", &pairs)).await.status, 200);
    }
    assert_eq!(limited.post(batch("bk_switch_default_host", &pairs)).await.status, 429);
    assert!((value(&metrics.render(), "cmdb_requests_limited_total") - 1.0).abs() < 0.5);
    // All connections of the pool are in use: the next request times out.
    let mut held = Vec::new();
    for _ in 0..app.serving.status().max_size {
        held.push(app.serving.acquire().await.unwrap());
    }
    assert_eq!(app.post(batch("bk_switch_default_host", &[(3, 3)])).await.status, 503);
    assert!((value(&metrics.render(), "cmdb_database_timeouts_total") - 1.0).abs() < 0.5);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn metrics_contain_no_text_from_requests(pool: PgPool) {
    let (_guard, metrics) = record_metrics();
    let app = TestApp::on(pool);
    for path in ["/marker", "/api/marker", "/api/c/compapi/v2/cc/marker?marker=1"] {
        let request = axum::http::Request::builder().method("MARKER").uri(path);
        app.send(request.body(axum::body::Body::empty()).unwrap()).await;
    }
    app.post(json!({"bk_app_code": "marker", "bk_obj_id": "marker"})).await;
    let text = metrics.render();
    assert!(text.contains(r#"route="other",status="404""#), "{text}");
    assert!(!text.to_lowercase().contains("marker"), "{text}");
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn documents_and_deployment_files_name_only_metrics_that_exist(pool: PgPool) {
    let (_guard, metrics) = record_metrics();
    let app = TestApp::new(pool).await;
    app.post(batch("bk_switch_default_host", &[(1, 1)])).await;
    app.get("/metrics").await;
    let rendered = metrics.render();
    let mut known: BTreeSet<_> = rendered
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    // These are recorded only with TLS, or only in the compiled program.
    known.extend(
        [
            "cmdb_tls_certificate_expiry_seconds",
            "cmdb_statement_duration_seconds",
            "cmdb_database_durable",
            "cmdb_database_commits",
            "cmdb_database_commit_seconds",
            "cmdb_database_waiting_commits",
            "cmdb_replica_used",
            "cmdb_replica_failures_total",
            "cmdb_replica_lag_seconds",
        ]
        .map(String::from),
    );
    let mut found = 0;
    for path in [vec!["README.md".into()], files("docs", ".md"), files("deploy", "")].concat() {
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

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn operations_paths_are_served_only_at_the_operations_address_when_it_is_set(pool: PgPool) {
    let program = Program::on(&pool);
    let server = program.serve(&["--ops-listen", "127.0.0.1:0"]);
    let operations = server.operations.clone().unwrap();
    let status = async |url: String| reqwest::get(url).await.unwrap().status().as_u16();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(status(format!("http://{operations}{path}")).await, 200, "{path}");
        assert_eq!(status(server.url(path)).await, 404, "{path}");
    }
    assert_eq!(status(format!("http://{operations}{PATH}")).await, 404);
    let text =
        reqwest::get(format!("http://{operations}/metrics")).await.unwrap().text().await.unwrap();
    assert!(value(&text, "cmdb_ready") > 0.5);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    let healthcheck =
        program.run(&["healthcheck", "--listen", &server.address, "--ops-listen", &operations]);
    assert_eq!(healthcheck.status, 0, "{}", healthcheck.stderr);
    assert_eq!(program.run(&["healthcheck", "--listen", &server.address]).status, 1);
}

/// The PEM files of a certificate and its key.
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Writes a self-signed certificate for `localhost` and its key into a directory.
pub(crate) fn generate_certificate(dir: &Path) -> TlsFiles {
    let files = TlsFiles { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&files.key)
        .arg("-out")
        .arg(&files.certificate)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    files
}

fn read_certificate(files: &TlsFiles) -> Vec<u8> {
    std::fs::read(&files.certificate).unwrap()
}

fn client_trusting(certificate: &[u8]) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(certificate).unwrap();
    // One connection per request, so that each performs a handshake.
    let client = reqwest::Client::builder().tls_certs_only([root]).pool_max_idle_per_host(0);
    client.build().unwrap()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_server_speaks_only_tls_when_a_certificate_is_configured(pool: PgPool) {
    let dir = tempfile::tempdir().unwrap();
    let files = generate_certificate(dir.path());
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (certificate, key) = (path(&files.certificate), path(&files.key));
    let program = Program::on(&pool);
    let args = ["--tls-certificate", &certificate, "--tls-key", &key];
    let server = program.serve(&args);
    let url = format!("https://{}/readyz", server.address.replace("127.0.0.1", "localhost"));
    assert_eq!(
        client_trusting(&read_certificate(&files)).get(&url).send().await.unwrap().status(),
        200
    );
    assert!(reqwest::get(server.url("/readyz")).await.is_err(), "plain HTTP is not served");
    let metrics = client_trusting(&read_certificate(&files))
        .get(url.replace("readyz", "metrics"))
        .send()
        .await;
    let expiry =
        value(&metrics.unwrap().text().await.unwrap(), "cmdb_tls_certificate_expiry_seconds");
    let now = "select extract(epoch from now())::double precision";
    let now: f64 = sqlx::query_scalar(now).fetch_one(&pool).await.unwrap();
    assert!((expiry - now - 2.0 * 86_400.0).abs() < 3_600.0, "{expiry}");
    let listen = ["healthcheck", "--listen", &server.address];
    let healthcheck = program.run(&[&listen[..], &args[..]].concat());
    assert_eq!(healthcheck.status, 0, "{}", healthcheck.stderr);
}

#[tokio::test]
async fn a_renewed_certificate_is_loaded_and_an_invalid_one_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let first = generate_certificate(dir.path());
    let tls = Tls::new(first.certificate.clone(), first.key.clone()).unwrap();
    let acceptor = tls.acceptor();
    let old = read_certificate(&first);
    let router = Router::new().route("/", get(async || "ok"));
    let port = open_tls(router, LIMITS, Some(acceptor)).await.port();
    tokio::spawn(tls.reload_every(Duration::from_millis(10)));
    let url = format!("https://localhost:{port}/");
    assert_eq!(client_trusting(&old).get(&url).send().await.unwrap().status(), 200);
    // An incomplete file: the current certificate stays in use.
    std::fs::write(&first.certificate, "-----BEGIN CERT").unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client_trusting(&old).get(&url).send().await.unwrap().status(), 200);
    let new = client_trusting(&read_certificate(&generate_certificate(dir.path())));
    let started = Instant::now();
    while new.get(&url).send().await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "the certificate is not reloaded");
    }
    assert!(client_trusting(&old).get(&url).send().await.is_err());
    // A client that does not begin its handshake does not delay others.
    let _silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert_eq!(new.get(&url).send().await.unwrap().status(), 200);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_server_refuses_to_start_with_unusable_tls_files(pool: PgPool) {
    let dir = tempfile::tempdir().unwrap();
    let files = generate_certificate(dir.path());
    let (certificate, key) = (files.certificate.to_str().unwrap(), files.key.to_str().unwrap());
    let other = tempfile::tempdir().unwrap();
    let other_files = generate_certificate(other.path());
    for (certificate, key, reason) in [
        ("/nowhere", key, "cannot read /nowhere"),
        (key, key, "contains no certificate"),
        (certificate, certificate, "contains no private key"),
        (
            certificate,
            other_files.key.to_str().unwrap(),
            "certificate and the private key do not match",
        ),
    ] {
        let mut program = Program::on(&pool).command(&["serve"]);
        program.env("CMDB_TLS_CERTIFICATE", certificate).env("CMDB_TLS_KEY", key);
        let output = crate::binary::finish(&mut program, "");
        assert_eq!(output.status, 2);
        assert!(
            output.stderr.contains(reason) && output.stderr.contains("CMDB_TLS_"),
            "{}",
            output.stderr
        );
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_is_exported_and_sent_to_the_login_service_in_the_trace_of_its_caller(
    pool: PgPool,
) {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let exported = Arc::new(Mutex::new(Vec::new()));
    let login_trace = Arc::new(Mutex::new(String::new()));
    let (spans, trace) = (Arc::clone(&exported), Arc::clone(&login_trace));
    let services = Router::new()
        .route("/v1/traces", post(async move |body: Bytes| spans.lock().unwrap().extend(body)))
        .route(
            "/login/accounts/is_login/",
            get(async move |headers: HeaderMap| {
                let parent = headers["traceparent"].to_str().unwrap();
                parent.clone_into(&mut trace.lock().unwrap());
                r#"{"result": true, "data": {"bk_username": "admin"}}"#
            }),
        );
    let address = format!("http://{}", open(services, LIMITS).await);
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
    assert!(login_trace.lock().unwrap().contains(TRACE), "{login_trace:?}");
    // The remaining spans are exported at shutdown.
    server.signal("TERM");
    let (_, log) = tokio::task::spawn_blocking(|| server.wait()).await.unwrap();
    assert!(log.contains(&format!(r#""trace_id":"{TRACE}""#)), "{log}");
    let exported = exported.lock().unwrap();
    let contains = |bytes: &[u8]| exported.windows(bytes.len()).any(|window| window == bytes);
    let id = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    assert!(contains(&id));
    let name = format!("POST {PATH}");
    let steps = ["login", "authorize", "plan", "write"];
    let statements = ["db.app.find", "db.instance_association.create"];
    for span in steps.into_iter().chain(statements).chain(["cmdb-associations", &name]) {
        let length = u8::try_from(span.len()).unwrap();
        // Protobuf encodes a string as its length and its bytes.
        assert!(contains(&[&[length], span.as_bytes()].concat()), "no {span}");
    }
}

/// A collector that answers each request with these bytes.
async fn collector(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://user:marker@{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read_u8().await;
            let _ = connection.write_all(answer).await;
            open.push(connection);
        }
    });
    address
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_failed_export_of_traces_is_counted_and_logged_once_a_minute_with_its_cause(
    pool: PgPool,
) {
    // A gRPC server begins each connection with an HTTP/2 frame of settings.
    let grpc = collector(b"\0\0\0\x04\0\0\0\0\0").await;
    let refusing = collector(b"HTTP/1.1 415 Unsupported Media Type\r\ncontent-length: 0\r\n\r\n");
    for (address, timeout, cause) in [
        ("http://127.0.0.1:1".to_owned(), "5000", "Connection refused"),
        (collector(b"").await, "50", "operation timed out"),
        (grpc, "5000", "invalid HTTP version parsed"),
        (refusing.await, "5000", "the collector answered 415 Unsupported Media Type"),
    ] {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*address),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", timeout),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ];
        let server = Program::on(&pool).serve_in(&variables, &[]);
        let get = async |path| reqwest::get(server.url(path)).await.unwrap().text().await.unwrap();
        // Each request has a span to export.
        while value(&get("/metrics").await, "cmdb_trace_export_failures_total") < 1.5 {
            get("/api/unknown").await;
        }
        server.signal("TERM");
        let (_, log) = server.wait();
        let is_warning = |line: &&str| line.contains("WARN cannot export traces");
        let warnings: Vec<_> = log.lines().filter(is_warning).collect();
        assert_eq!(warnings.len(), 1, "{log}");
        assert!(warnings[0].contains(cause), "{log}");
        assert!(!log.contains("marker"), "{log}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_slow_statement_is_logged_with_its_name_and_its_request_id(pool: PgPool) {
    let program = Program::on(&pool);
    let secret = program.run(&["app", "add", "demo", "--trust-username"]).stdout;
    program.run(&["grant", "add", "--user", "admin", "--all"]);
    let server = program.serve(&["--log-format", "json"]);
    let mut body = batch("bk_switch_default_host", &[(1, 1)]);
    body["bk_app_code"] = "demo".into();
    body["bk_app_secret"] = secret.trim_end().into();
    body["bk_username"] = "admin".into();
    let holder = block_link_writers(&pool).await;
    let request = reqwest::Client::new().post(server.url(PATH)).body(body.to_string());
    let sent = tokio::spawn(request.send());
    crate::constraints::wait_until_blocked(&pool, 1).await;
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
