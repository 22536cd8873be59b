//! Many at once: whatever they do, the data stays sound and every answer is one that some order explains.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cmdb_associations::domain::association::Mapping;
use cmdb_associations::service::check::check;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::app::{TestApp, batch, few};

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB).rotate_left(31) % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }

    /// An id from 1 to `most`.
    fn id(&mut self, most: u64) -> i64 {
        i64::try_from(1 + self.roll(most)).unwrap()
    }

    fn pairs(&mut self, count: usize, most: u64) -> Vec<(i64, i64)> {
        (0..count).map(|_| (self.id(most), self.id(most))).collect()
    }
}

const ASSOCIATIONS: [(&str, Mapping); 3] = [
    ("bk_switch_default_host", Mapping::ManyToMany),
    ("bk_switch_connect_host", Mapping::OneToMany),
    ("bk_switch_run_host", Mapping::OneToOne),
];

/// The original's algorithm on a set of links: the indexes created, and the texts of the others.
fn one_by_one(
    links: &mut HashSet<(i64, i64)>,
    mapping: Mapping,
    details: &[(i64, i64)],
) -> (Vec<usize>, Value) {
    let (mut created, mut refused) = (Vec::new(), json!({}));
    for (index, &(source, target)) in details.iter().enumerate() {
        let has_source = links.iter().any(|link| link.0 == source);
        let has_target = links.iter().any(|link| link.1 == target);
        let refusal = match mapping {
            _ if links.contains(&(source, target)) => {
                "the associations bk_switch->host already exist"
            }
            Mapping::OneToOne if has_source || has_target => {
                "can not create multiple instance association for a 1:1 association."
            }
            Mapping::OneToMany if has_target => {
                "The relationship is 1:n, and multiple source model instances cannot be associated at the same time."
            }
            _ => {
                links.insert((source, target));
                created.push(index);
                continue;
            }
        };
        refused[index.to_string()] = refusal.into();
    }
    (created, refused)
}

/// Every order of the numbers below `n`.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(n - 1);
    let with_last = |at: usize| {
        shorter.iter().map(move |order| [&order[..at], &[n - 1], &order[at..]].concat())
    };
    (0..n).flat_map(with_last).collect()
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn batches_at_once_are_answered_as_if_one_came_after_the_other(pool: PgPool) {
    let app = Arc::new(TestApp::new(few(pool.connect_options().as_ref().clone(), 8)).await);
    let mut dice = Dice(1);
    let mut disagreements = 0;
    for round in 0..150 {
        let (key, mapping) = ASSOCIATIONS[round % 3];
        let batches = 2 + round % 2;
        // Few instances, so that they get in each other's way; now and then whole batches that cross.
        let details: Vec<_> = if round % 10 == 0 {
            let straight = (1..=200).map(|n| (n, n)).collect();
            let crosswise = (1..=200).rev().map(|n| (n, 300 - n)).collect();
            let backwards = (1..=200).rev().map(|n| (n, n)).collect();
            [straight, crosswise, backwards].into_iter().take(batches).collect()
        } else {
            (0..batches).map(|_| dice.pairs(20, 12)).collect()
        };
        let before = dice.pairs(3, 12);
        let mut standing = HashSet::new();
        one_by_one(&mut standing, mapping, &before);
        sqlx::query("delete from instance_association").execute(&pool).await.unwrap();
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
        let explanations: Vec<_> = orders(batches)
            .into_iter()
            .map(|order| {
                let mut links = standing.clone();
                let mut answers = vec![(Vec::new(), Value::Null); batches];
                for which in order {
                    answers[which] = one_by_one(&mut links, mapping, &details[which]);
                }
                (answers, links)
            })
            .collect();
        disagreements += usize::from(explanations[0].0 != explanations[explanations.len() - 1].0);
        let explained = explanations.iter().find(|(explained, _)| *explained == answers);
        let (_, links) =
            explained.unwrap_or_else(|| panic!("no order explains {answers:?} to {details:?}"));
        let stored: Vec<(i64, i64)> =
            sqlx::query_as("select source_id, target_id from instance_association")
                .fetch_all(&pool)
                .await
                .unwrap();
        assert_eq!(stored.into_iter().collect::<HashSet<_>>(), *links);
    }
    assert!(disagreements > 100, "the order hardly mattered");
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(app.count(deadlocks).await, 0);
}

const LEVELS: [&str; 4] = ["read uncommitted", "read committed", "repeatable read", "serializable"];

/// Runs statements in one transaction; true if it was committed. Only what losers of races and offenders are
/// told may be told.
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

/// How many of each the storm has seen.
#[derive(Default)]
struct Storm {
    deleted: AtomicUsize,
    written: AtomicUsize,
    is_over: AtomicBool,
}

/// The highest id that the storm is about.
const IDS: u64 = 300;

/// Deletes instances with their links and brings them back, in every way and isolation level.
async fn delete_and_bring_back(pool: PgPool, storm: Arc<Storm>) {
    let (mut conn, mut dice) = (pool.acquire().await.unwrap(), Dice(2));
    while !storm.is_over.load(Ordering::SeqCst) {
        let (model, role) = dice.pick(&[("bk_switch", "source"), ("host", "target")]);
        let id = dice.id(IDS);
        let level = dice.pick(&LEVELS);
        let lock = "lock table instance_association in share row exclusive mode".to_owned();
        let links = format!("delete from instance_association where {role}_id = {id}");
        let of_model = format!("model_id = (select id from model where key = '{model}')");
        let instance = format!("delete from instance where instance_id = {id} and {of_model}");
        let is_gone = match dice.roll(3) {
            0 => transaction(&mut conn, level, &[lock, links, instance]).await,
            1 => transaction(&mut conn, level, &[links, instance]).await,
            _ => {
                transaction(&mut conn, level, &[links]).await;
                transaction(&mut conn, level, &[instance]).await
            }
        };
        storm.deleted.fetch_add(usize::from(is_gone), Ordering::SeqCst);
        // Another one, so that some stay away.
        let (model, id) = (dice.pick(&["bk_switch", "host"]), dice.id(IDS));
        let back = format!(
            "insert into instance (model_id, instance_id) select id, {id} from model where key = '{model}'
             on conflict do nothing"
        );
        assert!(transaction(&mut conn, "read committed", &[back]).await);
    }
}

/// Writes links by plain SQL, one or some at once, in every isolation level.
async fn write_by_hand(pool: PgPool, storm: Arc<Storm>) {
    let (mut conn, mut dice) = (pool.acquire().await.unwrap(), Dice(3));
    while !storm.is_over.load(Ordering::SeqCst) {
        let (key, _) = dice.pick(&ASSOCIATIONS);
        let level = dice.pick(&LEVELS);
        let values: Vec<_> =
            (0..=dice.roll(2)).map(|_| format!("({}, {})", dice.id(IDS), dice.id(IDS))).collect();
        let insert = format!(
            "insert into instance_association (model_association_id, source_id, target_id)
             select id, source_id, target_id
             from model_association, (values {}) pair (source_id, target_id) where key = '{key}'",
            values.join(", ")
        );
        let is_written = transaction(&mut conn, level, &[insert]).await;
        storm.written.fetch_add(usize::from(is_written), Ordering::SeqCst);
    }
}

/// Sends batches that overlap with everybody's; the ids that were acknowledged.
async fn send(app: Arc<TestApp>, storm: Arc<Storm>, seed: u64) -> Vec<i64> {
    let mut dice = Dice(seed);
    let mut ids = Vec::new();
    for batches in 0.. {
        let is_wild =
            [&storm.deleted, &storm.written].iter().all(|count| count.load(Ordering::SeqCst) >= 50);
        if batches >= 25 && is_wild {
            break;
        }
        let (key, _) = dice.pick(&ASSOCIATIONS);
        let mut details = dice.pairs(200, IDS);
        match dice.roll(3) {
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

/// At least 40,000 details by eight clients, while others delete, bring back and write by hand.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn whatever_is_written_at_once_the_data_stays_sound(pool: PgPool) {
    let app = Arc::new(TestApp::new(few(pool.connect_options().as_ref().clone(), 8)).await);
    // What is deleted is remembered, to tell it from what was lost.
    for sql in [
        // Who deletes without the lock, or writes in any order, may run into others. It need not take long.
        "do $$ begin execute format('alter database %I set deadlock_timeout to ''20ms''', current_database()); end $$",
        "create table deleted (id bigint)",
        "create function remember() returns trigger language plpgsql as
         'begin insert into deleted select id from gone; return null; end'",
        "create trigger remember after delete on instance_association
         referencing old table as gone for each statement execute function remember()",
    ] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    let storm = Arc::new(Storm::default());
    let deleting = tokio::spawn(delete_and_bring_back(pool.clone(), Arc::clone(&storm)));
    let writing = tokio::spawn(write_by_hand(pool.clone(), Arc::clone(&storm)));
    let clients: Vec<_> = (10..18)
        .map(|seed| tokio::spawn(send(Arc::clone(&app), Arc::clone(&storm), seed)))
        .collect();
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    storm.is_over.store(true, Ordering::SeqCst);
    deleting.await.unwrap();
    writing.await.unwrap();

    let once: HashSet<_> = acknowledged.iter().copied().collect();
    assert_eq!(once.len(), acknowledged.len(), "an id was given twice");
    let missing = "select count(*) from unnest($1::bigint[]) id
                   where id not in (select id from instance_association) and id not in (select id from deleted)";
    let missing: i64 =
        sqlx::query_scalar(missing).bind(&acknowledged).fetch_one(&pool).await.unwrap();
    assert_eq!(missing, 0, "acknowledged and not there");
    let report = check(&mut pool.acquire().await.unwrap()).await.unwrap();
    let broken: Vec<_> =
        report.invariants.iter().filter(|(_, findings)| findings.count > 0).collect();
    assert!(
        broken.is_empty(),
        "{:?}",
        broken.iter().map(|(name, findings)| (name, &findings.examples)).collect::<Vec<_>>()
    );
    // Every link that the server wrote is in a record, and nothing else is.
    let by_hand = "select count(*) from instance_association where id <> all ($1)";
    let by_hand: i64 =
        sqlx::query_scalar(by_hand).bind(&acknowledged).fetch_one(&pool).await.unwrap();
    assert_eq!(report.unaudited.1.count, by_hand);
}
