//! How much an application may ask for, and which APIs and tenants it may call for.

use std::num::NonZeroU32;

use cmdb_associations::http::Trust;
use cmdb_associations::service::limit::Limiter;
use serde_json::json;
use sqlx::PgPool;

use crate::app::{TestApp, batch};
use crate::binary::Program;

const FORBIDDEN: &str = "APP permission is insufficient, APP has no permission to access the component (batch_create_instance_association) of the system (CC).";

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn an_application_may_be_limited_to_some_apis(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let program = Program::on(&app.pool);
    let send = async |n: i64| app.post(batch("bk_switch_connect_host", &[(n, n)])).await;
    assert_eq!(program.run(&["app", "limit", "esb_test", "--api", "something_else"]).status, 0);
    send(1).await.assert_refused(200, 1_306_403, FORBIDDEN);
    // Before the fields are looked at.
    app.post(json!({"details": 7})).await.assert_refused(200, 1_306_403, FORBIDDEN);
    let both = [
        "app",
        "limit",
        "esb_test",
        "--api",
        "something_else",
        "--api",
        "batch_create_instance_association",
    ];
    assert_eq!(program.run(&both).status, 0);
    assert_eq!(send(1).await.ids().len(), 1);
    let listed = program.run(&["app", "list"]).stdout;
    assert!(listed.contains("something_else,batch_create_instance_association\t*"), "{listed}");
    assert_eq!(program.run(&["app", "limit", "esb_test"]).status, 0);
    assert_eq!(send(2).await.ids().len(), 1);
    assert_eq!(program.run(&["app", "limit", "nobody"]).status, 2);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn an_application_may_be_limited_to_some_tenants(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let program = Program::on(&app.pool);
    assert_eq!(program.run(&["app", "limit", "esb_test", "--account", "tenant"]).status, 0);
    let mut body = batch("bk_switch_connect_host", &[(1, 1)]);
    app.post(body.clone()).await.assert_refused(200, 1_306_403, FORBIDDEN);
    body["bk_supplier_account"] = json!("other");
    app.post(body.clone()).await.assert_refused(200, 1_306_403, FORBIDDEN);
    body["bk_supplier_account"] = json!("tenant");
    assert_eq!(app.post(body).await.ids().len(), 1);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn the_rate_limit_counts_details_and_a_refused_request_as_one(pool: PgPool) {
    let limit = NonZeroU32::new(1).unwrap(); // a detail a second, and a full request at once
    let app = TestApp::with(pool, Trust::default(), |service| {
        service.limiter = Some(Limiter::new(limit));
    })
    .await;
    let details = |n: i64| (1..=n).map(|n| (n, n)).collect::<Vec<_>>();
    // 3 refused requests, each of 150 details, are 3.
    let mut refused = batch("bk_switch_connect_host", &details(150));
    refused["bk_obj_asst_id"] = json!("bk_switch_belong_host");
    for _ in 0..3 {
        app.post(refused.clone()).await.assert_refused(
            200,
            1_101_046,
            "object association does not exist.",
        );
    }
    assert_eq!(app.post(batch("bk_switch_connect_host", &details(190))).await.ids().len(), 190);
    let message = "Access frequency limit, Access frequency of APP [esb_test] exceeds the limit; the frequency limit is [1 details per second], please try again later";
    let reply = app.post(batch("bk_switch_default_host", &details(150))).await;
    reply.assert_refused(429, 1_306_429, message);
    let wait: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((100..=150).contains(&wait), "{wait}");
    assert_eq!(reply.headers["ratelimit-policy"], "\"details\";q=1;w=1");
    assert_eq!(reply.headers["ratelimit"], format!("\"details\";r=0;t={wait}").as_str());
    assert_eq!(app.count("select count(*) from instance_association").await, 190);
    // What is wrong with the fields is said first.
    app.post(json!({"bk_obj_id": 7})).await.assert_refused(
        200,
        1_199_000,
        "Deserializing JSON data failed: bk_obj_id: expected a string, got an integer",
    );
}
