//! The caches of earlier look-ups, and that no request is decided by a stale entry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cmdb_associations::domain::permission::Scope;
use cmdb_associations::service;
use serde_json::json;
use sqlx::PgPool;

use crate::app::{TestApp, batch};
use crate::constraints::{block_link_writers, wait_until_blocked};
use crate::related_links;

/// For changes by any client. `check` finds a trigger that is missing.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn every_change_to_cached_data_bumps_the_cache_version(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let version = async || app.count("select version from cmdb.cache_version").await;
    for sql in [
        "insert into cmdb.app (code) values ('another')",
        "update cmdb.app set enabled = false where code = 'another'",
        "insert into cmdb.app_secret (app_id, salt, hash)
         select id, '0123456789abcdef', sha256('x') from cmdb.app where code = 'another'",
        "delete from cmdb.app_secret using cmdb.app where app_id = app.id and code = 'another'",
        "delete from cmdb.app where code = 'another'",
        "insert into cmdb.permission_grant (user_name) values ('another')",
        "delete from cmdb.permission_grant where user_name = 'another'",
        "insert into cmdb.permission_grant (user_name) values ('another')",
        "update cmdb.permission_grant set user_name = 'a third' where user_name = 'another'",
        "insert into cmdb.model (key, name) values ('rack', 'Rack')",
        "update cmdb.model set name = 'Shelf' where key = 'rack'",
        "insert into cmdb.model_association
             (key, source_model_id, target_model_id, association_kind_id, mapping)
         select 'racks', id, id, 1, 'n:n' from cmdb.model where key = 'rack'",
        "update cmdb.model_association set name = 'racks' where key = 'racks'",
        "delete from cmdb.model_association where key = 'racks'",
        "delete from cmdb.model where key = 'rack'",
        "insert into cmdb.tenant (key) values ('new')",
        "update cmdb.tenant set key = 'renamed' where key = 'new'",
        "update cmdb.app_secret set created_at = now()",
        "truncate cmdb.permission_grant",
        "truncate cmdb.app_secret",
        "delete from cmdb.instance where instance_id = 300",
        "update cmdb.instance set instance_id = 301 where instance_id = 299",
    ] {
        let before = version().await;
        sqlx::query(sql).execute(&app.pool).await.unwrap();
        assert_ne!(version().await, before, "{sql}");
    }
    // Links are not cached. Of instances, servers cache only that they exist.
    let before = version().await;
    for sql in [
        "insert into cmdb.instance_association (model_association_id, source_id, target_id)
         select id, 1, 1 from cmdb.model_association where key = 'bk_switch_default_host'",
        "insert into cmdb.instance (model_id, instance_id) select id, 300 from cmdb.model",
        "update cmdb.instance set name = 'new' where instance_id = 1",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
    }
    assert_eq!(version().await, before);
}

/// Each model and tenant has its own instances.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_instance_that_was_linked_before_is_refused_once_it_is_removed(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let create = async |source, target| {
        app.post(batch("bk_switch_default_host", &[(source, target)])).await.json["data"].clone()
    };
    for removal in [
        "delete from cmdb.instance where (model_id, instance_id) =
             (select id, 7 from cmdb.model where key = 'host')",
        "update cmdb.instance set instance_id = 1008 where (model_id, instance_id) =
             (select id, 8 from cmdb.model where key = 'host')",
    ] {
        let target = if removal.starts_with("delete") { 7 } else { 8 };
        assert!(create(1, target).await["success_created"]["0"].is_number());
        sqlx::query("delete from cmdb.instance_association").execute(&app.pool).await.unwrap();
        sqlx::query(removal).execute(&app.pool).await.unwrap();
        let refused = json!({"0": "Associated instance does not exist"});
        assert_eq!(create(1, target).await["error_msg"], refused, "{removal}");
        // The switch with the same id still exists.
        assert!(create(target, 1).await["success_created"]["0"].is_number());
    }
}

/// After a fail-over to a replica that did not have the last commits, the cache version may be the
/// same.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_instance_is_not_known_once_the_database_has_lost_its_last_commits(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let create = async |target| {
        app.post(batch("bk_switch_default_host", &[(1, target)])).await.json["data"].clone()
    };
    assert!(create(7).await["success_created"]["0"].is_number());
    let lose = "begin;
                set local session_replication_role = replica;
                delete from cmdb.instance_association;
                delete from cmdb.audit_log;
                delete from cmdb.instance where (model_id, instance_id) =
                    (select id, 7 from cmdb.model where key = 'host');
                commit";
    sqlx::raw_sql(lose).execute(&app.pool).await.unwrap();
    let refused = json!({"0": "Associated instance does not exist"});
    assert_eq!(create(7).await["error_msg"], refused);
    // Without the record, the other instances are looked up and remembered anew.
    assert!(create(8).await["success_created"]["0"].is_number());
    assert!(create(9).await["success_created"]["0"].is_number());
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_batch_is_refused_when_its_grant_is_removed_while_it_waits(pool: PgPool) {
    let app = Arc::new(TestApp::new(pool.clone()).await);
    let body = |n| batch("bk_switch_default_host", &[(n, n)]);
    assert_eq!(app.post(body(1)).await.ids().len(), 1);
    let holder = block_link_writers(&pool).await;
    let sending = Arc::clone(&app);
    let waiting = tokio::spawn(async move { sending.post(body(2)).await });
    wait_until_blocked(&pool, 1).await;
    let mut conn = pool.acquire().await.unwrap();
    service::permission::remove(&mut conn, "admin", &[Scope::default()]).await.unwrap();
    holder.rollback().await.unwrap();
    assert_eq!(waiting.await.unwrap().json["code"], 9_900_403);
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_removed_grant_stops_searches_within_5_seconds_and_a_new_one_applies_at_once(
    pool: PgPool,
) {
    let app = TestApp::new(pool).await;
    let search = async || {
        let condition = json!({"bk_obj_id": "host", "bk_inst_id": 1});
        let body = json!({"condition": condition, "fields": ["id"]});
        app.post_to(related_links::PATH, &[], body).await.json["code"].as_i64().unwrap()
    };
    let mut conn = app.pool.acquire().await.unwrap();
    let everything = [Scope::default()];
    assert_eq!(search().await, 0);
    service::permission::remove(&mut conn, "admin", &everything).await.unwrap();
    let changed = Instant::now();
    while search().await == 0 {
        assert!(changed.elapsed() < Duration::from_secs(6));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    service::permission::add(&mut conn, "admin", &everything).await.unwrap();
    assert_eq!(search().await, 0);
}

/// A cached secret is not accepted after its removal, and a new one is accepted at once.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_changed_secret_or_state_of_an_application_applies_to_the_next_request(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let send = async |secret: &str| {
        let mut body = batch("bk_switch_default_host", &[(1, 1)]);
        body["bk_app_secret"] = secret.into();
        app.post(body).await.json["code"].as_i64().unwrap()
    };
    assert_eq!(send("xxx").await, 0);
    assert_eq!(send("wrong").await, 1_306_000);
    let mut conn = app.pool.acquire().await.unwrap();
    let new = service::app::rotate(&mut conn, "esb_test", None).await.unwrap();
    assert_eq!((send(&new).await, send("xxx").await), (0, 0));
    service::app::retire(&mut conn, "esb_test").await.unwrap();
    assert_eq!((send("xxx").await, send(&new).await), (1_306_000, 0));
    service::app::set_enabled(&mut conn, "esb_test", false).await.unwrap();
    assert_eq!(send(&new).await, 1_306_000);
    service::app::set_enabled(&mut conn, "esb_test", true).await.unwrap();
    assert_eq!(send(&new).await, 0);
}
