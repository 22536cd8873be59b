//! Instances: creating, changing and deleting them.

use cmdb_associations::domain::instance::FixedFields;
use cmdb_associations::domain::model::BUILT_IN_MODELS;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{TestApp, assert_sound, batch};
use crate::models::{create, last_record, rack};

/// With the model `rack`.
async fn new_app(pool: PgPool) -> TestApp {
    let app = TestApp::of_instances(pool).await;
    create(&app, "0", "rack").await;
    app
}

/// Creates a rack of a tenant. Returns the code and the data.
async fn add(app: &TestApp, tenant: &str, body: Value) -> (i64, Value) {
    app.cmdb(tenant, "POST create/instance/object/rack", body).await
}

/// Creates a rack of tenant "0" with a name and returns its id.
async fn add_named(app: &TestApp, name: &str) -> i64 {
    let (code, data) = add(app, "0", json!({"bk_inst_name": name})).await;
    assert_eq!(code, 0, "{name}");
    data["bk_inst_id"].as_i64().unwrap()
}

/// Changes a rack of tenant "0". Returns the code.
async fn update(app: &TestApp, id: i64, change: Value) -> i64 {
    app.cmdb("0", &format!("PUT update/instance/object/rack/inst/{id}"), change).await.0
}

/// Changes racks of tenant "0". Returns the code.
async fn update_many(app: &TestApp, changes: &[(i64, Value)]) -> i64 {
    let change = |(id, datas): &(i64, Value)| json!({"inst_id": id, "datas": datas});
    let body = json!({"update": changes.iter().map(change).collect::<Vec<_>>()});
    app.cmdb("0", "PUT updatemany/instance/object/rack", body).await.0
}

/// Deletes racks of a tenant. Returns the code.
async fn delete(app: &TestApp, tenant: &str, ids: &[i64]) -> i64 {
    let body = json!({"delete": {"inst_ids": ids}});
    app.cmdb(tenant, "DELETE deletemany/instance/object/rack", body).await.0
}

/// The stored document of a rack.
async fn document(app: &TestApp, id: i64) -> Value {
    let sql = "select document from cmdb.instance_document where instance_id = $1";
    sqlx::query_scalar(sql).bind(id).fetch_one(&app.pool).await.unwrap()
}

/// The names of the racks, from the documents and from the instances.
async fn names(app: &TestApp) -> Value {
    app.json(
        "select coalesce(jsonb_agg(name order by instance_id), '[]')
         from cmdb.instance join cmdb.instance_document using (model_id, instance_id)
         where document ->> 'bk_inst_name' = name
             and model_id = (select id from cmdb.model where key = 'rack')",
    )
    .await
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_new_instance_has_what_was_sent_and_what_the_program_sets(pool: PgPool) {
    let app = new_app(pool).await;
    let ignored = json!({
        "bk_inst_id": 77, "bk_obj_id": "other", "bk_supplier_account": "other", "_id": "x",
        "create_time": "never", "last_time": "never", "bk_created_at": 1, "bk_created_by": "x",
        "bk_updated_at": null, "bk_updated_by": "y",
    });
    let kept = json!({
        "bk_inst_name": "机架 \"1\"", "rows": 42, "ratio": 0.5, "big": i64::MAX, "on": true,
        "nothing": null, "list": [1, "a", {}], "nested": {"a": {"b": []}}, "": "empty key",
    });
    let mut body = kept.clone();
    body.as_object_mut().unwrap().extend(ignored.as_object().unwrap().clone());
    let (code, mut data) = add(&app, "0", body).await;
    assert_eq!((code, &data["bk_inst_id"]), (0, &json!(1)));
    assert_eq!(document(&app, 1).await, data);
    let created = data["create_time"].as_str().unwrap().to_owned();
    for time in ["create_time", "last_time", "bk_created_at", "bk_updated_at"] {
        assert_eq!(data.as_object_mut().unwrap().remove(time), Some(json!(created)), "{time}");
    }
    // As in "2026-01-31T18:00:00.123Z".
    assert!(
        created.len() <= 24 && created.ends_with('Z') && created.find('T') == Some(10),
        "{created}"
    );
    let is_now = "select count(*) from cmdb.instance_document
        where (document ->> 'create_time')::timestamptz
            between now() - interval '1 minute' and now()";
    assert_eq!(app.count(is_now).await, 1);
    let mut expected = kept;
    expected.as_object_mut().unwrap().extend(
        json!({
            "bk_inst_id": 1, "bk_obj_id": "rack", "bk_supplier_account": "0",
            "bk_created_by": "admin", "bk_updated_by": null,
        })
        .as_object()
        .unwrap()
        .clone(),
    );
    assert_eq!(data, expected);
    assert_eq!(names(&app).await, json!(["机架 \"1\""]));
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_name_is_a_text_of_1_to_256_bytes_without_blanks_at_its_ends(pool: PgPool) {
    let app = new_app(pool).await;
    for (body, code) in [
        (json!({}), 1_199_010),
        (json!({"rows": 42}), 1_199_010),
        (json!({"bk_inst_name": null}), 1_199_011),
        (json!({"bk_inst_name": ""}), 1_199_011),
        (json!({"bk_inst_name": " \t\n"}), 1_199_011),
        (json!({"bk_inst_name": 5}), 1_199_011),
        (json!({"bk_inst_name": ["a"]}), 1_199_011),
        (json!({"bk_inst_name": "a".repeat(257)}), 1_199_011),
        (json!({"bk_inst_name": "机".repeat(86)}), 1_199_011),
    ] {
        assert_eq!(add(&app, "0", body.clone()).await.0, code, "{body}");
        let (_, data) =
            app.cmdb("0", "POST createmany/instance/object/rack", json!({"details": [body]})).await;
        assert_eq!(data["success_created"], json!({}), "{body}");
        assert!(data["error_msg"]["0"].is_string(), "{body}");
    }
    assert_eq!(app.count("select count(*) from cmdb.instance").await, 0);
    assert_eq!(app.count("select last_value - is_called::int from cmdb.instance_id_seq").await, 1);
    let long = "机".repeat(85);
    add_named(&app, &format!(" {long}\n")).await;
    let id = add_named(&app, "a b").await;
    assert_eq!(update(&app, id, json!({"bk_inst_name": "\t c "})).await, 0);
    for name in [json!(null), json!(" "), json!(5), json!("a".repeat(257))] {
        assert_eq!(update(&app, id, json!({"bk_inst_name": name})).await, 1_199_011, "{name}");
    }
    assert_eq!(names(&app).await, json!([long, "c"]));
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn no_two_instances_of_a_model_and_a_tenant_have_the_same_name(pool: PgPool) {
    let app = new_app(pool).await;
    create(&app, "0", "shelf").await;
    let id = add_named(&app, "a").await;
    let body = json!({"bk_obj_id": "rack", "bk_inst_name": " a "});
    let refused = "duplicated instances exist, fields [ bk_inst_name: \"a\" ] duplicated";
    app.gateway("create_inst", body).await.assert_refused(200, 1_199_014, refused);
    let named = json!({"bk_inst_name": "a"});
    // Of another tenant, of another model, in other case.
    assert_eq!(add(&app, "t", named.clone()).await.0, 0);
    assert_eq!(app.cmdb("0", "POST create/instance/object/shelf", named.clone()).await.0, 0);
    let other = add_named(&app, "A").await;
    assert_eq!(update(&app, other, named.clone()).await, 1_199_014);
    // Its own name.
    assert_eq!(update(&app, id, named.clone()).await, 0);
    // It is free when no instance has it.
    assert_eq!(update(&app, id, json!({"bk_inst_name": "b"})).await, 0);
    assert_eq!(update(&app, other, named.clone()).await, 0);
    assert_eq!(delete(&app, "0", &[other]).await, 0);
    add_named(&app, "a").await;
    assert_sound(&app.pool).await;
}

/// An import may give two instances one name.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_instance_may_be_sent_back_with_its_name_that_another_has_too(pool: PgPool) {
    let app = new_app(pool).await;
    let (first, second) = (add_named(&app, "a").await, add_named(&app, "b").await);
    let rename = "update cmdb.instance set name = 'a' where name = 'b'";
    sqlx::query(rename).execute(&app.pool).await.unwrap();
    for id in [first, second] {
        assert_eq!(update(&app, id, json!({"bk_inst_name": "a", "rows": 1})).await, 0);
    }
    assert_eq!(update(&app, second, json!({"bk_inst_name": "b"})).await, 0);
    assert_eq!(update(&app, second, json!({"bk_inst_name": "a"})).await, 1_199_014);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_instance_has_at_most_64_kib_and_no_nul(pool: PgPool) {
    let app = new_app(pool).await;
    let id = add_named(&app, "a").await;
    let frame = json!({"bk_inst_name": "b", "text": ""}).to_string().len();
    let sized = |size: usize| json!({"bk_inst_name": "b", "text": "x".repeat(size - frame)});
    for too_large in [sized((64 << 10) + 1), sized(200_000)] {
        assert_eq!(add(&app, "0", too_large.clone()).await.0, 1_199_000);
        assert_eq!(update(&app, id, too_large).await, 1_199_000);
    }
    assert_eq!(add(&app, "0", sized(64 << 10)).await.0, 0);
    let body = json!({
        "bk_obj_id": "rack", "bk_inst_name": "c", "list": [{"a": "ok"}, {"b": "x\0"}],
    });
    let reply = app.gateway("create_inst", body).await;
    let refused = "Deserializing JSON data failed: list[1].b: contains \\u0000";
    reply.assert_refused(200, 1_199_000, refused);
    let details = json!([{"bk_inst_name": "c"}, {"bk_inst_name": "d\0"}]);
    let to = "POST createmany/instance/object/rack";
    assert_eq!(app.cmdb("0", to, json!({"details": details})).await.0, 1_199_000);
    assert_eq!(update(&app, id, json!({"a\0": 1})).await, 1_199_000);
    assert_eq!(names(&app).await, json!(["a", "b"]));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_document_does_not_grow_beyond_128_kib(pool: PgPool) {
    let app = new_app(pool).await;
    let id = add_named(&app, "a").await;
    let part = |n: i64| (id, json!({n.to_string(): "x".repeat(30_000)}));
    for n in 1..=4 {
        assert_eq!(update_many(&app, &[part(n)]).await, 0);
    }
    assert_eq!(update_many(&app, &[part(5)]).await, 1_199_000);
    assert_eq!(update_many(&app, &[part(6), part(6), part(1)]).await, 1_199_000);
    assert_eq!(update_many(&app, &[part(4)]).await, 0);
    // PostgreSQL writes the digits of large numbers.
    let numbers = json!({"bk_inst_name": "b", "numbers": vec![1e300; 500]});
    assert_eq!(add(&app, "0", numbers).await.0, 1_199_000);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_model_exists_is_in_use_and_not_built_in(pool: PgPool) {
    let app = TestApp::of_instances(pool).await;
    let mut paused = rack("rack");
    paused["bk_ispaused"] = json!(true);
    assert_eq!(app.cmdb("0", "POST create/object", paused).await.0, 0);
    create(&app, "t", "of_t").await;
    let named = json!({"bk_inst_name": "a"});
    let details = json!({"details": [named]});
    for (model, one, many) in [
        ("rack", 1_101_084, 0),
        ("of_t", 1_199_011, 1_199_011),
        ("unknown", 1_199_011, 1_199_011),
        ("host", 1_199_084, 1_199_084),
        ("biz", 1_199_084, 1_199_084),
    ] {
        let to = format!("POST create/instance/object/{model}");
        assert_eq!(app.cmdb("0", &to, named.clone()).await.0, one, "{model}");
        let to = format!("POST createmany/instance/object/{model}");
        assert_eq!(app.cmdb("0", &to, details.clone()).await.0, many, "{model}");
    }
    assert_eq!(names(&app).await, json!(["a"]));
    let to = "PUT update/instance/object/biz/inst/1";
    assert_eq!(app.cmdb("0", to, named.clone()).await.0, 1_199_084);
    for model in ["host", "biz"] {
        let to = format!("DELETE delete/instance/object/{model}/inst/1");
        assert_eq!(app.cmdb("0", &to, json!({})).await.0, 1_199_084);
    }
    let to = "PUT update/instance/object/unknown/inst/1";
    assert_eq!(app.cmdb("0", to, named).await.0, 1_199_019);
    let to = "DELETE delete/instance/object/unknown/inst/1";
    assert_eq!(app.cmdb("0", to, json!({})).await.0, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_batch_says_what_became_of_each_instance(pool: PgPool) {
    let app = new_app(pool).await;
    add_named(&app, "taken").await;
    let to = "POST createmany/instance/object/rack";
    let details = json!([
        {"bk_inst_name": "z"}, {"bk_inst_name": "taken"}, {"bk_inst_name": "a", "rows": 1},
        {"bk_inst_name": " z"}, null, {"rows": 1}, {"bk_inst_name": 5}, {"bk_inst_name": "m"},
    ]);
    let (code, data) = app.cmdb("0", to, json!({"details": details})).await;
    assert_eq!((code, &data["success_created"]), (0, &json!({"0": 2, "2": 3, "7": 4})));
    let duplicate = |name: &str| {
        format!("duplicated instances exist, fields [ bk_inst_name: \"{name}\" ] duplicated")
    };
    let refused = data["error_msg"].as_object().unwrap();
    assert_eq!(refused.len(), 5);
    assert_eq!(refused["1"], json!(duplicate("taken")));
    assert_eq!(refused["3"], json!(duplicate("z")));
    for (index, text) in [
        ("4", "'bk_inst_name' unassigned"),
        ("5", "'bk_inst_name' unassigned"),
        ("6", "''Instance Name' must be a string type' the parameter is invalid or does not exist"),
    ] {
        assert_eq!(refused[index], text);
    }
    assert_eq!(names(&app).await, json!(["taken", "z", "a", "m"]));
    let record = last_record(&app).await;
    assert_eq!(record["instance_ids"], json!([2, 3, 4]));
    assert_eq!(record["after"]["3"]["rows"], 1);
    assert_eq!(record["after"]["2"], document(&app, 2).await);
    // All are refused: nothing is written.
    let (code, data) = app.cmdb("0", to, json!({"details": [{"bk_inst_name": "a"}]})).await;
    assert_eq!((code, &data["success_created"]), (0, &json!({})));
    assert_eq!(last_record(&app).await, record);
    let many = |count: usize| {
        let detail = |n| json!({"bk_inst_name": format!("many {n}")});
        json!({"details": (0..count).map(detail).collect::<Vec<_>>()})
    };
    assert_eq!(app.cmdb("0", to, many(0)).await.0, 1_199_038);
    assert_eq!(app.cmdb("0", to, many(201)).await.0, 1_199_035);
    let (_, data) = app.cmdb("0", to, many(200)).await;
    let created = data["success_created"].as_object().unwrap();
    assert!((0..200).all(|n| created[&n.to_string()] == n + 5));
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenant_is_stored_with_its_first_instance(pool: PgPool) {
    let app = new_app(pool).await;
    let tenants = "select count(*) from cmdb.tenant";
    assert_eq!(add(&app, "t", json!({"rows": 1})).await.0, 1_199_010);
    let named = json!({"bk_inst_name": "a"});
    let create = "POST create/instance/object/rack";
    assert_eq!(app.cmdb_as("user", "t", create, named.to_string()).await.0, 9_900_403);
    assert_eq!(delete(&app, "t", &[1]).await, 0);
    assert_eq!(app.count(tenants).await, 1);
    let (code, data) = add(&app, "t", named).await;
    assert_eq!((code, &data["bk_supplier_account"]), (0, &json!("t")));
    assert_eq!(app.count(tenants).await, 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_change_keeps_other_keys_and_sets_the_time_and_the_user(pool: PgPool) {
    let app = new_app(pool).await;
    let body = json!({"bk_inst_name": "a", "rows": 1, "nested": {"a": 1, "b": 2}, "old": "x"});
    let id = add(&app, "0", body).await.1["bk_inst_id"].as_i64().unwrap();
    let before = document(&app, id).await;
    let change = json!({
        "rows": 2, "nested": {"c": 3}, "old": null, "new": [], "bk_inst_id": 99,
        "create_time": "x", "bk_created_by": "x", "bk_obj_id": "x", "last_time": "x",
    });
    assert_eq!(update(&app, id, change).await, 0);
    let mut after = document(&app, id).await;
    for time in ["last_time", "bk_updated_at"] {
        // Zeros at the end of the fraction are left out.
        let [old, new] =
            [&before, &after].map(|one| one[time].as_str().unwrap().trim_end_matches('Z'));
        assert!(new > old, "{time}");
        after[time] = before[time].clone();
    }
    let mut expected = before.clone();
    for (key, value) in [
        ("rows", json!(2)),
        ("nested", json!({"c": 3})),
        ("old", json!(null)),
        ("new", json!([])),
        ("bk_updated_by", json!("admin")),
    ] {
        expected[key] = value;
    }
    assert_eq!(after, expected);
    let record = last_record(&app).await;
    assert_eq!(record["instance_ids"], json!([id]));
    let id = id.to_string();
    let was = json!({"rows": 1, "nested": {"a": 1, "b": 2}, "old": "x", "new": null});
    let is = json!({"rows": 2, "nested": {"c": 3}, "old": null, "new": []});
    assert_eq!((&record["before"][&id], &record["after"][&id]), (&was, &is));
    for (column, value) in [
        ("origin", "request"),
        ("resource_type", "instance"),
        ("app", "esb_test"),
        ("user_name", "admin"),
    ] {
        assert_eq!(record[column], value, "{column}");
    }
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn if_one_change_of_a_batch_is_refused_none_is_made(pool: PgPool) {
    let app = new_app(pool).await;
    let [a, b, c] =
        [add_named(&app, "a").await, add_named(&app, "b").await, add_named(&app, "c").await];
    let others =
        add(&app, "t", json!({"bk_inst_name": "a"})).await.1["bk_inst_id"].as_i64().unwrap();
    let x = json!({"x": 1});
    let named = |name: &str| json!({"bk_inst_name": name});
    for (changes, code) in [
        (vec![(a, x.clone()), (999, x.clone())], 1_199_019),
        (vec![(a, x.clone()), (others, x.clone())], 1_199_019),
        (vec![(a, x.clone()), (0, x.clone())], 1_199_006),
        (vec![(a, x.clone()), (-1, x.clone())], 1_199_019),
        (vec![(a, x.clone()), (b, named("c"))], 1_199_014),
        (vec![(a, named("new")), (b, named("new"))], 1_199_014),
        (vec![(a, x.clone()), (b, named(""))], 1_199_011),
    ] {
        assert_eq!(update_many(&app, &changes).await, code, "{changes:?}");
    }
    assert_eq!(app.count("select count(*) from cmdb.audit_log where before is not null").await, 0);
    assert_eq!(
        app.count("select count(*) from cmdb.instance_document where document ? 'x'").await,
        0
    );
    assert_eq!(update_many(&app, &[]).await, 0);
    // Later changes of an instance add to the earlier ones.
    let changes =
        [(c, json!({"x": 1, "y": 1})), (a, named("d")), (c, json!({"y": 2, "bk_inst_name": "e"}))];
    assert_eq!(update_many(&app, &changes).await, 0);
    let after = last_record(&app).await["after"].take();
    let expected = json!({
        a.to_string(): {"bk_inst_name": "d"},
        c.to_string(): {"bk_inst_name": "e", "x": 1, "y": 2},
    });
    assert_eq!(after, expected);
    assert_eq!(names(&app).await, json!(["d", "b", "e", "a"]));
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_linked_instance_is_not_deleted(pool: PgPool) {
    let app = TestApp::of_instances(pool).await;
    app.post(batch("bk_switch_default_host", &[(1, 1)])).await.ids();
    app.post(batch("bk_switch_default_bk_switch", &[(2, 2), (3, 4)])).await.ids();
    let to = "DELETE deletemany/instance/object/bk_switch";
    for linked in [1, 2, 3, 4] {
        let body = json!({"delete": {"inst_ids": [9, linked]}});
        assert_eq!(app.cmdb("0", to, body).await.0, 1_101_075, "{linked}");
        let to = format!("DELETE delete/instance/object/bk_switch/inst/{linked}");
        assert_eq!(app.cmdb("0", &to, json!({})).await.0, 1_101_075, "{linked}");
    }
    let switches = "select count(*) from cmdb.instance_document
                    join cmdb.model on model.id = model_id and key = 'bk_switch'";
    assert_eq!(app.count(switches).await, 300);
    sqlx::query("delete from cmdb.instance_association where source_id = 3")
        .execute(&app.pool)
        .await
        .unwrap();
    let body = json!({"delete": {"inst_ids": [9, 3, 9, 4]}});
    assert_eq!(app.cmdb("0", to, body).await, (0, Value::Null));
    assert_eq!(app.count(switches).await, 297);
    assert_eq!(last_record(&app).await["instance_ids"], json!([3, 4, 9]));
    // A server that knew the instances does not link them any more.
    let reply = app.post(batch("bk_switch_default_host", &[(3, 1), (5, 1)])).await;
    assert_eq!(reply.maps().0, [1]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn ids_that_the_tenant_does_not_have_are_not_deleted(pool: PgPool) {
    let app = new_app(pool).await;
    let [a, b] = [add_named(&app, "a").await, add_named(&app, "b").await];
    let others =
        add(&app, "t", json!({"bk_inst_name": "a"})).await.1["bk_inst_id"].as_i64().unwrap();
    for ids in [&[][..], &[999, 0, -1, i64::MAX, i64::MIN], &[others]] {
        assert_eq!(delete(&app, "0", ids).await, 0, "{ids:?}");
    }
    for tenant in ["t", "superadmin", "unknown"] {
        assert_eq!(delete(&app, tenant, &[a, b]).await, 0, "{tenant}");
    }
    assert_eq!(app.count("select count(*) from cmdb.instance").await, 3);
    let before = document(&app, a).await;
    assert_eq!(delete(&app, "0", &[others, a, 999]).await, 0);
    let record = last_record(&app).await;
    assert_eq!(record["before"], json!({a.to_string(): before}));
    assert_eq!((&record["after"], &record["instance_ids"]), (&Value::Null, &json!([a])));
    assert_eq!(delete(&app, "0", &[a]).await, 0, "again");
    assert_eq!(last_record(&app).await, record);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn ids_that_sql_clients_insert_are_not_assigned_again(pool: PgPool) {
    let app = new_app(pool).await;
    let insert = async |model: &str, id: i64| {
        let sql = "insert into cmdb.instance (model_id, instance_id, name)
                   select id, $2, 'by SQL' from cmdb.model where key = $1";
        sqlx::query(sql).bind(model).bind(id).execute(&app.pool).await.unwrap();
    };
    // A few ids, and many.
    for (id, name) in [(7, "a"), (100_000, "b"), (100_003, "c")] {
        insert("rack", id).await;
        assert_eq!(add_named(&app, name).await, id + 1);
    }
    // Lower ids, built-in models and hosts do not move it.
    for (model, id) in [("rack", 50), ("set", 1 << 40), ("host", 500_000)] {
        insert(model, id).await;
    }
    assert_eq!(add_named(&app, "d").await, 100_005);
    let sql = "update cmdb.instance set instance_id = 200000 where instance_id = 7";
    sqlx::query(sql).execute(&app.pool).await.unwrap();
    assert_eq!(add_named(&app, "e").await, 200_001);
    assert_eq!(app.count("select nextval('cmdb.host_id_seq')").await, 500_001);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_document_follows_what_sql_clients_change_of_its_instance(pool: PgPool) {
    let app = new_app(pool).await;
    create(&app, "t", "shelf").await;
    let id = add_named(&app, "a").await;
    for sql in [
        "update cmdb.instance set name = null",
        "update cmdb.instance set name = 'b'",
        "update cmdb.instance set tenant_id = (select id from cmdb.tenant where key = 't')",
        "update cmdb.instance set model_id = (select id from cmdb.model where key = 'shelf')",
        "update cmdb.instance set model_id = (select id from cmdb.model where key = 'host')",
        "update cmdb.instance set name = null",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
        assert_sound(&app.pool).await;
    }
    let document = document(&app, id).await;
    assert_eq!(
        (&document["bk_host_id"], &document["bk_supplier_account"]),
        (&json!(id), &json!("t"))
    );
    for gone in ["bk_inst_id", "bk_inst_name", "bk_obj_id", "bk_host_innerip"] {
        assert_eq!(document.get(gone), None, "{gone}");
    }
    sqlx::query("delete from cmdb.instance").execute(&app.pool).await.unwrap();
    assert_eq!(app.count("select count(*) from cmdb.instance_document").await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_program_and_the_database_agree_on_the_keys_of_ids_and_names(pool: PgPool) {
    let sql = "select key, cmdb.id_field(key), cmdb.name_field(key) from cmdb.model
               union select key, cmdb.id_field(key), cmdb.name_field(key) from unnest($1) key";
    let more: Vec<_> = ["rack", "bk_switch"].into_iter().chain(BUILT_IN_MODELS).collect();
    let fields: Vec<(String, String, String)> =
        sqlx::query_as(sql).bind(more).fetch_all(&pool).await.unwrap();
    for (model, id, name) in fields {
        let fixed = FixedFields::of(&model);
        assert_eq!((&*id, &*name), (fixed.id, fixed.name), "{model}");
    }
}
