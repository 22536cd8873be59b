//! `find_instance_association_request` and `undo_instance_association_request`.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::http::Request;
use cmdb_associations::domain::permission::Authorization;
use cmdb_associations::http::ClientAddr;
use cmdb_associations::service;
use cmdb_associations::service::limit::Limiter;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::additions;
use crate::app::{Reply, Setup, TestApp, assert_sound, batch, pool_of};
use crate::deletions::{MANY, many};
use crate::permissions::{grant, instance, missing, model};
use crate::proxy::Proxy;

pub(crate) const FIND: &str = "/api/c/compapi/v2/cc/find_instance_association_request/";
pub(crate) const UNDO: &str = "/api/c/compapi/v2/cc/undo_instance_association_request/";

const N_TO_N: &str = "bk_switch_default_host";
const ONE_TO_N: &str = "bk_switch_connect_host";
const KEY: &str = "idempotency-key";

/// The requests that a user of the application `esb_test` finds. The times are checked apart.
async fn find_as(app: &TestApp, user: &str, id: &str) -> Vec<Value> {
    let body = json!({"request_id": id, "bk_username": user});
    found(app, &app.post_to(FIND, &[], body).await).await
}

async fn find(app: &TestApp, id: &str) -> Vec<Value> {
    find_as(app, "admin", id).await
}

async fn found(app: &TestApp, reply: &Reply) -> Vec<Value> {
    let mut data = reply.json["data"].clone();
    let mut info = data["info"].take().as_array().unwrap().clone();
    assert_eq!(data["count"], info.len(), "{}", reply.text);
    for request in &mut info {
        let time = request.as_object_mut().unwrap().remove("created_at").unwrap();
        let time = time.as_str().unwrap();
        assert!(time.ends_with('Z'), "{time}");
        let audit_id = &request["audit_id"];
        let is_time = AssertSqlSafe(format!(
            "select created_at = '{time}'::timestamptz from cmdb.audit_log where id = {audit_id}"
        ));
        let is_time: bool = sqlx::query_scalar(is_time).fetch_one(&app.pool).await.unwrap();
        assert!(is_time, "{}", reply.text);
    }
    info
}

async fn undo(app: &TestApp, id: &str) -> Reply {
    app.post_to(UNDO, &[], json!({"request_id": id})).await
}

#[track_caller]
fn data(reply: &Reply) -> &Value {
    assert_eq!(reply.json["code"], 0, "{}", reply.text);
    &reply.json["data"]
}

fn link(index: usize, id: i64, source: i64, target: i64, exists: bool) -> Value {
    json!({
        "index": index, "id": id, "bk_inst_id": source, "bk_asst_inst_id": target,
        "exists": exists,
    })
}

async fn stored(app: &TestApp) -> Vec<i64> {
    let ids = "select id from cmdb.instance_association order by id";
    sqlx::query_scalar(ids).fetch_all(&app.pool).await.unwrap()
}

/// Sends a body to the CMDB API, under an id that the caller chooses.
async fn cmdb(app: &TestApp, id: &str, path: &str, language: &str, body: Value) -> Reply {
    let request = Request::post(format!("/api/v3/{path}"))
        .header("x-bkcmdb-user", "admin")
        .header("x-bkcmdb-app-code", "esb_test")
        .header("x-bkcmdb-language", language)
        .header("x-request-id", id)
        .extension(ClientAddr("10.1.2.3".parse().unwrap()));
    app.send(request.body(body.to_string().into()).unwrap()).await
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_is_found_with_what_it_created_and_what_still_stands(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut body = batch(ONE_TO_N, &[(1, 5), (2, 5), (2, 6), (2, 999), (3, 7)]);
    body["reason"] = "moved".into();
    let created = app.post_with(&[(KEY, "k")], body).await;
    assert_eq!(created.maps().0, [0, 2, 4]);
    data(&app.post_to(MANY, &[], many("host", &[2])).await);
    let id = created.request_id();
    let expected = |texts: [&str; 2]| {
        json!({
            "audit_id": 1,
            "request_id": id,
            "bk_app_code": "esb_test",
            "bk_username": "admin",
            "reason": "moved",
            "bk_obj_asst_id": ONE_TO_N,
            "bk_obj_id": "bk_switch",
            "bk_asst_obj_id": "host",
            "created": [link(0, 1, 1, 5, true), link(2, 2, 2, 6, false), link(4, 3, 3, 7, true)],
            "error_msg": {"1": texts[0], "3": texts[1]},
        })
    };
    let english = [
        "The relationship is 1:n, and multiple source model instances cannot be associated at the same time.",
        "Associated instance does not exist",
    ];
    let chinese = ["关联关系为1:n的，不能同时关联多个源模型实例", "被关联实例不存在"];
    for (language, texts) in [("en", english), ("zh-cn", chinese)] {
        let headers = [("blueking-language", language)];
        let reply = app.post_to(FIND, &headers, json!({"request_id": id})).await;
        assert_eq!(found(&app, &reply).await, [expected(texts)]);
    }
    assert_sound(&app.pool).await;
    // If the idempotency record has expired, or is that of a later request with the key.
    for sql in [
        "update cmdb.idempotency_record set association_ids = '{[1,2)}'",
        "update cmdb.idempotency_record set association_ids = '{[1,4)}', request_id = 'another'",
        "delete from cmdb.idempotency_record",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
        assert_eq!(find(&app, id).await[0]["error_msg"], Value::Null);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_for_one_link_and_one_without_a_key_are_found(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let body = json!({"bk_obj_asst_id": N_TO_N, "bk_inst_id": 3, "bk_asst_inst_id": 4});
    let headers = [(KEY, "one")];
    let one = app.post_to(additions::PATH, &headers, body).await;
    let many = app.post(batch(N_TO_N, &[(3, 4), (3, 5)])).await;
    let one = find(&app, one.request_id()).await;
    assert_eq!(one[0]["created"], json!([link(0, 1, 3, 4, true)]));
    assert_eq!((&one[0]["error_msg"], &one[0]["reason"]), (&json!({}), &Value::Null));
    let many = find(&app, many.request_id()).await;
    assert_eq!(many[0]["created"], json!([link(1, 2, 3, 5, true)]));
    assert_eq!(many[0]["error_msg"], Value::Null);
    // What operators may remove from the audit log.
    let shorten = "update cmdb.audit_log set source_ids = null, target_ids = null";
    sqlx::query(shorten).execute(&app.pool).await.unwrap();
    let id = many[0]["request_id"].as_str().unwrap();
    let link = &find(&app, id).await[0]["created"][0];
    assert_eq!((&link["bk_inst_id"], &link["bk_asst_inst_id"]), (&Value::Null, &Value::Null));
    assert_eq!(data(&undo(&app, id).await)["deleted"], 1);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_that_created_no_link_is_unknown(pool: PgPool) {
    let app = TestApp::of_instances(pool).await;
    app.post(batch(N_TO_N, &[(1, 1)])).await.ids();
    let refused = app.post_with(&[(KEY, "k")], batch(N_TO_N, &[(1, 1)])).await;
    let deletion = app.post_to(MANY, &[], many("host", &[1])).await;
    let body = json!({"bk_obj_id": "bk_switch", "bk_inst_name": "new"});
    let new = app.gateway("create_inst", body).await;
    let long = "x".repeat(1000);
    for id in [refused, deletion, new].iter().map(Reply::request_id).chain(["a\0b", "机", &long]) {
        assert_eq!(find(&app, id).await, [Value::Null; 0], "{id}");
        undo(&app, id).await.assert_refused(
            200,
            1_199_006,
            "'request_id' data parameter verification does not pass",
        );
    }
    for (path, body) in [(FIND, json!({})), (UNDO, json!({"request_id": "", "audit_id": 1}))] {
        for (language, text) in [("en", "'request_id' unassigned"), ("zh", "'request_id' 未赋值")]
        {
            let reply = app.post_to(path, &[("blueking-language", language)], body.clone()).await;
            reply.assert_refused(200, 1_199_010, text);
        }
    }
    let text = "Deserializing JSON data failed: audit_id: expected an integer, got a string";
    let body = json!({"request_id": "a", "audit_id": "1"});
    app.post_to(FIND, &[], body).await.assert_refused(200, 1_199_000, text);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn of_several_requests_with_an_id_one_is_undone_by_its_audit_id(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let (create, send) = ("createmany/instassociation", "delete/instassociation/request");
    for pair in [(1, 1), (2, 2), (1, 1)] {
        cmdb(&app, "same", create, "en", batch(N_TO_N, &[pair])).await;
    }
    cmdb(&app, "other", create, "en", batch(N_TO_N, &[(3, 3)])).await;
    let body = json!({"request_id": "same"});
    let reply = cmdb(&app, "same", "find/instassociation/request", "en", body.clone()).await;
    let info = found(&app, &reply).await;
    let ids: Vec<_> = info.iter().map(|one| &one["audit_id"]).collect();
    assert_eq!(ids, [1, 2]);
    let by_audit_id = json!({"request_id": "same", "audit_id": 2});
    let reply = cmdb(&app, "x", "find/instassociation/request", "en", by_audit_id.clone()).await;
    assert_eq!(found(&app, &reply).await, [info[1].clone()]);

    for (language, text) in [("en", "'audit_id' unassigned"), ("zh", "'audit_id' 未赋值")] {
        let reply = cmdb(&app, "x", send, language, body.clone()).await;
        let refusal = json!({
            "result": false, "bk_error_code": 1_199_010, "bk_error_msg": text,
            "permission": null, "data": null,
        });
        assert_eq!(reply.json, refusal);
    }
    for (id, audit_id) in [("same", 3), ("same", 99), ("other", 1)] {
        let body = json!({"request_id": id, "audit_id": audit_id});
        let reply = cmdb(&app, "x", send, "en", body).await;
        let text = "'audit_id' data parameter verification does not pass";
        assert_eq!(reply.json["bk_error_code"], 1_199_006);
        assert_eq!(reply.json["bk_error_msg"], text);
    }
    assert_eq!(stored(&app).await, [1, 2, 3]);
    let reply = cmdb(&app, "same", send, "en", by_audit_id).await;
    let success = json!({
        "result": true, "bk_error_code": 0, "bk_error_msg": "success", "permission": null,
        "data": {"audit_id": 2, "deleted": 1, "gone": 0},
    });
    assert_eq!(reply.json, success);
    assert_eq!(stored(&app).await, [1, 3]);
    // The request that has undone it has the same id, and created nothing.
    let info = find(&app, "same").await;
    assert_eq!(info.iter().map(|one| &one["audit_id"]).collect::<Vec<_>>(), [1, 2]);
    let exists = |one: &Value| one["created"][0]["exists"].clone();
    assert_eq!((exists(&info[0]), exists(&info[1])), (json!(true), json!(false)));
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn of_many_requests_with_an_id_the_last_hundred_are_listed(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let records = "insert into cmdb.audit_log
            (origin, request_id, app, user_name, tenant_id, model_association_id, association_ids)
        select 'request', 'same', 'esb_test', 'admin', 0, association.id, int8multirange(
            int8range(number, number, '[]'))
        from cmdb.model_association association, generate_series(1, 120) number
        where key = 'bk_switch_default_host'
        order by number";
    sqlx::query(records).execute(&app.pool).await.unwrap();
    let info = find(&app, "same").await;
    let ids: Vec<_> = info.iter().map(|one| one["audit_id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (21..=120).collect::<Vec<_>>());
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_caller_sees_its_own_requests_and_an_editor_of_both_models_those_of_others(pool: PgPool) {
    let app = TestApp::new(pool).await;
    grant(&app, "owner", &[instance("bk_switch", 1), instance("host", 1)]).await;
    grant(&app, "editor", &[model("bk_switch"), model("host")]).await;
    grant(&app, "of_one", &[model("host"), instance("bk_switch", 1)]).await;
    let mut body = batch(N_TO_N, &[(1, 1)]);
    body["bk_username"] = "owner".into();
    let created = app.post(body).await;
    let id = created.request_id();
    let as_user = async |user: &str| {
        let undone = app.post_to(UNDO, &[], json!({"request_id": id, "bk_username": user})).await;
        (find_as(&app, user, id).await.len(), undone.json["code"].as_i64().unwrap())
    };
    for user in ["of_one", "nobody"] {
        assert_eq!(as_user(user).await, (0, 1_199_006), "{user}");
    }
    // Another application of the same user.
    let secret = Some("xxx".to_owned());
    let mut conn = app.pool.acquire().await.unwrap();
    service::app::add(&mut conn, "another", true, secret).await.unwrap();
    drop(conn);
    let from_another = async |user: &str| {
        let body = json!({"request_id": id, "bk_username": user, "bk_app_code": "another"});
        found(&app, &app.post_to(FIND, &[], body).await).await.len()
    };
    assert_eq!((from_another("owner").await, from_another("editor").await), (0, 1));
    // Another tenant, which has the same models.
    for tenant in ["stored", "new"] {
        let mut body = batch(N_TO_N, &[(2, 2)]);
        body["bk_supplier_account"] = "stored".into();
        app.post(body).await;
        let body = json!({"request_id": id, "bk_supplier_account": tenant});
        assert_eq!(found(&app, &app.post_to(FIND, &[], body.clone()).await).await.len(), 0);
        assert_eq!(app.post_to(UNDO, &[], body).await.json["code"], 1_199_006);
    }
    let off = TestApp::build(app.pool.clone(), |setup: &mut Setup| {
        setup.authorization = Authorization::Off;
    });
    assert_eq!(find_as(&off, "nobody", id).await.len(), 1);

    let mut expected = find_as(&app, "owner", id).await;
    assert_eq!((expected.len(), &expected[0]["bk_username"]), (1, &json!("owner")));
    assert_eq!(find(&app, id).await, expected);
    assert_eq!(as_user("editor").await, (1, 0));
    assert_eq!(stored(&app).await.len(), 0);
    expected[0]["created"][0]["exists"] = false.into();
    assert_eq!(find_as(&app, "owner", id).await, expected);
    assert_sound(&app.pool).await;
}

/// The columns of the audit record of an undo, from its id to the targets.
type Row = (i64, i64, String, String, Vec<i64>, Vec<i64>);

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_undo_deletes_what_still_stands_and_is_harmless_when_repeated(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(N_TO_N, &[(9, 9)])).await.ids();
    let created = app.post(batch(N_TO_N, &[(1, 1), (9, 9), (1, 2), (1, 3)])).await;
    assert_eq!(created.ids(), [2, 3, 4]);
    // Deleted and created again, it is another link.
    data(&app.post_to(MANY, &[], many("host", &[3])).await);
    assert_eq!(app.post(batch(N_TO_N, &[(1, 2)])).await.ids(), [5]);
    let reply = undo(&app, created.request_id()).await;
    let success = r#"{"result":true,"code":0,"message":"","permission":null,"request_id":"<id>","data":{"audit_id":2,"deleted":2,"gone":1}}"#;
    assert_eq!(reply.body(), success);
    assert_eq!(stored(&app).await, [1, 5]);
    let records = "select id, undone_record_id, request_id, deleted_ids::text, source_ids,
                       target_ids
                   from cmdb.audit_log where undone_record_id is not null";
    let records: Vec<Row> = sqlx::query_as(records).fetch_all(&app.pool).await.unwrap();
    let id = reply.request_id().to_owned();
    assert_eq!(records, [(5, 2, id, "{[2,3),[4,5)}".to_owned(), vec![1, 1], vec![1, 3])]);

    for _ in 0..2 {
        let again = undo(&app, created.request_id()).await;
        assert_eq!(*data(&again), json!({"audit_id": 2, "deleted": 0, "gone": 3}));
    }
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 5);
    let found = find(&app, created.request_id()).await;
    let links = [link(0, 2, 1, 1, false), link(2, 3, 1, 2, false), link(3, 4, 1, 3, false)];
    assert_eq!(found[0]["created"], json!(links));
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_is_found_and_undone_after_its_model_association_was_deleted(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let created = app.post_with(&[(KEY, "k")], batch(N_TO_N, &[(1, 1), (1, 1)])).await;
    let id = created.request_id();
    undo(&app, id).await;
    let delete = "delete from cmdb.model_association where key = 'bk_switch_default_host'";
    sqlx::query(delete).execute(&app.pool).await.unwrap();
    let found = find(&app, id).await;
    for field in ["bk_obj_asst_id", "bk_obj_id", "bk_asst_obj_id", "error_msg"] {
        assert_eq!(found[0][field], Value::Null, "{field}");
    }
    assert_eq!(found[0]["created"], json!([link(0, 1, 1, 1, false)]));
    assert_eq!(*data(&undo(&app, id).await), json!({"audit_id": 1, "deleted": 0, "gone": 1}));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_undo_takes_the_permission_to_edit_both_instances_of_what_still_stands(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let scopes = [instance("bk_switch", 1), instance("host", 1), instance("host", 2)];
    grant(&app, "user", &scopes).await;
    let mut body = batch(N_TO_N, &[(1, 1), (1, 2)]);
    body["bk_username"] = "user".into();
    let created = app.post(body).await;
    let mut conn = app.pool.acquire().await.unwrap();
    service::permission::remove(&mut conn, "user", &scopes[2..]).await.unwrap();
    drop(conn);
    let body = json!({"request_id": created.request_id(), "bk_username": "user"});
    let refused = app.post_to(UNDO, &[], body.clone()).await;
    assert_eq!(missing(&refused), [("edit_biz_host".to_owned(), vec!["2".to_owned()])]);
    assert_eq!(stored(&app).await, [1, 2]);
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 1);
    // What is gone takes none.
    data(&app.post_to(MANY, &[], many("host", &[2])).await);
    let reply = app.post_to(UNDO, &[], body).await;
    assert_eq!(*data(&reply), json!({"audit_id": 1, "deleted": 1, "gone": 1}));
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_keys_of_an_undone_request_and_of_the_undo_still_answer_what_they_answered(
    pool: PgPool,
) {
    let app = TestApp::new(pool).await;
    let body = batch(N_TO_N, &[(1, 1), (1, 2), (1, 2)]);
    let created = app.post_with(&[(KEY, "creation")], body.clone()).await;
    data(&app.post_to(MANY, &[], many("host", &[1])).await);
    let name = json!({"request_id": created.request_id()});
    let undone = app.post_to(UNDO, &[(KEY, "undo")], name.clone()).await;
    assert_eq!(*data(&undone), json!({"audit_id": 1, "deleted": 1, "gone": 1}));
    for language in ["en", "zh"] {
        let headers = [(KEY, "creation"), ("blueking-language", language)];
        assert_eq!(app.post_with(&headers, body.clone()).await.text, created.text);
        let headers = [(KEY, "undo"), ("blueking-language", language)];
        assert_eq!(app.post_to(UNDO, &headers, name.clone()).await.text, undone.text);
    }
    assert_eq!(stored(&app).await, [0; 0]);
    // An undo that deletes nothing is answered again, too.
    let second = app.post_to(UNDO, &[(KEY, "second")], name.clone()).await;
    assert_eq!(*data(&second), json!({"audit_id": 1, "deleted": 0, "gone": 2}));
    let replayed = app.post_to(UNDO, &[(KEY, "second")], name.clone()).await;
    assert_eq!(replayed.text, second.text);
    assert_eq!(replayed.headers["idempotent-replayed"], "true");
    let text = "Parameters error, Idempotency-Key was used with a different request";
    for (key, body) in [
        ("undo", json!({"request_id": created.request_id(), "audit_id": 1})),
        ("creation", name.clone()),
    ] {
        app.post_to(UNDO, &[(KEY, key)], body).await.assert_refused(200, 1_306_406, text);
    }
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 3);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn concurrent_undos_and_deletions_delete_each_link_once(pool: PgPool) {
    let app = Arc::new(TestApp::new(pool_of(pool.connect_options().as_ref().clone(), 8)).await);
    for round in 1..=20 {
        let pairs: Vec<_> = (1..=100).map(|target| (round, target)).collect();
        let created = app.post(batch(N_TO_N, &pairs)).await;
        let ids = created.ids();
        let undoing = (0..4).map(|_| {
            let (app, id) = (Arc::clone(&app), created.request_id().to_owned());
            tokio::spawn(async move { data(&undo(&app, &id).await)["deleted"].clone() })
        });
        let deleting = ids.chunks(30).map(|ids| {
            let (app, body) = (Arc::clone(&app), many("host", ids));
            tokio::spawn(async move { data(&app.post_to(MANY, &[], body).await).clone() })
        });
        let mut deleted = 0;
        for task in undoing.chain(deleting).collect::<Vec<_>>() {
            deleted += task.await.unwrap().as_i64().unwrap();
        }
        assert_eq!(deleted, 100);
        let found = find(&app, created.request_id()).await;
        let links = found[0]["created"].as_array().unwrap();
        assert!(links.len() == 100 && links.iter().all(|link| link["exists"] == false));
    }
    assert_eq!(stored(&app).await, [0; 0]);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_purged_request_is_unknown_and_its_undo_stays_sound(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let created = app.post(batch(N_TO_N, &[(1, 1), (1, 2)])).await;
    let age = "update cmdb.audit_log set created_at = created_at - interval '3 days'";
    sqlx::query(age).execute(&app.pool).await.unwrap();
    assert_eq!(data(&undo(&app, created.request_id()).await)["deleted"], 2);
    let before = "select now() - interval '2 days'";
    let before = sqlx::query_scalar(before).fetch_one(&app.pool).await.unwrap();
    let mut conn = app.pool.acquire().await.unwrap();
    assert_eq!(service::audit::purge(&mut conn, before, 10).await.unwrap(), 1);
    drop(conn);
    assert_eq!(find(&app, created.request_id()).await, [Value::Null; 0]);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_number_of_statements_of_an_undo_does_not_depend_on_its_links(pool: PgPool) {
    let owner = TestApp::new(pool.clone()).await;
    grant(&owner, "user", &[model("bk_switch"), model("host")]).await;
    let proxy = Proxy::to(&pool.connect_options()).await;
    let app = TestApp::on(pool_of(proxy.options.clone(), 1)).connect().await;
    for (user, expected) in [("admin", 2), ("user", 3)] {
        for length in [1, 1, 20, 199] {
            let pairs: Vec<_> = (1..=length).map(|target| (length, target)).collect();
            let mut body = batch(N_TO_N, &pairs);
            body["bk_username"] = user.into();
            let created = app.post(body).await;
            assert_eq!(find_as(&app, user, created.request_id()).await.len(), 1);
            let before = proxy.statements();
            let body = json!({"request_id": created.request_id(), "bk_username": user});
            assert_eq!(data(&app.post_to(UNDO, &[], body).await)["deleted"], length);
            assert_eq!(proxy.statements() - before, expected, "{user}, {length} links");
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_undo_is_charged_as_a_full_batch(pool: PgPool) {
    let limit = |setup: &mut Setup| {
        setup.limiter = Some(Limiter::new(NonZeroU32::new(1).unwrap()));
    };
    let app = TestApp::with(pool, limit).await;
    // Of the 500 that the limit allows at once.
    assert_eq!(find(&app, "a").await.len(), 0);
    for status in [200, 200, 429] {
        assert_eq!(undo(&app, "a").await.status, status);
    }
}
