//! Concurrent writers: the stored data stays sound, and every set of answers is one that some
//! serial order of the requests gives.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cmdb_associations::domain::association::Mapping;
use cmdb_associations::domain::batch::{Detail, Link};
use cmdb_associations::domain::error::DetailError;
use cmdb_associations::service::check::check;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::additions;
use crate::app::{TestApp, assert_sound, batch, pool_of};
use crate::deletions::{MANY, ONE, many};
use crate::inventory_races::{assert_changes_are_recorded_once, change_models, new_app};
use crate::plan::Inventory;
use crate::undo::UNDO;

/// A pseudo-random number generator with a fixed seed.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    /// A number below `bound`.
    pub(crate) fn next(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB).rotate_left(31) % bound
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.next(from.len() as u64)).unwrap()]
    }

    /// An id from 1 to `max`.
    pub(crate) fn id(&mut self, max: u64) -> i64 {
        i64::try_from(1 + self.next(max)).unwrap()
    }

    fn pairs(&mut self, count: usize, max: u64) -> Vec<(i64, i64)> {
        (0..count).map(|_| (self.id(max), self.id(max))).collect()
    }
}

const ASSOCIATIONS: [(&str, Mapping); 3] = [
    ("bk_switch_default_host", Mapping::ManyToMany),
    ("bk_switch_connect_host", Mapping::OneToMany),
    ("bk_switch_run_host", Mapping::OneToOne),
];

/// Creates details one by one. Returns the created indexes and the texts of the refused ones.
fn one_by_one(inventory: &mut Inventory, details: &[(i64, i64)]) -> (Vec<usize>, Value) {
    let (mut created, mut refused) = (Vec::new(), json!({}));
    for (index, &(source, target)) in details.iter().enumerate() {
        let detail = Detail { source: Some(source), target: Some(target) };
        let text = match inventory.create_one(&detail) {
            Ok(_) => {
                created.push(index);
                continue;
            }
            Err(DetailError::AlreadyExists) => "the associations bk_switch->host already exist",
            Err(DetailError::OneToOneTaken) => {
                "can not create multiple instance association for a 1:1 association."
            }
            Err(DetailError::OneToManyTaken) => {
                "The relationship is 1:n, and multiple source model instances cannot be associated at the same time."
            }
            Err(error) => panic!("{error:?}: all instances exist"),
        };
        refused[index.to_string()] = text.into();
    }
    (created, refused)
}

/// Every permutation of the numbers below `n`.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(n - 1);
    let with_last = |at: usize| {
        shorter.iter().map(move |order| [&order[..at], &[n - 1], &order[at..]].concat())
    };
    (0..n).flat_map(with_last).collect()
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn concurrent_batches_are_answered_as_in_some_serial_order(pool: PgPool) {
    let app = Arc::new(TestApp::new(pool_of(pool.connect_options().as_ref().clone(), 8)).await);
    let mut rng = Rng(1);
    let mut order_matters = 0;
    for round in 0..150 {
        let (key, mapping) = ASSOCIATIONS[round % 3];
        let batches = 2 + round % 2;
        // Few instances, so that the batches conflict. Every tenth round has full batches.
        let details: Vec<_> = if round % 10 == 0 {
            let ascending = (1..=200).map(|n| (n, n)).collect();
            let crossing = (1..=200).rev().map(|n| (n, 300 - n)).collect();
            let descending = (1..=200).rev().map(|n| (n, n)).collect();
            [ascending, crossing, descending].into_iter().take(batches).collect()
        } else {
            (0..batches).map(|_| rng.pairs(20, 12)).collect()
        };
        let before = rng.pairs(3, 12);
        let instances: HashSet<_> = (1..=300).collect();
        let (sources, targets) = (instances.clone(), instances);
        let mut stored_before = Inventory { mapping, sources, targets, links: Vec::new() };
        one_by_one(&mut stored_before, &before);
        sqlx::query("delete from cmdb.instance_association").execute(&pool).await.unwrap();
        app.post(batch(key, &before)).await.maps();

        let sending: Vec<_> = details
            .iter()
            .map(|details| {
                let (app, body) = (Arc::clone(&app), batch(key, details));
                tokio::spawn(async move { app.post(body).await.maps() })
            })
            .collect();
        let mut answers = Vec::new();
        for sent in sending {
            answers.push(sent.await.unwrap());
        }
        let serial_outcomes: Vec<_> = permutations(batches)
            .into_iter()
            .map(|order| {
                let mut inventory = stored_before.clone();
                let mut answers = vec![(Vec::new(), Value::Null); batches];
                for which in order {
                    answers[which] = one_by_one(&mut inventory, &details[which]);
                }
                (answers, inventory.links)
            })
            .collect();
        order_matters +=
            usize::from(serial_outcomes[0].0 != serial_outcomes[serial_outcomes.len() - 1].0);
        let outcome = serial_outcomes.iter().find(|(serial, _)| *serial == answers);
        let (_, links) =
            outcome.unwrap_or_else(|| panic!("no serial order gives {answers:?} to {details:?}"));
        let stored: Vec<(i64, i64)> =
            sqlx::query_as("select source_id, target_id from cmdb.instance_association")
                .fetch_all(&pool)
                .await
                .unwrap();
        let links: HashSet<_> = links.iter().map(|link| (link.source, link.target)).collect();
        assert_eq!(stored.into_iter().collect::<HashSet<_>>(), links);
    }
    assert!(order_matters > 100, "the batches hardly conflicted");
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(app.count(deadlocks).await, 0);
}

/// A request that races with others.
#[derive(Debug, Clone)]
enum Racing {
    /// Creates these pairs.
    Batch(Vec<(i64, i64)>),
    /// Deletes the links with these ids and pairs, of those that there were before.
    Deletion(Vec<(i64, (i64, i64))>),
}

#[derive(Debug, Clone, PartialEq)]
enum Answer {
    /// The created indexes and the texts of the refused ones.
    Batch((Vec<usize>, Value)),
    /// The number of deleted links.
    Deletion(i64),
}

impl Racing {
    async fn send(&self, app: &TestApp, key: &str) -> Answer {
        match self {
            Self::Batch(details) => Answer::Batch(app.post(batch(key, details)).await.maps()),
            Self::Deletion(links) => {
                let ids: Vec<_> = links.iter().map(|(id, _)| *id).collect();
                let reply = app.post_to(MANY, &[], many("host", &ids)).await;
                assert_eq!(reply.json["code"], 0, "{}", reply.text);
                Answer::Deletion(reply.json["data"].as_i64().unwrap())
            }
        }
    }

    /// Carries it out while no other request is. `deleted` are ids.
    fn carry_out(&self, inventory: &mut Inventory, deleted: &mut HashSet<i64>) -> Answer {
        match self {
            Self::Batch(details) => Answer::Batch(one_by_one(inventory, details)),
            Self::Deletion(links) => {
                let now: Vec<_> = links.iter().filter(|(id, _)| deleted.insert(*id)).collect();
                let is_deleted =
                    |link: &Link| now.iter().any(|(_, pair)| *pair == (link.source, link.target));
                inventory.links.retain(|link| !is_deleted(link));
                Answer::Deletion(i64::try_from(now.len()).unwrap())
            }
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn concurrent_batches_and_deletions_are_answered_as_in_some_serial_order(pool: PgPool) {
    let app = Arc::new(TestApp::new(pool_of(pool.connect_options().as_ref().clone(), 8)).await);
    let mut rng = Rng(4);
    let mut order_matters = 0;
    for round in 0..90 {
        let (key, mapping) = ASSOCIATIONS[round % 3];
        let instances: HashSet<_> = (1..=8).collect();
        let (sources, targets) = (instances.clone(), instances);
        let mut stored_before = Inventory { mapping, sources, targets, links: Vec::new() };
        let before = rng.pairs(12, 8);
        let (created, _) = one_by_one(&mut stored_before, &before);
        let ids = app.post(batch(key, &before)).await.ids();
        let links: Vec<_> =
            ids.into_iter().zip(created.into_iter().map(|index| before[index])).collect();
        // Two deletions that overlap, and two batches that want some of the same pairs again.
        let (half, third) = (links.len() / 2, links.len() / 3);
        let pairs: Vec<_> = links.iter().map(|(_, pair)| *pair).collect();
        let requests = [
            Racing::Deletion(links[third..].to_vec()),
            Racing::Batch([pairs[half..].to_vec(), rng.pairs(6, 8)].concat()),
            Racing::Deletion(links[..=half].iter().rev().copied().collect()),
            Racing::Batch([rng.pairs(4, 8), pairs].concat()),
        ];

        let sending = requests.clone().map(|request| {
            let app = Arc::clone(&app);
            tokio::spawn(async move { request.send(&app, key).await })
        });
        let mut answers = Vec::new();
        for sent in sending {
            answers.push(sent.await.unwrap());
        }
        let serial_outcomes: Vec<_> = permutations(requests.len())
            .into_iter()
            .map(|order| {
                let (mut inventory, mut deleted) = (stored_before.clone(), HashSet::new());
                let mut answers = vec![Answer::Deletion(-1); requests.len()];
                for which in order {
                    answers[which] = requests[which].carry_out(&mut inventory, &mut deleted);
                }
                (answers, inventory.links)
            })
            .collect();
        order_matters +=
            usize::from(serial_outcomes.iter().any(|(other, _)| *other != serial_outcomes[0].0));
        let stored: Vec<(i64, i64)> =
            sqlx::query_as("select source_id, target_id from cmdb.instance_association")
                .fetch_all(&pool)
                .await
                .unwrap();
        let stored: HashSet<_> = stored.into_iter().collect();
        let is_outcome = |(serial, links): &(Vec<Answer>, Vec<Link>)| {
            let links: HashSet<_> = links.iter().map(|link| (link.source, link.target)).collect();
            *serial == answers && links == stored
        };
        assert!(
            serial_outcomes.iter().any(is_outcome),
            "no serial order gives {answers:?} and {stored:?} to {requests:?}"
        );
        let rest: Vec<i64> = sqlx::query_scalar("select id from cmdb.instance_association")
            .fetch_all(&pool)
            .await
            .unwrap();
        if !rest.is_empty() {
            app.post_to(MANY, &[], many("host", &rest)).await;
        }
    }
    assert!(order_matters > 80, "the requests hardly conflicted");
    assert_deletions_are_recorded_once(&pool).await;
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(app.count(deadlocks).await, 0);
}

/// Asserts that the data is sound, that every change has an audit record, and that each link
/// that is gone is in one record of a deletion, with the pair that it was created with.
async fn assert_deletions_are_recorded_once(pool: &PgPool) {
    assert_sound(pool).await;
    let of = |ids: &str, association: &str| {
        format!(
            "select link_id, {association} as association, source, target
             from cmdb.audit_log
             cross join lateral (
                 select array_agg(id order by id) as ids
                 from unnest({ids}) range, generate_series(lower(range), upper(range) - 1) id
             ) expanded
             cross join lateral unnest(ids, source_ids, target_ids, model_association_ids)
                 link (link_id, source, target, deleted_association)
             where not isempty({ids})"
        )
    };
    let created = of("association_ids", "model_association_id");
    let deleted = of("deleted_ids", "deleted_association");
    let wrong = format!(
        "with created as ({created}), deleted as ({deleted}),
         gone as (
             select * from created
             where not exists (select from cmdb.instance_association where id = link_id)
         )
         select count(*) from (
             (select * from gone except all select * from deleted)
             union all (select * from deleted except all select * from gone)
         ) wrong"
    );
    let wrong: i64 = sqlx::query_scalar(AssertSqlSafe(wrong)).fetch_one(pool).await.unwrap();
    assert_eq!(wrong, 0, "deletions without a record, or records of other deletions");
    let deletions = "select count(*) from cmdb.audit_log where not isempty(deleted_ids)";
    let deletions: i64 = sqlx::query_scalar(deletions).fetch_one(pool).await.unwrap();
    assert!(deletions > 50, "{deletions} deletions");
}

/// Writes and deletes the links of a few instances, one or many at a time, and under keys.
async fn write_and_delete(app: Arc<TestApp>, known: Arc<Mutex<Vec<i64>>>, seed: u64) {
    let mut rng = Rng(seed);
    let mut created: Vec<String> = Vec::new();
    for number in 0..60 {
        let (key, _) = rng.pick(&ASSOCIATIONS);
        let header = format!("{seed}-{number}");
        let headers = [("idempotency-key", header.as_str())];
        let headers = &headers[..usize::try_from(rng.next(2)).unwrap()];
        let ids: Vec<_> = {
            let known = known.lock().unwrap();
            (0..=rng.next(30)).filter(|_| !known.is_empty()).map(|_| rng.pick(&known)).collect()
        };
        let (source, target) = (rng.id(10), rng.id(10));
        let reply = match (rng.next(6), ids.first()) {
            (0, Some(id)) => {
                let body = json!({"bk_obj_id": "bk_switch", "id": id});
                app.post_to(ONE, headers, body).await
            }
            (1, Some(_)) => app.post_to(MANY, headers, many("host", &ids)).await,
            (2, _) => {
                let body = json!({
                    "bk_obj_asst_id": key, "bk_inst_id": source, "bk_asst_inst_id": target,
                });
                let reply = app.post_to(additions::PATH, headers, body).await;
                known.lock().unwrap().extend(reply.json["data"]["id"].as_i64());
                reply
            }
            (3, _) if !created.is_empty() => {
                let id = &created[usize::try_from(rng.next(created.len() as u64)).unwrap()];
                app.post_to(UNDO, headers, json!({"request_id": id})).await
            }
            _ => {
                let reply = app.post_with(headers, batch(key, &rng.pairs(20, 10))).await;
                known.lock().unwrap().extend(reply.ids());
                if !reply.ids().is_empty() {
                    created.push(reply.request_id().to_owned());
                }
                reply
            }
        };
        // The other codes say that a single pair is linked already, or an instance of it.
        let code = reply.json["code"].as_i64().unwrap();
        assert!([0, 1_199_014, 1_101_052, 1_101_061].contains(&code), "{}", reply.text);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn each_deletion_is_recorded_once_under_racing_additions_batches_deletions_and_undos(
    pool: PgPool,
) {
    let app = Arc::new(TestApp::new(pool_of(pool.connect_options().as_ref().clone(), 8)).await);
    let known = Arc::default();
    let clients: Vec<_> = (20..28)
        .map(|seed| tokio::spawn(write_and_delete(Arc::clone(&app), Arc::clone(&known), seed)))
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_deletions_are_recorded_once(&pool).await;
}

const LEVELS: [&str; 4] = ["read uncommitted", "read committed", "repeatable read", "serializable"];

/// Runs statements in one transaction and returns whether it was committed. Only the errors of
/// conflicts and of violated constraints are accepted.
async fn transaction(conn: &mut PgConnection, level: &str, statements: &[String]) -> bool {
    let begin = AssertSqlSafe(format!("begin isolation level {level}"));
    let mut tx = conn.begin_with(begin).await.unwrap();
    for sql in statements {
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *tx).await {
            let code =
                error.as_database_error().expect("a database error").code().unwrap().into_owned();
            assert!(
                ["23505", "23503", "0A000", "40P01", "40001"].contains(&&*code),
                "{sql}: {error}"
            );
            tx.rollback().await.unwrap();
            return false;
        }
    }
    match tx.commit().await {
        Ok(()) => true,
        Err(error) => {
            let code =
                error.as_database_error().expect("a database error").code().unwrap().into_owned();
            assert_eq!(code, "40001");
            false
        }
    }
}

/// What the concurrent writers have done so far.
#[derive(Default)]
struct Progress {
    deleted: AtomicUsize,
    written: AtomicUsize,
    /// Rounds of changes of models that were begun.
    rounds: AtomicUsize,
    is_over: AtomicBool,
}

/// The highest instance id that the writers use.
const IDS: u64 = 300;

/// Deletes instances and their links and inserts instances again, in every isolation level.
async fn delete_and_insert_instances(pool: PgPool, progress: Arc<Progress>) {
    let (mut conn, mut rng) = (pool.acquire().await.unwrap(), Rng(2));
    while !progress.is_over.load(Ordering::SeqCst) {
        let (model, role) = rng.pick(&[("bk_switch", "source"), ("host", "target")]);
        let id = rng.id(IDS);
        let level = rng.pick(&LEVELS);
        let lock = "lock table cmdb.instance_association in share row exclusive mode".to_owned();
        let links = format!("delete from cmdb.instance_association where {role}_id = {id}");
        let of_model = format!("model_id = (select id from cmdb.model where key = '{model}')");
        let instance = format!("delete from cmdb.instance where instance_id = {id} and {of_model}");
        let is_deleted = match rng.next(3) {
            0 => transaction(&mut conn, level, &[lock, links, instance]).await,
            1 => transaction(&mut conn, level, &[links, instance]).await,
            _ => {
                transaction(&mut conn, level, &[links]).await;
                transaction(&mut conn, level, &[instance]).await
            }
        };
        progress.deleted.fetch_add(usize::from(is_deleted), Ordering::SeqCst);
        // Another instance than the deleted one, so that some stay deleted.
        let (model, id) = (rng.pick(&["bk_switch", "host"]), rng.id(IDS));
        let insert = format!(
            "insert into cmdb.instance (model_id, instance_id)
             select id, {id} from cmdb.model where key = '{model}' on conflict do nothing"
        );
        assert!(transaction(&mut conn, "read committed", &[insert]).await);
    }
}

/// Inserts one or two links at once by plain SQL, in every isolation level.
async fn insert_links_by_sql(pool: PgPool, progress: Arc<Progress>) {
    let (mut conn, mut rng) = (pool.acquire().await.unwrap(), Rng(3));
    while !progress.is_over.load(Ordering::SeqCst) {
        let (key, _) = rng.pick(&ASSOCIATIONS);
        let level = rng.pick(&LEVELS);
        let values: Vec<_> =
            (0..=rng.next(2)).map(|_| format!("({}, {})", rng.id(IDS), rng.id(IDS))).collect();
        let insert = format!(
            "insert into cmdb.instance_association (model_association_id, source_id, target_id)
             select id, source_id, target_id
             from cmdb.model_association, (values {}) pair (source_id, target_id)
             where key = '{key}'",
            values.join(", ")
        );
        let is_written = transaction(&mut conn, level, &[insert]).await;
        progress.written.fetch_add(usize::from(is_written), Ordering::SeqCst);
    }
}

/// Sends batches that overlap with those of the other clients. Returns the acknowledged ids.
async fn send(app: Arc<TestApp>, progress: Arc<Progress>, seed: u64) -> Vec<i64> {
    let mut rng = Rng(seed);
    let mut ids = Vec::new();
    for batches in 0.. {
        let is_busy = [(&progress.deleted, 50), (&progress.written, 50), (&progress.rounds, 20)]
            .iter()
            .all(|(count, enough)| count.load(Ordering::SeqCst) >= *enough);
        if batches >= 25 && is_busy {
            break;
        }
        let (key, _) = rng.pick(&ASSOCIATIONS);
        let mut details = rng.pairs(200, IDS);
        match rng.next(3) {
            0 => details.sort_unstable(),
            1 => details.sort_unstable_by(|one, next| next.cmp(one)),
            _ => {}
        }
        let reply = app.post(batch(key, &details)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        ids.extend(reply.ids());
    }
    ids
}

/// Eight clients send at least 40,000 details. Meanwhile instances and links are deleted and
/// inserted by plain SQL, and models, kinds and model associations are created and deleted.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn stored_data_stays_sound_under_concurrent_writes_of_all_kinds(pool: PgPool) {
    let app = new_app(&pool, 16).await;
    // A trigger records deleted links, to distinguish them from lost ones.
    for sql in [
        // Writers that lock in any order may deadlock. A short timeout saves time.
        "do $$ begin execute format('alter database %I set deadlock_timeout to ''20ms''',
             current_database()); end $$",
        "create table public.deleted (id bigint)",
        "create function public.record_deleted() returns trigger language plpgsql as
         'begin insert into public.deleted select id from old_rows; return null; end'",
        "create trigger record_deleted after delete on cmdb.instance_association
         referencing old table as old_rows for each statement execute function
         public.record_deleted()",
    ] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    let progress = Arc::new(Progress::default());
    let deleting = tokio::spawn(delete_and_insert_instances(pool.clone(), Arc::clone(&progress)));
    let writing = tokio::spawn(insert_links_by_sql(pool.clone(), Arc::clone(&progress)));
    let clients: Vec<_> = (10..18)
        .map(|seed| tokio::spawn(send(Arc::clone(&app), Arc::clone(&progress), seed)))
        .collect();
    let changing: Vec<_> = ["one", "two"]
        .map(|name| {
            let (app, pool, progress) = (Arc::clone(&app), pool.clone(), Arc::clone(&progress));
            let goes_on = move || {
                progress.rounds.fetch_add(1, Ordering::SeqCst);
                !progress.is_over.load(Ordering::SeqCst)
            };
            tokio::spawn(async move { change_models(app, pool, goes_on, name).await })
        })
        .into();
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    progress.is_over.store(true, Ordering::SeqCst);
    deleting.await.unwrap();
    writing.await.unwrap();
    let (mut created, mut deleted) = (0, 0);
    for client in changing {
        let changes = client.await.unwrap();
        acknowledged.extend(changes.links);
        created += changes.created;
        deleted += changes.deleted;
    }
    assert!(created > 50, "{created} models, kinds and model associations");
    assert_changes_are_recorded_once(&app, created, deleted).await;

    let once: HashSet<_> = acknowledged.iter().copied().collect();
    assert_eq!(once.len(), acknowledged.len(), "an id was given twice");
    let missing = "select count(*) from unnest($1::bigint[]) id
                   where id not in (select id from cmdb.instance_association)
                       and id not in (select id from public.deleted)";
    let missing: i64 =
        sqlx::query_scalar(missing).bind(&acknowledged).fetch_one(&pool).await.unwrap();
    assert_eq!(missing, 0, "acknowledged but not stored");
    let report = check(&mut pool.acquire().await.unwrap()).await.unwrap();
    let broken: Vec<_> =
        report.invariants.iter().filter(|(_, findings)| findings.count > 0).collect();
    assert!(
        broken.is_empty(),
        "{:?}",
        broken.iter().map(|(name, findings)| (name, &findings.examples)).collect::<Vec<_>>()
    );
    // The audit log has every link that the server wrote, and no other.
    let by_sql = "select count(*) from cmdb.instance_association
                  where id not in (select unnest($1::bigint[]))";
    let by_sql: i64 =
        sqlx::query_scalar(by_sql).bind(&acknowledged).fetch_one(&pool).await.unwrap();
    assert_eq!(report.unaudited[0].1.count, by_sql);
}
