//! Application and user credentials, in the body and in `X-Bkapi-Authorization`.

use axum::http::Request;
use cmdb_associations::domain::permission::Scope;
use cmdb_associations::service;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use crate::app::{PATH, Reply, TestApp, batch};

const DUPLICATE_KEY: &str = r#"{"bk_app_code":"esb_test","bk_app_code":"esb_test"}"#;
const NO_APP: &str = "APP Code [bk_app_code] and APP Secret [bk_app_secret] cannot be empty";
const NO_CODE: &str = "APP Code [bk_app_code] cannot be empty";
const NO_SECRET: &str = "APP Secret [bk_app_secret] cannot be empty";
const NO_USER: &str = "User authentication failed, please provide a valid user identity, such as bk_token, bk_username";
const BAD_TOKEN: &str = "User authentication failed, please check if the bk_token is valid";
const TOKEN_SCHEME: &str = "bk_access_token is not supported, please use bk_token or bk_username";
const SIGNATURE_SCHEME: &str = "bk_signature is not supported, please use bk_app_secret";

fn unknown_app(code: &str) -> String {
    format!(
        "Invalid APP Code [bk_app_code={code}], please confirm if the APP Code has been registered"
    )
}

fn wrong_secret(code: &str) -> String {
    format!(
        "APP Secret verification failed, please confirm if the APP Secret and APP Code [bk_app_code={code}] match"
    )
}

/// Sends the same credentials in the header and in the body.
async fn in_header_and_body(app: &TestApp, credentials: &Value) -> [Reply; 2] {
    let mut body = batch("bk_switch_connect_host", &[(1, 999)]);
    let in_header = Request::post(PATH)
        .header("x-bkapi-authorization", credentials.to_string())
        .body(body.to_string().into());
    body.as_object_mut().unwrap().extend(credentials.as_object().unwrap().clone());
    [app.send(in_header.unwrap()).await, app.post_raw(body.to_string()).await]
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_application_is_checked_before_the_user(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut conn = app.pool.acquire().await.unwrap();
    service::app::add(&mut conn, "retired", true, Some("xxx".to_owned())).await.unwrap();
    service::app::set_enabled(&mut conn, "retired", false).await.unwrap();
    drop(conn);
    let valid = json!({"bk_app_code": "esb_test", "bk_app_secret": "xxx"});
    let with = |more: Value| {
        let mut all = valid.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    // Credentials, and the text of the refusal. An empty text means that the request succeeds.
    let cases = [
        (json!({}), NO_APP.to_owned()),
        (json!({"bk_username": "admin"}), NO_APP.to_owned()),
        (json!({"bk_app_code": "", "bk_app_secret": null}), NO_APP.to_owned()),
        (json!({"bk_app_secret": "xxx"}), NO_CODE.to_owned()),
        (json!({"bk_app_code": "esb_test"}), NO_SECRET.to_owned()),
        // A credential that is not a string counts as absent.
        (json!({"bk_app_code": "esb_test", "bk_app_secret": 7}), NO_SECRET.to_owned()),
        (json!({"bk_app_code": ["esb_test"], "bk_app_secret": "xxx"}), NO_CODE.to_owned()),
        (json!({"bk_app_code": "nobody", "bk_app_secret": "xxx"}), unknown_app("nobody")),
        (json!({"bk_app_code": "retired", "bk_app_secret": "xxx"}), unknown_app("retired")),
        (with(json!({"bk_app_secret": "XXX"})), wrong_secret("esb_test")),
        (with(json!({"bk_app_secret": "xxx "})), wrong_secret("esb_test")),
        (with(json!({"bk_app_secret": "wrong", "bk_username": "admin"})), wrong_secret("esb_test")),
        (valid.clone(), NO_USER.to_owned()),
        (with(json!({"bk_username": ""})), NO_USER.to_owned()),
        (with(json!({"bk_username": 7})), NO_USER.to_owned()),
        (with(json!({"bk_app_code": "stranger", "bk_username": "admin"})), NO_USER.to_owned()),
        // A refused token is never replaced by the user name.
        (with(json!({"bk_token": "t", "bk_username": "admin"})), BAD_TOKEN.to_owned()),
        (with(json!({"bk_access_token": "t", "bk_username": "admin"})), TOKEN_SCHEME.to_owned()),
        (with(json!({"access_token": "t", "bk_token": "t"})), TOKEN_SCHEME.to_owned()),
        // The newer key counts where both are sent.
        (with(json!({"app_secret": "wrong", "username": "admin"})), String::new()),
        (json!({"app_code": "esb_test", "app_secret": "xxx", "username": "admin"}), String::new()),
        (with(json!({"bk_username": "admin"})), String::new()),
    ];
    for (credentials, message) in cases {
        for reply in in_header_and_body(&app, &credentials).await {
            if message.is_empty() {
                assert_eq!(reply.json["code"], 0, "{credentials} {}", reply.text);
            } else {
                reply.assert_refused(200, 1_306_000, &message);
            }
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_name_with_a_control_character_is_refused(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let valid = json!({"bk_app_code": "esb_test", "bk_app_secret": "xxx", "bk_username": "admin"});
    for name in ["a\0", "a\nb", "\u{85}"] {
        for field in ["bk_app_code", "bk_username"] {
            let mut credentials = valid.clone();
            credentials[field] = json!(name);
            let [in_header, in_body] = in_header_and_body(&app, &credentials).await;
            let message = "APIGateway JWT verification failed, the name of the app or the user has a control character";
            in_header.assert_refused(200, 1_306_408, message);
            let message =
                format!("Deserializing JSON data failed: {field}: expected no control characters");
            in_body.assert_refused(200, 1_199_000, &message);
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn credentials_in_the_body_are_ignored_when_the_header_is_present(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut body = batch("bk_switch_connect_host", &[(1, 1)]);
    body["bk_app_code"] = json!("esb_test");
    body["bk_app_secret"] = json!("xxx");
    body["bk_username"] = json!("admin");
    let send = |header: &str| {
        let request = Request::post(PATH).header("x-bkapi-authorization", header.as_bytes());
        app.send(request.body(body.to_string().into()).unwrap())
    };
    send("{}").await.assert_refused(200, 1_306_000, NO_APP);
    let not_json =
        "Parameters error, request header X-Bkapi-Authorization is not a valid JSON format string";
    for header in ["", "x", "[]", "null", "7", "{\"a\":1", "{} {}", DUPLICATE_KEY] {
        send(header).await.assert_refused(200, 1_306_406, not_json);
    }
    let valid = r#"{"bk_app_code":"esb_test","bk_app_secret":"xxx","bk_username":"用户"}"#;
    let mut conn = app.pool.acquire().await.unwrap();
    service::permission::add(&mut conn, "用户", &[Scope::default()]).await.unwrap();
    drop(conn);
    assert_eq!(send(valid).await.ids().len(), 1);
    let user: String = sqlx::query_scalar("select user_name from cmdb.audit_log")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(user, "用户");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_signature_scheme_is_refused_with_its_name(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for query in ["bk_signature=x", "bk_nonce=1&signature=x", "bk_signature"] {
        let request =
            Request::post(format!("{PATH}?{query}")).body("{\"bk_app_code\":\"esb_test\"}".into());
        app.send(request.unwrap()).await.assert_refused(200, 1_306_000, SIGNATURE_SCHEME);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn credentials_are_checked_before_the_types_of_the_body(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post_raw(r#"{"bk_obj_id":7,"details":7}"#).await.assert_refused(200, 1_306_000, NO_APP);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_two_newest_secrets_are_valid_until_the_older_is_retired(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut conn = app.pool.acquire().await.unwrap();
    let accepts = async |secret: &str| {
        let credentials =
            json!({"bk_app_code": "esb_test", "bk_app_secret": secret, "bk_username": "admin"});
        let [reply, _] = in_header_and_body(&app, &credentials).await;
        reply.json["code"] == 0
    };
    let second = service::app::rotate(&mut conn, "esb_test", None).await.unwrap();
    assert!(accepts("xxx").await && accepts(&second).await);
    let third = service::app::rotate(&mut conn, "esb_test", None).await.unwrap();
    assert!(!accepts("xxx").await && accepts(&second).await && accepts(&third).await);
    assert!(service::app::retire(&mut conn, "esb_test").await.unwrap());
    assert!(!accepts(&second).await && accepts(&third).await);
    assert!(!service::app::retire(&mut conn, "esb_test").await.unwrap());
    assert!(accepts(&third).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn secrets_are_stored_as_salted_hashes(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut conn = app.pool.acquire().await.unwrap();
    let secret = service::app::rotate(&mut conn, "esb_test", None).await.unwrap();
    assert_eq!(secret.len(), 64);
    let stored: Vec<(Vec<u8>, Vec<u8>)> = sqlx::query_as("select salt, hash from cmdb.app_secret")
        .fetch_all(&mut *conn)
        .await
        .unwrap();
    assert_eq!(stored.len(), 3);
    let salts: std::collections::HashSet<_> = stored.iter().map(|(salt, _)| salt).collect();
    assert_eq!(salts.len(), 3, "every secret has a salt of its own");
    let unsalted = |secret: &str| Sha256::digest(secret).to_vec();
    for (salt, hash) in &stored {
        assert!(*hash != unsalted("xxx") && *hash != unsalted(&secret));
        assert!(!hash.windows(3).any(|part| part == b"xxx") && !salt.starts_with(b"xxx"));
    }
}
