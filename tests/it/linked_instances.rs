//! `search_inst_asst_object_inst_base_info`: the instances of one model that an instance is linked
//! with.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::TestApp;
use crate::topology::{grant_view, leave_dangling, linked_app};

const PATH: &str = "/api/c/compapi/v2/cc/search_inst_asst_object_inst_base_info/";

fn search(model: &str, instance: i64, other: &str) -> Value {
    let condition =
        json!({"bk_obj_id": model, "bk_inst_id": instance, "association_obj_id": other});
    json!({ "condition": condition })
}

fn page(page: Value) -> Value {
    let mut body = search("bk_switch", 1, "host");
    body["page"] = page;
    body
}

async fn find(app: &TestApp, body: Value) -> Value {
    let reply = app.post_to(PATH, &[], body).await;
    assert_eq!(reply.json["code"], 0, "{}", reply.text);
    reply.json["data"].clone()
}

/// The ids of a page.
async fn ids(app: &TestApp, body: Value) -> Vec<i64> {
    let data = find(app, body).await;
    let rows = data["info"].as_array().into_iter().flatten();
    rows.map(|row| row["bk_inst_id"].as_i64().unwrap()).collect()
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn each_instance_stands_once_and_associations_are_counted(pool: PgPool) {
    let app = linked_app(pool).await;
    let reply = app.post_to(PATH, &[], search("bk_switch", 1, "host")).await;
    let expected = r#"{"count":4,"info":[{"bk_inst_id":1,"bk_inst_name":"host-1"},{"bk_inst_id":2,"bk_inst_name":"host-2"},{"bk_inst_id":3,"bk_inst_name":"host-3"}]}"#;
    assert!(reply.text.ends_with(&format!("\"data\":{expected}}}")), "{}", reply.text);
    assert_eq!(
        find(&app, search("host", 9, "plat")).await,
        json!({"count": 1, "info": [{"bk_inst_id": 0, "bk_inst_name": "default area"}]})
    );
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_instance_is_the_source_or_the_target(pool: PgPool) {
    let app = linked_app(pool).await;
    let mut reverse = search("bk_switch", 1, "bk_switch");
    assert_eq!(ids(&app, reverse.clone()).await, [1, 2]);
    reverse["condition"]["is_target_object"] = json!(true);
    assert_eq!(ids(&app, reverse).await, [1, 3]);
    let mut host = search("host", 3, "bk_switch");
    assert_eq!(find(&app, host.clone()).await, json!({"count": 0, "info": null}));
    host["condition"]["is_target_object"] = json!(true);
    assert_eq!(
        find(&app, host).await,
        json!({"count": 2, "info": [{"bk_inst_id": 1, "bk_inst_name": "bk_switch-1"}]})
    );
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn unknown_models_and_instances_have_none(pool: PgPool) {
    let app = linked_app(pool).await;
    for (model, instance, other) in [
        ("unknown", 1, "host"),
        ("bk_switch", 1, "unknown"),
        ("bk_switch", 1, "a\0b"),
        ("bk_switch", 999, "host"),
        ("bk_switch", -1, "host"),
        ("bk_switch", 1, "plat"),
    ] {
        let found = find(&app, search(model, instance, other)).await;
        assert_eq!(found, json!({"count": 0, "info": null}), "{model} {instance} {other}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_page_is_cut_from_the_sorted_associations(pool: PgPool) {
    let app = linked_app(pool).await;
    // The associations 1, 2, 4, 6 lead to the hosts 1, 3, 3, 2; 4 is of the kind `connect`.
    for (wanted, expected) in [
        (json!({"limit": 2}), &[1, 3][..]),
        (json!({"start": 1, "limit": 2}), &[3]),
        (json!({"start": 3, "limit": 1000}), &[2]),
        (json!({"start": 4}), &[]),
        (json!({"start": 2, "limit": 999_999_999}), &[2, 3]),
        (json!({"limit": 1, "sort": "-id"}), &[2]),
        (json!({"limit": 1, "sort": "id:-1"}), &[2]),
        (json!({"limit": 2, "sort": "bk_asst_inst_id"}), &[1, 2]),
        (json!({"limit": 2, "sort": "-bk_asst_inst_id"}), &[3]),
        (json!({"limit": 1, "sort": "bk_asst_id"}), &[3]),
        (json!({"limit": 3, "sort": "-bk_asst_id"}), &[1, 2, 3]),
        (json!({"limit": 1, "sort": "bk_obj_asst_id,-bk_asst_inst_id"}), &[3]),
        (json!({"start": 1, "limit": 1, "sort": "bk_obj_asst_id,-bk_asst_inst_id"}), &[3]),
        (json!({"start": 2, "limit": 1, "sort": "bk_obj_asst_id,-bk_asst_inst_id"}), &[2]),
        (json!({"limit": 1, "sort": "-bk_asst_id,-id"}), &[2]),
        // The same for all of them.
        (json!({"limit": 1, "sort": "-bk_inst_id,-bk_obj_id,-unknown"}), &[1]),
    ] {
        let body = page(wanted.clone());
        assert_eq!(ids(&app, body.clone()).await, expected, "{wanted}");
        let found = find(&app, body).await;
        assert_eq!(found["count"], 4, "{wanted}");
        assert_eq!(found["info"].is_null(), expected.is_empty(), "{wanted}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_association_whose_other_instance_is_gone_counts_only(pool: PgPool) {
    let app = linked_app(pool).await;
    leave_dangling(&app, "host", 1..=1).await;
    assert_eq!(ids(&app, search("bk_switch", 1, "host")).await, [2, 3]);
    let found = find(&app, page(json!({"limit": 1}))).await;
    assert_eq!(found, json!({"count": 4, "info": null}));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_search_is_refused_for_its_first_error(pool: PgPool) {
    let app = linked_app(pool).await;
    let without = |name: &str| {
        let mut body = page(json!({"limit": -1}));
        body["condition"].as_object_mut().unwrap().remove(name);
        body
    };
    let mut text_id = search("bk_switch", 1, "host");
    text_id["condition"]["bk_inst_id"] = json!("1");
    let mut text_flag = search("bk_switch", 1, "host");
    text_flag["condition"]["is_target_object"] = json!("x");
    let unassigned = |field: &str| (1_199_010, format!("'{field}' unassigned"));
    let invalid =
        |field: &str| (1_199_006, format!("'{field}' data parameter verification does not pass"));
    let wrong_type = |at: &str| (1_199_000, format!("Deserializing JSON data failed: {at}"));
    let too_large = (1_199_059, "page limit is exceeded. suggestion 200".to_owned());
    let no_field = "Unknown or unrecognized error: page.sort: a field without a name".to_owned();
    for ((code, message), body) in [
        (wrong_type("condition.bk_inst_id: expected an integer, got a string"), text_id),
        (wrong_type("condition.is_target_object: expected a boolean, got a string"), text_flag),
        (unassigned("bk_obj_id"), json!({})),
        (unassigned("bk_obj_id"), without("bk_obj_id")),
        (unassigned("bk_inst_id"), without("bk_inst_id")),
        (unassigned("bk_inst_id"), search("bk_switch", 0, "host")),
        (unassigned("association_obj_id"), without("association_obj_id")),
        (invalid("page.limit"), page(json!({"limit": -1, "start": -1}))),
        (too_large, page(json!({"limit": 1001}))),
        (invalid("page.start"), page(json!({"limit": 1, "start": -1}))),
        ((1_199_998, no_field), page(json!({"sort": "-"}))),
    ] {
        app.post_to(PATH, &[], body).await.assert_refused(200, code, &message);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_tenant_sees_only_its_own_associations(pool: PgPool) {
    let app = linked_app(pool).await;
    let of_tenant = |model: &str, instance: i64, other: &str| {
        let mut body = search(model, instance, other);
        body["bk_supplier_account"] = json!("tenant");
        body
    };
    let none = json!({"count": 0, "info": null});
    assert_eq!(find(&app, of_tenant("host", 9, "plat")).await, none);
    let mut link = crate::app::batch("host_belong_plat", &[(8, 0)]);
    link["bk_supplier_account"] = json!("tenant");
    assert_eq!(app.post(link).await.json["code"], 0);
    assert_eq!(ids(&app, of_tenant("host", 8, "plat")).await, [0]);
    assert_eq!(find(&app, of_tenant("host", 9, "plat")).await, none);
    assert_eq!(find(&app, search("host", 8, "plat")).await, none);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_search_takes_grants_to_view_both_models(pool: PgPool) {
    let app = linked_app(pool).await;
    grant_view(&app, "views both", &["bk_switch", "host"]).await;
    grant_view(&app, "views switches", &["bk_switch"]).await;
    let missing = async |user: &str, other: &str| {
        let mut body = search("bk_switch", 1, other);
        body["bk_username"] = json!(user);
        let reply = app.post_to(PATH, &[], body).await;
        let actions = reply.json["permission"]["actions"].as_array().cloned().unwrap_or_default();
        actions.into_iter().map(|action| action["id"].clone()).collect::<Value>()
    };
    let switch = app.count("select number from cmdb.model where key = 'bk_switch'").await;
    let switch = format!("view_comobj_{switch}");
    let host = "view_resource_pool_host";
    assert_eq!(missing("views both", "host").await, json!([]));
    assert_eq!(missing("views switches", "host").await, json!([host]));
    assert_eq!(missing("nobody", "host").await, json!([switch, host]));
    assert_eq!(missing("nobody", "unknown").await, json!([switch]));
}

/// Links switch 50 with 12,000 hosts, with the first 100 of them twice.
async fn link_many(app: &TestApp) {
    for sql in [
        "insert into cmdb.instance (model_id, instance_id)
         select id, n from cmdb.model, generate_series(1001, 13000) n
         where key = 'host'",
        "insert into cmdb.instance_association (model_association_id, source_id, target_id)
         select id, 50, number from cmdb.model_association, generate_series(1001, 13000) number
         where key = 'bk_switch_default_host'
         order by number desc",
        "insert into cmdb.instance_association (model_association_id, source_id, target_id)
         select id, 50, number from cmdb.model_association, generate_series(1001, 1100) number
         where key = 'bk_switch_connect_host'",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn all_instances_are_sent_page_by_page_and_complete(pool: PgPool) {
    let app = linked_app(pool).await;
    link_many(&app).await;
    for (instance, gone) in [(6_500, 1), (1_001, 2), (13_000, 3)] {
        leave_dangling(&app, "host", instance..=instance).await;
        let mut body = search("bk_switch", 50, "host");
        body["page"] = json!({"limit": 999_999_999});
        let found = find(&app, body.clone()).await;
        assert_eq!(found["count"], 12_100);
        let found = ids(&app, body.clone()).await;
        assert!(found.is_sorted_by(|one, next| one < next));
        assert_eq!(found.len(), 12_000 - gone);
        // The skipped associations are those with the lowest ids: to the last 5,000 hosts.
        body["page"]["start"] = json!(5_000);
        let found = ids(&app, body).await;
        assert!(found.is_sorted_by(|one, next| one < next));
        assert_eq!((found.len(), found.last()), (7_000 - gone.min(2), Some(&8_000)));
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn more_than_5_000_missing_instances_do_not_end_the_list(pool: PgPool) {
    let app = linked_app(pool).await;
    link_many(&app).await;
    let mut tx = app.pool.begin().await.unwrap();
    for sql in [
        "set local session_replication_role = replica",
        "delete from cmdb.instance where instance_id between 1001 and 7000",
    ] {
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut body = search("bk_switch", 50, "host");
    body["page"] = json!({"limit": 999_999_999});
    let found = ids(&app, body).await;
    assert_eq!((found.len(), found.first(), found.last()), (6_000, Some(&7_001), Some(&13_000)));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_page_whose_instances_are_all_gone_does_not_end_the_list(pool: PgPool) {
    let app = linked_app(pool).await;
    link_many(&app).await;
    let mut body = search("bk_switch", 50, "host");
    body["page"] = json!({"limit": 999_999_999});
    leave_dangling(&app, "host", 1_001..=6_999).await;
    assert_eq!(ids(&app, body.clone()).await, (7_000..=13_000).collect::<Vec<_>>());
    leave_dangling(&app, "host", 7_000..=13_000).await;
    assert_eq!(find(&app, body).await, json!({"count": 12_100, "info": null}));
}
