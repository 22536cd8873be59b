//! The API description at `/openapi.json`, made from the list of endpoints, their types and the
//! error table, and a page to read it.

#![expect(clippy::indexing_slicing, reason = "assigning to an absent key of a JSON object adds it")]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::api::{Api, TenantField};
use super::auth::CredentialFields;
use super::endpoints::{ENDPOINTS, Endpoint, EndpointEntry};
use super::envelope::{CmdbAnswer, Envelope, GatewayAnswer};
use super::error::{ErrorAnswer, answer_to, common_errors, detail_text};
use super::idempotency::IdempotencyField;
use super::read_from::ReadFromField;
use crate::domain::error::{DetailError, RequestError};
use crate::domain::language::Language;

/// The path of the description.
const PATH: &str = "/openapi.json";

/// The request id in examples.
pub const REQUEST_ID: &str = "06111a8efac445bcbb0269614e86e14c";

/// The routes of the page at `/docs` and of the description.
pub(super) fn router(apis: &'static [Api]) -> Router {
    // The page would otherwise load a badge from a validation service.
    let config = Config::new([PATH]).validator_url("none").doc_expansion("full");
    let page = Router::from(SwaggerUi::new("/docs").config(config));
    // Made for the first request, because this takes several megabytes for a moment.
    let text = Arc::new(LazyLock::new(move || Bytes::from(document(apis).to_string())));
    let answer = async move || ([(CONTENT_TYPE, "application/json")], Bytes::clone(&text));
    page.route(PATH, get(answer))
}

/// Named schemas.
pub(super) type Schemas = Vec<(String, RefOr<Schema>)>;

/// The description of the endpoints at these APIs.
pub fn document(apis: &[Api]) -> Value {
    let (mut paths, mut schemas) = (Map::new(), BTreeMap::new());
    for api in apis {
        for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.is_at(*api)) {
            let (operation, used) = (endpoint.describe)(endpoint, *api);
            let method = endpoint.method(*api).as_str().to_ascii_lowercase();
            paths.insert(endpoint.path(*api), json!({ method: operation }));
            for (name, schema) in used {
                let known = schemas.insert(name.clone(), schema.clone());
                debug_assert!(
                    known.is_none_or(|known| known == schema),
                    "two schemas are called {name}"
                );
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Associations of a CMDB",
            "version": env!("CARGO_PKG_VERSION"),
            "description": description(),
        },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

/// What holds for all endpoints: every code with its texts.
fn description() -> String {
    let row = |error: RequestError| {
        let ErrorAnswer { code, status, english, chinese } = answer_to(&error);
        let chinese = chinese.map(|text| format!("`{text}`")).unwrap_or_default();
        format!("| {code} | {} | `{english}` | {chinese} |\n", status.as_u16())
    };
    let own = ENDPOINTS.iter().flat_map(|endpoint| (endpoint.errors)());
    let mut rows: Vec<_> = common_errors("{name}").into_iter().chain(own).map(row).collect();
    rows.dedup();
    let detail_row = |&error: &DetailError| {
        let text = |language| detail_text(error, language, "{source model}", "{target model}");
        let (english, chinese) = (text(Language::English), text(Language::Chinese));
        format!("| `{english}` | `{chinese}` | {} |\n", error.code())
    };
    let detail_rows: String = DetailError::ALL.iter().map(detail_row).collect();
    format!(
        "A code other than 0 refuses the whole request:\n\n\
         | Code | HTTP | Text | Chinese |\n|---|---|---|---|\n{}\n\
         Of a batch, single details are refused for these reasons:\n\n\
         | Text | Chinese | Original's code |\n|---|---|---|\n{detail_rows}",
        rows.concat()
    )
}

/// The description of an endpoint at an API, with the schemas that it refers to.
pub(super) fn operation<E: Endpoint>(entry: &'static EndpointEntry, api: Api) -> (Value, Schemas) {
    fn add<T: ToSchema>(schemas: &mut Schemas) -> Value {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }
    let mut schemas = Schemas::new();
    let fields = add::<E::Body>(&mut schemas);
    let (fields, path_parameters) = match api {
        Api::Gateway => (fields, Vec::new()),
        Api::Cmdb => {
            without_path_variables(entry, fields, &json!(E::Body::schema()), &E::example().0)
        }
    };
    let mut body =
        vec![fields, add::<IdempotencyField>(&mut schemas), add::<CredentialFields>(&mut schemas)];
    if E::ONLY_READS {
        body.push(add::<ReadFromField>(&mut schemas));
    }
    add::<E::Data>(&mut schemas);
    let (prefix, tag, answer) = match api {
        Api::Gateway => {
            GatewayAnswer::<'static, E::Data>::schemas(&mut schemas);
            body.push(add::<TenantField>(&mut schemas));
            ("", "For clients", GatewayAnswer::<'static, E::Data>::schema())
        }
        Api::Cmdb => {
            CmdbAnswer::<E::Data>::schemas(&mut schemas);
            ("cmdb_", "For a gateway that forwards requests", CmdbAnswer::<E::Data>::schema())
        }
    };
    let mut answer = json!(answer);
    // "Null or null" fits twice, so it is one type.
    if json!(E::Data::schema())["type"] == "null" {
        answer["properties"]["data"] = json!(E::Data::schema());
    }
    let parameters = [path_parameters, parameters(api)].concat();
    let operation = json!({
        "operationId": format!("{prefix}{}", entry.name),
        "tags": [tag],
        "summary": E::SUMMARY,
        "description": E::DESCRIPTION,
        "parameters": parameters,
        "requestBody": {
            "required": api == Api::Gateway || E::REQUIRES_BODY,
            "content": { "application/json": {
                "schema": { "allOf": body },
                "example": body_example::<E>(entry, api),
            } },
        },
        "responses": responses::<E>(api, entry.name, &answer),
    });
    (operation, schemas)
}

/// The schema of the fields of a body at the CMDB API, and the parameters in the path, which are
/// fields of the body at the gateway API.
fn without_path_variables(
    entry: &EndpointEntry, fields: Value, schema: &Value, example: &Value,
) -> (Value, Vec<Value>) {
    let variables: Vec<_> = entry.path_variables().collect();
    if variables.is_empty() {
        return (fields, Vec::new());
    }
    let parameter = |name: &&str| {
        let value = &example[name];
        json!({
            "name": name, "in": "path", "required": true,
            "description": schema["properties"][name]["description"],
            "example": value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            "schema": { "type": "string", "minLength": 1 },
        })
    };
    let parameters = variables.iter().map(parameter).collect();
    let mut others = schema.clone();
    if let Some(properties) = others["properties"].as_object_mut() {
        properties.retain(|name, _| !variables.contains(&name.as_str()));
    }
    if let Some(required) = others["required"].as_array_mut() {
        required.retain(|name| !variables.iter().any(|variable| name == variable));
    }
    (others, parameters)
}

/// An example of a body at an API.
fn body_example<E: Endpoint>(entry: &EndpointEntry, api: Api) -> Value {
    let mut fields = E::example().0;
    if let (Api::Cmdb, Some(fields)) = (api, fields.as_object_mut()) {
        fields.retain(|name, _| !entry.path_variables().any(|variable| variable == name));
    }
    request_example(fields)
}

fn parameters(api: Api) -> Vec<Value> {
    let both = [
        (
            "Idempotency-Key",
            "For endpoints that write: a name that the caller gives the request, 1 to 255 visible \
             ASCII characters. The same request with the same key gets the same answer, for at \
             least 24 hours.",
        ),
        (
            "X-Bkapi-JWT",
            "The token of the gateway whose public key is configured. It is then the only source \
             of the caller's identity.",
        ),
    ];
    let own: &[(&str, &str)] = match api {
        Api::Gateway => &[
            (
                "X-Bkapi-Authorization",
                "Credentials as a JSON object. Those of the body are then ignored.",
            ),
            (
                "Blueking-Language",
                "The language of texts: Chinese if it begins with `zh`, else English. Without it, \
                 `Accept-Language` or the cookie `blueking_language` decides.",
            ),
        ],
        Api::Cmdb => &[
            ("X-Bkcmdb-User", "The user, from a trusted peer."),
            ("X-Bkcmdb-Supplier-Account", "The tenant, `0` by default."),
            (
                "X-Bkcmdb-Language",
                "The language of texts: Chinese if it is absent or begins with `zh`, else English.",
            ),
        ],
    };
    let parameter = |(name, description): &(&str, &str)| {
        json!({
            "name": name, "in": "header", "required": false,
            "description": description, "schema": { "type": "string" },
        })
    };
    both.iter().chain(own).map(parameter).collect()
}

/// The possible answers by HTTP status, with an example of each error.
fn responses<E: Endpoint>(api: Api, name: &'static str, schema: &Value) -> BTreeMap<String, Value> {
    let example = |result: Result<Value, &RequestError>| {
        let (data, error) = match result {
            Ok(data) => (Some(data), None),
            Err(error) => (None, Some(error)),
        };
        let envelope = Envelope::new(api, data, error, Language::English, REQUEST_ID);
        json!({ "value": envelope })
    };
    let mut examples: BTreeMap<u16, Map<String, Value>> = BTreeMap::new();
    examples.entry(200).or_default().insert("0".to_owned(), example(Ok(E::example().1)));
    for error in common_errors(name).into_iter().chain(E::errors()) {
        let ErrorAnswer { code, status, .. } = answer_to(&error);
        let of_status = examples.entry(status.as_u16()).or_default();
        of_status.insert(format!("{code} ({})", of_status.len()), example(Err(&error)));
    }
    let header =
        |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    let response = |(status, examples): (u16, Map<String, Value>)| {
        let description = match status {
            200 => "`code` says whether the request was carried out",
            404 => "The path is unknown",
            405 => "The path has no such method",
            413 => "The body is too large",
            429 => "The caller is over its rate limit",
            503 => "A service is unavailable, or the server is overloaded",
            _ => "A bug of the server",
        };
        let id = header("The request's id, as in the log and the audit record.");
        let mut headers = json!({ "X-Bkapi-Request-Id": id });
        if [429, 503].contains(&status) {
            headers["Retry-After"] = header("Seconds after which to retry.");
        }
        let content = json!({ "application/json": { "schema": schema, "examples": examples } });
        let response =
            json!({ "description": description, "headers": headers, "content": content });
        (status.to_string(), response)
    };
    examples.into_iter().map(response).collect()
}

/// A request with its own fields and credentials.
pub fn request_example(mut body: Value) -> Value {
    body["bk_app_code"] = json!("demo");
    body["bk_app_secret"] = json!("demo-secret");
    body["bk_username"] = json!("admin");
    body
}
