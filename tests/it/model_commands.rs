//! The commands `model`, `kind` and `association`.

use serde_json::json;
use sqlx::PgPool;

use crate::app::TestApp;
use crate::binary::{Output, Program};
use crate::models::last_record;

/// Runs the program with arguments that are separated by blanks. Two quotes are an empty one.
fn run(program: &Program, args: &str) -> Output {
    let args: Vec<_> = args.split(' ').map(|arg| if arg == "''" { "" } else { arg }).collect();
    program.run(&args)
}

/// Runs a command that succeeds, and returns what it prints.
#[track_caller]
fn succeed(program: &Program, args: &str) -> String {
    let output = run(program, args);
    assert_eq!((output.status, output.stderr.as_str()), (0, ""), "{args}");
    output.stdout
}

/// Asserts that a command fails with this message.
#[track_caller]
fn assert_refused(program: &Program, args: &str, message: &str) {
    let output = run(program, args);
    assert_eq!((output.status, output.stdout.as_str()), (2, ""), "{args}");
    assert_eq!(output.stderr, format!("cmdb-associations: {message}\n"), "{args}");
}

/// Asserts that a command finds nothing to remove.
#[track_caller]
fn assert_none(program: &Program, args: &str, message: &str) {
    let output = run(program, args);
    assert_eq!((output.status, output.stdout.as_str()), (1, ""), "{args}");
    assert_eq!(output.stderr, format!("{message}\n"), "{args}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn models_are_added_listed_and_removed(pool: PgPool) {
    let app = TestApp::on(pool);
    let program = Program::on(&app.pool);
    assert_eq!(succeed(&program, "model add rack"), "13\n");
    let named = "model add unit --name Unit --classification bk_network --icon i --tenant t";
    assert_eq!(succeed(&program, named), "14\n");
    let listed = succeed(&program, "model list --tenant t");
    let own = "13\track\track\tbk_uncategorized\t0\n14\tunit\tUnit\tbk_network\tt\n";
    assert!(listed.ends_with(own), "{listed}");
    assert!(listed.starts_with("1\thost\t主机\tbk_host_manage\t0\n"), "{listed}");
    assert_eq!(succeed(&program, "model list").lines().count(), 13);
    assert_none(&program, "model remove unit", "tenant 0 has no model unit");
    assert_none(&program, "model remove rack --tenant t", "tenant t has no model rack");
    assert_eq!(succeed(&program, "model remove unit --tenant t"), "");
    assert_none(&program, "model remove unit --tenant t", "tenant t has no model unit");
    let icons = "select count(*) from cmdb.model where key = 'rack' and icon = 'icon-cc-default'
        and created_by = session_user";
    assert_eq!(app.count(icons).await, 1);
    assert_eq!(succeed(&program, "check --strict").matches("broken").count(), 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_audit_record_of_a_command_names_the_user_of_the_database(pool: PgPool) {
    let app = TestApp::on(pool);
    let program = Program::on(&app.pool);
    let user = app.json("select to_jsonb(session_user)").await;
    for (args, resource) in [
        ("model add rack", "model"),
        ("kind add cools --tenant t", "association_kind"),
        ("association add rack cools host --mapping 1:n --tenant t", "model_association"),
        ("association remove rack_cools_host --tenant t", "model_association"),
        ("kind remove cools --tenant t", "association_kind"),
        ("model remove rack", "model"),
    ] {
        succeed(&program, args);
        let record = last_record(&app).await;
        assert_eq!((&record["origin"], &record["user_name"]), (&json!("command"), &user), "{args}");
        assert_eq!(record["resource_type"], resource, "{args}");
        assert!(record["app"].is_null() && record["request_id"].is_null(), "{args}");
        let is_removal = args.contains("remove");
        assert_eq!(
            (record["before"].is_null(), record["after"].is_null()),
            (!is_removal, is_removal)
        );
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn refusals_of_model_commands_say_why(pool: PgPool) {
    let app = TestApp::on(pool);
    let program = Program::on(&app.pool);
    succeed(&program, "model add rack --tenant t");
    let insert = "insert into cmdb.instance (model_id, instance_id)
                  select id, 1 from cmdb.model where key = 'rack'";
    sqlx::query(insert).execute(&app.pool).await.unwrap();
    let key = "a key has only ASCII letters, digits and _, and begins with a letter";
    let name = "a model's name has 1 to 128 characters";
    let long = "a".repeat(129);
    for (args, message) in [
        ("add rack", "a model of this or of another tenant has the key"),
        ("add unit --name rack", "a model of this or of another tenant has the name"),
        ("add unit --classification nonsense", "there is no such classification"),
        ("add unit --icon ''", "bk_obj_icon is missing or empty"),
        ("add unit --name ''", name),
        ("add host", "every BlueKing CMDB has a model with this key"),
        ("add bk_unit", "a model's key must not begin with bk"),
        ("add a-b", key),
        ("add 机", key),
        ("add ''", "bk_obj_id is missing or empty"),
        (&format!("add {long}"), "the key (bk_obj_id) is longer than 128 characters"),
        (
            &format!("add {}", "a".repeat(96)),
            "the keys of a model and of its tenant have at most 96 bytes together",
        ),
        (&format!("add unit --name {long}"), name),
        ("remove host", "a built-in model cannot be deleted"),
        ("remove rack --tenant t", "the model \"rack\" has instances"),
        ("remove bk_switch", "the model is the source or the target of model associations"),
    ] {
        assert_refused(&program, &format!("model {args}"), message);
    }
    for args in ["model add", "model add a --tenant a\tb", "kind", "association add a b c"] {
        assert_eq!(run(&program, args).status, 2, "{args}");
    }
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn kinds_are_added_listed_and_removed(pool: PgPool) {
    let app = TestApp::on(pool);
    let program = Program::on(&app.pool);
    assert_eq!(succeed(&program, "kind add cools"), "7\n");
    let named = "kind add heats --name heating --source-text heats --target-text x --tenant t";
    assert_eq!(succeed(&program, named), "8\n");
    let listed = succeed(&program, "kind list --tenant t");
    let own = "7\tcools\tcools\t\t\t0\n8\theats\theating\theats\tx\tt\n";
    assert!(listed.ends_with(own), "{listed}");
    assert!(listed.starts_with("1\tbelong\t属于\t属于\t包含\t0\n"), "{listed}");
    assert_eq!(succeed(&program, "kind list").lines().count(), 7);
    let directions = "select count(*) from cmdb.association_kind
        where direction = 'src_to_dest' and id > 6";
    assert_eq!(app.count(directions).await, 2);

    succeed(&program, "association add host heats biz --mapping n:n --tenant t");
    let key = "a key has only ASCII letters, digits and _, and begins with a letter";
    let long = "a".repeat(129);
    for (args, message) in [
        ("add run --tenant t", "an association kind has the key already"),
        ("add heats --tenant t", "an association kind has the key already"),
        ("add ''", key),
        ("add a-b", key),
        (&format!("add {long}"), "the key (bk_asst_id) is longer than 128 characters"),
        ("remove run", "a predefined association kind cannot be deleted"),
        ("remove heats --tenant t", "model associations have the association kind"),
    ] {
        assert_refused(&program, &format!("kind {args}"), message);
    }
    assert_eq!(run(&program, "kind add a --direction up").status, 2);
    assert_none(&program, "kind remove heats", "tenant 0 has no kind heats");
    assert_none(&program, "kind remove run --tenant t", "tenant t has no kind run");
    assert_eq!(succeed(&program, "kind remove cools"), "");
    assert_none(&program, "kind remove cools", "tenant 0 has no kind cools");
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn model_associations_are_added_listed_and_removed(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let program = Program::on(&app.pool);
    let id = succeed(&program, "association add host run biz --mapping 1:n");
    let id: i64 = id.trim_end().parse().unwrap();
    let named = "association add host group biz --mapping n:n --key k --name uplink --tenant t";
    assert_eq!(succeed(&program, named), format!("{}\n", id + 1));
    let listed = succeed(&program, "association list --tenant t");
    let own = format!(
        "{id}\thost_run_biz\thost\trun\tbiz\t1:n\t0\n{}\tk\thost\tgroup\tbiz\tn:n\tt\n",
        id + 1
    );
    assert!(listed.ends_with(&own), "{listed}");
    assert_eq!(succeed(&program, "association list").lines().count() + 1, listed.lines().count());
    let stored = "select count(*) from cmdb.model_association
        where key = 'k' and name = 'uplink' and on_delete = 'none' and is_predefined is null";
    assert_eq!(app.count(stored).await, 1);

    app.post(crate::app::batch("bk_switch_default_host", &[(1, 1)])).await.ids();
    let predefined = "update cmdb.model_association set is_predefined = true
                      where key = 'bk_switch_run_host'";
    sqlx::query(predefined).execute(&app.pool).await.unwrap();
    let long = "a".repeat(513);
    for (args, message) in [
        (
            "add host run biz --mapping 1:1",
            "there is a model association of this kind from \"host\" to \"biz\"",
        ),
        (
            "add host run module --mapping 1:1 --key host_run_biz",
            "a model association of the tenant has the key already",
        ),
        ("add x run biz --mapping 1:1", "there is no such source model"),
        ("add biz run x --mapping 1:1", "there is no such target model"),
        ("add x run x --mapping 1:1", "there are no such source and target models"),
        ("add host x biz --mapping 1:1", "there is no such association kind"),
        ("add host '' biz --mapping 1:1", "the association kind and both models are required"),
        (
            "add host bk_mainline biz --mapping 1:1",
            "model associations of the kind \"bk_mainline\" are those of BlueKing CMDB: they \
             cannot be created or deleted",
        ),
        (
            "add host run bk_project --mapping 1:1",
            "the model \"bk_project\" cannot be associated with others",
        ),
        ("add host belong biz --mapping 1:1 --key ''", "bk_obj_asst_id is missing or empty"),
        (
            &format!("add host belong biz --mapping 1:1 --key {long}"),
            "the key (bk_obj_asst_id) is longer than 512 characters",
        ),
        ("remove bk_switch_default_host", "instances are associated by the model association"),
        (
            "remove bk_switch_run_host",
            "a predefined model association cannot be changed or deleted",
        ),
    ] {
        assert_refused(&program, &format!("association {args}"), message);
    }
    for wrong in ["add host run biz", "add host run biz --mapping n:1", "remove"] {
        assert_eq!(run(&program, &format!("association {wrong}")).status, 2, "{wrong}");
    }
    let none = "tenant 0 has no model association k";
    assert_none(&program, "association remove k", none);
    assert_eq!(succeed(&program, "association remove k --tenant t"), "");
    let none = "tenant t has no model association k";
    assert_none(&program, "association remove k --tenant t", none);
    assert_eq!(run(&program, "check --strict").status, 0);
}
