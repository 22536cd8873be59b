//! The API description (OpenAPI 3.1), made from the table of endpoints, their types and the error
//! table, and a page to read it.

use std::collections::BTreeMap;

use axum::Router;
use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::{
    ComponentsBuilder, Content, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathItem,
    PathsBuilder, Ref, RefOr, Required, Response, ResponseBuilder, ResponsesBuilder, Schema,
};
use utoipa::{PartialSchema, ToSchema};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::api::{Api, TenantField};
use super::auth::CredentialFields;
use super::endpoints::{ENDPOINTS, Endpoint, EndpointEntry};
use super::envelope::{CmdbAnswer, Envelope, GatewayAnswer};
use super::error::{answer_to, detail_text, pipeline_errors};
use crate::domain::error::{DetailError, RequestError};
use crate::domain::language::Language;

/// The path of the description.
const PATH: &str = "/openapi.json";

/// The request id in examples.
const REQUEST_ID: &str = "06111a8efac445bcbb0269614e86e14c";

/// The routes of the page at `/docs` and of the description.
pub(super) fn router<S: Clone + Send + Sync + 'static>(apis: &[Api]) -> Router<S> {
    // Without a validator, the page needs no other host.
    let config = Config::new([PATH]).validator_url("none").doc_expansion("full");
    SwaggerUi::new("/docs").url(PATH, document(apis)).config(config).into()
}

/// The description of the endpoints at these APIs.
pub fn document(apis: &[Api]) -> OpenApi {
    let info = InfoBuilder::new()
        .title("Associations of a CMDB")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(description()));
    let mut paths = PathsBuilder::new();
    let mut schemas = BTreeMap::new();
    for api in apis {
        for endpoint in &ENDPOINTS {
            let operation = (endpoint.describe)(endpoint, *api);
            paths = paths.path(endpoint.path(*api), PathItem::new(HttpMethod::Post, operation));
            schemas.extend((endpoint.schemas)(*api));
        }
    }
    let components = ComponentsBuilder::new().schemas_from_iter(schemas);
    OpenApiBuilder::new()
        .info(info.build())
        .paths(paths.build())
        .components(Some(components.build()))
        .build()
}

/// What holds for all endpoints: every code with its texts.
fn description() -> String {
    let row = |error: &RequestError| {
        let answer = answer_to(error);
        let (code, status) = (answer.code, answer.status.as_u16());
        let chinese = answer.chinese.map(|text| format!("`{text}`")).unwrap_or_default();
        format!("| {code} | {status} | `{}` | {chinese} |\n", answer.english)
    };
    let own = ENDPOINTS.iter().flat_map(|endpoint| (endpoint.errors)());
    let mut rows: Vec<_> = pipeline_errors().iter().map(row).collect();
    for row in own.map(|error| row(&error)) {
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    let detail_row = |error: DetailError| {
        let text = |language| detail_text(error, language, "{source model}", "{target model}");
        let (english, chinese) = (text(Language::English), text(Language::Chinese));
        format!("| `{english}` | `{chinese}` | {} |\n", error.code())
    };
    let detail_rows: String = DetailError::ALL.into_iter().map(detail_row).collect();
    format!(
        "A code other than 0 refuses the whole request:\n\n\
         | Code | HTTP | Text | Chinese |\n|---|---|---|---|\n{}\n\
         Of a batch, single details are refused for these reasons:\n\n\
         | Text | Chinese | Original's code |\n|---|---|---|\n{detail_rows}",
        rows.concat()
    )
}

/// The named schemas that an endpoint's operation at an API refers to.
pub(super) fn schemas<E: Endpoint>(api: Api) -> Vec<(String, RefOr<Schema>)> {
    fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
    let mut schemas = Vec::new();
    add::<E::Body>(&mut schemas);
    add::<TenantField>(&mut schemas);
    add::<CredentialFields>(&mut schemas);
    match api {
        Api::Gateway => GatewayAnswer::<'static, E::Data>::schemas(&mut schemas),
        Api::Cmdb => CmdbAnswer::<E::Data>::schemas(&mut schemas),
    }
    schemas
}

/// The description of an endpoint at an API.
pub(super) fn operation<E: Endpoint>(entry: &EndpointEntry, api: Api) -> Operation {
    let header = |name: &str, description: &str| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
    };
    let body = AllOfBuilder::new()
        .item(Ref::from_schema_name(E::Body::name()))
        .item(Ref::from_schema_name(TenantField::name()))
        .item(Ref::from_schema_name(CredentialFields::name()));
    let body = ContentBuilder::new()
        .schema(Some(RefOr::T(Schema::from(body.build()))))
        .example(Some(request_example((E::example)().0)));
    let body = RequestBodyBuilder::new()
        .content("application/json", body.build())
        .required(Some(Required::True));
    let (prefix, tag) = match api {
        Api::Gateway => ("", "For clients"),
        Api::Cmdb => ("cmdb_", "For a gateway that forwards requests"),
    };
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("{prefix}{}", entry.name)))
        .tag(tag)
        .summary(Some(E::SUMMARY))
        .description(Some(E::DESCRIPTION))
        .request_body(Some(body.build()))
        .parameter(header(
            "Idempotency-Key",
            "For endpoints that write: a name that the caller gives the request, 1 to 255 visible \
             ASCII characters. The same request with the same key gets the same answer, for at \
             least 24 hours.",
        ))
        .parameter(header(
            "X-Bkapi-JWT",
            "The token of the gateway whose public key is configured. It is then the only source \
             of the caller's identity.",
        ))
        .responses(responses::<E>(api));
    let operation = match api {
        Api::Gateway => operation
            .parameter(header(
                "X-Bkapi-Authorization",
                "Credentials as a JSON object. Those of the body are then ignored.",
            ))
            .parameter(header(
                "Blueking-Language",
                "The language of texts: Chinese if it begins with `zh`, else English. Without it, \
                 `Accept-Language` or the cookie `blueking_language` decides.",
            )),
        Api::Cmdb => operation
            .parameter(header("X-Bkcmdb-User", "The user, from a trusted peer."))
            .parameter(header(
                "X-Bkcmdb-Supplier-Account",
                "The tenant. It precedes the one in the body.",
            ))
            .parameter(header(
                "X-Bkcmdb-Language",
                "The language of texts: Chinese if it is absent or begins with `zh`, else English.",
            )),
    };
    operation.build()
}

/// The possible answers by HTTP status, with an example of each error.
fn responses<E: Endpoint>(api: Api) -> ResponsesBuilder {
    let mut examples: BTreeMap<u16, Vec<(String, Value)>> = BTreeMap::new();
    let envelope = Envelope::new(api, Ok((E::example)().1), Language::English, REQUEST_ID);
    let success = serde_json::to_value(envelope).unwrap_or_default();
    examples.entry(200).or_default().push(("0".to_owned(), success));
    for error in pipeline_errors().into_iter().chain(E::errors()) {
        let envelope = Envelope::<()>::new(api, Err(&error), Language::English, REQUEST_ID);
        let example = serde_json::to_value(envelope).unwrap_or_default();
        let answer = answer_to(&error);
        let of_status = examples.entry(answer.status.as_u16()).or_default();
        let name = format!("{} ({})", answer.code, of_status.len());
        of_status.push((name, example));
    }
    let schema = match api {
        Api::Gateway => GatewayAnswer::<'static, E::Data>::schema(),
        Api::Cmdb => CmdbAnswer::<E::Data>::schema(),
    };
    let responses = examples
        .into_iter()
        .map(|(status, examples)| (status.to_string(), response(schema.clone(), status, examples)));
    ResponsesBuilder::new().responses_from_iter(responses)
}

fn response(schema: RefOr<Schema>, status: u16, examples: Vec<(String, Value)>) -> Response {
    let description = match status {
        200 => "`code` says whether the request was carried out",
        404 => "The path is unknown",
        405 => "The path has no such method",
        413 => "The body is too large",
        429 => "The application is over its rate limit: retry after `Retry-After` seconds",
        503 => {
            "A service is unavailable, or the server is overloaded: retry after `Retry-After` \
                seconds"
        }
        _ => "A bug of the server",
    };
    let examples = examples
        .into_iter()
        .map(|(name, value)| (name, ExampleBuilder::new().value(Some(value)).build()));
    let content: Content =
        ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build();
    let header = |description: &str| {
        HeaderBuilder::new().description(Some(description)).schema(Some(String::schema())).build()
    };
    let response = ResponseBuilder::new()
        .description(description)
        .content("application/json", content)
        .header("X-Bkapi-Request-Id", header("The request's id, as in the log and the audit."));
    match status {
        429 | 503 => response.header("Retry-After", header("Seconds.")).build(),
        _ => response.build(),
    }
}

/// A request with its own fields and credentials.
pub fn request_example(mut body: Value) -> Value {
    let credentials = json!({
        "bk_app_code": "demo",
        "bk_app_secret": "what `app add` printed",
        "bk_username": "admin",
    });
    if let (Value::Object(body), Value::Object(credentials)) = (&mut body, credentials) {
        body.extend(credentials);
    }
    body
}
