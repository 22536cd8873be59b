//! What the program checks about its database, and what it does when it is not as it should be.

use std::time::Duration;

use axum::http::StatusCode;
use cmdb_associations::config::database_at;
use cmdb_associations::db::session;
use cmdb_associations::service::Pool;
use cmdb_associations::service::monitor::{Monitor, State};
use serde_json::json;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::{TestApp, batch, pool_of, server_database};
use crate::binary::{Output, Program};
use crate::cluster::Cluster;
use crate::constraints::{Role, block_link_writers, wait_until_blocked};
use crate::pooler;

const NEEDS_ATTENTION: &str = "The database needs attention, please contact the administrator";

/// Settings that a role or a database may have, most of them harmful to the program.
const DEFAULTS: [(&str, &str); 13] = [
    ("statement_timeout", "'1s'"),
    ("lock_timeout", "'1s'"),
    ("idle_in_transaction_session_timeout", "'1s'"),
    ("idle_session_timeout", "'1s'"),
    ("default_transaction_isolation", "serializable"),
    ("row_security", "on"),
    ("search_path", "public"),
    ("plan_cache_mode", "force_custom_plan"),
    ("jit", "on"),
    // The first is harmful to requests, the second to commands.
    ("enable_seqscan", "on"),
    ("enable_bitmapscan", "off"),
    ("max_parallel_workers_per_gather", "4"),
    ("synchronous_commit", "on"),
];

/// The settings of a session or transaction.
async fn settings(conn: &mut PgConnection) -> Vec<String> {
    let names: Vec<_> = DEFAULTS.iter().map(|(name, _)| *name).collect();
    sqlx::query_scalar(
        "select name || '=' || current_setting(name)
         from unnest($1::text[] || 'default_transaction_read_only'::text) name",
    )
    .bind(names)
    .fetch_all(conn)
    .await
    .unwrap()
}

fn expected_settings(
    statement_timeout: &str, reads_whole_tables: &str, plan_cache_mode: &str,
) -> Vec<String> {
    let statement_timeout = format!("statement_timeout={statement_timeout}");
    let plan_cache_mode = format!("plan_cache_mode={plan_cache_mode}");
    let enable_seqscan = format!("enable_seqscan={reads_whole_tables}");
    let enable_bitmapscan = format!("enable_bitmapscan={reads_whole_tables}");
    [
        statement_timeout.as_str(),
        "lock_timeout=0",
        "idle_in_transaction_session_timeout=0",
        "idle_session_timeout=0",
        "default_transaction_isolation=read committed",
        "row_security=off",
        "search_path=pg_catalog, pg_temp",
        plan_cache_mode.as_str(),
        "jit=off",
        enable_seqscan.as_str(),
        enable_bitmapscan.as_str(),
        "max_parallel_workers_per_gather=0",
        "synchronous_commit=on",
        "default_transaction_read_only=off",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn connections_and_commands_have_their_settings_whatever_the_defaults_are(pool: PgPool) {
    let role = Role::new(&pool, "").await;
    role.run("alter role ROLE set default_transaction_read_only = on").await;
    for whose in ["role ROLE", "database DATABASE"] {
        let database = pool.connect_options().get_database().unwrap().to_owned();
        for (name, value) in DEFAULTS {
            let whose = whose.replace("DATABASE", &format!("{database:?}"));
            role.run(&format!("alter {whose} set {name} = {value}")).await;
        }
        let serving = Pool::new(server_database(role.options()), 1);
        let mut conn = serving.acquire().await.unwrap();
        assert_eq!(
            settings(&mut conn).await,
            expected_settings("5s", "off", "force_generic_plan"),
            "{whose}"
        );
        drop(conn);
        let mut conn = role.options().connect().await.unwrap();
        let mut tx = session::begin(&mut conn, "begin read write").await.unwrap();
        assert_eq!(settings(&mut tx).await, expected_settings("0", "on", "auto"), "{whose}");
        drop(tx);
        let program = Program::at(role.options().to_url_lossy().as_str());
        assert_eq!(program.run(&["app", "list"]).stderr, "", "{whose}");
        let server = program.serve(&["--no-migrate"]);
        let ready = reqwest::get(server.url("/readyz")).await.unwrap().text().await.unwrap();
        assert!(ready.starts_with("ready\n"), "{whose}: {ready}");
        role.run("alter role ROLE reset all").await;
        role.run("alter role ROLE set default_transaction_read_only = on").await;
    }
    role.drop().await;
}

/// The role's default `lock_timeout` is much shorter.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_import_waits_for_a_writer_longer_than_the_default_lock_timeout(pool: PgPool) {
    let role = Role::new(&pool, "").await;
    role.run("alter role ROLE set lock_timeout = '100ms'").await;
    role.run("alter role ROLE set statement_timeout = '1s'").await;
    let holder = block_link_writers(&pool).await;
    let program = Program::at(role.options().to_url_lossy().as_str());
    let importing =
        tokio::task::spawn_blocking(move || program.run(&["import", "tests/demo/export"]));
    wait_until_blocked(&pool, 1).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    holder.rollback().await.unwrap();
    let imported = importing.await.unwrap();
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    role.drop().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_role_for_which_triggers_do_not_run_is_refused(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let role = Role::new(&pool, "").await;
    role.run("alter role ROLE set session_replication_role = replica").await;
    let app = TestApp::on(pool_of(role.options(), 1));
    let reply = app.post(batch("bk_switch_default_host", &[(1, 1)])).await;
    reply.assert_refused(503, 1_306_201, NEEDS_ATTENTION);
    let output = Program::at(role.options().to_url_lossy().as_str()).run(&["serve"]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("session_replication_role"), "{}", output.stderr);
    role.drop().await;
}

#[sqlx::test(migrations = false)]
async fn behind_a_pooler_in_transaction_mode_the_server_relies_on_defaults_of_its_role(
    pool: PgPool,
) {
    let role = Role::without_privileges(&pool).await;
    role.run("create schema cmdb authorization ROLE").await;
    let pooler = pooler::start(&role.options(), true).await;
    let url = &*pooler.url;
    let refused = run(url, &["serve"]).await;
    assert_eq!(refused.status, 2);
    for text in ["`cmdb-associations migrate --set-role-defaults`", "set statement_timeout = '5s'`"]
    {
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
    }
    let migrated = run(url, &["migrate", "--set-role-defaults"]).await;
    assert_eq!(migrated.status, 0, "{}", migrated.stderr);

    pooler.close().await;

    // Connections that the pooler opens from now on have the new defaults.
    let pooler = pooler::start(&role.options(), true).await;
    let url = &*pooler.url;
    let imported = run(url, &["import", "tests/demo/export"]).await;
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    TestApp::new(pool.clone()).await;
    let program = Program::at(url);
    let server = tokio::task::spawn_blocking(move || program.serve(&[])).await.unwrap();
    let mut body = batch("bk_switch_connect_host", &[(11, 104)]);
    body["bk_app_code"] = "esb_test".into();
    body["bk_app_secret"] = "xxx".into();
    body["bk_username"] = "admin".into();
    for error in [json!({}), json!({"0": "the associations bk_switch->host already exist"})] {
        let request = reqwest::Client::new().post(server.url(crate::app::PATH));
        let answer = request.body(body.to_string()).send().await.unwrap();
        let answer: serde_json::Value =
            serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(answer["data"]["error_msg"], error, "{answer}");
    }
    drop(server);
    assert_eq!(run(url, &["check", "--strict"]).await.status, 0);
    pooler.close().await;
    role.drop().await;
}

/// A role's default would override that of the server or of the database.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_defaults_of_a_role_leave_a_read_only_database_read_only(pool: PgPool) {
    const IS_SET: &str = "select count(*) from pg_db_role_setting, unnest(setconfig) setting
         where setdatabase = (select oid from pg_database where datname = current_database())
             and setting = 'default_transaction_read_only=off'";
    let role = Role::new(&pool, "").await;
    let program = Program::at(role.options().to_url_lossy().as_str());
    for expected in [0, 1] {
        let output = program.run(&["migrate", "--set-role-defaults"]);
        assert_eq!(output.status, 0, "{}", output.stderr);
        assert_eq!(TestApp::on(pool.clone()).count(IS_SET).await, expected);
        // A default that the role has already is changed.
        role.run("alter role ROLE set default_transaction_read_only = on").await;
    }
    role.drop().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_pooler_that_loses_prepared_statements_is_refused(pool: PgPool) {
    let pooler = pooler::start(&pool.connect_options(), false).await;
    // Another client has left a statement of the same name in the second of two connections.
    let through_pooler = database_at(&pooler.url).unwrap().options()[0].clone();
    let mut first = through_pooler.connect().await.unwrap();
    let mut second = through_pooler.connect().await.unwrap();
    let tx = first.begin().await.unwrap();
    let left: i32 = sqlx::query_scalar("select pg_catalog.pg_backend_pid()")
        .fetch_one(&mut second)
        .await
        .unwrap();
    assert!(left > 0);
    tx.rollback().await.unwrap();
    drop((first, second));
    for args in [&["serve"][..], &["app", "list"], &["import", "tests/demo/export"], &["check"]] {
        let refused = run(&pooler.url, args).await;
        assert_eq!(refused.status, 2, "{args:?}");
        let reason = "does not keep prepared statements: use pool_mode = session";
        assert!(refused.stderr.contains(reason), "{args:?}: {}", refused.stderr);
    }
    pooler.close().await;
}

/// Runs the program without blocking this thread, on which the pooler runs.
async fn run(url: &str, args: &'static [&'static str]) -> Output {
    let program = Program::at(url);
    tokio::task::spawn_blocking(move || program.run(args)).await.unwrap()
}

/// Inspects a database all the time. Returns what is found.
async fn monitor(pool: &PgPool) -> (watch::Receiver<State>, JoinSet<()>) {
    let database = server_database(pool.connect_options().as_ref().clone());
    let serving = Pool::new(database.clone(), 1);
    let mut monitor = Monitor::new(database, serving, false, true);
    monitor.start().await.unwrap();
    let mut running = JoinSet::new();
    let state = monitor.state();
    running.spawn(monitor.run(Duration::from_millis(20), Duration::from_millis(20)));
    (state, running)
}

/// Waits until the problem is this one.
async fn wait_for(state: &mut watch::Receiver<State>, problem: Option<&str>) {
    let found = state.wait_for(|state| state.problem.as_deref() == problem);
    let is_found = tokio::time::timeout(Duration::from_secs(10), found).await.is_ok();
    assert!(is_found, "expected {problem:?}, found {:?}", state.borrow().problem);
}

async fn execute(pool: &PgPool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_schema_that_is_not_as_the_migrations_made_it_is_found_with_the_name(pool: PgPool) {
    let (mut state, _running) = monitor(&pool).await;
    for (damage, repair, found) in [
        (
            "alter table cmdb.instance disable trigger instance_lock_before_delete",
            "alter table cmdb.instance enable trigger instance_lock_before_delete",
            "trigger instance_lock_before_delete on instance is disabled",
        ),
        (
            "alter table cmdb.model disable trigger all",
            "alter table cmdb.model enable trigger all",
            "constraint model_classification_fk on model is disabled; \
             constraint model_number_key on model is disabled; \
             constraint model_tenant_fk on model is disabled; \
             constraint model_association_source_model_fk on model_association is disabled; \
             constraint model_association_target_model_fk on model_association is disabled; \
             constraint permission_grant_model_fk on permission_grant is disabled; \
             trigger model_bump_cache_version on model is disabled; \
             trigger model_bump_cache_version_truncate on model is disabled; \
             trigger model_restrict_built_in_delete on model is disabled; \
             trigger model_restrict_delete on model is disabled; and 2 more",
        ),
        (
            "alter function cmdb.restrict_linked_truncate() reset search_path",
            "alter function cmdb.restrict_linked_truncate() set search_path = pg_catalog, pg_temp",
            "function restrict_linked_truncate is changed",
        ),
        (
            "drop index cmdb.instance_association_target_key;
             create index instance_association_target_key on cmdb.instance_association
                 (model_association_id, target_id) where model_association_id & 3 <> 3",
            "drop index cmdb.instance_association_target_key;
             create unique index instance_association_target_key on cmdb.instance_association
                 (model_association_id, target_id) where model_association_id & 3 <> 3",
            "index instance_association_target_key on instance_association is changed",
        ),
        (
            "update pg_index set indisvalid = false
             where indexrelid = 'cmdb.instance_association_pair_key'::regclass",
            "update pg_index set indisvalid = true
             where indexrelid = 'cmdb.instance_association_pair_key'::regclass",
            "index instance_association_pair_key on instance_association is invalid",
        ),
        (
            "alter table cmdb.audit_log set unlogged",
            "alter table cmdb.audit_log set logged",
            "sequence audit_log_id_seq is changed; table audit_log is changed",
        ),
        (
            "alter table cmdb.instance rename column name to title",
            "alter table cmdb.instance rename column title to name",
            "column name on instance is missing; \
             trigger instance_update_document on instance is changed",
        ),
    ] {
        execute(&pool, damage).await;
        let problem = format!("the schema is not as the migrations made it: {found}");
        wait_for(&mut state, Some(&problem)).await;
        execute(&pool, repair).await;
        wait_for(&mut state, None).await;
    }
    // Other objects do not matter.
    execute(&pool, "create table cmdb.report (id integer); create index on cmdb.instance (name)")
        .await;
    state.mark_unchanged();
    state.changed().await.unwrap();
    assert_eq!(state.borrow().problem, None);
}

/// They may have replaced functions and triggers.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn beside_newer_migrations_only_missing_tables_keys_and_guards_count(pool: PgPool) {
    execute(
        &pool,
        "insert into cmdb._sqlx_migrations (version, description, success, checksum, execution_time)
             values (9999, 'of a newer program', true, '', 0);
         drop trigger model_restrict_update on cmdb.model;
         alter function cmdb.guard_may_skip() volatile set search_path = pg_catalog;
         alter table cmdb.model alter column icon drop not null;
         drop index cmdb.instance_association_target_idx",
    )
    .await;
    let (mut state, _running) = monitor(&pool).await;
    assert_eq!(state.borrow().problem, None);
    execute(
        &pool,
        "drop trigger instance_association_guard_insert on cmdb.instance_association;
         drop index cmdb.instance_association_pair_key;
         drop table cmdb.permission_grant",
    )
    .await;
    let problem = "the schema is not as the migrations made it: \
        index instance_association_pair_key on instance_association is missing; \
        index permission_grant_key on permission_grant is missing; \
        index permission_grant_pkey on permission_grant is missing; \
        table permission_grant is missing; \
        trigger instance_association_guard_insert on instance_association is missing";
    wait_for(&mut state, Some(problem)).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn while_the_schema_is_renamed_requests_are_answered_with_503(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    let send = async |pair| app.post(batch("bk_switch_default_host", &[pair])).await;
    assert_eq!(send((1, 1)).await.ids().len(), 1);
    execute(&pool, "alter schema cmdb rename to elsewhere").await;
    let reply = send((1, 2)).await;
    reply.assert_refused(503, 1_306_201, NEEDS_ATTENTION);
    assert_eq!(reply.headers["retry-after"], "30");
    let (status, reason) = app.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reason.starts_with("the database has no tables of this program"), "{reason}");
    execute(&pool, "alter schema elsewhere rename to cmdb").await;
    assert_eq!(send((1, 2)).await.ids().len(), 1);
    assert_eq!(app.get("/readyz").await.0, StatusCode::OK);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_sequence_behind_its_rows_is_found_with_the_statement_that_repairs_it(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    let details: Vec<_> = (1..=40).map(|id| (id, id)).collect();
    app.post(batch("bk_switch_default_host", &details)).await.ids();
    let (mut state, _running) = monitor(&pool).await;
    assert_eq!(state.borrow().problem, None);
    execute(&pool, "select setval('cmdb.instance_association_id_seq', 1)").await;
    let reply = app.post(batch("bk_switch_default_host", &[(50, 50)])).await;
    reply.assert_refused(503, 1_306_201, NEEDS_ATTENTION);
    assert!(app.count("select last_value from cmdb.instance_association_id_seq").await < 6);

    let repair = "select setval('cmdb.instance_association_id_seq', 40)";
    let problem = format!("sequences are behind the rows of their tables: run `{repair}`");
    wait_for(&mut state, Some(&problem)).await;
    let checked = Program::on(&pool).run(&["check"]);
    assert_eq!(checked.status, 1);
    assert!(checked.stdout.contains(&format!("run `{repair}`")), "{}", checked.stdout);

    for repair in ["alter sequence cmdb.instance_association_id_seq restart with 41", repair] {
        execute(&pool, repair).await;
        wait_for(&mut state, None).await;
    }
    assert_eq!(app.post(batch("bk_switch_default_host", &[(50, 50)])).await.ids(), [41]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn settings_that_can_lose_acknowledged_links_are_announced_unless_accepted(pool: PgPool) {
    let role = Role::new(&pool, "").await;
    role.run("alter role ROLE set synchronous_commit = local").await;
    let program = Program::at(role.options().to_url_lossy().as_str());
    for (environment, is_announced) in [(&[][..], true), (&[("CMDB_ACCEPT_DATA_LOSS", "1")], false)]
    {
        let server = program.serve_in(environment, &["--no-migrate"]);
        let get = async |path| reqwest::get(server.url(path)).await.unwrap().text().await.unwrap();
        let ready = get("/readyz").await;
        assert!(get("/metrics").await.contains("\ncmdb_database_durable 0\n"));
        server.signal("TERM");
        let log = server.wait().1;
        for text in [ready, log] {
            let warning = "a crash or a failover can lose acknowledged associations: ";
            let settings = text.split_once(warning).map(|(_, settings)| settings.to_owned());
            assert_eq!(settings.is_some(), is_announced, "{text}");
            assert!(settings.is_none_or(|text| text.contains("synchronous_commit=local")));
        }
    }
    role.drop().await;
}

#[sqlx::test(migrations = false)]
async fn a_database_with_another_encoding_is_refused(pool: PgPool) {
    // A name has at most 63 bytes.
    let name = format!("ascii_{:.57}", pool.connect_options().get_database().unwrap());
    let create =
        format!("create database {name:?} encoding 'SQL_ASCII' locale 'C' template template0");
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&pool).await.unwrap();
    let url = pool.connect_options().as_ref().clone().database(&name).to_url_lossy();
    for args in [&["migrate"][..], &["serve"]] {
        let output = Program::at(url.as_str()).run(args);
        assert_eq!(output.status, 2);
        let reason = "the encoding of the database is SQL_ASCII, not UTF8";
        assert!(output.stderr.contains(reason), "{}", output.stderr);
    }
    let drop = AssertSqlSafe(format!("drop database {name:?}"));
    sqlx::raw_sql(drop).execute(&pool).await.unwrap();
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn all_privileges_that_the_role_lacks_are_named_at_once(pool: PgPool) {
    let role = Role::new(&pool, "").await;
    role.run("revoke insert, delete on cmdb.audit_log from ROLE").await;
    role.run("revoke all on sequence cmdb.instance_association_id_seq from ROLE").await;
    let database = pool.connect_options().get_database().unwrap().to_owned();
    role.run(&format!("revoke temporary on database {database:?} from public")).await;
    let program = Program::at(role.options().to_url_lossy().as_str());
    // Additional tables do not matter.
    execute(&pool, "create table cmdb.report (id integer)").await;
    let others = "SELECT, USAGE on sequence cmdb.instance_association_id_seq; \
                  INSERT, DELETE on table cmdb.audit_log";
    let on_sequence = "SELECT on sequence cmdb.instance_association_id_seq";
    let import = format!(
        "TEMPORARY on database {database:?}; SELECT, USAGE, UPDATE on sequence \
         cmdb.instance_association_id_seq; INSERT, DELETE on table cmdb.audit_log"
    );
    for (args, missing) in [
        (&["serve"][..], others),
        (&["app", "list"], others),
        (&["check"], on_sequence),
        (&["import", "tests/demo/export"], &import),
    ] {
        let output = program.run(args);
        assert_eq!(output.status, 2, "{args:?}");
        let text = format!("the role lacks privileges: {missing}; ");
        assert!(output.stderr.contains(&text), "{args:?}: {}", output.stderr);
    }
    role.run("revoke usage on schema cmdb from ROLE").await;
    let output = program.run(&["check"]);
    assert!(output.stderr.contains("USAGE on schema cmdb"), "{}", output.stderr);
    execute(&pool, "drop schema cmdb cascade").await;
    for args in [&["migrate"][..], &["serve"]] {
        let output = program.run(args);
        assert_eq!(output.status, 2);
        let text = format!("the role lacks privileges: CREATE on database {database:?}; ");
        assert!(output.stderr.contains(&text), "{args:?}: {}", output.stderr);
    }
    role.drop().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_migration_that_was_changed_after_it_was_applied_is_refused(pool: PgPool) {
    execute(&pool, "update cmdb._sqlx_migrations set checksum = '' where version = 3").await;
    let program = Program::on(&pool);
    for args in [&["migrate"][..], &["serve"], &["serve", "--no-migrate"], &["check"]] {
        let output = program.run(args);
        assert_eq!(output.status, 2, "{args:?}");
        let reason = "migration 3 was previously applied but has been modified";
        assert!(output.stderr.contains(reason), "{args:?}: {}", output.stderr);
    }
    let (status, text) = TestApp::on(pool).get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("the database cannot be migrated"), "{text}");
}

/// The migration 8 waits for the lock of another transaction.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_migration_waits_for_a_lock_no_longer_than_its_limit(pool: PgPool) {
    execute(&pool, "delete from cmdb._sqlx_migrations where version = 8").await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table cmdb.model").execute(&mut *holder).await.unwrap();
    let output = Program::on(&pool).run(&["migrate", "--lock-timeout", "20ms"]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("due to lock timeout"), "{}", output.stderr);
    let applied = "select count(*) from cmdb._sqlx_migrations";
    let others = i64::try_from(crate::MIGRATOR.iter().count()).unwrap() - 1;
    assert_eq!(TestApp::on(pool.clone()).count(applied).await, others);
    holder.rollback().await.unwrap();
}

/// A server starts without its database, and on a standby, and is ready when it can be.
#[tokio::test]
async fn a_server_waits_until_its_database_is_reachable_and_writable() {
    let cluster = Cluster::start();
    let program = Program::at(cluster.options().to_url_lossy().as_str());
    assert_eq!(program.run(&["migrate"]).status, 0);
    let server = {
        cluster.does("stop");
        program.serve(&[])
    };
    let ready = async |expected: &str| {
        let started = std::time::Instant::now();
        loop {
            let answer = reqwest::get(server.url("/readyz")).await.unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            if text.starts_with(expected) {
                return status.as_u16();
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{status}: {text}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert_eq!(ready("Postgres is unavailable").await, 503);
    cluster.does("start-standby");
    assert_eq!(ready("the database is read-only: the server is a standby").await, 503);
    for args in [&["migrate"][..], &["app", "list"], &["import", "tests/demo/export"]] {
        let output = program.run(args);
        assert_eq!(output.status, 2, "{args:?}");
        assert!(output.stderr.contains("is a standby"), "{args:?}: {}", output.stderr);
    }
    assert_eq!(program.run(&["check"]).status, 0);
    cluster.does("promote");
    assert_eq!(ready("ready").await, 200);
    let mut conn = cluster.options().connect().await.unwrap();
    let read_only = "alter system set default_transaction_read_only = on";
    sqlx::raw_sql(read_only).execute(&mut conn).await.unwrap();
    sqlx::raw_sql("select pg_reload_conf()").execute(&mut conn).await.unwrap();
    assert_eq!(ready("the database is read-only: default_transaction_read_only").await, 503);
}

/// A row that the index does not have: it was written while the index was out of use.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn check_finds_an_index_that_differs_from_its_table(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    app.post(batch("bk_switch_connect_host", &[(1, 1)])).await.ids();
    let index = "where indexrelid = 'cmdb.instance_association_target_key'::regclass";
    let set_ready = async |is_ready: bool| {
        let sql = format!("update pg_index set indisready = {is_ready} {index}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    };
    set_ready(false).await;
    let unindexed = "insert into cmdb.instance_association
            (model_association_id, source_id, target_id)
        select id, 2, 2 from cmdb.model_association where key = 'bk_switch_connect_host'";
    execute(&pool, unindexed).await;
    set_ready(true).await;
    execute(&pool, "create extension amcheck").await;
    let checked = Program::on(&pool).run(&["check"]);
    assert_eq!(checked.status, 1);
    for text in [
        "broken  every index has the keys of its table: 1 exception\n        index \
         instance_association_target_key has other keys than its table (1 and 2 rows): run \
         `reindex index cmdb.instance_association_target_key`\n",
        "broken  amcheck finds no index corrupt: 1 exception\n        index \
         instance_association_target_key: heap tuple",
    ] {
        assert!(checked.stdout.contains(text), "{}", checked.stdout);
    }
    execute(&pool, "reindex index cmdb.instance_association_target_key").await;
    assert_eq!(Program::on(&pool).run(&["check"]).status, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn check_warns_of_an_index_whose_collation_has_changed(pool: PgPool) {
    execute(
        &pool,
        "create index by_name on cmdb.instance (name collate \"und-x-icu\");
         update pg_collation set collversion = '1' where collname = 'und-x-icu'",
    )
    .await;
    let checked = Program::on(&pool).run(&["check"]);
    assert_eq!(checked.status, 0);
    let warning = "warning no index depends on a changed collation: 1 exception\n        index \
                   by_name depends on collation und-x-icu, which had version 1 and has ";
    assert!(checked.stdout.contains(warning), "{}", checked.stdout);
}
