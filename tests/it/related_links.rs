//! `search_related_inst_asso`: the links of one instance.

use axum::body::{Body, Bytes};
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::PgPool;
use tower::ServiceExt;

use crate::app::{Reply, TestApp};

pub(crate) const PATH: &str = "/api/c/compapi/v2/cc/search_related_inst_asso/";
const CMDB_PATH: &str = "/api/v3/find/instassociation/related";

fn search(model: &str, instance: i64) -> Value {
    json!({"condition": {"bk_obj_id": model, "bk_inst_id": instance}, "fields": ["id"]})
}

fn page(start: i64, limit: i64) -> Value {
    let mut body = search("bk_switch", 1);
    body["page"] = json!({"start": start, "limit": limit});
    body
}

/// Links switch 1 with hosts 1 to 4, host 4 with area 0, and switch 2 with 1, with 2 and with 3.
async fn linked_app(pool: PgPool) -> TestApp {
    let app = TestApp::new(pool).await;
    for sql in [
        "insert into cmdb.instance (model_id, instance_id, name)
         select id, 0, 'default area' from cmdb.model where key = 'plat'",
        "insert into cmdb.instance_association (model_association_id, source_id, target_id)
         select association.id, source_id, target_id
         from (values (1, 'bk_switch_default_host', 1, 1), (2, 'bk_switch_default_host', 1, 2),
                      (3, 'bk_switch_connect_host', 1, 3), (4, 'bk_switch_default_host', 1, 4),
                      (5, 'host_belong_plat', 4, 0), (6, 'bk_switch_default_bk_switch', 2, 1),
                      (7, 'bk_switch_default_bk_switch', 2, 2),
                      (8, 'bk_switch_default_bk_switch', 2, 3))
             link (position, key, source_id, target_id)
         join cmdb.model_association association using (key)
         order by position",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
    }
    app
}

async fn ids(app: &TestApp, body: Value) -> Vec<i64> {
    let reply = app.post_to(PATH, &[], body).await;
    let rows = reply.json["data"].as_array().expect(&reply.text);
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_links_from_and_to_an_instance_are_listed_in_order_of_their_ids(pool: PgPool) {
    let app = linked_app(pool).await;
    assert_eq!(ids(&app, search("bk_switch", 1)).await, [1, 2, 3, 4, 6]);
    assert_eq!(ids(&app, search("host", 4)).await, [4, 5]);
    // The link of an instance with itself is listed once.
    assert_eq!(ids(&app, search("bk_switch", 2)).await, [6, 7, 8]);
    for (model, instance) in [("bk_switch", 200), ("bk_switch", 999), ("bk_switch", -1), ("x", 1)] {
        assert_eq!(ids(&app, search(model, instance)).await, [0; 0], "{model} {instance}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_link_has_the_wanted_fields_but_no_id_zero(pool: PgPool) {
    let app = linked_app(pool).await;
    let mut body = search("host", 4);
    body["fields"] = json!([
        "id",
        "bk_inst_id",
        "bk_obj_id",
        "bk_asst_inst_id",
        "bk_asst_obj_id",
        "bk_supplier_account",
        "bk_obj_asst_id",
        "bk_asst_id",
        "unknown",
    ]);
    let reply = app.post_to(PATH, &[], body.clone()).await;
    let expected = r#"[{"id":4,"bk_inst_id":1,"bk_obj_id":"bk_switch","bk_asst_inst_id":4,"bk_asst_obj_id":"host","bk_supplier_account":"0","bk_obj_asst_id":"bk_switch_default_host","bk_asst_id":"default"},{"id":5,"bk_inst_id":4,"bk_obj_id":"host","bk_asst_obj_id":"plat","bk_supplier_account":"0","bk_obj_asst_id":"host_belong_plat","bk_asst_id":"belong"}]"#;
    assert!(reply.text.ends_with(&format!("\"data\":{expected}}}")), "{}", reply.text);
    body["fields"] = json!(["unknown"]);
    assert_eq!(app.post_to(PATH, &[], body).await.json["data"], json!([{}, {}]));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_page_is_cut_from_the_list(pool: PgPool) {
    let app = linked_app(pool).await;
    assert_eq!(ids(&app, page(0, 2)).await, [1, 2]);
    assert_eq!(ids(&app, page(2, 2)).await, [3, 4]);
    assert_eq!(ids(&app, page(4, 500)).await, [6]);
    assert_eq!(ids(&app, page(9, 0)).await, [0; 0]);
    assert_eq!(ids(&app, page(1, 0)).await, [2, 3, 4, 6]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_search_is_refused_for_its_first_error(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let without = |key: &str| {
        let mut body = search("bk_switch", 1);
        body.as_object_mut().unwrap().remove(key);
        body
    };
    let ids = "'bk_inst_id' & 'bk_obj_id'";
    let unassigned =
        |field: &str| (1_199_010, format!("'{field}' unassigned"), format!("'{field}' 未赋值"));
    let invalid = |field: &str| {
        let english = format!("'{field}' data parameter verification does not pass");
        (1_199_006, english, format!("'{field}' 数据参数校验不通过"))
    };
    let too_large = (
        1_199_059,
        "page limit is exceeded. suggestion 200".to_owned(),
        "分页查询数量超过限制的最大值, 建议值200".to_owned(),
    );
    let wrong_type = |at: &str| {
        let english = format!("Deserializing JSON data failed: {at}");
        (1_199_000, english, format!("反序列化JSON数据失败: {at}"))
    };
    let mut text_id = search("bk_switch", 1);
    text_id["condition"]["bk_inst_id"] = json!("1");
    let mut no_fields = search("bk_switch", 1);
    no_fields["fields"] = json!([]);
    for ((code, english, chinese), body) in [
        (wrong_type("condition.bk_inst_id: expected an integer, got a string"), text_id),
        (wrong_type("fields[0]: expected a string, got an integer"), json!({"fields": [1]})),
        (wrong_type("page: expected an object, got an array"), json!({"page": []})),
        (unassigned(ids), json!({})),
        (unassigned(ids), without("condition")),
        (unassigned(ids), search("", 1)),
        (unassigned(ids), search("bk_switch", 0)),
        (unassigned("fields"), without("fields")),
        (unassigned("fields"), no_fields),
        (invalid("page.start"), page(-1, -1)),
        (invalid("page.limit"), page(0, -1)),
        (too_large, page(0, 501)),
    ] {
        let reply = app.post_to(PATH, &[("blueking-language", "en")], body.clone()).await;
        reply.assert_refused(200, code, &english);
        let reply = app.post_to(PATH, &[("blueking-language", "zh-cn")], body).await;
        reply.assert_refused(200, code, &chinese);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_tenant_sees_only_its_own_links(pool: PgPool) {
    let app = linked_app(pool).await;
    let mut body = search("bk_switch", 1);
    body["bk_supplier_account"] = json!("tenant");
    assert_eq!(ids(&app, body.clone()).await, [0; 0]);
    let mut link = crate::app::batch("host_belong_plat", &[(9, 0)]);
    link["bk_supplier_account"] = json!("tenant");
    let own = app.post(link).await.ids();
    body["condition"] = json!({"bk_obj_id": "host", "bk_inst_id": 9});
    assert_eq!(ids(&app, body).await, own);
    assert_eq!(ids(&app, search("host", 9)).await, [0; 0]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_model_of_another_tenant_is_as_unknown_as_a_missing_one(pool: PgPool) {
    let app = linked_app(pool).await;
    let hide = "with other as (insert into cmdb.tenant (key) values ('other') returning id)
                update cmdb.model set tenant_id = other.id from other
                where model.key = 'bk_switch'";
    sqlx::query(hide).execute(&app.pool).await.unwrap();
    let mut body = search("bk_switch", 1);
    body["bk_username"] = json!("nobody");
    assert_eq!(ids(&app, body.clone()).await, [0; 0]);
    body["bk_supplier_account"] = json!("other");
    assert_eq!(app.post_to(PATH, &[], body).await.json["code"], 9_900_403);
}

/// At the gateway API, as for every endpoint, a body that is no object is not JSON.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_empty_body_is_an_empty_object_at_the_cmdb_api_only(pool: PgPool) {
    let app = TestApp::with(pool, |setup| {
        setup.authenticator.trusted_peers = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    let send = async |path: &str, body: &'static str| -> Reply {
        let mut request = Request::post(path)
            .header("bk_user", "admin")
            .header("http_blueking_language", "en")
            .body(Body::from(body))
            .unwrap();
        let peer = "10.1.2.3".parse().unwrap();
        request.extensions_mut().insert(cmdb_associations::http::ClientAddr(peer));
        app.send(request).await
    };
    for body in ["", " ", "null", "{}"] {
        assert_eq!(send(CMDB_PATH, body).await.json["bk_error_code"], 1_199_010, "{body:?}");
    }
    assert_eq!(send(CMDB_PATH, "[]").await.json["bk_error_code"], 1_306_000);
    assert_eq!(send(PATH, "null").await.json["code"], 1_306_000);
    assert_eq!(send(PATH, "").await.json["code"], 1_306_000);
}

/// Links switch 1 with this many hosts beyond those of the fixture.
async fn link_many(app: &TestApp, count: i32) {
    for sql in [
        "insert into cmdb.instance (model_id, instance_id)
         select id, n from cmdb.model, generate_series(1001, 1000 + $1) n
         where key = 'host'",
        "insert into cmdb.instance_association (model_association_id, source_id, target_id)
         select id, 1, number from cmdb.model_association, generate_series(1001, 1000 + $1) number
         where key = 'bk_switch_default_host'",
    ] {
        sqlx::query(sql).bind(count).execute(&app.pool).await.unwrap();
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_long_list_is_sent_page_by_page_and_complete(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for total in [4_999, 5_000, 5_001, 15_000, 15_001] {
        sqlx::query("delete from cmdb.instance_association").execute(&app.pool).await.unwrap();
        sqlx::query("delete from cmdb.instance where instance_id > 1000")
            .execute(&app.pool)
            .await
            .unwrap();
        link_many(&app, total).await;
        let found = ids(&app, search("bk_switch", 1)).await;
        assert!(found.is_sorted());
        assert_eq!(found.len(), usize::try_from(total).unwrap());
    }
}

/// Sends the search for all links of switch 1 and returns the body and its first chunk.
async fn first_chunk(app: &TestApp) -> (Body, Bytes) {
    let mut body = search("bk_switch", 1);
    for (key, value) in
        [("bk_app_code", "esb_test"), ("bk_app_secret", "xxx"), ("bk_username", "admin")]
    {
        body[key] = json!(value);
    }
    let request = Request::post(PATH).body(Body::from(body.to_string())).unwrap();
    let mut body = app.router.clone().oneshot(request).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(br#"{"result":true,"code":0,"#));
    (body, first)
}

/// Its client sees that the body ends too early.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_list_is_cut_off_when_the_database_fails_in_the_middle(pool: PgPool) {
    let app = TestApp::new(pool).await;
    link_many(&app, 50_000).await;
    let (body, _) = first_chunk(&app).await;
    let rename = "alter table cmdb.instance_association rename to renamed";
    sqlx::query(rename).execute(&app.pool).await.unwrap();
    assert!(body.collect().await.is_err());
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_list_whose_rest_is_deleted_while_it_is_sent_is_complete_json(pool: PgPool) {
    let app = TestApp::new(pool).await;
    link_many(&app, 50_000).await;
    let (body, first) = first_chunk(&app).await;
    sqlx::query("delete from cmdb.instance_association").execute(&app.pool).await.unwrap();
    let answer = [first, body.collect().await.unwrap().to_bytes()].concat();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let links = answer["data"].as_array().unwrap().len();
    assert!((5_000..50_000).contains(&links), "{links}");
}
