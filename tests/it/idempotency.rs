//! Requests that are repeated under the same `Idempotency-Key`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cmdb_associations::domain::permission::Scope;
use cmdb_associations::http::ClientAddr;
use cmdb_associations::service;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{Reply, Setup, TestApp, batch};
use crate::constraints::wait_until_blocked;
use crate::permissions::grant;

const KEY: &str = "idempotency-key";

async fn send(app: &TestApp, key: &str, body: Value) -> Reply {
    app.post_with(&[(KEY, key)], body).await
}

#[track_caller]
fn assert_replayed(again: &Reply, first: &Reply) {
    assert_eq!(again.text, first.text);
    assert_eq!(again.status, 200);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_ne!(again.headers["x-request-id"], first.headers["x-request-id"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_repeated_request_gets_the_first_answer_byte_for_byte(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let body = batch("bk_switch_connect_host", &[(1, 5), (2, 5), (1, 5), (2, 6), (2, 999)]);
    let first = send(&app, "k", body.clone()).await;
    assert_eq!(first.maps().0, [0, 3]);
    assert!(!first.headers.contains_key("idempotent-replayed"));
    // The answer is replayed although the links were deleted since.
    sqlx::query("delete from cmdb.instance_association where target_id = 5")
        .execute(&app.pool)
        .await
        .unwrap();
    assert_replayed(&send(&app, "k", body.clone()).await, &first);
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 1);
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 1);
    // It is replayed in the language of the first request.
    let again = app.post_with(&[(KEY, "k"), ("blueking-language", "zh")], body.clone()).await;
    assert_replayed(&again, &first);
    // Without the key the request is handled anew.
    assert_eq!(app.post(body).await.maps().0, [0]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_answer_that_refuses_every_detail_is_replayed(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch("bk_switch_connect_host", &[(1, 1)])).await;
    let body = batch("bk_switch_connect_host", &[(1, 1), (2, 1)]);
    let first = app.post_with(&[(KEY, "k"), ("blueking-language", "zh")], body.clone()).await;
    assert_eq!(first.maps().0, [0_usize; 0]);
    sqlx::query("delete from cmdb.instance_association").execute(&app.pool).await.unwrap();
    assert_replayed(&send(&app, "k", body).await, &first);
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_key_is_refused_when_it_was_used_with_a_different_request(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let body = batch("bk_switch_default_host", &[(1, 2), (3, 4)]);
    let first = send(&app, "k", body.clone()).await;
    let changed = |key: &str, value: Value| {
        let mut body = body.clone();
        body[key] = value;
        body
    };
    let pair =
        |source: Value, target: Value| json!({"bk_inst_id": source, "bk_asst_inst_id": target});
    let message = "Parameters error, Idempotency-Key was used with a different request";
    for other in [
        changed("bk_supplier_account", json!("tenant")),
        changed("bk_obj_id", json!("host")),
        changed("bk_asst_obj_id", json!("bk_switch")),
        changed("bk_obj_asst_id", json!("bk_switch_connect_host")),
        changed("details", json!([pair(1.into(), 2.into())])),
        changed("details", json!([pair(3.into(), 4.into()), pair(1.into(), 2.into())])),
        changed("details", json!([pair(1.into(), 2.into()), pair(3.into(), Value::Null)])),
    ] {
        send(&app, "k", other).await.assert_refused(200, 1_306_406, message);
    }
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 2);
    // Spellings and unknown keys that mean the same request are accepted.
    for same in
        [changed("bk_supplier_account", json!(0)), changed("unknown", json!(1)), body.clone()]
    {
        assert_replayed(&send(&app, "k", same).await, &first);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn keys_are_scoped_to_application_and_user(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut conn = app.pool.acquire().await.unwrap();
    let secret = Some("xxx".to_owned());
    service::app::add(&mut conn, "other", true, secret).await.unwrap();
    drop(conn);
    grant(&app, "another", &[Scope::default()]).await;
    let mut ids = Vec::new();
    for (code, user, pair) in
        [("esb_test", "admin", (1, 1)), ("other", "admin", (1, 2)), ("esb_test", "another", (1, 3))]
    {
        let mut body = batch("bk_switch_default_host", &[pair]);
        body["bk_app_code"] = code.into();
        body["bk_username"] = user.into();
        let first = send(&app, "k", body.clone()).await;
        ids.extend(first.ids());
        assert_replayed(&send(&app, "k", body).await, &first);
    }
    assert_eq!(ids.len(), 3);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_refused_request_is_handled_anew_under_its_key(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut body = batch("bk_switch_default_host", &[(1, 1)]);
    body["bk_username"] = "newcomer".into();
    assert_eq!(send(&app, "k", body.clone()).await.json["code"], 9_900_403);
    grant(&app, "newcomer", &[Scope::default()]).await;
    assert_eq!(send(&app, "k", body).await.ids().len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_key_is_refused_unless_it_is_1_to_255_visible_ascii_characters(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let message = "Parameters error, Idempotency-Key must be 1 to 255 visible ASCII characters";
    let body = batch("bk_switch_default_host", &[(1, 1)]);
    for invalid in ["", "a b", "é", &"x".repeat(256)] {
        send(&app, invalid, body.clone()).await.assert_refused(200, 1_306_406, message);
    }
    let two = app.post_with(&[(KEY, "a"), (KEY, "b")], body.clone()).await;
    two.assert_refused(200, 1_306_406, message);
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 0);
    for (valid, pair) in [("!", (1, 1)), ("~\"\\'", (1, 2)), (&"x".repeat(255), (1, 3))] {
        let body = batch("bk_switch_default_host", &[pair]);
        let first = send(&app, valid, body.clone()).await;
        assert_replayed(&send(&app, valid, body).await, &first);
    }
}

/// The ESB drops the header, and passes unknown keys of the body.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_key_in_the_body_means_the_same_as_the_header(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let without = batch("bk_switch_default_host", &[(1, 1)]);
    let with = |key: Value| {
        let mut body = without.clone();
        body["idempotency_key"] = key;
        body
    };
    let first = app.post(with(json!("k"))).await;
    assert_eq!(first.ids().len(), 1);
    assert_replayed(&app.post(with(json!("k"))).await, &first);
    assert_replayed(&send(&app, "k", without.clone()).await, &first);
    assert_replayed(&send(&app, "k", with(json!("k"))).await, &first);
    assert_replayed(&send(&app, "k", with(json!(null))).await, &first);

    let differ = "Parameters error, Idempotency-Key and idempotency_key are not the same";
    send(&app, "k", with(json!("another"))).await.assert_refused(200, 1_306_406, differ);
    let message = "Parameters error, Idempotency-Key must be 1 to 255 visible ASCII characters";
    for invalid in ["", "a b", "é", &"x".repeat(256)] {
        app.post(with(json!(invalid))).await.assert_refused(200, 1_306_406, message);
    }
    let wrong_type =
        "Deserializing JSON data failed: idempotency_key: expected a string, got an integer";
    app.post(with(json!(7))).await.assert_refused(200, 1_199_000, wrong_type);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn no_answer_is_stored_for_a_request_without_a_key(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch("bk_switch_default_host", &[(1, 1)])).await;
    assert_eq!(app.count("select count(*) from cmdb.idempotency_record").await, 0);
}

/// A third writer blocks both requests. When it rolls back, one of them writes, and the other
/// replays its answer.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn concurrent_requests_with_the_same_key_write_once_and_get_the_same_answer(pool: PgPool) {
    let app = Arc::new(TestApp::new(pool.clone()).await);
    let mut other = pool.begin().await.unwrap();
    let hold = "insert into cmdb.instance_association (model_association_id, source_id, target_id)
                select id, 1, 5 from cmdb.model_association where key = 'bk_switch_connect_host'";
    sqlx::query(hold).execute(&mut *other).await.unwrap();
    let requests = [(); 2].map(|()| {
        let app = Arc::clone(&app);
        let body = batch("bk_switch_connect_host", &[(2, 5), (2, 6)]);
        tokio::spawn(async move { send(&app, "k", body).await })
    });
    wait_until_blocked(&pool, 1).await;
    other.rollback().await.unwrap();
    let [one, two] = requests;
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert_eq!(one.maps().0, [0, 1]);
    assert_eq!(one.text, two.text);
    let replayed = [&one, &two].map(|reply| reply.headers.contains_key("idempotent-replayed"));
    assert_ne!(replayed[0], replayed[1]);
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_repeated_request_is_answered_with_503_when_the_first_does_not_end_in_time(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    let mut first = pool.begin().await.unwrap();
    let hold = "insert into cmdb.idempotency_record values
        ('esb_test', 'admin', 'k', sha256(''), now(), 'r', 'en', '{}', '{}')";
    sqlx::query(hold).execute(&mut *first).await.unwrap();
    let body = batch("bk_switch_default_host", &[(1, 1)]);
    let message = "Postgres is unavailable, please try again later";
    send(&app, "k", body.clone()).await.assert_refused(503, 1_306_201, message);
    first.rollback().await.unwrap();
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 0);
    assert_eq!(send(&app, "k", body).await.ids().len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_answer_is_replayed_in_the_envelope_of_the_api_that_is_called(pool: PgPool) {
    let address: std::net::IpAddr = "10.0.0.1".parse().unwrap();
    let trust = |setup: &mut Setup| setup.authenticator.trusted_peers = vec![address.into()];
    let app = TestApp::with(pool, trust).await;
    let body = batch("bk_switch_default_host", &[(1, 1), (1, 1)]);
    let first = send(&app, "k", body.clone()).await;
    let request = axum::http::Request::post("/api/v3/createmany/instassociation")
        .header(KEY, "k")
        .header("x-bkcmdb-app-code", "esb_test")
        .header("x-bkcmdb-user", "admin")
        .extension(ClientAddr(address));
    let again = app.send(request.body(body.to_string().into()).unwrap()).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.json["bk_error_code"], 0);
    assert_eq!(again.json["data"], first.json["data"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_answer_is_kept_for_24_hours_and_purged_after_25(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for (key, pair) in [("expired", (1, 1)), ("current", (1, 2))] {
        send(&app, key, batch("bk_switch_default_host", &[pair])).await;
    }
    for (key, age) in [("expired", "25:00:01"), ("current", "24:00:00")] {
        let aged = "update cmdb.idempotency_record set created_at = now() - $2::text::interval where key = $1";
        sqlx::query(aged).bind(key).bind(age).execute(&app.pool).await.unwrap();
    }
    // The server purges expired answers in batches, for the first time when it starts.
    let purge = tokio::spawn(service::idempotency::purge(app.serving.clone()));
    let started = Instant::now();
    while app.count("select count(*) from cmdb.idempotency_record where key = 'expired'").await > 0
    {
        assert!(started.elapsed() < Duration::from_secs(20), "it is never purged");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    purge.abort();
    assert_eq!(
        app.count("select count(*) from cmdb.idempotency_record where key = 'current'").await,
        1
    );
}

/// As after a downgrade of the program.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_stored_answer_with_an_unknown_refusal_is_an_internal_error(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let body = batch("bk_switch_default_host", &[(1, 1), (1, 1)]);
    send(&app, "k", body.clone()).await;
    sqlx::query("update cmdb.idempotency_record set refusals = '{NULL,1}'")
        .execute(&app.pool)
        .await
        .unwrap();
    assert_eq!(send(&app, "k", body).await.status, 500);
}
