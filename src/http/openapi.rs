//! The description of the API, made of the types of the wire and of the refusals themselves, and a page to read it.

use std::collections::BTreeMap;

use axum::Router;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{
    ComponentsBuilder, Content, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathItem,
    PathsBuilder, Ref, RefOr, Required, Response, ResponseBuilder, ResponsesBuilder, Schema,
};
use utoipa::{PartialSchema, ToSchema};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::answer::status;
use super::api::Api;
use super::envelope::{CmdbAnswer, Envelope, GatewayAnswer};
use super::{CMDB_PATH, GATEWAY_PATH};
use crate::domain::error::{DetailError, RequestError};
use crate::domain::examples::faults;
use crate::domain::language::Language;

/// Where the description is.
const PATH: &str = "/openapi.json";

/// A request, as the body says it. It is read field by field in `body`, which is more exact about mistakes than a type
/// could be; the tests hold both together.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it says what a body looks like")]
struct CreateMany {
    /// The source model.
    #[schema(examples("bk_switch"))]
    bk_obj_id: String,
    /// The target model.
    #[schema(examples("host"))]
    bk_asst_obj_id: String,
    /// The association between the two models.
    #[schema(examples("bk_switch_connect_host"))]
    bk_obj_asst_id: String,
    /// The pairs. They are judged as if they were created one after the other.
    #[schema(min_items = 1, max_items = 200)]
    details: Vec<DetailGiven>,
    /// The tenant, `0` unless given. A tenant sees its own data and that of `0`.
    bk_supplier_account: Option<Account>,
    /// The application's code. Credentials may stand in the header `X-Bkapi-Authorization` instead, and then only there.
    bk_app_code: Option<String>,
    /// The application's secret.
    bk_app_secret: Option<String>,
    /// The login of the user who asks.
    bk_token: Option<String>,
    /// The user who asks, from an application that is trusted with user names.
    bk_username: Option<String>,
    /// `bk_app_code`, as older clients call it.
    #[schema(deprecated)]
    app_code: Option<String>,
    /// `bk_app_secret`, as older clients call it.
    #[schema(deprecated)]
    app_secret: Option<String>,
    /// `bk_username`, as older clients call it.
    #[schema(deprecated)]
    username: Option<String>,
    /// Not supported: refused if it stands alone.
    #[schema(deprecated)]
    bk_access_token: Option<String>,
    /// Not supported: refused if it stands alone.
    #[schema(deprecated)]
    access_token: Option<String>,
}

/// A tenant's key.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it says what a body looks like")]
enum Account {
    Text(String),
    Number(i64),
}

/// A pair of instances.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it says what a body looks like")]
struct DetailGiven {
    /// The source instance. Without it there is no such instance.
    bk_inst_id: Option<i64>,
    /// The target instance. Without it there is no such instance.
    bk_asst_inst_id: Option<i64>,
}

/// The page at `/docs`, and the description.
pub(super) fn router<S: Clone + Send + Sync + 'static>(serves_cmdb_api: bool) -> Router<S> {
    // Nobody else is asked whether the description is valid.
    let config = Config::new([PATH]).validator_url("none").doc_expansion("full");
    SwaggerUi::new("/docs").url(PATH, document(serves_cmdb_api)).config(config).into()
}

/// The whole description.
pub fn document(serves_cmdb_api: bool) -> OpenApi {
    let info = InfoBuilder::new()
        .title("Associations of a CMDB")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(description()));
    let mut paths = PathsBuilder::new().path(GATEWAY_PATH, operation(Api::Gateway));
    if serves_cmdb_api {
        paths = paths.path(CMDB_PATH, operation(Api::Cmdb));
    }
    let mut schemas = vec![named::<CreateMany>(), named::<GatewayAnswer<'_>>()];
    CreateMany::schemas(&mut schemas);
    GatewayAnswer::schemas(&mut schemas);
    if serves_cmdb_api {
        schemas.push(named::<CmdbAnswer>());
    }
    let components = ComponentsBuilder::new().schemas_from_iter(schemas);
    OpenApiBuilder::new()
        .info(info.build())
        .paths(paths.build())
        .components(Some(components.build()))
        .build()
}

fn named<T: ToSchema>() -> (String, RefOr<Schema>) {
    (T::name().into_owned(), T::schema())
}

/// What a request means, and every code and text there is.
fn description() -> String {
    let of_detail = |fault: DetailError| {
        let says = |language| fault.text(language, "{source model}", "{target model}");
        let (english, chinese) = (says(Language::English), says(Language::Chinese));
        format!("| `{english}` | `{chinese}` | {} |\n", fault.code())
    };
    let of_request = |fault: RequestError| {
        let (english, chinese) = (fault.text(Language::English), fault.text(Language::Chinese));
        let chinese = if chinese == english { String::new() } else { format!("`{chinese}`") };
        format!("| {} | {} | `{english}` | {chinese} |\n", fault.code(), status(&fault).as_u16())
    };
    let details: String = DetailError::ALL.into_iter().map(of_detail).collect();
    let mut requests: Vec<_> = faults().into_iter().map(of_request).collect();
    requests.dedup();
    let requests = requests.concat();
    format!(
        "Creates up to 200 associations between instances in one request. `result` is true and `code` 0 even if every \
         detail was refused: look at `success_created` and `error_msg`, each by the index of its detail.\n\n\
         | Text of a detail | Chinese | Original's code |\n|---|---|---|\n{details}\n\
         Any other code than 0 refuses the whole request, and nothing is created:\n\n\
         | Code | HTTP | Text | Chinese |\n|---|---|---|---|\n{requests}"
    )
}

fn operation(door: Api) -> PathItem {
    let header = |name: &str, says: &str| {
        let text = ObjectBuilder::new().schema_type(Type::String);
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(says))
            .schema(Some(text))
    };
    let body = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(CreateMany::name())))
        .example(Some(request_example()));
    let operation = OperationBuilder::new()
        .operation_id(Some(match door {
            Api::Gateway => "batch_create_instance_association",
            Api::Cmdb => "createmany_instassociation",
        }))
        .tag(match door {
            Api::Gateway => "For clients",
            Api::Cmdb => "For a gateway, instead of the CMDB",
        })
        .summary(Some("Create associations between instances"))
        .request_body(Some(
            RequestBodyBuilder::new()
                .content("application/json", body.build())
                .required(Some(Required::True))
                .build(),
        ))
        .parameter(header(
            "Idempotency-Key",
            "A name that the caller makes up for the request, 1 to 255 visible ASCII characters: sent again under it, the \
             same request gets the same answer again, for at least 24 hours.",
        ))
        .parameter(header(
            "X-Bkapi-JWT",
            "The token of the gateway whose key the server was given; nothing else then says who is calling.",
        ))
        .responses(responses(door));
    let operation = match door {
        Api::Gateway => operation
            .parameter(header(
                "X-Bkapi-Authorization",
                "Credentials, as a JSON object; the body's are then ignored.",
            ))
            .parameter(header(
                "Blueking-Language",
                "The language of the texts: Chinese if it begins with `zh`, else English. Otherwise `Accept-Language` and \
                 the cookie `blueking_language` say it.",
            )),
        Api::Cmdb => operation
            .parameter(header("X-Bkcmdb-User", "The user, from a peer that is trusted."))
            .parameter(header("X-Bkcmdb-Supplier-Account", "The tenant; counts more than the body's."))
            .parameter(header("X-Bkcmdb-Language", "The language of the texts: Chinese unless it says otherwise.")),
    };
    PathItem::new(HttpMethod::Post, operation)
}

/// What may be answered, by HTTP status, with an example of each code.
fn responses(door: Api) -> ResponsesBuilder {
    let mut examples: BTreeMap<u16, Vec<(String, Value)>> = BTreeMap::new();
    let created = answer_example(door);
    examples.entry(200).or_default().push(("0".to_owned(), created));
    for fault in faults() {
        let envelope = Envelope::new(door, Err(&fault), Language::English, REQUEST_ID);
        let example = serde_json::to_value(envelope).unwrap_or_default();
        let of_status = examples.entry(status(&fault).as_u16()).or_default();
        let name = format!("{} ({})", fault.code(), of_status.len());
        of_status.push((name, example));
    }
    let responses = examples
        .into_iter()
        .map(|(status, examples)| (status.to_string(), response(door, status, examples)));
    ResponsesBuilder::new().responses_from_iter(responses)
}

fn response(door: Api, status: u16, examples: Vec<(String, Value)>) -> Response {
    let says = match status {
        200 => "The request was judged: `code` says how",
        404 => "No such path",
        405 => "Another method than POST",
        413 => "The body is too large",
        429 => "The application asked for too much lately: go on after `Retry-After` seconds",
        503 => "Something is unavailable or overloaded: try again after `Retry-After` seconds",
        _ => "A bug of the server",
    };
    let schema = match door {
        Api::Gateway => GatewayAnswer::name(),
        Api::Cmdb => CmdbAnswer::name(),
    };
    let examples = examples
        .into_iter()
        .map(|(name, value)| (name, ExampleBuilder::new().value(Some(value)).build()));
    let content: Content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(schema)))
        .examples_from_iter(examples)
        .build();
    let header = |says: &str| {
        HeaderBuilder::new().description(Some(says)).schema(Some(String::schema())).build()
    };
    let response =
        ResponseBuilder::new().description(says).content("application/json", content).header(
            "X-Bkapi-Request-Id",
            header("The request's id, as in the log and the audit record."),
        );
    match status {
        429 | 503 => response.header("Retry-After", header("Seconds.")).build(),
        _ => response.build(),
    }
}

const REQUEST_ID: &str = "06111a8efac445bcbb0269614e86e14c";

/// A request to the demo inventory.
pub fn request_example() -> Value {
    json!({
        "bk_app_code": "demo",
        "bk_app_secret": "what `app add` printed",
        "bk_username": "admin",
        "bk_obj_id": "bk_switch",
        "bk_asst_obj_id": "host",
        "bk_obj_asst_id": "bk_switch_connect_host",
        "details": [
            {"bk_inst_id": 11, "bk_asst_inst_id": 104},
            {"bk_inst_id": 12, "bk_asst_inst_id": 101},
            {"bk_inst_id": 12, "bk_asst_inst_id": 999},
        ],
    })
}

/// What it is answered with.
fn answer_example(door: Api) -> Value {
    let fault = |fault: DetailError| fault.text(Language::English, "bk_switch", "host");
    let data = json!({
        "success_created": {"0": 73},
        "error_msg": {"1": fault(DetailError::OneToManyTaken), "2": fault(DetailError::TargetMissing)},
    });
    match door {
        Api::Gateway => json!({
            "result": true, "code": 0, "message": "", "permission": null, "request_id": REQUEST_ID, "data": data,
        }),
        Api::Cmdb => json!({
            "result": true, "bk_error_code": 0, "bk_error_msg": "success", "permission": null, "data": data,
        }),
    }
}
