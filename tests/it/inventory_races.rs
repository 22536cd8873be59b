//! Concurrent changes of models, association kinds and model associations, by requests, beside
//! batches and SQL clients.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use cmdb_associations::domain::permission::{GrantAction, Scope};
use cmdb_associations::http::ClientAddr;
use cmdb_associations::service;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use crate::app::{PATH, Reply, TestApp, assert_sound, pool_of};
use crate::constraints::{rejection, wait_until_blocked};

const MODEL: &str = "/api/v3/create/object";
const KIND: &str = "/api/v3/create/associationtype";
const ASSOCIATION: &str = "/api/v3/create/objectassociation";

/// With the CMDB API, and `admin` may change models.
pub(crate) async fn new_app(pool: &PgPool, connections: u32) -> Arc<TestApp> {
    let pool = pool_of(pool.connect_options().as_ref().clone(), connections);
    let app = TestApp::with(pool, |setup| {
        setup.authenticator.trusted_peers = vec!["10.0.0.0/8".parse().unwrap()];
    });
    let app = app.await;
    let scope = Scope { action: GrantAction::Models, ..Scope::default() };
    let mut conn = app.pool.acquire().await.unwrap();
    service::permission::add(&mut conn, "admin", &[scope]).await.unwrap();
    Arc::new(app)
}

/// Deletes at the CMDB API, and returns the code. The request must not fail.
async fn delete(app: &TestApp, path: &str) -> i64 {
    let mut request = Request::delete(path)
        .header("x-bkcmdb-user", "admin")
        .header("x-bkcmdb-language", "en")
        .body(Body::from("{}"))
        .unwrap();
    request.extensions_mut().insert(ClientAddr("10.1.2.3".parse().unwrap()));
    code(&app.send(request).await)
}

/// The code of an answer at the CMDB API.
#[track_caller]
fn code(reply: &Reply) -> i64 {
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json["bk_error_code"].as_i64().unwrap()
}

/// Creates something at the CMDB API. Returns its id or the code of the refusal.
async fn create(app: &TestApp, path: &str, body: Value) -> Result<i64, i64> {
    let reply = app.post_cmdb("admin", path, &body).await;
    match code(&reply) {
        0 => Ok(reply.json["data"]["id"].as_i64().unwrap()),
        code => Err(code),
    }
}

fn model(key: &str, name: &str) -> Value {
    json!({
        "bk_obj_id": key, "bk_obj_name": name, "bk_classification_id": "bk_network",
        "bk_obj_icon": "icon",
    })
}

fn kind(key: &str) -> Value {
    json!({"bk_asst_id": key})
}

fn association(key: &str, kind: &str, target: &str) -> Value {
    json!({
        "bk_obj_asst_id": key, "bk_obj_id": "bk_switch", "bk_asst_obj_id": target,
        "bk_asst_id": kind, "mapping": "n:n",
    })
}

/// A batch between switches and hosts. Returns the ids of its links or the code of the refusal.
async fn link(app: &TestApp, key: &str, pairs: &[(i64, i64)]) -> Result<Vec<i64>, i64> {
    let detail = |(s, t): &(i64, i64)| json!({"bk_inst_id": s, "bk_asst_inst_id": t});
    let body = json!({
        "bk_obj_id": "bk_switch", "bk_asst_obj_id": "host", "bk_obj_asst_id": key,
        "details": pairs.iter().map(detail).collect::<Vec<_>>(),
    });
    let reply = app.post_to(PATH, &[("blueking-language", "en")], body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    match reply.json["code"].as_i64().unwrap() {
        0 => Ok(reply.ids()),
        code => Err(code),
    }
}

const DEADLOCKS: &str = "select deadlocks from pg_stat_database where datname = current_database()";
const CREATIONS: &str = "select count(*) from cmdb.audit_log where before is null
    and resource_type is not null";

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn of_concurrent_creations_of_the_same_thing_one_succeeds(pool: PgPool) {
    /// A body, by the round and the client.
    type Body = fn(usize, usize) -> Value;
    const CLIENTS: usize = 16;
    let app = new_app(&pool, 16).await;
    let cases: [(&str, Body, i64); 6] = [
        (MODEL, |round, n| model(&format!("key_{round}"), &format!("{round} {n}")), 1_199_014),
        (MODEL, |round, n| model(&format!("m_{round}_{n}"), &format!("{round}")), 1_199_014),
        (MODEL, |round, _| model(&format!("both_{round}"), &format!("both {round}")), 1_199_014),
        (KIND, |round, _| kind(&format!("kind_{round}")), 1_199_014),
        (
            ASSOCIATION,
            |round, n| association(&format!("a_{round}_{n}"), &format!("kind_{round}"), "host"),
            1_101_038,
        ),
        (
            ASSOCIATION,
            |round, n| {
                let target = ["bk_router", "bk_switch", "plat", "biz"][n % 4];
                association(&format!("key_{round}"), &format!("kind_{round}"), target)
            },
            1_199_014,
        ),
    ];
    let mut created = 0;
    for round in 0..8 {
        for (path, body, refusal) in cases {
            let sending: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let (app, body) = (Arc::clone(&app), body(round, client));
                    tokio::spawn(async move { create(&app, path, body).await })
                })
                .collect();
            let mut ids = Vec::new();
            for sent in sending {
                match sent.await.unwrap() {
                    Ok(id) => ids.push(id),
                    // The same key and the same models: either refusal.
                    Err(1_101_038) if path == ASSOCIATION => {}
                    Err(code) => assert_eq!(code, refusal, "{path}"),
                }
            }
            assert_eq!(ids.len(), 1, "{path}: {ids:?}");
            created += 1;
        }
    }
    assert_eq!(app.count(CREATIONS).await, created);
    assert_eq!(app.count(DEADLOCKS).await, 0);
    assert_sound(&pool).await;
}

/// Each change is decided on the state that the one before has left, so all others start again.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn concurrent_changes_of_different_things_all_succeed(pool: PgPool) {
    let app = new_app(&pool, 16).await;
    let clients: Vec<_> = (0..16)
        .map(|client| {
            let app = Arc::clone(&app);
            tokio::spawn(async move {
                for n in 0..5 {
                    let key = format!("m_{client}_{n}");
                    let model = create(&app, MODEL, model(&key, &key)).await.unwrap();
                    create(&app, KIND, kind(&key)).await.unwrap();
                    let association = association(&key, &key, "host");
                    let association = create(&app, ASSOCIATION, association).await.unwrap();
                    let path = format!("/api/v3/delete/objectassociation/{association}");
                    assert_eq!(delete(&app, &path).await, 0);
                    assert_eq!(delete(&app, &format!("/api/v3/delete/object/{model}")).await, 0);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(app.count(CREATIONS).await, 16 * 5 * 3);
    let records = "select count(*) from cmdb.audit_log where resource_type is not null";
    assert_eq!(app.count(records).await, 16 * 5 * 5);
    // The places in the classification are still those of the four models of the migrations.
    let places = "select max(sort_number) from cmdb.model where classification = 'bk_network'";
    assert_eq!(app.count(places).await, 4);
    assert_eq!(app.count(DEADLOCKS).await, 0);
    assert_sound(&pool).await;
}

/// The number of links whose model association does not exist.
const DANGLING: &str = "select count(*) from cmdb.instance_association where not exists
    (select from cmdb.model_association where id = model_association_id)";

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_model_association_is_deleted_or_gets_its_first_links_but_not_both(pool: PgPool) {
    let app = new_app(&pool, 8).await;
    assert!(create(&app, KIND, kind("cools")).await.is_ok());
    for round in 0..60_u64 {
        let key = "bk_switch_cools_host";
        let id = create(&app, ASSOCIATION, association(key, "cools", "host")).await.unwrap();
        // The servers know it. The deletion starts before, among or after the batches.
        assert_eq!(link(&app, key, &[(999, 999)]).await, Ok(vec![]));
        let deleting = {
            let app = Arc::clone(&app);
            let path = format!("/api/v3/delete/objectassociation/{id}");
            move || tokio::spawn(async move { delete(&app, &path).await })
        };
        let mut deleting = Some(deleting);
        let mut deletion = None;
        let mut batches = Vec::new();
        for batch in 0..4_u64 {
            if batch == round % 4 {
                deletion = deleting.take().map(|delete| delete());
            }
            let app = Arc::clone(&app);
            batches.push(tokio::spawn(async move {
                let source = i64::try_from(batch + 1).unwrap();
                link(&app, key, &[(source, 1), (source, 2)]).await
            }));
            if round % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let deletion = deletion.unwrap().await.unwrap();
        let mut created = Vec::new();
        for batch in batches {
            match batch.await.unwrap() {
                Ok(ids) => created.extend(ids),
                Err(code) => assert_eq!((code, deletion), (1_101_046, 0)),
            }
        }
        assert_eq!(app.count(DANGLING).await, 0);
        match deletion {
            0 => {
                assert_eq!(created, [0_i64; 0]);
                assert_eq!(link(&app, key, &[(1, 1)]).await, Err(1_101_046));
            }
            1_101_043 => {
                assert_eq!(created.len(), 8);
                sqlx::query("delete from cmdb.instance_association").execute(&pool).await.unwrap();
                let path = format!("/api/v3/delete/objectassociation/{id}");
                assert_eq!(delete(&app, &path).await, 0);
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(app.count(DEADLOCKS).await, 0);
}

/// The path of the deletion of a model association.
async fn deletion_path(app: &TestApp) -> String {
    let number = "select (id >> 2)::bigint from cmdb.model_association
                  where key = 'bk_switch_default_host'";
    format!("/api/v3/delete/objectassociation/{}", app.count(number).await)
}

/// The same, with the other side in a transaction that has not ended.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_deletion_of_a_model_association_waits_for_writers_and_writers_for_it(pool: PgPool) {
    let app = new_app(&pool, 8).await;
    let path = deletion_path(&app).await;
    let mut writer = pool.begin().await.unwrap();
    let insert =
        "insert into cmdb.instance_association (model_association_id, source_id, target_id)
                  select id, 1, 1 from cmdb.model_association where key = 'bk_switch_default_host'";
    assert_eq!(rejection(&mut writer, insert).await, None);
    let deleting = {
        let (app, path) = (Arc::clone(&app), path.clone());
        tokio::spawn(async move { delete(&app, &path).await })
    };
    wait_until_blocked(&pool, 1).await;
    writer.commit().await.unwrap();
    assert_eq!(deleting.await.unwrap(), 1_101_043);

    sqlx::query("delete from cmdb.instance_association").execute(&pool).await.unwrap();
    let mut deleter = pool.begin().await.unwrap();
    let delete_it = "delete from cmdb.model_association where key = 'bk_switch_default_host'";
    assert_eq!(rejection(&mut deleter, delete_it).await, None);
    let linking = {
        let app = Arc::clone(&app);
        tokio::spawn(async move { link(&app, "bk_switch_default_host", &[(1, 1)]).await })
    };
    wait_until_blocked(&pool, 1).await;
    deleter.commit().await.unwrap();
    assert_eq!(linking.await.unwrap(), Err(1_101_046));
    assert_eq!(app.count(DANGLING).await, 0);
}

/// A deletion of instances holds the table of links and then changes the cache version. So does a
/// deletion of a model association, in this order.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_deletion_of_a_model_association_does_not_deadlock_with_one_of_instances(pool: PgPool) {
    let app = new_app(&pool, 8).await;
    let path = deletion_path(&app).await;
    let mut deleter = pool.begin().await.unwrap();
    let instances = "delete from cmdb.instance where instance_id = 9";
    assert_eq!(rejection(&mut deleter, instances).await, None);
    let deleting = {
        let app = Arc::clone(&app);
        tokio::spawn(async move { delete(&app, &path).await })
    };
    wait_until_blocked(&pool, 1).await;
    deleter.commit().await.unwrap();
    assert_eq!(deleting.await.unwrap(), 0);
    assert_eq!(app.count(DEADLOCKS).await, 0);
}

/// What [`change_models`] has done.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The ids of the links that its batches created.
    pub(crate) links: Vec<i64>,
    /// How many models, kinds and model associations it created.
    pub(crate) created: i64,
    /// How many of them it deleted.
    pub(crate) deleted: i64,
}

/// Creates a model, a kind and a model association, and tries to delete them while their first
/// instances and links are created, in rounds. `goes_on` is asked before each.
pub(crate) async fn change_models(
    app: Arc<TestApp>, pool: PgPool, goes_on: impl Fn() -> bool, name: &str,
) -> Changes {
    let mut conn = pool.acquire().await.unwrap();
    let mut changes = Changes::default();
    for round in 1_i64.. {
        if !goes_on() {
            break;
        }
        let key = format!("{name}_{round}");
        let model_id = create(&app, MODEL, model(&key, &key)).await.unwrap();
        let kind_id = create(&app, KIND, kind(&key)).await.unwrap();
        let association_key = format!("bk_switch_{key}_host");
        let association = association(&association_key, &key, "host");
        let association_id = create(&app, ASSOCIATION, association).await.unwrap();
        changes.created += 3;
        let paths = [
            format!("/api/v3/delete/objectassociation/{association_id}"),
            format!("/api/v3/delete/associationtype/{kind_id}"),
            format!("/api/v3/delete/object/{model_id}"),
        ];
        let pairs: Vec<_> = (1..=20).map(|n| ((n + round) % 300 + 1, n)).collect();
        let (linked, association_code, kind_code, has_instance, model_code) = tokio::join!(
            link(&app, &association_key, &pairs),
            delete(&app, &paths[0]),
            delete(&app, &paths[1]),
            insert_instance(&mut conn, &key),
            delete(&app, &paths[2]),
        );
        match (linked, association_code) {
            (Ok(links), 0) => assert_eq!(links, [0_i64; 0]),
            (Ok(links), 1_101_043) => changes.links.extend(links),
            (Err(1_101_046), 0) => {}
            other => panic!("{other:?}"),
        }
        assert!([0, 1_101_060].contains(&kind_code), "{kind_code}");
        assert!(kind_code != 0 || association_code == 0, "a kind that is used was deleted");
        let expected = if has_instance { 1_101_037 } else { 0 };
        assert_eq!(model_code, expected);
        for code in [association_code, kind_code, model_code] {
            changes.deleted += i64::from(code == 0);
        }
    }
    changes
}

/// Inserts an instance of a model by SQL. Returns whether the model was still there.
async fn insert_instance(conn: &mut PgConnection, model: &str) -> bool {
    let insert = "insert into cmdb.instance (model_id, instance_id)
                  select id, 1 from cmdb.model where key = $1";
    match sqlx::query(insert).bind(model).execute(conn).await {
        Ok(inserted) => inserted.rows_affected() == 1,
        Err(error) => {
            let error = error.as_database_error().unwrap();
            assert_eq!(error.constraint(), Some("instance_check_references_insert"), "{error}");
            false
        }
    }
}

/// Asserts that each creation and deletion has exactly one audit record.
pub(crate) async fn assert_changes_are_recorded_once(app: &TestApp, created: i64, deleted: i64) {
    assert_eq!(app.count(CREATIONS).await, created);
    let distinct = "select count(distinct (resource_type, resource_id)) from cmdb.audit_log
                    where before is null and resource_type is not null";
    assert_eq!(app.count(distinct).await, created);
    let deletions = "select count(*) from cmdb.audit_log where after is null
                     and resource_type is not null";
    assert_eq!(app.count(deletions).await, deleted);
    // What is stored is in a record, and has the same key there.
    let stored = "select count(*) from (
            select 'model' as type, id, key from cmdb.model
            union all select 'association_kind', id, key from cmdb.association_kind
            union all select 'model_association', id, key from cmdb.model_association
        ) stored
        join cmdb.audit_log on (resource_type, resource_id, after ->> 'key')
            = (stored.type, stored.id, stored.key) and before is null";
    assert_eq!(app.count(stored).await, created - deleted);
}
