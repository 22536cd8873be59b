//! `delete_instance_association` and `delete_related_inst_asso`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use cmdb_associations::domain::permission::Authorization;
use cmdb_associations::http::ClientAddr;
use cmdb_associations::service::limit::Limiter;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{Reply, Setup, TestApp, assert_sound, batch, pool_of};
use crate::constraints::wait_until_blocked;
use crate::permissions::{grant, instance, missing, model};
use crate::topology::leave_dangling;

pub(crate) const ONE: &str = "/api/c/compapi/v2/cc/delete_instance_association/";
pub(crate) const MANY: &str = "/api/c/compapi/v2/cc/delete_related_inst_asso/";

const N_TO_N: &str = "bk_switch_default_host";
const ONE_TO_ONE: &str = "bk_switch_run_host";

pub(crate) fn many(model: &str, ids: &[i64]) -> Value {
    json!({"bk_obj_id": model, "id": ids})
}

async fn delete(app: &TestApp, model: &str, ids: &[i64]) -> Reply {
    app.post_to(MANY, &[], many(model, ids)).await
}

async fn delete_one(app: &TestApp, model: &str, id: i64) -> Reply {
    app.post_to(ONE, &[], json!({"bk_obj_id": model, "id": id})).await
}

/// How many links an answer says were deleted.
#[track_caller]
fn count(reply: &Reply) -> i64 {
    assert_eq!(reply.json["code"], 0, "{}", reply.text);
    reply.json["data"].as_i64().unwrap()
}

async fn stored(app: &TestApp) -> Vec<i64> {
    let ids = "select id from cmdb.instance_association order by id";
    sqlx::query_scalar(ids).fetch_all(&app.pool).await.unwrap()
}

/// How many audit records of deletions there are.
async fn deletion_records(app: &TestApp) -> i64 {
    app.count("select count(*) from cmdb.audit_log where not isempty(deleted_ids)").await
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn links_are_deleted_by_id_from_either_model(pool: PgPool) {
    let app = TestApp::new(pool).await;
    assert_eq!(
        app.post(batch(N_TO_N, &[(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)])).await.ids().len(),
        5
    );
    app.post(batch("bk_switch_default_bk_switch", &[(1, 1)])).await.ids();
    assert_eq!(count(&delete(&app, "bk_switch", &[1, 3, 6]).await), 3);
    assert_eq!(count(&delete(&app, "host", &[2]).await), 1);
    assert_eq!(stored(&app).await, [4, 5]);
    for (model, id) in [("bk_switch", 4), ("host", 5)] {
        let reply = delete_one(&app, model, id).await;
        let success = r#"{"result":true,"code":0,"message":"","permission":null,"request_id":"<id>","data":null}"#;
        assert_eq!(reply.body(), success);
    }
    assert_eq!(stored(&app).await, [0; 0]);
    // The pairs can be linked again, under new ids.
    assert_eq!(app.post(batch(N_TO_N, &[(1, 1)])).await.ids(), [7]);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_deleted_link_no_longer_counts_for_its_mapping(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(ONE_TO_ONE, &[(1, 1)])).await.ids();
    assert_eq!(app.post(batch(ONE_TO_ONE, &[(1, 2), (2, 1)])).await.maps().0, [0_usize; 0]);
    delete_one(&app, "host", 1).await;
    assert_eq!(app.post(batch(ONE_TO_ONE, &[(1, 2), (2, 1)])).await.maps().0, [0, 1]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn ids_without_a_link_of_the_tenant_and_model_are_ignored(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(N_TO_N, &[(1, 1), (1, 2)])).await.ids();
    let long = "x".repeat(200);
    for model in ["biz", "unknown", "nul\0", &long] {
        assert_eq!(count(&delete(&app, model, &[1, 2]).await), 0, "{model:?}");
        assert_eq!(delete_one(&app, model, 1).await.json["code"], 0, "{model:?}");
    }
    for ids in [&[0, -1, i64::MIN][..], &[3, i64::MAX]] {
        assert_eq!(count(&delete(&app, "host", ids).await), 0, "{ids:?}");
    }
    for id in [0, -1, 3] {
        assert_eq!(delete_one(&app, "host", id).await.json["code"], 0, "{id}");
    }
    // A tenant that is stored, and one that is not.
    sqlx::query("insert into cmdb.tenant (key) values ('stored')")
        .execute(&app.pool)
        .await
        .unwrap();
    for tenant in ["stored", "new", "superadmin"] {
        let mut body = many("host", &[1, 2]);
        body["bk_supplier_account"] = tenant.into();
        assert_eq!(count(&app.post_to(MANY, &[], body).await), 0, "{tenant}");
    }
    assert_eq!((stored(&app).await, deletion_records(&app).await), (vec![1, 2], 0));
    // The others of the same request are deleted, each once.
    let mut body = many("host", &[2, 99, 0, 2, -1, 2]);
    body["id"].as_array_mut().unwrap().push(Value::Null);
    assert_eq!(count(&app.post_to(MANY, &[], body).await), 1);
    assert_eq!(count(&delete(&app, "host", &[2]).await), 0);
    assert_eq!((stored(&app).await, deletion_records(&app).await), (vec![1], 1));
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_tenant_deletes_its_own_links_of_shared_models(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let of_tenant = |mut body: Value| {
        body["bk_supplier_account"] = json!("tenant");
        body
    };
    for sql in [
        "insert into cmdb.tenant (key) values ('tenant')",
        "insert into cmdb.instance (model_id, instance_id, tenant_id)
         select model.id, 500, tenant.id from cmdb.model, cmdb.tenant
         where model.key = 'bk_switch' and tenant.key = 'tenant'",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
    }
    app.post(batch(N_TO_N, &[(1, 1)])).await.ids();
    app.post(of_tenant(batch(N_TO_N, &[(500, 1)]))).await.ids();
    assert_eq!(count(&delete(&app, "host", &[1, 2]).await), 1);
    assert_eq!(count(&app.post_to(MANY, &[], of_tenant(many("host", &[1, 2]))).await), 1);
    let tenants =
        "select count(distinct tenant_id) from cmdb.audit_log where not isempty(deleted_ids)";
    assert_eq!(app.count(tenants).await, 2);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_is_checked_in_the_order_of_the_original(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let refuse = async |path: &str, body: Value, code: u32, english: &str, chinese: &str| {
        for (language, text) in [("en", english), ("zh", chinese)] {
            let reply = app.post_to(path, &[("blueking-language", language)], body.clone()).await;
            reply.assert_refused(200, code, text);
        }
    };
    let unassigned = ("'bk_obj_id' unassigned", "'bk_obj_id' 未赋值");
    let ids = |count: i64| (1..=count).collect::<Vec<_>>();
    for body in [json!({}), json!({"id": []}), json!({"id": null, "bk_obj_id": "host"})] {
        refuse(MANY, body, 1_199_003, "invalid input parameter", "输入参数无效").await;
    }
    let (english, chinese) =
        ("page limit is exceeded. suggestion 200", "分页查询数量超过限制的最大值, 建议值200");
    refuse(MANY, json!({"id": ids(501)}), 1_199_059, english, chinese).await;
    refuse(MANY, json!({"id": vec![7; 501]}), 1_199_059, english, chinese).await;
    for body in [json!({"id": ids(500)}), many("", &[1]), json!({"bk_obj_id": null, "id": [1]})] {
        refuse(MANY, body, 1_199_010, unassigned.0, unassigned.1).await;
    }
    assert_eq!(count(&delete(&app, "host", &ids(500)).await), 0);
    for (id, got) in [
        (json!(5), "id: expected an array, got an integer"),
        (json!(["5"]), "id[0]: expected an integer, got a string"),
        (
            json!([1, 1.5]),
            "id[1]: expected an integer, got a number with a fraction or an exponent",
        ),
    ] {
        let text = format!("Deserializing JSON data failed: {got}");
        let body = json!({"bk_obj_id": "host", "id": id});
        app.post_to(MANY, &[], body).await.assert_refused(200, 1_199_000, &text);
    }

    for (body, parameter) in
        [(json!({"id": 1}), "bk_obj_id"), (json!({"bk_obj_id": "host", "id": null}), "id")]
    {
        let text = format!("Parameters error, param {parameter} is required");
        app.post_to(ONE, &[], body).await.assert_refused(200, 1_306_406, &text);
    }
    refuse(ONE, json!({"bk_obj_id": "", "id": "x"}), 1_199_010, unassigned.0, unassigned.1).await;
    for id in [json!("x"), json!(""), json!(1.5), json!(true), json!("18446744073709551616")] {
        let body = json!({"bk_obj_id": "host", "id": id});
        let (english, chinese) =
            ("'association_id' parameters must be integral", "'association_id' 参数必须是整型");
        refuse(ONE, body, 1_199_009, english, chinese).await;
    }
    // The text of an integer is one.
    app.post(batch(N_TO_N, &[(1, 1)])).await.ids();
    app.post_to(ONE, &[], json!({"bk_obj_id": "host", "id": "1"})).await;
    assert_eq!(stored(&app).await, [0; 0]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_cmdb_api_takes_the_model_and_the_id_from_the_path(pool: PgPool) {
    let address: std::net::IpAddr = "10.0.0.1".parse().unwrap();
    let trust = |setup: &mut Setup| setup.authenticator.trusted_peers = vec![address.into()];
    let app = TestApp::with(pool, trust).await;
    app.post(batch(N_TO_N, &[(1, 1), (1, 2), (1, 3), (1, 4)])).await.ids();
    let send = async |path: &str, body: String| {
        let request = Request::delete(format!("/api/v3/delete/instassociation/{path}"))
            .header("x-bkcmdb-app-code", "esb_test")
            .header("x-bkcmdb-user", "admin")
            .extension(ClientAddr(address));
        app.send(request.body(body.into()).unwrap()).await
    };
    let success = |data: &str| {
        format!(
            r#"{{"result":true,"bk_error_code":0,"bk_error_msg":"success","permission":null,"data":{data}}}"#
        )
    };
    assert_eq!(send("bk_switch/2", String::new()).await.text, success("null"));
    // The path counts, not the body.
    let other = json!({"bk_obj_id": "biz", "id": 4}).to_string();
    assert_eq!(send("host/3", other).await.text, success("null"));
    assert_eq!(stored(&app).await, [1, 4]);
    assert_eq!(send("batch", many("host", &[1, 2]).to_string()).await.text, success("1"));
    assert_eq!(stored(&app).await, [4]);
    assert_eq!(send("host/x", String::new()).await.json["bk_error_code"], 1_199_009);
    assert_eq!(send("batch", String::new()).await.json["bk_error_code"], 1_199_003);
    assert_eq!(send("batch", "null".to_owned()).await.json["bk_error_code"], 1_199_003);
    assert_eq!(stored(&app).await, [4]);
    assert_sound(&app.pool).await;
}

/// The columns of an audit record of a deletion, from the request id to the targets.
type Row = (String, String, String, i32, Option<i32>, String, String, Vec<i64>, Vec<i64>);

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_deletion_has_one_audit_record_with_the_deleted_pairs(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(N_TO_N, &[(5, 6), (7, 8)])).await.ids();
    app.post(batch(ONE_TO_ONE, &[(3, 4)])).await.ids();
    let reply = delete(&app, "bk_switch", &[3, 99, 1]).await;
    assert_eq!(count(&reply), 2);
    let records: Vec<Row> = sqlx::query_as(
        "select request_id, app, user_name, tenant_id, model_association_id,
             association_ids::text, deleted_ids::text, source_ids, target_ids
         from cmdb.audit_log where not isempty(deleted_ids)",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    let record = (
        reply.request_id().to_owned(),
        "esb_test".to_owned(),
        "admin".to_owned(),
        0,
        None,
        "{}".to_owned(),
        "{[1,2),[3,4)}".to_owned(),
        vec![5, 3],
        vec![6, 4],
    );
    assert_eq!(records, [record]);
    let associations: Vec<String> = sqlx::query_scalar(
        "select key
         from cmdb.audit_log
         cross join unnest(model_association_ids) with ordinality deleted (association, position)
         join cmdb.model_association on model_association.id = association
         order by position",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert_eq!(associations, [N_TO_N, ONE_TO_ONE]);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn deleting_takes_the_permission_to_edit_both_instances_of_each_link(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(N_TO_N, &[(1, 11), (1, 12), (2, 11)])).await.ids();
    let as_user = async |path: &str, body: Value| {
        let mut body = body;
        body["bk_username"] = "user".into();
        app.post_to(path, &[], body).await
    };
    let hosts = |ids: &[&str]| {
        ("edit_biz_host".to_owned(), ids.iter().map(|id| (*id).to_owned()).collect())
    };
    let switches = app.count("select number from cmdb.model where key = 'bk_switch'").await;
    let switches = |ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        (format!("edit_comobj_{switches}"), ids)
    };
    let reply = as_user(MANY, many("host", &[3, 2, 1, 99])).await;
    assert_eq!(missing(&reply), [switches(&["1", "2"]), hosts(&["11", "12"])]);
    let one = json!({"bk_obj_id": "bk_switch", "id": 3});
    assert_eq!(missing(&as_user(ONE, one.clone()).await), [switches(&["2"]), hosts(&["11"])]);

    grant(&app, "user", &[instance("bk_switch", 1), instance("host", 11)]).await;
    let reply = as_user(MANY, many("host", &[1, 2, 3])).await;
    assert_eq!(missing(&reply), [switches(&["2"]), hosts(&["12"])]);
    grant(&app, "user", &[model("bk_switch")]).await;
    let reply = as_user(MANY, many("host", &[1, 2, 3])).await;
    assert_eq!(missing(&reply), [hosts(&["12"])]);
    assert_eq!((stored(&app).await, deletion_records(&app).await), (vec![1, 2, 3], 0));

    // What is not to be deleted takes no permission.
    assert_eq!(count(&as_user(MANY, many("biz", &[2])).await), 0);
    assert_eq!(count(&as_user(MANY, many("host", &[99])).await), 0);
    assert_eq!(count(&as_user(MANY, many("host", &[1, 99])).await), 1);
    assert_eq!(as_user(ONE, one).await.json["code"], 0);
    grant(&app, "user", &[model("host")]).await;
    assert_eq!(count(&as_user(MANY, many("host", &[1, 2, 3])).await), 1);
    assert_eq!(stored(&app).await, [0; 0]);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn every_user_may_delete_while_permissions_are_not_checked(pool: PgPool) {
    let off = |setup: &mut Setup| setup.authorization = Authorization::Off;
    let app = TestApp::with(pool, off).await;
    app.post(batch(N_TO_N, &[(1, 1), (1, 2)])).await.ids();
    let mut body = many("host", &[1, 3]);
    body["bk_username"] = "nobody".into();
    assert_eq!(count(&app.post_to(MANY, &[], body.clone()).await), 1);
    // Also for a model that does not exist.
    body["bk_obj_id"] = "unknown".into();
    assert_eq!(count(&app.post_to(MANY, &[("idempotency-key", "k")], body).await), 0);
    assert_eq!(stored(&app).await, [2]);
}

/// The original cannot delete such a link.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_link_whose_instance_is_gone_is_deleted_with_a_grant_for_the_whole_model(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(N_TO_N, &[(1, 1), (2, 2), (3, 3), (4, 4)])).await.ids();
    for id in [1, 2, 4] {
        leave_dangling(&app, "host", id..=id).await;
    }
    let as_user = async |ids: &[i64]| {
        let mut body = many("host", ids);
        body["bk_username"] = "user".into();
        app.post_to(MANY, &[], body).await
    };
    grant(&app, "user", &[model("bk_switch"), instance("host", 1), instance("host", 3)]).await;
    // The grant for every host, without which the instance 3 could be edited as well.
    grant(&app, "user", &[instance("host", 2)]).await;
    for ids in [&[1][..], &[1, 2], &[1, 2, 3]] {
        let reply = as_user(ids).await;
        assert_eq!(reply.json["code"], 9_900_403);
        let actions = &reply.json["permission"]["actions"];
        let types = &actions[0]["related_resource_types"];
        assert_eq!((actions.as_array().unwrap().len(), types.as_array().unwrap().len()), (1, 1));
        assert_eq!(
            (&actions[0]["id"], &types[0]["type"]),
            (&json!("edit_biz_host"), &json!("host"))
        );
        assert_eq!(types[0].get("instances"), None, "every host");
    }
    assert_eq!(count(&as_user(&[3]).await), 1);
    grant(&app, "user", &[model("host")]).await;
    assert_eq!(count(&as_user(&[1, 2]).await), 2);
    // With a grant for all models, or as the single deletion.
    delete_one(&app, "bk_switch", 4).await;
    assert_eq!(stored(&app).await, [0; 0]);
    assert_sound(&app.pool).await;
}

/// A permission that is missing for a whole model is not listed for its instances, too.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_refusal_lists_no_instance_of_a_model_that_it_lists_as_a_whole(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(N_TO_N, &[(1, 1), (2, 2)])).await.ids();
    leave_dangling(&app, "host", 1..=1).await;
    let mut body = many("host", &[1, 2]);
    body["bk_username"] = "user".into();
    grant(&app, "user", &[model("bk_switch")]).await;
    let reply = app.post_to(MANY, &[], body).await;
    let actions = &reply.json["permission"]["actions"];
    assert_eq!(actions.as_array().unwrap().len(), 1);
    assert_eq!(actions[0]["related_resource_types"][0].get("instances"), None);
}

/// The grant is in the server's cache when it is removed.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_deletion_is_refused_at_once_after_its_grant_was_removed(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(N_TO_N, &[(1, 1), (1, 2)])).await.ids();
    assert_eq!(count(&delete(&app, "host", &[1]).await), 1);
    sqlx::query("delete from cmdb.permission_grant").execute(&app.pool).await.unwrap();
    assert_eq!(delete(&app, "host", &[2]).await.json["code"], 9_900_403);
    assert_eq!(delete_one(&app, "host", 2).await.json["code"], 9_900_403);
    assert_eq!(stored(&app).await, [2]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_deletion_under_a_key_is_replayed(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(N_TO_N, &[(1, 1), (1, 2), (1, 3), (1, 4)])).await.ids();
    let send = async |path: &str, key: &str, body: &Value| {
        app.post_to(path, &[("idempotency-key", key)], body.clone()).await
    };
    let one = json!({"bk_obj_id": "host", "id": 4});
    for (path, key, body) in [
        (MANY, "two", many("host", &[1, 2, 99])),
        (MANY, "none", many("host", &[99])),
        (ONE, "one", one.clone()),
    ] {
        let first = send(path, key, &body).await;
        assert_eq!(first.json["code"], 0);
        assert!(!first.headers.contains_key("idempotent-replayed"));
        let again = send(path, key, &body).await;
        assert_eq!(
            (&again.text, &again.headers["idempotent-replayed"]),
            (&first.text, &"true".parse().unwrap())
        );
    }
    assert_eq!((stored(&app).await, deletion_records(&app).await), (vec![3], 2));
    assert_sound(&app.pool).await;
    // The order of ids, and repeated ones, make no difference.
    let again = send(MANY, "two", &many("host", &[99, 2, 1, 2, 0])).await;
    assert_eq!((count(&again), again.headers.contains_key("idempotent-replayed")), (2, true));

    let reused = "Parameters error, Idempotency-Key was used with a different request";
    let mut of_tenant = many("host", &[1, 2, 99]);
    of_tenant["bk_supplier_account"] = json!("tenant");
    for (path, key, body) in [
        (MANY, "two", many("bk_switch", &[1, 2, 99])),
        (MANY, "two", many("host", &[1, 2])),
        (MANY, "two", of_tenant),
        (MANY, "one", many("host", &[4])),
        (ONE, "two", one),
    ] {
        send(path, key, &body).await.assert_refused(200, 1_306_406, reused);
    }
    let body = batch(N_TO_N, &[(1, 1)]);
    app.post_with(&[("idempotency-key", "two")], body).await.assert_refused(200, 1_306_406, reused);
    assert_eq!(stored(&app).await, [3]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn concurrent_deletions_with_the_same_key_delete_once_and_get_the_same_answer(pool: PgPool) {
    let app = Arc::new(TestApp::new(pool.clone()).await);
    app.post(batch(N_TO_N, &[(1, 1), (1, 2)])).await.ids();
    let mut other = pool.begin().await.unwrap();
    sqlx::query("select from cmdb.instance_association where id = 1 for update")
        .execute(&mut *other)
        .await
        .unwrap();
    let requests = [(); 2].map(|()| {
        let app = Arc::clone(&app);
        tokio::spawn(async move {
            app.post_to(MANY, &[("idempotency-key", "k")], many("host", &[1, 2])).await
        })
    });
    wait_until_blocked(&pool, 2).await;
    other.rollback().await.unwrap();
    let [one, two] = requests;
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert_eq!((count(&one), &one.text), (2, &two.text));
    assert_eq!(deletion_records(&app).await, 1);
    assert_sound(&pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn concurrent_deletions_of_the_same_links_count_each_link_once(pool: PgPool) {
    let app = Arc::new(TestApp::new(pool_of(pool.connect_options().as_ref().clone(), 8)).await);
    for round in 0..10 {
        let pairs: Vec<_> = (1..=200).map(|n| (n, n)).collect();
        let ids = app.post(batch(N_TO_N, &pairs)).await.ids();
        let backward = ids.iter().rev().copied().collect();
        let deleting =
            [ids.clone(), backward, ids[50..].to_vec(), ids[..150].to_vec()].map(|ids| {
                let app = Arc::clone(&app);
                tokio::spawn(async move { count(&delete(&app, "bk_switch", &ids).await) })
            });
        let mut deleted = 0;
        for one in deleting {
            deleted += one.await.unwrap();
        }
        assert_eq!((deleted, stored(&app).await), (200, vec![]), "round {round}");
    }
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(app.count(deadlocks).await, 0);
    assert_sound(&pool).await;
}

/// The rows are stored in the other order than that of their ids, in which they are locked.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_deletion_locks_links_in_the_order_of_their_ids(pool: PgPool) {
    let app = Arc::new(TestApp::new(pool.clone()).await);
    let insert =
        "insert into cmdb.instance_association (id, model_association_id, source_id, target_id)
                  select 101 - number, id, number, number
                  from cmdb.model_association, generate_series(1, 100) number
                  where key = 'bk_switch_default_host' order by number";
    sqlx::query(insert).execute(&pool).await.unwrap();
    let mut other = pool.begin().await.unwrap();
    let lock = "select from cmdb.instance_association where id = 50 for update";
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let deleting = tokio::spawn({
        let app = Arc::clone(&app);
        let ids: Vec<_> = (1..=100).rev().collect();
        async move { count(&delete(&app, "host", &ids).await) }
    });
    wait_until_blocked(&pool, 1).await;
    let unlocked = "select array_agg(id order by id) from (
                        select id from cmdb.instance_association for update skip locked) free";
    let mut third = pool.begin().await.unwrap();
    let unlocked: Vec<i64> = sqlx::query_scalar(unlocked).fetch_one(&mut *third).await.unwrap();
    third.rollback().await.unwrap();
    assert_eq!(unlocked, (51..=100).collect::<Vec<_>>());
    other.rollback().await.unwrap();
    assert_eq!(deleting.await.unwrap(), 100);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_deletion_without_time_for_its_statement_deletes_nothing(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch(N_TO_N, &[(1, 1)])).await.ids();
    let hurried = TestApp::with_timeout(app.pool.clone(), Duration::from_secs(4));
    assert_eq!(delete(&hurried, "host", &[1]).await.status, 503);
    assert_eq!(delete_one(&hurried, "host", 1).await.status, 503);
    assert_eq!((stored(&app).await, deletion_records(&app).await), (vec![1], 0));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_rate_limit_charges_each_distinct_id(pool: PgPool) {
    let limit = |setup: &mut Setup| {
        setup.limiter = Some(Limiter::new(NonZeroU32::new(1).unwrap()));
    };
    let app = TestApp::with(pool, limit).await;
    let ids = |count: i64| (1..=count).collect::<Vec<_>>();
    // Of the 500 that the limit allows at once, these take 249, 1 and 1.
    let repeated = [ids(249), ids(249), vec![0, -1]].concat();
    count(&delete(&app, "host", &repeated).await);
    count(&delete(&app, "host", &[0, -1]).await);
    assert_eq!(delete_one(&app, "host", 1).await.json["code"], 0);
    // Another one becomes available each second.
    let refused = delete(&app, "host", &ids(400)).await;
    assert_eq!((refused.status.as_u16(), &refused.json["code"]), (429, &json!(1_306_429)));
    count(&delete(&app, "host", &ids(249)).await);
    assert_eq!(delete(&app, "host", &ids(249)).await.status, 429);
}
