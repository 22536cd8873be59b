//! The command `check` finds each kind of invalid data, written with triggers disabled.

use cmdb_associations::service::check::{Report, check, check_in_transaction};
use sqlx::PgPool;

use crate::app::{TestApp, batch};
use crate::deletions::{MANY, many};

/// The violated invariants with their examples, and the numbers of links that were created and of
/// those that were deleted without an audit record.
fn violations(report: Report) -> (Vec<(&'static str, String)>, [i64; 2]) {
    let violated = report.invariants.into_iter().filter(|(_, violations)| violations.count > 0);
    let violated = violated.map(|(name, violations)| {
        assert_eq!(usize::try_from(violations.count), Ok(violations.examples.len()));
        (name, violations.examples.join("; "))
    });
    let unaudited = report.unaudited.iter().map(|(_, violations)| violations.count);
    (violated.collect(), unaudited.collect::<Vec<_>>().try_into().unwrap())
}

async fn run_check(pool: &PgPool) -> (Vec<(&'static str, String)>, [i64; 2]) {
    violations(check(&mut pool.acquire().await.unwrap()).await.unwrap())
}

const NO_INDEX: &str = "index instance_association_pair_key on instance_association is missing; \
    index instance_association_source_key on instance_association is missing; \
    index instance_association_target_key on instance_association is missing";

const DOCUMENTS: &str = "every instance has one document, which has its tenant";

/// Disables triggers and foreign keys in this session.
const DISABLE_TRIGGERS: &str = "set session_replication_role = replica";

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn sound_data_has_no_violations(pool: PgPool) {
    let app = TestApp::new(pool).await;
    assert_eq!(run_check(&app.pool).await, (vec![], [0, 0]));
    for key in ["bk_switch_default_host", "bk_switch_connect_host", "bk_switch_run_host"] {
        app.post(batch(key, &[(1, 1), (1, 2), (2, 2), (9, 3)])).await.ids();
        app.post(batch(key, &[(4, 4), (5, 5), (999, 6)])).await.ids();
        app.post_with(&[("idempotency-key", key)], batch(key, &[(6, 6), (999, 6)])).await.ids();
    }
    let body = many("host", &[1, 2, 5, 8]);
    app.post_to(MANY, &[("idempotency-key", "deletion")], body).await;
    assert_eq!(deleted_ids(&app).await, "{[1,3),[5,6),[8,9)}");
    assert_eq!(run_check(&app.pool).await, (vec![], [0, 0]));
}

async fn deleted_ids(app: &TestApp) -> String {
    sqlx::query_scalar("select range_agg(deleted_ids)::text from cmdb.audit_log")
        .fetch_one(&app.pool)
        .await
        .unwrap()
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn links_written_by_plain_sql_are_counted_as_unaudited(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let by_hand = "insert into cmdb.instance_association
                       (model_association_id, source_id, target_id)
                   select id, 7, 7 from cmdb.model_association
                   where key = 'bk_switch_default_host'";
    app.post(batch("bk_switch_default_host", &[(1, 1), (1, 2)])).await.ids();
    sqlx::query(by_hand).execute(&app.pool).await.unwrap();
    app.post(batch("bk_switch_default_host", &[(1, 3)])).await.ids();
    assert_eq!(run_check(&app.pool).await, (vec![], [1, 0]));
    // The server may delete such a link, and records that.
    app.post_to(MANY, &[], many("host", &[3])).await;
    assert_eq!(deleted_ids(&app).await, "{[3,4)}");
    assert_eq!(run_check(&app.pool).await, (vec![], [0, 0]));
}

/// Otherwise the sequence would assign the id again.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_id_of_a_deleted_link_counts_as_assigned(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let by_hand = "insert into cmdb.instance_association
                       (id, model_association_id, source_id, target_id)
                   select 1000, id, 7, 7 from cmdb.model_association
                   where key = 'bk_switch_default_host'";
    sqlx::query(by_hand).execute(&app.pool).await.unwrap();
    app.post_to(MANY, &[], many("host", &[1000])).await;
    let name = "the next association id is higher than every assigned one";
    let description = "id 1000 is assigned, but the sequence is at 1".to_owned();
    assert_eq!(run_check(&app.pool).await, (vec![(name, description)], [0, 0]));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn links_deleted_by_plain_sql_are_counted_and_named(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let pairs: Vec<_> = (1..=30).map(|n| (n, n)).collect();
    app.post(batch("bk_switch_default_host", &pairs)).await.ids();
    app.post_to(MANY, &[], many("host", &[2, 9])).await;
    sqlx::query("delete from cmdb.instance_association where id in (1, 3, 8) or id > 20")
        .execute(&app.pool)
        .await
        .unwrap();
    let report = check(&mut app.pool.acquire().await.unwrap()).await.unwrap();
    let (name, gone) = &report.unaudited[1];
    assert_eq!((*name, gone.count), ("every link that is gone was deleted by the server", 13));
    let named: Vec<_> = [1, 3, 8, 21, 22, 23, 24, 25, 26, 27]
        .map(|id| format!("link {id} is gone, but in no audit record of a deletion"))
        .into();
    assert_eq!(gone.examples, named);
    assert!(report.is_sound(false) && !report.is_sound(true));
    // All of them, so that no link is stored.
    sqlx::query("delete from cmdb.instance_association").execute(&app.pool).await.unwrap();
    assert_eq!(run_check(&app.pool).await, (vec![], [0, 28]));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn every_kind_of_violation_is_found(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let links = [(1, 1), (2, 2), (3, 3)];
    app.post(batch("bk_switch_default_host", &links)).await.ids(); // 1, 2, 3
    app.post(batch("bk_switch_connect_host", &links)).await.ids(); // 4, 5, 6
    app.post(batch("bk_switch_run_host", &links)).await.ids(); // 7, 8, 9
    app.post(batch("bk_switch_default_host", &[(4, 4), (5, 5)])).await.ids(); // 10, 11
    app.post_to(MANY, &[], many("host", &[10, 11])).await; // The audit record 5 has these.

    let no_index = "drop index cmdb.instance_association_pair_key,
        cmdb.instance_association_source_key, cmdb.instance_association_target_key";
    let schema = "the schema is as the migrations made it";
    // Statements that damage sound data, and the violations that they cause.
    let damages = [
        (
            vec!["update cmdb.instance_association set model_association_id = 4003 where id = 1"],
            vec![(
                "every link's model association exists",
                "link 1: model association 4003 does not exist",
            )],
        ),
        (
            vec![
                "delete from cmdb.instance where name = 'bk_switch-2'",
                "delete from cmdb.instance_document
                 where model_id = (select id from cmdb.model where key = 'bk_switch')
                     and instance_id = 2",
            ],
            vec![(
                "every link's source and target instances exist",
                "link 2: source instance 2 of model bk_switch does not exist; \
                 link 5: source instance 2 of model bk_switch does not exist; \
                 link 8: source instance 2 of model bk_switch does not exist",
            )],
        ),
        (
            vec!["update cmdb.instance_association set target_id = 999 where id = 9"],
            vec![(
                "every link's source and target instances exist",
                "link 9: target instance 999 of model host does not exist",
            )],
        ),
        (
            vec!["update cmdb.instance_association set tenant_id = 5 where id = 1"],
            vec![
                (
                    "every link's tenant sees its source and target instances",
                    "link 1: source instance 1 of model bk_switch belongs to another tenant",
                ),
                ("every link's tenant exists", "link 1: tenant 5 does not exist"),
            ],
        ),
        (
            vec![
                "insert into cmdb.tenant (key) values ('another')",
                "update cmdb.instance set tenant_id = (select max(id) from cmdb.tenant)
                 where name in ('bk_switch-1', 'host-2')",
                "update cmdb.instance_document
                 set tenant_id = instance.tenant_id,
                     document = document || '{\"bk_supplier_account\": \"another\"}'
                 from cmdb.instance
                 where instance.model_id = instance_document.model_id
                     and instance.instance_id = instance_document.instance_id
                     and instance.tenant_id > 0",
            ],
            vec![(
                "every link's tenant sees its source and target instances",
                "link 1: source instance 1 of model bk_switch belongs to another tenant; \
                 link 2: target instance 2 of model host belongs to another tenant; \
                 link 4: source instance 1 of model bk_switch belongs to another tenant; \
                 link 5: target instance 2 of model host belongs to another tenant; \
                 link 7: source instance 1 of model bk_switch belongs to another tenant; \
                 link 8: target instance 2 of model host belongs to another tenant",
            )],
        ),
        (
            vec![
                no_index,
                "update cmdb.instance_association set source_id = 1, target_id = 1 where id in (2, 3)",
            ],
            vec![
                (schema, NO_INDEX),
                (
                    "no two links of a model association have the same source and target",
                    "links 1, 2, 3 have the same source and target",
                ),
            ],
        ),
        (
            vec![no_index, "update cmdb.instance_association set source_id = 1 where id = 8"],
            vec![
                (schema, NO_INDEX),
                (
                    "in a 1:1 model association, no two links have the same source",
                    "bk_switch_run_host is 1:1, but links 7, 8 have source 1",
                ),
            ],
        ),
        (
            vec![no_index, "update cmdb.instance_association set target_id = 1 where id in (5, 8)"],
            vec![
                (schema, NO_INDEX),
                (
                    "in a 1:1 or 1:n model association, no two links have the same target",
                    "bk_switch_connect_host is 1:n, but links 4, 5 have target 1; \
                     bk_switch_run_host is 1:1, but links 7, 8 have target 1",
                ),
            ],
        ),
        (
            vec!["update cmdb.audit_log set association_ids = '{[1,6)}' where id = 1"],
            vec![(
                "no link is in two audit records of creations, or in two of deletions",
                "audit record 2 shares created ids between 4 and 6 with another record",
            )],
        ),
        (
            vec![
                "insert into cmdb.audit_log
                   (origin, tenant_id, model_association_id, association_ids)
               values ('import', 0, 0, '{[2,3),[8,9)}')",
            ],
            vec![(
                "no link is in two audit records of creations, or in two of deletions",
                "audit record 6 shares created ids between 2 and 2 with another record; \
                 audit record 6 shares created ids between 8 and 8 with another record",
            )],
        ),
        (
            vec![
                "insert into cmdb.audit_log
                     (origin, request_id, app, user_name, tenant_id, association_ids, deleted_ids)
                 values ('request', 'r', 'a', 'u', 0, '{}', '{[9,11)}')",
            ],
            vec![
                (
                    "no link is in two audit records of creations, or in two of deletions",
                    "audit record 5 shares deleted ids between 10 and 11 with another record",
                ),
                (
                    "no stored link is in an audit record of a deletion",
                    "link 9 is stored, but a request deleted it",
                ),
            ],
        ),
        (
            vec![
                "insert into cmdb.instance_association
                     (id, model_association_id, source_id, target_id)
                 select 11, model_association_id, 6, 6
                 from cmdb.instance_association where id = 1",
            ],
            vec![(
                "no stored link is in an audit record of a deletion",
                "link 11 is stored, but a request deleted it",
            )],
        ),
        (
            vec![
                "insert into cmdb.idempotency_record values
               ('a', 'u', 'k', sha256(''), now(), 'r', 'en', '{[1,4)}', '{}')",
            ],
            vec![(
                "every idempotency record names the links that its request created or deleted",
                "idempotency key k of app a and user u: \
                 request r did not create or delete links {[1,4)}",
            )],
        ),
        (
            vec![
                "insert into cmdb.idempotency_record
                 select 'a', 'u', 'k', sha256(''), now(), request_id, 'en', '{}', '{}', '{[10,11)}'
                 from cmdb.audit_log where id = 5",
                "update cmdb.idempotency_record set request_id = 'r'",
            ],
            vec![(
                "every idempotency record names the links that its request created or deleted",
                "idempotency key k of app a and user u: \
                 request r did not create or delete links {[10,11)}",
            )],
        ),
        (
            vec![
                "alter table cmdb.instance_association
                 disable trigger instance_association_guard_insert",
            ],
            vec![(
                schema,
                "trigger instance_association_guard_insert on instance_association is disabled",
            )],
        ),
        (
            vec!["drop trigger instance_lock_before_delete on cmdb.instance"],
            vec![(schema, "trigger instance_lock_before_delete on instance is missing")],
        ),
        (
            vec![
                "drop index cmdb.instance_association_target_key",
                "create unique index instance_association_target_key
                 on cmdb.instance_association (model_association_id, target_id)
                 where model_association_id & 3 = 2",
                "drop trigger app_bump_cache_version_truncate on cmdb.app",
            ],
            vec![
                (schema, "trigger app_bump_cache_version_truncate on app is missing"),
                (
                    "the unique keys of links apply to their mappings",
                    "index instance_association_target_key does not apply where \
                     ((model_association_id & 3) <> 3)",
                ),
            ],
        ),
        (
            vec!["delete from cmdb.cache_version"],
            vec![("cached data has a version", "cache_version has no row")],
        ),
        (
            vec![
                "drop trigger instance_lock_before_delete on cmdb.instance",
                "create trigger instance_lock_before_delete before delete on cmdb.instance
                 for each statement execute function cmdb.lock_instance_association()",
            ],
            vec![(schema, "trigger instance_lock_before_delete on instance is changed")],
        ),
        (
            vec!["alter table cmdb.model_association drop constraint model_association_id_check"],
            vec![(schema, "constraint model_association_id_check on model_association is missing")],
        ),
        (
            vec![
                "delete from cmdb.instance
                 where instance_id not in (2, 3)
                     and model_id = (select id from cmdb.model where key = 'bk_switch')",
                "delete from cmdb.instance_document
                 where instance_id not in (2, 3)
                     and model_id = (select id from cmdb.model where key = 'bk_switch')",
                "alter table cmdb.model_association
                 drop constraint model_association_source_model_fk,
                 drop constraint model_association_target_model_fk",
                "drop trigger model_restrict_delete on cmdb.model",
                "delete from cmdb.model where key = 'bk_switch'",
            ],
            vec![
                (
                    schema,
                    "constraint model_association_source_model_fk on model_association is missing; \
                 constraint model_association_target_model_fk on model_association is missing; \
                 trigger model_restrict_delete on model is missing",
                ),
                (
                    "every instance's model and tenant exist",
                    "instance 2: model 9 or tenant 0 does not exist; \
                 instance 3: model 9 or tenant 0 does not exist",
                ),
                (
                    "every link's source and target instances exist",
                    "link 1: source instance 1 of model (unknown) does not exist; \
                 link 4: source instance 1 of model (unknown) does not exist; \
                 link 7: source instance 1 of model (unknown) does not exist",
                ),
            ],
        ),
        (
            vec![
                "delete from cmdb.instance_document
                 where document ->> 'bk_inst_name' = 'bk_switch-9'",
                "insert into cmdb.instance_document (model_id, instance_id, tenant_id, document)
                 select model_id, 999, 0, document
                 from cmdb.instance_document where document ->> 'bk_inst_name' = 'bk_switch-8'",
                "update cmdb.instance_document set tenant_id = 7
                 where document ->> 'bk_inst_name' = 'bk_switch-7'",
                "alter table cmdb.instance_document drop constraint instance_document_pkey",
                "insert into cmdb.instance_document
                 select * from cmdb.instance_document
                 where document ->> 'bk_inst_name' = 'bk_switch-6'",
            ],
            vec![
                (
                    schema,
                    "constraint instance_document_pkey on instance_document is missing; \
                     index instance_document_pkey on instance_document is missing",
                ),
                (
                    DOCUMENTS,
                    "instance 6 of model bk_switch: it has 2 documents; \
                     instance 7 of model bk_switch: its document belongs to another tenant; \
                     instance 9 of model bk_switch: it has no document; \
                     instance 999 of model bk_switch: it does not exist, but has a document",
                ),
            ],
        ),
        (
            vec![
                "update cmdb.instance_document set document = document - 'bk_inst_name'
                 where document ->> 'bk_inst_name' = 'bk_switch-9'",
                "update cmdb.instance_document set document = document || '{\"bk_host_id\": 7}'
                 where document ->> 'bk_host_innerip' = 'host-8'",
                "update cmdb.instance set name = 'renamed' where name = 'bk_switch-7'",
            ],
            vec![(
                "every document has the id, the name, the model and the tenant of its instance",
                "instance 7 of model bk_switch: its document has not {\"bk_obj_id\": \
                 \"bk_switch\", \"bk_inst_id\": 7, \"bk_inst_name\": \"renamed\", \
                 \"bk_supplier_account\": \"0\"}; \
                 instance 8 of model host: its document has not {\"bk_host_id\": 8, \
                 \"bk_host_innerip\": \"host-8\", \"bk_supplier_account\": \"0\"}; \
                 instance 9 of model bk_switch: its document has not {\"bk_obj_id\": \
                 \"bk_switch\", \"bk_inst_id\": 9, \"bk_inst_name\": \"bk_switch-9\", \
                 \"bk_supplier_account\": \"0\"}",
            )],
        ),
        (
            vec![
                "drop index cmdb.instance_document_name_key",
                "update cmdb.instance_document set unique_name = 'bk_switch-9'
                 where document ->> 'bk_inst_name' in ('bk_switch-8', 'bk_switch-9')",
                "update cmdb.instance_document set unique_name = '0:host-7',
                     document = document || '{\"bk_cloud_id\": 0}'
                 where document ->> 'bk_host_innerip' = 'host-7'",
                "update cmdb.instance_document set unique_name = '1:host-6'
                 where document ->> 'bk_host_innerip' = 'host-6'",
            ],
            vec![
                (schema, "index instance_document_name_key on instance_document is missing"),
                (
                    "a reserved name is the one of its instance",
                    "instance 6 of model host: the name 1:host-6 is reserved; \
                     instance 8 of model bk_switch: the name bk_switch-9 is reserved",
                ),
                (
                    "no two instances of a model and a tenant have the same reserved name",
                    "instances 8, 9 of model bk_switch have the name bk_switch-9",
                ),
            ],
        ),
        (
            vec![
                "insert into cmdb.audit_log
                     (origin, user_name, tenant_id, association_ids, resource_type, resource_id,
                      instance_ids, before, after)
                 select 'command', 'u', 0, '{}', 'instance', model.id, ids, before, '{}'
                 from cmdb.model
                 cross join (values
                     ('{1,2}'::bigint[], null::jsonb), ('{2,300}', null), ('{1,300,900}', '{}')
                 ) record (ids, before)
                 where key = 'bk_switch'",
            ],
            vec![(
                "no instance is in two audit records of creations",
                "instance 2 of model bk_switch is in the audit records 8, 9",
            )],
        ),
        (
            vec![
                "insert into cmdb.audit_log
                     (origin, user_name, tenant_id, association_ids, resource_type, resource_id,
                      instance_ids, after)
                 select 'command', 'u', 0, '{}', 'instance', id, '{400}', '{}'
                 from cmdb.model where key in ('bk_switch', 'host', 'set')",
            ],
            vec![(
                "the next id of an instance is higher than every one assigned before",
                "id 400 is assigned, but the sequence host_id_seq is at 300; \
                 id 400 is assigned, but the sequence instance_id_seq is at 300",
            )],
        ),
        (
            // Of a request that was purged, the record of the purge has the links.
            vec![
                "update cmdb.audit_log set undone_record_id = 4 where id = 5",
                "delete from cmdb.audit_log where id = 4",
                "insert into cmdb.audit_log (origin, user_name, association_ids)
                 values ('purge', 'u', '{[10,12)}')",
            ],
            vec![],
        ),
        (
            vec!["update cmdb.audit_log set undone_record_id = 1 where id = 5"],
            vec![(
                "every request that undid another deleted links that the other had created",
                "audit record 5: request 1, which it undid, did not create links {[10,12)}",
            )],
        ),
        // The last ones, because a rollback does not reset a sequence.
        (
            vec![
                "select setval('cmdb.instance_id_seq', 300, false)",
                "select setval('cmdb.host_id_seq', 7)",
            ],
            vec![
                (
                    "the next id of an instance is higher than every one assigned before",
                    "id 300 is assigned, but the sequence host_id_seq is at 7; \
                     id 300 is assigned, but the sequence instance_id_seq is at 300",
                ),
                (
                    "no sequence is behind the rows of its table",
                    "host_id_seq: run `select setval('cmdb.host_id_seq', 300)`; \
                     instance_id_seq: run `select setval('cmdb.instance_id_seq', 300)`",
                ),
            ],
        ),
        (
            vec![
                "select setval('cmdb.instance_id_seq', 300)",
                "select setval('cmdb.host_id_seq', 300)",
            ],
            vec![],
        ),
        (
            vec!["select setval('cmdb.instance_association_id_seq', 8)"],
            vec![
                (
                    "the next association id is higher than every assigned one",
                    "id 11 is assigned, but the sequence is at 8",
                ),
                (
                    "no sequence is behind the rows of its table",
                    "instance_association_id_seq: run \
                     `select setval('cmdb.instance_association_id_seq', 9)`",
                ),
            ],
        ),
    ];
    for (statements, expected) in damages {
        let mut tx = app.pool.begin().await.unwrap();
        for sql in [DISABLE_TRIGGERS].iter().chain(&statements) {
            sqlx::query(*sql).execute(&mut *tx).await.unwrap();
        }
        let (found, _) = violations(check_in_transaction(&mut tx).await.unwrap());
        let found: Vec<_> =
            found.iter().map(|(name, examples)| (*name, examples.as_str())).collect();
        assert_eq!(found, expected, "{statements:?}");
        tx.rollback().await.unwrap();
    }
}
