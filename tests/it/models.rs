//! Models: finding, creating, changing and deleting them.

use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{TestApp, assert_sound};
use crate::constraints::wait_until_blocked;
use crate::permissions::{missing, model};
use crate::topology::grant_view;

/// A new model in a classification that is empty at first.
pub(crate) fn rack(key: &str) -> Value {
    json!({
        "bk_obj_id": key, "bk_obj_name": key, "bk_classification_id": "bk_table_classification",
        "bk_obj_icon": "icon",
    })
}

/// Creates a model of a tenant and returns its id.
pub(crate) async fn create(app: &TestApp, tenant: &str, key: &str) -> i64 {
    let (code, data) = app.cmdb(tenant, "POST create/object", rack(key)).await;
    assert_eq!(code, 0, "{key}");
    data["id"].as_i64().unwrap()
}

/// Changes a model of tenant "0". Returns the code.
async fn update(app: &TestApp, id: i64, change: Value) -> i64 {
    app.cmdb("0", &format!("PUT update/object/{id}"), change).await.0
}

/// The keys of the models that a search finds.
fn keys(found: &Value) -> Vec<&str> {
    let found = found.as_array().unwrap().iter();
    found.map(|model| model["bk_obj_id"].as_str().unwrap()).collect()
}

/// The keys of the models in the classification of [`rack`], in their order, with their places.
async fn places(app: &TestApp) -> Value {
    app.json(
        "select coalesce(jsonb_agg(jsonb_build_array(key, sort_number) order by sort_number), '[]')
         from cmdb.model where classification = 'bk_table_classification'",
    )
    .await
}

/// The last audit record.
pub(crate) async fn last_record(app: &TestApp) -> Value {
    app.json("select to_jsonb(audit_log) from cmdb.audit_log order by id desc limit 1").await
}

/// The names of what differs between the row before and the row after a change.
fn changed(record: &Value) -> Vec<&str> {
    let [before, after] = ["before", "after"].map(|row| record[row].as_object().unwrap());
    assert!(before.keys().eq(after.keys()));
    before.keys().filter(|key| before[*key] != after[*key]).map(String::as_str).collect()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_whole_body_of_a_search_is_the_condition(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let with_other_meanings = json!({
        "bk_obj_id": {"$in": ["host", "biz"]}, "bk_ishidden": false, "bk_supplier_account": "0",
        "idempotency_key": "k", "read_from": "primary", "bk_token": null,
        "bk_app_code": "esb_test", "bk_app_secret": "xxx", "bk_username": "admin",
    });
    for (body, expected) in [
        (with_other_meanings, &["host", "biz"][..]),
        (json!({"bk_obj_id": "host", "bk_supplier_account": "another"}), &["host"]),
        (json!({"bk_obj_id": "host", "condition": {"bk_obj_id": "biz"}}), &[]),
        (json!({"bk_obj_id": "host", "page": {"limit": 1}}), &[]),
    ] {
        let reply = app.gateway("search_objects", body.clone()).await;
        assert_eq!(keys(&reply.json["data"]), expected, "{body}");
        let (_, found) = app.cmdb("0", "POST find/object", body.clone()).await;
        assert_eq!(keys(&found), expected, "{body}");
    }
    for body in ["", "null", "{}"] {
        let (_, found) = app.cmdb_as("admin", "0", "POST find/object", body).await;
        assert_eq!(found.as_array().unwrap().len(), 12, "{body}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_search_is_refused_with_all_found_models_that_the_user_may_not_view(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    grant_view(&app, "user", &["host"]).await;
    let search = async |keys: Value| {
        let body = json!({"bk_username": "user", "bk_obj_id": {"$in": keys}});
        app.gateway("search_objects", body).await
    };
    let reply = search(json!(["set", "host", "biz"])).await;
    let ids = ["3", "4"].map(str::to_owned).to_vec();
    assert_eq!(missing(&reply), [("view_sys_model".to_owned(), ids)]);
    assert_eq!(keys(&search(json!(["host"])).await.json["data"]), ["host"]);
    assert_eq!(search(json!([])).await.json["data"], json!([]));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenant_finds_its_own_models_and_those_of_0(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    create(&app, "a", "of_a").await;
    create(&app, "b", "of_b").await;
    for (tenant, expected) in
        [("a", &["host", "of_a"][..]), ("0", &["host"]), ("superadmin", &["host"])]
    {
        let body = json!({"bk_obj_id": {"$in": ["host", "of_a", "of_b"]}});
        let (_, found) = app.cmdb(tenant, "POST find/object", body.clone()).await;
        assert_eq!(keys(&found), expected, "{tenant}");
        let mut body = body;
        body["bk_supplier_account"] = json!(tenant);
        let reply = app.gateway("search_objects", body).await;
        assert_eq!(keys(&reply.json["data"]), expected, "{tenant}");
    }
}

/// Asserts what a search finds by each field and its value. `find` returns how many it finds by a
/// condition on one field. All `count` rows have every field.
pub(crate) async fn assert_fields(
    fields: &[(&str, Value, usize)], count: usize,
    find: impl AsyncFn(Value) -> Result<usize, String>,
) {
    for (field, value, found) in fields {
        let (field, found) = (*field, *found);
        for (condition, expected) in [
            (value.clone(), found),
            (json!({"$eq": value}), found),
            (json!({"$ne": value}), count - found),
            (json!({"$in": [value, null, [1], {"a": 1}]}), found),
            (json!({"$nin": [value]}), count - found),
            (json!({"$exists": true}), count),
            (json!({"$exists": false}), 0),
            (json!({"$regex": "^.*$"}), if value.is_string() { count } else { 0 }),
            (json!({"$regex": "\\d+|[a-z\\u0000]{1,3}", "$options": "i"}), usize::MAX),
            (json!({"$gte": value, "$lte": value}), found),
            (json!({"$not": {"$gt": value}, "$lt": value}), usize::MAX),
            (json!({"$gt": "a\0b"}), usize::MAX),
            (json!("a\0b"), 0),
            (json!(["a"]), 0),
            (json!({"a": 1}), 0),
            (json!({"$gt": 1e300}), 0),
            (json!({"$in": (0..100).collect::<Vec<_>>()}), usize::MAX),
            (json!({"$in": (0..100).map(|n| n.to_string()).collect::<Vec<_>>()}), usize::MAX),
        ] {
            let result = find(json!({field: condition})).await;
            match (&result, expected) {
                (Ok(_), usize::MAX) => {}
                // A NUL in a pattern, which a test of another type does not read.
                (Err(_), usize::MAX) if condition.to_string().contains("u0000") => {}
                _ => assert_eq!(result, Ok(expected), "{field}: {condition}"),
            }
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_search_can_test_every_field_but_times(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let mut body = rack("rack");
    for (field, value) in [
        ("position", json!("{\"x\":1}")),
        ("description", json!("a rack")),
        ("ispre", json!(true)),
        ("bk_ishidden", json!(true)),
        ("bk_ispaused", json!(true)),
    ] {
        body[field] = value;
    }
    let (_, data) = app.cmdb("t", "POST create/object", body).await;
    let fields = [
        ("id", data["id"].clone(), 1),
        ("bk_obj_id", json!("rack"), 1),
        ("bk_obj_name", json!("rack"), 1),
        ("bk_supplier_account", json!("t"), 1),
        ("bk_classification_id", json!("bk_table_classification"), 1),
        ("bk_obj_icon", json!("icon"), 1),
        ("bk_ishidden", json!(true), 3),
        ("bk_ispaused", json!(true), 1),
        ("ispre", json!(true), 9),
        ("position", json!("{\"x\":1}"), 1),
        ("description", json!("a rack"), 1),
        ("obj_sort_number", json!(1), 6),
        ("creator", json!("admin"), 1),
        ("modifier", json!("admin"), 1),
    ];
    let find = async |condition: Value| {
        let condition = json!({"$and": [condition]});
        let (code, data) = app.cmdb("t", "POST find/object", condition).await;
        data.as_array().map(Vec::len).ok_or(format!("{code}"))
    };
    assert_fields(&fields, 13, find).await;
    for time in ["create_time", "last_time"] {
        assert_eq!(find(json!({time: "0001-01-01 00:00:00"})).await, Ok(0));
        assert_eq!(find(json!({time: null})).await, Ok(13));
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_creator_is_the_user_and_the_answer_repeats_what_was_sent(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let mut body = rack("first");
    (body["creator"], body["modifier"]) = (json!("somebody"), json!("else"));
    body["bk_supplier_account"] = json!("t");
    let reply = app.gateway("create_object", body.clone()).await;
    let id = reply.json["data"]["id"].as_i64().unwrap();
    let expected = json!({
        "id": id, "bk_classification_id": "bk_table_classification", "bk_obj_icon": "icon",
        "bk_obj_id": "first", "bk_obj_name": "first", "bk_ishidden": false, "ispre": false,
        "bk_ispaused": false, "position": "", "bk_supplier_account": "t", "description": "",
        "creator": "admin", "modifier": "else", "create_time": null, "last_time": null,
        "obj_sort_number": 0,
    });
    assert_eq!(reply.json["data"], expected);
    // At the CMDB API the answer repeats the creator that was sent. Whatever it is, the user is
    // stored.
    let (_, data) = app
        .cmdb("t", "POST create/object", {
            body["bk_obj_id"] = json!("second");
            body["bk_obj_name"] = json!("second");
            body
        })
        .await;
    assert_eq!((&data["creator"], &data["bk_supplier_account"]), (&json!("somebody"), &json!("t")));
    let mut without = rack("third");
    without["creator"] = json!(["of another type"]);
    assert_eq!(app.gateway("create_object", without.clone()).await.json["code"], 0);
    assert_eq!(app.cmdb("t", "POST create/object", without).await.0, 1_199_000);
    let stored = "select count(*) from cmdb.model join cmdb.tenant on tenant.id = tenant_id
        where created_by = 'admin' and updated_by = 'admin' and created_at = updated_at
            and created_at > now() - interval '1 minute' and number = model.id
            and (tenant.key = 't') = (model.key <> 'third')";
    assert_eq!(app.count(stored).await, 3);
    let record = last_record(&app).await;
    assert_eq!(record["after"]["key"], "third");
    for (column, value) in [
        ("origin", "request"),
        ("resource_type", "model"),
        ("app", "esb_test"),
        ("user_name", "admin"),
    ] {
        assert_eq!(record[column], value, "{column}");
    }
    assert!(record["request_id"].is_string() && record["before"].is_null(), "{record}");
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_new_model_takes_its_place_in_its_classification_and_the_others_move(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    for (key, number) in
        [("a", json!(null)), ("b", json!(99)), ("c", json!(1)), ("d", json!(i64::MAX))]
    {
        let mut body = rack(key);
        body["obj_sort_number"] = number.clone();
        let (code, data) = app.cmdb("0", "POST create/object", body).await;
        assert_eq!((code, data["obj_sort_number"].as_i64()), (0, number.as_i64().or(Some(0))));
    }
    assert_eq!(places(&app).await, json!([["c", 1], ["a", 2], ["b", 3], ["d", 4]]));
    for number in [-1, i64::MIN] {
        let mut body = rack("e");
        body["obj_sort_number"] = json!(number);
        assert_eq!(app.cmdb("0", "POST create/object", body).await.0, 1_199_006, "{number}");
    }
}

/// An import can bring such a place.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_highest_place_of_64_bits_stays_the_last(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    create(&app, "a", "a").await;
    let highest = "update cmdb.model set sort_number = 9223372036854775807 where key = 'a'";
    sqlx::query(highest).execute(&app.pool).await.unwrap();
    let id = create(&app, "0", "b").await;
    for number in [1, 0, i64::MAX] {
        assert_eq!(update(&app, id, json!({"obj_sort_number": number})).await, 0, "{number}");
        let mut body = rack(&format!("c{number}"));
        body["obj_sort_number"] = json!(number);
        assert_eq!(app.cmdb("0", "POST create/object", body).await.0, 0, "{number}");
    }
    let last = "select count(*) from cmdb.model where sort_number = 9223372036854775807";
    assert_eq!(app.count(last).await, 4);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenant_is_stored_with_its_first_model(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let tenants = "select count(*) from cmdb.tenant";
    let mut body = rack("host");
    assert_eq!(app.cmdb("t", "POST create/object", body.clone()).await.0, 1_199_011);
    body["bk_obj_id"] = json!("rack");
    body["bk_classification_id"] = json!("unknown");
    assert_eq!(app.cmdb("t", "POST create/object", body).await.0, 1_101_024);
    let body = rack("rack").to_string();
    assert_eq!(app.cmdb_as("user", "t", "POST create/object", body).await.0, 9_900_403);
    assert_eq!(app.count(tenants).await, 1);
    create(&app, "t", "rack").await;
    create(&app, "t", "unit").await;
    assert_eq!(app.count(tenants).await, 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn no_two_models_of_any_tenants_have_the_same_key_or_name(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    create(&app, "a", "rack").await;
    for tenant in ["a", "b", "0"] {
        let mut body = rack("rack");
        body["bk_supplier_account"] = json!(tenant);
        let refused = "duplicated instances exist, fields [rack] duplicated";
        app.gateway("create_object", body.clone()).await.assert_refused(200, 1_199_014, refused);
        body["bk_obj_id"] = json!("other");
        app.gateway("create_object", body).await.assert_refused(200, 1_199_014, refused);
    }
    // Case is a difference.
    let id = create(&app, "0", "Rack").await;
    assert_eq!(update(&app, id, json!({"bk_obj_name": "rack"})).await, 1_199_014);
    assert_eq!(update(&app, id, json!({"bk_obj_name": "Rack"})).await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_what_was_sent_changes_and_the_audit_record_has_both_rows(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let id = create(&app, "0", "rack").await;
    let body = json!({
        "id": id, "bk_username": "admin", "description": "new", "bk_ispaused": true,
        "creator": "ignored", "bk_obj_id": "ignored", "nonsense": 1, "position": null,
    });
    let reply = app.gateway("update_object", body).await;
    assert_eq!((&reply.json["code"], &reply.json["data"]), (&json!(0), &Value::Null));
    let record = last_record(&app).await;
    assert_eq!(changed(&record), ["description", "is_paused", "updated_at"]);
    assert_eq!(record["request_id"].as_str(), Some(reply.request_id()));
    assert_eq!(record["before"]["description"], "");
    assert_eq!(record["after"]["description"], "new");
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 2);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_model_takes_another_place_and_is_the_last_of_another_classification(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let mut ids = Vec::new();
    for key in ["a", "b", "c"] {
        ids.push(create(&app, "0", key).await);
    }
    assert_eq!(update(&app, ids[2], json!({"obj_sort_number": 1})).await, 0);
    assert_eq!(places(&app).await, json!([["c", 1], ["a", 2], ["b", 3]]));
    assert_eq!(update(&app, ids[2], json!({"obj_sort_number": i64::MAX})).await, 0);
    assert_eq!(places(&app).await, json!([["a", 2], ["b", 3], ["c", 4]]));
    for number in [-1, i64::MIN] {
        assert_eq!(update(&app, ids[0], json!({"obj_sort_number": number})).await, 1_199_006);
    }
    let network = json!({"bk_classification_id": "bk_network"});
    assert_eq!(update(&app, ids[0], network.clone()).await, 0);
    assert_eq!(changed(&last_record(&app).await), ["classification", "sort_number", "updated_at"]);
    assert_eq!(last_record(&app).await["after"]["sort_number"], 5);
    // It is there already, so its place stays.
    assert_eq!(update(&app, ids[0], network).await, 0);
    assert_eq!(last_record(&app).await["after"]["sort_number"], 5);
    let unknown = json!({"bk_classification_id": "unknown"});
    assert_eq!(update(&app, ids[0], unknown).await, 1_101_113);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_change_of_nothing_is_neither_stored_nor_audited(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let id = create(&app, "0", "rack").await;
    for body in [json!({}), json!({"nonsense": 1, "bk_obj_icon": null}), json!({"bk_obj_id": "x"})]
    {
        assert_eq!(update(&app, id, body).await, 0);
    }
    let unchanged =
        "select count(*) from cmdb.model where key = 'rack' and updated_at = created_at";
    assert_eq!(app.count(unchanged).await, 1);
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 1);
}

/// An import may give two models one name.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_model_may_be_sent_back_with_its_name_that_another_has_too(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let (first, second) = (create(&app, "0", "rack").await, create(&app, "0", "shelf").await);
    let rename = "update cmdb.model set name = 'rack', has_unique_name = false where key = 'shelf'";
    sqlx::query(rename).execute(&app.pool).await.unwrap();
    for id in [first, second] {
        let change = json!({"bk_obj_name": "rack", "description": "sent back"});
        assert_eq!(update(&app, id, change).await, 0);
    }
    let unique = "select count(*) from cmdb.model
                  where name = 'rack' and has_unique_name and description = 'sent back'";
    assert_eq!(app.count(unique).await, 1);
    assert_eq!(update(&app, second, json!({"bk_obj_name": "shelf"})).await, 0);
    assert_eq!(update(&app, second, json!({"bk_obj_name": "rack"})).await, 1_199_014);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_model_of_another_tenant_is_unknown(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let id = create(&app, "a", "rack").await;
    for tenant in ["b", "0", "superadmin"] {
        let body = json!({"bk_obj_name": "x"});
        let (code, _) = app.cmdb(tenant, &format!("PUT update/object/{id}"), body).await;
        assert_eq!(code, 1_101_106, "{tenant}");
        let deletion = format!("DELETE delete/object/{id}");
        assert_eq!(app.cmdb(tenant, &deletion, json!({})).await, (0, Value::Null), "{tenant}");
    }
    assert_eq!(app.count("select count(*) from cmdb.model where name = 'rack'").await, 1);
    // Those of "0" are seen by every tenant and changed by none.
    let change = json!({"bk_obj_name": "x"});
    assert_eq!(app.cmdb("a", "PUT update/object/7", change).await.0, 1_101_106);
    assert_eq!(app.cmdb("a", "DELETE delete/object/7", json!({})).await.0, 0);
    assert_eq!(app.count("select count(*) from cmdb.model where key = 'bk_switch'").await, 1);
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_deletion_removes_the_grants_for_the_model(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let id = create(&app, "a", "rack").await;
    grant_view(&app, "user", &["rack", "host"]).await;
    crate::permissions::grant(&app, "user", &[model("rack")]).await;
    let body = json!({"id": id, "bk_supplier_account": "a"});
    assert_eq!(app.gateway("delete_object", body.clone()).await.json["code"], 0);
    assert_eq!(app.count("select count(*) from cmdb.model where key = 'rack'").await, 0);
    let grants = "select count(*) from cmdb.permission_grant where user_name = 'user'";
    assert_eq!(app.count(grants).await, 1);
    let record = last_record(&app).await;
    assert_eq!((&record["before"]["key"], &record["after"]), (&json!("rack"), &Value::Null));
    assert_eq!(app.gateway("delete_object", body).await.json["code"], 0, "again");
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 2);
    // Its key and name are free again.
    create(&app, "b", "rack").await;
}

/// The instance is inserted after the deletion has found none.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_model_that_gets_an_instance_meanwhile_is_not_deleted(pool: PgPool) {
    let app = TestApp::of_models(pool.clone()).await;
    let id = create(&app, "0", "rack").await;
    let mut importing = pool.begin().await.unwrap();
    let insert = "insert into cmdb.instance (model_id, instance_id)
                  select id, 1 from cmdb.model where key = 'rack'";
    sqlx::query(insert).execute(&mut *importing).await.unwrap();
    let deletion = async {
        app.gateway("delete_object", json!({"id": id})).await.assert_refused(
            200,
            1_101_037,
            "the object [rack] has been instantiated and cannot be deleted",
        );
    };
    let commit = async {
        wait_until_blocked(&pool, 1).await;
        importing.commit().await.unwrap();
    };
    tokio::join!(deletion, commit);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_deletion_waits_for_a_grant_for_the_model_without_a_deadlock(pool: PgPool) {
    let app = Arc::new(TestApp::of_models(pool).await);
    let id = create(&app, "0", "rack").await;
    let mut granting = app.pool.begin().await.unwrap();
    let grant = "insert into cmdb.permission_grant (user_name, model_id)
                 select 'another', id from cmdb.model where key = 'rack'";
    sqlx::query(grant).execute(&mut *granting).await.unwrap();
    let deleting = {
        let app = Arc::clone(&app);
        let path = format!("DELETE delete/object/{id}");
        tokio::spawn(async move { app.cmdb("0", &path, json!({})).await.0 })
    };
    wait_until_blocked(&app.pool, 1).await;
    granting.commit().await.unwrap();
    assert_eq!(deleting.await.unwrap(), 0);
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(app.count(deadlocks).await, 0);
    assert_eq!(
        app.count("select count(*) from cmdb.permission_grant where model_id > 12").await,
        0
    );
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_id_of_a_model_is_a_number_or_a_text(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let id = create(&app, "0", "rack").await;
    for id in [json!(id), json!(id.to_string())] {
        let body = json!({"id": id, "description": "x"});
        assert_eq!(app.gateway("update_object", body).await.json["code"], 0, "{id}");
    }
    let wrong = json!([
        "x", "", " 7", "7.0", "9223372036854775808", "\0", 1.5, true, [7], {"a": 7},
        9_223_372_036_854_775_808_u64,
    ]);
    for id in wrong.as_array().unwrap() {
        for (name, code) in [("update_object", 1_199_009), ("delete_object", 1_199_006)] {
            let reply = app.gateway(name, json!({"id": id})).await;
            assert_eq!(reply.json["code"], code, "{name} {id}");
        }
    }
    for unknown in [i64::MIN, -1, 0, 1 << 31, 1 << 33, i64::MAX] {
        assert_eq!(update(&app, unknown, json!({})).await, 1_101_106, "{unknown}");
        let deletion = format!("DELETE delete/object/{unknown}");
        assert_eq!(app.cmdb("0", &deletion, json!({})).await.0, 0, "{unknown}");
    }
    for absent in [json!({}), json!({"id": null})] {
        let refused = "Parameters error, param id is required";
        app.gateway("delete_object", absent).await.assert_refused(200, 1_306_406, refused);
    }
    let body = json!({"id": id.to_string()});
    assert_eq!(app.gateway("delete_object", body).await.json["code"], 0);
    assert_eq!(app.count("select count(*) from cmdb.model where key = 'rack'").await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_text_with_a_nul_is_refused(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let id = create(&app, "0", "rack").await;
    let change = format!("PUT update/object/{id}");
    for (field, new, changed) in [
        ("bk_obj_id", 1_199_011, 1_199_011),
        ("bk_obj_name", 1_199_011, 1_199_011),
        ("bk_classification_id", 1_101_024, 1_101_113),
        ("bk_obj_icon", 1_199_006, 1_199_006),
        ("position", 1_199_006, 1_199_006),
        ("description", 1_199_006, 1_199_006),
    ] {
        let mut body = rack("unit");
        body[field] = json!("a\0b");
        assert_eq!(app.cmdb("t", "POST create/object", body).await.0, new, "{field}");
        assert_eq!(app.cmdb("0", &change, json!({field: "a\0b"})).await.0, changed, "{field}");
    }
    // These are not stored.
    for field in ["creator", "modifier", "nonsense"] {
        let mut body = rack(field);
        body[field] = json!("a\0b");
        assert_eq!(app.cmdb("0", "POST create/object", body).await.0, 0, "{field}");
    }
    assert_eq!(app.count("select count(*) from cmdb.tenant").await, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn long_texts_are_stored(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let long = "机".repeat(100_000);
    let mut body = rack("rack");
    for field in ["bk_obj_icon", "position", "description"] {
        body[field] = json!(long);
    }
    assert_eq!(app.cmdb("0", "POST create/object", body.clone()).await.0, 0);
    let (_, found) = app.cmdb("0", "POST find/object", json!({"bk_obj_icon": long})).await;
    assert_eq!((keys(&found), &found[0]["position"]), (vec!["rack"], &json!(long)));
    for (field, code) in
        [("bk_obj_id", 1_199_073), ("bk_obj_name", 1_199_011), ("bk_classification_id", 1_101_024)]
    {
        let mut body = rack("unit");
        body[field] = json!("x".repeat(1_000_000));
        assert_eq!(app.cmdb("0", "POST create/object", body).await.0, code, "{field}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn wrong_types_repeated_keys_and_invalid_utf_8_are_refused(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let id = create(&app, "0", "rack").await;
    let change = format!("PUT update/object/{id}");
    let (create, find) = ("POST create/object", "POST find/object");
    for field in ["bk_obj_id", "bk_obj_name", "bk_classification_id", "bk_obj_icon", "position"] {
        for value in [json!(1), json!(true), json!(["a"]), json!({"a": 1})] {
            let body = json!({field: value});
            assert_eq!(app.cmdb("0", create, body.clone()).await.0, 1_199_000, "{body}");
            assert_eq!(app.cmdb("0", &change, body.clone()).await.0, 1_199_000, "{body}");
        }
    }
    for field in ["ispre", "bk_ishidden", "bk_ispaused", "obj_sort_number"] {
        for value in [json!("true"), json!(1.5), json!([]), json!(9_223_372_036_854_775_808_u64)] {
            let body = json!({"bk_obj_id": "x", field: value});
            assert_eq!(app.cmdb("0", create, body.clone()).await.0, 1_199_000, "{body}");
            assert_eq!(app.cmdb("0", &change, body.clone()).await.0, 1_199_000, "{body}");
        }
    }
    let twice = r#"{"bk_obj_id":"a","bk_obj_id":"b"}"#;
    let invalid = b"{\"bk_obj_id\":\"\xff\"}";
    for to in [create, &*change, find] {
        assert_eq!(app.cmdb_as("admin", "0", to, twice).await.0, 1_199_000, "{to}");
        assert_eq!(app.cmdb_as("admin", "0", to, invalid.to_vec()).await.0, 1_306_000, "{to}");
        assert_eq!(app.cmdb_as("admin", "0", to, "[]").await.0, 1_306_000, "{to}");
    }
}
