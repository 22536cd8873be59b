//! Searches for instances by what their documents have.

use cmdb_associations::db::instance_search::{InstancePage, InstanceSelection, search};
use cmdb_associations::domain::condition::mongo;
use cmdb_associations::service::database::{Purpose, connect};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use crate::app::{TestApp, server_database};
use crate::models::create;
use crate::query_plans::Content;

/// With the model `rack`, and a rack for each of these values of the key `v`. Their ids are 1, 2 ….
async fn with_values(pool: PgPool, values: &[Value]) -> TestApp {
    let app = TestApp::of_instances(pool).await;
    create(&app, "0", "rack").await;
    let rack = |(n, value): (usize, &Value)| match value.as_str() {
        Some("absent") => json!({"bk_inst_name": format!("rack-{n}")}),
        _ => json!({"bk_inst_name": format!("rack-{n}"), "v": value}),
    };
    add(&app, "rack", &values.iter().enumerate().map(rack).collect::<Vec<_>>()).await;
    app
}

async fn add(app: &TestApp, model: &str, details: &[Value]) {
    for details in details.chunks(200) {
        let to = format!("POST createmany/instance/object/{model}");
        let (code, data) = app.cmdb("0", &to, json!({"details": details})).await;
        assert_eq!((code, &data["error_msg"]), (0, &json!({})));
    }
}

/// The ids in a list of instances.
fn ids(info: &Value) -> Vec<i64> {
    info.as_array().into_iter().flatten().map(|one| one["bk_inst_id"].as_i64().unwrap()).collect()
}

/// Finds racks by a query filter.
async fn by_filter(app: &TestApp, filter: &Value) -> Vec<i64> {
    let body = json!({"conditions": filter, "page": {"limit": 500}});
    let (code, data) = app.cmdb("0", "POST search/instances/object/rack", body).await;
    assert_eq!(code, 0, "{filter}");
    let body = json!({"conditions": filter});
    let count = app.cmdb("0", "POST count/instances/object/rack", body).await.1;
    assert_eq!(count["count"], ids(&data["info"]).len(), "{filter}");
    ids(&data["info"])
}

/// Finds racks by a condition in MongoDB's form.
async fn by_condition(app: &TestApp, condition: &Value) -> Vec<i64> {
    let body = json!({"condition": condition});
    let (code, data) = app.cmdb("0", "POST inst/search/0/rack", body).await;
    assert_eq!(code, 0, "{condition}");
    assert_eq!(data["count"], ids(&data["info"]).len(), "{condition}");
    ids(&data["info"])
}

fn values() -> Vec<Value> {
    let list = json!([
        1, 2.5, "ab", "Abc", null, "absent", [1, "x"], [], {"k": 5}, true, "2026-01-31", -3
    ]);
    list.as_array().unwrap().clone()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_query_filter_tests_values_of_any_type(pool: PgPool) {
    let app = with_values(pool, &values()).await;
    for (operator, value, expected) in [
        ("equal", json!(1), &[1, 7][..]),
        ("equal", json!(1.0), &[1, 7]),
        ("equal", json!("ab"), &[3]),
        ("equal", json!(true), &[10]),
        ("not_equal", json!(1), &[2, 3, 4, 5, 6, 8, 9, 10, 11, 12]),
        ("in", json!(["ab", "x"]), &[3, 7]),
        ("not_in", json!([1, 2.5, -3]), &[3, 4, 5, 6, 8, 9, 10, 11]),
        ("less", json!(2), &[1, 7, 12]),
        ("greater_or_equal", json!(2.5), &[2]),
        ("begins_with", json!("a"), &[3]),
        ("begins_with_i", json!("a"), &[3, 4]),
        ("contains", json!("B"), &[3, 4]),
        ("contains_s", json!("B"), &[]),
        ("ends_with", json!("c"), &[4]),
        ("is_null", json!(null), &[5, 6]),
        ("is_not_null", json!(null), &[1, 2, 3, 4, 7, 8, 9, 10, 11, 12]),
        ("exist", json!(null), &[1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]),
        ("not_exist", json!(null), &[6]),
        ("is_empty", json!(null), &[8]),
        ("size", json!(2), &[7]),
        ("filter_object", json!({"field": "k", "operator": "equal", "value": 5}), &[9]),
        ("filter_array", json!({"field": "element", "operator": "equal", "value": "x"}), &[7]),
    ] {
        let filter = json!({"field": "v", "operator": operator, "value": value});
        assert_eq!(by_filter(&app, &filter).await, expected, "{filter}");
    }
    let both = json!({"condition": "AND", "rules": [
        {"field": "v", "operator": "exist", "value": null},
        {"condition": "OR", "rules": [
            {"field": "v.k", "operator": "equal", "value": 5},
            {"field": "bk_inst_id", "operator": "less", "value": 2},
        ]},
    ]});
    assert_eq!(by_filter(&app, &both).await, [1, 9]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_condition_in_the_form_of_mongodb_tests_values_of_any_type(pool: PgPool) {
    let app = with_values(pool, &values()).await;
    for (condition, expected) in [
        (json!({}), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12][..]),
        (json!({"v": 1}), &[1, 7]),
        (json!({"v": null}), &[5, 6]),
        (json!({"v": {"$ne": null}}), &[1, 2, 3, 4, 7, 8, 9, 10, 11, 12]),
        (json!({"v": {"$gt": -3, "$lte": 2.5}}), &[1, 2, 7]),
        (json!({"v": {"$gte": "b"}}), &[7]),
        (json!({"v": {"$in": ["ab", 2.5]}}), &[2, 3]),
        (json!({"v": {"$regex": "^a", "$options": "i"}}), &[3, 4]),
        (json!({"v": {"$exists": false}}), &[6]),
        (json!({"v.k": 5}), &[9]),
        (json!({"$or": [{"v": true}, {"bk_inst_id": {"$in": [2, "3", 99]}}]}), &[2, 10]),
        (json!({"bk_inst_id": {"$gt": 10}}), &[11, 12]),
        (json!({"bk_inst_id": {"$gt": 10.5}}), &[11, 12]),
        (json!({"bk_inst_id": {"$not": {"$gte": 2}}}), &[1]),
        (json!({"bk_supplier_account": "other"}), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    ] {
        assert_eq!(by_condition(&app, &condition).await, expected, "{condition}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn values_are_sorted_as_mongodb_sorts_types(pool: PgPool) {
    let app = with_values(pool, &values()).await;
    let sorted = async |sort: &str, start: i64, limit: i64| {
        let body = json!({"page": {"sort": sort, "start": start, "limit": limit}});
        ids(&app.cmdb("0", "POST inst/search/0/rack", body).await.1["info"])
    };
    let ascending = [5, 6, 12, 1, 2, 11, 4, 3, 9, 8, 7, 10];
    assert_eq!(sorted("v", 0, 0).await, ascending);
    let reversed: Vec<_> = ascending.into_iter().rev().collect();
    assert_eq!(sorted("-v,-bk_inst_id", 0, 0).await, reversed);
    assert_eq!(sorted("v", 3, 2).await, [1, 2]);
    assert_eq!(sorted("-bk_inst_id", 1, 2).await, [11, 10]);
    assert_eq!(sorted("unknown", 0, 2).await, [1, 2]);
    let body = json!({"page": {"sort": "-v", "start": 1, "limit": 2}});
    let page = app.cmdb("0", "POST search/instances/object/rack", body).await.1;
    assert_eq!(ids(&page["info"]), [7, 8]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_list_without_a_limit_has_all_instances_in_their_order(pool: PgPool) {
    let app = with_values(pool, &(0..1_203).map(|n| json!(n % 7)).collect::<Vec<_>>()).await;
    let list = async |page: Value| {
        let body = json!({"fields": ["bk_inst_id"], "page": page});
        let data = app.cmdb("0", "POST inst/search/0/rack", body).await.1;
        assert_eq!(data["count"], 1_203);
        ids(&data["info"])
    };
    let all: Vec<_> = (1..=1_203).collect();
    assert_eq!(list(json!({})).await, all);
    assert_eq!(list(json!({"start": 1_200})).await, [1_201, 1_202, 1_203]);
    assert_eq!(list(json!({"limit": 601})).await, all[..601]);
    let mut sorted = all;
    sorted.sort_by_key(|id| std::cmp::Reverse((id - 1) % 7));
    assert_eq!(list(json!({"sort": "-v"})).await, sorted);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_the_wanted_keys_are_returned(pool: PgPool) {
    let app = with_values(pool, &[json!(1)]).await;
    for (fields, expected) in [
        (json!(["v", "unknown"]), json!({"v": 1})),
        (json!(["nothing"]), json!({})),
        (json!(["bk_inst_id", "bk_inst_name"]), json!({"bk_inst_id": 1, "bk_inst_name": "rack-0"})),
    ] {
        let body = json!({"fields": fields, "page": {"limit": 1}});
        let page = app.cmdb("0", "POST search/instances/object/rack", body.clone()).await.1;
        assert_eq!(page["info"], json!([expected]));
        let list = app.cmdb("0", "POST inst/search/0/rack", body).await.1;
        assert_eq!(list["info"], json!([expected]));
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn documents_of_older_versions_get_the_keys_of_newer_ones(pool: PgPool) {
    let app = with_values(pool, &[json!(1)]).await;
    let sql = r#"update cmdb.instance_document
        set document = '{"create_time": "t", "last_time": null, "bk_updated_at": "u", "k": null}'"#;
    sqlx::raw_sql(sql).execute(&app.pool).await.unwrap();
    let found = json!({"create_time": "t", "last_time": null, "bk_updated_at": "u", "k": null,
        "bk_created_at": "t"});
    let wanted = json!({"bk_created_at": "t", "bk_updated_at": "u", "k": null});
    let fields = json!(["bk_created_at", "bk_updated_at", "k"]);
    for (fields, expected) in [(json!([]), found), (fields, wanted)] {
        let body = json!({"fields": fields, "page": {"limit": 1}});
        let page = app.cmdb("0", "POST search/instances/object/rack", body).await.1;
        assert_eq!(page["info"], json!([expected]));
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_time_condition_includes_both_seconds(pool: PgPool) {
    let times = ["17:59:59.999", "18:00:00", "18:00:00.5", "18:00:01"];
    let times = times.map(|time| json!(format!("2026-01-31T{time}Z")));
    let app = with_values(pool, &times).await;
    for (rule, expected) in [
        (json!({"start": "2026-01-31 18:00:00"}), &[2, 3, 4][..]),
        (json!({"end": "2026-01-31 18:00:00"}), &[1, 2]),
        (json!({"start": "2026-01-31 18:00:00", "end": "2026-01-31 18:00:01"}), &[2, 3, 4]),
        (json!({"start": "2026-02-01T02:00:01+08:00"}), &[4]),
    ] {
        let mut rule = rule;
        rule["field"] = json!("v");
        let body = json!({"time_condition": {"oper": "and", "rules": [rule]},
            "page": {"limit": 9}});
        let page = app.cmdb("0", "POST search/instances/object/rack", body).await.1;
        assert_eq!(ids(&page["info"]), expected, "{rule}");
    }
    let rules = json!([{"field": "bk_created_at", "end": "2000-01-01 00:00:00"}]);
    let body = json!({"time_condition": {"oper": "and", "rules": rules}});
    let none = app.cmdb("0", "POST find/instassociation/object/rack", body).await.1;
    assert_eq!(none, json!({"count": 0, "info": []}));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenant_finds_its_own_instances_and_all_hosts_of_tenant_0(pool: PgPool) {
    let app = with_values(pool, &[json!(1)]).await;
    let host = json!({"host_info": [{"bk_host_innerip": "10.0.0.1", "bk_cloud_id": 0}]});
    for tenant in ["0", "X"] {
        assert_eq!(app.cmdb(tenant, "POST hosts/add/resource", host.clone()).await.0, 0);
    }
    for (tenant, racks, hosts) in [("0", 1, 1), ("X", 0, 2), ("Y", 0, 1)] {
        let found = app.cmdb(tenant, "POST inst/search/0/rack", json!({})).await.1;
        assert_eq!(found["count"], racks, "{tenant}");
        let found = app.cmdb(tenant, "POST hosts/list_hosts_without_app", json!({})).await.1;
        assert_eq!(found["count"], hosts, "{tenant}");
    }
}

/// With racks 1 and 2, each linked to the server of the same number: instances 3 and 4.
async fn with_servers(pool: PgPool) -> TestApp {
    let app = with_values(pool, &[json!(1), json!(2)]).await;
    create(&app, "0", "server").await;
    add(&app, "server", &[json!({"bk_inst_name": "a"}), json!({"bk_inst_name": "b"})]).await;
    let association = json!({
        "bk_obj_asst_id": "rack_server", "bk_obj_asst_name": "", "bk_obj_id": "rack",
        "bk_asst_obj_id": "server", "bk_asst_id": "default", "mapping": "n:n",
    });
    assert_eq!(app.cmdb("0", "POST create/objectassociation", association).await.0, 0);
    let batch = json!({
        "bk_obj_id": "rack", "bk_asst_obj_id": "server", "bk_obj_asst_id": "rack_server",
        "details": [{"bk_inst_id": 1, "bk_asst_inst_id": 3}, {"bk_inst_id": 2, "bk_asst_inst_id": 4}],
    });
    assert_eq!(app.cmdb("0", "POST createmany/instassociation", batch).await.0, 0);
    app
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn instances_are_found_by_what_they_are_linked_to(pool: PgPool) {
    let app = with_servers(pool).await;
    let rule = |operator: &str, value: &str| json!([{"field": "bk_inst_name", "operator": operator, "value": value}]);
    for (condition, expected) in [
        (json!({"server": rule("$eq", "a")}), json!([1])),
        (json!({"server": rule("$regex", "a|b")}), json!([1, 2])),
        (json!({"server": rule("$eq", "b"), "rack": rule("$ne", "x")}), json!([2])),
        (json!({"server": rule("$eq", "x")}), Value::Null),
        (json!({"server": rule("$eq", "x"), "rack": rule("$ne", "x")}), json!([1, 2])),
        (json!({"rack": rule("$regex", "rack-.")}), json!([])),
        (json!({"rack": rule("$regex", "rack-")}), json!([1, 2])),
        (json!({"host": rule("$eq", "x"), "unknown": rule("$eq", "x")}), Value::Null),
        (json!({"server": null, "unknown": []}), json!([1, 2])),
    ] {
        let body = json!({"condition": condition, "fields": {"rack": ["bk_inst_id"]}});
        let (code, data) = app.cmdb("0", "POST find/instassociation/object/rack", body).await;
        assert_eq!(code, 0);
        let found = if data["info"].is_null() { Value::Null } else { json!(ids(&data["info"])) };
        assert_eq!(found, expected, "{condition}");
        assert_eq!(data["count"], ids(&data["info"]).len(), "{condition}");
    }
    let grant = "insert into cmdb.permission_grant (user_name, model_id, action)
        select 'viewer', id, 'view' from cmdb.model where key = 'rack'";
    sqlx::query(grant).execute(&app.pool).await.unwrap();
    for (condition, expected) in [
        (json!({"rack": rule("$eq", "rack-0")}), 0),
        (json!({"server": rule("$eq", "a")}), 9_900_403),
    ] {
        let body = json!({"condition": condition});
        let to = "POST find/instassociation/object/rack";
        assert_eq!(
            app.cmdb_as("viewer", "0", to, body.to_string()).await.0,
            expected,
            "{condition}"
        );
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn links_come_with_the_instances_at_their_ends(pool: PgPool) {
    let app = with_servers(pool).await;
    let to = "POST find/instassociation/object/rack/inst/detail";
    let find = async |user: &str, details: Value| {
        let rule = json!({"field": "bk_obj_id", "operator": "equal", "value": "rack"});
        let mut condition = details;
        condition["asst_filter"] = json!({"condition": "AND", "rules": [rule]});
        condition["asst_fields"] = json!(["bk_inst_id"]);
        let body = json!({"condition": condition, "page": {"limit": 200, "sort": "-id"}});
        app.cmdb_as(user, "0", to, body.to_string()).await
    };
    let links = json!([{"bk_inst_id": 2}, {"bk_inst_id": 1}]);
    let (code, data) = find("admin", json!({})).await;
    assert_eq!((code, data), (0, json!({"association": links, "src": null, "dst": null})));
    let names = json!({
        "src_detail": true, "src_fields": ["v"], "dst_detail": true, "dst_fields": ["bk_inst_name"],
    });
    let (code, data) = find("admin", names.clone()).await;
    let (src, dst) =
        (json!([{"v": 2}, {"v": 1}]), json!([{"bk_inst_name": "b"}, {"bk_inst_name": "a"}]));
    assert_eq!((code, data), (0, json!({"association": links, "src": src, "dst": dst})));
    let grant = "insert into cmdb.permission_grant (user_name, model_id, action)
        select 'viewer', id, 'view' from cmdb.model where key = 'rack'";
    sqlx::query(grant).execute(&app.pool).await.unwrap();
    assert_eq!(find("viewer", json!({})).await.0, 0);
    assert_eq!(find("viewer", names).await.0, 9_900_403);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn keys_and_values_with_any_characters_are_found(pool: PgPool) {
    let app = TestApp::of_instances(pool).await;
    create(&app, "0", "rack").await;
    let odd = ["\"", "\\", "'", "$", "a\n\tb", "键", "@ == 1", "*"];
    let rack = |(n, odd): (usize, &&str)| json!({"bk_inst_name": n.to_string(), *odd: *odd});
    add(&app, "rack", &odd.iter().enumerate().map(rack).collect::<Vec<_>>()).await;
    for (id, odd) in (1..).zip(odd) {
        if !odd.starts_with('$') {
            assert_eq!(by_condition(&app, &json!({odd: odd})).await, [id], "{odd:?}");
            let filter = json!({"field": odd, "operator": "in", "value": [odd, "x"]});
            assert_eq!(by_filter(&app, &filter).await, [id], "{odd:?}");
        }
        let body = json!({"fields": [odd], "page": {"sort": format!("-{odd}"), "limit": 1}});
        if !odd.starts_with('$') {
            let found = app.cmdb("0", "POST inst/search/0/rack", body).await.1;
            assert_eq!(found["info"], json!([{odd: odd}]), "{odd:?}");
        }
    }
    for condition in [json!({"a\0": 1}), json!({"\"": "\0"}), json!({"x".repeat(2_000): 1})] {
        assert!(by_condition(&app, &condition).await.is_empty());
    }
    let body = json!({"fields": ["a\0"], "page": {"limit": 1}});
    let found = app.cmdb("0", "POST inst/search/0/rack", body).await.1;
    assert_eq!(found, json!({"count": odd.len(), "info": [{}]}));
    let rules = json!([{"field": "a\0", "start": "2026-01-31 18:00:00"}]);
    let body = json!({"time_condition": {"oper": "and", "rules": rules}});
    let found = app.cmdb("0", "POST find/instassociation/object/rack", body).await.1;
    assert_eq!(found["count"], 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn patterns_match_newlines_as_in_other_searches(pool: PgPool) {
    let app = with_values(pool, &[json!("a\nc"), json!("abc")]).await;
    for (pattern, expected) in
        [("a[^b]c", &[1][..]), ("a.c", &[2]), (r"a[\s\S]c", &[1, 2]), ("^c", &[]), ("c$", &[1, 2])]
    {
        let condition = json!({"v": {"$regex": pattern}});
        assert_eq!(by_condition(&app, &condition).await, expected, "{pattern}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn ten_thousand_values_are_found_by_the_index(pool: PgPool) {
    let app = with_values(pool, &[json!(7), json!("x")]).await;
    let values: Vec<_> = (0..9_999).map(Value::from).chain([json!("x")]).collect();
    assert_eq!(by_condition(&app, &json!({"v": {"$in": values}})).await, [1, 2]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn searches_that_are_too_large_are_refused(pool: PgPool) {
    let app = with_values(pool, &[json!(1)]).await;
    let search = "POST find/instassociation/object/rack";
    let rule = json!({"field": "v", "operator": "$eq", "value": 1});
    let models: serde_json::Map<_, _> = (0..21).map(|n| (format!("m{n}"), json!([rule]))).collect();
    let pattern = json!({"field": "v", "operator": "$regex", "value": "a"});
    let mut nested = json!({"field": "v", "operator": "equal", "value": 1});
    for _ in 0..50 {
        nested = json!({"field": "v", "operator": "filter_object", "value": nested});
    }
    let nested = json!({"conditions": nested, "page": {"limit": 1}});
    let keys: Vec<_> = (0..1_001).map(|n| n.to_string()).collect();
    let time =
        json!({"oper": "and", "rules": [{"field": "v", "end": "9999-12-31T23:59:59-01:00"}]});
    for (to, body, code) in [
        ("POST search/instances/object/rack", nested, 1_199_006),
        (search, json!({"fields": {"rack": keys}}), 1_199_998),
        (search, json!({"page": {"sort": keys[..21].join(",")}}), 1_199_998),
        (search, json!({"time_condition": time}), 1_199_000),
        (search, json!({"condition": models}), 1_199_998),
        (search, json!({"condition": {"rack": vec![rule; 501]}}), 1_199_998),
        (search, json!({"condition": {"rack": vec![pattern; 31]}}), 1_199_998),
        (search, json!({"page": {"limit": -1}}), 1_199_006),
        ("POST hosts/list_hosts_without_app", json!({"page": {"limit": 1_001}}), 1_199_006),
        ("POST search/instances/object/rack", json!({"page": {"limit": 501}}), 1_199_006),
        ("POST search/instances/object/rack", json!({}), 1_199_006),
        ("POST search/instances/object/host", json!({"page": {"limit": 1}}), 1_199_084),
        ("POST inst/search/0/biz", json!({}), 1_199_084),
    ] {
        assert_eq!(app.cmdb("0", to, body.clone()).await.0, code, "{to} {body}");
    }
}

/// How many rows and index entries of documents have been read.
async fn entries_read(conn: &mut PgConnection) -> i64 {
    let read = "select seq_tup_read + (
            select sum(idx_tup_read)::bigint from pg_stat_user_indexes index
            where index.relid = documents.relid)
        from pg_stat_user_tables documents where relid = 'cmdb.instance_document'::regclass";
    sqlx::raw_sql("select pg_stat_force_next_flush()").execute(&mut *conn).await.unwrap();
    sqlx::query_scalar(read).fetch_one(conn).await.unwrap()
}

/// All documents have the same `bk_supplier_account`, and those of a model the same `bk_obj_id`.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn few_documents_are_read_to_find_a_value_whatever_the_statistics(pool: PgPool) {
    let database = server_database((*pool.connect_options()).clone());
    let mut conn = connect(&database, Purpose::Serve).await.unwrap();
    let model_id: i32 = sqlx::query_scalar("select id from cmdb.model where key = 'bk_switch'")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    for content in Content::ALL {
        content.apply(&mut conn).await;
        for (condition, found) in [
            (json!({"bk_inst_name": "5"}), 1),
            (json!({"bk_inst_name": "5", "bk_supplier_account": "0"}), 1),
            (json!({"bk_inst_name": {"$in": ["5", "7", 8, "none"]}, "bk_obj_id": "bk_switch"}), 2),
            (json!({"$or": [{"bk_inst_name": "5"}, {"bk_inst_name": "7"}]}), 2),
            (json!({"bk_inst_name": "5", "bk_supplier_account": {"$regex": "0"}}), 1),
            (json!({"bk_inst_id": {"$in": [5, 7]}, "bk_supplier_account": "0"}), 2),
            (json!({"bk_inst_name": {"$in": []}}), 0),
        ] {
            let selection = InstanceSelection {
                model_id,
                id_field: "bk_inst_id",
                tenant_ids: &[0],
                condition: &mongo::parse("condition", &condition.to_string()).unwrap(),
                ids: None,
            };
            let page = InstancePage { sort: &[], skip: 0, limit: Some(500) };
            let before = entries_read(&mut conn).await;
            let documents = search(&mut conn, selection, page, None).await.unwrap();
            let read = entries_read(&mut conn).await - before;
            let expected = if matches!(content, Content::Nothing) { 0 } else { found };
            assert_eq!(documents.len(), expected, "{condition}");
            assert!(read <= 2, "{condition}: {read} read");
        }
    }
}
