//! The topology of an instance, and model associations by kind.

use std::ops::RangeInclusive;

use axum::body::Body;
use axum::http::Request;
use cmdb_associations::http::ClientAddr;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{Reply, TestApp};
use crate::permissions::{grant, model, view};

const PATH: &str = "/api/c/compapi/v2/cc/search_inst_association_topo/";

/// The links of the tests, all of tenant "0": switch 1 with hosts 1, 2 and 3, with host 3 twice,
/// with itself and with switch 2; switch 3 with switch 1; host 9 with area 0.
const LINKS: &str = "
    insert into cmdb.instance (model_id, instance_id, name)
    select id, 0, 'default area' from cmdb.model where key = 'plat';
    insert into cmdb.instance_association (model_association_id, source_id, target_id)
    select association.id, source_id, target_id
    from (values (1, 'bk_switch_default_host', 1, 1), (2, 'bk_switch_default_host', 1, 3),
                 (3, 'bk_switch_default_bk_switch', 1, 2), (4, 'bk_switch_connect_host', 1, 3),
                 (5, 'bk_switch_default_bk_switch', 1, 1), (6, 'bk_switch_default_host', 1, 2),
                 (7, 'bk_switch_default_bk_switch', 3, 1), (8, 'host_belong_plat', 9, 0))
        link (position, key, source_id, target_id)
    join cmdb.model_association association using (key)
    order by position";

/// With these links, and with the CMDB API.
pub(crate) async fn linked_app(pool: PgPool) -> TestApp {
    let app = TestApp::with(pool, |setup| {
        setup.authenticator.trusted_peers = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    sqlx::raw_sql(LINKS).execute(&app.pool).await.unwrap();
    app
}

/// Deletes an instance under its links, which only a superuser can.
pub(crate) async fn leave_dangling(app: &TestApp, model: &str, instances: RangeInclusive<i64>) {
    let mut tx = app.pool.begin().await.unwrap();
    sqlx::query("set local session_replication_role = replica").execute(&mut *tx).await.unwrap();
    for sql in [
        "delete from cmdb.instance using cmdb.model
         where model.id = model_id and key = $1 and instance_id between $2 and $3",
        "delete from cmdb.instance_document using cmdb.model
         where model.id = model_id and key = $1 and instance_id between $2 and $3",
    ] {
        let deletion = sqlx::query(sql).bind(model).bind(instances.start()).bind(instances.end());
        deletion.execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
}

pub(crate) async fn grant_view(app: &TestApp, user: &str, models: &[&str]) {
    let scopes: Vec<_> = models.iter().map(|key| view(model(key))).collect();
    grant(app, user, &scopes).await;
}

async fn search(app: &TestApp, model: &str, instance: impl Into<Value>) -> Reply {
    let body = json!({"bk_obj_id": model, "bk_inst_id": instance.into()});
    app.post_to(PATH, &[], body).await
}

/// Of each group, the model, the count, and of each child the association and the instance.
fn outline(groups: &Value) -> Value {
    let child = |child: &Value| json!([child["asso_id"], child["bk_inst_id"]]);
    let group = |group: &Value| {
        let children: Vec<_> = group["children"].as_array().unwrap().iter().map(child).collect();
        json!([group["bk_obj_id"], group["count"], children])
    };
    groups.as_array().unwrap().iter().map(group).collect()
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn targets_are_grouped_by_model_with_a_child_for_each_association(pool: PgPool) {
    let app = linked_app(pool).await;
    let reply = search(&app, "bk_switch", 1).await;
    assert_eq!(
        outline(&reply.json["data"]),
        json!([["host", 4, [[1, 1], [2, 3], [4, 3], [6, 2]]], ["bk_switch", 2, [[3, 2], [5, 1]]],])
    );
    let reply = search(&app, "host", 9).await;
    let expected = r#"[{"id":"","bk_obj_id":"plat","bk_obj_icon":"icon-cc-subnet","bk_inst_id":0,"bk_obj_name":"Plat","bk_inst_name":"","asso_id":0,"count":1,"children":[{"id":"0","bk_obj_id":"plat","bk_obj_icon":"icon-cc-subnet","bk_inst_id":0,"bk_obj_name":"Plat","bk_inst_name":"default area","asso_id":8}]}]"#;
    assert!(reply.text.ends_with(&format!("\"data\":{expected}}}")), "{}", reply.text);
    // It is a target only.
    assert_eq!(search(&app, "host", 1).await.json["data"], json!([]));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn groups_are_in_the_order_of_the_ids_of_models_in_the_export(pool: PgPool) {
    let app = linked_app(pool).await;
    let number = "update cmdb.model set export_number = case key when 'host' then 70 else 7 end
                  where key in ('host', 'bk_switch')";
    sqlx::query(number).execute(&app.pool).await.unwrap();
    let reply = search(&app, "bk_switch", 1).await;
    let models: Vec<_> =
        reply.json["data"].as_array().unwrap().iter().map(|group| &group["bk_obj_id"]).collect();
    assert_eq!(models, ["bk_switch", "host"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_topology_is_refused_for_its_first_error(pool: PgPool) {
    let app = linked_app(pool).await;
    let not_an_integer = (
        1_199_998,
        "Unknown or unrecognized error: bk_inst_id is not an integer of 64 bits".to_owned(),
        "未知或未能识别的异常: bk_inst_id is not an integer of 64 bits".to_owned(),
    );
    let missing = |field: &str| {
        let english = format!("'{field}' the parameter is invalid or does not exist");
        (1_199_011, english, format!("'{field}' 参数无效或不存在"))
    };
    for ((code, english, chinese), model, instance) in [
        (not_an_integer.clone(), "unknown", json!("x")),
        (not_an_integer.clone(), "bk_switch", json!(1.5)),
        (not_an_integer, "bk_switch", json!("9223372036854775808")),
        (missing("bk_obj_id"), "unknown", json!(1)),
        (missing("bk_obj_id"), "", json!(1)),
        (missing("bk_obj_id"), "a\0b", json!(1)),
        (missing("bk_inst_id"), "bk_switch", json!(999)),
        (missing("bk_inst_id"), "bk_switch", json!("0")),
        (missing("bk_inst_id"), "bk_switch", json!(-1)),
        (missing("bk_host_id"), "host", json!(999)),
        (missing("id"), "bk_project", json!(1)),
        // It exists.
        (missing("bk_cloud_id"), "plat", json!(0)),
    ] {
        let body = json!({"bk_obj_id": model, "bk_inst_id": instance});
        let reply = app.post_to(PATH, &[("blueking-language", "en")], body.clone()).await;
        reply.assert_refused(200, code, &english);
        let reply = app.post_to(PATH, &[("blueking-language", "zh-cn")], body).await;
        reply.assert_refused(200, code, &chinese);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_names_of_the_models_of_the_original_are_in_the_language_of_the_caller(pool: PgPool) {
    let app = linked_app(pool).await;
    for sql in [
        "insert into cmdb.model (key, name) values ('rack', 'Rack der Stadt')",
        "insert into cmdb.instance (model_id, instance_id) select id, 1 from cmdb.model
         where key = 'rack'",
        "insert into cmdb.model_association
             (key, source_model_id, target_model_id, association_kind_id, mapping)
         select 'host_default_rack', source.id, target.id, 1, 'n:n'
         from cmdb.model source, cmdb.model target
         where source.key = 'host' and target.key = 'rack'",
        "insert into cmdb.instance_association (model_association_id, source_id, target_id)
         select id, 9, 1 from cmdb.model_association where key = 'host_default_rack'",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
    }
    for (language, names) in
        [("en", ["Plat", "Rack der Stadt"]), ("zh-cn", ["管控区域", "Rack der Stadt"])]
    {
        let body = json!({"bk_obj_id": "host", "bk_inst_id": 9});
        let reply = app.post_to(PATH, &[("blueking-language", language)], body).await;
        let groups = reply.json["data"].as_array().unwrap();
        let of_groups: Vec<_> = groups.iter().map(|group| &group["bk_obj_name"]).collect();
        let of_children: Vec<_> =
            groups.iter().map(|group| &group["children"][0]["bk_obj_name"]).collect();
        assert_eq!(of_groups, names);
        assert_eq!(of_children, names);
        // An instance without a name has an empty one.
        assert_eq!(groups[1]["children"][0]["bk_inst_name"], "");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_association_whose_target_is_gone_counts_but_has_no_child(pool: PgPool) {
    let app = linked_app(pool).await;
    leave_dangling(&app, "host", 3..=3).await;
    leave_dangling(&app, "plat", 0..=0).await;
    let reply = search(&app, "bk_switch", 1).await;
    assert_eq!(outline(&reply.json["data"])[0], json!(["host", 4, [[1, 1], [6, 2]]]));
    let reply = search(&app, "host", 9).await;
    assert_eq!(outline(&reply.json["data"]), json!([["plat", 1, []]]));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_tenant_sees_the_topology_of_its_own_associations(pool: PgPool) {
    let app = linked_app(pool).await;
    let of_tenant = async |model: &str, instance: i64| {
        let body = json!({
            "bk_obj_id": model, "bk_inst_id": instance, "bk_supplier_account": "tenant",
        });
        app.post_to(PATH, &[], body).await.json
    };
    // Before the tenant has anything.
    assert_eq!(of_tenant("host", 9).await["data"], json!([]));
    let mut link = crate::app::batch("host_belong_plat", &[(8, 0)]);
    link["bk_supplier_account"] = json!("tenant");
    assert_eq!(app.post(link).await.json["code"], 0);
    assert_eq!(of_tenant("host", 8).await["data"][0]["children"][0]["bk_inst_id"], 0);
    assert_eq!(of_tenant("host", 9).await["data"], json!([]));
    assert_eq!(search(&app, "host", 8).await.json["data"], json!([]));
    // Switches are not built in.
    assert_eq!(of_tenant("bk_switch", 1).await["code"], 1_199_011);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_topology_takes_grants_to_view_all_of_its_models(pool: PgPool) {
    let app = linked_app(pool).await;
    grant_view(&app, "views both", &["bk_switch", "host"]).await;
    grant_view(&app, "views switches", &["bk_switch"]).await;
    grant_view(&app, "views hosts", &["host"]).await;
    let numbers = async |user: &str, model: &str, instance: i64| {
        let body = json!({"bk_obj_id": model, "bk_inst_id": instance, "bk_username": user});
        let reply = app.post_to(PATH, &[], body).await;
        let actions = &reply.json["permission"]["actions"];
        let Some(actions) = actions.as_array() else { return reply.json["code"].clone() };
        assert_eq!(actions.len(), 1);
        assert_eq!(actions[0]["id"], "view_sys_model");
        let instances = &actions[0]["related_resource_types"][0]["instances"];
        instances.as_array().unwrap().iter().map(|path| path[0]["id"].clone()).collect()
    };
    let host = app.count("select id::bigint from cmdb.model where key = 'host'").await;
    let switch = app.count("select number from cmdb.model where key = 'bk_switch'").await;
    let [host, switch] = [host, switch].map(|id| id.to_string());
    assert_eq!(numbers("views both", "bk_switch", 1).await, json!(0));
    assert_eq!(numbers("views switches", "bk_switch", 1).await, json!([host]));
    assert_eq!(numbers("views hosts", "bk_switch", 1).await, json!([switch]));
    // The instance is not looked at before its model may be viewed.
    assert_eq!(numbers("nobody", "bk_switch", 1).await, json!([switch]));
    assert_eq!(numbers("nobody", "bk_switch", 999_999).await, json!([switch]));
    // Nothing is found, so the model of the instance is the only one.
    assert_eq!(numbers("views hosts", "host", 1).await, json!(0));
    assert_eq!(numbers("nobody", "host", 1).await, json!([host]));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_instance_with_more_than_10_000_associations_has_no_topology(pool: PgPool) {
    let app = linked_app(pool).await;
    for sql in [
        "insert into cmdb.instance (model_id, instance_id)
         select id, n from cmdb.model, generate_series(1001, 11001) n
         where key = 'host'",
        "insert into cmdb.instance_association (model_association_id, source_id, target_id)
         select id, 50, number from cmdb.model_association, generate_series(1001, 11000) number
         where key = 'bk_switch_default_host'",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
    }
    let reply = search(&app, "bk_switch", 50).await;
    assert_eq!(reply.json["data"][0]["count"], 10_000);
    assert_eq!(reply.json["data"][0]["children"].as_array().unwrap().len(), 10_000);
    let more = crate::app::batch("bk_switch_default_host", &[(50, 11_001)]);
    assert_eq!(app.post(more).await.ids().len(), 1);
    let reply = search(&app, "bk_switch", 50).await;
    let message = "Unknown or unrecognized error: the instance has more than 10000 associations \
                   in one direction";
    reply.assert_refused(200, 1_199_998, message);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_neighbors_of_an_instance_are_its_sources_and_its_targets(pool: PgPool) {
    let app = linked_app(pool).await;
    let path = |model: &str, instance: &str| {
        format!("/api/v3/find/instassttopo/object/{model}/inst/{instance}")
    };
    let reply = app.post_cmdb("admin", &path("bk_switch", "1"), &json!({})).await;
    let data = &reply.json["data"];
    assert_eq!(outline(&data[0]["prev"]), json!([["bk_switch", 2, [[5, 1], [7, 3]]]]));
    assert_eq!(
        outline(&data[0]["next"]),
        json!([["host", 4, [[1, 1], [2, 3], [4, 3], [6, 2]]], ["bk_switch", 2, [[3, 2], [5, 1]]],])
    );
    let curr = r#""curr":{"id":"1","bk_obj_id":"bk_switch","bk_obj_icon":"icon-cc-switch2","bk_inst_id":1,"bk_obj_name":"Switch","bk_inst_name":"bk_switch-1","asso_id":0}}]}"#;
    assert!(reply.text.ends_with(curr), "{}", reply.text);
    let reply = app.post_cmdb("admin", &path("host", "20"), &json!({})).await;
    assert_eq!(reply.json["data"][0]["prev"], json!([]));
    assert_eq!(reply.json["data"][0]["next"], json!([]));

    leave_dangling(&app, "bk_switch", 3..=3).await;
    let reply = app.post_cmdb("admin", &path("bk_switch", "1"), &json!({})).await;
    assert_eq!(outline(&reply.json["data"][0]["prev"]), json!([["bk_switch", 2, [[5, 1]]]]));
    for (model, instance, code) in
        [("bk_switch", "x", 1_199_998), ("unknown", "1", 1_199_011), ("host", "999", 1_199_011)]
    {
        let reply = app.post_cmdb("admin", &path(model, instance), &json!({})).await;
        assert_eq!(reply.json["bk_error_code"], code, "{model} {instance}");
    }
    // Its sources are switches.
    grant_view(&app, "views hosts", &["host"]).await;
    let reply = app.post_cmdb("views hosts", &path("host", "1"), &json!({})).await;
    assert_eq!(reply.json["bk_error_code"], 9_900_403);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn model_associations_are_found_and_counted_by_their_kinds(pool: PgPool) {
    let app = linked_app(pool).await;
    let body = json!({"asst_ids": ["default", "unknown", "connect", "a\0b", "bk_mainline"]});
    let find = async |user: &str| {
        let reply = app.post_cmdb(user, "/api/v3/find/topoassociationtype", &body).await;
        let kind = |kind: &Value| {
            let keys = kind["assts"].as_array().unwrap().iter().map(|one| &one["bk_obj_asst_id"]);
            json!([kind["bk_asst_id"], keys.collect::<Vec<_>>()])
        };
        let kinds = reply.json["data"]["associations"].as_array().unwrap();
        kinds.iter().map(kind).collect::<Value>()
    };
    let count = async |user: &str| {
        let reply = app.post_cmdb(user, "/api/v3/count/topoassociationtype", &body).await;
        let kinds = reply.json["data"]["associations"].as_array().unwrap();
        kinds.iter().map(|kind| kind["count"].clone()).collect::<Value>()
    };
    // Kinds are in the order of their first model associations, counts in that of the request.
    let default: Vec<String> = sqlx::query_scalar(
        "select key from cmdb.model_association where key like 'bk_switch_default_%' order by id",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert_eq!(
        find("admin").await,
        json!([["connect", ["bk_switch_connect_host"]], ["default", default]])
    );
    assert_eq!(count("admin").await, json!([2, 0, 1, 0, 0]));
    // Who may view an end sees the model association.
    grant_view(&app, "views hosts", &["host"]).await;
    assert_eq!(
        find("views hosts").await,
        json!([["connect", ["bk_switch_connect_host"]], ["default", ["bk_switch_default_host"]]])
    );
    assert_eq!(count("views hosts").await, json!([1, 0, 1, 0, 0]));
    assert_eq!(find("nobody").await, json!([]));
    assert_eq!(count("nobody").await, json!([0, 0, 0, 0, 0]));

    let reply = app.post_cmdb("admin", "/api/v3/find/topoassociationtype", &body).await;
    let kinds = &reply.json["data"]["associations"];
    assert_eq!(
        kinds[0]["assts"],
        json!([{
            "id": 5,
            "bk_supplier_account": "0",
            "bk_obj_asst_id": "bk_switch_connect_host",
            "bk_obj_asst_name": "",
            "bk_obj_id": "bk_switch",
            "bk_asst_obj_id": "host",
            "bk_asst_id": "connect",
            "mapping": "1:n",
            "on_delete": "none",
            "ispre": false,
        }])
    );
    for path in ["/api/v3/find/topoassociationtype", "/api/v3/count/topoassociationtype"] {
        let reply = app.post_cmdb("admin", path, &json!({})).await;
        assert_eq!(reply.json["data"], json!({"associations": []}));
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_kinds_of_another_tenant_have_no_model_associations(pool: PgPool) {
    let app = linked_app(pool).await;
    let hide = "with other as (insert into cmdb.tenant (key) values ('other') returning id),
                kind as (
                    insert into cmdb.association_kind (key, name, tenant_id)
                    select 'power', 'power', id from other returning id, tenant_id)
                insert into cmdb.model_association (tenant_id, key, source_model_id,
                    target_model_id, association_kind_id, mapping)
                select kind.tenant_id, 'host_power_host', model.id, model.id, kind.id, 'n:n'
                from kind, cmdb.model where model.key = 'host'";
    sqlx::query(hide).execute(&app.pool).await.unwrap();
    for (tenant, count) in [("0", 0), ("other", 1), ("third", 0)] {
        let mut request = Request::post("/api/v3/count/topoassociationtype")
            .header("bk_user", "admin")
            .header("http_bk_supplier_account", tenant)
            .body(Body::from(json!({"asst_ids": ["power"]}).to_string()))
            .unwrap();
        request.extensions_mut().insert(ClientAddr("10.1.2.3".parse().unwrap()));
        let reply = app.send(request).await;
        assert_eq!(reply.json["data"]["associations"][0]["count"], count, "{tenant}");
    }
}
