//! The API description agrees with the server.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::{Request, StatusCode};
use cmdb_associations::domain::error::DetailError;
use cmdb_associations::domain::language::Language;
use cmdb_associations::http::endpoints::ENDPOINTS;
use cmdb_associations::http::{
    Api, ClientAddr, REQUEST_ID, answer_to, common_errors, detail_text, document, request_example,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{PATH, Reply, TestApp};
use crate::binary::Program;

/// The description of both APIs.
pub(crate) static DESCRIPTION: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(document(&[Api::Gateway, Api::Cmdb])).unwrap());

/// A validator of the answers at each path. They have one form, whatever their status.
static RESPONSES: LazyLock<BTreeMap<String, jsonschema::Validator>> = LazyLock::new(|| {
    let paths = DESCRIPTION["paths"].as_object().unwrap();
    let schema = |operation: &Value| {
        let response = &only(operation)["responses"]["200"];
        validator(&response["content"]["application/json"]["schema"])
    };
    paths.iter().map(|(path, operation)| (path.clone(), schema(operation))).collect()
});

/// The one operation of a path.
fn only(path: &Value) -> &Value {
    let operations = path.as_object().unwrap();
    assert_eq!(operations.len(), 1);
    operations.values().next().unwrap()
}

/// Whether a path is that of an endpoint, whatever its variables are.
fn is_path(known: &str, path: &str) -> bool {
    let segments = |path: &'_ str| {
        let segments = path.trim_matches('/').split('/');
        segments.map(str::to_owned).collect::<Vec<_>>()
    };
    let (known, path) = (segments(known), segments(path));
    let is_same = |(known, given): (&String, &String)| known.starts_with('{') || known == given;
    known.len() == path.len() && known.iter().zip(&path).all(is_same)
}

/// The path whose description an answer must agree with. An unknown path is answered like any path
/// of the API.
fn described_path(path: &str, is_cmdb: bool) -> String {
    let api = if is_cmdb { Api::Cmdb } else { Api::Gateway };
    let mut paths = ENDPOINTS.iter().filter(|one| one.is_at(api)).map(|one| one.path(api));
    paths.find(|known| is_path(known, path)).unwrap_or_else(|| ENDPOINTS[0].path(api))
}

fn validator(schema: &Value) -> jsonschema::Validator {
    let components = &DESCRIPTION["components"];
    let mut schema = schema.clone();
    schema.as_object_mut().unwrap().insert("components".to_owned(), components.clone());
    jsonschema::draft202012::new(&schema).unwrap()
}

fn request_validator(path: &str) -> jsonschema::Validator {
    let body = &only(&DESCRIPTION["paths"][path])["requestBody"];
    validator(&body["content"]["application/json"]["schema"])
}

/// Checks what holds for every answer of every test: it has the described form, and its code is
/// described for its status.
#[track_caller]
pub(crate) fn assert_described(path: &str, reply: &Reply) {
    let is_cmdb = reply.json.get("bk_error_code").is_some();
    let key = if is_cmdb { "bk_error_code" } else { "code" };
    let path = described_path(path, is_cmdb);
    let responses = &only(&DESCRIPTION["paths"][&path])["responses"];
    let content = &responses[reply.status.as_str()]["content"]["application/json"];
    let mut examples = content["examples"].as_object().unwrap().values();
    let is_described = examples.any(|example| example["value"][key] == reply.json[key]);
    assert!(is_described, "{} is not described for {} at {path}", reply.text, reply.status);
    let validator = &RESPONSES[&path];
    let errors: Vec<_> =
        validator.iter_errors(&reply.json).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}: {}", reply.text);
}

#[test]
fn every_field_and_header_has_a_description() {
    for (name, schema) in DESCRIPTION["components"]["schemas"].as_object().unwrap() {
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            // Of a field that may be null, the description is beside the type.
            let types = schema["oneOf"].as_array().into_iter().flatten().chain([schema]);
            let is_described = types.into_iter().any(|one| one["description"].is_string());
            assert!(is_described, "{name}.{field}: {schema}");
        }
    }
    for path in DESCRIPTION["paths"].as_object().unwrap().values() {
        let parameters = only(path)["parameters"].as_array().unwrap();
        assert!(parameters.iter().all(|parameter| parameter["description"].is_string()));
    }
}

#[test]
fn every_code_is_described_with_its_texts() {
    let text = DESCRIPTION["info"]["description"].as_str().unwrap();
    let own = ENDPOINTS.iter().flat_map(|endpoint| (endpoint.errors)());
    for error in common_errors("{name}").into_iter().chain(own) {
        let answer = answer_to(&error);
        assert!(text.contains(&format!("| {} |", answer.code)), "{error:?}");
        for part in [Some(answer.english), answer.chinese].into_iter().flatten() {
            assert!(text.contains(&*part), "{error:?}");
        }
    }
    for &error in DetailError::ALL {
        for language in [Language::English, Language::Chinese] {
            let part = detail_text(error, language, "{source model}", "{target model}");
            assert!(text.contains(&*part), "{error:?}");
        }
    }
}

#[test]
fn both_apis_have_every_endpoint_of_the_table() {
    let described: Vec<_> = DESCRIPTION["paths"].as_object().unwrap().keys().cloned().collect();
    let mut wanted: Vec<_> = [Api::Gateway, Api::Cmdb]
        .into_iter()
        .flat_map(|api| {
            ENDPOINTS.iter().filter(move |one| one.is_at(api)).map(move |one| one.path(api))
        })
        .collect();
    wanted.sort();
    assert_eq!(described, wanted);
}

/// The schema and the decoder agree about what a request is.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_body_that_the_schema_forbids_is_refused(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let schema = request_validator(PATH);
    let fine = crate::app::batch("bk_switch_default_host", &[(1, 1)]);
    assert!(schema.is_valid(&fine));
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
        assert!(!schema.is_valid(&body), "{body}");
        assert_ne!(app.post(body.clone()).await.json["code"], 0, "{body}");
    }
}

/// Sends the example of each endpoint of an API, as a reader would copy them from the page, in the
/// order of the table.
async fn assert_examples(pool: PgPool, api: Api) {
    let program = Program::on(&pool);
    assert_eq!(program.run(&["import", "tests/demo/export"]).status, 0);
    let secret = request_example(json!({}))["bk_app_secret"].as_str().unwrap().to_owned();
    let added = ["app", "add", "demo", "--trust-username", "--secret-stdin"];
    assert_eq!(program.run_with(&added, &secret).status, 0);
    for what in [&["--all"][..], &["--models"], &["--create", "--all"], &["--delete", "--all"]] {
        let add = [&["grant", "add", "--user", "admin"], what].concat();
        assert_eq!(program.run(&add).status, 0);
    }
    let app = TestApp::build(pool, |setup| {
        setup.authenticator.trusted_peers = vec!["10.0.0.0/8".parse().unwrap()];
    });
    let mut wrong = Vec::new();
    // In the examples, all requests have the same id; requests are found by that of the first one.
    let example_id = |text: &str, id: &str| text.replace(REQUEST_ID, id);
    let mut first_id = String::new();
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.is_at(api)) {
        let path = endpoint.path(api);
        let described = only(&DESCRIPTION["paths"][&path]);
        let body = &described["requestBody"]["content"]["application/json"]["example"];
        assert!(request_validator(&path).is_valid(body), "{body}");
        let mut url = path.clone();
        for parameter in described["parameters"].as_array().unwrap() {
            if parameter["in"] == "path" {
                let [name, value] = [&parameter["name"], &parameter["example"]];
                url = url
                    .replace(&format!("{{{}}}", name.as_str().unwrap()), value.as_str().unwrap());
            }
        }
        let mut request = Request::builder()
            .method(endpoint.method(api))
            .uri(url)
            .header("x-bkcmdb-app-code", "demo")
            .header("x-bkcmdb-user", "admin")
            .header("x-bkcmdb-language", "en")
            .body(example_id(&body.to_string(), &first_id).into())
            .unwrap();
        request.extensions_mut().insert(ClientAddr("10.1.2.3".parse().unwrap()));
        let reply = app.send(request).await;
        if first_id.is_empty() {
            reply.headers["x-request-id"].to_str().unwrap().clone_into(&mut first_id);
        }
        let mut answer = reply.json;
        let content = &described["responses"]["200"]["content"]["application/json"];
        let expected = &content["examples"]["0"]["value"];
        if answer["data"]["info"][0]["request_id"] == first_id {
            for key in ["request_id", "created_at"] {
                answer["data"]["info"][0][key] = expected["data"]["info"][0][key].clone();
            }
        }
        if api == Api::Gateway {
            answer["request_id"] = expected["request_id"].clone();
        }
        for key in ["create_time", "last_time", "bk_created_at", "bk_updated_at"] {
            if answer["data"][key].is_string() && expected["data"][key].is_string() {
                answer["data"][key] = expected["data"][key].clone();
            }
        }
        if answer != *expected {
            wrong.push(format!("{path}: {answer}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn each_example_at_the_gateway_api_is_answered_as_described(pool: PgPool) {
    assert_examples(pool, Api::Gateway).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn each_example_at_the_cmdb_api_is_answered_as_described(pool: PgPool) {
    assert_examples(pool, Api::Cmdb).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_page_and_the_description_need_no_other_host(pool: PgPool) {
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
            assert!(!link.contains("//"), "{link} is on another host");
            let path = format!("/docs/{}", link.trim_start_matches("./"));
            assert_eq!(app.status(&path).await, StatusCode::OK, "{path}");
        }
    }
}
