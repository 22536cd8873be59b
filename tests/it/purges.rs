//! The command `audit purge`.

use std::fs;

use cmdb_associations::db::audit_log::{insert_purge, purge_portion};
use cmdb_associations::service::audit::purge;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};
use time::OffsetDateTime;

use crate::app::{TestApp, assert_sound, batch};
use crate::binary::{Output, Program};
use crate::deletions::{MANY, many};

const KEY: &str = "bk_switch_default_host";

/// Makes audit records and idempotency records three days older.
async fn age(pool: &PgPool) {
    for sql in [
        "update cmdb.audit_log set created_at = created_at - interval '3 days'",
        "update cmdb.idempotency_record set created_at = created_at - interval '3 days'",
    ] {
        sqlx::query(sql).execute(pool).await.unwrap();
    }
}

/// The time before which the tests purge, between aged records and others.
async fn two_days_ago(pool: &PgPool) -> OffsetDateTime {
    sqlx::query_scalar("select now() - interval '2 days'").fetch_one(pool).await.unwrap()
}

/// Runs the command with a time in SQL, as PostgreSQL writes it.
async fn purge_before(pool: &PgPool, time: &str) -> Output {
    let sql = AssertSqlSafe(format!("select ({time})::text"));
    let time: String = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
    Program::on(pool).run(&["audit", "purge", "--before", &time])
}

/// The origin and the ids of each audit record.
async fn records(pool: &PgPool) -> Vec<(String, String)> {
    sqlx::query_as("select origin, association_ids::text from cmdb.audit_log order by id")
        .fetch_all(pool)
        .await
        .unwrap()
}

fn record(origin: &str, ids: &str) -> (String, String) {
    (origin.to_owned(), ids.to_owned())
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_purge_moves_the_ids_of_old_records_to_a_record_of_its_own(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post_with(&[("idempotency-key", "k")], batch(KEY, &[(1, 1), (1, 2)])).await.ids();
    app.post(batch(KEY, &[(2, 1)])).await.ids();
    age(&app.pool).await;
    app.post(batch(KEY, &[(3, 1)])).await.ids();
    let output = purge_before(&app.pool, "now() - interval '2 days'").await;
    assert_eq!((output.status, output.stderr.as_str()), (0, ""));
    assert_eq!(output.stdout, "2 audit records purged\n");
    let expected = [record("request", "{[4,5)}"), record("purge", "{[1,4)}")];
    assert_eq!(records(&app.pool).await, expected);
    let purges = "select count(*) from cmdb.audit_log
        where user_name = session_user and purged_records = 2
            and created_at > now() - interval '1 hour'
            and purged_before < now() - interval '2 days'";
    assert_eq!(app.count(purges).await, 1);
    assert_sound(&app.pool).await;

    let again = purge_before(&app.pool, "now() - interval '2 days'").await;
    assert_eq!((again.status, again.stdout.as_str()), (0, "0 audit records purged\n"));
    assert_eq!(records(&app.pool).await, expected);

    // Later purges have records of their own, and leave that of the first one.
    assert_eq!(app.post(batch(KEY, &[(4, 1), (5, 1)])).await.ids(), [5, 6]);
    age(&app.pool).await;
    app.post(batch(KEY, &[(6, 1)])).await.ids();
    let later = purge_before(&app.pool, "now() - interval '2 days'").await;
    assert_eq!(later.stdout, "2 audit records purged\n");
    let expected =
        [record("purge", "{[1,4)}"), record("request", "{[7,8)}"), record("purge", "{[4,7)}")];
    assert_eq!(records(&app.pool).await, expected);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_purge_keeps_the_ids_of_deleted_links(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(KEY, &[(1, 1), (1, 2), (1, 3), (1, 4)])).await.ids();
    app.post_to(MANY, &[("idempotency-key", "k")], many("host", &[2])).await;
    app.post_to(MANY, &[], many("host", &[4])).await;
    age(&app.pool).await;
    app.post_to(MANY, &[], many("host", &[1])).await;
    let output = purge_before(&app.pool, "now() - interval '2 days'").await;
    assert_eq!(output.stdout, "3 audit records purged\n");
    let deleted = "select origin, deleted_ids::text from cmdb.audit_log order by id";
    let deleted: Vec<(String, String)> =
        sqlx::query_as(deleted).fetch_all(&app.pool).await.unwrap();
    assert_eq!(deleted, [record("request", "{[1,2)}"), record("purge", "{[2,3),[4,5)}")]);
    assert_eq!(records(&app.pool).await, [record("request", "{}"), record("purge", "{[1,5)}")]);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn records_of_the_last_26_hours_cannot_be_purged(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(KEY, &[(1, 1)])).await.ids();
    for time in ["now() - interval '25 hours 59 minutes'", "now() + interval '1 day'"] {
        let output = purge_before(&app.pool, time).await;
        assert_eq!((output.status, output.stdout.as_str()), (2, ""));
        assert!(output.stderr.contains("less than 26 hours ago"), "{}", output.stderr);
    }
    let output = purge_before(&app.pool, "now() - interval '26 hours'").await;
    assert_eq!((output.status, output.stdout.as_str()), (0, "0 audit records purged\n"));
    let output = Program::on(&app.pool).run(&["audit", "purge", "--before", "2026-01-31T18:00:00"]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("expected a time with its offset"), "{}", output.stderr);
    assert_eq!(records(&app.pool).await, [record("request", "{[1,2)}")]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_id_whose_record_was_purged_is_not_assigned_again(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(KEY, &[(1, 1), (1, 2)])).await.ids();
    age(&app.pool).await;
    assert_eq!(purge_before(&app.pool, "now() - interval '2 days'").await.status, 0);
    let delete = "delete from cmdb.instance_association where id = 2";
    sqlx::query(delete).execute(&app.pool).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let link = json!({
        "id": 2, "bk_obj_asst_id": KEY, "bk_obj_id": "bk_switch", "bk_asst_obj_id": "host",
        "bk_inst_id": 3, "bk_asst_inst_id": 3,
    });
    fs::write(folder.path().join("cc_InstAsst.json"), link.to_string()).unwrap();
    let output = Program::on(&app.pool).run(&["import", folder.path().to_str().unwrap()]);
    let reason = "rejected: cc_InstAsst.json:1: id 2 was assigned to a link that a request created";
    assert!(output.stderr.contains(reason), "{}", output.stderr);

    let reset = "select setval('cmdb.instance_association_id_seq', 1)";
    sqlx::query(reset).execute(&app.pool).await.unwrap();
    let output = Program::on(&app.pool).run(&["check"]);
    assert_eq!(output.status, 1);
    assert!(output.stdout.contains("id 2 is assigned"), "{}", output.stdout);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_large_purge_has_a_record_for_each_hundred_portions(pool: PgPool) {
    let requests = "insert into cmdb.audit_log
            (origin, request_id, app, user_name, tenant_id, model_association_id, association_ids)
        select 'request', 'id', 'app', 'user', 0, 0, int8multirange(int8range(id, id + 1))
        from generate_series(1, 101) id";
    sqlx::query(requests).execute(&pool).await.unwrap();
    age(&pool).await;
    let before = two_days_ago(&pool).await;
    assert_eq!(purge(&mut pool.acquire().await.unwrap(), before, 1).await.unwrap(), 101);
    let expected = [record("purge", "{[1,101)}"), record("purge", "{[101,102)}")];
    assert_eq!(records(&pool).await, expected);
}

/// They have little but the ids, which a purge has to keep.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn records_of_imports_are_not_purged(pool: PgPool) {
    let import = "insert into cmdb.audit_log
            (origin, tenant_id, model_association_id, association_ids)
        values ('import', 0, 0, '{[1,9)}')";
    sqlx::query(import).execute(&pool).await.unwrap();
    age(&pool).await;
    let output = purge_before(&pool, "now() - interval '2 days'").await;
    assert_eq!(output.stdout, "0 audit records purged\n");
    assert_eq!(records(&pool).await, [record("import", "{[1,9)}")]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn purges_run_beside_batches_and_beside_each_other(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for id in 1..=20 {
        app.post(batch(KEY, &[(id, 1), (id, 2)])).await.ids();
    }
    age(&app.pool).await;
    let before = two_days_ago(&app.pool).await;
    let purging = async || {
        let mut conn = app.pool.acquire().await.unwrap();
        purge(&mut conn, before, 3).await.unwrap()
    };
    let sending = async || {
        for id in 1..=20 {
            app.post(batch(KEY, &[(id, 3), (id, 4)])).await.ids();
        }
    };
    let (first, second, ()) = tokio::join!(purging(), purging(), sending());
    // Each skips the records that the other one has locked, and the other one deletes them.
    assert_eq!(first + second, 20);
    let counts = "select sum(purged_records)::bigint from cmdb.audit_log";
    assert_eq!(app.count(counts).await, 20);
    assert_eq!(app.count("select count(*) from cmdb.audit_log where origin = 'request'").await, 20);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_purge_that_has_not_committed_blocks_no_batch(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(KEY, &[(1, 1)])).await.ids();
    age(&app.pool).await;
    let before = two_days_ago(&app.pool).await;
    let mut tx = app.pool.begin().await.unwrap();
    let record = insert_purge(&mut tx, before).await.unwrap();
    let purged = purge_portion(&mut tx, record, 0, 100).await.unwrap().unwrap();
    assert_eq!(purged.records, 1);
    assert_eq!(app.post(batch(KEY, &[(2, 1)])).await.ids(), [2]);
    tx.rollback().await.unwrap();
    assert_eq!(records(&app.pool).await.len(), 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_purge_deletes_the_records_of_changes_of_models_by_requests_and_commands(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let program = Program::on(&app.pool);
    for tenant in ["0", "t"] {
        let id = crate::models::create(&app, tenant, &format!("rack_{tenant}")).await;
        app.gateway("delete_object", json!({"id": id, "bk_supplier_account": tenant})).await;
    }
    for args in [["model", "add", "unit"], ["model", "remove", "unit"], ["kind", "add", "cools"]] {
        assert_eq!(program.run(&args).status, 0);
    }
    age(&app.pool).await;
    assert_eq!(program.run(&["kind", "remove", "cools"]).status, 0);
    let output = purge_before(&app.pool, "now() - interval '2 days'").await;
    assert_eq!((output.status, output.stdout.as_str()), (0, "7 audit records purged\n"));
    assert_eq!(records(&app.pool).await, [record("command", "{}"), record("purge", "{}")]);
    assert_sound(&app.pool).await;
    assert_eq!(program.run(&["check", "--strict"]).status, 0);
}
