//! The command line.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::CommandFactory;
use cmdb_associations::cli::Cli;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgPool};

use crate::app::{PATH, batch};
use crate::binary::{Program, finish, without_settings};
use crate::constraints::{block_link_writers, wait_until_blocked};

#[test]
fn the_definition_of_the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_exits_with_2_and_points_to_the_right_usage() {
    let run = |args: &[&str]| finish(without_settings().args(args), "");
    for args in [
        &["nonsense"][..],
        &["import"],
        &["app", "add"],
        &["serve", "--listen", "here"],
        &["serve", "--body-limit", "8388609"],
    ] {
        let output = run(args);
        assert_eq!((output.status, output.stdout.as_str()), (2, ""), "{args:?}");
        assert!(output.stderr.contains("--help"), "{}", output.stderr);
    }
    let output = finish(without_settings().arg("migrate").env("RUST_LOG", "loud,,="), "");
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("it should look like `info,sqlx=debug`"), "{}", output.stderr);
    let output = run(&["check"]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("set CMDB_DATABASE_URL to postgresql://"), "{}", output.stderr);
}

#[test]
fn an_invalid_database_url_is_refused_without_repeating_it() {
    for url in ["mysql://root:hunter2@localhost/x", "hunter2", "postgresql://u:hunter2@h:port/x"] {
        let output = finish(without_settings().arg("check").env("CMDB_DATABASE_URL", url), "");
        assert_eq!(output.status, 2);
        assert!(
            output.stderr.contains("CMDB_DATABASE_URL is not a PostgreSQL URL"),
            "{}",
            output.stderr
        );
        assert!(!output.stderr.contains("hunter2"), "{}", output.stderr);
    }
}

#[test]
fn the_error_names_the_address_of_a_database_that_cannot_be_reached() {
    for (url, address) in [
        ("postgresql://u@localhost/x?host=/nonexistent", "/nonexistent:5432"),
        ("postgresql://u@127.0.0.1:1/x", "127.0.0.1:1"),
    ] {
        let output = finish(without_settings().arg("check").env("CMDB_DATABASE_URL", url), "");
        assert_eq!(output.status, 2);
        let message = format!("cannot connect to the database at {address}");
        assert!(output.stderr.contains(&message), "{}", output.stderr);
    }
}

#[test]
fn the_database_url_is_read_from_a_file_unless_it_is_also_in_the_environment() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "no url\n").unwrap();
    let mut command = without_settings();
    command.arg("check").env("CMDB_DATABASE_URL_FILE", file.path());
    let output = finish(&mut command, "");
    assert!(
        output.stderr.contains("CMDB_DATABASE_URL_FILE is not a PostgreSQL URL"),
        "{}",
        output.stderr
    );
    let output = finish(command.env("CMDB_DATABASE_URL", "postgresql://x"), "");
    assert!(output.stderr.contains("both set"), "{}", output.stderr);
    assert_eq!(output.status, 2);
}

#[test]
fn help_lists_every_command_and_shows_no_values_of_settings() {
    let output = finish(
        without_settings()
            .arg("--help")
            .env("CMDB_DATABASE_URL", "hunter2")
            .env("CMDB_LOG_FORMAT", "json"),
        "",
    );
    assert_eq!(output.status, 0);
    for word in
        ["serve", "migrate", "import", "app", "check", "healthcheck", "CMDB_DATABASE_URL_FILE"]
    {
        assert!(output.stdout.contains(word), "{word}");
    }
    assert!(!output.stdout.contains("hunter2") && !output.stdout.contains("=json"));
    let output = finish(
        without_settings().args(["serve", "--help"]).env("CMDB_LISTEN", "192.0.2.1:7777"),
        "",
    );
    assert!(output.stdout.contains("CMDB_LISTEN") && !output.stdout.contains("192.0.2.1"));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_database_url_is_read_from_each_of_three_variables(pool: PgPool) {
    let url = pool.connect_options().to_url_lossy().to_string();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("{url}\n")).unwrap();
    for (name, value) in [
        ("CMDB_DATABASE_URL", url.as_str()),
        ("DATABASE_URL", url.as_str()),
        ("CMDB_DATABASE_URL_FILE", file.path().to_str().unwrap()),
    ] {
        let output = finish(without_settings().args(["app", "list"]).env(name, value), "");
        assert_eq!((output.status, output.stderr.as_str()), (0, ""), "{name}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn healthcheck_prints_why_a_server_is_not_ready(pool: PgPool) {
    let program = Program::on(&pool);
    let server = program.serve(&[]);
    sqlx::query("delete from cmdb._sqlx_migrations").execute(&pool).await.unwrap();
    let output = program.run(&["healthcheck", "--listen", &server.address]);
    let count = crate::MIGRATOR.iter().count();
    let pending = format!("{count} migrations are pending: run `cmdb-associations migrate` first");
    let reason = format!("{} is not ready: {pending}\n", server.address);
    assert_eq!((output.status, output.stderr), (1, reason));
    let output = program.run(&["app", "list"]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("run `cmdb-associations migrate` first"), "{}", output.stderr);
}

#[sqlx::test(migrations = false)]
async fn serve_no_migrate_fails_while_migrations_are_pending(pool: PgPool) {
    let program = Program::on(&pool);
    let output = program.run(&["serve", "--no-migrate", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("has no tables of this program"), "{}", output.stderr);
    let output = program.run(&["migrate"]);
    assert_eq!((output.status, output.stdout.as_str()), (0, ""), "{}", output.stderr);
    assert_eq!(program.run(&["migrate"]).status, 0);
    drop(program.serve(&["--no-migrate"]));
}

#[sqlx::test(migrations = false)]
async fn serve_applies_pending_migrations_and_healthcheck_succeeds(pool: PgPool) {
    let program = Program::on(&pool);
    let server = program.serve(&[]);
    let healthcheck = |address: &str| program.run(&["healthcheck", "--listen", address]);
    assert_eq!(healthcheck(&server.address).status, 0);
    let any_address = server.address.replace("127.0.0.1", "0.0.0.0");
    assert_eq!(healthcheck(&any_address).status, 0);
    // A second server cannot listen at the same address.
    let output = program.run(&["serve", "--listen", &server.address]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("cannot listen on"), "{}", output.stderr);
    let address = server.address.clone();
    drop(server);
    let output = healthcheck(&address);
    assert_eq!(output.status, 1);
    assert!(output.stderr.contains("does not answer"), "{}", output.stderr);
}

/// A request of the application `demo` with one detail to create and two to refuse.
fn demo_request(secret: &str) -> Value {
    let mut body = batch("bk_switch_default_host", &[(1, 1), (1, 1), (999, 1)]);
    body["bk_app_code"] = json!("demo");
    body["bk_app_secret"] = json!(secret);
    body["bk_username"] = json!("admin");
    body
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_is_logged_in_one_line_without_secrets(pool: PgPool) {
    let program = Program::on(&pool);
    let secret = program.run(&["app", "add", "demo", "--trust-username"]).stdout;
    program.run(&["grant", "add", "--user", "admin", "--all"]);
    let secret = secret.trim_end();
    let server = program.serve(&["--log-format", "json"]);
    let client = reqwest::Client::new();
    let mut ids = Vec::new();
    for body in [demo_request(secret), demo_request("wrong-secret"), json!({"bk_token": "a-token"})]
    {
        let reply = client.post(server.url(PATH)).body(body.to_string()).send().await.unwrap();
        ids.push(reply.headers()["x-request-id"].to_str().unwrap().to_owned());
    }
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status, Some(0));
    for secret in [secret, "wrong-secret", "a-token"] {
        assert!(!log.contains(secret), "{log}");
    }
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |id: &String| {
        let is_of_request = |line: &&Value| line["span"]["id"] == **id;
        let found: Vec<_> = lines.iter().filter(is_of_request).collect();
        assert_eq!(found.len(), 1, "{log}");
        found[0].clone()
    };
    let created = line(&ids[0]);
    assert_eq!(created["message"], "answered");
    assert_eq!(created["span"]["app"], "demo");
    assert_eq!(created["span"]["user"], "admin");
    assert_eq!(
        (&created["created"], &created["refused"], &created["code"]),
        (&json!(1), &json!(2), &json!(0))
    );
    assert!(created["duration_ms"].is_f64());
    let refused = line(&ids[1]);
    assert_eq!((&refused["code"], &refused["message"]), (&json!(1_306_000), &json!("refused")));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_log_has_no_secret_and_no_forged_line_at_the_trace_level(pool: PgPool) {
    let program = Program::on(&pool);
    let secret = program.run(&["app", "add", "demo", "--trust-username"]).stdout;
    let secret = secret.trim_end();
    let key = include_str!("../fixtures/gateway.pub.pem");
    let server = program.serve(&[
        "--log",
        "trace",
        "--login-url",
        "http://127.0.0.1:1",
        "--gateway-public-key",
        key,
    ]);
    let client = reqwest::Client::new();
    let send = async |headers: &[(&str, &str)], body: Value| {
        let mut request = client.post(server.url(PATH)).body(body.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().text().await.unwrap()
    };
    send(&[], demo_request(secret)).await;
    send(&[], demo_request("wrong-secret")).await;
    let token =
        json!({"bk_app_code": "demo", "bk_app_secret": secret, "bk_token": "a-login-token"});
    assert!(send(&[], token.clone()).await.contains("login service is unavailable"));
    send(&[("x-bkapi-authorization", &token.to_string())], json!({})).await;
    send(&[("x-bkapi-jwt", "a.gateway.token")], json!({})).await;
    send(&[("cookie", "bk_token=a-cookie")], json!({})).await;
    let forged = "x\n2026-01-01T00:00:00Z  INFO forged line\u{1b}[31m";
    send(&[], json!({"bk_app_code": forged, "bk_app_secret": "x"})).await;
    send(&[], json!({"bk_app_code": "no_such_app", "bk_app_secret": "x"})).await;
    let mut named = demo_request(secret);
    named["bk_username"] = json!(forged);
    send(&[], named).await;
    server.signal("TERM");
    let (_, log) = server.wait();
    for secret in [secret, "wrong-secret", "a-login-token", "a.gateway.token", "a-cookie"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    assert!(log.contains("no_such_app"), "the code of an application is logged");
    assert!(!log.contains("forged line"));
    assert!(!log.contains('\u{1b}'));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn app_and_grant_refuse_names_with_control_characters(pool: PgPool) {
    let program = Program::on(&pool);
    assert_eq!(program.run(&["app", "add", "demo"]).status, 0);
    for args in [
        &["app", "add", "a\tb"][..],
        &["app", "limit", "demo", "--tenant", "a\tb"],
        &["grant", "add", "--all", "--user", "a\u{85}"],
    ] {
        let output = program.run(args);
        assert_eq!(output.status, 2, "{args:?}");
        assert!(output.stderr.contains("none of them a control character"), "{}", output.stderr);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_log_names_a_peer_that_is_not_trusted_and_the_setting(pool: PgPool) {
    let args = ["--trusted-peers", " 10.0.0.0/8 ,::/0", "--proxies", "0.0.0.0/0"];
    let server = Program::on(&pool).serve(&args);
    let url = server.url("/api/v3/createmany/instassociation");
    let request = reqwest::Client::new().post(url).header("bk_user", "admin").body("{}");
    let answer = request.send().await.unwrap().text().await.unwrap();
    assert!(answer.contains("[X-Bkapi-JWT] is missing"), "{answer}");
    assert!(!answer.contains("127.0.0.1"), "{answer}");
    server.signal("TERM");
    let (_, log) = server.wait();
    assert!(log.contains("peer=127.0.0.1"), "{log}");
    assert!(log.contains("CMDB_TRUSTED_PEERS does not contain 127.0.0.1"), "{log}");
    assert!(log.contains("trusts every address"), "{log}");
    assert!(log.contains("CMDB_PROXIES exempts every address"), "{log}");
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_that_is_run_again_has_its_application_and_user_once_in_the_log(pool: PgPool) {
    let program = Program::on(&pool);
    let secret = program.run(&["app", "add", "demo", "--trust-username"]).stdout;
    program.run(&["grant", "add", "--user", "admin", "--all"]);
    let server = program.serve(&[]);
    let send = async || {
        let request = reqwest::Client::new().post(server.url(PATH));
        let request = request.body(demo_request(secret.trim_end()).to_string());
        request.send().await.unwrap().text().await.unwrap()
    };
    send().await;
    // The next request finds a stale cache.
    program.run(&["grant", "add", "--user", "another", "--all"]);
    send().await;
    server.signal("TERM");
    let (_, log) = server.wait();
    let answered: Vec<_> = log.lines().filter(|line| line.contains("answered")).collect();
    assert_eq!(answered.len(), 2, "{log}");
    for line in answered {
        assert_eq!((line.matches("app=").count(), line.matches("user=").count()), (1, 1), "{line}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_invalid_setting_is_refused_by_name(pool: PgPool) {
    let program = Program::on(&pool);
    for (name, value) in [
        ("CMDB_LOGIN_URL", "paas.example.com"),
        ("CMDB_GATEWAY_PUBLIC_KEY", "nonsense"),
        ("CMDB_GATEWAY_ONLY", "true"),
        ("CMDB_TRUSTED_PEERS", "10.0.0.0/99"),
        ("CMDB_AUTHORIZATION", "maybe"),
        ("CMDB_RATE_LIMIT", "0"),
    ] {
        let mut command = program.command(&["serve", "--listen", "127.0.0.1:0"]);
        let output = finish(command.env(name, value), "");
        assert_eq!(output.status, 2, "{name}");
        let flag = name.replace("CMDB_", "--").replace('_', "-").to_lowercase();
        assert!(output.stderr.contains(name) || output.stderr.contains(&flag), "{}", output.stderr);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_server_answers_its_requests_in_flight_before_it_stops(pool: PgPool) {
    let program = Program::on(&pool);
    let secret = program.run(&["app", "add", "demo", "--trust-username"]).stdout;
    program.run(&["grant", "add", "--user", "admin", "--all"]);
    let server = program.serve(&[]);
    // An uncommitted deletion blocks the batch until after the signal.
    let mut deleter = pool.begin().await.unwrap();
    sqlx::query("delete from cmdb.instance where instance_id = 300")
        .execute(&mut *deleter)
        .await
        .unwrap();
    let url = server.url(PATH);
    let sending = tokio::spawn(async move {
        let body = demo_request(secret.trim_end()).to_string();
        reqwest::Client::new().post(url).body(body).send().await.unwrap().text().await.unwrap()
    });
    let is_waiting = "select exists (select from pg_stat_activity
                      where datname = current_database() and wait_event_type = 'Lock')";
    while !sqlx::query_scalar::<_, bool>(is_waiting).fetch_one(&pool).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.signal("TERM");
    while reqwest::get(server.url("/readyz")).await.is_ok_and(|reply| reply.status() == 200) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    deleter.commit().await.unwrap();
    let answer: Value = serde_json::from_str(&sending.await.unwrap()).unwrap();
    assert!(answer["data"]["success_created"]["0"].is_i64(), "{answer}");
    assert_eq!(server.wait().0, Some(0));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_idle_server_stops_promptly_on_sigterm_and_sigint(pool: PgPool) {
    for signal in ["TERM", "INT"] {
        let server = Program::on(&pool).serve(&[]);
        // An idle keep-alive connection does not delay the shutdown.
        let client = reqwest::Client::new();
        client.get(server.url("/healthz")).send().await.unwrap();
        let stopped = Instant::now();
        server.signal(signal);
        assert_eq!(server.wait().0, Some(0));
        assert!(stopped.elapsed() < Duration::from_secs(10), "it waited for the drain timeout");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_client_that_sends_too_large_a_body_can_read_the_refusal(pool: PgPool) {
    let server = Program::on(&pool).serve(&[]);
    for megabytes in [2, 7] {
        let body = vec![b'x'; megabytes << 20];
        let reply = reqwest::Client::new().post(server.url(PATH)).body(body).send().await.unwrap();
        assert_eq!(reply.status(), 413);
        let answer: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
        assert_eq!(answer["code"], 1_306_406);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn app_add_prints_only_the_secret_and_refuses_a_code_that_exists(pool: PgPool) {
    let program = Program::on(&pool);
    let added = program.run(&["app", "add", "demo"]);
    assert_eq!((added.status, added.stderr.as_str()), (0, ""));
    let secret = added.stdout.strip_suffix('\n').unwrap();
    assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "{secret}");

    let again = program.run(&["app", "add", "demo"]);
    assert_eq!((again.status, again.stdout.as_str()), (2, ""));
    assert!(again.stderr.contains("the application \"demo\" exists already"), "{}", again.stderr);
    let from_stdin =
        program.run_with(&["app", "add", "old", "--trust-username", "--secret-stdin"], "s3cret\n");
    assert_eq!(
        (from_stdin.status, from_stdin.stdout.as_str()),
        (0, ""),
        "a secret from stdin is not printed"
    );
    for (code, secret) in [("", "x"), ("a\nb", "x"), ("c", ""), ("c", "a\nb\n")] {
        let output = program.run_with(&["app", "add", code, "--secret-stdin"], secret);
        assert_eq!(output.status, 2, "{code:?} {secret:?}");
    }

    let rotated = program.run(&["app", "rotate", "demo"]);
    assert!(rotated.status == 0 && rotated.stdout.len() == 65 && rotated.stdout != added.stdout);
    let from_stdin = program.run_with(&["app", "rotate", "old", "--secret-stdin"], "s3cret too\n");
    assert_eq!((from_stdin.status, from_stdin.stdout.as_str()), (0, ""));
    assert_eq!(program.run(&["app", "disable", "old"]).status, 0);
    let listed = program.run(&["app", "list"]).stdout;
    let listed: Vec<Vec<_>> =
        listed.lines().map(|line| line.split('\t').take(4).collect()).collect();
    assert_eq!(
        listed,
        [vec!["demo", "enabled", "-", "2"], vec!["old", "disabled", "trusts-username", "2"]]
    );
    assert_eq!(program.run(&["app", "enable", "old"]).status, 0);
    assert_eq!(program.run(&["app", "retire", "demo"]).status, 0);
    let again = program.run(&["app", "retire", "demo"]);
    assert_eq!((again.status, again.stderr.as_str()), (1, "demo has no older secret\n"));
    for command in ["rotate", "retire", "disable", "enable"] {
        let output = program.run(&["app", command, "nobody"]);
        assert_eq!((output.status, output.stdout.as_str()), (2, ""), "{command}");
        assert!(output.stderr.contains("there is no application \"nobody\""), "{}", output.stderr);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn check_exits_with_1_for_broken_data_and_with_strict_also_for_unaudited_links(pool: PgPool) {
    let program = Program::on(&pool);
    let sound = program.run(&["check"]);
    assert_eq!(sound.status, 0);
    let is_ok = |line: &str| line.starts_with("ok ") || line.starts_with("skipped amcheck");
    assert!(sound.stdout.lines().all(is_ok), "{}", sound.stdout);

    let by_hand = "insert into cmdb.instance_association
                       (model_association_id, source_id, target_id)
                   select id, 7, 7 from cmdb.model_association
                   where key = 'bk_switch_default_host'";
    sqlx::query(by_hand).execute(&pool).await.unwrap();
    let noted = program.run(&["check"]);
    assert_eq!(noted.status, 0);
    let unaudited = "noted   every link was written by the server or an import: 1 exception\n        link 1 is in no audit record\nok      every link that is gone was deleted by the server\n";
    assert!(noted.stdout.ends_with(unaudited), "{}", noted.stdout);
    assert_eq!(program.run(&["check", "--strict"]).status, 1);

    let mut conn = pool.acquire().await.unwrap();
    for sql in [
        "set session_replication_role = replica",
        "delete from cmdb.instance where name = 'host-7'",
    ] {
        sqlx::query(sql).execute(&mut *conn).await.unwrap();
    }
    let broken = program.run(&["check"]);
    assert_eq!(broken.status, 1);
    let line = "broken  every link's source and target instances exist: 1 exception\n        link 1: target instance 7 of model host does not exist\n";
    assert!(broken.stdout.contains(line), "{}", broken.stdout);
}

#[test]
fn every_command_exits_with_2_when_the_database_cannot_be_reached() {
    for args in [&["check"][..], &["app", "list"], &["migrate"], &["import", "tests/demo/export"]] {
        let mut command = without_settings();
        command
            .args(args)
            .env("CMDB_DATABASE_URL", "postgresql://x@127.0.0.1:1/x")
            .stdout(Stdio::null());
        let output = finish(&mut command, "");
        assert_eq!((output.status, output.stdout.as_str()), (2, ""), "{args:?}");
        assert!(output.stderr.starts_with("cmdb-associations: "), "{}", output.stderr);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_server_stops_on_sigterm_while_it_still_starts(pool: PgPool) {
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table cmdb._sqlx_migrations").execute(&mut *holder).await.unwrap();
    let mut starting =
        Program::on(&pool).command(&["serve", "--listen", "127.0.0.1:0"]).spawn().unwrap();
    wait_until_blocked(&pool, 1).await;
    let pid = starting.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    assert_eq!(starting.wait().unwrap().code(), Some(0));
}

/// The request runs to its end, and its log line has the request id of its audit record.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_is_logged_when_its_client_has_disconnected(pool: PgPool) {
    let program = Program::on(&pool);
    let secret = program.run(&["app", "add", "demo", "--trust-username"]).stdout;
    program.run(&["grant", "add", "--user", "admin", "--all"]);
    let server = program.serve(&[]);
    let holder = block_link_writers(&pool).await;
    let client = reqwest::Client::builder().timeout(Duration::from_millis(500)).build().unwrap();
    let body = demo_request(secret.trim_end()).to_string();
    assert!(client.post(server.url(PATH)).body(body).send().await.is_err());
    holder.rollback().await.unwrap();
    let mut id = None;
    for _ in 0..500 {
        id = record_of(&pool).await;
        if id.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.signal("TERM");
    let (_, log) = server.wait();
    assert!(log.contains(&id.unwrap()), "{log}");
}

async fn record_of(pool: &PgPool) -> Option<String> {
    sqlx::query_scalar("select request_id from cmdb.audit_log").fetch_optional(pool).await.unwrap()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_database_url_is_not_logged(pool: PgPool) {
    let mut url = pool.connect_options().to_url_lossy();
    url.query_pairs_mut().append_pair("password", "hunter2").append_pair("keepalives", "1");
    let url = url.as_str();
    let output = finish(without_settings().args(["app", "list"]).env("CMDB_DATABASE_URL", url), "");
    assert_eq!((output.status, output.stderr.as_str()), (0, ""));
}
