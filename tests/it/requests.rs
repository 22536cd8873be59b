//! The checks of a request before its details, and their order.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{PATH, TestApp, batch};
use crate::binary::Program;
use crate::socket::Client;

/// A valid request with some keys changed.
fn set(changes: &[(&str, Value)]) -> Value {
    let mut body = batch("bk_switch_connect_host", &[(1, 1)]);
    for (key, value) in changes {
        body[*key] = value.clone();
    }
    body
}

/// A valid request without some keys.
fn without(keys: &[&str]) -> Value {
    let mut body = set(&[]);
    for key in keys {
        body.as_object_mut().unwrap().remove(*key);
    }
    body
}

fn missing(field: &str, body: Value) -> (u32, String, String, Value) {
    let english = format!("'{field}' the parameter is invalid or does not exist");
    (1_199_011, english, format!("'{field}' 参数无效或不存在"), body)
}

fn mismatch(field: &str, body: Value) -> (u32, String, String, Value) {
    let english = format!("'{field}' data parameter verification does not pass");
    (1_199_006, english, format!("'{field}' 数据参数校验不通过"), body)
}

fn no_details(body: Value) -> (u32, String, String, Value) {
    (1_199_038, "details must not be empty".into(), "数据 details 不能为空".into(), body)
}

fn too_many(body: Value) -> (u32, String, String, Value) {
    (1_199_035, "details exceed the limit 200".into(), "details 超过限制 200".into(), body)
}

fn unknown(body: Value) -> (u32, String, String, Value) {
    (1_101_046, "object association does not exist.".into(), "模型的关联关系不存在".into(), body)
}

fn wrong_type(at: &str, body: Value) -> (u32, String, String, Value) {
    let english = format!("Deserializing JSON data failed: {at}");
    (1_199_000, english, format!("反序列化JSON数据失败: {at}"), body)
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_with_several_errors_is_refused_for_its_first_error(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let details = |n: i64| json!((0..n).map(|_| json!({})).collect::<Vec<_>>());
    let association = |key: &str| ("bk_obj_asst_id", json!(key));
    let long = format!("bk_switch_{}_host", "x".repeat(512));
    let cases = [
        missing("bk_obj_asst_id", without(&["bk_obj_asst_id"])),
        missing("bk_obj_id", without(&["bk_obj_id"])),
        missing("bk_asst_obj_id", without(&["bk_asst_obj_id"])),
        missing("bk_obj_id", set(&[("bk_obj_id", json!(null))])),
        missing("bk_obj_id", set(&[("bk_obj_id", json!(""))])),
        // The ids are checked in this order, and before the details.
        missing("bk_obj_asst_id", json!({})),
        missing("bk_obj_id", without(&["bk_obj_id", "bk_asst_obj_id", "details"])),
        missing("bk_asst_obj_id", without(&["bk_asst_obj_id", "details"])),
        no_details(without(&["details"])),
        no_details(set(&[("details", json!(null))])),
        no_details(set(&[("details", json!([])), association("bk_switch_belong_host")])),
        too_many(set(&[("details", details(201))])),
        too_many(set(&[("details", details(5000)), association("bk_switch_belong_host")])),
        // The model association does not exist. If its id does not begin and end with the models,
        // the model is refused instead.
        unknown(set(&[association("bk_switch_belong_host")])),
        unknown(set(&[association(&long)])),
        unknown(set(&[association("bk_switch\0host")])),
        mismatch("bk_obj_id", set(&[association("host_connect_host")])),
        mismatch("bk_asst_obj_id", set(&[association("bk_switch_connect_switch")])),
        mismatch("bk_obj_id", set(&[association("x")])),
        mismatch("bk_obj_id", set(&[("bk_obj_id", json!("x".repeat(129)))])),
        mismatch(
            "bk_asst_obj_id",
            set(&[("bk_asst_obj_id", json!("bk_switch_connect_host_of_old"))]),
        ),
        // The model association exists, but between other models.
        mismatch("bk_obj_id", set(&[("bk_obj_id", json!("bk_sw"))])),
        mismatch("bk_asst_obj_id", set(&[("bk_asst_obj_id", json!("st"))])),
        mismatch("bk_obj_id", set(&[("bk_obj_id", json!("host")), ("bk_asst_obj_id", json!("x"))])),
    ];
    for (code, english, chinese, body) in cases {
        app.post_in(body.clone(), "en").await.assert_refused(200, code, &english);
        app.post_in(body, "zh-cn").await.assert_refused(200, code, &chinese);
    }
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_value_of_the_wrong_type_refuses_the_request_and_is_located(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let valid = json!({"bk_inst_id": 1, "bk_asst_inst_id": 1});
    let fourth = |detail: Value| set(&[("details", json!([valid, null, valid, detail]))]);
    let cases = [
        wrong_type(
            "bk_obj_id: expected a string, got a number with a fraction or an exponent",
            set(&[("bk_obj_id", json!(1.5))]),
        ),
        wrong_type("bk_obj_id: expected a string, got an integer", set(&[("bk_obj_id", json!(7))])),
        wrong_type(
            "bk_asst_obj_id: expected a string, got a boolean",
            set(&[("bk_asst_obj_id", json!(true))]),
        ),
        wrong_type(
            "bk_obj_asst_id: expected a string, got an array",
            set(&[("bk_obj_asst_id", json!([]))]),
        ),
        wrong_type("details: expected an array, got an object", set(&[("details", json!({}))])),
        wrong_type("details: expected an array, got a string", set(&[("details", json!("[]"))])),
        wrong_type("details[3]: expected an object, got an array", fourth(json!([]))),
        wrong_type(
            "details[3].bk_inst_id: expected an integer, got a string",
            fourth(json!({"bk_inst_id": "1"})),
        ),
        wrong_type(
            "details[3].bk_asst_inst_id: expected an integer, got an object",
            fourth(json!({"bk_asst_inst_id": {}})),
        ),
        wrong_type(
            "bk_supplier_account: expected a string or an integer, got a boolean",
            set(&[("bk_supplier_account", json!(true))]),
        ),
        // Types are checked before missing keys.
        wrong_type("bk_obj_id: expected a string, got an object", json!({"bk_obj_id": {}})),
    ];
    for (code, english, chinese, body) in cases {
        app.post_in(body.clone(), "en").await.assert_refused(200, code, &english);
        app.post_in(body, "zh-cn").await.assert_refused(200, code, &chinese);
    }
}

const CREDENTIALS: &str = r#""bk_app_code":"esb_test","bk_app_secret":"xxx","bk_username":"admin""#;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_number_that_is_not_written_as_a_64_bit_integer_is_refused(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for (number, got) in [
        ("9223372036854775808", "a number beyond 64 bits"),
        ("-9223372036854775809", "a number beyond 64 bits"),
        ("1.0", "a number with a fraction or an exponent"),
        ("1e2", "a number with a fraction or an exponent"),
        ("1e400", "a number with a fraction or an exponent"),
    ] {
        let body = format!(r#"{{{CREDENTIALS},"details":[{{"bk_inst_id":{number}}}]}}"#);
        let message = format!(
            "Deserializing JSON data failed: details[0].bk_inst_id: expected an integer, got {got}"
        );
        app.post_raw(body).await.assert_refused(200, 1_199_000, &message);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_known_key_given_twice_is_refused(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for (rest, at) in [
        (r#""bk_obj_id":"a","bk_obj_id":"a""#, "bk_obj_id"),
        (r#""details":null,"details":null"#, "details"),
        (r#""bk_username":"admin""#, "bk_username"),
        (r#""details":[{},{"bk_inst_id":1,"bk_inst_id":1}]"#, "details[1].bk_inst_id"),
    ] {
        let message = format!("Deserializing JSON data failed: {at}: given twice");
        let body = format!("{{{CREDENTIALS},{rest}}}");
        app.post_raw(body).await.assert_refused(200, 1_199_000, &message);
    }
    let body = format!(r#"{{{CREDENTIALS},"x":1,"x":2}}"#);
    let message = "'bk_obj_asst_id' the parameter is invalid or does not exist";
    app.post_raw(body).await.assert_refused(200, 1_199_011, message);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_body_that_is_not_a_json_object_is_refused_before_its_credentials(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let message = "Request JSON string is wrong in format, which cannot be analyzed.";
    let bodies: [&[u8]; 24] = [
        b"",
        b" ",
        b"null",
        b"[]",
        b"7",
        b"\"{}\"",
        b"{",
        b"{}}",
        b"{} x",
        b"{'a':1}",
        b"{\"a\":1,}",
        b"{\"a\":01}",
        b"{\"a\":+1}",
        b"{\"a\":NaN}",
        b"{\"a\":\"\x01\"}",
        b"{\"a\":\"\\x\"}",
        b"\xEF\xBB\xBF{}",
        b"{\"a\":\"\xFF\"}",
        br#"{"a":"\ud800"}"#,
        br#"{"a":["\udc00"]}"#,
        br#"{"\ud800":1}"#,
        b"\xFF\xFE{\0}\0",
        b"bk_app_code=esb_test&bk_app_secret=xxx",
        b"{\"a\":1 \"b\":2}",
    ];
    for body in bodies {
        app.post_raw(body).await.assert_refused(200, 1_306_000, message);
    }
}

/// The unit test of `http::body` has the other kinds.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_log_says_why_a_body_is_not_json_and_does_not_contain_it(pool: PgPool) {
    let server = Program::on(&pool).serve(&[]);
    let client = reqwest::Client::new();
    for path in [PATH, "/api/c/compapi/v2/cc/search_related_inst_asso/"] {
        let request = client.post(server.url(path)).header("content-encoding", "gzip");
        let answer = request.body(&b"\x1f\x8bmarker"[..]).send().await.unwrap();
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(answer["code"], 1_306_000);
    }
    let mut client = Client::connect(server.address.parse().unwrap()).await.unwrap();
    let invalid_chunk =
        format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nmarker\r\n");
    client.send(invalid_chunk.as_bytes()).await.unwrap();
    assert_eq!(client.answer().await.unwrap().json()["code"], 1_306_000);
    server.signal("TERM");
    let (_, log) = server.wait();
    for (cause, count) in
        [("it is compressed (Content-Encoding: gzip)", 2), ("it did not arrive completely", 1)]
    {
        let cause = format!("the body is not a JSON object: {cause}");
        assert_eq!(log.matches(&cause).count(), count, "{log}");
    }
    assert!(!log.contains("marker"), "{log}");
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn unknown_keys_are_ignored_whatever_their_values(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let body = format!(
        r#" {{{CREDENTIALS},"deep":{deep},"big":1e400,"metadata":{{"bk_biz_id":2}},"BK_OBJ_ID":7,"名":"\ud83d\ude00",
            "bk_obj_id":"bk_switch","bk_asst_obj_id":"host","bk_obj_asst_id":"bk_switch\u005fconnect_host",
            "details":[{{"bk_inst_id":1,"bk_asst_inst_id":1,"id":"x","bk_biz_id":[]}}]}} "#
    );
    assert_eq!(app.post_raw(body).await.ids().len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_body_is_read_as_json_whatever_its_content_type(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for (n, kind) in
        [(1, None), (2, Some("text/plain")), (3, Some("application/x-www-form-urlencoded"))]
    {
        let body = format!(
            r#"{{{CREDENTIALS},"bk_obj_id":"bk_switch","bk_asst_obj_id":"host","bk_obj_asst_id":"bk_switch_connect_host","details":[{{"bk_inst_id":{n},"bk_asst_inst_id":{n}}}]}}"#
        );
        let mut request = axum::http::Request::post(PATH);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        assert_eq!(app.send(request.body(body.into()).unwrap()).await.ids().len(), 1);
    }
}
