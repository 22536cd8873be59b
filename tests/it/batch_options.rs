//! What callers of batches can ask for beside the original: `existing`, `explain`, `reason`, a
//! check without effect, and all or nothing.

use cmdb_associations::domain::error::DetailError;
use proptest::prelude::{Just, Strategy, any, prop};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{Reply, TestApp, assert_sound, batch};
use crate::permissions::{grant, instance, model, view};

const CHECK: &str = "check_instance_associations";
const ATOMIC: &str = "create_instance_associations_atomic";
const CONNECT: &str = "bk_switch_connect_host";

/// A batch under a model association of the test world, with more fields.
fn with(key: &str, details: &[(i64, i64)], fields: Value) -> Value {
    let mut body = batch(key, details);
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    body.as_object_mut().unwrap().extend(fields);
    body
}

fn success(data: &str) -> String {
    format!(
        r#"{{"result":true,"code":0,"message":"","permission":null,"request_id":"<id>","data":{data}}}"#
    )
}

async fn count_links(app: &TestApp) -> i64 {
    app.count("select count(*) from cmdb.instance_association").await
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_pair_that_is_linked_already_can_count_as_created(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    app.post(batch(CONNECT, &[(1, 1)])).await;
    let details = [(1, 1), (2, 1), (1, 2), (1, 2)];
    let taken = "The relationship is 1:n, and multiple source model instances cannot be associated \
                 at the same time.";
    let exists = "the associations bk_switch->host already exist";
    let created = with(CONNECT, &details, json!({"existing": "created"}));
    let expected =
        format!(r#"{{"success_created":{{"0":1,"2":2,"3":2}},"error_msg":{{"1":"{taken}"}}}}"#);
    assert_eq!(app.post(created.clone()).await.body(), success(&expected));
    // The same again creates nothing.
    assert_eq!(app.post(created.clone()).await.body(), success(&expected));
    let (code, data) = app.cmdb("0", "POST createmany/instassociation", created).await;
    assert_eq!((code, data), (0, serde_json::from_str(&expected).unwrap()));
    assert_eq!(count_links(&app).await, 2);
    let refused = json!({"0": exists, "1": taken, "2": exists, "3": exists});
    for error in [json!({"existing": "error"}), json!({"existing": null}), json!({})] {
        let reply = app.post(with(CONNECT, &details, error)).await;
        assert_eq!(reply.maps(), (vec![], refused.clone()));
    }
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn each_refusal_is_explained(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    app.post(batch(CONNECT, &[(1, 1)])).await;
    let details = [(1, 1), (2, 1), (3, 3), (4, 3), (3, 3), (998, 999), (5, 999)];
    let body = with(CONNECT, &details, json!({"explain": true}));
    let detail = r#""error_detail":{"0":{"code":1101038,"reason":"already_exists","blocking_id":1,"retryable":false},"1":{"code":1101061,"reason":"target_taken","blocking_id":1,"retryable":false},"3":{"code":1101061,"reason":"target_taken","blocking_index":2,"retryable":false},"4":{"code":1101038,"reason":"already_exists","blocking_index":2,"retryable":false},"5":{"code":1101073,"reason":"source_missing","missing":["source","target"],"retryable":true},"6":{"code":1101074,"reason":"target_missing","missing":["target"],"retryable":true}}"#;
    let english = r#"{"success_created":{"2":2},"error_msg":{"0":"the associations bk_switch->host already exist","1":"The relationship is 1:n, and multiple source model instances cannot be associated at the same time.","3":"The relationship is 1:n, and multiple source model instances cannot be associated at the same time.","4":"the associations bk_switch->host already exist","5":"Association instance does not exist","6":"Associated instance does not exist"},"#;
    let reply = app.post(body.clone()).await;
    assert_eq!(reply.body(), success(&format!("{english}{detail}}}")));
    let timing = reply.headers["server-timing"].to_str().unwrap();
    let names: Vec<_> =
        timing.split(", ").map(|part| part.split(";dur=").next().unwrap()).collect();
    assert_eq!(names, ["auth", "database", "total"]);

    // The texts are in the language of the request. Now the third pair exists, too.
    let chinese = app.post_in(body.clone(), "zh").await;
    assert_eq!(chinese.json["data"]["error_msg"]["5"], "关联实例不存在");
    let third = json!({"code": 1_101_038, "reason": "already_exists", "blocking_id": 2,
        "retryable": false});
    assert_eq!(chinese.json["data"]["error_detail"]["2"], third);
    assert_eq!(chinese.json["data"]["error_detail"]["3"]["blocking_id"], 2);
    let (_, data) = app.cmdb("0", "POST createmany/instassociation", body).await;
    assert_eq!(data["error_detail"], chinese.json["data"]["error_detail"]);

    // Nobody else gets them.
    let reply = app.post(batch(CONNECT, &details)).await;
    assert!(reply.json["data"].get("error_detail").is_none());
    assert!(!reply.headers.contains_key("server-timing"));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn under_1_1_the_end_that_is_taken_is_named(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch("bk_switch_run_host", &[(1, 1)])).await;
    let body =
        with("bk_switch_run_host", &[(1, 2), (2, 1), (3, 3), (3, 4)], json!({"explain": true}));
    let reply = app.post(body).await;
    let details = &reply.json["data"]["error_detail"];
    let reasons = ["0", "1", "3"].map(|index| details[index]["reason"].as_str().unwrap());
    assert_eq!(reasons, ["source_taken", "target_taken", "source_taken"]);
    assert_eq!(details["3"]["blocking_index"], 2);
}

/// The links of another tenant, and those of models that the user may not view.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_explanation_shows_no_link_that_the_caller_cannot_find(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(CONNECT, &[(1, 1)])).await;
    let blocking_id = async |user: &str, tenant: &str| {
        let fields = json!({"explain": true, "bk_username": user, "bk_supplier_account": tenant});
        let reply = app.post(with(CONNECT, &[(2, 1)], fields)).await;
        reply.json["data"]["error_detail"]["0"]["blocking_id"].clone()
    };
    grant(&app, "editor", &[instance("bk_switch", 2), instance("host", 1)]).await;
    assert_eq!(blocking_id("editor", "0").await, Value::Null);
    grant(&app, "editor", &[view(model("host"))]).await;
    assert_eq!(blocking_id("editor", "0").await, 1);
    let sql = "begin; set local session_replication_role = replica;
               insert into cmdb.tenant (id, key) values (7, 'seven');
               update cmdb.instance_association set tenant_id = 7; commit";
    sqlx::raw_sql(sql).execute(&app.pool).await.unwrap();
    assert_eq!(blocking_id("admin", "0").await, Value::Null);
    // Such a pair does not count as created.
    let reply = app.post(with(CONNECT, &[(1, 1)], json!({"existing": "created"}))).await;
    assert_eq!(reply.maps().0, [0_usize; 0]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn wrong_values_are_refused_with_their_place(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for (fields, place) in [
        (json!({"existing": "update"}), "existing: expected"),
        (json!({"existing": true}), "existing"),
        (json!({"explain": "yes"}), "explain"),
        (json!({"reason": 7}), "reason"),
        (json!({"reason": "x".repeat(201)}), "reason: longer than 200 characters"),
        (json!({"reason": "a\u{0}"}), "reason: contains a control character"),
    ] {
        for endpoint in ["batch_create_instance_association", CHECK, ATOMIC] {
            let reply = app.gateway(endpoint, with(CONNECT, &[(1, 1)], fields.clone())).await;
            assert_eq!(reply.json["code"], 1_199_000, "{fields}");
            assert!(reply.json["message"].as_str().unwrap().contains(place), "{}", reply.text);
        }
    }
    assert_eq!(count_links(&app).await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_audit_record_has_the_reason_and_the_indexes_of_the_details(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let reason = "变".repeat(200);
    app.post(with(CONNECT, &[(1, 1), (1, 2)], json!({"reason": reason}))).await;
    let headers = &[("idempotency-key", "k")];
    app.post_with(headers, batch(CONNECT, &[(1, 2), (1, 3), (2, 3), (1, 4)])).await;
    let records = "select jsonb_agg(jsonb_build_array(reason, detail_indexes, idempotency_key)
        order by id) from cmdb.audit_log";
    assert_eq!(app.json(records).await, json!([[reason, null, null], [null, [1, 3], "k"]]));
}

/// Keys of requests without the new fields that were stored before there were any.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_without_options_is_hashed_as_before(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut body = batch(CONNECT, &[(1, 5), (1, 5)]);
    body["details"][1]["bk_inst_id"] = Value::Null;
    app.post_with(&[("idempotency-key", "k")], body).await;
    let hash = "select to_jsonb(encode(request_hash, 'hex')) from cmdb.idempotency_record";
    let expected = "d6f4083b582afe7048ae897675a0a68b917067f78c626bc8b1001d2ff49c3a1c";
    assert_eq!(app.json(hash).await, expected);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn options_are_part_of_what_an_idempotency_key_compares(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(CONNECT, &[(1, 1), (1, 2)])).await;
    let options = [
        json!({}),
        json!({"existing": "created"}),
        json!({"explain": true}),
        json!({"reason": "r"}),
        json!({"existing": "created", "explain": true, "reason": "r"}),
    ];
    let details = [(1, 1), (3, 1), (1, 3), (1, 3), (999, 999)];
    let mut first = Vec::new();
    for (n, fields) in options.iter().enumerate() {
        let headers = &[("idempotency-key", &*n.to_string())];
        first.push(app.post_with(headers, with(CONNECT, &details, fields.clone())).await);
    }
    // Answers are replayed byte for byte, although the links are gone.
    sqlx::query("delete from cmdb.instance_association").execute(&app.pool).await.unwrap();
    for (n, stored) in first.iter().enumerate() {
        let headers = &[("idempotency-key", &*n.to_string())];
        for (other, fields) in options.iter().enumerate() {
            let reply = app.post_with(headers, with(CONNECT, &details, fields.clone())).await;
            if other == n {
                assert_eq!(reply.text, stored.text);
            } else {
                assert_eq!(reply.json["code"], 1_306_406, "{n} {fields}");
            }
        }
    }
    assert_eq!(count_links(&app).await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_check_says_what_a_batch_would_do_and_has_no_effect(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    app.post(batch(CONNECT, &[(1, 1)])).await;
    let state = "select jsonb_build_array(
            (select last_value from cmdb.instance_association_id_seq),
            (select jsonb_agg(link order by id) from cmdb.instance_association link),
            (select count(*) from cmdb.audit_log), (select count(*) from cmdb.idempotency_record),
            (select count(*) from cmdb.tenant))";
    let before = app.json(state).await;
    let exists = "the associations bk_switch->host already exist";
    let details = [(1, 1), (1, 2), (1, 2), (1, 999)];
    let expected = format!(
        r#"{{"success_created":{{"1":0}},"error_msg":{{"0":"{exists}","2":"{exists}","3":"Associated instance does not exist"}},"error_detail":{{"0":{{"code":1101038,"reason":"already_exists","blocking_id":1,"retryable":false}},"2":{{"code":1101038,"reason":"already_exists","blocking_index":1,"retryable":false}},"3":{{"code":1101074,"reason":"target_missing","missing":["target"],"retryable":true}}}}}}"#
    );
    let body = with(CONNECT, &details, json!({"idempotency_key": "k"}));
    assert_eq!(app.gateway(CHECK, body.clone()).await.body(), success(&expected));
    let (code, data) = app.cmdb("0", "POST check/instassociation", body.clone()).await;
    assert_eq!((code, data), (0, serde_json::from_str(&expected).unwrap()));
    let chinese = &[("blueking-language", "zh")];
    let path = format!("/api/c/compapi/v2/cc/{CHECK}/");
    let reply = app.post_to(&path, chinese, body).await;
    assert_eq!(reply.json["data"]["error_msg"]["3"], "被关联实例不存在");
    let existing = with(CONNECT, &details, json!({"existing": "created"}));
    let reply = app.gateway(CHECK, existing).await;
    assert_eq!(reply.json["data"]["success_created"], json!({"0": 1, "1": 0, "2": 0}));
    // A tenant that is not stored yet, and a user who may not edit.
    let other = with(CONNECT, &[(1, 2)], json!({"bk_supplier_account": "new"}));
    assert_eq!(app.gateway(CHECK, other).await.json["code"], 0);
    let other = with(CONNECT, &[(1, 2)], json!({"bk_username": "nobody"}));
    assert_eq!(app.gateway(CHECK, other).await.json["code"], 9_900_403);
    assert_eq!(app.json(state).await, before);
}

/// A random batch: its model association, its details, and whether pairs that exist count as
/// created.
fn any_batch() -> impl Strategy<Value = (&'static str, Vec<(i64, i64)>, bool)> {
    let keys =
        [CONNECT, "bk_switch_default_host", "bk_switch_run_host", "bk_switch_group_bk_switch"];
    // Few instances, so that details collide. 301 does not exist.
    let id = || 295..302_i64;
    let key = prop::sample::select(keys.to_vec());
    (key, prop::collection::vec((id(), id()), 1..12), any::<bool>()).prop_flat_map(Just)
}

/// The maps of an answer, where the id of a link that is new counts as 0.
fn outcome(reply: &Reply, highest: i64) -> Value {
    let mut data = reply.json["data"].clone();
    for id in data["success_created"].as_object_mut().unwrap().values_mut() {
        if id.as_i64().unwrap() > highest {
            *id = 0.into();
        }
    }
    data
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn what_a_check_says_is_what_the_batch_answers(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut runner = TestRunner::deterministic();
    for round in 0..150 {
        let (key, details, is_created) = any_batch().new_tree(&mut runner).unwrap().current();
        let existing = if is_created { "created" } else { "error" };
        let body = with(key, &details, json!({"existing": existing, "explain": true}));
        let highest = "select coalesce(max(id), 0) from cmdb.instance_association";
        let highest = app.count(highest).await;
        let checked = app.gateway(CHECK, body.clone()).await;
        let links = count_links(&app).await;
        let is_refused = !checked.json["data"]["error_msg"].as_object().unwrap().is_empty();
        if round % 3 == 0 {
            let atomic = app.gateway(ATOMIC, body.clone()).await;
            assert_eq!(atomic.json["result"], !is_refused, "{body}");
            assert_eq!(atomic.json["data"]["error_detail"], checked.json["data"]["error_detail"]);
            if is_refused {
                assert_eq!(count_links(&app).await, links);
            } else {
                assert_eq!(outcome(&atomic, highest), checked.json["data"]);
                continue;
            }
        }
        let created = app.post(body).await;
        assert_eq!(outcome(&created, highest), checked.json["data"], "{key} {details:?}");
    }
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn all_associations_of_a_batch_are_created_or_none(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let reply = app.gateway(ATOMIC, batch(CONNECT, &[(1, 1), (1, 2)])).await;
    let all = r#"{"success_created":{"0":1,"1":2},"error_msg":{},"error_detail":{}}"#;
    assert_eq!(reply.body(), success(all));

    let taken = "The relationship is 1:n, and multiple source model instances cannot be associated \
                 at the same time.";
    let exists = "the associations bk_switch->host already exist";
    let details = [(3, 3), (2, 1), (1, 2), (4, 4)];
    let data = format!(
        r#"{{"success_created":{{}},"error_msg":{{"1":"{taken}","2":"{exists}"}},"error_detail":{{"1":{{"code":1101061,"reason":"target_taken","blocking_id":1,"retryable":false}},"2":{{"code":1101038,"reason":"already_exists","blocking_id":2,"retryable":false}}}}}}"#
    );
    let state = "select jsonb_build_array(
        (select last_value from cmdb.instance_association_id_seq),
        (select count(*) from cmdb.instance_association), (select count(*) from cmdb.audit_log),
        (select count(*) from cmdb.idempotency_record))";
    let before = app.json(state).await;
    let body = with(CONNECT, &details, json!({"idempotency_key": "k"}));
    let reply = app.gateway(ATOMIC, body.clone()).await;
    assert_eq!(reply.status, 200);
    let refused = format!(
        r#"{{"result":false,"code":1101061,"message":"{taken}","permission":null,"request_id":"<id>","data":{data}}}"#
    );
    assert_eq!(reply.body(), refused);
    let to = "POST createmany/instassociation/atomic";
    let reply = app.cmdb_reply("admin", "0", to, body.to_string().into()).await;
    assert_eq!(reply.json["bk_error_msg"], taken);
    assert_eq!(reply.json["data"], serde_json::from_str::<Value>(&data).unwrap());
    let path = format!("/api/c/compapi/v2/cc/{ATOMIC}/");
    let reply = app.post_to(&path, &[("blueking-language", "zh")], body).await;
    let chinese = "关联关系为1:n的，不能同时关联多个源模型实例";
    assert_eq!(
        (&reply.json["message"], &reply.json["data"]["error_msg"]["1"]),
        (&json!(chinese), &json!(chinese))
    );
    assert_eq!(app.json(state).await, before);

    // Pairs that exist are no reason to refuse, if the caller says so.
    let fields = json!({"existing": "created", "idempotency_key": "k"});
    let body = with(CONNECT, &[(1, 2), (3, 3)], fields);
    let created = app.gateway(ATOMIC, body.clone()).await;
    assert_eq!(created.ids()[0], 2);
    let replayed = app.gateway(ATOMIC, body.clone()).await;
    assert_eq!(replayed.text, created.text);
    assert_eq!(replayed.headers["idempotent-replayed"], "true");
    // The key of a batch is not one of all or none.
    let reply = app.post(body).await;
    assert_eq!(reply.json["code"], 1_306_406);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_text_of_a_refused_batch_names_the_models(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let key = "bk_switch_default_host";
    app.post(batch(key, &[(1, 1)])).await;
    let reply = app.gateway(ATOMIC, batch(key, &[(1, 1)])).await;
    assert_eq!(reply.json["code"], DetailError::AlreadyExists.code());
    assert_eq!(reply.json["message"], "the associations bk_switch->host already exist");
}
