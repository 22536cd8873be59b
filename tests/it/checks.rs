//! What `check` finds: each kind of damage is planted once, past everything that prevents it.

use cmdb_associations::service::check::{Report, check, look};
use sqlx::PgPool;

use crate::app::{TestApp, batch};

/// What is broken, with examples, and how much was written past the server.
fn findings(report: Report) -> (Vec<(&'static str, String)>, i64) {
    let broken = report.invariants.into_iter().filter(|(_, found)| found.count > 0);
    let broken = broken.map(|(name, found)| {
        assert_eq!(usize::try_from(found.count), Ok(found.examples.len()));
        (name, found.examples.join("; "))
    });
    (broken.collect(), report.unaudited.1.count)
}

async fn checked(pool: &PgPool) -> (Vec<(&'static str, String)>, i64) {
    findings(check(&mut pool.acquire().await.unwrap()).await.unwrap())
}

const NO_INDEX: &str = "the index instance_association_source_key of instance_association is missing or disabled; the index instance_association_target_key of instance_association is missing or disabled";

const PAST_THE_GUARDS: &str = "set session_replication_role = replica";

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn sound_data_is_found_sound(pool: PgPool) {
    let app = TestApp::new(pool).await;
    assert_eq!(checked(&app.pool).await, (vec![], 0));
    for key in ["bk_switch_default_host", "bk_switch_connect_host", "bk_switch_run_host"] {
        app.post(batch(key, &[(1, 1), (1, 2), (2, 2), (9, 3)])).await.ids();
        app.post(batch(key, &[(4, 4), (5, 5), (999, 6)])).await.ids();
        app.post_with(&[("idempotency-key", key)], batch(key, &[(6, 6), (999, 6)])).await.ids();
    }
    assert_eq!(checked(&app.pool).await, (vec![], 0));
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn links_written_past_the_server_are_counted(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let by_hand = "insert into instance_association (model_association_id, source_id, target_id)
                   select id, 7, 7 from model_association where mapping = 'n:n' and key like '%host'";
    app.post(batch("bk_switch_default_host", &[(1, 1), (1, 2)])).await.ids();
    sqlx::query(by_hand).execute(&app.pool).await.unwrap();
    app.post(batch("bk_switch_default_host", &[(1, 3)])).await.ids();
    assert_eq!(checked(&app.pool).await, (vec![], 1));
}

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn every_kind_of_damage_is_found(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let links = [(1, 1), (2, 2), (3, 3)];
    app.post(batch("bk_switch_default_host", &links)).await.ids(); // 1, 2, 3
    app.post(batch("bk_switch_connect_host", &links)).await.ids(); // 4, 5, 6
    app.post(batch("bk_switch_run_host", &links)).await.ids(); // 7, 8, 9

    let no_index = "drop index instance_association_source_key, instance_association_target_key";
    let guards = "the indexes, constraints and triggers that keep this so are in force";
    let target = "under 1:1 and 1:n a target is the target of one link";
    // Each is planted in the sound data, is what is found, and is taken back.
    let damages = [
        (
            vec!["update instance_association set model_association_id = 4003 where id = 1"],
            vec![(
                "every link is under a model association",
                "link 1 is under model association number 4003",
            )],
        ),
        (
            vec!["delete from instance where name = 'bk_switch-2'"],
            vec![(
                "every link's source instance exists",
                "link 2 is from instance 2 of bk_switch; link 5 is from instance 2 of bk_switch; link 8 is from instance 2 of bk_switch",
            )],
        ),
        (
            vec!["update instance_association set target_id = 999 where id = 9"],
            vec![("every link's target instance exists", "link 9 is to instance 999 of host")],
        ),
        (
            vec!["update instance_association set tenant_id = 5 where id = 1"],
            vec![("every link's account exists", "link 1 is of account number 5")],
        ),
        (
            vec![
                no_index,
                "update instance_association set source_id = 1, target_id = 1 where id in (2, 3)",
            ],
            vec![
                ("a pair stands once under its model association", "links 1, 2, 3 are one pair"),
                (guards, NO_INDEX),
            ],
        ),
        (
            vec![no_index, "update instance_association set source_id = 1 where id = 8"],
            vec![
                (
                    "under 1:1 a source is the source of one link",
                    "bk_switch_run_host is 1:1, and links 7, 8 are from instance 1",
                ),
                (guards, NO_INDEX),
            ],
        ),
        (
            vec![no_index, "update instance_association set target_id = 1 where id in (5, 8)"],
            vec![
                (
                    target,
                    "bk_switch_connect_host is 1:n, and links 4, 5 are to instance 1; bk_switch_run_host is 1:1, and links 7, 8 are to instance 1",
                ),
                (guards, NO_INDEX),
            ],
        ),
        (
            vec!["update audit_log set association_ids = '{[1,6)}' where id = 1"],
            vec![(
                "no link is in two audit records",
                "audit record 2 has ids of another one between 4 and 6",
            )],
        ),
        (
            vec![
                "insert into audit_log (origin, tenant_id, model_association_id, association_ids)
               values ('import', 0, 0, '{[2,3),[8,9)}')",
            ],
            vec![(
                "no link is in two audit records",
                "audit record 4 has ids of another one between 2 and 2; audit record 4 has ids of another one between 8 and 8",
            )],
        ),
        (
            vec![
                "insert into idempotency_record values
               ('a', 'u', 'k', sha256(''), now(), 'r', 'en', '{[1,4)}', '{}')",
            ],
            vec![(
                "an answer that is kept names what its request created",
                "the answer under key k of a for u names links {[1,4)} that its request did not create",
            )],
        ),
        (
            vec![
                "alter table instance_association disable trigger instance_association_guard_insert",
            ],
            vec![(
                guards,
                "the trigger instance_association_guard_insert of instance_association is missing or disabled",
            )],
        ),
        (
            vec!["drop trigger instance_wait on instance"],
            vec![(guards, "the trigger instance_wait of instance is missing or disabled")],
        ),
        (
            vec![
                "drop trigger instance_wait on instance",
                "create trigger instance_wait before delete on app for each statement execute function wait_for_link_writers()",
            ],
            vec![(guards, "the trigger instance_wait of instance is missing or disabled")],
        ),
        (
            vec!["alter table model_association drop constraint model_association_id_check"],
            vec![(
                guards,
                "the constraint model_association_id_check of model_association is missing or disabled",
            )],
        ),
        (
            vec![
                "delete from instance where model_id = (select id from model where key = 'bk_switch') and instance_id = 1",
                "alter table model_association drop constraint model_association_source_model_fk, drop constraint model_association_target_model_fk",
                "alter table instance drop constraint instance_model_fk",
                "delete from model where key = 'bk_switch'",
            ],
            vec![(
                "every link's source instance exists",
                "link 1 is from instance 1 of ; link 4 is from instance 1 of ; link 7 is from instance 1 of ",
            )],
        ),
        // Last, since no sequence is ever taken back.
        (
            vec!["select setval('instance_association_id_seq', 8)"],
            vec![(
                "the next association id is a new one",
                "id 9 was given, and the sequence stands at 8",
            )],
        ),
    ];
    for (planted, expected) in damages {
        let mut tx = app.pool.begin().await.unwrap();
        for sql in [PAST_THE_GUARDS].iter().chain(&planted) {
            sqlx::query(*sql).execute(&mut *tx).await.unwrap();
        }
        let (found, _) = findings(look(&mut tx).await.unwrap());
        let found: Vec<_> =
            found.iter().map(|(name, examples)| (*name, examples.as_str())).collect();
        assert_eq!(found, expected, "{planted:?}");
        tx.rollback().await.unwrap();
    }
}
