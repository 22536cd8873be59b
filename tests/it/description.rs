//! The description of the API says what the server does.

use std::sync::LazyLock;

use axum::http::StatusCode;
use cmdb_associations::domain::examples::faults;
use cmdb_associations::http::{Envelope, KEYS, document, request_example};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{PATH, Reply, TestApp};
use crate::binary::Program;

/// The whole description, with both doors.
pub(crate) static DESCRIPTION: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(document(true)).unwrap());

static ANSWER: LazyLock<jsonschema::Validator> = LazyLock::new(|| validator("GatewayAnswer"));
static CMDB_ANSWER: LazyLock<jsonschema::Validator> = LazyLock::new(|| validator("CmdbAnswer"));
static REQUEST: LazyLock<jsonschema::Validator> = LazyLock::new(|| validator("CreateMany"));

fn validator(schema: &str) -> jsonschema::Validator {
    let components = &DESCRIPTION["components"];
    assert!(components["schemas"][schema].is_object(), "{schema}");
    let schema =
        json!({"$ref": format!("#/components/schemas/{schema}"), "components": components});
    jsonschema::draft202012::new(&schema).unwrap()
}

/// What holds for every answer of every test: it is as described, and its code is one of its status.
#[track_caller]
pub(crate) fn assert_described(reply: &Reply) {
    let (path, key, validator) = match reply.json.get("bk_error_code") {
        Some(_) => ("/api/v3/createmany/instassociation", "bk_error_code", &*CMDB_ANSWER),
        None => (PATH, "code", &*ANSWER),
    };
    let errors: Vec<_> =
        validator.iter_errors(&reply.json).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}: {}", reply.text);
    let responses = &DESCRIPTION["paths"][path]["post"]["responses"];
    let examples = &responses[reply.status.as_str()]["content"]["application/json"]["examples"];
    let mut examples = examples.as_object().unwrap().values();
    let is_described = examples.any(|example| example["value"][key] == reply.json[key]);
    assert!(is_described, "{} is not described for {}", reply.text, reply.status);
}

#[test]
fn every_key_of_a_request_is_described_and_no_other() {
    let described = DESCRIPTION["components"]["schemas"]["CreateMany"]["properties"].as_object();
    let mut described: Vec<_> = described.unwrap().keys().map(String::as_str).collect();
    let mut known = KEYS.to_vec();
    described.sort_unstable();
    known.sort_unstable();
    assert_eq!(described, known);
}

#[test]
fn every_field_and_header_has_a_meaning() {
    for (name, schema) in DESCRIPTION["components"]["schemas"].as_object().unwrap() {
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            // Of a field that may be null, it stands beside the type.
            let types = schema["oneOf"].as_array().into_iter().flatten().chain([schema]);
            let has_meaning = types.into_iter().any(|one| one["description"].is_string());
            assert!(has_meaning, "{name}.{field}: {schema}");
        }
    }
    for path in DESCRIPTION["paths"].as_object().unwrap().values() {
        let parameters = path["post"]["parameters"].as_array().unwrap();
        assert!(parameters.iter().all(|parameter| parameter["description"].is_string()));
    }
}

#[test]
fn every_code_is_described_with_its_texts() {
    use cmdb_associations::domain::language::Language;
    let text = DESCRIPTION["info"]["description"].as_str().unwrap();
    for fault in faults() {
        for language in [Language::English, Language::Chinese] {
            assert!(text.contains(&fault.text(language)), "{fault:?}");
        }
        assert!(text.contains(&format!("| {} |", fault.code())), "{fault:?}");
    }
    // The description itself is made of these; that answers are is checked by every test that gets one.
    let door = cmdb_associations::http::Api::Gateway;
    let unknown = Envelope::new(door, Err(&faults()[0]), Language::English, "x");
    assert!(ANSWER.is_valid(&serde_json::to_value(unknown).unwrap()));
}

/// The schema and the reader agree about what a request is.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn what_the_description_forbids_is_refused(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let fine = crate::app::batch("bk_switch_default_host", &[(1, 1)]);
    assert!(REQUEST.is_valid(&fine));
    assert_eq!(app.post(fine.clone()).await.json["code"], 0);
    for (key, value) in [
        ("bk_obj_id", json!(1)),
        ("bk_obj_id", Value::Null),
        ("bk_asst_obj_id", json!(["host"])),
        ("bk_obj_asst_id", json!(true)),
        ("details", json!({})),
        ("details", json!([])),
        ("details", json!([{"bk_inst_id": "1"}])),
        ("details", json!([{"bk_asst_inst_id": 1.5}])),
        ("details", json!(vec![json!({}); 201])),
        ("bk_supplier_account", json!(1.5)),
    ] {
        let mut body = fine.clone();
        body[key] = value;
        assert!(!REQUEST.is_valid(&body), "{body}");
        assert_ne!(app.post(body.clone()).await.json["code"], 0, "{body}");
    }
}

/// As somebody who copies it from the page.
#[sqlx::test]
async fn the_example_is_answered_as_described(pool: PgPool) {
    let program = Program::on(&pool);
    assert_eq!(program.run(&["import", "tests/demo/export"]).status, 0);
    let request = request_example();
    let secret = request["bk_app_secret"].as_str().unwrap();
    let added = ["app", "add", "demo", "--trust-username", "--secret-stdin"];
    assert_eq!(program.run_with(&added, secret).status, 0);
    assert_eq!(program.run(&["grant", "add", "--user", "admin", "--all"]).status, 0);
    assert!(REQUEST.is_valid(&request));
    let mut answer = TestApp::on(pool).post(request).await.json;
    let described = &DESCRIPTION["paths"][PATH]["post"]["responses"]["200"];
    let described = &described["content"]["application/json"]["examples"]["0"]["value"];
    answer["request_id"] = described["request_id"].clone();
    assert_eq!(answer, *described);
}

#[sqlx::test]
async fn the_page_and_the_description_are_served_and_need_nothing_from_elsewhere(pool: PgPool) {
    let app = TestApp::on(pool);
    let (status, description) = app.get("/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    let served: Value = serde_json::from_str(&description).unwrap();
    assert_eq!(
        served["openapi"].as_str().unwrap().split('.').take(2).collect::<Vec<_>>(),
        ["3", "1"]
    );
    let (status, page) = app.get("/docs/").await;
    assert_eq!(status, StatusCode::OK);
    let (_, start) = app.get("/docs/swagger-initializer.js").await;
    assert!(
        start.contains("/openapi.json") && start.contains(r#""validatorUrl": "none""#),
        "{start}"
    );
    for attribute in ["src=\"", "href=\""] {
        for link in page.split(attribute).skip(1) {
            let link = link.split('"').next().unwrap();
            assert!(!link.contains("//"), "{link} is elsewhere");
            let path = format!("/docs/{}", link.trim_start_matches("./"));
            assert_eq!(app.status(&path).await, StatusCode::OK, "{path}");
        }
    }
}
