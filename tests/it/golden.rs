//! Replays the exchanges recorded from BlueKing CMDB, at both APIs, on a database imported from
//! the export that was recorded with them. See `tests/golden/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use cmdb_associations::http::endpoints::{ENDPOINTS, EndpointEntry};
use cmdb_associations::http::{Api, ClientAddr};
use cmdb_associations::service::import;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::app::TestApp;
use crate::recordings::{
    Answer, Deviation, Deviations, Exchange, FOLDER, Reason, Step, compare, numbers,
};

/// The models, kind and model associations of the world are created on an empty database.
const WORLD: &str = "00_world.jsonl";

/// The other files in the order of the replay. Those that delete come after those that only read.
const FILES: [&str; 20] = [
    "01_add_instance_association.jsonl",
    "04_search_instance_associations.jsonl",
    "05_count_instance_associations.jsonl",
    "06_find_instance_association.jsonl",
    "07_search_related_inst_asso.jsonl",
    "08_find_instassociation_with_inst.jsonl",
    "09_search_inst_association_topo.jsonl",
    "10_search_inst_asst_object_inst_base_info.jsonl",
    "11_find_object_association.jsonl",
    "12_search_objects.jsonl",
    "13_search_object_instances.jsonl",
    "02_delete_instance_association.jsonl",
    "03_delete_related_inst_asso.jsonl",
    "14_objects.jsonl",
    "15_instances.jsonl",
    "16_model_associations.jsonl",
    "17_hosts.jsonl",
    "20_dangling.jsonl",
    "21_accounts.jsonl",
    "30_doors.jsonl",
];

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_recorded_exchange_is_answered_as_recorded_at_the_cmdb_api(pool: PgPool) {
    replay(pool, Api::Cmdb).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_recorded_exchange_is_answered_as_recorded_at_the_gateway_api(pool: PgPool) {
    replay(pool, Api::Gateway).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_world_is_created_as_recorded(pool: PgPool) {
    // The ids of the recordings begin here.
    let sequences = "select setval('cmdb.model_id_seq', 4000000),
        setval('cmdb.model_association_number_seq', 6000000),
        setval('cmdb.association_kind_id_seq', 7000000)";
    sqlx::query(sequences).execute(&pool).await.unwrap();
    let mut replay = Replay::new(pool, Api::Cmdb).await;
    (replay.ids.ours, replay.ids.recorded) = Default::default();
    replay.file(WORLD).await;
    replay.deviations.only(WORLD);
    replay.finish();
}

#[test]
fn every_file_of_recordings_is_replayed() {
    let files = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let recorded = files.filter(|file| file.extension().is_some_and(|end| end == "jsonl"));
    let replayed = FILES.iter().chain([&WORLD]).map(|file| Path::new(FOLDER).join(file));
    assert_eq!(recorded.collect::<BTreeSet<_>>(), replayed.collect());
}

/// The last column of its tables has the exchanges, such as `01: 1–4, 7; 03: 2`.
#[test]
fn the_compatibility_page_names_the_exchanges_that_deviate() {
    let page = fs::read_to_string("docs/compatibility.md").unwrap();
    let mut named = BTreeSet::new();
    for row in page.lines().filter_map(|line| line.strip_suffix(" |")) {
        let (_, cell) = row.rsplit_once("| ").unwrap();
        for (file, lines) in cell.split("; ").filter_map(|part| part.split_once(": ")) {
            let lines = numbers(&lines.replace('–', "-")).collect::<Vec<_>>();
            named.extend(lines.into_iter().map(|line| format!("{file}:{line}")));
        }
    }
    let listed = [Api::Cmdb, Api::Gateway].map(|api| Deviations::at(api).remaining());
    assert_eq!(named, listed.into_iter().flatten().collect());
}

async fn replay(pool: PgPool, api: Api) {
    import_world(&pool).await;
    let mut replay = Replay::new(pool, api).await;
    for file in FILES {
        replay.file(file).await;
    }
    replay.deviations.without(WORLD);
    replay.finish();
}

/// Imports the export. Only the mapping that BlueKing CMDB does not know is reported.
async fn import_world(pool: &PgPool) {
    let export = import::find_export(&Path::new(FOLDER).join("world")).unwrap();
    let mut reported = Vec::new();
    let report = |file: &str, row: &import::ReportedRow| {
        reported.push(format!("{file}:{}: {}", row.line, row.reason));
    };
    let mut conn = pool.acquire().await.unwrap();
    let open = |path: &Path| File::open(path);
    import::import(&mut conn, &export, open, || (), report).await.unwrap();
    assert_eq!(reported, ["cc_ObjAsst.json:13: mapping is \"n:1\", imported as n:n"]);
}

struct Replay {
    app: TestApp,
    api: Api,
    deviations: Deviations,
    ids: Ids,
    /// How many exchanges of a file had which outcome.
    outcomes: BTreeMap<String, BTreeMap<String, usize>>,
    failures: Vec<String>,
}

impl Replay {
    async fn new(pool: PgPool, api: Api) -> Self {
        sqlx::query(
            "insert into cmdb.permission_grant (user_name, action)
             values ('admin', 'edit'), ('admin', 'models'), ('admin', 'create'),
                 ('admin', 'delete') on conflict do nothing",
        )
        .execute(&pool)
        .await
        .unwrap();
        let app = TestApp::with(pool, |setup| {
            setup.authenticator.trusted_peers = vec!["10.1.2.3/32".parse().unwrap()];
        })
        .await;
        Self {
            app,
            api,
            deviations: Deviations::at(api),
            ids: Ids::default(),
            outcomes: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    async fn file(&mut self, file: &str) {
        let (number, _) = file.split_once('_').unwrap();
        for step in Step::read(file) {
            match step {
                Step::Exchange(exchange) => self.exchange(number, &exchange).await,
                Step::Deletion(deletion) => self.delete_server(deletion.server_id()).await,
            }
        }
    }

    async fn exchange(&mut self, file: &str, exchange: &Exchange) {
        let deviation = self.deviations.take(file, exchange.line);
        let outcome = match self.try_exchange(exchange, deviation.as_ref()).await {
            Ok(outcome) => outcome,
            Err(problem) => {
                let Exchange { line, name, method, path, .. } = exchange;
                let body = exchange.body();
                let request = format!("{method} {path} {}", truncate(&body));
                self.failures.push(format!("{file}:{line} ({name}) {request}: {problem}"));
                "failed".to_owned()
            }
        };
        let outcomes = self.outcomes.entry(file.to_owned()).or_default();
        *outcomes.entry(outcome).or_default() += 1;
    }

    /// Deletes an instance of `gd_server` as only a superuser can, whatever is linked to it.
    async fn delete_server(&self, id: i64) {
        let id = self.ids.in_request(&id.to_string());
        let delete = format!(
            "update cmdb.cache_version set version = version + 1;
             set local session_replication_role = replica;
             delete from cmdb.instance where instance_id = {id}
                 and model_id = (select id from cmdb.model where key = 'gd_server');
             delete from cmdb.instance_document where instance_id = {id}
                 and model_id = (select id from cmdb.model where key = 'gd_server')"
        );
        let mut transaction = self.app.pool.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(delete)).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }

    /// Sends a request and compares the answer. Returns in what it deviates.
    async fn try_exchange(
        &mut self, exchange: &Exchange, deviation: Option<&Deviation>,
    ) -> Result<String, String> {
        let (path, body) = (&exchange.path, exchange.body());
        let mut api = self.api;
        if api == Api::Gateway
            && let Err(reason) = at_gateway(exchange, path, &body, exchange.is_raw())
        {
            match reason {
                // Later exchanges show what it changes.
                CMDB_ONLY => api = Api::Cmdb,
                NO_ENDPOINT
                    if !exchange.is_unrouted()
                        && deviation.is_none_or(|one| one.reason != Reason::NoEndpoint) =>
                {
                    return Err(reason.to_owned());
                }
                _ => return Ok(reason.to_owned()),
            }
        }
        let answer = self.send(api, exchange, &body, exchange.is_raw()).await;
        compare(exchange, &answer, deviation)?;
        if api != self.api {
            return Ok(CMDB_ONLY.to_owned());
        }
        let Some(deviation) = deviation else { return Ok("equal".to_owned()) };
        if let Some(plain) = &deviation.plain {
            let answer = self.send(api, exchange, plain, false).await;
            compare(exchange, &answer, None).map_err(|problem| format!("plain: {problem}"))?;
        }
        Ok(deviation.reason.to_string())
    }

    /// Sends a request with this body. The ids are ours in the request, and the recorded ones in
    /// the returned answer.
    async fn send(&mut self, api: Api, exchange: &Exchange, body: &str, is_raw: bool) -> Answer {
        let [path, body] = [&exchange.path, body].map(|text| self.ids.in_request(text));
        let request = match api {
            Api::Cmdb => cmdb_request(exchange, &path, body),
            Api::Gateway => {
                let (path, body) = at_gateway(exchange, &path, &body, is_raw).unwrap();
                gateway_request(exchange, &path, body)
            }
        };
        let reply = self.app.send(request).await;
        let mut answer = Answer { status: reply.status.as_u16(), body: reply.json };
        // A path of no endpoint belongs to no API.
        if api == Api::Gateway || reply.status == StatusCode::NOT_FOUND {
            let fields = answer.body.as_object_mut().unwrap();
            fields.remove("request_id").unwrap();
            for (name, cmdb_name) in [("code", "bk_error_code"), ("message", "bk_error_msg")] {
                let value = fields.remove(name).unwrap();
                let value = if value == "" { json!("success") } else { value };
                fields.insert(cmdb_name.to_owned(), value);
            }
        }
        let creates = ["/api/v3/create", "/api/v3/hosts/add"];
        if creates.iter().any(|prefix| exchange.path.starts_with(prefix)) {
            self.ids.add_all(&exchange.answer().body["data"], &answer.body["data"]);
        }
        self.ids.make_recorded(&mut answer.body["data"]);
        answer
    }

    /// Prints the outcomes, and fails if an answer differs otherwise than listed.
    #[expect(clippy::print_stdout, reason = "the table of outcomes is a result of the test")]
    fn finish(mut self) {
        for unused in self.deviations.remaining() {
            self.failures.push(format!("{unused} is listed, and there is no such exchange"));
        }
        for (file, outcomes) in &self.outcomes {
            let counts: Vec<_> =
                outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
            println!("{:?} {file}: {}", self.api, counts.join(", "));
        }
        let count = self.failures.len();
        let first: Vec<_> = self.failures.iter().take(40).map(String::as_str).collect();
        assert!(count == 0, "{count} failures:\n{}", first.join("\n"));
    }
}

fn cmdb_request(exchange: &Exchange, path: &str, body: String) -> Request<Body> {
    let mut request = Request::builder().method(exchange.method.as_str()).uri(path);
    for (name, value) in &exchange.headers {
        request = request.header(name, value);
    }
    let mut request = request.body(body.into()).unwrap();
    request.extensions_mut().insert(ClientAddr("10.1.2.3".parse().unwrap()));
    request
}

fn gateway_request(exchange: &Exchange, path: &str, body: String) -> Request<Body> {
    let credentials = json!({
        "bk_app_code": "esb_test", "bk_app_secret": "xxx",
        "bk_username": exchange.headers["BK_USER"],
    });
    let language = exchange.headers.get("HTTP_BLUEKING_LANGUAGE").map_or("en", String::as_str);
    let request = Request::post(path)
        .header("x-bkapi-authorization", credentials.to_string())
        .header("blueking-language", language);
    request.body(body.into()).unwrap()
}

const NO_ENDPOINT: &str = "not at the gateway API: no endpoint";
const CMDB_ONLY: &str = "sent at the CMDB API, the only one of the endpoint";

/// The path and the body of a request at the gateway API, or why it cannot be sent there.
///
/// The fields of the body name the tenant, and the variables in the path at the CMDB API. A raw
/// body is sent as it is: its tenant is "0".
fn at_gateway(
    exchange: &Exchange, path: &str, body: &str, is_raw: bool,
) -> Result<(String, String), &'static str> {
    let (entry, variables) = endpoint(&exchange.method, path).ok_or(NO_ENDPOINT)?;
    if !entry.is_at(Api::Gateway) {
        return Err(CMDB_ONLY);
    }
    let path = entry.path(Api::Gateway);
    let tenant = exchange.headers["HTTP_BK_SUPPLIER_ACCOUNT"].as_str();
    if is_raw {
        assert_eq!(tenant, "0");
        return match body {
            "" | "null" => Err("not at the gateway API: a body that counts as {} only here"),
            _ => Ok((path, body.to_owned())),
        };
    }
    let mut fields: Map<String, Value> = match body {
        "" => Map::new(),
        _ => serde_json::from_str(body).unwrap(),
    };
    fields.extend(variables);
    fields.insert("bk_supplier_account".to_owned(), json!(tenant));
    Ok((path, Value::Object(fields).to_string()))
}

/// The endpoint with this method and path at the CMDB API, and the variables in the path.
fn endpoint(method: &str, path: &str) -> Option<(&'static EndpointEntry, Map<String, Value>)> {
    let of_method = ENDPOINTS.iter().filter(|entry| entry.method(Api::Cmdb).as_str() == method);
    // An endpoint without variables comes first: `batch` is no value of a variable.
    let mut found: Vec<_> = of_method
        .filter_map(|entry| Some((entry, variables(&entry.path(Api::Cmdb), path)?)))
        .collect();
    found.sort_by_key(|(_, variables)| variables.len());
    found.into_iter().next()
}

/// The variables in a path, if it has this form. Numbers are sent as numbers, others as texts.
fn variables(form: &str, path: &str) -> Option<Map<String, Value>> {
    let [form, path] =
        [form, path].map(|path| path.trim_end_matches('/').split('/').collect::<Vec<_>>());
    let mut variables = Map::new();
    for (form, segment) in form.iter().zip(&path) {
        match form.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => {
                let number = segment.parse::<i64>().ok();
                let value = number.map_or_else(|| json!(segment), |number| json!(number));
                variables.insert(name.to_owned(), value);
            }
            None if form == segment => {}
            None => return None,
        }
    }
    (form.len() == path.len()).then_some(variables)
}

/// An id that nothing has, in the recordings and here.
const UNUSED_ID: i64 = 6_999_998;

/// What the replay created: the ids in the recordings and here. The world has the same ids.
struct Ids {
    /// The first and the last id of each kind of things that the replay creates.
    ranges: Vec<[i64; 2]>,
    ours: BTreeMap<i64, i64>,
    recorded: BTreeMap<i64, i64>,
}

impl Default for Ids {
    fn default() -> Self {
        #[derive(Deserialize)]
        struct Document {
            ranges: BTreeMap<String, [i64; 2]>,
            names: BTreeMap<String, i64>,
        }
        let ids = fs::read_to_string(Path::new(FOLDER).join("ids.json")).unwrap();
        let Document { ranges, names } = serde_json::from_str(&ids).unwrap();
        let same: BTreeMap<_, _> = names.values().map(|id| (*id, *id)).collect();
        let kinds = ["inst", "host", "link", "model", "model association", "kind"];
        Self { ranges: kinds.map(|kind| ranges[kind]).to_vec(), ours: same.clone(), recorded: same }
    }
}

impl Ids {
    /// Adds the ids of what was created in the recording and here.
    fn add_all(&mut self, recorded: &Value, ours: &Value) {
        for place in ["/id", "/bk_inst_id"] {
            self.add([recorded, ours].map(|data| data.pointer(place)));
        }
        for index in 0..200 {
            for place in
                [format!("/success_created/{index}"), format!("/success/{index}/bk_host_id")]
            {
                self.add([recorded, ours].map(|data| data.pointer(&place)));
            }
        }
    }

    fn add(&mut self, ids: [Option<&Value>; 2]) {
        let ids = ids.map(|id| id.and_then(Value::as_i64));
        if let [Some(recorded), Some(ours)] = ids {
            // The ids of other things are in other ranges, so an id needs no name.
            let is_of_both =
                |range: &&[i64; 2]| [recorded, ours].iter().all(|id| is_in(range, *id));
            assert!(self.ranges.iter().any(|range| is_of_both(&range)), "{recorded} and {ours}");
            if recorded != ours || !self.ours.contains_key(&recorded) {
                assert_eq!(self.ours.insert(recorded, ours), None);
                assert_eq!(self.recorded.insert(ours, recorded), None);
            }
        }
    }

    /// Our id for a recorded one, if it is another one.
    fn our_id(&self, recorded: i64) -> Option<i64> {
        let ours = self.ours.get(&recorded).copied();
        // What was not created here has an id that nothing has.
        ours.or_else(|| self.recorded.contains_key(&recorded).then_some(UNUSED_ID))
    }

    /// A path or a body with our ids in the place of the recorded ones.
    fn in_request(&self, text: &str) -> String {
        let mut replaced = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
            let (before, from_digit) = rest.split_at(start);
            let end = from_digit.find(|c: char| !c.is_ascii_digit()).unwrap_or(from_digit.len());
            let (digits, after) = from_digit.split_at(end);
            let ours = digits.parse().ok().and_then(|id| self.our_id(id));
            replaced.push_str(before);
            replaced.push_str(&ours.map_or_else(|| digits.to_owned(), |id| id.to_string()));
            rest = after;
        }
        replaced + rest
    }

    /// Replaces our ids in an answer by the recorded ones, and any other by -1.
    fn make_recorded(&self, value: &mut Value) {
        match value {
            Value::Array(elements) => {
                for element in elements {
                    self.make_recorded(element);
                }
            }
            Value::Object(fields) => {
                for field in fields.values_mut() {
                    self.make_recorded(field);
                }
            }
            Value::Number(number) => {
                let is_one = |id: &i64| self.ranges.iter().any(|range| is_in(range, *id));
                if let Some(id) = number.as_i64().filter(is_one) {
                    *value = json!(self.recorded.get(&id).copied().unwrap_or(-1));
                }
            }
            _ => {}
        }
    }
}

fn is_in([first, last]: &[i64; 2], id: i64) -> bool {
    (*first..=*last).contains(&id)
}

/// The start of a text, for a message.
fn truncate(text: &str) -> String {
    text.chars().take(40).collect()
}
