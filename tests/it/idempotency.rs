//! The same request again, under the same `Idempotency-Key`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cmdb_associations::http::{ClientAddr, TrustedSources};
use cmdb_associations::service;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::app::{Reply, TestApp, batch};
use crate::constraints::wait_until_blocked;

const KEY: &str = "idempotency-key";

async fn send(app: &TestApp, key: &str, body: Value) -> Reply {
    app.post_with(&[(KEY, key)], body).await
}

#[track_caller]
fn assert_repeats(again: &Reply, first: &Reply) {
    assert_eq!(again.text, first.text);
    assert_eq!(again.status, 200);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_ne!(again.headers["x-request-id"], first.headers["x-request-id"]);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn the_same_request_again_gets_the_same_answer_to_the_byte(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let body = batch("bk_switch_connect_host", &[(1, 5), (2, 5), (1, 5), (2, 6), (2, 999)]);
    let first = send(&app, "k", body.clone()).await;
    assert_eq!(first.maps().0, [0, 3]);
    assert!(!first.headers.contains_key("idempotent-replayed"));
    // Whatever became of the links since.
    sqlx::query("delete from instance_association where target_id = 5")
        .execute(&app.pool)
        .await
        .unwrap();
    assert_repeats(&send(&app, "k", body.clone()).await, &first);
    assert_eq!(app.count("select count(*) from instance_association").await, 1);
    assert_eq!(app.count("select count(*) from audit_log").await, 1);
    // In the language in which it was given.
    let again = app.post_with(&[(KEY, "k"), ("blueking-language", "zh")], body.clone()).await;
    assert_repeats(&again, &first);
    // Without the key it is a request like any other.
    assert_eq!(app.post(body).await.maps().0, [0]);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn an_answer_that_refuses_every_detail_is_kept_as_well(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch("bk_switch_connect_host", &[(1, 1)])).await;
    let body = batch("bk_switch_connect_host", &[(1, 1), (2, 1)]);
    let first = app.post_with(&[(KEY, "k"), ("blueking-language", "zh")], body.clone()).await;
    assert_eq!(first.maps().0, [0_usize; 0]);
    sqlx::query("delete from instance_association").execute(&app.pool).await.unwrap();
    assert_repeats(&send(&app, "k", body).await, &first);
    assert_eq!(app.count("select count(*) from audit_log").await, 1);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_key_stands_for_one_meaning(pool: PgPool) {
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
    assert_eq!(app.count("select count(*) from instance_association").await, 2);
    // What does not change the meaning does not matter.
    for same in
        [changed("bk_supplier_account", json!(0)), changed("unknown", json!(1)), body.clone()]
    {
        assert_repeats(&send(&app, "k", same).await, &first);
    }
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn keys_are_the_applications_and_the_users_own(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut conn = app.pool.acquire().await.unwrap();
    let secret = Some("xxx".to_owned());
    service::app::add(&mut conn, "other", true, secret).await.unwrap();
    let everything = [cmdb_associations::domain::permission::Scope::All];
    service::permission::add(&mut conn, "somebody", &everything).await.unwrap();
    drop(conn);
    let mut ids = Vec::new();
    for (code, user, pair) in [
        ("esb_test", "admin", (1, 1)),
        ("other", "admin", (1, 2)),
        ("esb_test", "somebody", (1, 3)),
    ] {
        let mut body = batch("bk_switch_default_host", &[pair]);
        body["bk_app_code"] = code.into();
        body["bk_username"] = user.into();
        let first = send(&app, "k", body.clone()).await;
        ids.extend(first.ids());
        assert_repeats(&send(&app, "k", body).await, &first);
    }
    assert_eq!(ids.len(), 3);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_that_was_refused_may_come_again_under_its_key(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut body = batch("bk_switch_default_host", &[(1, 1)]);
    body["bk_username"] = "newcomer".into();
    assert_eq!(send(&app, "k", body.clone()).await.json["code"], 9_900_403);
    let mut conn = app.pool.acquire().await.unwrap();
    let everything = [cmdb_associations::domain::permission::Scope::All];
    service::permission::add(&mut conn, "newcomer", &everything).await.unwrap();
    drop(conn);
    assert_eq!(send(&app, "k", body).await.ids().len(), 1);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_key_is_1_to_255_visible_ascii_characters(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let message = "Parameters error, Idempotency-Key must be 1 to 255 visible ASCII characters";
    let body = batch("bk_switch_default_host", &[(1, 1)]);
    for bad in ["", "a b", "é", &"x".repeat(256)] {
        send(&app, bad, body.clone()).await.assert_refused(200, 1_306_406, message);
    }
    let two = app.post_with(&[(KEY, "a"), (KEY, "b")], body.clone()).await;
    two.assert_refused(200, 1_306_406, message);
    assert_eq!(app.count("select count(*) from instance_association").await, 0);
    for (good, pair) in [("!", (1, 1)), ("~\"\\'", (1, 2)), (&"x".repeat(255), (1, 3))] {
        let body = batch("bk_switch_default_host", &[pair]);
        let first = send(&app, good, body.clone()).await;
        assert_repeats(&send(&app, good, body).await, &first);
    }
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn without_a_key_nothing_is_kept(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch("bk_switch_default_host", &[(1, 1)])).await;
    assert_eq!(app.count("select count(*) from idempotency_record").await, 0);
}

/// Both are held up behind a third writer; when it is gone, one of them writes and the other one repeats it.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn of_two_at_once_the_second_waits_and_repeats_the_first(pool: PgPool) {
    let app = Arc::new(TestApp::new(pool.clone()).await);
    let mut other = pool.begin().await.unwrap();
    let hold = "insert into instance_association (model_association_id, source_id, target_id)
                select id, 1, 5 from model_association where key = 'bk_switch_connect_host'";
    sqlx::query(hold).execute(&mut *other).await.unwrap();
    let both = [(); 2].map(|()| {
        let app = Arc::clone(&app);
        let body = batch("bk_switch_connect_host", &[(2, 5), (2, 6)]);
        tokio::spawn(async move { send(&app, "k", body).await })
    });
    wait_until_blocked(&pool, 1).await;
    other.rollback().await.unwrap();
    let [one, two] = both;
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert_eq!(one.maps().0, [0, 1]);
    assert_eq!(one.text, two.text);
    let replayed = [&one, &two].map(|reply| reply.headers.contains_key("idempotent-replayed"));
    assert_ne!(replayed[0], replayed[1]);
    assert_eq!(app.count("select count(*) from audit_log").await, 1);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_first_request_that_does_not_end_is_waited_for_no_longer_than_for_anything(pool: PgPool) {
    let impatient = pool.connect_options().as_ref().clone().options([("statement_timeout", "300")]);
    let impatient = PgPoolOptions::new().max_connections(1).connect_with(impatient).await.unwrap();
    let app = TestApp::new(impatient.clone()).await;
    let mut first = pool.begin().await.unwrap();
    let hold = "insert into idempotency_record values
        ('esb_test', 'admin', 'k', sha256(''), now(), 'r', 'en', '{}', '{}')";
    sqlx::query(hold).execute(&mut *first).await.unwrap();
    let body = batch("bk_switch_default_host", &[(1, 1)]);
    let message = "Postgres is unavailable, please try again later";
    send(&app, "k", body.clone()).await.assert_refused(503, 1_306_201, message);
    first.rollback().await.unwrap();
    assert_eq!(app.count("select count(*) from instance_association").await, 0);
    assert_eq!(send(&app, "k", body).await.ids().len(), 1);
    impatient.close().await;
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn at_the_other_door_the_answer_is_in_that_doors_shape(pool: PgPool) {
    let address: std::net::IpAddr = "10.0.0.1".parse().unwrap();
    let trust = TrustedSources { gateway: false, peers: vec![address.into()] };
    let app = TestApp::with(pool, trust, |_| ()).await;
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

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn an_answer_is_kept_for_a_day(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for (key, pair) in [("old", (1, 1)), ("young", (1, 2))] {
        send(&app, key, batch("bk_switch_default_host", &[pair])).await;
    }
    for (key, age) in [("old", "25:00:01"), ("young", "24:00:00")] {
        let aged =
            "update idempotency_record set created_at = now() - $2::text::interval where key = $1";
        sqlx::query(aged).bind(key).bind(age).execute(&app.pool).await.unwrap();
    }
    // The server drops what is old by and by, beginning when it starts.
    let sweeping = tokio::spawn(service::idempotency::sweep(app.serving.clone()));
    let started = Instant::now();
    while app.count("select count(*) from idempotency_record where key = 'old'").await > 0 {
        assert!(started.elapsed() < Duration::from_secs(20), "it is kept for ever");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sweeping.abort();
    assert_eq!(app.count("select count(*) from idempotency_record where key = 'young'").await, 1);
}

/// As after going back to an older version of this program.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_kept_refusal_that_is_unknown_is_an_error_and_no_guess(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let body = batch("bk_switch_default_host", &[(1, 1), (1, 1)]);
    send(&app, "k", body.clone()).await;
    sqlx::query("update idempotency_record set refusals = '{NULL,1}'")
        .execute(&app.pool)
        .await
        .unwrap();
    assert_eq!(send(&app, "k", body).await.status, 500);
}
