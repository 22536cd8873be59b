//! The command `instance`.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::process::Stdio;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::app::{TestApp, assert_sound, batch};
use crate::binary::{Output, Program};
use crate::constraints::wait_until_blocked;
use crate::models::last_record;

/// Runs the program with arguments that are separated by blanks, and with this input.
fn run(program: &Program, args: &str, stdin: &str) -> Output {
    program.run_with(&args.split(' ').collect::<Vec<_>>(), stdin)
}

/// Asserts the exit code of a command, what it prints and its messages.
#[track_caller]
fn assert_run(
    program: &Program, args: &str, stdin: &str, (status, out, messages): (i32, &str, &str),
) {
    let output = run(program, args, stdin);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), (out, messages), "{args}");
    assert_eq!(output.status, status, "{args}");
}

/// Runs a command that succeeds, and returns what it prints.
#[track_caller]
fn succeed(program: &Program, args: &str, stdin: &str) -> String {
    let output = run(program, args, stdin);
    assert_eq!((output.status, output.stderr.as_str()), (0, ""), "{args}");
    output.stdout
}

/// A JSON line for each number, which is in the name.
fn rows(numbers: Range<u32>) -> String {
    let row = |n| json!({"bk_inst_name": format!("r{n}")}).to_string() + "\n";
    numbers.map(row).collect()
}

/// A database with the model rack, and the program.
fn with_racks(pool: PgPool) -> (TestApp, Program) {
    let program = Program::on(&pool);
    assert_eq!(program.run(&["model", "add", "rack"]).status, 0);
    (TestApp::on(pool), program)
}

/// The documents of a list, without the times.
fn documents(program: &Program, args: &str) -> Vec<Value> {
    let listed = succeed(program, &format!("instance list --documents {args}"), "");
    let document = |line: &str| {
        let mut document: Value = serde_json::from_str(line).unwrap();
        for key in ["create_time", "last_time", "bk_created_at", "bk_updated_at"] {
            assert!(document.as_object_mut().unwrap().remove(key).is_some(), "{key}: {line}");
        }
        document
    };
    listed.lines().map(document).collect()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn instances_are_added_listed_and_removed(pool: PgPool) {
    let (app, program) = with_racks(pool);
    assert_eq!(succeed(&program, "instance add rack --name first", ""), "1\n");
    let document = r#"{"rows":[1,2.50,null],"bk_inst_name":"no","bk_inst_id":77,"a":{"b":"机"}}"#;
    let args = ["instance", "add", "rack", "--name", " a\tb ", "--document", document];
    let output = program.run(&args);
    assert_eq!((output.status, output.stdout.as_str()), (0, "2\n"), "{}", output.stderr);
    assert_eq!(succeed(&program, "instance add rack --name first --tenant t", ""), "3\n");

    assert_eq!(succeed(&program, "instance list rack", ""), "1\tfirst\n2\ta b\n");
    assert_eq!(succeed(&program, "instance list rack --tenant t", ""), "3\tfirst\n");
    assert_eq!(succeed(&program, "instance list rack --tenant unknown", ""), "");
    let user = app.json("select to_jsonb(session_user)").await;
    let of_program = json!({"bk_created_by": user, "bk_updated_by": null, "bk_obj_id": "rack"});
    let expected = |tenant: &str, own: Value| {
        let mut document = of_program.clone();
        let fields = document.as_object_mut().unwrap();
        fields.insert("bk_supplier_account".to_owned(), tenant.into());
        fields.extend(own.as_object().unwrap().clone());
        document
    };
    let own = json!({"bk_inst_id": 2, "bk_inst_name": "a\tb", "rows": [1, 2.5, null],
        "a": {"b": "机"}});
    assert_eq!(
        documents(&program, "rack"),
        [expected("0", json!({"bk_inst_id": 1, "bk_inst_name": "first"})), expected("0", own)]
    );
    let third = expected("t", json!({"bk_inst_id": 3, "bk_inst_name": "first"}));
    assert_eq!(documents(&program, "rack --tenant t"), [third]);

    let none = (1, "", "tenant t has no instance 1\ntenant t has no instance 2\n");
    assert_run(&program, "instance remove rack 1 2 --tenant t", "", none);
    assert_eq!(succeed(&program, "instance remove rack 1", ""), "");
    let none = (1, "", "tenant 0 has no instance 9\ntenant 0 has no instance 2\n");
    assert_run(&program, "instance remove rack 9 2 2", "", none);
    assert_eq!(succeed(&program, "instance list rack", ""), "");
    assert_eq!(succeed(&program, "instance list rack --tenant t", ""), "3\tfirst\n");
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn refusals_of_instance_commands_say_why(pool: PgPool) {
    let (app, program) = with_racks(pool);
    succeed(&program, "instance add rack --name taken", "");
    succeed(&program, "model add own --tenant t", "");
    for args in ["add own --name a", "list own", "remove own 1", "add own --stdin csv"] {
        let none = (1, "", "tenant 0 has no model own\n");
        assert_run(&program, &format!("instance {args}"), "", none);
    }
    let name = "the name of an instance is empty";
    let built_in = "instances of a built-in model have endpoints of their own";
    let long = "x".repeat(257);
    for (args, message) in [
        ("add rack --name taken", "another instance of the model has the name"),
        ("add rack --name ", name),
        (&format!("add rack --name {long}"), "the name of an instance is longer than 256 bytes"),
        ("add rack --name a --document []", "document: expected an object"),
        ("add rack --name a --document {", "document: not JSON: EOF while parsing an object"),
        ("add rack --name a --document {\"a\":\"\\u0000\"}", "document.a: contains \\u0000"),
        ("add biz --name a", built_in),
        ("list set", built_in),
        ("remove bk_project 1", built_in),
    ] {
        let refused = format!("cmdb-associations: {message}\n");
        assert_run(&program, &format!("instance {args}"), "", (2, "", &refused));
    }
    for wrong in [
        "add rack",
        "add --name a",
        "add rack --stdin xml",
        "add rack --stdin csv --name a",
        "add rack --stdin csv --document {}",
        "list",
        "remove rack",
        "remove rack a",
        "remove rack 1 --stdin",
        "remove 1",
    ] {
        assert_eq!(run(&program, &format!("instance {wrong}"), "").status, 2, "{wrong}");
    }
    let pause = "update cmdb.model set is_paused = true where key = 'rack'";
    sqlx::query(pause).execute(&app.pool).await.unwrap();
    let refused = (2, "", "cmdb-associations: the model is out of use\n");
    assert_run(&program, "instance add rack --name a", "", refused);
    assert_eq!(app.count("select count(*) from cmdb.instance").await, 1);
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 3);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn rows_on_stdin_become_instances_and_each_refused_one_has_a_reason(pool: PgPool) {
    let (app, program) = with_racks(pool);
    let csv = "bk_inst_name,rows,\"a \"\"b\"\"\"\r\nfirst,42,\r\n\"x, y\",,\"two\r\nlines\"\r\n";
    assert_eq!(succeed(&program, "instance add rack --stdin csv", csv), "1\n2\n");
    let own = |document: Value, keys: &[&str]| -> Vec<Value> {
        keys.iter().map(|key| document.get(*key).cloned().unwrap_or_default()).collect()
    };
    let keys = ["bk_inst_name", "rows", "a \"b\""];
    let found: Vec<_> =
        documents(&program, "rack").into_iter().map(|document| own(document, &keys)).collect();
    assert_eq!(json!(found), json!([["first", "42", null], ["x, y", null, "two\r\nlines"]]));

    let jsonl = "{\"bk_inst_name\":\"third\",\"rows\":42}\n\n{\"bk_inst_name\":\"first\"}\n\
                 {\"rows\":1}\n[]\nnonsense\n{\"bk_inst_name\":7}\n{\"bk_inst_name\":\"third\"}\n\
                 {\"bk_inst_name\":\"fourth\"}";
    let messages = "row 3: another instance of the model has the name\n\
                    row 4: bk_inst_name is missing or empty\n\
                    row 5: document: expected an object\n\
                    row 6: document: not JSON: expected ident\n\
                    row 7: the name of an instance is not a text\n\
                    row 8: another instance of the model has the name\n";
    let args = "instance add rack --stdin jsonl";
    assert_run(&program, args, jsonl, (1, "3\n4\n", messages));
    let csv = "bk_inst_name,rows\nfifth\nfifth,1,2\nsixth,\n,1\n";
    let messages = "row 2: 1 values for 2 keys\n\
                    row 3: 3 values for 2 keys\n\
                    row 5: bk_inst_name is missing or empty\n";
    assert_run(&program, "instance add rack --stdin csv", csv, (1, "5\n", messages));
    for (head, message) in [
        ("", "there is no row of keys"),
        ("a,a\n", "two columns have the key \"a\""),
        ("a,\n", "column 2 has no key"),
    ] {
        let refused = format!("cmdb-associations: {message}\n");
        assert_run(&program, "instance add rack --stdin csv", head, (2, "", &refused));
    }
    assert_eq!(succeed(&program, "instance add rack --stdin jsonl", "\n"), "");
    assert_eq!(app.count("select count(*) from cmdb.instance").await, 5);
    assert_sound(&app.pool).await;
}

/// Runs the program with bytes as its input.
fn run_bytes(program: &Program, args: &[&str], stdin: &[u8]) -> (i32, String, String) {
    let mut command = program.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    let [out, messages] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap(), out, messages)
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn rows_that_are_not_utf8_or_too_long_are_refused(pool: PgPool) {
    let (_app, program) = with_racks(pool);
    let mut input = b"bk_inst_name\n\xff\na\n".to_vec();
    input.extend(vec![b'x'; 200_000]);
    input.extend(b"\nb\n");
    let output = run_bytes(&program, &["instance", "add", "rack", "--stdin", "csv"], &input);
    let messages = "row 2: not UTF-8\nrow 4: longer than 128 KiB\n";
    assert_eq!(output, (1, "1\n2\n".to_owned(), messages.to_owned()));
    let mut input = b"{\"bk_inst_name\":\"c\xff\"}\n{\"bk_inst_name\":\"c\",\"a\":\"".to_vec();
    input.extend(vec![b'x'; 70_000]);
    input.extend(b"\"}\n\xef\xbb\xbf{\"bk_inst_name\":\"c\"}");
    let output = run_bytes(&program, &["instance", "add", "rack", "--stdin", "jsonl"], &input);
    let messages = "row 1: not UTF-8\nrow 2: document: larger than 65536 bytes\n\
                    row 3: document: not JSON: expected value\n";
    assert_eq!(output, (1, String::new(), messages.to_owned()));
    let output = run_bytes(&program, &["instance", "remove", "rack", "--stdin"], b"\xff\n1\n");
    assert_eq!(output, (1, String::new(), "row 1: not an id\n".to_owned()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn rows_are_added_and_removed_in_commits_of_200_and_listed_in_pages(pool: PgPool) {
    let (app, program) = with_racks(pool);
    let ids = succeed(&program, "instance add rack --stdin jsonl", &rows(0..1_001));
    assert!(ids.lines().map(|id| id.parse::<i64>().unwrap()).eq(1..=1_001), "{ids}");
    let sizes = "select jsonb_agg(cardinality(instance_ids) order by id) from cmdb.audit_log
                 where resource_type = 'instance'";
    assert_eq!(app.json(sizes).await, json!([200, 200, 200, 200, 200, 1]));
    let other = "instance add rack --tenant t --stdin jsonl";
    succeed(&program, other, &rows(0..2));

    // A refused row counts, and the others of its commit are created.
    let mixed = rows(1_000..1_201);
    let output = run(&program, "instance add rack --stdin jsonl", &mixed);
    let message = "row 1: another instance of the model has the name\n";
    assert_eq!((output.status, output.stderr.as_str()), (1, message));
    assert_eq!(output.stdout.lines().count(), 200);
    let last_sizes = app.json(sizes).await.as_array().unwrap()[7..].to_vec();
    assert_eq!(last_sizes, [199, 1]);

    let listed = succeed(&program, "instance list rack", "");
    let ids: Vec<i64> =
        listed.lines().map(|line| line.split('\t').next().unwrap().parse().unwrap()).collect();
    let expected: Vec<_> = (1..=1_001).chain(1_004..=1_203).collect();
    assert_eq!(ids, expected);
    assert!(listed.starts_with("1\tr0\n2\tr1\n") && listed.ends_with("\n1203\tr1200\n"));
    assert_eq!(documents(&program, "rack").len(), 1_201);
    assert_eq!(documents(&program, "rack --tenant t").len(), 2);

    let all: Vec<_> = ids.iter().map(i64::to_string).collect();
    let input = format!("x\n0x1\n{}\n1002\n1", all.join("\r\n\n"));
    let messages = "row 1: not an id\nrow 2: not an id\n\
                    tenant 0 has no instance 1002\ntenant 0 has no instance 1\n";
    assert_run(&program, "instance remove rack --stdin", &input, (1, "", messages));
    let sizes = app.json(sizes).await.as_array().unwrap()[9..].to_vec();
    assert_eq!(sizes, [200, 200, 200, 200, 200, 200, 1]);
    assert_eq!(app.count("select count(*) from cmdb.instance").await, 2);
    assert_eq!(succeed(&program, "instance remove rack --stdin", ""), "");
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn linked_instances_are_not_removed_and_the_others_are(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let program = Program::on(&app.pool);
    app.post(batch("bk_switch_default_bk_switch", &[(2, 4)])).await.ids();
    let messages = "instance 4: an instance is linked\ntenant 0 has no instance 999\n\
                    instance 2: an instance is linked\n";
    let args = "instance remove bk_switch 1 4 999 3 2 5";
    assert_run(&program, args, "", (1, "", messages));
    let message = "instance 4: an instance is linked\n";
    assert_run(&program, "instance remove bk_switch 4", "", (1, "", message));
    let listed = succeed(&program, "instance list bk_switch", "");
    assert!(listed.starts_with("2\tbk_switch-2\n4\tbk_switch-4\n6\t"), "{listed}");
    let record = last_record(&app).await;
    assert_eq!(record["instance_ids"], json!([1, 3, 5]));
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_audit_record_of_an_instance_command_has_the_documents(pool: PgPool) {
    let (app, program) = with_racks(pool);
    let user = app.json("select to_jsonb(session_user)").await;
    let csv = "bk_inst_name,rows\na,42\nb,\n";
    succeed(&program, "instance add rack --tenant t --stdin csv", csv);
    let created = last_record(&app).await;
    assert_eq!(created["after"]["1"]["rows"], "42");
    assert_eq!(created["after"]["2"]["bk_inst_name"], "b");
    assert!(created["before"].is_null());
    succeed(&program, "instance remove rack 2 1 --tenant t", "");
    let deleted = last_record(&app).await;
    assert_eq!(deleted["before"], created["after"]);
    assert!(deleted["after"].is_null());
    let ids = app.json("select to_jsonb(id) from cmdb.model where key = 'rack'").await;
    let tenant = app.json("select to_jsonb(id) from cmdb.tenant where key = 't'").await;
    for record in [created, deleted] {
        assert_eq!((&record["origin"], &record["user_name"]), (&json!("command"), &user));
        assert_eq!((&record["resource_type"], &record["resource_id"]), (&json!("instance"), &ids));
        assert_eq!(record["instance_ids"], json!([1, 2]));
        assert_eq!(record["tenant_id"], tenant);
        assert!(record["app"].is_null() && record["request_id"].is_null());
    }
}

/// Runs the query of the operations page that lists the last changes.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_documented_list_of_changes_has_those_of_instances(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let program = Program::on(&app.pool);
    succeed(&program, "model add rack", "");
    succeed(&program, "instance add rack --stdin csv", "bk_inst_name\na\nb\n");
    let update = "PUT update/instance/object/rack/inst/2";
    assert_eq!(app.cmdb("0", update, json!({"rows": 42})).await.0, 0);
    let change = last_record(&app).await;
    let rows = json!([{"2": {"rows": null}}, {"2": {"rows": 42}}]);
    assert_eq!(json!([change["before"], change["after"]]), rows);
    succeed(&program, "instance remove rack 1 2", "");
    let page = std::fs::read_to_string("docs/operations.md").unwrap();
    let mut queries = page.split("```").filter(|text| text.starts_with("sql\n"));
    let query = queries.find(|query| query.contains("resource_type is not null")).unwrap();
    let query = query.trim_start_matches("sql\n").trim_end().trim_end_matches(';');
    let query = format!(
        "select jsonb_agg(jsonb_build_array(origin, resource_type, key, change, instance_ids))
         from ({query}) list (created_at, origin, user_name, resource_type, key, change)"
    );
    let listed: Value =
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&app.pool).await.unwrap();
    let expected = json!([
        ["command", "instance", "rack", "deleted", [1, 2]],
        ["request", "instance", "rack", "changed", [2]],
        ["command", "instance", "rack", "created", [1, 2]],
        ["command", "model", "rack", "created", null],
    ]);
    assert_eq!(listed, expected);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn audit_records_of_instances_are_purged(pool: PgPool) {
    let (app, program) = with_racks(pool);
    succeed(&program, "instance add rack --name a", "");
    succeed(&program, "instance remove rack 1", "");
    let age = "update cmdb.audit_log set created_at = created_at - interval '3 days'";
    sqlx::query(age).execute(&app.pool).await.unwrap();
    succeed(&program, "instance add rack --name b", "");
    let yesterday = app.json("select to_jsonb((now() - interval '2 days')::text)").await;
    let output = program.run(&["audit", "purge", "--before", yesterday.as_str().unwrap()]);
    assert_eq!((output.status, output.stdout.as_str()), (0, "3 audit records purged\n"));
    let left = "select count(*) from cmdb.audit_log where resource_type is not null";
    assert_eq!(app.count(left).await, 1);
    assert_sound(&app.pool).await;
}

/// The name was free when the command looked it up.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_name_that_another_transaction_takes_meanwhile_is_refused(pool: PgPool) {
    let (app, program) = with_racks(pool);
    succeed(&program, "instance add rack --name a", "");
    let mut other = app.pool.begin().await.unwrap();
    let rename = "update cmdb.instance_document set unique_name = 'b' where instance_id = 1";
    sqlx::query(rename).execute(&mut *other).await.unwrap();
    let adding = std::thread::spawn(move || run(&program, "instance add rack --name b", ""));
    wait_until_blocked(&app.pool, 1).await;
    other.commit().await.unwrap();
    let output = adding.join().unwrap();
    let message = "cmdb-associations: another instance of the model has the name\n";
    assert_eq!((output.status, output.stderr.as_str()), (2, message));
    assert_eq!(app.count("select count(*) from cmdb.instance").await, 1);
}

/// The instance was not linked when the command looked it up.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_instance_that_another_transaction_links_meanwhile_is_not_removed(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let program = Program::on(&app.pool);
    let mut other = app.pool.begin().await.unwrap();
    let link = "insert into cmdb.instance_association
                    (model_association_id, source_id, target_id, tenant_id)
                select id, 2, 4, 0 from cmdb.model_association
                where key = 'bk_switch_default_bk_switch'";
    sqlx::query(link).execute(&mut *other).await.unwrap();
    let remove = "instance remove bk_switch 1 2";
    let removing = std::thread::spawn(move || run(&program, remove, ""));
    wait_until_blocked(&app.pool, 1).await;
    other.commit().await.unwrap();
    let output = removing.join().unwrap();
    let message = "instance 2: an instance is linked\n";
    assert_eq!((output.status, output.stderr.as_str()), (1, message));
    assert_eq!(app.count("select count(*) from cmdb.instance").await, 599);
}

/// The command reads and commits the first rows before the last ones exist.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn rows_are_created_while_others_are_still_to_come(pool: PgPool) {
    let (app, program) = with_racks(pool);
    let mut command = program.command(&["instance", "add", "rack", "--stdin", "jsonl"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(rows(0..200).as_bytes()).unwrap();
    let mut ids = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(ids.by_ref().take(200).last().unwrap().unwrap(), "200");
    assert_eq!(app.count("select count(*) from cmdb.instance").await, 200);
    // The reader of the ids has gone, so the others are not created.
    drop(ids);
    input.write_all(rows(200..400).as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("cmdb-associations: cannot print the ids: "), "{message}");
    assert_eq!(output.status.code(), Some(2));
}
