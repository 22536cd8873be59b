//! Concurrent creations, changes and deletions of instances, beside links, models, association
//! kinds, model associations and SQL clients.
//!
//! `make test-large` runs the random changes for a minute, or for as many seconds as
//! `CMDB_RACE_SECONDS` says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cmdb_associations::service::check::check;
use serde_json::{Map, Value, json};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgPool};

use crate::app::{TestApp, assert_sound, pool_of};
use crate::constraints::wait_until_blocked;
use crate::models::{create, rack};
use crate::races::Rng;

async fn new_app(pool: &PgPool, connections: u32) -> Arc<TestApp> {
    let pool = pool_of(pool.connect_options().as_ref().clone(), connections);
    Arc::new(TestApp::of_instances(pool).await)
}

const DEADLOCKS: &str = "select deadlocks from pg_stat_database where datname = current_database()";
/// The number of links of which an instance or the model association does not exist.
const DANGLING: &str = "select count(*)
    from cmdb.instance_association link
    left join cmdb.model_association association on association.id = model_association_id
    where not exists (select from cmdb.instance
            where model_id = source_model_id and instance_id = source_id)
        or not exists (select from cmdb.instance
            where model_id = target_model_id and instance_id = target_id)";

/// Creates racks with these names and returns their ids.
async fn racks(app: &TestApp, names: &[&str]) -> Vec<i64> {
    let details: Vec<_> = names.iter().map(|name| json!({"bk_inst_name": name})).collect();
    let to = "POST createmany/instance/object/rack";
    let (code, data) = app.cmdb("0", to, json!({"details": details})).await;
    assert_eq!((code, &data["error_msg"]), (0, &json!({})));
    ids(&data)
}

fn ids(data: &Value) -> Vec<i64> {
    let created = data["success_created"].as_object().unwrap().values();
    created.map(|id| id.as_i64().unwrap()).collect()
}

/// Starts a request. Its task returns the code and the data.
fn start(app: &Arc<TestApp>, to: &str, body: Value) -> tokio::task::JoinHandle<(i64, Value)> {
    let (app, to) = (Arc::clone(app), to.to_owned());
    tokio::spawn(async move { app.cmdb("0", &to, body).await })
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_concurrent_creations_with_the_same_names_one_succeeds(pool: PgPool) {
    let app = new_app(&pool, 16).await;
    create(&app, "0", "rack").await;
    for round in 0..10 {
        let name = |n: usize| json!({"bk_inst_name": format!("{round} {}", n % 5)});
        // Batches in both orders, and single creations.
        let details = |first: usize| {
            let forward: Vec<_> = (0..5).map(name).collect();
            let backward: Vec<_> = (0..5).rev().map(name).collect();
            json!({"details": if first == 0 { forward } else { backward }})
        };
        let batches: Vec<_> = (0..8)
            .map(|n| start(&app, "POST createmany/instance/object/rack", details(n % 2)))
            .collect();
        let singles: Vec<_> =
            (0..8).map(|n| start(&app, "POST create/instance/object/rack", name(n))).collect();
        let mut created = 0;
        for batch in batches {
            let (code, data) = batch.await.unwrap();
            assert_eq!(code, 0);
            created += ids(&data).len();
            for refusal in data["error_msg"].as_object().unwrap().values() {
                assert!(refusal.as_str().unwrap().starts_with("duplicated instances exist"));
            }
        }
        for single in singles {
            match single.await.unwrap().0 {
                0 => created += 1,
                code => assert_eq!(code, 1_199_014),
            }
        }
        assert_eq!(created, 5);
    }
    assert_eq!(app.count(DEADLOCKS).await, 0);
    assert_sound(&pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn batches_that_change_the_same_instances_in_any_order_do_not_deadlock(pool: PgPool) {
    let app = new_app(&pool, 8).await;
    create(&app, "0", "rack").await;
    let names: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    let ids = racks(&app, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for round in 0..10 {
        let changing: Vec<_> = (0..8)
            .map(|client| {
                let change = |id: &i64| {
                    let mut datas = json!({format!("key_{client}"): round});
                    if client < 2 {
                        datas["bk_inst_name"] = json!(format!("{id} {client} {round}"));
                    }
                    json!({"inst_id": id, "datas": datas})
                };
                let forward: Vec<_> = ids.iter().map(change).collect();
                let backward: Vec<_> = ids.iter().rev().map(change).collect();
                let update = if client % 2 == 0 { forward } else { backward };
                start(&app, "PUT updatemany/instance/object/rack", json!({"update": update}))
            })
            .collect();
        for change in changing {
            assert_eq!(change.await.unwrap().0, 0);
        }
        // None has lost the keys of another.
        let complete: i64 = sqlx::query_scalar(
            "select count(*) from cmdb.instance_document
             where document @> (select jsonb_object_agg('key_' || client, $1)
                 from generate_series(0, 7) client)",
        )
        .bind(round)
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!(complete, 50);
    }
    assert_eq!(app.count(DEADLOCKS).await, 0);
    assert_replays(&pool).await;
    assert_sound(&pool).await;
}

/// Runs SQL in a transaction, sends a request that waits for it, commits, and returns the code.
async fn race(app: &Arc<TestApp>, pool: &PgPool, sql: &str, to: &str, body: Value) -> i64 {
    let mut other = pool.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *other).await.unwrap();
    let request = start(app, to, body);
    wait_until_blocked(pool, 1).await;
    other.commit().await.unwrap();
    request.await.unwrap().0
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_waits_for_a_transaction_that_decides_about_it(pool: PgPool) {
    let app = new_app(&pool, 8).await;
    let race = async |sql: &str, to: &str, body| race(&app, &pool, sql, to, body).await;
    create(&app, "0", "rack").await;
    let [a, b, c, d] = racks(&app, &["a", "b", "c", "d"]).await.try_into().unwrap();
    let new = "POST create/instance/object/rack";
    let at = |verb: &str, id: i64| {
        let action = if verb == "PUT" { "update" } else { "delete" };
        format!("{verb} {action}/instance/object/rack/inst/{id}")
    };
    let named = |name: &str| json!({"bk_inst_name": name});
    let insert = |id: i64, name: &str| {
        format!(
            "insert into cmdb.instance (model_id, instance_id, name)
             select id, {id}, '{name}' from cmdb.model where key = 'rack';
             update cmdb.instance_document set unique_name = '{name}' where instance_id = {id}"
        )
    };
    // A name is taken.
    assert_eq!(race(&insert(1000, "x"), new, named("x")).await, 1_199_014);
    assert_eq!(race(&insert(2000, "y"), &at("PUT", a), named("y")).await, 1_199_014);
    // The instance is deleted.
    let delete = |name: &str| format!("delete from cmdb.instance where name = '{name}'");
    assert_eq!(race(&delete("b"), &at("PUT", b), json!({"rows": 1})).await, 1_199_019);
    assert_eq!(race(&delete("c"), &at("PUT", c), named("z")).await, 1_199_019);
    assert_eq!(race(&delete("d"), &at("DELETE", d), json!({})).await, 0);
    // It is linked.
    let link = "insert into cmdb.instance_association (model_association_id, source_id, target_id)
                select id, 7, 7 from cmdb.model_association where key = 'bk_switch_default_host'";
    let switch = "DELETE delete/instance/object/bk_switch/inst/7";
    assert_eq!(race(link, switch, json!({})).await, 1_101_075);
    assert_sound_but_for_sql(&pool).await;
    // The model is deleted.
    let model = "delete from cmdb.instance where model_id = (select id from cmdb.model
                     where key = 'rack');
                 delete from cmdb.model where key = 'rack'";
    assert_eq!(race(model, new, named("new")).await, 1_199_011);
    assert_eq!(app.count(DEADLOCKS).await, 0);
    assert_eq!(app.count(DANGLING).await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_id_that_a_sql_client_inserts_meanwhile_is_left_to_it(pool: PgPool) {
    let app = new_app(&pool, 8).await;
    create(&app, "0", "rack").await;
    // The row before the trigger moves the sequence.
    let insert = "set local cmdb.documents_are_written = 'yes';
                  insert into cmdb.instance (model_id, instance_id, name)
                  select id, 1, 'x' from cmdb.model where key = 'rack';
                  insert into cmdb.instance_document (model_id, instance_id, tenant_id, document)
                  select id, 1, 0, cmdb.new_document('rack', '0', 1, 'x')
                  from cmdb.model where key = 'rack'";
    let new = "POST create/instance/object/rack";
    assert_eq!(race(&app, &pool, insert, new, json!({"bk_inst_name": "y"})).await, 0);
    assert_sound(&pool).await;
}

/// Asserts that no invariant is violated, where SQL clients have changed links.
async fn assert_sound_but_for_sql(pool: &PgPool) {
    let report = check(&mut pool.acquire().await.unwrap()).await.unwrap();
    let broken: Vec<_> = report.invariants.iter().filter(|(_, found)| found.count > 0).collect();
    assert!(broken.is_empty(), "{broken:?}");
}

/// What an audit record of instances says.
#[derive(sqlx::FromRow)]
struct Record {
    resource_id: i32,
    before: Option<Json<Documents>>,
    after: Option<Json<Documents>>,
}

/// Documents, or parts of them, by the ids of instances.
type Documents = BTreeMap<i64, Map<String, Value>>;

/// Asserts that the audit records, one after another, give the documents that are stored. Returns
/// the ids of all instances that were created.
async fn assert_replays(pool: &PgPool) -> BTreeSet<i64> {
    // The program sets these, and records them with the creation only.
    let without_times = |mut document: Map<String, Value>| {
        document.retain(|key, _| {
            !["last_time", "bk_updated_at", "bk_updated_by"].contains(&key.as_str())
        });
        document
    };
    let mut documents = BTreeMap::new();
    let mut created = BTreeSet::new();
    let records = "select resource_id, before, after from cmdb.audit_log
                   where resource_type = 'instance' order by id";
    for record in sqlx::query_as::<_, Record>(records).fetch_all(pool).await.unwrap() {
        let model = record.resource_id;
        match (record.before, record.after) {
            (None, Some(Json(after))) => {
                for (id, document) in after {
                    assert!(created.insert(id), "{id} was created twice");
                    documents.insert((model, id), without_times(document));
                }
            }
            (Some(Json(before)), Some(Json(after))) => {
                assert!(before.keys().eq(after.keys()));
                for ((id, before), (_, after)) in before.into_iter().zip(after) {
                    let document = documents.get_mut(&(model, id)).unwrap();
                    for key in after.keys() {
                        let old = document.get(key).unwrap_or(&Value::Null);
                        assert_eq!(before.get(key).unwrap_or(&Value::Null), old, "{id}: {key}");
                    }
                    document.extend(after);
                }
            }
            (Some(Json(before)), None) => {
                for (id, document) in before {
                    let stored = documents.remove(&(model, id));
                    assert_eq!(stored, Some(without_times(document)), "{id}");
                }
            }
            (None, None) => panic!("a record without documents"),
        }
    }
    let stored = "select model_id, instance_id, document from cmdb.instance_document
                  where document ? 'bk_created_by'";
    let stored: BTreeMap<_, _> = sqlx::query_as::<_, (i32, i64, Json<_>)>(stored)
        .fetch_all(pool)
        .await
        .unwrap()
        .into_iter()
        .map(|(model, id, Json(document))| ((model, id), without_times(document)))
        .collect();
    assert_eq!(documents, stored);
    created
}

/// What the clients of [`change_everything`] know.
#[derive(Default)]
struct Known {
    /// By model; some are deleted.
    instances: BTreeMap<String, Vec<i64>>,
    /// Numbers of models, by their keys.
    models: BTreeMap<String, i64>,
    kinds: BTreeMap<String, i64>,
    associations: BTreeMap<String, i64>,
    links: Vec<i64>,
    created_instances: BTreeSet<i64>,
    created_links: usize,
}

const MODELS: [&str; 4] = ["m0", "m1", "m2", "m3"];
const KINDS: [&str; 3] = ["k0", "k1", "k2"];
const MAPPINGS: [&str; 3] = ["1:1", "1:n", "n:n"];

/// A client that sends random requests. Each is answered, by success or a refusal that fits.
struct Client {
    app: Arc<TestApp>,
    known: Arc<Mutex<Known>>,
    rng: Rng,
    /// How often each request had each code.
    codes: BTreeMap<(&'static str, i64), usize>,
}

impl Client {
    async fn send(
        &mut self, what: &'static str, to: &str, body: Value, refusals: &[i64],
    ) -> Option<Value> {
        let text = body.to_string();
        let mut reply = self.app.cmdb_reply("admin", "0", to, text.into()).await;
        let code = reply.json["bk_error_code"].as_i64().unwrap();
        let data = reply.json["data"].take();
        assert!(code == 0 || refusals.contains(&code), "{to} {body} {}", reply.text);
        *self.codes.entry((what, code)).or_default() += 1;
        (code == 0).then_some(data)
    }

    /// A model, and ids of instances that it has or had.
    fn instances(&mut self, count: u64) -> (&'static str, Vec<i64>) {
        let model = self.rng.pick(&MODELS);
        let known = self.known.lock().unwrap();
        let ids = known.instances.get(model).filter(|ids| !ids.is_empty());
        let ids = ids.map_or(&[0][..], Vec::as_slice);
        let ids: BTreeSet<_> = (0..count).map(|_| self.rng.pick(ids)).collect();
        (model, ids.into_iter().filter(|id| *id > 0).collect())
    }

    fn attributes(&mut self, is_named: bool) -> Value {
        let mut attributes = json!({format!("key_{}", self.rng.next(5)): self.rng.next(100)});
        if is_named {
            attributes["bk_inst_name"] = json!(format!("name {}", self.rng.next(200)));
        }
        attributes
    }

    async fn step(&mut self) {
        match self.rng.next(30) {
            0..6 => self.create_instances().await,
            6..12 => self.update_instances().await,
            12..16 => self.delete_instances().await,
            16..22 => self.link().await,
            22..25 => self.delete_links().await,
            25..27 => self.change_model().await,
            27 => self.change_kind().await,
            _ => self.change_association().await,
        }
    }

    async fn create_instances(&mut self) {
        let model = self.rng.pick(&MODELS);
        let ids = if self.rng.next(2) == 0 {
            let body = self.attributes(true);
            let to = format!("POST create/instance/object/{model}");
            let refusals = [1_199_014, 1_199_011, 1_101_084];
            let data = self.send("create_inst", &to, body, &refusals).await;
            data.map(|data| vec![data["bk_inst_id"].as_i64().unwrap()])
        } else {
            let count = self.rng.next(20) + 1;
            let details: Vec<_> = (0..count).map(|_| self.attributes(true)).collect();
            let to = format!("POST createmany/instance/object/{model}");
            let body = json!({"details": details});
            self.send("batch_create_inst", &to, body, &[1_199_011]).await.map(|data| ids(&data))
        };
        let mut known = self.known.lock().unwrap();
        for id in ids.unwrap_or_default() {
            assert!(known.created_instances.insert(id), "{id} was given twice");
            known.instances.entry(model.to_owned()).or_default().push(id);
        }
    }

    async fn update_instances(&mut self) {
        let refusals = [1_199_019, 1_199_014];
        if self.rng.next(2) == 0 {
            let (model, ids) = self.instances(1);
            let Some(id) = ids.first() else { return };
            let is_named = self.rng.next(3) == 0;
            let body = self.attributes(is_named);
            let to = format!("PUT update/instance/object/{model}/inst/{id}");
            self.send("update_inst", &to, body, &refusals).await;
        } else {
            let (model, mut ids) = self.instances(6);
            if self.rng.next(2) == 0 {
                ids.reverse();
            }
            let mut update = Vec::new();
            for id in ids {
                let is_named = self.rng.next(6) == 0;
                update.push(json!({"inst_id": id, "datas": self.attributes(is_named)}));
            }
            let to = format!("PUT updatemany/instance/object/{model}");
            let body = json!({"update": update});
            self.send("batch_update_inst", &to, body, &refusals).await;
        }
    }

    async fn delete_instances(&mut self) {
        let count = 1 + self.rng.next(2) * 5;
        let (model, ids) = self.instances(count);
        self.delete_of(model, &ids).await;
    }

    async fn delete_of(&mut self, model: &str, ids: &[i64]) {
        let deleted = if let [id] = ids {
            let to = format!("DELETE delete/instance/object/{model}/inst/{id}");
            self.send("delete_inst", &to, json!({}), &[1_101_075]).await
        } else {
            let to = format!("DELETE deletemany/instance/object/{model}");
            let body = json!({"delete": {"inst_ids": ids}});
            self.send("batch_delete_inst", &to, body, &[1_101_075]).await
        };
        let mut known = self.known.lock().unwrap();
        if let (Some(_), Some(existing)) = (deleted, known.instances.get_mut(model)) {
            existing.retain(|id| !ids.contains(id));
        }
    }

    /// The key of a model association, with the numbers of its models, its kind and its mapping.
    fn association(&mut self) -> (String, [usize; 4]) {
        // The last model has none, so it can be deleted. Nor has the last kind, but for a while.
        let [source, target] = [(); 2].map(|()| usize::try_from(self.rng.next(3)).unwrap());
        let kind = if source + target == 0 { self.rng.next(3) } else { self.rng.next(2) };
        let kind = usize::try_from(kind).unwrap();
        // One for each, because the models and the kind cannot be associated twice.
        let mapping = (source + target + kind) % 3;
        let key = format!("{}_{}_{}", MODELS[source], KINDS[kind], MODELS[target]);
        (key, [source, target, kind, mapping])
    }

    async fn link(&mut self) {
        let (key, [source, target, ..]) = self.association();
        let pairs: Vec<_> = {
            let known = self.known.lock().unwrap();
            let mut end = |model: usize| {
                let ids = known.instances.get(MODELS[model]).map_or(&[1][..], Vec::as_slice);
                self.rng.pick(if ids.is_empty() { &[1] } else { ids })
            };
            let pair = |_| json!({"bk_inst_id": end(source), "bk_asst_inst_id": end(target)});
            (0..10).map(pair).collect()
        };
        let ids = if self.rng.next(3) == 0 {
            let mut body = pairs[0].clone();
            body["bk_obj_asst_id"] = json!(key);
            let refusals =
                [1_101_046, 1_101_052, 1_101_061, 1_199_014, 1_101_073, 1_101_074, 1_101_072];
            let to = "POST create/instassociation";
            let data = self.send("add_instance_association", to, body, &refusals).await;
            data.map(|data| vec![data["id"].as_i64().unwrap()])
        } else {
            let body = json!({
                "bk_obj_id": MODELS[source], "bk_asst_obj_id": MODELS[target],
                "bk_obj_asst_id": key, "details": pairs,
            });
            let to = "POST createmany/instassociation";
            self.send("batch_create_instance_association", to, body, &[1_101_046])
                .await
                .map(|data| ids(&data))
        };
        let mut known = self.known.lock().unwrap();
        for id in ids.unwrap_or_default() {
            known.links.push(id);
            known.created_links += 1;
        }
    }

    async fn delete_links(&mut self) {
        let ids: Vec<_> = {
            let mut known = self.known.lock().unwrap();
            let count = usize::try_from(self.rng.next(30)).unwrap().min(known.links.len());
            let from = usize::try_from(self.rng.next(1 + known.links.len() as u64)).unwrap();
            let from = from.min(known.links.len() - count);
            known.links.drain(from..from + count).collect()
        };
        // Each link is found by either of its models, so both are tried.
        for model in MODELS {
            let body = json!({"bk_obj_id": model, "id": ids});
            if !ids.is_empty() {
                let to = "DELETE delete/instassociation/batch";
                self.send("delete_related_inst_asso", to, body, &[]).await;
            }
        }
    }

    async fn change_model(&mut self) {
        let key = self.rng.pick(&MODELS);
        let id = self.known.lock().unwrap().models.get(key).copied();
        match (id, self.rng.next(10)) {
            (Some(id), 0..3) => {
                let known = self.known.lock().unwrap().instances.get(key).cloned();
                self.delete_of(key, &known.unwrap_or_default()).await;
                let to = format!("DELETE delete/object/{id}");
                let refusals = [1_101_037, 1_101_053];
                self.send("delete_object", &to, json!({}), &refusals).await;
            }
            (Some(id), 3..5) => {
                let body = json!({"bk_ispaused": self.rng.next(4) == 0, "description": "x"});
                let to = format!("PUT update/object/{id}");
                self.send("update_object", &to, body, &[1_101_106]).await;
            }
            _ => {
                let to = "POST create/object";
                if let Some(data) = self.send("create_object", to, rack(key), &[1_199_014]).await {
                    let id = data["id"].as_i64().unwrap();
                    self.known.lock().unwrap().models.insert(key.to_owned(), id);
                }
            }
        }
    }

    async fn change_kind(&mut self) {
        let key = self.rng.pick(&KINDS);
        let id = self.known.lock().unwrap().kinds.get(key).copied();
        if let (Some(id), 0) = (id, self.rng.next(3)) {
            let to = format!("DELETE delete/associationtype/{id}");
            self.send("delete_association_type", &to, json!({}), &[1_101_060]).await;
            return;
        }
        let body = json!({"bk_asst_id": key});
        let to = "POST create/associationtype";
        if let Some(data) = self.send("create_association_type", to, body, &[1_199_014]).await {
            let id = data["id"].as_i64().unwrap();
            self.known.lock().unwrap().kinds.insert(key.to_owned(), id);
        }
    }

    async fn change_association(&mut self) {
        let (key, [source, target, kind, mapping]) = self.association();
        let id = self.known.lock().unwrap().associations.get(&key).copied();
        if let (Some(id), 0) = (id, self.rng.next(3)) {
            let to = format!("DELETE delete/objectassociation/{id}");
            self.send("delete_object_association", &to, json!({}), &[1_101_043]).await;
            return;
        }
        let body = json!({
            "bk_obj_asst_id": key, "bk_obj_id": MODELS[source], "bk_asst_obj_id": MODELS[target],
            "bk_asst_id": KINDS[kind], "mapping": MAPPINGS[mapping],
        });
        let to = "POST create/objectassociation";
        let refusals = [1_101_038, 1_199_014, 1_199_011];
        if let Some(data) = self.send("create_object_association", to, body, &refusals).await {
            let id = data["id"].as_i64().unwrap();
            self.known.lock().unwrap().associations.insert(key, id);
        }
    }
}

/// Creates everything but instances and links, so that changes seldom find nothing.
async fn set_up(app: &Arc<TestApp>, known: &Arc<Mutex<Known>>) {
    let (app, known) = (Arc::clone(app), Arc::clone(known));
    let mut client = Client { app, known, rng: Rng(100), codes: BTreeMap::new() };
    let is_complete = |known: &Known| {
        known.models.len() == MODELS.len()
            && known.kinds.len() == KINDS.len()
            && known.associations.len() > 15
    };
    while !is_complete(&client.known.lock().unwrap()) {
        client.change_model().await;
        client.change_kind().await;
        client.change_association().await;
    }
}

/// A SQL client that inserts instances with ids above the sequence, and deletes them.
async fn insert_by_sql(pool: PgPool, ends: Instant) {
    while Instant::now() < ends {
        for sql in [
            "insert into cmdb.instance (model_id, instance_id, name)
             select id, last_value + n, 'by SQL' from cmdb.model, generate_series(1, 20) n,
                 cmdb.instance_id_seq
             where key = 'm0'",
            "delete from cmdb.instance where name = 'by SQL'",
        ] {
            // Another transaction may have the id, or delete the model, or wait for this one.
            if let Err(error) = sqlx::query(sql).execute(&pool).await {
                let code = error.as_database_error().unwrap().code().unwrap().into_owned();
                assert!(["23505", "23503", "40P01"].contains(&&*code), "{error}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
#[expect(clippy::print_stdout, reason = "make test-large shows how often each answer was given")]
async fn the_inventory_stays_sound_under_random_changes_of_everything(pool: PgPool) {
    let is_large = std::env::var_os("CMDB_LARGE_TESTS").is_some();
    let seconds = std::env::var_os("CMDB_RACE_SECONDS");
    let seconds = seconds.map_or(60, |text| text.into_string().unwrap().parse().unwrap());
    let duration = Duration::from_secs(if is_large { seconds } else { 3 });
    let app = new_app(&pool, 16).await;
    let known = Arc::<Mutex<Known>>::default();
    set_up(&app, &known).await;
    let ends = Instant::now() + duration;
    let inserting = tokio::spawn(insert_by_sql(pool.clone(), ends));
    let clients: Vec<_> = (0..12)
        .map(|seed| {
            let (app, known) = (Arc::clone(&app), Arc::clone(&known));
            let mut client = Client { app, known, rng: Rng(seed), codes: BTreeMap::new() };
            tokio::spawn(async move {
                while Instant::now() < ends {
                    client.step().await;
                }
                client.codes
            })
        })
        .collect();
    let mut codes = BTreeMap::<_, usize>::new();
    for client in clients {
        for (code, count) in client.await.unwrap() {
            *codes.entry(code).or_default() += count;
        }
    }
    inserting.await.unwrap();
    let report = codes.iter().map(|((what, code), count)| format!("{what} {code}: {count}\n"));
    println!("{}deadlocks: {}", report.collect::<String>(), app.count(DEADLOCKS).await);
    for what in ["create_inst", "batch_update_inst", "delete_inst", "delete_related_inst_asso"] {
        assert!(codes.contains_key(&(what, 0)), "{what}: {codes:?}");
    }
    let known = Arc::into_inner(known).unwrap().into_inner().unwrap();
    assert_eq!(assert_replays(&pool).await, known.created_instances);
    assert_eq!(app.count(DANGLING).await, 0);
    let links = "select coalesce(sum(upper(ids) - lower(ids)), 0)::bigint
                 from cmdb.audit_log, unnest(association_ids) ids";
    assert_eq!(usize::try_from(app.count(links).await), Ok(known.created_links));
    assert_sound(&pool).await;
}
