//! What the program checks about its database, and what it does when it is not as it should be.

use std::time::Duration;

use axum::http::StatusCode;
use cmdb_associations::config::database_at;
use cmdb_associations::db::session::{self, Database};
use cmdb_associations::service::database::{Monitor, State};
use cmdb_associations::service::{self, Pool};
use serde_json::json;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, PgPool};
use tokio::sync::watch;

use crate::app::{TestApp, batch, pool_of};
use crate::binary::{Output, Program};
use crate::cluster::Cluster;
use crate::constraints::{Role, block_link_writers, wait_until_blocked};
use crate::pooler;

const NEEDS_ATTENTION: &str = "The database needs attention, please contact the administrator";

/// Settings of a role or a database under which the program would not work.
const HARMFUL: [(&str, &str); 10] = [
    ("statement_timeout", "'1s'"),
    ("lock_timeout", "'1s'"),
    ("idle_in_transaction_session_timeout", "'1s'"),
    ("idle_session_timeout", "'1s'"),
    ("default_transaction_isolation", "serializable"),
    ("row_security", "on"),
    ("search_path", "public"),
    ("plan_cache_mode", "force_custom_plan"),
    ("jit", "on"),
    ("synchronous_commit", "on"),
];

/// The settings of a session or transaction.
async fn settings(conn: &mut PgConnection) -> Vec<String> {
    let names: Vec<_> = HARMFUL.iter().map(|(name, _)| *name).collect();
    sqlx::query_scalar(
        "select name || '=' || current_setting(name) from unnest($1::text[]) name
         union all
         select 'default_transaction_read_only=' || current_setting('default_transaction_read_only')",
    )
    .bind(names)
    .fetch_all(conn)
    .await
    .unwrap()
}

fn expected_settings(statement_timeout: &str) -> Vec<String> {
    let statement_timeout = format!("statement_timeout={statement_timeout}");
    [
        statement_timeout.as_str(),
        "lock_timeout=0",
        "idle_in_transaction_session_timeout=0",
        "idle_session_timeout=0",
        "default_transaction_isolation=read committed",
        "row_security=off",
        "search_path=pg_catalog, pg_temp",
        "plan_cache_mode=auto",
        "jit=off",
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
        for (name, value) in HARMFUL {
            let whose = whose.replace("DATABASE", &format!("{database:?}"));
            role.run(&format!("alter {whose} set {name} = {value}")).await;
        }
        let serving = Pool::new(role.options(), 1);
        let mut conn = serving.acquire().await.unwrap();
        assert_eq!(settings(&mut conn).await, expected_settings("5s"), "{whose}");
        drop(conn);
        let mut conn = role.options().connect().await.unwrap();
        let mut tx = session::begin(&mut conn, "begin read write").await.unwrap();
        assert_eq!(settings(&mut tx).await, expected_settings("0"), "{whose}");
        drop(tx);
        role.run("alter role ROLE reset all").await;
        role.run("alter role ROLE set default_transaction_read_only = on").await;
    }
    role.drop().await;
}

/// The default `lock_timeout` is one second.
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

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_pooler_that_loses_prepared_statements_is_refused(pool: PgPool) {
    let pooler = pooler::start(&pool.connect_options(), false).await;
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
