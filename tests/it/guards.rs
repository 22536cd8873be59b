//! What the database itself refuses, whoever writes.

use std::time::Duration;

use cmdb_associations::config::database_at;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Postgres, Transaction};

use crate::app::{TestApp, batch, pool_of};
use crate::binary::Program;

/// Runs a statement; the name of the constraint or the SQLSTATE that refused it.
async fn refusal(conn: &mut PgConnection, sql: &'static str) -> Option<String> {
    let error = match sqlx::query(sql).execute(conn).await {
        Ok(_) => return None,
        Err(sqlx::Error::Database(error)) => error,
        Err(other) => panic!("{other}"),
    };
    Some(error.constraint().map_or_else(|| error.code().unwrap().into_owned(), str::to_owned))
}

/// Links by plain SQL, as somebody writes them who does not know the server.
const LINK: &str = "insert into instance_association (model_association_id, source_id, target_id)
    select id, 1, 1 from model_association where key = 'bk_switch_run_host'";

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn plain_sql_cannot_break_uniqueness_a_mapping_or_existence(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let source_key = Some("instance_association_source_key".to_owned());
    let target_key = Some("instance_association_target_key".to_owned());
    let guard = Some("instance_association_guard".to_owned());
    macro_rules! link {
        ($key:literal, $source:literal, $target:literal) => {
            concat!(
                "insert into instance_association (model_association_id, source_id, target_id) select id, ",
                $source, ", ", $target, " from model_association where key = '", $key, "'"
            )
        };
    }
    for (sql, refused) in [
        (link!("bk_switch_default_host", 1, 1), None),
        (link!("bk_switch_default_host", 1, 2), None),
        (link!("bk_switch_default_host", 2, 1), None),
        (link!("bk_switch_default_host", 1, 1), source_key.clone()),
        (link!("bk_switch_connect_host", 1, 1), None),
        (link!("bk_switch_connect_host", 1, 2), None),
        (link!("bk_switch_connect_host", 2, 1), target_key.clone()),
        (link!("bk_switch_run_host", 1, 1), None),
        (link!("bk_switch_run_host", 1, 2), source_key.clone()),
        (link!("bk_switch_run_host", 2, 1), target_key.clone()),
        (link!("bk_switch_default_host", 999, 1), guard.clone()),
        (link!("bk_switch_default_host", 1, 999), guard.clone()),
        ("insert into instance_association (model_association_id, source_id, target_id) values (9999, 1, 1)", guard.clone()),
        ("insert into instance_association (model_association_id, tenant_id, source_id, target_id)
          select id, 77, 9, 9 from model_association where key = 'bk_switch_default_host'", guard.clone()),
        ("update instance_association set source_id = 999 where source_id = 2", guard),
        ("update instance_association set target_id = 1 where target_id = 2 and source_id = 1", source_key),
    ] {
        assert_eq!(refusal(&mut conn, sql).await, refused, "{sql}");
    }
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn what_links_refer_to_cannot_go_or_change_under_them(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    assert_eq!(refusal(&mut conn, LINK).await, None);
    let instance = Some("instance_restrict_linked_delete".to_owned());
    let association = Some("model_association_restrict_linked_delete".to_owned());
    let fixed = Some("55000".to_owned());
    for (sql, refused) in [
        ("delete from instance where instance_id = 1", instance.clone()),
        ("delete from instance where name = 'host-1'", instance.clone()),
        ("update instance set instance_id = 999 where name = 'bk_switch-1'", instance.clone()),
        (
            "update instance set model_id = (select id from model where key = 'plat') where name = 'host-1'",
            instance,
        ),
        ("truncate instance", Some("23503".to_owned())),
        ("truncate model_association", Some("23503".to_owned())),
        ("delete from model_association where key = 'bk_switch_run_host'", association),
        (
            "update model_association set mapping = 'n:n' where key = 'bk_switch_run_host'",
            fixed.clone(),
        ),
        (
            "update model_association set id = id + 4 where key = 'bk_switch_run_host'",
            fixed.clone(),
        ),
        (
            "update model_association set source_model_id = target_model_id where key = 'bk_switch_run_host'",
            fixed,
        ),
        (
            "delete from model where key = 'host'",
            Some("model_association_source_model_fk".to_owned()),
        ),
        ("delete from tenant", Some("tenant_keep".to_owned())),
        ("update tenant set id = 9", Some("tenant_keep".to_owned())),
        // What nothing refers to may go.
        (
            "update instance set name = 'renamed', instance_id = instance_id where instance_id = 1",
            None,
        ),
        ("delete from instance where instance_id > 1", None),
        ("delete from model_association where key <> 'bk_switch_run_host'", None),
        ("delete from instance_association", None),
        ("delete from instance", None),
    ] {
        assert_eq!(refusal(&mut conn, sql).await, refused, "{sql}");
    }
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_mapping_is_in_the_id_and_cannot_be_forged(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let sql = "insert into model_association (id, key, source_model_id, target_model_id, association_kind_id, mapping)
               select 4003, 'forged', source_model_id, target_model_id, association_kind_id, '1:1'
               from model_association where key = 'bk_switch_run_host'";
    assert_eq!(refusal(&mut conn, sql).await, Some("model_association_id_check".to_owned()));
}

/// A fixed snapshot cannot see whether an instance went meanwhile, so neither side may have one.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn other_isolation_levels_are_refused_on_both_sides(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    for level in ["begin isolation level repeatable read", "begin isolation level serializable"] {
        for sql in [
            LINK,
            "delete from instance where instance_id = 9",
            "update instance set instance_id = 999 where instance_id = 9",
        ] {
            let mut tx = conn.begin_with(level).await.unwrap();
            assert_eq!(refusal(&mut tx, sql).await, Some("0A000".to_owned()), "{level}: {sql}");
            tx.rollback().await.unwrap();
        }
    }
}

/// Waits until some backend waits for a lock.
/// Holds back whoever writes links, until the transaction ends.
pub(crate) async fn hold_writers(pool: &PgPool) -> Transaction<'static, Postgres> {
    let mut holder = pool.begin().await.unwrap();
    let lock = "lock table instance_association in share row exclusive mode";
    sqlx::query(lock).execute(&mut *holder).await.unwrap();
    holder
}

/// A role of a test's own, since roles are shared by all databases: it may read and write everything, and owns nothing.
pub(crate) struct Role<'a> {
    pool: &'a PgPool,
    name: String,
}

impl<'a> Role<'a> {
    pub(crate) async fn new(pool: &'a PgPool, limits: &str) -> Self {
        let database: String =
            sqlx::query_scalar("select current_database()").fetch_one(pool).await.unwrap();
        let role = Self { pool, name: database.to_lowercase().replace('-', "_") };
        role.run(&format!(
            "create role ROLE login password 'x' {limits};
             grant all on all tables in schema public to ROLE;
             grant all on all sequences in schema public to ROLE"
        ))
        .await;
        role
    }

    /// Runs statements that call it `ROLE`.
    pub(crate) async fn run(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.replace("ROLE", &self.name));
        sqlx::raw_sql(sql).execute(self.pool).await.unwrap();
    }

    /// How it connects.
    pub(crate) fn options(&self) -> PgConnectOptions {
        self.pool.connect_options().as_ref().clone().username(&self.name).password("x")
    }

    pub(crate) async fn drop(self) {
        self.run("drop owned by ROLE; drop role ROLE").await;
    }
}

pub(crate) async fn someone_waits(pool: &PgPool) {
    many_wait(pool, 1).await;
}

/// Waits until so many backends wait for locks.
pub(crate) async fn many_wait(pool: &PgPool, many: i64) {
    for _ in 0..2_000 {
        let sql = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
        if waiting >= many {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{many} backends never waited for locks");
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_deletion_waits_for_links_being_written_and_is_then_refused(pool: PgPool) {
    let mut writer = pool.begin().await.unwrap();
    assert_eq!(refusal(&mut writer, LINK).await, None);
    let deleting = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut conn = pool.acquire().await.unwrap();
            refusal(&mut conn, "delete from instance where name = 'host-1'").await
        }
    });
    someone_waits(&pool).await;
    writer.commit().await.unwrap();
    assert_eq!(deleting.await.unwrap(), Some("instance_restrict_linked_delete".to_owned()));
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_batch_waits_for_a_deletion_and_then_misses_the_instance(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    let mut deleter = pool.begin().await.unwrap();
    assert_eq!(refusal(&mut deleter, "delete from instance where name = 'host-1'").await, None);
    let sending = tokio::spawn(async move {
        app.post(batch("bk_switch_default_host", &[(1, 1), (1, 2)])).await.maps()
    });
    someone_waits(&pool).await;
    deleter.commit().await.unwrap();
    let refused = json!({"0": "Associated instance does not exist"});
    assert_eq!(sending.await.unwrap(), (vec![1], refused));
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_batch_that_loses_a_race_looks_again_and_answers_for_the_rest(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    let mut other = pool.begin().await.unwrap();
    let sql = "insert into instance_association (model_association_id, source_id, target_id)
               select id, 1, 5 from model_association where key = 'bk_switch_connect_host'";
    assert_eq!(refusal(&mut other, sql).await, None);
    // It cannot see (1, 5) yet, so it plans to create (2, 5) and to refuse (3, 5) because of that.
    let sending = tokio::spawn({
        let pool = pool.clone();
        async move {
            let details = [(2, 4), (2, 5), (3, 5), (1, 5), (2, 6)];
            let reply = app.post(batch("bk_switch_connect_host", &details)).await;
            let records = app.count("select count(*) from audit_log").await;
            drop(pool);
            (reply.maps(), records)
        }
    });
    someone_waits(&pool).await;
    other.commit().await.unwrap();
    let taken = "The relationship is 1:n, and multiple source model instances cannot be associated at the same time.";
    let exists = "the associations bk_switch->host already exist";
    let (maps, records) = sending.await.unwrap();
    assert_eq!(maps, (vec![0, 4], json!({"1": taken, "2": taken, "3": exists})));
    assert_eq!(records, 1);
}

/// Two clients, every mapping, reversed orders: nobody is told of a deadlock, and the sums are right.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn batches_in_reversed_orders_do_not_deadlock(pool: PgPool) {
    let app = std::sync::Arc::new(TestApp::new(pool).await);
    for key in ["bk_switch_default_host", "bk_switch_connect_host", "bk_switch_run_host"] {
        let forward: Vec<_> = (1..=200).map(|n| (n, 201 - n)).collect();
        let backward: Vec<_> = forward.iter().rev().copied().collect();
        let clients = [forward.clone(), backward.clone(), forward, backward].map(|details| {
            let app = std::sync::Arc::clone(&app);
            tokio::spawn(async move { app.post(batch(key, &details)).await.ids().len() })
        });
        let mut created = 0;
        for client in clients {
            created += client.await.unwrap();
        }
        assert_eq!(created, 200, "{key}");
    }
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(app.count(deadlocks).await, 0);
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn the_server_and_the_import_choose_their_own_isolation(pool: PgPool) {
    let sql = "do $$ begin execute format(
        'alter database %I set default_transaction_isolation to serializable', current_database()); end $$";
    sqlx::query(sql).execute(&pool).await.unwrap();
    let options = database_at(pool.connect_options().to_url_lossy().as_str()).unwrap();
    let app = TestApp::new(pool_of(options, 2)).await;
    assert_eq!(app.post(batch("bk_switch_run_host", &[(1, 1)])).await.ids().len(), 1);
    app.serving.close().await;
    let imported = Program::on(&pool).run(&["import", "tests/demo/export"]);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
}

/// What a caller has under the names of our tables stands in for none of them.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn tables_of_the_callers_own_do_not_stand_in_for_ours(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    assert_eq!(refusal(&mut conn, LINK).await, None);
    let forged =
        "insert into public.instance_association (model_association_id, source_id, target_id)
        select id, 999, 999 from public.model_association where key = 'bk_switch_default_host'";
    let mut tx = conn.begin().await.unwrap();
    for sql in [
        "create temp table instance as select model_id, 999::bigint as instance_id, 0 as tenant_id
         from public.instance",
        "create temp table model_association as select * from public.model_association",
    ] {
        assert_eq!(refusal(&mut tx, sql).await, None);
    }
    assert_eq!(refusal(&mut tx, forged).await, Some("instance_association_guard".to_owned()));
    tx.rollback().await.unwrap();

    for shadow in [
        "create temp table instance_association (like public.instance_association)",
        "do $$ begin execute format('create schema %I', current_user);
             execute format('create table %I.instance_association (like public.instance_association)', current_user);
         end $$",
    ] {
        let mut tx = conn.begin().await.unwrap();
        assert_eq!(refusal(&mut tx, shadow).await, None);
        let delete = "delete from public.instance where instance_id = 1";
        assert_eq!(refusal(&mut tx, delete).await, Some("instance_restrict_linked_delete".to_owned()));
        tx.rollback().await.unwrap();
    }
}

/// As with foreign keys, whoever may write a table needs no rights on those that are looked at.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn whoever_may_write_instances_needs_no_further_rights(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    for sql in [
        LINK,
        "create role test_inventory_writer",
        "grant select, insert, update, delete on instance to test_inventory_writer",
        "set local role test_inventory_writer",
        "update instance set name = 'renamed' where instance_id = 1",
        "delete from instance where instance_id = 2",
    ] {
        assert_eq!(refusal(&mut tx, sql).await, None, "{sql}");
    }
    let linked = refusal(&mut tx, "delete from instance where instance_id = 1").await;
    assert_eq!(linked, Some("instance_restrict_linked_delete".to_owned()));
}

const PROVEN: &str = "select set_config('cmdb.guard_may_skip', 'yes', true)";
const DANGLING: &str = "insert into instance_association (model_association_id, source_id, target_id)
                        select id, 1, 999 from model_association where key = 'bk_switch_default_host'";

/// The endpoint's statement says that it has looked itself. Others who say so are not believed.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn nobody_but_the_owner_can_say_that_instances_were_looked_for(pool: PgPool) {
    let role = Role::new(&pool, "").await;
    let mut stranger = role.options().connect().await.unwrap();
    let mut tx = stranger.begin().await.unwrap();
    assert_eq!(refusal(&mut tx, PROVEN).await, None);
    let refused = refusal(&mut tx, DANGLING).await;
    assert_eq!(refused, Some("instance_association_guard".to_owned()));
    drop(tx);
    stranger.close().await.unwrap();
    role.drop().await;
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn that_instances_were_looked_for_is_believed_for_one_statement(pool: PgPool) {
    let mut tx = pool.begin().await.unwrap();
    assert_eq!(refusal(&mut tx, PROVEN).await, None);
    assert_eq!(refusal(&mut tx, LINK).await, None);
    let refused = refusal(&mut tx, DANGLING).await;
    assert_eq!(refused, Some("instance_association_guard".to_owned()));
}

/// Deadlocks need two orders. A batch takes the places of its targets in ascending order …
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_batch_takes_places_in_the_order_of_targets(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    let mut other = pool.begin().await.unwrap();
    let hold = "insert into instance_association (model_association_id, source_id, target_id)
                select id, 1, 5 from model_association where key = 'bk_switch_connect_host'";
    assert_eq!(refusal(&mut other, hold).await, None);
    let sending = tokio::spawn(async move {
        app.post(batch("bk_switch_connect_host", &[(2, 9), (2, 5)])).await.maps().0
    });
    someone_waits(&pool).await;
    // While it waits for target 5 it holds nothing above: 9 is free, without waiting.
    assert_eq!(refusal(&mut other, "set local lock_timeout = '100ms'").await, None);
    let above = "insert into instance_association (model_association_id, source_id, target_id)
                 select id, 3, 9 from model_association where key = 'bk_switch_connect_host'";
    assert_eq!(refusal(&mut other, above).await, None);
    other.commit().await.unwrap();
    assert_eq!(sending.await.unwrap(), [0_usize; 0]);
}

/// … and under 1:1, where there are places of two kinds, batches take turns.
#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn batches_under_1_1_take_turns(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    let mut other = pool.begin().await.unwrap();
    let turn = "select pg_advisory_xact_lock(1668113506, id) from model_association
                where key = 'bk_switch_run_host'";
    assert_eq!(refusal(&mut other, turn).await, None);
    assert_eq!(app.post(batch("bk_switch_connect_host", &[(1, 1)])).await.maps().0, [0]);
    let sending =
        tokio::spawn(
            async move { app.post(batch("bk_switch_run_host", &[(1, 1)])).await.maps().0 },
        );
    someone_waits(&pool).await;
    other.commit().await.unwrap();
    assert_eq!(sending.await.unwrap(), [0]);
}
