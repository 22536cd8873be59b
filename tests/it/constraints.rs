//! What the database rejects from any client, and how concurrent statements wait for each other.

use std::time::Duration;

use cmdb_associations::config::database_at;
use cmdb_associations::db::session;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, Postgres, Transaction,
};

use crate::app::{TestApp, batch, pool_of};
use crate::binary::{Program, is_transaction_pooled};

/// Runs a statement. Returns the constraint that rejected it, or the SQLSTATE if none is named.
pub(crate) async fn rejection(conn: &mut PgConnection, sql: &'static str) -> Option<String> {
    let error = match sqlx::query(sql).execute(conn).await {
        Ok(_) => return None,
        Err(sqlx::Error::Database(error)) => error,
        Err(other) => panic!("{other}"),
    };
    Some(error.constraint().map_or_else(|| error.code().unwrap().into_owned(), str::to_owned))
}

/// A statement that creates a link, as a client other than the server writes it.
macro_rules! insert_link {
    ($key:literal, $source:literal, $target:literal) => {
        concat!(
            "insert into cmdb.instance_association (model_association_id, source_id, target_id) ",
            "select id, ",
            $source,
            ", ",
            $target,
            " from cmdb.model_association where key = '",
            $key,
            "'"
        )
    };
}

const LINK: &str = insert_link!("bk_switch_run_host", 1, 1);

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn plain_sql_that_breaks_uniqueness_a_mapping_or_a_reference_is_rejected(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let pair_key = Some("instance_association_pair_key".to_owned());
    let source_key = Some("instance_association_source_key".to_owned());
    let target_key = Some("instance_association_target_key".to_owned());
    let guard = Some("instance_association_guard".to_owned());
    for (sql, rejected_by) in [
        (insert_link!("bk_switch_default_host", 1, 1), None),
        (insert_link!("bk_switch_default_host", 1, 2), None),
        (insert_link!("bk_switch_default_host", 2, 1), None),
        (insert_link!("bk_switch_default_host", 1, 1), pair_key.clone()),
        (insert_link!("bk_switch_connect_host", 1, 1), None),
        (insert_link!("bk_switch_connect_host", 1, 2), None),
        (insert_link!("bk_switch_connect_host", 2, 1), target_key.clone()),
        (insert_link!("bk_switch_run_host", 1, 1), None),
        (insert_link!("bk_switch_run_host", 1, 2), source_key),
        (insert_link!("bk_switch_run_host", 2, 1), target_key.clone()),
        (insert_link!("bk_switch_default_host", 999, 1), guard.clone()),
        (insert_link!("bk_switch_default_host", 1, 999), guard.clone()),
        (
            "insert into cmdb.instance_association (model_association_id, source_id, target_id)
             values (9999, 1, 1)",
            guard.clone(),
        ),
        (
            "insert into cmdb.instance_association
                 (model_association_id, tenant_id, source_id, target_id)
             select id, 77, 9, 9 from cmdb.model_association where key = 'bk_switch_default_host'",
            guard.clone(),
        ),
        ("update cmdb.instance_association set source_id = 999 where source_id = 2", guard),
        (
            "update cmdb.instance_association set target_id = 1
             where target_id = 2 and source_id = 1",
            pair_key,
        ),
    ] {
        assert_eq!(rejection(&mut conn, sql).await, rejected_by, "{sql}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn rows_that_links_refer_to_cannot_be_deleted_or_rekeyed(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    assert_eq!(rejection(&mut conn, LINK).await, None);
    let tenant = "insert into cmdb.tenant (id, key) values (1, 'tenant')";
    assert_eq!(rejection(&mut conn, tenant).await, None);
    let instance_delete = Some("instance_restrict_linked_delete".to_owned());
    let instance_update = Some("instance_restrict_linked_update".to_owned());
    let not_in_prerequisite_state = Some("55000".to_owned());
    for (sql, rejected_by) in [
        ("delete from cmdb.instance where instance_id = 1", instance_delete.clone()),
        ("delete from cmdb.instance where name = 'host-1'", instance_delete),
        (
            "update cmdb.instance set instance_id = 999 where name = 'bk_switch-1'",
            instance_update.clone(),
        ),
        ("update cmdb.instance set tenant_id = 1 where name = 'host-1'", instance_update.clone()),
        (
            "update cmdb.instance set model_id = (select id from cmdb.model where key = 'plat')
             where name = 'host-1'",
            instance_update,
        ),
        ("truncate cmdb.instance", Some("instance_restrict_linked_truncate".to_owned())),
        (
            "truncate cmdb.model_association",
            Some("model_association_restrict_linked_truncate".to_owned()),
        ),
        (
            "delete from cmdb.model_association where key = 'bk_switch_run_host'",
            Some("model_association_restrict_linked_delete".to_owned()),
        ),
        (
            "update cmdb.model_association set mapping = 'n:n' where key = 'bk_switch_run_host'",
            not_in_prerequisite_state.clone(),
        ),
        (
            "update cmdb.model_association set id = id + 4 where key = 'bk_switch_run_host'",
            not_in_prerequisite_state.clone(),
        ),
        (
            "update cmdb.model_association set source_model_id = target_model_id
             where key = 'bk_switch_run_host'",
            not_in_prerequisite_state,
        ),
        (
            "delete from cmdb.model where key = 'bk_switch'",
            Some("model_association_source_model_fk".to_owned()),
        ),
        (
            "delete from cmdb.model where key = 'host'",
            Some("model_restrict_built_in_delete".to_owned()),
        ),
        (
            "delete from cmdb.association_kind where key = 'run'",
            Some("association_kind_restrict_predefined_delete".to_owned()),
        ),
        ("update cmdb.model set id = 99 where id = 1", Some("model_restrict_update".to_owned())),
        ("truncate cmdb.model cascade", Some("model_restrict_truncate".to_owned())),
        ("delete from cmdb.tenant", Some("tenant_restrict_delete".to_owned())),
        ("update cmdb.tenant set id = 9", Some("tenant_restrict_update".to_owned())),
        ("update cmdb.tenant set key = 'nil' where id = 0", Some("tenant_shared_check".to_owned())),
        (
            "update cmdb.model set key = 'server' where key = 'host'",
            Some("model_restrict_update".to_owned()),
        ),
        // Rows without links can be deleted.
        (
            "update cmdb.instance set name = 'renamed', instance_id = instance_id where instance_id = 1",
            None,
        ),
        ("delete from cmdb.instance where instance_id > 1", None),
        ("delete from cmdb.model_association where key <> 'bk_switch_run_host'", None),
        ("delete from cmdb.instance_association", None),
        ("delete from cmdb.instance", None),
        ("delete from cmdb.model_association", None),
        ("delete from cmdb.model where key = 'bk_switch'", None),
    ] {
        assert_eq!(rejection(&mut conn, sql).await, rejected_by, "{sql}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_model_association_id_with_the_bits_of_another_mapping_is_rejected(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let sql = "insert into cmdb.model_association
                   (id, key, source_model_id, target_model_id, association_kind_id, mapping)
               select 4003, 'forged', source_model_id, target_model_id, association_kind_id, '1:1'
               from cmdb.model_association where key = 'bk_switch_run_host'";
    assert_eq!(rejection(&mut conn, sql).await, Some("model_association_id_check".to_owned()));
}

/// Callers see the number as the id, and a text instead of the mapping.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_repeated_number_and_a_mapping_under_an_exported_one_are_rejected(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    for (sql, rejected_by) in [
        (
            "insert into cmdb.model_association
                 (id, key, source_model_id, target_model_id, association_kind_id, mapping)
             select id | 3, 'forged', source_model_id, target_model_id, association_kind_id, 'n:n'
             from cmdb.model_association where key = 'bk_switch_run_host'",
            Some("model_association_number_key"),
        ),
        (
            "update cmdb.model_association set exported_mapping = 'n:1'
             where key = 'bk_switch_run_host'",
            Some("model_association_exported_mapping_check"),
        ),
        (
            "update cmdb.model_association set exported_mapping = '1:1'
             where key = 'bk_switch_default_host'",
            Some("model_association_exported_mapping_check"),
        ),
        (
            "update cmdb.model_association set exported_mapping = 'n:1'
             where key = 'bk_switch_default_host'",
            None,
        ),
    ] {
        assert_eq!(rejection(&mut conn, sql).await, rejected_by.map(str::to_owned), "{sql}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_instance_has_a_model_and_a_tenant_that_exist(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let inserted = Some("instance_check_references_insert".to_owned());
    let updated = Some("instance_check_references_update".to_owned());
    for (sql, rejected_by) in [
        ("insert into cmdb.instance (model_id, instance_id) values (77, 1)", inserted.clone()),
        (
            "insert into cmdb.instance (model_id, instance_id, tenant_id) values (1, 1001, 77)",
            inserted,
        ),
        ("update cmdb.instance set model_id = 77 where name = 'host-1'", updated.clone()),
        ("update cmdb.instance set tenant_id = 77 where name = 'host-1'", updated),
        ("insert into cmdb.model (id, key, name) values (77, 'rack', 'Rack')", None),
        ("insert into cmdb.instance (model_id, instance_id) values (77, 1)", None),
        ("delete from cmdb.model where id = 77", Some("model_restrict_delete".to_owned())),
        ("delete from cmdb.instance where model_id = 77", None),
        ("delete from cmdb.model where id = 77", None),
    ] {
        assert_eq!(rejection(&mut conn, sql).await, rejected_by, "{sql}");
    }
}

/// Whichever comes first, the other one waits and then fails.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_model_is_not_deleted_while_its_first_instance_is_created(pool: PgPool) {
    let insert = "insert into cmdb.instance (model_id, instance_id) values (77, 1)";
    let delete = "delete from cmdb.model where id = 77";
    for (first, second, rejected_by) in [
        (insert, delete, "model_restrict_delete"),
        (delete, insert, "instance_check_references_insert"),
    ] {
        let mut setup = pool.acquire().await.unwrap();
        for sql in [
            "delete from cmdb.instance where model_id = 77",
            delete,
            "insert into cmdb.model (id, key, name) values (77, 'rack', 'Rack')",
        ] {
            assert_eq!(rejection(&mut setup, sql).await, None);
        }
        let mut tx = pool.begin().await.unwrap();
        assert_eq!(rejection(&mut tx, first).await, None);
        let mut conn = pool.acquire().await.unwrap();
        let waiting = tokio::spawn(async move { rejection(&mut conn, second).await });
        wait_until_blocked(&pool, 1).await;
        tx.commit().await.unwrap();
        assert_eq!(waiting.await.unwrap().as_deref(), Some(rejected_by), "{first}");
    }
}

/// A transaction-wide snapshot cannot see concurrent changes of the other side.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn links_and_instances_can_be_changed_under_read_committed_only(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    for level in ["begin isolation level repeatable read", "begin isolation level serializable"] {
        for sql in [
            LINK,
            "delete from cmdb.instance where instance_id = 9",
            "update cmdb.instance set instance_id = 999 where instance_id = 9",
            "update cmdb.instance set tenant_id = 0 where instance_id = 9",
            "delete from cmdb.model where key = 'rack'",
        ] {
            let mut tx = conn.begin_with(level).await.unwrap();
            assert_eq!(rejection(&mut tx, sql).await, Some("0A000".to_owned()), "{level}: {sql}");
            tx.rollback().await.unwrap();
        }
    }
}

/// Blocks transactions that write links until the returned one ends.
pub(crate) async fn block_link_writers(pool: &PgPool) -> Transaction<'static, Postgres> {
    let mut blocker = pool.begin().await.unwrap();
    let lock = "lock table cmdb.instance_association in share row exclusive mode";
    sqlx::query(lock).execute(&mut *blocker).await.unwrap();
    blocker
}

/// A role that owns nothing. Its name is the database's, because all databases share their roles.
pub(crate) struct Role<'a> {
    pool: &'a PgPool,
    name: String,
}

impl<'a> Role<'a> {
    /// A role with all privileges on the tables and sequences of a test's database.
    pub(crate) async fn new(pool: &'a PgPool, limits: &str) -> Self {
        let role = Self::without_privileges(pool).await;
        role.run(&format!(
            "alter role ROLE {limits};
             grant usage on schema cmdb to ROLE;
             grant all on all tables in schema cmdb to ROLE;
             grant all on all sequences in schema cmdb to ROLE"
        ))
        .await;
        if is_transaction_pooled() {
            let mut tx = pool.begin().await.unwrap();
            let set = AssertSqlSafe(format!("set local role {}", role.name));
            sqlx::raw_sql(set).execute(&mut *tx).await.unwrap();
            session::set_role_defaults(&mut tx).await.unwrap();
            tx.commit().await.unwrap();
        }
        role
    }

    pub(crate) async fn without_privileges(pool: &'a PgPool) -> Self {
        let database: String =
            sqlx::query_scalar("select current_database()").fetch_one(pool).await.unwrap();
        let role = Self { pool, name: database.to_lowercase().replace('-', "_") };
        role.run("create role ROLE login password 'x'").await;
        role
    }

    /// Runs statements in which `ROLE` stands for the name.
    pub(crate) async fn run(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.replace("ROLE", &self.name));
        sqlx::raw_sql(sql).execute(self.pool).await.unwrap();
    }

    /// Options to connect as this role.
    pub(crate) fn options(&self) -> PgConnectOptions {
        self.pool.connect_options().as_ref().clone().username(&self.name).password("x")
    }

    pub(crate) async fn drop(self) {
        self.run("drop owned by ROLE; drop role ROLE").await;
    }
}

/// Waits until `count` backends wait for locks.
pub(crate) async fn wait_until_blocked(pool: &PgPool, count: i64) {
    for _ in 0..2_000 {
        let sql = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
        if waiting >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("fewer than {count} backends wait for locks after 10 seconds");
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_deletion_waits_for_a_link_writer_and_is_then_rejected(pool: PgPool) {
    let mut writer = pool.begin().await.unwrap();
    assert_eq!(rejection(&mut writer, LINK).await, None);
    let deleting = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut conn = pool.acquire().await.unwrap();
            rejection(&mut conn, "delete from cmdb.instance where name = 'host-1'").await
        }
    });
    wait_until_blocked(&pool, 1).await;
    writer.commit().await.unwrap();
    assert_eq!(deleting.await.unwrap(), Some("instance_restrict_linked_delete".to_owned()));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_change_of_tenant_waits_for_a_link_writer_and_is_then_rejected(pool: PgPool) {
    let mut writer = pool.begin().await.unwrap();
    let tenant = "insert into cmdb.tenant (id, key) values (1, 'tenant')";
    assert_eq!(rejection(&mut pool.acquire().await.unwrap(), tenant).await, None);
    assert_eq!(rejection(&mut writer, LINK).await, None);
    let changing = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut conn = pool.acquire().await.unwrap();
            let sql = "update cmdb.instance set tenant_id = 1 where name = 'host-1'";
            rejection(&mut conn, sql).await
        }
    });
    wait_until_blocked(&pool, 1).await;
    writer.commit().await.unwrap();
    assert_eq!(changing.await.unwrap(), Some("instance_restrict_linked_update".to_owned()));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_batch_waits_for_a_deletion_and_then_reports_the_instance_as_missing(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    let mut deleter = pool.begin().await.unwrap();
    assert_eq!(
        rejection(&mut deleter, "delete from cmdb.instance where name = 'host-1'").await,
        None
    );
    let sending = tokio::spawn(async move {
        app.post(batch("bk_switch_default_host", &[(1, 1), (1, 2)])).await.maps()
    });
    wait_until_blocked(&pool, 1).await;
    deleter.commit().await.unwrap();
    let refused = json!({"0": "Associated instance does not exist"});
    assert_eq!(sending.await.unwrap(), (vec![1], refused));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_batch_that_conflicts_with_another_commit_is_planned_again(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    let mut other = pool.begin().await.unwrap();
    let link = insert_link!("bk_switch_connect_host", 1, 5);
    assert_eq!(rejection(&mut other, link).await, None);
    // The link (1, 5) is not visible yet, so the first plan creates (2, 5) and refuses (3, 5).
    let sending = tokio::spawn({
        let pool = pool.clone();
        async move {
            let details = [(2, 4), (2, 5), (3, 5), (1, 5), (2, 6)];
            let reply = app.post(batch("bk_switch_connect_host", &details)).await;
            let records = app.count("select count(*) from cmdb.audit_log").await;
            drop(pool);
            (reply.maps(), records)
        }
    });
    wait_until_blocked(&pool, 1).await;
    other.commit().await.unwrap();
    let taken = "The relationship is 1:n, and multiple source model instances cannot be associated \
                 at the same time.";
    let exists = "the associations bk_switch->host already exist";
    let (maps, records) = sending.await.unwrap();
    assert_eq!(maps, (vec![0, 4], json!({"1": taken, "2": taken, "3": exists})));
    assert_eq!(records, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
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

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_server_and_the_import_ignore_the_default_isolation_level(pool: PgPool) {
    let sql = "do $$ begin
        execute format('alter database %I set default_transaction_isolation to serializable',
            current_database());
        end $$";
    sqlx::query(sql).execute(&pool).await.unwrap();
    let hosts = database_at(pool.connect_options().to_url_lossy().as_str()).unwrap();
    let app = TestApp::new(pool_of(hosts.options()[0].clone(), 2)).await;
    assert_eq!(app.post(batch("bk_switch_run_host", &[(1, 1)])).await.ids().len(), 1);
    app.serving.close().await;
    let imported = Program::on(&pool).run(&["import", "tests/demo/export"]);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn triggers_ignore_tables_of_the_caller_that_shadow_theirs(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    assert_eq!(rejection(&mut conn, LINK).await, None);
    let forged =
        "insert into cmdb.instance_association (model_association_id, source_id, target_id)
        select id, 999, 999 from cmdb.model_association where key = 'bk_switch_default_host'";
    let mut tx = conn.begin().await.unwrap();
    for sql in [
        "create temp table instance as select model_id, 999::bigint as instance_id, 0 as tenant_id
         from cmdb.instance",
        "create temp table model_association as select * from cmdb.model_association",
    ] {
        assert_eq!(rejection(&mut tx, sql).await, None);
    }
    assert_eq!(rejection(&mut tx, forged).await, Some("instance_association_guard".to_owned()));
    tx.rollback().await.unwrap();

    for shadow in [
        "create temp table instance_association (like cmdb.instance_association)",
        "do $$ begin execute format('create schema %I', current_user);
             execute format('create table %I.instance_association
                 (like cmdb.instance_association)', current_user);
         end $$",
    ] {
        let mut tx = conn.begin().await.unwrap();
        assert_eq!(rejection(&mut tx, shadow).await, None);
        let delete = "delete from cmdb.instance where instance_id = 1";
        let rejected_by = rejection(&mut tx, delete).await;
        assert_eq!(rejected_by, Some("instance_restrict_linked_delete".to_owned()));
        tx.rollback().await.unwrap();
    }
}

/// As with foreign keys, the triggers run with the privileges of the tables' owner.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_role_that_may_write_instances_needs_no_privileges_on_other_tables(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    for sql in [
        LINK,
        "create role test_inventory_writer",
        "grant usage on schema cmdb to test_inventory_writer",
        "grant select, insert, update, delete on cmdb.instance to test_inventory_writer",
        "set local role test_inventory_writer",
        "update cmdb.instance set name = 'renamed' where instance_id = 1",
        "delete from cmdb.instance where instance_id = 2",
    ] {
        assert_eq!(rejection(&mut tx, sql).await, None, "{sql}");
    }
    let linked = rejection(&mut tx, "delete from cmdb.instance where instance_id = 1").await;
    assert_eq!(linked, Some("instance_restrict_linked_delete".to_owned()));
}

const SKIP_GUARD: &str = "select set_config('cmdb.guard_may_skip', 'yes', true)";
const DANGLING: &str = insert_link!("bk_switch_default_host", 1, 999);

/// The server's statement checks instances itself and sets `cmdb.guard_may_skip`.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_role_without_the_owners_privileges_cannot_skip_the_guard(pool: PgPool) {
    let role = Role::new(&pool, "").await;
    let mut conn = role.options().connect().await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    assert_eq!(rejection(&mut tx, SKIP_GUARD).await, None);
    let rejected_by = rejection(&mut tx, DANGLING).await;
    assert_eq!(rejected_by, Some("instance_association_guard".to_owned()));
    drop(tx);
    conn.close().await.unwrap();
    role.drop().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_guard_is_skipped_for_one_statement_only(pool: PgPool) {
    let mut tx = pool.begin().await.unwrap();
    assert_eq!(rejection(&mut tx, SKIP_GUARD).await, None);
    assert_eq!(rejection(&mut tx, LINK).await, None);
    let rejected_by = rejection(&mut tx, DANGLING).await;
    assert_eq!(rejected_by, Some("instance_association_guard".to_owned()));
}

/// A fixed order of index insertions prevents deadlocks under 1:n and n:n.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_batch_inserts_links_in_the_order_of_targets(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    let mut other = pool.begin().await.unwrap();
    let link = insert_link!("bk_switch_connect_host", 1, 5);
    assert_eq!(rejection(&mut other, link).await, None);
    let sending = tokio::spawn(async move {
        app.post(batch("bk_switch_connect_host", &[(2, 9), (2, 5)])).await.maps().0
    });
    wait_until_blocked(&pool, 1).await;
    // The batch waits for target 5 and has not inserted target 9, so this does not wait.
    assert_eq!(rejection(&mut other, "set local lock_timeout = '100ms'").await, None);
    let link = insert_link!("bk_switch_connect_host", 3, 9);
    assert_eq!(rejection(&mut other, link).await, None);
    other.commit().await.unwrap();
    assert_eq!(sending.await.unwrap(), [0_usize; 0]);
}

/// Under 1:1 links conflict by source and by target, so no order suits both: batches take a lock.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn batches_under_1_1_wait_for_each_other(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    let mut other = pool.begin().await.unwrap();
    let lock = "select pg_advisory_xact_lock(1668113506, id) from cmdb.model_association
                where key = 'bk_switch_run_host'";
    assert_eq!(rejection(&mut other, lock).await, None);
    assert_eq!(app.post(batch("bk_switch_connect_host", &[(1, 1)])).await.maps().0, [0]);
    let sending =
        tokio::spawn(
            async move { app.post(batch("bk_switch_run_host", &[(1, 1)])).await.maps().0 },
        );
    wait_until_blocked(&pool, 1).await;
    other.commit().await.unwrap();
    assert_eq!(sending.await.unwrap(), [0]);
}
