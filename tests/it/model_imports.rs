//! What the command `import` does with models, association kinds and classifications.

use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;

use crate::app::TestApp;
use crate::binary::Program;
use crate::imports::{
    association, export, import, instance, link, rejected_rows, reported_rows, with_key,
};

/// A model with a name of its own.
fn model(number: i64, key: &str) -> Value {
    json!({"id": number, "bk_obj_id": key, "bk_obj_name": format!("name of {key}")})
}

fn named(name: &str, mut model: Value) -> Value {
    model["bk_obj_name"] = json!(name);
    model
}

fn kind(number: i64, key: &str, tenant: &str) -> Value {
    json!({"id": number, "bk_asst_id": key, "bk_supplier_account": tenant})
}

fn models(models: Vec<Value>) -> TempDir {
    export(&[("cc_ObjDes", models)])
}

fn kinds(kinds: Vec<Value>) -> TempDir {
    export(&[("cc_AsstDes", kinds)])
}

/// Imports, and returns the warnings, each with its line. No row is rejected.
fn warnings(pool: &PgPool, folder: &TempDir) -> Vec<String> {
    let warning = |(kind, (_, line, reason)): (String, (String, u64, String))| {
        assert_eq!(kind, "warning", "{reason}");
        format!("{line}: {reason}")
    };
    reported_rows(pool, folder).into_iter().map(warning).collect()
}

/// The ids that callers see, by key: `a 50, b 51`.
async fn numbers(pool: &PgPool, table: &str, keys: &str) -> String {
    let sql = match table {
        "model" => "select key, number from cmdb.model",
        _ => "select key, number from cmdb.association_kind",
    };
    let stored: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(pool).await.unwrap();
    let number = |key: &str| {
        let of_key = stored.iter().filter(|(stored, _)| stored == key);
        let numbers: Vec<_> = of_key.map(|(key, number)| format!("{key} {number}")).collect();
        numbers.join(", ")
    };
    keys.split_whitespace().map(number).collect::<Vec<_>>().join(", ")
}

/// The rows read, added, updated, unchanged and rejected by an import.
fn totals(pool: &PgPool, folder: &TempDir) -> Vec<u64> {
    let output = import(pool, folder.path());
    assert_eq!(output.status, 0, "{}", output.stderr);
    let line = output.stdout.lines().last().unwrap();
    line.split_whitespace().skip(1).map(|number| number.parse().unwrap()).collect()
}

/// Asserts that importing an export again changes nothing, uses up no id, and gives the same
/// warnings.
async fn assert_repeatable(pool: &PgPool, folder: &TempDir, expected: &[String]) {
    let state = "select concat_ws('; ',
        (select string_agg(model::text, ', ' order by id) from cmdb.model),
        (select string_agg(kind::text, ', ' order by id) from cmdb.association_kind kind),
        (select string_agg(one::text, ', ' order by id) from cmdb.model_association one),
        (select last_value from cmdb.model_id_seq),
        (select last_value from cmdb.association_kind_id_seq),
        (select version from cmdb.cache_version))";
    let state = async || sqlx::query_scalar::<_, String>(state).fetch_one(pool).await.unwrap();
    let before = state().await;
    assert_eq!(warnings(pool, folder), expected);
    let totals = totals(pool, folder);
    assert_eq!(totals[1..3], [0, 0], "rows added and updated");
    assert_eq!(state().await, before);
    let checked = Program::on(pool).run(&["check", "--strict"]);
    assert_eq!(checked.status, 0, "{}", checked.stdout);
}

/// Creates a model by a command, and returns its id.
fn add_model(pool: &PgPool, key: &str) -> i64 {
    let output = Program::on(pool).run(&["model", "add", key]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    output.stdout.trim().parse().unwrap()
}

fn add_kind(pool: &PgPool, key: &str) -> i64 {
    let output = Program::on(pool).run(&["kind", "add", key]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    output.stdout.trim().parse().unwrap()
}

const NOT_KEPT: &str = "is invalid or taken, imported with id";

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn models_and_kinds_keep_their_ids_unless_those_are_invalid_or_repeated(pool: PgPool) {
    let mut without_id = model(0, "g");
    without_id.as_object_mut().unwrap().remove("id");
    let folder = export(&[
        (
            "cc_ObjDes",
            vec![
                model(50, "a"),
                model(50, "b"),
                model(0, "c"),
                model(-1, "d"),
                model(1_000_000_001, "e"),
                model(i64::MAX, "f"),
                without_id,
            ],
        ),
        (
            "cc_AsstDes",
            vec![
                kind(20, "k", "0"),
                kind(20, "l", "0"),
                kind(20, "k", "ten"),
                kind(i64::MIN, "m", "0"),
                kind(21, "n", "ten"),
            ],
        ),
    ]);
    let expected = [
        format!("2: id 50 {NOT_KEPT} 52"),
        format!("3: id 0 {NOT_KEPT} 55"),
        format!("4: id -1 {NOT_KEPT} 56"),
        format!("5: id 1000000001 {NOT_KEPT} 57"),
        format!("6: id {} {NOT_KEPT} 58", i64::MAX),
        format!("2: id 20 {NOT_KEPT} 23"),
        format!("3: id 20 {NOT_KEPT} 24"),
        format!("4: id {} {NOT_KEPT} 28", i64::MIN),
    ];
    let found = warnings(&pool, &folder);
    assert_eq!(found, expected);
    assert_eq!(numbers(&pool, "model", "a").await, "a 50");
    assert_eq!(numbers(&pool, "kind", "n").await, "n 21");
    assert_repeatable(&pool, &folder, &found).await;
    // New ones get higher ids than all of these.
    let highest = "select max(number) from cmdb.model";
    let highest = TestApp::on(pool.clone()).count(highest).await;
    assert!(add_model(&pool, "new") > highest);
    let highest = "select max(number) from cmdb.association_kind";
    let highest = TestApp::on(pool.clone()).count(highest).await;
    assert!(add_kind(&pool, "new") > highest);
}

/// A model that was created here gets the id that the export has for it.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_stored_model_or_kind_takes_the_exported_id_unless_it_is_taken(pool: PgPool) {
    let (a, b, c) = (add_model(&pool, "a"), add_model(&pool, "b"), add_model(&pool, "c"));
    let k = add_kind(&pool, "k");
    let l = add_kind(&pool, "l");
    let folder = export(&[
        // The id of c, which is not in the export, is taken.
        ("cc_ObjDes", vec![model(100, "a"), model(c, "b")]),
        ("cc_AsstDes", vec![kind(l, "k", "0")]),
    ]);
    let expected = [format!("2: id {c} {NOT_KEPT} {b}"), format!("1: id {l} {NOT_KEPT} {k}")];
    assert_eq!(warnings(&pool, &folder), expected);
    let stored = format!("a 100, b {b}, c {c}");
    assert_eq!(numbers(&pool, "model", "a b c").await, stored);
    assert_repeatable(&pool, &folder, &expected).await;
    assert!(a < 100 && add_model(&pool, "d") == 101);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn models_and_kinds_can_exchange_their_ids(pool: PgPool) {
    let folder = |[a, b, c]: [i64; 3]| {
        export(&[
            ("cc_ObjDes", vec![model(a, "a"), model(b, "b"), model(c, "c")]),
            ("cc_AsstDes", vec![kind(a, "a", "0"), kind(b, "b", "ten"), kind(c, "c", "0")]),
        ])
    };
    for ids in [[50, 51, 52], [51, 50, 52], [52, 51, 50], [50, 52, 51]] {
        let folder = folder(ids);
        assert_eq!(warnings(&pool, &folder), [""; 0]);
        let [a, b, c] = ids;
        for table in ["model", "kind"] {
            let expected = format!("a {a}, b {b}, c {c}");
            assert_eq!(numbers(&pool, table, "a b c").await, expected);
        }
        assert_repeatable(&pool, &folder, &[]).await;
    }
    // The id of a goes to d, and a gets one that another file's row wants, too.
    let folder = models(vec![model(60, "a"), model(50, "d"), model(60, "e")]);
    let found = warnings(&pool, &folder);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(numbers(&pool, "model", "a d").await, "a 60, d 50");
    assert_repeatable(&pool, &folder, &found).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_the_migrations_made_leaves_its_id_to_what_is_imported(pool: PgPool) {
    // Ids of host and bk_switch, and of two predefined kinds.
    let folder = export(&[
        ("cc_ObjDes", vec![model(1, "rack"), model(7, "host"), model(1_000_000_000, "last")]),
        ("cc_AsstDes", vec![kind(1, "cools", "ten"), kind(2, "belong", "0")]),
    ]);
    let found = warnings(&pool, &folder);
    assert_eq!(found, [""; 0]);
    assert_eq!(numbers(&pool, "model", "rack host").await, "rack 1, host 7");
    assert_eq!(numbers(&pool, "kind", "cools belong").await, "cools 1, belong 2");
    assert_repeatable(&pool, &folder, &found).await;
    // The ids of those that gave way are higher than all others, and new ones still higher.
    let moved = numbers(&pool, "model", "bk_switch").await;
    assert!(moved.as_str() > "bk_switch 1000000000", "{moved}");
    assert!(add_model(&pool, "new") > 1_000_000_000);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn ids_that_the_id_generator_has_given_are_not_given_again(pool: PgPool) {
    let folder = export(&[
        ("cc_ObjDes", vec![model(50, "a"), model(50, "b")]),
        ("cc_AsstDes", vec![kind(50, "k", "0"), kind(0, "l", "0")]),
        (
            "cc_idgenerator",
            vec![
                json!({"_id": "cc_ObjDes", "SequenceID": 90}),
                json!({"_id": "cc_AsstDes", "SequenceID": {"$numberLong": "80"}}),
            ],
        ),
    ]);
    let expected = [format!("2: id 50 {NOT_KEPT} 92"), format!("2: id 0 {NOT_KEPT} 82")];
    let found = warnings(&pool, &folder);
    assert_eq!(found, expected);
    assert_repeatable(&pool, &folder, &found).await;
    // Each of the two models has an own id, too, beside the number in the export.
    assert_eq!(add_model(&pool, "new"), 95);
    assert_eq!(add_kind(&pool, "new"), 83);
    // Ids that are too high for ours do not count.
    let folder =
        export(&[("cc_idgenerator", vec![json!({"_id": "cc_ObjDes", "SequenceID": 1_i64 << 60})])]);
    assert_eq!(warnings(&pool, &folder), [""; 0]);
    assert_eq!(add_model(&pool, "another"), 96);
}

/// `name unique`, by key.
async fn names(pool: &PgPool, keys: &str) -> Vec<String> {
    let sql = "select format('%s: %s %s', key, left(name, 9), has_unique_name) from cmdb.model
               where key = any (string_to_array($1, ' ')) order by key";
    sqlx::query_scalar(sql).bind(keys).fetch_all(pool).await.unwrap()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_name_that_another_model_has_is_imported_with_a_warning(pool: PgPool) {
    let same = |number, key| named("same", model(number, key));
    let warning =
        |line: u64, key: &str| format!("{line}: model {key} has the name of another model");
    let folder = models(vec![same(50, "a"), same(51, "b"), named("主机", model(52, "c"))]);
    let expected = [warning(2, "b"), warning(3, "c")];
    assert_eq!(warnings(&pool, &folder), expected);
    assert_eq!(names(&pool, "a b c").await, ["a: same t", "b: same f", "c: 主机 f"]);
    assert_repeatable(&pool, &folder, &expected).await;
    // The name belongs to b once the other model is renamed, whether or not b is in the export.
    let folder = models(vec![named("another", model(50, "a"))]);
    assert_eq!(warnings(&pool, &folder), [""; 0]);
    assert_eq!(names(&pool, "a b").await, ["a: another t", "b: same t"]);
    // Names can be exchanged.
    let folder = models(vec![same(50, "a"), named("another", model(51, "b"))]);
    assert_eq!(warnings(&pool, &folder), [""; 0]);
    assert_eq!(names(&pool, "a b").await, ["a: same t", "b: another t"]);
    assert_repeatable(&pool, &folder, &[]).await;
}

/// Such a name does not fit into an index.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_name_of_any_length_is_imported(pool: PgPool) {
    let long: String = (0..4_000_u32).filter_map(|n| char::from_u32(0x4E00 + n)).collect();
    let folder = models(vec![named(&long, model(50, "a")), named("", model(51, "b"))]);
    assert_eq!(warnings(&pool, &folder), [""; 0]);
    assert_repeatable(&pool, &folder, &[]).await;
    assert_eq!(names(&pool, "b").await, ["b:  t"]);
    let length = "select char_length(name)::bigint from cmdb.model where key = 'a'";
    assert_eq!(TestApp::on(pool).count(length).await, 4_000);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn classifications_of_the_export_and_of_its_models_are_added(pool: PgPool) {
    let in_classification = |key: &str, number, classification: Value| {
        let mut model = model(number, key);
        model["bk_classification_id"] = classification;
        model
    };
    let folder = export(&[
        (
            "cc_ObjClassification",
            vec![
                json!({"id": 1, "bk_classification_id": "room", "bk_classification_name": "Room"}),
                json!({"id": 2, "bk_classification_id": "bk_network"}),
                json!({"id": 3, "bk_classification_id": "room", "bk_supplier_account": "ten"}),
            ],
        ),
        (
            "cc_ObjDes",
            vec![
                in_classification("a", 50, json!("room")),
                in_classification("b", 51, json!("named by b only")),
                in_classification("c", 52, json!("")),
                in_classification("d", 53, Value::Null),
                in_classification("e", 54, json!("x".repeat(129))),
            ],
        ),
    ]);
    // Of the six rows, room and the five models are new.
    assert_eq!(totals(&pool, &folder)[..4], [8, 6, 0, 2]);
    assert_repeatable(&pool, &folder, &[]).await;
    let stored: Vec<(String, Option<String>)> = sqlx::query_as(
        "select key, classification from cmdb.model where length(key) = 1 order by key",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let row = |key: &str, classification: Option<&str>| {
        (key.to_owned(), classification.map(str::to_owned))
    };
    assert_eq!(
        stored,
        [
            row("a", Some("room")),
            row("b", Some("named by b only")),
            row("c", None),
            row("d", None),
            row("e", None),
        ]
    );
    let invalid = json!({"bk_classification_id": ""});
    let folder = export(&[("cc_ObjClassification", vec![invalid])]);
    let reason = r#"bk_classification_id "" is empty, longer than 128 characters or contains NUL"#;
    let row = ("cc_ObjClassification".to_owned(), 1, reason.to_owned());
    assert_eq!(rejected_rows(&pool, &folder), [row]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_user_interfaces_show_of_a_model_is_kept(pool: PgPool) {
    let stored = async || {
        let sql = "select concat_ws('|', is_predefined, position, description, sort_number,
                created_by, created_at at time zone 'UTC', updated_by,
                updated_at at time zone 'UTC')
            from cmdb.model where key = 'rack'";
        sqlx::query_scalar::<_, String>(sql).fetch_one(&pool).await.unwrap()
    };
    let mut full = model(50, "rack");
    for (field, value) in [
        ("ispre", json!(true)),
        ("position", json!("{\"bk_network\":{\"x\":-75}}")),
        ("description", json!("a\tb\\n\u{0}\n机柜")),
        ("obj_sort_number", json!({"$numberLong": "9"})),
        ("creator", json!("ann")),
        ("create_time", json!({"$date": "2021-01-31T18:00:00.25+08:00"})),
        ("modifier", json!("bob")),
        ("last_time", json!({"$date": {"$numberLong": "1795630870491"}})),
    ] {
        full[field] = value;
    }
    let folder = models(vec![full]);
    assert_eq!(warnings(&pool, &folder), [""; 0]);
    let before = stored().await;
    let expected = "t|{\"bk_network\":{\"x\":-75}}|a\tb\\n\n机柜|9|ann|2021-01-31 10:00:00.25|bob|\
                    2026-11-25 18:21:10.491";
    assert_eq!(before, expected);
    assert_repeatable(&pool, &folder, &[]).await;
    // What is absent or not as it should be leaves what is stored.
    let mut odd = model(50, "rack");
    for field in ["ispre", "position", "description", "obj_sort_number", "creator", "create_time"] {
        odd[field] = json!([field]);
    }
    for odd in [odd, json!({"bk_obj_id": "rack"})] {
        assert_eq!(warnings(&pool, &models(vec![odd])), [""; 0]);
        assert_eq!(stored().await, before);
    }
}

/// BlueKing CMDB has given no places before version 3.12.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn models_without_a_place_come_after_the_others_of_their_classification(pool: PgPool) {
    let placed = |number, key: &str, classification: &str, place: Option<i64>| {
        let mut model = model(number, key);
        model["bk_classification_id"] = json!(classification);
        if let Some(place) = place {
            model["obj_sort_number"] = json!(place);
        }
        model
    };
    let folder = models(vec![
        placed(53, "a", "room", None),
        placed(52, "b", "room", None),
        placed(51, "c", "bk_network", None),
        placed(50, "d", "bk_network", Some(0)),
        placed(54, "e", "bk_network", Some(-1)),
        placed(55, "f", "bk_network", Some(i64::MAX)),
        placed(7, "bk_switch", "bk_network", None),
    ]);
    assert_eq!(warnings(&pool, &folder), [""; 0]);
    let places = async || {
        let sql = "select string_agg(format('%s %s', key, sort_number), ', ' order by key)
                   from cmdb.model where length(key) = 1 or key = 'bk_switch'";
        sqlx::query_scalar::<_, String>(sql).fetch_one(&pool).await.unwrap()
    };
    // The migrations have placed four models in bk_network, one of which is bk_switch.
    assert_eq!(places().await, "a 2, b 1, bk_switch 1, c 6, d 5, e 7, f 8");
    assert_repeatable(&pool, &folder, &[]).await;
    // A later export has places.
    let folder = models(vec![placed(53, "a", "room", Some(1)), placed(52, "b", "room", Some(2))]);
    assert_eq!(warnings(&pool, &folder), [""; 0]);
    assert_eq!(places().await, "a 1, b 2, bk_switch 1, c 6, d 5, e 7, f 8");
    // A new model comes last.
    add_model(&pool, "g");
    let last = Program::on(&pool).run(&["model", "add", "h", "--classification", "bk_network"]);
    assert_eq!(last.status, 0, "{}", last.stderr);
    assert!(places().await.ends_with(", h 9"), "{}", places().await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_kind_of_a_model_association_changes_only_while_it_has_no_links(pool: PgPool) {
    let of_kind = |kind: &str| {
        let mut changed = with_key("s_h", association(60, "bk_switch", "host", "n:n"));
        changed["bk_asst_id"] = json!(kind);
        vec![changed]
    };
    let folder = |kind: &str| {
        export(&[
            ("cc_ObjAsst", of_kind(kind)),
            ("cc_HostBase", vec![json!({"bk_host_id": 1})]),
            ("cc_ObjectBase_0_pub_bk_switch", vec![instance(1)]),
        ])
    };
    let stored = async || {
        let sql = "select kind.key from cmdb.model_association one
                   join cmdb.association_kind kind on kind.id = association_kind_id
                   where one.key = 's_h' and one.id >> 2 = 60";
        sqlx::query_scalar::<_, String>(sql).fetch_one(&pool).await.unwrap()
    };
    for kind in ["connect", "run"] {
        assert_eq!(warnings(&pool, &folder(kind)), [""; 0]);
        assert_eq!(stored().await, kind);
    }
    let mut row = link(1, ["bk_switch", "host"], 1, 1);
    row["bk_obj_asst_id"] = json!("s_h");
    assert_eq!(warnings(&pool, &export(&[("cc_InstAsst_0_pub_host", vec![row])])), [""; 0]);
    let reason = "model association s_h has links and is stored with other models, another kind \
                  or another mapping";
    let rejected = ("cc_ObjAsst".to_owned(), 1, reason.to_owned());
    assert_eq!(rejected_rows(&pool, &folder("connect")), std::slice::from_ref(&rejected));
    assert_eq!(stored().await, "run");
    // A kind of the same key, which only another tenant sees, changes nothing.
    assert_eq!(warnings(&pool, &kinds(vec![kind(70, "run", "ten")])), [""; 0]);
    assert_repeatable(&pool, &folder("run"), &[]).await;
}

/// Other sequences of operations than an export and its repetition.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_was_deleted_here_is_imported_again(pool: PgPool) {
    let folder = models(vec![model(50, "a"), model(51, "b")]);
    assert_eq!(warnings(&pool, &folder), [""; 0]);
    let removed = Program::on(&pool).run(&["model", "remove", "a"]);
    assert_eq!(removed.status, 0, "{}", removed.stderr);
    assert_eq!(totals(&pool, &folder)[1..3], [1, 0]);
    assert_eq!(numbers(&pool, "model", "a b").await, "a 50, b 51");
    assert_repeatable(&pool, &folder, &[]).await;
}
