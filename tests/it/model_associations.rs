//! Model associations: creating, renaming and deleting them.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{TestApp, assert_sound};
use crate::kinds::create as create_kind;
use crate::models::{create as create_model, last_record};

const CREATE: &str = "POST create/objectassociation";

/// A new model association between switches and hosts.
fn new(key: &str, kind: &str, mapping: &str) -> Value {
    json!({
        "bk_obj_asst_id": key, "bk_obj_id": "bk_switch", "bk_asst_obj_id": "host",
        "bk_asst_id": kind, "mapping": mapping,
    })
}

/// Creates a model association of a tenant and returns its id.
async fn create(app: &TestApp, tenant: &str, body: Value) -> i64 {
    let (code, data) = app.cmdb(tenant, CREATE, body.clone()).await;
    assert_eq!(code, 0, "{body}");
    data["id"].as_i64().unwrap()
}

/// A batch of a tenant, with one detail for each pair.
fn batch(tenant: &str, key: &str, pairs: &[(i64, i64)]) -> Value {
    let detail =
        |(source, target): &(i64, i64)| json!({"bk_inst_id": source, "bk_asst_inst_id": target});
    json!({
        "bk_supplier_account": tenant, "bk_obj_asst_id": key, "bk_obj_id": "bk_switch",
        "bk_asst_obj_id": "host", "details": pairs.iter().map(detail).collect::<Vec<_>>(),
    })
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_new_model_association_can_be_used_at_once_on_every_server(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let other = TestApp::on(app.pool.clone());
    let unknown = "object association does not exist.";
    for server in [&app, &other] {
        let reply = server.post(batch("0", "bk_switch_k_host", &[(1, 1)])).await;
        reply.assert_refused(200, 1_101_046, unknown);
    }
    let id = create(&app, "0", new("bk_switch_k_host", "group", "n:n")).await;
    assert_eq!(app.post(batch("0", "bk_switch_k_host", &[(1, 1)])).await.ids().len(), 1);
    assert_eq!(other.post(batch("0", "bk_switch_k_host", &[(1, 2)])).await.ids().len(), 1);
    let deletion = format!("DELETE delete/objectassociation/{id}");
    assert_eq!(app.cmdb("0", &deletion, json!({})).await.0, 1_101_043);
    let ids = app.json("select jsonb_agg(id) from cmdb.instance_association").await;
    let body = json!({"bk_obj_id": "host", "id": ids});
    assert_eq!(app.gateway("delete_related_inst_asso", body).await.json["data"], 2);
    assert_eq!(app.cmdb("0", &deletion, json!({})).await, (0, Value::Null));
    for server in [&other, &app] {
        let reply = server.post(batch("0", "bk_switch_k_host", &[(1, 3)])).await;
        reply.assert_refused(200, 1_101_046, unknown);
    }
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_own_model_association_of_a_tenant_counts_before_that_of_0(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    create(&app, "0", new("bk_switch_k_host", "group", "1:1")).await;
    for (kind, code) in [("group", 1_101_038), ("belong", 0), ("connect", 1_101_038)] {
        let body = new("bk_switch_k_host", kind, "n:n");
        assert_eq!(app.cmdb("t", CREATE, body).await.0, code, "{kind}");
    }
    assert_eq!(app.cmdb("t", CREATE, new("bk_switch_k_host", "bk_x", "n:n")).await.0, 1_199_011);
    create_kind(&app, "t", "cools").await;
    let taken = new("bk_switch_k_host", "cools", "n:n");
    assert_eq!(app.cmdb("t", CREATE, taken.clone()).await.0, 1_199_014);
    let tenants =
        "update cmdb.instance set tenant_id = (select id from cmdb.tenant where key = 't')
                   where instance_id = 1 and name like 'bk_switch%'";
    sqlx::query(tenants).execute(&app.pool).await.unwrap();
    // Its mapping is n:n, that of "0" is 1:1.
    let pairs = [(1, 1), (1, 2)];
    assert_eq!(app.post(batch("t", "bk_switch_k_host", &pairs)).await.ids().len(), 2);
    let pairs = [(2, 1), (2, 2)];
    assert_eq!(app.post(batch("0", "bk_switch_k_host", &pairs)).await.ids().len(), 1);
    // Another tenant sees neither the kind nor the model association.
    assert_eq!(app.cmdb("u", CREATE, taken).await.0, 1_199_011);
    assert_eq!(app.count("select count(*) from cmdb.tenant").await, 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_same_models_and_kind_are_associated_once_in_each_direction(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    create(&app, "0", new("first", "group", "n:n")).await;
    let reply = app
        .cmdb_reply("admin", "0", CREATE, new("second", "group", "1:1").to_string().into())
        .await;
    assert_eq!(reply.json["bk_error_code"], 1_101_038);
    assert_eq!(reply.json["bk_error_msg"], "the associations bk_switch->host already exist");
    let mut reverse = new("second", "group", "n:n");
    (reverse["bk_obj_id"], reverse["bk_asst_obj_id"]) = (json!("host"), json!("bk_switch"));
    create(&app, "0", reverse).await;
    create(&app, "0", new("third", "run", "n:n")).await;
    assert_eq!(app.cmdb("0", CREATE, new("third", "belong", "n:n")).await.0, 1_199_014);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_kind_of_the_tenant_is_preferred_to_that_of_0(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let own = create_kind(&app, "t", "cools").await;
    let shared = create_kind(&app, "0", "cools").await;
    create(&app, "t", new("k", "cools", "n:n")).await;
    create(&app, "0", new("k", "cools", "n:n")).await;
    let numbers = "select jsonb_object_agg(tenant.key, kind.number)
        from cmdb.model_association association
        join cmdb.tenant on tenant.id = association.tenant_id
        join cmdb.association_kind kind on kind.id = association_kind_id
        where association.key = 'k'";
    assert_eq!(app.json(numbers).await, json!({"t": own, "0": shared}));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn models_of_other_tenants_cannot_be_associated(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    create_model(&app, "a", "rack").await;
    let mut body = new("k", "group", "n:n");
    body["bk_obj_id"] = json!("rack");
    for tenant in ["b", "0"] {
        assert_eq!(app.cmdb(tenant, CREATE, body.clone()).await.0, 1_199_011, "{tenant}");
    }
    create(&app, "a", body).await;
    assert_eq!(app.count("select count(*) from cmdb.tenant").await, 2, "b is not stored");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_the_name_of_a_model_association_changes(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let id = create(&app, "t", new("k", "group", "1:n")).await;
    let record = last_record(&app).await;
    assert_eq!(record["resource_type"], "model_association");
    assert_eq!((&record["after"]["mapping"], &record["before"]), (&json!("1:n"), &Value::Null));
    let path = format!("PUT update/objectassociation/{id}");
    let body = json!({"bk_obj_asst_name": "uplink", "bk_asst_id": "x", "on_delete": "x"});
    assert_eq!(app.cmdb("t", &path, body).await, (0, Value::Null));
    let mut record = last_record(&app).await;
    assert_eq!(record["after"]["name"], "uplink");
    record["after"]["name"] = json!("");
    assert_eq!(record["after"], record["before"]);
    for (field, value) in [
        ("id", json!(0)),
        ("bk_supplier_account", json!("t")),
        ("bk_obj_asst_id", json!("k")),
        ("bk_obj_id", json!(["x"])),
        ("bk_asst_obj_id", json!("")),
        ("mapping", json!("1:1")),
        ("ispre", json!(false)),
    ] {
        let body = json!({"bk_obj_asst_name": "x", field: value});
        assert_eq!(app.cmdb("t", &path, body).await.0, 1_101_047, "{field}");
    }
    // A change of nothing.
    for body in [json!({}), json!({"on_delete": "x", "mapping": null})] {
        assert_eq!(app.cmdb("t", &path, body).await.0, 0);
    }
    // Another tenant has none with this id.
    assert_eq!(app.cmdb("0", &path, json!({"bk_obj_asst_name": "x"})).await.0, 1_101_046);
    let deletion = format!("DELETE delete/objectassociation/{id}");
    assert_eq!(app.cmdb("0", &deletion, json!({})).await.0, 0);
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 2);
    assert_eq!(app.cmdb("t", &deletion, json!({})).await.0, 0);
    let record = last_record(&app).await;
    assert_eq!((&record["before"]["name"], &record["after"]), (&json!("uplink"), &Value::Null));
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_model_with_model_associations_of_any_tenant_is_not_deleted(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let model = create_model(&app, "0", "rack").await;
    let mut body = new("k", "group", "n:n");
    body["bk_asst_obj_id"] = json!("rack");
    let id = create(&app, "t", body).await;
    let deletion = format!("DELETE delete/object/{model}");
    assert_eq!(app.cmdb("0", &deletion, json!({})).await.0, 1_101_053);
    app.cmdb("t", &format!("DELETE delete/objectassociation/{id}"), json!({})).await;
    assert_eq!(app.cmdb("0", &deletion, json!({})).await.0, 0);
    assert_eq!(app.count("select count(*) from cmdb.model where key = 'rack'").await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn texts_with_a_nul_and_wrong_types_and_ids_of_model_associations_are_refused(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let id = create(&app, "0", new("k", "group", "n:n")).await;
    let path = format!("PUT update/objectassociation/{id}");
    for (field, code) in [
        ("bk_obj_asst_id", 1_199_011),
        ("bk_obj_asst_name", 1_199_006),
        ("bk_obj_id", 1_199_011),
        ("bk_asst_obj_id", 1_199_011),
        ("bk_asst_id", 1_199_011),
        ("mapping", 1_199_006),
        ("on_delete", 1_199_006),
    ] {
        let mut body = new("other", "run", "n:n");
        body[field] = json!("a\0b");
        assert_eq!(app.cmdb("t", CREATE, body.clone()).await.0, code, "{field}");
        for value in [json!(1), json!(true), json!(["x"])] {
            body[field] = value;
            assert_eq!(app.cmdb("t", CREATE, body.clone()).await.0, 1_199_000, "{body}");
        }
    }
    for (name, code) in [(json!("a\0b"), 1_199_006), (json!(1), 1_199_000)] {
        assert_eq!(app.cmdb("0", &path, json!({"bk_obj_asst_name": name})).await.0, code);
    }
    let long = "机".repeat(100_000);
    let mut body = new(&"机".repeat(512), "run", "n:n");
    (body["bk_obj_asst_name"], body["on_delete"]) = (json!(long), json!(long));
    create(&app, "0", body).await;
    assert_eq!(app.cmdb("0", &path, json!({"bk_obj_asst_name": long})).await.0, 0);
    for field in ["bk_obj_id", "bk_asst_obj_id", "bk_asst_id"] {
        let mut body = new("other", "belong", "n:n");
        body[field] = json!("x".repeat(1_000_000));
        assert_eq!(app.cmdb("0", CREATE, body).await.0, 1_199_011, "{field}");
    }
    for wrong in ["x", "1.5", "9223372036854775808", "%00"] {
        let to = format!("PUT update/objectassociation/{wrong}");
        assert_eq!(app.cmdb("0", &to, json!({})).await.0, 1_199_011, "{to}");
        let to = format!("DELETE delete/objectassociation/{wrong}");
        assert_eq!(app.cmdb("0", &to, json!({})).await.0, 1_101_041, "{to}");
    }
    for (unknown, code) in
        [(i64::MIN, 1_101_041), (-1, 1_101_041), (0, 1_101_041), (1 << 31, 0), (i64::MAX, 0)]
    {
        let to = format!("PUT update/objectassociation/{unknown}");
        assert_eq!(app.cmdb("0", &to, json!({})).await.0, 1_101_046, "{to}");
        let to = format!("DELETE delete/objectassociation/{unknown}");
        assert_eq!(app.cmdb("0", &to, json!({})).await.0, code, "{to}");
    }
    assert_eq!(app.count("select count(*) from cmdb.tenant").await, 1);
}
