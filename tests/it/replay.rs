//! Imports the export of a whole inventory, sends its requests in order over HTTP, and compares
//! every answer with the expected one, which was computed detail by detail.
//!
//! `make test` replays the demo inventory. `make test-replay DATA=… REJECTED=…` replays another
//! folder of the same form: `export/`, of which `REJECTED` rows are rejected, and `requests.jsonl`.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::PATH;
use crate::binary::Program;

#[sqlx::test(migrator = "crate::MIGRATOR")]
#[expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "make test-replay passes its arguments in the environment and shows stdout"
)]
async fn every_request_of_an_inventory_has_the_expected_answer(pool: PgPool) {
    let data =
        std::env::var_os("CMDB_REPLAY_DATA").map_or_else(|| "tests/demo".into(), PathBuf::from);
    let report = tempfile::NamedTempFile::new().unwrap();
    let program = Program::on(&pool);
    let export = data.join("export");
    let args = ["import", export.to_str().unwrap(), "--report", report.path().to_str().unwrap()];
    let imported = program.run(&args);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    let report = fs::read_to_string(report.path()).unwrap();
    let rejected = std::env::var("CMDB_REPLAY_REJECTED").unwrap_or_else(|_| "1".to_owned());
    let is_rejected = |line: &&str| line.contains(r#""kind":"rejected""#);
    let count = report.lines().filter(is_rejected).count();
    assert_eq!(count.to_string(), rejected, "rejected rows: {report}");

    let secret = program.run(&["app", "add", "replay", "--trust-username"]).stdout;
    program.run(&["grant", "add", "--user", "admin", "--all"]);
    let server = program.serve(&[]);
    let client = reqwest::Client::new();
    let requests = fs::read_to_string(data.join("requests.jsonl")).unwrap();
    let mut replayed = 0;
    for line in requests.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let credentials = json!({"bk_app_code": "replay", "bk_app_secret": secret.trim_end(), "bk_username": "admin"});
        let request =
            client.post(server.url(PATH)).header("X-Bkapi-Authorization", credentials.to_string());
        let reply = request.body(line["body"].to_string()).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        let reply: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
        let data = reply["data"].as_object().unwrap();
        let mut created: Vec<_> = data["success_created"].as_object().unwrap().keys().collect();
        let mut expected: Vec<_> = line["expect"]["created"]
            .as_array()
            .unwrap()
            .iter()
            .map(|index| index.as_str().unwrap())
            .collect();
        created.sort_unstable();
        expected.sort_unstable();
        assert_eq!(created, expected, "request {replayed}");
        assert_eq!(data["error_msg"], line["expect"]["error_msg"], "request {replayed}");
        replayed += 1;
    }
    assert!(replayed > 0);
    println!("{replayed} requests replayed");

    let checked = program.run(&["check", "--strict"]);
    assert_eq!(checked.status, 0, "{}", checked.stdout);
}
