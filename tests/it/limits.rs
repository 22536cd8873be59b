//! The limits of callers: the rate, and the APIs and tenants of an application.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use cmdb_associations::domain::permission::Authorization;
use cmdb_associations::http::ClientAddr;
use cmdb_associations::service::limit::Limiter;
use serde_json::json;
use sqlx::PgPool;

use crate::app::{TestApp, batch};
use crate::binary::Program;

const FORBIDDEN: &str = "APP permission is insufficient, APP has no permission to access the component (batch_create_instance_association) of the system (CC).";

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_application_limited_to_some_apis_is_refused_at_others(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let program = Program::on(&app.pool);
    let send = async |n: i64| app.post(batch("bk_switch_connect_host", &[(n, n)])).await;
    assert_eq!(
        program.run(&["app", "limit", "esb_test", "--api", "search_related_inst_asso"]).status,
        0
    );
    send(1).await.assert_refused(200, 1_306_403, FORBIDDEN);
    // The limit is checked before the types of the body.
    app.post(json!({"details": 7})).await.assert_refused(200, 1_306_403, FORBIDDEN);
    let both = [
        "app",
        "limit",
        "esb_test",
        "--api",
        "search_related_inst_asso",
        "--api",
        "batch_create_instance_association",
    ];
    assert_eq!(program.run(&both).status, 0);
    assert_eq!(send(1).await.ids().len(), 1);
    let listed = program.run(&["app", "list"]).stdout;
    assert!(
        listed.contains("search_related_inst_asso,batch_create_instance_association\t*"),
        "{listed}"
    );
    // Each limit is lifted on its own.
    assert_eq!(program.run(&["app", "limit", "esb_test", "--tenant", "tenant"]).status, 0);
    let listed = program.run(&["app", "list"]).stdout;
    assert!(
        listed.contains("search_related_inst_asso,batch_create_instance_association\ttenant"),
        "{listed}"
    );
    send(2).await.assert_refused(200, 1_306_403, FORBIDDEN);
    assert_eq!(program.run(&["app", "limit", "esb_test", "--all-tenants"]).status, 0);
    assert_eq!(send(2).await.ids().len(), 1);
    assert_eq!(program.run(&["app", "limit", "esb_test", "--all-apis"]).status, 0);
    assert!(
        program
            .run(&["app", "list"])
            .stdout
            .contains("esb_test\tenabled\ttrusts-username\t1\t*\t*")
    );
    assert_eq!(program.run(&["app", "limit", "nobody"]).status, 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_application_limited_to_some_tenants_is_refused_for_others(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let program = Program::on(&app.pool);
    assert_eq!(program.run(&["app", "limit", "esb_test", "--tenant", "tenant"]).status, 0);
    let mut body = batch("bk_switch_connect_host", &[(1, 1)]);
    app.post(body.clone()).await.assert_refused(200, 1_306_403, FORBIDDEN);
    body["bk_supplier_account"] = json!("other");
    app.post(body.clone()).await.assert_refused(200, 1_306_403, FORBIDDEN);
    // The tenant has no switch, so the request is allowed, but creates nothing.
    body["bk_supplier_account"] = json!("tenant");
    assert_eq!(app.post(body).await.json["code"], 0);
}

/// A server with a rate limit of one detail a second, and a burst of 500.
async fn rate_limited_app(pool: PgPool) -> TestApp {
    let limit = NonZeroU32::new(1).unwrap();
    TestApp::with(pool, |setup| setup.limiter = Some(Limiter::new(limit))).await
}

fn details(n: i64) -> Vec<(i64, i64)> {
    (1..=n).map(|n| (n, n)).collect()
}

const WRONG_TYPE: &str =
    "Deserializing JSON data failed: bk_obj_id: expected a string, got an integer";

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_is_charged_its_details_or_one_when_refused_before_the_rate_limit(pool: PgPool) {
    let app = rate_limited_app(pool).await;
    // Refused before the rate limit, by an application that is verified: 1 each.
    for _ in 0..4 {
        app.post(json!({"bk_obj_id": 7})).await.assert_refused(200, 1_199_000, WRONG_TYPE);
    }
    let without_user = r#"{"bk_app_code":"esb_test","bk_app_secret":"xxx"}"#;
    assert_eq!(app.post_raw(without_user).await.json["code"], 1_306_000);
    // Not charged: the application is not verified.
    let not_proven = r#"{"bk_app_code":"esb_test","bk_app_secret":"wrong"}"#;
    for _ in 0..50 {
        assert_eq!(app.post_raw(not_proven).await.json["code"], 1_306_000);
    }
    // Refused after the rate limit: all of its details.
    for length in [190, 100] {
        let mut refused = batch("bk_switch_connect_host", &details(length));
        refused["bk_obj_asst_id"] = json!("bk_switch_belong_host");
        let unknown = "object association does not exist.";
        app.post(refused).await.assert_refused(200, 1_101_046, unknown);
    }
    assert_eq!(app.post(batch("bk_switch_connect_host", &details(200))).await.ids().len(), 200);

    let message = "Access frequency limit, Access frequency of APP [esb_test] exceeds the limit; the frequency limit is [1 details per second], please try again later";
    let reply = app.post(batch("bk_switch_default_host", &details(150))).await;
    reply.assert_refused(429, 1_306_429, message);
    let number = |name: &str, start: &str| -> u64 {
        let text = reply.headers[name].to_str().unwrap();
        let rest = text.split(start).nth(1).unwrap();
        rest.split(';').next().unwrap().parse().unwrap()
    };
    // 5 of 500 are left, and one more for each second that has passed.
    let (left, wait) = (number("ratelimit", "r="), number("ratelimit", "t="));
    assert!((5..50).contains(&left) && left + wait >= 149 && left + wait <= 151, "{left} {wait}");
    assert_eq!(reply.headers["retry-after"], wait.to_string().as_str());
    assert_eq!(reply.headers["ratelimit-policy"], "\"details\";q=500;w=500");
    // A request over the limit costs nothing; the rest of the quota can be used.
    assert_eq!(app.post(batch("bk_switch_default_host", &details(5))).await.ids().len(), 5);
    // With nothing left to charge, a request still gets its own refusal.
    app.post(json!({"bk_obj_id": 7})).await.assert_refused(200, 1_199_000, WRONG_TYPE);
}

/// The older ESB names no application.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn callers_without_an_application_are_limited_by_peer_and_user(pool: PgPool) {
    let limit = NonZeroU32::new(1).unwrap();
    let app = TestApp::with(pool, |setup| {
        setup.limiter = Some(Limiter::new(limit));
        setup.authorization = Authorization::Off;
        setup.authenticator.trusted_peers = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    let send = async |peer: &str, user: &str, app_code: Option<&str>| {
        let body = batch("bk_switch_default_host", &details(200));
        let mut request =
            Request::post("/api/v3/createmany/instassociation").header("bk_user", user);
        if let Some(code) = app_code {
            request = request.header("bk-app-code", code);
        }
        let mut request = request.body(Body::from(body.to_string())).unwrap();
        request.extensions_mut().insert(ClientAddr(peer.parse::<IpAddr>().unwrap()));
        app.send(request).await
    };
    for (peer, user, app_code) in [
        ("10.0.0.1", "one", None),
        ("10.0.0.1", "two", None),
        ("10.0.0.2", "one", None),
        ("10.0.0.1", "one", Some("esb")),
    ] {
        // The burst is 500.
        for status in [200, 200, 429] {
            let reply = send(peer, user, app_code).await;
            assert_eq!(reply.status, status, "{peer} {user} {app_code:?}: {}", reply.text);
        }
    }
    let message = "Access frequency limit, Access frequency of the user exceeds the limit; the frequency limit is [1 details per second], please try again later";
    assert_eq!(send("10.0.0.2", "one", None).await.json["bk_error_msg"], message);
}

/// What an earlier request was authorized on has changed, so the request is run twice.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_is_charged_once_when_its_cached_state_is_stale(pool: PgPool) {
    let app = rate_limited_app(pool).await;
    let send = async |source: i64, length: i64| {
        let pairs: Vec<_> = (1..=length).map(|target| (source, target)).collect();
        app.post(batch("bk_switch_default_host", &pairs)).await
    };
    assert_eq!(send(1, 10).await.ids().len(), 10);
    sqlx::query("insert into cmdb.model (key, name) values ('rack', 'Rack')")
        .execute(&app.pool)
        .await
        .unwrap();
    assert_eq!(send(2, 200).await.ids().len(), 200);
    assert_eq!(send(3, 200).await.ids().len(), 200);
    assert_eq!(send(4, 90).await.ids().len(), 90);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_succeeds_after_the_time_of_retry_after(pool: PgPool) {
    let app = rate_limited_app(pool).await;
    for length in [200, 200, 100] {
        let batch = batch("bk_switch_connect_host", &details(length));
        assert_eq!(app.post(batch).await.json["code"], 0);
    }
    let two = batch("bk_switch_default_host", &details(2));
    let reply = app.post(two.clone()).await;
    let wait: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(app.post(two).await.ids().len(), 2);
}
