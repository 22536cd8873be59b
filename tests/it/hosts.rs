//! Hosts: they are created by addresses in cloud areas.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{TestApp, assert_sound};

/// Creates hosts of a tenant. Returns the code and the data.
async fn add(app: &TestApp, tenant: &str, hosts: &[Value]) -> (i64, Value) {
    app.cmdb(tenant, "POST hosts/add/resource", json!({"host_info": hosts})).await
}

fn host(address: &str) -> Value {
    json!({"bk_host_innerip": address, "bk_cloud_id": 0})
}

/// Changes a host. Returns the code.
async fn update(app: &TestApp, id: i64, change: Value) -> i64 {
    app.cmdb("0", &format!("PUT update/instance/object/host/inst/{id}"), change).await.0
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_new_host_has_what_was_sent_and_an_id_of_its_own(pool: PgPool) {
    let app = TestApp::of_instances(pool).await;
    let sent = json!({"bk_host_innerip": "10.0.0.1, 10.0.0.2", "bk_cloud_id": 0, "os": "linux"});
    let (code, data) = add(&app, "0", &[sent]).await;
    assert_eq!((code, data), (0, json!({"success": [{"index": 0, "bk_host_id": 1}]})));
    let mut stored = app.json("select document from cmdb.instance_document").await;
    stored
        .as_object_mut()
        .unwrap()
        .retain(|key, _| !key.ends_with("_time") && !key.ends_with("_at"));
    let expected = json!({
        "bk_host_id": 1, "bk_host_innerip": "10.0.0.1,10.0.0.2", "bk_cloud_id": 0, "os": "linux",
        "bk_supplier_account": "0", "bk_created_by": "admin", "bk_updated_by": null,
    });
    assert_eq!(stored, expected);
    assert_eq!(app.json("select to_json(name) from cmdb.instance").await, "10.0.0.1,10.0.0.2");
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn refused_hosts_have_a_reason_and_the_others_are_created(pool: PgPool) {
    let app = TestApp::of_instances(pool).await;
    let (code, data) = add(
        &app,
        "0",
        &[
            host("10.0.0.1"),
            host("10.0.0.1"),
            host("10.0.0"),
            json!({"bk_host_innerip": "10.0.0.2"}),
            json!({"bk_host_innerip": "10.0.0.2", "bk_cloud_id": 7}),
            json!({"bk_host_innerip": "10.0.0.2", "bk_cloud_id": "0"}),
            json!({"bk_cloud_id": 0}),
            Value::Null,
            json!({"bk_host_innerip_v6": "::1", "bk_host_innerip": "", "bk_cloud_id": 0}),
            json!({"bk_host_innerip_v6": "0:0::1", "bk_cloud_id": 0}),
            json!({"bk_host_innerip_v6": "x", "bk_cloud_id": 0}),
        ],
    )
    .await;
    assert_eq!(code, 1_110_004);
    let created = json!([{"index": 0, "bk_host_id": 1}, {"index": 8, "bk_host_id": 2}]);
    assert_eq!(data["success"], created);
    let reasons = data["error"].as_array().unwrap().iter();
    let reasons: Vec<_> = reasons
        .map(|one| (one["index"].as_u64().unwrap(), one["error_message"].as_str().unwrap()))
        .collect();
    let taken = |address: &str| {
        let shown = format!(" bk_host_innerip: \"{address}\", bk_cloud_id: 0 ");
        format!("duplicated instances exist, fields [{shown}] duplicated")
    };
    let expected = [
        (1, taken("10.0.0.1")),
        (
            2,
            "''内网IPv4' Field regular check failed' the parameter is invalid or does not exist"
                .to_owned(),
        ),
        (3, "'bk_cloud_id' unassigned".to_owned()),
        (4, "4 line 10.0.0.2 new failed bk-network area does not exist".to_owned()),
        (5, "'bk_cloud_id' data parameter verification does not pass".to_owned()),
        (6, "'bk_host_innerip' unassigned".to_owned()),
        (7, "'bk_host_innerip' unassigned".to_owned()),
        (9, taken("::1")),
        (
            10,
            "''内网IPv6' Field regular check failed' the parameter is invalid or does not exist"
                .to_owned(),
        ),
    ];
    let expected: Vec<_> = expected.iter().map(|(index, text)| (*index, text.as_str())).collect();
    assert_eq!(reasons, expected);
    let (code, data) = add(&app, "0", &[]).await;
    assert_eq!((code, data), (1_199_010, Value::Null));
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_address_is_unique_in_its_cloud_area_and_tenant(pool: PgPool) {
    let app = TestApp::of_instances(pool).await;
    let area = "insert into cmdb.instance (model_id, instance_id, name)
        select id, 7, 'area' from cmdb.model where key = 'plat'";
    sqlx::query(area).execute(&app.pool).await.unwrap();
    let in_area = json!({"bk_host_innerip": "10.0.0.1", "bk_cloud_id": 7});
    assert_eq!(add(&app, "0", &[host("10.0.0.1"), in_area, host("10.0.0.2")]).await.0, 0);
    assert_eq!(add(&app, "X", &[host("10.0.0.1")]).await.0, 0);
    for (id, change, code) in [
        (1, json!({"bk_cloud_id": 7}), 1_199_014),
        (2, json!({"bk_cloud_id": 0}), 1_199_014),
        (3, json!({"bk_host_innerip": "10.0.0.1"}), 1_199_014),
        (3, json!({"bk_host_innerip": "10.0.0.1", "bk_cloud_id": 8}), 1_199_006),
        (3, json!({"bk_host_innerip": "x"}), 1_199_011),
        (3, json!({"bk_cloud_id": 7}), 0),
        (1, json!({"bk_host_innerip": "10.0.0.2", "bk_host_name": "renamed"}), 0),
        (1, json!({"bk_host_innerip": "10.0.0.2"}), 0),
        (4, json!({"bk_host_name": "of tenant X"}), 1_199_019),
    ] {
        assert_eq!(update(&app, id, change.clone()).await, code, "{id} {change}");
    }
    assert_eq!(add(&app, "0", &[host("10.0.0.1")]).await.0, 0);
    assert_sound(&app.pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn hosts_are_created_by_who_may_create_hosts(pool: PgPool) {
    let app = TestApp::of_instances(pool).await;
    let grant = "insert into cmdb.permission_grant (user_name, model_id, action)
        select 'creator', id, 'create' from cmdb.model where key = 'host'";
    sqlx::query(grant).execute(&app.pool).await.unwrap();
    let body = json!({"host_info": [host("10.0.0.1")]}).to_string();
    let to = "POST hosts/add/resource";
    assert_eq!(app.cmdb_as("creator", "0", to, body.clone()).await.0, 0);
    assert_eq!(app.cmdb_as("nobody", "0", to, body).await.0, 9_900_403);
}
