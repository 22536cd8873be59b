//! `add_instance_association`: creating a single association.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use cmdb_associations::http::ClientAddr;
use cmdb_associations::service::check::check;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{Reply, TestApp, batch, pool_of};
use crate::constraints::wait_until_blocked;
use crate::permissions::{grant, instance};
use crate::proxy::Proxy;

pub(crate) const PATH: &str = "/api/c/compapi/v2/cc/add_instance_association/";
const KEY: &str = "idempotency-key";

fn link(association: &str, source: i64, target: i64) -> Value {
    json!({"bk_obj_asst_id": association, "bk_inst_id": source, "bk_asst_inst_id": target})
}

async fn add(app: &TestApp, body: Value) -> Reply {
    app.post_to(PATH, &[("blueking-language", "en")], body).await
}

#[track_caller]
fn id(reply: &Reply) -> i64 {
    assert_eq!(reply.json["code"], 0, "{}", reply.text);
    reply.json["data"]["id"].as_i64().unwrap()
}

const UNKNOWN: (u32, &str, &str) =
    (1_101_046, "object association does not exist.", "模型的关联关系不存在");
const ONE_TO_ONE: (u32, &str, &str) = (
    1_101_052,
    "can not create multiple instance association for a 1:1 association.",
    "关联关系为1:1的，不能同时关联多个实例",
);
const ONE_TO_MANY: (u32, &str, &str) = (
    1_101_061,
    "The relationship is 1:n, and multiple source model instances cannot be associated at the same time.",
    "关联关系为1:n的，不能同时关联多个源模型实例",
);
const DUPLICATE: (u32, &str, &str) = (
    1_199_014,
    "duplicated instances exist, fields [association] duplicated",
    "数据唯一性校验失败， association 重复",
);
const NO_SOURCE: (u32, &str, &str) =
    (1_101_073, "Association instance does not exist", "关联实例不存在");
const NO_TARGET: (u32, &str, &str) =
    (1_101_074, "Associated instance does not exist", "被关联实例不存在");

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_answer_has_the_id_of_the_new_link(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let reply = add(&app, link("bk_switch_connect_host", 11, 21)).await;
    assert_eq!(
        reply.body(),
        r#"{"result":true,"code":0,"message":"","permission":null,"request_id":"<id>","data":{"id":1}}"#
    );
    let stored = "select count(*) from cmdb.instance_association link
                  join cmdb.model_association association
                      on association.id = link.model_association_id
                  join cmdb.audit_log on association_ids = '{[1,2)}'
                  where link.id = 1 and key = 'bk_switch_connect_host'
                      and source_id = 11 and target_id = 21
                      and source_ids = '{11}' and target_ids = '{21}'";
    assert_eq!(app.count(stored).await, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_mapping_is_checked_before_the_pair_and_the_pair_before_its_instances(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let [n_n, one_n, one_one] =
        ["bk_switch_default_host", "bk_switch_connect_host", "bk_switch_run_host"];
    for association in [n_n, one_n, one_one] {
        id(&add(&app, link(association, 1, 1)).await);
    }
    for (body, (code, english, chinese)) in [
        (link("", 1, 1), UNKNOWN),
        (link("bk_switch_belong_host", 1, 1), UNKNOWN),
        (link(one_one, 1, 1), ONE_TO_ONE),
        (link(one_one, 1, 2), ONE_TO_ONE),
        (link(one_one, 2, 1), ONE_TO_ONE),
        (link(one_one, 999, 1), ONE_TO_ONE),
        (link(one_one, 1, 999), ONE_TO_ONE),
        (link(one_one, 999, 2), NO_SOURCE),
        (link(one_one, 2, 999), NO_TARGET),
        (link(one_n, 1, 1), ONE_TO_MANY),
        (link(one_n, 2, 1), ONE_TO_MANY),
        (link(one_n, 999, 1), ONE_TO_MANY),
        (link(one_n, 999, 2), NO_SOURCE),
        (link(one_n, 1, 999), NO_TARGET),
        (link(n_n, 1, 1), DUPLICATE),
        (link(n_n, 999, 1), NO_SOURCE),
        (link(n_n, 999, 999), NO_SOURCE),
        (link(n_n, 1, 999), NO_TARGET),
        (link(n_n, -1, 1), NO_SOURCE),
        (link(n_n, 1, -1), NO_TARGET),
    ] {
        add(&app, body.clone()).await.assert_refused(200, code, english);
        let reply = app.post_to(PATH, &[("blueking-language", "zh-cn")], body).await;
        reply.assert_refused(200, code, chinese);
    }
    for (association, source, target) in [(one_one, 2, 2), (one_n, 1, 2), (n_n, 1, 2), (n_n, 2, 1)]
    {
        id(&add(&app, link(association, source, target)).await);
    }
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 7);
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 7);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn without_an_id_an_instance_does_not_exist_and_0_exists_if_it_was_imported(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let (code, text, _) = NO_TARGET;
    let area = link("host_belong_plat", 1, 0);
    add(&app, area.clone()).await.assert_refused(200, code, text);
    let import = "insert into cmdb.instance (model_id, instance_id, name)
                  select id, 0, 'default area' from cmdb.model where key = 'plat'";
    sqlx::query(import).execute(&app.pool).await.unwrap();
    let no_target = json!({"bk_obj_asst_id": "host_belong_plat", "bk_inst_id": 1});
    add(&app, no_target).await.assert_refused(200, code, text);
    id(&add(&app, area).await);
    let (code, text, _) = NO_SOURCE;
    for body in [
        json!({"bk_obj_asst_id": "host_belong_plat", "bk_asst_inst_id": 0}),
        json!({"bk_obj_asst_id": "host_belong_plat", "bk_inst_id": null}),
    ] {
        add(&app, body).await.assert_refused(200, code, text);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_cmdb_api_takes_an_empty_body_for_an_unknown_model_association(pool: PgPool) {
    let app = TestApp::with(pool, |setup| {
        setup.authenticator.trusted_peers = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    let send = async |body: String| {
        let mut request = Request::post("/api/v3/create/instassociation")
            .header("bk_user", "admin")
            .header("http_blueking_language", "en")
            .body(Body::from(body))
            .unwrap();
        request.extensions_mut().insert(ClientAddr("10.1.2.3".parse().unwrap()));
        app.send(request).await.json
    };
    for body in ["", "null", "{}", r#"{"bk_inst_id":1,"bk_asst_inst_id":1}"#] {
        assert_eq!(send(body.to_owned()).await["bk_error_code"], 1_101_046, "{body:?}");
    }
    // Fields of other versions are ignored, whatever their type is.
    let mut body = link("bk_switch_default_host", 1, 1);
    body["metadata"] = json!(5);
    body["bk_obj_id"] = json!(5);
    let answer = send(body.to_string()).await;
    assert_eq!(answer["data"], json!({"id": 1}), "{answer}");
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn of_conflicting_links_at_once_one_is_created(pool: PgPool) {
    let app = Arc::new(TestApp::new(pool_of(pool.connect_options().as_ref().clone(), 8)).await);
    for (round, (association, pairs, refusal)) in [
        ("bk_switch_run_host", [(1, 1), (1, 2), (2, 1), (1, 1)], ONE_TO_ONE),
        ("bk_switch_run_host", [(7, 5), (7, 6), (7, 7), (7, 8)], ONE_TO_ONE),
        ("bk_switch_connect_host", [(1, 9), (2, 9), (3, 9), (4, 9)], ONE_TO_MANY),
        ("bk_switch_default_host", [(1, 1), (1, 1), (1, 1), (1, 1)], DUPLICATE),
    ]
    .into_iter()
    .cycle()
    .take(20)
    .enumerate()
    {
        sqlx::query("delete from cmdb.instance_association").execute(&pool).await.unwrap();
        let send = |(source, target)| {
            let (app, body) = (Arc::clone(&app), link(association, source, target));
            tokio::spawn(async move { add(&app, body).await.json["code"].as_u64().unwrap() })
        };
        let mut codes = Vec::new();
        for sent in pairs.map(send) {
            codes.push(sent.await.unwrap());
        }
        let created = codes.iter().filter(|code| **code == 0).count();
        let refused = codes.iter().filter(|code| **code == u64::from(refusal.0)).count();
        // Of (1, 2) and (2, 1), both may be created if neither (1, 1) is.
        let at_most = if round % 4 == 0 { 2 } else { 1 };
        assert!((1..=at_most).contains(&created), "{association}: {codes:?}");
        assert_eq!(created + refused, 4, "{association}: {codes:?}");
        let stored = app.count("select count(*) from cmdb.instance_association").await;
        assert_eq!(usize::try_from(stored).unwrap(), created);
    }
    let mut conn = pool.acquire().await.unwrap();
    assert!(check(&mut conn).await.unwrap().is_sound(false));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_created_link_is_replayed_under_its_key(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let body = link("bk_switch_default_host", 1, 2);
    let first = app.post_to(PATH, &[(KEY, "k")], body.clone()).await;
    id(&first);
    sqlx::query("delete from cmdb.instance_association").execute(&app.pool).await.unwrap();
    let again = app.post_to(PATH, &[(KEY, "k")], body.clone()).await;
    assert_eq!(again.text, first.text);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 0);
    let mut of_tenant = body.clone();
    of_tenant["bk_supplier_account"] = json!("tenant");
    let message = "Parameters error, Idempotency-Key was used with a different request";
    for other in [
        of_tenant,
        link("bk_switch_connect_host", 1, 2),
        link("bk_switch_default_host", 2, 1),
        link("bk_switch_default_host", 1, 3),
    ] {
        let reply = app.post_to(PATH, &[(KEY, "k")], other).await;
        reply.assert_refused(200, 1_306_406, message);
    }
    // A batch of the same pair is another request, too.
    let reply = app.post_with(&[(KEY, "k")], batch("bk_switch_default_host", &[(1, 2)])).await;
    reply.assert_refused(200, 1_306_406, message);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_refused_link_is_decided_anew_under_its_key(pool: PgPool) {
    let app = TestApp::new(pool).await;
    id(&add(&app, link("bk_switch_connect_host", 1, 1)).await);
    let body = link("bk_switch_connect_host", 2, 1);
    let refused = app.post_to(PATH, &[(KEY, "k")], body.clone()).await;
    assert_eq!(refused.json["code"], ONE_TO_MANY.0);
    assert_eq!(app.count("select count(*) from cmdb.idempotency_record").await, 0);
    sqlx::query("delete from cmdb.instance_association").execute(&app.pool).await.unwrap();
    let created = app.post_to(PATH, &[(KEY, "k")], body.clone()).await;
    id(&created);
    assert_eq!(app.post_to(PATH, &[(KEY, "k")], body).await.text, created.text);
}

/// A user with grants for single instances waits for the lock after looking for a stored answer.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_link_that_the_same_request_creates_meanwhile_is_replayed(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    grant_first_instances(&app, "user").await;
    let mut body = link("bk_switch_run_host", 1, 1);
    body["bk_username"] = json!("user");
    let first = app.post_to(PATH, &[(KEY, "other")], body.clone()).await;
    id(&first);
    let mut answering = pool.begin().await.unwrap();
    for sql in [
        "update cmdb.idempotency_record set key = 'k'",
        "lock table cmdb.permission_grant in access exclusive mode",
    ] {
        sqlx::query(sql).execute(&mut *answering).await.unwrap();
    }
    let sending = tokio::spawn(async move { app.post_to(PATH, &[(KEY, "k")], body).await });
    wait_until_blocked(&pool, 1).await;
    answering.commit().await.unwrap();
    assert_eq!(sending.await.unwrap().text, first.text);
}

/// Grants a user to edit switch 1 and host 1.
async fn grant_first_instances(app: &TestApp, user: &str) {
    grant(app, user, &[instance("bk_switch", 1), instance("host", 1)]).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn both_instances_that_exist_must_be_granted(pool: PgPool) {
    let app = TestApp::new(pool).await;
    grant_first_instances(&app, "user").await;
    let send = async |source, target| {
        let mut body = link("bk_switch_connect_host", source, target);
        body["bk_username"] = json!("user");
        add(&app, body).await
    };
    id(&send(1, 1).await);
    // Permission comes before the mapping, and a missing instance needs none.
    for ((source, target), code) in [
        ((2, 1), 9_900_403),
        ((1, 2), 9_900_403),
        ((999, 2), 9_900_403),
        ((1, 1), ONE_TO_MANY.0),
        ((999, 999), NO_SOURCE.0),
        ((1, 999), NO_TARGET.0),
    ] {
        assert_eq!(send(source, target).await.json["code"], code, "{source}, {target}");
    }
    let reply = send(1, 2).await;
    let missing = &reply.json["permission"]["actions"];
    assert_eq!(missing.as_array().unwrap().len(), 1, "{missing}");
    assert_eq!(missing[0]["related_resource_types"][0]["instances"][0][0]["id"], "2");
}

/// The original refuses a model association of tenant 0 to every other tenant.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_tenant_links_the_instances_that_it_sees(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let import = "insert into cmdb.instance (model_id, instance_id, name)
                  select id, 0, 'default area' from cmdb.model where key = 'plat'";
    sqlx::query(import).execute(&app.pool).await.unwrap();
    let send = async |association: &str, target| {
        let mut body = link(association, 1, target);
        body["bk_supplier_account"] = json!("tenant");
        add(&app, body).await
    };
    assert_eq!(send("bk_switch_default_host", 1).await.json["code"], NO_SOURCE.0);
    id(&send("host_belong_plat", 0).await);
    let of_tenant = "select count(*) from cmdb.instance_association link
                     join cmdb.tenant on tenant.id = tenant_id where tenant.key = 'tenant'";
    assert_eq!(app.count(of_tenant).await, 1);
    // The other tenant does not see the link, but it is there.
    let (code, text, _) = DUPLICATE;
    add(&app, link("host_belong_plat", 1, 0)).await.assert_refused(200, code, text);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_link_is_created_by_one_statement_and_refused_by_two(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::to(&pool.connect_options()).await;
    let app = TestApp::on(pool_of(proxy.options.clone(), 1)).connect().await;
    let statements = async |headers: &[(&str, &str)], body: Value| {
        let before = proxy.statements();
        app.post_to(PATH, headers, body).await;
        proxy.statements() - before
    };
    // The application, the model association, the user's permissions, the tenant, and the write.
    assert_eq!(statements(&[], link("bk_switch_connect_host", 1, 1)).await, 5);
    assert_eq!(statements(&[], link("bk_switch_connect_host", 1, 2)).await, 1);
    // With a key: the stored answer, and the write unless there is one.
    let keyed = link("bk_switch_connect_host", 1, 3);
    assert_eq!(statements(&[(KEY, "k")], keyed.clone()).await, 2);
    assert_eq!(statements(&[(KEY, "k")], keyed).await, 1);
    // The second statement finds out why the first one has written nothing. After that, the same is
    // expected of the next link.
    assert_eq!(statements(&[], link("bk_switch_connect_host", 1, 2)).await, 2, "it is taken");
    assert_eq!(statements(&[], link("bk_switch_connect_host", 1, 999)).await, 1);
    assert_eq!(statements(&[], link("bk_switch_connect_host", 1, 4)).await, 2);
    app.serving.close().await;
}
