//! The two APIs: the identity that a gateway or a trusted peer forwards, headers and envelopes.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::Request;
use cmdb_associations::http::ClientAddr;
use cmdb_associations::http::auth::gateway_jwt::JwtVerifier;
use cmdb_associations::service;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{PATH, Reply, TestApp, batch};

const CMDB_PATH: &str = "/api/v3/createmany/instassociation";
const PUBLIC_KEY: &str = include_str!("../fixtures/gateway.pub.pem");
const PRIVATE_KEY: &str = include_str!("../fixtures/gateway.pem");
const OTHER_PRIVATE_KEY: &str = include_str!("../fixtures/other.pem");

const UNDECODABLE: &str = "APIGateway JWT verification failed, [X-Bkapi-JWT] decode error, please check if jwt is correct, or if its private key is correct";

#[expect(clippy::disallowed_methods, reason = "tokens expire by the clock")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of a valid token. The application is not registered here.
fn claims() -> Value {
    json!({
        "iss": "APIGW", "exp": now() + 300, "nbf": now() - 300,
        "app": {"app_code": "from_gateway", "verified": true, "valid_error_message": ""},
        "user": {"username": "admin", "verified": true, "valid_error_message": ""},
    })
}

fn signed(claims: &Value) -> String {
    sign(Algorithm::RS512, &EncodingKey::from_rsa_pem(PRIVATE_KEY.as_bytes()).unwrap(), claims)
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

async fn behind_gateway(pool: PgPool, issuer: Option<&str>) -> TestApp {
    let gateway = JwtVerifier::new(PUBLIC_KEY, issuer).unwrap();
    TestApp::with(pool, |setup| setup.authenticator.jwt = Some(gateway)).await
}

fn request(path: &str, headers: &[(&str, &str)], body: &Value) -> Request<Body> {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.to_string().into()).unwrap()
}

async fn send(app: &TestApp, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
    app.send(request(path, headers, body)).await
}

/// Sends a batch of one detail to the CMDB API, from the address 10.1.2.3.
async fn send_as_peer(app: &TestApp, headers: &[(&str, &str)]) -> Value {
    let mut request = request(CMDB_PATH, headers, &one_detail(1));
    request.extensions_mut().insert(ClientAddr("10.1.2.3".parse().unwrap()));
    app.send(request).await.json
}

fn one_detail(n: i64) -> Value {
    batch("bk_switch_default_host", &[(n, n)])
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_gateways_jwt_is_the_only_source_of_application_and_user_when_it_is_sent(pool: PgPool) {
    let app = behind_gateway(pool, None).await;
    let token = signed(&claims());
    let mut body = one_detail(1);
    body["bk_app_code"] = json!("esb_test");
    body["bk_app_secret"] = json!("wrong");
    body["bk_username"] = json!("another");
    let headers = [("x-bkapi-jwt", token.as_str()), ("x-bkapi-authorization", "nonsense")];
    assert_eq!(send(&app, PATH, &headers, &body).await.ids().len(), 1);
    let caller: (String, String) = sqlx::query_as("select app, user_name from cmdb.audit_log")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(caller, ("from_gateway".to_owned(), "admin".to_owned()));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_jwt_header_is_ignored_when_no_public_key_is_configured(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut body = one_detail(1);
    body["bk_app_code"] = json!("esb_test");
    body["bk_app_secret"] = json!("xxx");
    body["bk_username"] = json!("admin");
    assert_eq!(send(&app, PATH, &[("x-bkapi-jwt", "nonsense")], &body).await.ids().len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_invalid_or_expired_jwt_is_refused(pool: PgPool) {
    let app = behind_gateway(pool, Some("APIGW")).await;
    let with = |key: &str, value: Value| {
        let mut claims = claims();
        claims[key] = value;
        claims
    };
    let without = |key: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(key);
        claims
    };
    let valid = signed(&claims());
    let payload = valid.split('.').nth(1).unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
    let other_key = EncodingKey::from_rsa_pem(OTHER_PRIVATE_KEY.as_bytes()).unwrap();
    let right_key = EncodingKey::from_rsa_pem(PRIVATE_KEY.as_bytes()).unwrap();
    let mut header = Header::new(Algorithm::RS512);
    header.crit = Some(vec!["exp".to_owned()]);
    let with_critical_extension = encode(&header, &claims(), &right_key).unwrap();
    let public_key_as_secret = EncodingKey::from_secret(PUBLIC_KEY.as_bytes());
    let failed =
        |reason: &str| format!("APIGateway JWT verification failed, [X-Bkapi-JWT] {reason}");
    let cases = [
        ("nonsense".to_owned(), UNDECODABLE.to_owned()),
        (String::new(), UNDECODABLE.to_owned()),
        (unsigned, UNDECODABLE.to_owned()),
        (sign(Algorithm::RS512, &other_key, &claims()), UNDECODABLE.to_owned()),
        (sign(Algorithm::RS256, &right_key, &claims()), UNDECODABLE.to_owned()),
        (sign(Algorithm::HS256, &public_key_as_secret, &claims()), UNDECODABLE.to_owned()),
        (sign(Algorithm::HS512, &public_key_as_secret, &claims()), UNDECODABLE.to_owned()),
        (format!("{}x", signed(&claims())), UNDECODABLE.to_owned()),
        (signed(&with("app", json!("admin"))), UNDECODABLE.to_owned()),
        (with_critical_extension, failed("has an unsupported critical extension")),
        (signed(&without("exp")), UNDECODABLE.to_owned()),
        (signed(&without("iss")), UNDECODABLE.to_owned()),
        (signed(&with("exp", json!(now() - 1))), failed("has expired")),
        (signed(&with("nbf", json!(now() + 100))), failed("is not valid yet")),
        (signed(&with("iss", json!("another"))), failed("has invalid issuer")),
    ];
    for (token, message) in cases {
        send(&app, PATH, &[("x-bkapi-jwt", &token)], &one_detail(1))
            .await
            .assert_refused(200, 1_306_408, &message);
    }
    assert_eq!(send(&app, PATH, &[("x-bkapi-jwt", &valid)], &one_detail(1)).await.ids().len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_application_or_user_that_the_gateway_did_not_verify_is_refused_with_its_message(
    pool: PgPool,
) {
    let app = behind_gateway(pool, None).await;
    let with = |app: Value, user: Value| {
        let mut claims = claims();
        claims["app"] = app;
        claims["user"] = user;
        claims
    };
    let good_app = json!({"app_code": "from_gateway", "verified": true});
    let good_user = json!({"username": "admin", "verified": true});
    let no_app = "verify app fail, please check if the authentication parameters are correct";
    let no_user = "Please provide a valid user identity, such as bk_username";
    for (claims, message) in [
        (with(json!({"app_code": "x", "verified": false}), good_user.clone()), no_app),
        (with(json!({}), good_user.clone()), no_app),
        (with(json!({"name": "x", "verified": true}), good_user.clone()), no_app),
        (with(good_app.clone(), json!({"name": "admin", "verified": true})), no_user),
        (
            with(
                json!({"app_code": "x", "verified": true, "valid_error_message": null}),
                json!(null),
            ),
            no_user,
        ),
        (
            with(json!({"verified": false, "valid_error_message": "app: no"}), good_user.clone()),
            "app: no",
        ),
        (with(good_app.clone(), json!({})), no_user),
        (with(good_app.clone(), json!({"username": "admin", "verified": false})), no_user),
        (
            with(
                good_app.clone(),
                json!({"verified": true, "username": "", "valid_error_message": "user: no"}),
            ),
            "user: no",
        ),
    ] {
        let token = signed(&claims);
        send(&app, PATH, &[("x-bkapi-jwt", &token)], &one_detail(1))
            .await
            .assert_refused(200, 1_306_000, message);
    }
    let code = "x".repeat(129);
    let too_long = with(json!({"app_code": code, "verified": true}), good_user.clone());
    let message = format!(
        "Invalid APP Code [bk_app_code={code}], please confirm if the APP Code has been registered"
    );
    let reply = send(&app, PATH, &[("x-bkapi-jwt", &signed(&too_long))], &one_detail(1)).await;
    reply.assert_refused(200, 1_306_000, &message);
    for (app_code, user) in [("a\0b", "admin"), ("a", "ad\tmin")] {
        let claims = with(
            json!({"app_code": app_code, "verified": true}),
            json!({"username": user, "verified": true}),
        );
        let reply = send(&app, PATH, &[("x-bkapi-jwt", &signed(&claims))], &one_detail(1)).await;
        let message = "APIGateway JWT verification failed, the name of the app or the user has a control character";
        reply.assert_refused(200, 1_306_408, message);
    }
    // Other keys of a claim are ignored.
    let more_keys = with(
        json!({"app_code": "from_gateway", "name": {"en": "X"}, "verified": true}),
        json!({"username": "admin", "name": "Admin", "verified": true}),
    );
    let reply = send(&app, PATH, &[("x-bkapi-jwt", &signed(&more_keys))], &one_detail(3)).await;
    assert_eq!(reply.ids().len(), 1);
    // An application that is trusted with user names may name a user the gateway did not verify.
    let trusted = with(
        json!({"app_code": "esb_test", "verified": true}),
        json!({"username": "admin", "verified": false}),
    );
    assert_eq!(
        send(&app, PATH, &[("x-bkapi-jwt", &signed(&trusted))], &one_detail(1)).await.ids().len(),
        1
    );
    // An application that is disabled here is refused, although the gateway verified it.
    let mut conn = app.pool.acquire().await.unwrap();
    service::app::set_enabled(&mut conn, "esb_test", false).await.unwrap();
    let message = "Invalid APP Code [bk_app_code=esb_test], please confirm if the APP Code has been registered";
    send(&app, PATH, &[("x-bkapi-jwt", &signed(&trusted))], &one_detail(2))
        .await
        .assert_refused(200, 1_306_000, message);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_cmdb_api_is_not_found_until_it_is_configured(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let message = "The content does not exist";
    send(&app, CMDB_PATH, &[], &one_detail(1)).await.assert_refused(404, 1_306_404, message);
    // The gateway finds the answer by the id that it gave.
    let id = "0123456789abcdef0123456789abcdef";
    for (header, path, is_same) in [
        ("x-request-id", CMDB_PATH, true),
        ("x-bkapi-request-id", "/api/v3/unknown", true),
        ("x-request-id", "/api/unknown", false),
    ] {
        let reply = send(&app, path, &[(header, id)], &one_detail(1)).await;
        reply.assert_refused(404, 1_306_404, message);
        assert_eq!(reply.request_id() == id, is_same, "{path}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn credentials_are_refused_if_only_the_gateway_may_name_callers(pool: PgPool) {
    let app = TestApp::with(pool, |setup| {
        setup.authenticator.jwt = Some(JwtVerifier::new(PUBLIC_KEY, None).unwrap());
        setup.authenticator.gateway_only = true;
        setup.authenticator.trusted_peers = vec!["10.1.2.3/32".parse().unwrap()];
    })
    .await;
    let message = "APIGateway JWT verification failed, [X-Bkapi-JWT] is missing";
    app.post(one_detail(1)).await.assert_refused(200, 1_306_408, message);
    let credentials = r#"{"bk_app_code":"esb_test","bk_app_secret":"xxx","bk_username":"admin"}"#;
    let reply = send(&app, PATH, &[("x-bkapi-authorization", credentials)], &one_detail(1)).await;
    reply.assert_refused(200, 1_306_408, message);
    let token = signed(&claims());
    let reply = send(&app, PATH, &[("x-bkapi-jwt", &token)], &one_detail(1)).await;
    assert_eq!(reply.ids().len(), 1);
    // The setting does not concern the CMDB API.
    assert_eq!(send_as_peer(&app, &[("x-bkcmdb-user", "admin")]).await["bk_error_code"], 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_cmdb_api_answers_with_its_own_keys_and_language(pool: PgPool) {
    let app = behind_gateway(pool, None).await;
    let token = signed(&claims());
    let jwt = ("x-bkapi-jwt", token.as_str());
    let mut body = one_detail(1);
    body["details"].as_array_mut().unwrap().push(json!({"bk_inst_id": 999}));
    let reply = send(&app, CMDB_PATH, &[jwt, ("x-request-id", "cc0000-gateway.1")], &body).await;
    assert_eq!(
        reply.text,
        r#"{"result":true,"bk_error_code":0,"bk_error_msg":"success","permission":null,"data":{"success_created":{"0":1},"error_msg":{"1":"关联实例不存在"}}}"#
    );
    assert_eq!(reply.headers["x-request-id"], "cc0000-gateway.1");
    let recorded: String = sqlx::query_scalar("select request_id from cmdb.audit_log")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(recorded, "cc0000-gateway.1");
    let empty = json!({"bk_obj_id": "a", "bk_asst_obj_id": "b", "bk_obj_asst_id": "c"});
    for (header, value, message) in [
        ("x-nothing", "", "数据 details 不能为空"),
        ("http_blueking_language", "zh-cn", "数据 details 不能为空"),
        ("http_blueking_language", "en", "details must not be empty"),
        ("x-bkcmdb-language", "en-us", "details must not be empty"),
        ("blueking-language", "en", "数据 details 不能为空"), // the gateway API's header
    ] {
        let reply = send(&app, CMDB_PATH, &[jwt, (header, value)], &empty).await;
        assert_eq!(
            reply.text,
            format!(
                r#"{{"result":false,"bk_error_code":1199038,"bk_error_msg":"{message}","permission":null,"data":null}}"#
            )
        );
        assert_eq!(reply.status, 200);
    }
    // An invalid request id is replaced.
    for invalid in ["", "a b", &"x".repeat(65), "a\"b"] {
        let reply = send(&app, CMDB_PATH, &[jwt, ("x-bkapi-request-id", invalid)], &empty).await;
        assert_eq!(reply.headers["x-request-id"].len(), 32);
    }
    let reply = send(&app, CMDB_PATH, &[], &one_detail(1)).await;
    assert_eq!(reply.json["bk_error_code"], 1_306_408);
    let get = Request::get(CMDB_PATH).body("".into()).unwrap();
    let reply = app.send(get).await;
    assert_eq!((reply.status.as_u16(), &reply.json["bk_error_code"]), (405, &json!(1_306_209)));
    assert_eq!(reply.headers["allow"], "POST");
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn plain_identity_headers_are_accepted_from_trusted_peers_only(pool: PgPool) {
    let app = TestApp::with(pool, |setup| {
        setup.authenticator.trusted_peers =
            vec!["10.1.0.0/16".parse().unwrap(), "::1/128".parse().unwrap()];
    })
    .await;
    let from = async |peer: Option<&str>, user: &str, n: i64| {
        let mut request = Request::post(CMDB_PATH)
            .header("bk_user", user)
            .header("bk-app-code", "from_esb")
            .header("http_bk_supplier_account", "0")
            .header("http_blueking_language", "en")
            .body(one_detail(n).to_string().into())
            .unwrap();
        if let Some(peer) = peer {
            request.extensions_mut().insert(ClientAddr(peer.parse::<IpAddr>().unwrap()));
        }
        app.send(request).await
    };
    for (n, peer) in [(1, "10.1.2.3"), (2, "::ffff:10.1.2.3"), (3, "::1")] {
        assert_eq!(from(Some(peer), "admin", n).await.json["bk_error_code"], 0, "{peer}");
    }
    for peer in [Some("10.2.0.1"), Some("127.0.0.1"), Some("::2"), None] {
        let reply = from(peer, "admin", 9).await;
        assert_eq!(reply.json["bk_error_code"], 1_306_408, "{peer:?}");
    }
    let without_user = from(Some("::1"), "", 9).await;
    assert_eq!(without_user.json["bk_error_code"], 1_306_000);
    let without_grant = from(Some("::1"), "nobody", 9).await;
    assert_eq!(without_grant.json["bk_error_code"], 9_900_403);
    assert_eq!(without_grant.json["permission"]["system_id"], "bk_cmdb");
    // The gateway API ignores the peer's address.
    let mut request = Request::post(PATH)
        .header("bk_user", "admin")
        .body(one_detail(9).to_string().into())
        .unwrap();
    request.extensions_mut().insert(ClientAddr("10.1.2.3".parse().unwrap()));
    let message = "APP Code [bk_app_code] and APP Secret [bk_app_secret] cannot be empty";
    app.send(request).await.assert_refused(200, 1_306_000, message);
    let callers: Vec<(String, String)> =
        sqlx::query_as("select distinct app, user_name from cmdb.audit_log")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    assert_eq!(callers, [("from_esb".to_owned(), "admin".to_owned())]);
}

/// nginx drops headers with underscores unless it is told not to, and with them the tenant.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_trusted_peer_whose_headers_with_underscores_were_dropped_is_refused(pool: PgPool) {
    let app = TestApp::with(pool, |setup| {
        setup.authenticator.trusted_peers = vec!["10.1.2.3/32".parse().unwrap()];
    })
    .await;
    let code = async |headers: &[(&str, &str)]| {
        send_as_peer(&app, headers).await["bk_error_code"].as_i64().unwrap()
    };
    let (hyphens, app_code) = (("bk-username", "admin"), ("bk-app-code", "esb"));
    for dropped in [&[hyphens, app_code][..], &[hyphens], &[app_code], &[]] {
        assert_eq!(code(dropped).await, 1_306_408, "{dropped:?}");
    }
    assert_eq!(code(&[hyphens, app_code, ("bk_user", "admin")]).await, 0);
    assert_eq!(code(&[("x-bkcmdb-user", "admin"), ("x-bkcmdb-app-code", "esb")]).await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_limit_of_an_application_applies_only_if_the_trusted_peer_names_it(pool: PgPool) {
    let app = TestApp::with(pool, |setup| {
        setup.authenticator.trusted_peers = vec!["10.1.2.3/32".parse().unwrap()];
    })
    .await;
    let mut conn = app.pool.acquire().await.unwrap();
    let apis = ["search_related_inst_asso".to_owned()];
    service::app::limit(&mut conn, "esb_test", Some(&apis), None).await.unwrap();
    drop(conn);
    let user = ("bk_user", "admin");
    let json = send_as_peer(&app, &[user, ("bk-app-code", "esb_test")]).await;
    assert_eq!(json["bk_error_code"], 1_306_403);
    assert_eq!(send_as_peer(&app, &[user]).await["bk_error_code"], 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_identity_header_that_is_sent_twice_is_refused(pool: PgPool) {
    let gateway = JwtVerifier::new(PUBLIC_KEY, None).unwrap();
    let app = TestApp::with(pool, |setup| {
        setup.authenticator.jwt = Some(gateway);
        setup.authenticator.trusted_peers = vec!["10.1.2.3/32".parse().unwrap()];
    })
    .await;
    let token = signed(&claims());
    let jwt = ("x-bkapi-jwt", token.as_str());
    let user = ("x-bkcmdb-user", "admin");
    for headers in [
        vec![jwt, jwt],
        vec![user, user],
        vec![("bk_user", "admin"), ("bk-app-code", "a"), ("bk-app-code", "b")],
        vec![user, ("http_bk_supplier_account", "0"), ("http_bk_supplier_account", "1")],
        vec![jwt, ("x-bkcmdb-supplier-account", "0"), ("x-bkcmdb-supplier-account", "0")],
    ] {
        let json = send_as_peer(&app, &headers).await;
        assert_eq!(json["bk_error_code"], 1_306_408, "{headers:?}");
        let message = "APIGateway JWT verification failed, an identity header is sent twice";
        assert_eq!(json["bk_error_msg"], message);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_tenant_comes_from_the_header_at_the_cmdb_api_and_from_the_body_at_the_gateway_api(
    pool: PgPool,
) {
    let app = behind_gateway(pool, None).await;
    let token = signed(&claims());
    let area = "insert into cmdb.instance (model_id, instance_id)
                select id, 0 from cmdb.model where key = 'plat'";
    sqlx::query(area).execute(&app.pool).await.unwrap();
    let body = |host: i64, tenant: Value| {
        let mut body = batch("host_belong_plat", &[(host, 0)]);
        body["bk_supplier_account"] = tenant;
        body
    };
    let with_header = [("x-bkapi-jwt", token.as_str()), ("http_bk_supplier_account", "header")];
    let without = [("x-bkapi-jwt", token.as_str())];
    // The CMDB API ignores the tenant in the body, even if it has a wrong type.
    for (path, headers, body) in [
        (CMDB_PATH, &with_header[..], body(1, json!("body"))),
        (CMDB_PATH, &without, body(2, json!("body"))),
        (CMDB_PATH, &without, body(3, json!([]))),
        (PATH, &with_header, body(4, json!("body"))),
        (PATH, &without, body(5, json!(7))),
    ] {
        let json = send(&app, path, headers, &body).await.json;
        assert_eq!(json["data"]["success_created"].as_object().unwrap().len(), 1, "{json}");
    }
    let tenants: Vec<String> = sqlx::query_scalar(
        "select key from cmdb.audit_log join cmdb.tenant on tenant.id = tenant_id
         order by audit_log.id",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert_eq!(tenants, ["header", "0", "0", "body", "7"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_invalid_tenant_is_refused_in_the_body_and_in_the_header(pool: PgPool) {
    let app = behind_gateway(pool, None).await;
    let token = signed(&claims());
    for tenant in ["a\tb", "\u{85}", &"x".repeat(129)] {
        let mut body = one_detail(1);
        body["bk_supplier_account"] = json!(tenant);
        let message = "Deserializing JSON data failed: bk_supplier_account: expected at most 128 characters, none of them a control character";
        let reply = send(&app, PATH, &[("x-bkapi-jwt", &token)], &body).await;
        reply.assert_refused(200, 1_199_000, message);
        let headers = [("x-bkapi-jwt", token.as_str()), ("x-bkcmdb-supplier-account", tenant)];
        let json = send(&app, CMDB_PATH, &headers, &one_detail(1)).await.json;
        assert_eq!(json["bk_error_code"], 1_306_408, "{json}");
        let message = "APIGateway JWT verification failed, [X-Bkcmdb-Supplier-Account] is longer than 128 characters or has a control character";
        assert_eq!(json["bk_error_msg"], message);
    }
}

#[test]
fn an_invalid_public_key_is_refused() {
    assert!(JwtVerifier::new("nonsense", None).is_err());
    assert!(JwtVerifier::new(PRIVATE_KEY, None).is_err());
    assert!(JwtVerifier::new(PUBLIC_KEY, None).is_ok());
}
