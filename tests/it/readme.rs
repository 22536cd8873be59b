//! The commands of the README work as printed.

use std::fs;

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::binary::{Program, finish};

/// The first block of commands of a section.
fn commands<'a>(readme: &'a str, section: &str) -> &'a str {
    let (_, text) = readme.split_once(&format!("\n## {section}\n")).unwrap();
    let (_, block) = text.split_once("\n```sh\n").unwrap();
    block.split_once("\n```\n").unwrap().0
}

/// The commands that begin without an export, one after another, on an empty database. What is
/// needed before is in the section on operation.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_commands_that_start_from_nothing_work_as_printed(pool: PgPool) {
    let readme = fs::read_to_string("README.md").unwrap();
    let program = Program::on(&pool);
    let run = |script: &str| {
        let output = finish(&mut program.script(script), "");
        assert_eq!((output.status, output.stderr.as_str()), (0, ""), "{}", output.stdout);
        output.stdout
    };
    let setup = commands(&readme, "Operate it").lines();
    let is_needed = |line: &&str| {
        ["app", "grant"]
            .iter()
            .any(|name| line.starts_with(&format!("cmdb-associations {name} add ")))
    };
    let setup: Vec<_> = setup.filter(is_needed).collect();
    assert_eq!(setup.len(), 2);
    let secret = run(&setup.join("\n"));

    let server = program.serve(&[]);
    let script = commands(&readme, "Start from nothing");
    for name in ["127.0.0.1:8090", "…"] {
        assert_eq!(script.matches(name).count(), 1, "{name}");
    }
    let script = script.replace("127.0.0.1:8090", &server.address).replace('…', secret.trim());
    let printed = run(&script);

    // The ids of the instances are those of the batch.
    assert!(printed.contains("\n1\n2\n3\n4\n{"), "{printed}");
    let (_, answers) = printed.split_once("\n4\n").unwrap();
    let answers = serde_json::Deserializer::from_str(answers).into_iter::<Value>();
    let answers: Vec<_> = answers.map_while(Result::ok).collect();
    let [created, found, deleted] = answers.as_slice() else { panic!("{printed}") };
    assert_eq!(created["data"], json!({"success_created": {"0": 1, "1": 2}, "error_msg": {}}));
    assert_eq!(found["data"][0]["count"], 2);
    let names = found["data"][0]["children"].as_array().unwrap();
    let names: Vec<_> = names.iter().map(|child| &child["bk_inst_name"]).collect();
    assert_eq!(names, ["switch-1", "switch-2"]);
    assert_eq!(deleted["data"], 2);
    let records: Vec<_> = printed.lines().filter(|line| line.contains("{[1,3)}")).collect();
    assert!(records.len() == 2 && records.iter().all(|line| line.contains(" admin ")), "{printed}");
}
