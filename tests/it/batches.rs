//! Creating associations: what happens to each detail of a batch.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{TestApp, batch};

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_new_pair_gets_an_id_and_a_missing_instance_is_refused(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let reply = app.post(batch("bk_switch_connect_host", &[(11, 21), (12, 999)])).await;
    assert_eq!(
        reply.body(),
        r#"{"result":true,"code":0,"message":"","permission":null,"request_id":"<id>","data":{"success_created":{"0":1},"error_msg":{"1":"Associated instance does not exist"}}}"#
    );
    assert_eq!(reply.status, 200);
    assert_eq!(
        app.count(
            "select count(*) from cmdb.instance_association link
             join cmdb.model_association association on association.id = link.model_association_id
             where link.id = 1 and key = 'bk_switch_connect_host'
                 and source_id = 11 and target_id = 21"
        )
        .await,
        1
    );
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn every_refusal_of_a_detail_has_a_text_in_both_languages(pool: PgPool) {
    let app = TestApp::new(pool).await;
    // Model association, stored pair, refused pair, English text, Chinese text.
    let cases = [
        (
            "bk_switch_default_host",
            (1, 2),
            (1, 2),
            "the associations bk_switch->host already exist",
            "关联关系 bk_switch->host 重复",
        ),
        (
            "bk_switch_default_host",
            (1, 1),
            (999, 1),
            "Association instance does not exist",
            "关联实例不存在",
        ),
        (
            "bk_switch_default_host",
            (2, 2),
            (1, 999),
            "Associated instance does not exist",
            "被关联实例不存在",
        ),
        (
            "bk_switch_run_host",
            (1, 1),
            (1, 2),
            "can not create multiple instance association for a 1:1 association.",
            "关联关系为1:1的，不能同时关联多个实例",
        ),
        (
            "bk_switch_run_host",
            (3, 3),
            (4, 3),
            "can not create multiple instance association for a 1:1 association.",
            "关联关系为1:1的，不能同时关联多个实例",
        ),
        (
            "bk_switch_connect_host",
            (1, 1),
            (2, 1),
            "The relationship is 1:n, and multiple source model instances cannot be associated at the same time.",
            "关联关系为1:n的，不能同时关联多个源模型实例",
        ),
    ];
    for (key, stored, refused, english, chinese) in cases {
        let (created, _) = app.post(batch(key, &[stored])).await.maps();
        assert_eq!(created, [0], "{key} {stored:?}");
        for (language, text) in [("en", english), ("zh-cn", chinese)] {
            let reply = app.post_in(batch(key, &[refused]), language).await;
            assert_eq!(
                reply.body(),
                format!(
                    r#"{{"result":true,"code":0,"message":"","permission":null,"request_id":"<id>","data":{{"success_created":{{}},"error_msg":{{"0":"{text}"}}}}}}"#
                ),
                "{key} {refused:?}"
            );
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_detail_with_several_errors_is_refused_for_its_first_error(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch("bk_switch_run_host", &[(1, 1)])).await.ids();
    app.post(batch("bk_switch_connect_host", &[(1, 1)])).await.ids();
    let exists = "the associations bk_switch->host already exist";
    let source = "Association instance does not exist";
    let target = "Associated instance does not exist";
    for (key, detail, text) in [
        ("bk_switch_run_host", (1, 1), exists), // both ends are also taken
        ("bk_switch_connect_host", (1, 1), exists), // the target is also taken
        ("bk_switch_run_host", (999, 999), source), // the target is missing, too
        ("bk_switch_run_host", (999, 1), source), // the target is also taken
        ("bk_switch_run_host", (1, 999), target), // the source is also taken
        ("bk_switch_connect_host", (999, 1), source), // the target is also taken
    ] {
        let (_, refused) = app.post(batch(key, &[detail])).await.maps();
        assert_eq!(refused, json!({"0": text}), "{key} {detail:?}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_stored_pair_is_refused_as_existing_when_its_instance_is_invisible_to_the_tenant(
    pool: PgPool,
) {
    let app = TestApp::new(pool).await;
    insert_own_instances(&app).await;
    let own = for_tenant(batch("bk_switch_default_host", &[(1001, 1)]), json!("tenant"));
    assert_eq!(app.post(own).await.ids().len(), 1);
    let details = [(1001, 1), (1001, 2)];
    let (_, refused) = app.post(batch("bk_switch_default_host", &details)).await.maps();
    assert_eq!(
        refused,
        json!({
            "0": "the associations bk_switch->host already exist",
            "1": "Association instance does not exist",
        })
    );
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_pair_repeated_in_a_batch_is_created_once_and_then_refused_as_existing(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for key in ["bk_switch_default_host", "bk_switch_connect_host", "bk_switch_run_host"] {
        let reply = app.post(batch(key, &[(5, 6), (5, 6), (5, 6)])).await;
        let (created, refused) = reply.maps();
        let exists = "the associations bk_switch->host already exist";
        assert_eq!(created, [0], "{key}");
        assert_eq!(refused, json!({"1": exists, "2": exists}), "{key}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_refused_detail_does_not_block_later_details(pool: PgPool) {
    let app = TestApp::new(pool).await;
    app.post(batch("bk_switch_run_host", &[(9, 9)])).await.ids();
    // Details 0 and 1 are refused (source 9 is taken, 999 is missing), so target 1 stays free.
    let reply = app.post(batch("bk_switch_run_host", &[(9, 1), (999, 1), (1, 1), (2, 1)])).await;
    assert_eq!(reply.maps().0, [2]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_model_and_an_instance_may_be_associated_with_themselves(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let reply = app.post(batch("bk_switch_default_bk_switch", &[(1, 1), (1, 2), (2, 1)])).await;
    assert_eq!(reply.maps(), (vec![0, 1, 2], json!({})));
    // Under 1:1 an instance may be a source once and a target once.
    let reply = app
        .post(batch("bk_switch_group_bk_switch", &[(1, 2), (2, 3), (2, 1), (3, 1), (4, 4)]))
        .await;
    let taken = "can not create multiple instance association for a 1:1 association.";
    assert_eq!(reply.maps(), (vec![0, 1, 3, 4], json!({"2": taken})));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_detail_is_refused_when_an_id_is_missing_null_zero_or_negative(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut body = batch("bk_switch_default_host", &[]);
    body["details"] = json!([
        {"bk_asst_inst_id": 1},
        {"bk_inst_id": 1},
        {"bk_inst_id": null, "bk_asst_inst_id": 1},
        {"bk_inst_id": -1, "bk_asst_inst_id": 1},
        {"bk_inst_id": 1, "bk_asst_inst_id": 0},
        null,
        {},
        {"bk_inst_id": 999},
        {"bk_inst_id": i64::MAX, "bk_asst_inst_id": i64::MIN},
        {"bk_inst_id": 1, "bk_asst_inst_id": 1, "more": [1e300]},
    ]);
    let (created, refused) = app.post(body).await.maps();
    let source = "Association instance does not exist";
    let target = "Associated instance does not exist";
    assert_eq!(created, [9]);
    assert_eq!(
        refused,
        json!({
            "0": source, "1": target, "2": source, "3": source, "4": target, "5": source, "6": source,
            "7": source, "8": source,
        })
    );
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn instance_id_zero_can_be_associated_when_such_an_instance_was_imported(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let sql = "insert into cmdb.instance (model_id, instance_id) select id, 0 from cmdb.model where key = 'plat'";
    sqlx::query(sql).execute(&app.pool).await.unwrap();
    let (created, refused) = app.post(batch("host_belong_plat", &[(1, 0), (0, 0)])).await.maps();
    assert_eq!(created, [0]);
    assert_eq!(refused, json!({"1": "Association instance does not exist"}));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn two_hundred_details_are_answered_in_index_order(pool: PgPool) {
    let app = TestApp::new(pool).await;
    // Every third detail is refused, and the pairs are not sorted.
    let details: Vec<_> =
        (0..200).map(|n| if n % 3 == 2 { (999, n) } else { (n * 7 % 200 + 1, 200 - n) }).collect();
    for key in ["bk_switch_default_host", "bk_switch_connect_host", "bk_switch_run_host"] {
        let reply = app.post(batch(key, &details)).await;
        let positions = |range: &dyn Fn(usize) -> bool| {
            let key = |n: usize| reply.text.find(&format!("\"{n}\":")).unwrap();
            (0..200).filter(|n| range(*n)).map(key).collect::<Vec<_>>()
        };
        assert!(positions(&|n| n % 3 != 2).is_sorted(), "{}", reply.text);
        assert!(positions(&|n| n % 3 == 2).is_sorted(), "{}", reply.text);
        let (created, refused) = reply.maps();
        assert_eq!((created.len(), refused.as_object().unwrap().len()), (134, 66));
        let first = reply.json["data"]["success_created"]["0"].as_i64().unwrap();
        for (n, index) in (0..200).filter(|n| n % 3 != 2).enumerate() {
            let id = &reply.json["data"]["success_created"][index.to_string()];
            assert_eq!(*id, json!(first + i64::try_from(n).unwrap()), "ids follow the indexes");
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn each_id_in_the_answer_is_the_id_of_the_pair_at_its_index(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let details = [(7, 30), (3, 10), (9, 20), (1, 40)];
    let reply = app.post(batch("bk_switch_run_host", &details)).await;
    for (id, pair) in reply.ids().into_iter().zip(details) {
        let stored: (i64, i64) = sqlx::query_as(
            "select source_id, target_id from cmdb.instance_association where id = $1",
        )
        .bind(id)
        .fetch_one(&app.pool)
        .await
        .unwrap();
        assert_eq!(stored, pair);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_writes_one_audit_record_with_its_caller_and_pairs(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let reply = app
        .post(batch("bk_switch_default_host", &[(3, 9), (999, 1), (2, 8), (3, 9), (1, 7)]))
        .await;
    let record: (String, String, String, String, bool, Vec<i64>, Vec<i64>) = sqlx::query_as(
        "select request_id, app, user_name, origin,
             association_ids =
                 (select range_agg(int8range(id, id, '[]')) from cmdb.instance_association),
             source_ids, target_ids
         from cmdb.audit_log",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert_eq!(
        record,
        (
            reply.request_id().to_owned(),
            "esb_test".to_owned(),
            "admin".to_owned(),
            "request".to_owned(),
            true,
            vec![3, 2, 1],
            vec![9, 8, 7],
        )
    );
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_batch_that_creates_nothing_writes_no_audit_record_and_uses_no_id(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let first = app.post(batch("bk_switch_connect_host", &[(1, 1)])).await.ids();
    for detail in [(1, 1), (2, 1), (999, 1), (1, 999)] {
        assert_eq!(app.post(batch("bk_switch_connect_host", &[detail])).await.ids(), [0_i64; 0]);
    }
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 1);
    let mixed = [(1, 1), (999, 3), (2, 2), (2, 1)];
    let second = app.post(batch("bk_switch_connect_host", &mixed)).await.ids();
    assert_eq!(second, [first[0] + 1]);
}

/// Switch 1001 and host 1001 of `tenant`, switch 1002 and host 1002 of `other`, and area 0.
async fn insert_own_instances(app: &TestApp) {
    for sql in [
        "insert into cmdb.tenant (id, key) values (1, 'tenant'), (2, 'other')",
        "insert into cmdb.instance (model_id, instance_id, tenant_id)
         select model.id, 1000 + tenant.id, tenant.id from cmdb.model, cmdb.tenant
         where model.key in ('bk_switch', 'host') and tenant.id > 0",
        "insert into cmdb.instance (model_id, instance_id)
         select id, 0 from cmdb.model where key = 'plat'",
        "select setval('cmdb.tenant_id_seq', 2)",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
    }
}

fn for_tenant(mut body: Value, tenant: Value) -> Value {
    body["bk_supplier_account"] = tenant;
    body
}

/// Hosts are built in, switches are not.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_tenant_sees_its_own_instances_and_those_of_tenant_0_of_built_in_models(pool: PgPool) {
    let app = TestApp::new(pool).await;
    insert_own_instances(&app).await;
    let (source, target) =
        ("Association instance does not exist", "Associated instance does not exist");
    let exists = "the associations bk_switch->host already exist";
    let details = [(1001, 1), (1001, 1001), (1, 2), (1001, 1002), (1002, 3)];
    let send = async |tenant: Value| {
        let body = batch("bk_switch_default_host", &details);
        app.post(for_tenant(body, tenant)).await.maps()
    };
    let refused = json!({"2": source, "3": target, "4": source});
    assert_eq!(send(json!("tenant")).await, (vec![0, 1], refused));
    // A pair that another tenant linked is taken for all tenants.
    let refused = json!({"0": exists, "1": exists, "3": source, "4": source});
    assert_eq!(send(json!("0")).await, (vec![2], refused));
    let refused = json!({"0": exists, "1": exists, "2": exists, "3": source, "4": source});
    for tenant_0 in [json!(null), json!(0), json!("")] {
        assert_eq!(send(tenant_0).await, (vec![], refused.clone()));
    }
    assert_eq!(send(json!("new")).await, (vec![], refused));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_tenant_owns_the_links_it_creates_and_is_stored_with_the_first(pool: PgPool) {
    let app = TestApp::new(pool).await;
    insert_own_instances(&app).await;
    let new_tenants = "select count(*) from cmdb.tenant where key = '42'";
    let missing = for_tenant(batch("bk_switch_default_host", &[(1, 1)]), json!(42));
    for headers in [&[][..], &[("idempotency-key", "k")]] {
        assert_eq!(app.post_with(headers, missing.clone()).await.maps().0, [0_usize; 0]);
        assert_eq!(app.count(new_tenants).await, 0);
    }
    for (source, tenant) in [(1, json!(42)), (2, json!("tenant")), (3, json!(0))] {
        let body = for_tenant(batch("host_belong_plat", &[(source, 0)]), tenant);
        assert_eq!(app.post(body).await.ids().len(), 1);
    }
    assert_eq!(app.count(new_tenants).await, 1);
    let owners: Vec<String> = sqlx::query_scalar(
        "select key from cmdb.instance_association link
         join cmdb.tenant on tenant.id = tenant_id order by link.id",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert_eq!(owners, ["42", "tenant", "0"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_tenants_own_model_association_replaces_the_shared_one_of_the_same_id(pool: PgPool) {
    let app = TestApp::new(pool).await;
    insert_own_instances(&app).await;
    // The shared model association is 1:n, the tenant's is n:n.
    let own = "insert into cmdb.model_association
             (tenant_id, key, source_model_id, target_model_id, association_kind_id, mapping)
         select 1, key, source_model_id, target_model_id, association_kind_id, 'n:n'
         from cmdb.model_association where key = 'bk_switch_connect_host'";
    let switch = "insert into cmdb.instance (model_id, instance_id, tenant_id)
                  select id, 1003, 1 from cmdb.model where key = 'bk_switch'";
    for sql in [own, switch] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
    }
    let own = batch("bk_switch_connect_host", &[(1001, 1), (1003, 1)]);
    assert_eq!(app.post(for_tenant(own, json!("tenant"))).await.ids().len(), 2);
    let shared = batch("bk_switch_connect_host", &[(1, 1), (2, 1)]);
    assert_eq!(app.post(shared).await.ids().len(), 1);
}
