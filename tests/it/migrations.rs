//! Migrations of a database that has data.

use sqlx::migrate::Migrate;
use sqlx::{PgConnection, PgPool};

use crate::app::TestApp;
use crate::binary::Program;

/// Applies the migrations up to a version.
async fn migrate_to(pool: &PgPool, version: i64) {
    async fn run<C: Migrate>(conn: &mut C, version: i64) {
        crate::MIGRATOR.run_direct(Some(version), conn, false).await.unwrap();
    }
    let conn: &mut PgConnection = &mut pool.acquire().await.unwrap();
    run(conn, version).await;
}

/// A model as it was before version 9: key, name, classification, export number.
type OldModel = (&'static str, String, &'static str, Option<i64>);

/// A model: key, name, classification, number, place, whether its name is unique.
type Model = (String, String, Option<String>, i64, i64, bool);

async fn insert(pool: &PgPool, models: &[OldModel]) {
    for (key, name, classification, export_number) in models {
        let sql = "insert into cmdb.model (key, name, classification, export_number)
                   values ($1, $2, $3, $4)";
        let insert = sqlx::query(sql).bind(key).bind(name).bind(classification);
        insert.bind(export_number).execute(pool).await.unwrap();
    }
}

async fn models(pool: &PgPool, of: &str) -> Vec<Model> {
    let sql = "select key, name, classification, number, sort_number, has_unique_name
               from cmdb.model where key = any (string_to_array($1, ' ')) order by id";
    sqlx::query_as(sql).bind(of).fetch_all(pool).await.unwrap()
}

const IDS: &str = "select string_agg(format('%s %s', id, key), ',' order by id) from cmdb.model";

async fn text(pool: &PgPool, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrations = false)]
async fn models_of_version_8_keep_what_they_have_and_get_numbers_of_their_own(pool: PgPool) {
    const HUGE: i64 = i64::MAX;
    migrate_to(&pool, 8).await;
    let named = |name: &str| name.to_owned();
    // Their ids are 13 to 24. An import has given host another number.
    sqlx::query("update cmdb.model set export_number = 40 where key = 'host'")
        .execute(&pool)
        .await
        .unwrap();
    let long_name = "很长".repeat(5_000);
    insert(
        &pool,
        &[
            ("a", named("same"), "", Some(30)),
            ("b", named("same"), "room", Some(30)),
            ("c", named("same"), "room", None),
            ("d", named("主机"), "bk_network", Some(15)), // the id of c
            ("e", named("e"), "bk_network", Some(2)),     // the number of module
            ("f", named("f"), "room", Some(HUGE)),
            ("g", named("g"), "", Some(HUGE)),
            ("h", named("h"), "room", Some(0)),
            ("i", named("i"), "room", Some(-5)),
            ("j", long_name.clone(), "room", Some(1)), // the number of host, which has another
            ("k", long_name.clone(), "room", None),
            ("l", named("l"), "room", Some(1_000_000_001)),
        ],
    )
    .await;
    // Ids that were assigned, and not used since.
    sqlx::query("select setval('cmdb.model_id_seq', 60)").execute(&pool).await.unwrap();
    let (ids, version) = (text(&pool, IDS).await, "select version::text from cmdb.cache_version");
    let version_before = text(&pool, version).await;

    let output = Program::on(&pool).run(&["migrate"]);
    let applied = format!("{} migrations applied\n", crate::MIGRATOR.iter().count() - 8);
    assert_eq!((output.status, output.stderr), (0, applied));

    assert_eq!(text(&pool, IDS).await, ids);
    assert_ne!(text(&pool, version).await, version_before);
    let model = |key: &str, name: &str, classification: Option<&str>, number, place, unique| {
        (key.to_owned(), named(name), classification.map(named), number, place, unique)
    };
    let (room, network) = (Some("room"), Some("bk_network"));
    // 60 is the highest number before.
    assert_eq!(
        models(&pool, "a b c d e f g h i j k l").await,
        [
            model("a", "same", None, 30, 1, true),
            model("b", "same", room, 62, 3, false),
            model("c", "same", room, 63, 4, false),
            model("d", "主机", network, 15, 6, false),
            model("e", "e", network, 2, 5, true),
            model("f", "f", room, 64, 5, true),
            model("g", "g", None, 65, 2, true),
            model("h", "h", room, 66, 6, true),
            model("i", "i", room, 67, 7, true),
            model("j", &long_name, room, 1, 1, false),
            model("k", &long_name, room, 23, 2, false),
            model("l", "l", room, 68, 8, true),
        ]
    );
    assert_eq!(
        models(&pool, "host module bk_switch").await,
        [
            model("host", "主机", Some("bk_host_manage"), 40, 1, true),
            model("module", "模块", Some("bk_biz_topo"), 61, 1, true),
            model("bk_switch", "交换机", network, 7, 1, true),
        ]
    );
    let app = TestApp::on(pool.clone());
    let classifications = "select count(*) from cmdb.classification where key in ('room', '')";
    assert_eq!(app.count(classifications).await, 1);
    let next = "select nextval('cmdb.model_id_seq')";
    assert_eq!(app.count(next).await, 69);
    let kinds = "select count(*) from cmdb.association_kind where number = id";
    assert_eq!(app.count(kinds).await, 6);
    let checked = Program::on(&pool).run(&["check", "--strict"]);
    assert_eq!(checked.status, 0, "{}", checked.stdout);
}

/// Each import of version 8 used up ids.
#[sqlx::test(migrations = false)]
async fn the_sequence_of_models_never_goes_back(pool: PgPool) {
    migrate_to(&pool, 8).await;
    sqlx::query("select setval('cmdb.model_id_seq', 500)").execute(&pool).await.unwrap();
    insert(&pool, &[("a", "a".to_owned(), "", Some(20))]).await;
    assert_eq!(Program::on(&pool).run(&["migrate"]).status, 0);
    let next = "select nextval('cmdb.model_id_seq')";
    assert_eq!(TestApp::on(pool).count(next).await, 502);
}
