//! Association kinds: finding, creating, changing and deleting them.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{TestApp, assert_sound};
use crate::models::{assert_fields, create as create_model, last_record};

const FIND: &str = "POST find/associationtype";
const CREATE: &str = "POST create/associationtype";

/// Creates a kind of a tenant and returns its id.
pub(crate) async fn create(app: &TestApp, tenant: &str, key: &str) -> i64 {
    let (code, data) = app.cmdb(tenant, CREATE, json!({"bk_asst_id": key})).await;
    assert_eq!(code, 0, "{key}");
    data["id"].as_i64().unwrap()
}

/// The count and the keys that a search of a tenant finds.
async fn find(app: &TestApp, tenant: &str, body: Value) -> (u64, Vec<String>) {
    let (code, data) = app.cmdb(tenant, FIND, body.clone()).await;
    assert_eq!(code, 0, "{body}");
    let key = |kind: &Value| kind["bk_asst_id"].as_str().unwrap().to_owned();
    let keys = data["info"].as_array().unwrap().iter().map(key).collect();
    (data["count"].as_u64().unwrap(), keys)
}

/// The kinds that every database has, in the order of their ids.
const INITIAL: [&str; 6] = ["belong", "group", "bk_mainline", "run", "connect", "default"];

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_page_is_a_part_of_the_list_and_the_count_is_of_all(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    for (page, expected) in [
        (json!(null), &INITIAL[..]),
        (json!({"limit": 2}), &INITIAL[..2]),
        (json!({"start": 4, "limit": 100}), &INITIAL[4..]),
        (json!({"start": 5, "limit": 0}), &INITIAL[5..]),
        (json!({"start": i64::MAX, "limit": i64::MAX}), &[]),
    ] {
        let found = find(&app, "0", json!({"page": page})).await;
        assert_eq!(found, (6, expected.iter().map(|key| (*key).to_owned()).collect()), "{page}");
    }
    for (page, code) in [
        (json!({"limit": -1}), 1_199_006),
        (json!({"start": i64::MIN}), 1_199_006),
        (json!({"limit": "1"}), 1_199_000),
        (json!({"start": 1e30}), 1_199_000),
        (json!({"sort": 1}), 1_199_000),
        (json!({"sort": "-"}), 1_199_998),
        (json!([]), 1_199_000),
    ] {
        assert_eq!(app.cmdb("0", FIND, json!({"page": page})).await.0, code, "{page}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_list_is_in_the_order_of_any_fields(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let b = json!({"bk_asst_id": "b", "bk_asst_name": "2", "src_des": "1", "dest_des": "2",
        "direction": "x", "ispre": false});
    let a = json!({"bk_asst_id": "A", "bk_asst_name": "1", "src_des": "2", "dest_des": "1",
        "direction": "y"});
    for body in [b, a] {
        assert_eq!(app.cmdb("t", CREATE, body).await.0, 0);
    }
    for (sort, expected) in [
        ("", "bA"),
        ("id", "bA"),
        ("-id", "Ab"),
        ("bk_asst_id", "Ab"),
        ("bk_asst_name", "Ab"),
        ("src_des", "bA"),
        ("dest_des:-1", "bA"),
        ("direction", "bA"),
        ("bk_supplier_account,-id", "Ab"),
        // Null is less than false.
        ("ispre", "Ab"),
        ("-ispre", "bA"),
        ("nonsense,-id", "Ab"),
        ("a\0b,-id", "Ab"),
    ] {
        let body = json!({"condition": {"id": {"$gt": 6}}, "page": {"sort": sort}});
        assert_eq!(find(&app, "t", body).await.1.concat(), expected, "{sort}");
    }
    let long = json!({"page": {"sort": "-direction,id,ispre,".repeat(40_000)}});
    assert_eq!(find(&app, "t", long).await.0, 8);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_condition_can_test_every_field(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let body = json!({"bk_asst_id": "cools", "bk_asst_name": "cooling", "src_des": "cools",
        "dest_des": "is cooled by", "direction": "x", "ispre": false});
    let (_, data) = app.cmdb("t", CREATE, body).await;
    let fields = [
        ("id", data["id"].clone(), 1),
        ("bk_asst_id", json!("cools"), 1),
        ("bk_supplier_account", json!("t"), 1),
        ("bk_asst_name", json!("cooling"), 1),
        ("src_des", json!("cools"), 1),
        ("dest_des", json!("is cooled by"), 1),
        ("direction", json!("x"), 1),
        ("ispre", json!(true), 6),
    ];
    let find = async |condition: Value| {
        let body = json!({"condition": {"$and": [condition]}});
        let (code, data) = app.cmdb("t", FIND, body).await;
        data["count"].as_u64().map(|count| usize::try_from(count).unwrap()).ok_or(code.to_string())
    };
    assert_fields(&fields, 7, &find).await;
    // Null is a value of this field only.
    create(&app, "t", "of_unknown_origin").await;
    assert_eq!(find(json!({"ispre": null})).await, Ok(1));
    assert_eq!(find(json!({"ispre": {"$in": [null, false]}})).await, Ok(2));
    assert_eq!(find(json!({"ispre": {"$ne": null}})).await, Ok(7));
    assert_eq!(find(json!({"ispre": {"$gte": null}})).await, Ok(1));
    assert_eq!(find(json!({"direction": null})).await, Ok(0));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenant_sees_its_own_kinds_and_those_of_0_and_creates_none_with_their_keys(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    create(&app, "a", "cools").await;
    let sees = async |tenant: &str| {
        let body = json!({"condition": {"bk_asst_id": {"$in": ["cools", "run"]}}});
        find(&app, tenant, body).await.1.concat()
    };
    assert_eq!(sees("a").await, "runcools");
    assert_eq!((sees("b").await, sees("0").await), ("run".to_owned(), "run".to_owned()));
    for (tenant, key, code) in [
        ("a", "cools", 1_199_014),
        ("a", "run", 1_199_014),
        ("0", "run", 1_199_014),
        ("b", "cools", 0),
        ("0", "cools", 0),
        ("c", "cools", 1_199_014),
    ] {
        let body = json!({"bk_asst_id": key});
        assert_eq!(app.cmdb(tenant, CREATE, body).await.0, code, "{tenant} {key}");
    }
    assert_eq!(app.count("select count(*) from cmdb.tenant").await, 3, "0, a and b");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_audit_records_of_a_kind_have_its_rows(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let id = create(&app, "t", "cools").await;
    let record = last_record(&app).await;
    assert_eq!((&record["after"]["key"], &record["before"]), (&json!("cools"), &Value::Null));
    assert_eq!(record["resource_type"], "association_kind");
    // A text that is absent becomes empty.
    let change = json!({"bk_asst_name": "cooling", "direction": "none", "ispre": true});
    let path = format!("PUT update/associationtype/{id}");
    assert_eq!(app.cmdb("t", &path, change).await, (0, Value::Null));
    assert_eq!(app.cmdb("t", &path, json!({"src_des": "cools"})).await, (0, Value::Null));
    let record = last_record(&app).await;
    let texts = |row: &str| {
        ["name", "source_text", "direction", "is_predefined"].map(|text| record[row][text].clone())
    };
    assert_eq!(texts("before"), [json!("cooling"), json!(""), json!("none"), json!(null)]);
    assert_eq!(texts("after"), [json!(""), json!("cools"), json!(""), json!(null)]);
    let deletion = format!("DELETE delete/associationtype/{id}");
    for tenant in ["0", "u"] {
        assert_eq!(app.cmdb(tenant, &path, json!({})).await.0, 0);
        assert_eq!(app.cmdb(tenant, &deletion, json!({})).await.0, 0);
    }
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 3);
    assert_eq!(app.cmdb("t", &deletion, json!({})).await, (0, Value::Null));
    let record = last_record(&app).await;
    assert_eq!((&record["before"]["key"], &record["after"]), (&json!("cools"), &Value::Null));
    assert_eq!(app.count("select count(*) from cmdb.association_kind").await, 6);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_kind_that_model_associations_have_is_not_deleted(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let id = create(&app, "0", "cools").await;
    create_model(&app, "a", "rack").await;
    let body = json!({"bk_obj_asst_id": "k", "bk_obj_id": "rack", "bk_asst_obj_id": "rack",
        "bk_asst_id": "cools", "mapping": "n:n"});
    let (_, data) = app.cmdb("a", "POST create/objectassociation", body).await;
    let deletion = format!("DELETE delete/associationtype/{id}");
    assert_eq!(app.cmdb("0", &deletion, json!({})).await.0, 1_101_060);
    let association = format!("DELETE delete/objectassociation/{}", data["id"]);
    assert_eq!(app.cmdb("a", &association, json!({})).await.0, 0);
    assert_eq!(app.cmdb("0", &deletion, json!({})).await.0, 0);
    // A client may say that its own kind is predefined.
    let body = json!({"bk_asst_id": "heats", "ispre": true});
    let (_, data) = app.cmdb("0", CREATE, body).await;
    let deletion = format!("DELETE delete/associationtype/{}", data["id"]);
    assert_eq!(app.cmdb("0", &deletion, json!({})).await.0, 1_101_051);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn texts_with_a_nul_wrong_types_and_wrong_ids_of_kinds_are_refused(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let id = create(&app, "0", "cools").await;
    let change = format!("PUT update/associationtype/{id}");
    for field in ["bk_asst_name", "src_des", "dest_des", "direction"] {
        let body = json!({"bk_asst_id": "heats", field: "a\0b"});
        assert_eq!(app.cmdb("t", CREATE, body.clone()).await.0, 1_199_006, "{field}");
        assert_eq!(app.cmdb("0", &change, body).await.0, 1_199_006, "{field}");
        for value in [json!(1), json!(false), json!({})] {
            let body = json!({"bk_asst_id": "heats", field: value});
            assert_eq!(app.cmdb("t", CREATE, body.clone()).await.0, 1_199_000, "{body}");
            assert_eq!(app.cmdb("0", &change, body.clone()).await.0, 1_199_000, "{body}");
        }
        let long = json!({"bk_asst_id": field, field: "机".repeat(300_000)});
        assert_eq!(app.cmdb("0", CREATE, long.clone()).await.0, 0, "{field}");
        assert_eq!(app.cmdb("0", &change, long).await.0, 0, "{field}");
    }
    for (key, code) in [
        (json!("a\0b"), 1_199_011),
        (json!(""), 1_199_011),
        (json!("x".repeat(1_000_000)), 1_199_073),
        (json!(1), 1_199_000),
        (json!(null), 1_199_011),
    ] {
        assert_eq!(app.cmdb("t", CREATE, json!({"bk_asst_id": key})).await.0, code);
    }
    for wrong in ["x", "1.5", "9223372036854775808", "%00", "1e3"] {
        for to in ["PUT update", "DELETE delete"] {
            let to = format!("{to}/associationtype/{wrong}");
            assert_eq!(app.cmdb("0", &to, json!({})).await.0, 1_199_006, "{to}");
        }
    }
    for unknown in [i64::MIN, -1, 0, 1 << 31, i64::MAX] {
        for to in ["PUT update", "DELETE delete"] {
            let to = format!("{to}/associationtype/{unknown}");
            assert_eq!(app.cmdb("0", &to, json!({})).await.0, 0, "{to}");
        }
    }
    assert_eq!(app.count("select count(*) from cmdb.tenant").await, 1);
}
