//! The command `import`.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;

use crate::app::{TestApp, assert_sound};
use crate::binary::{Output, Program};
use crate::constraints::wait_until_blocked;
use crate::deletions::{MANY, many};

fn lines(documents: &[Value]) -> String {
    documents.iter().flat_map(|document| [document.to_string(), "\n".to_owned()]).collect()
}

/// A folder with these collections, each with its documents.
pub(crate) fn export(collections: &[(&str, Vec<Value>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, documents) in collections {
        fs::write(folder.path().join(format!("{name}.json")), lines(documents)).unwrap();
    }
    folder
}

pub(crate) fn import(pool: &PgPool, folder: &Path) -> Output {
    Program::on(pool).run(&["import", folder.to_str().unwrap()])
}

/// Imports without warnings, and returns the rejected rows: file, line and reason.
pub(crate) fn rejected_rows(pool: &PgPool, folder: &TempDir) -> Vec<(String, u64, String)> {
    let rejected = |(kind, row)| {
        assert_eq!(kind, "rejected");
        row
    };
    reported_rows(pool, folder).into_iter().map(rejected).collect()
}

/// Imports, and returns the kind of each reported row, and its file, line and reason.
pub(crate) fn reported_rows(
    pool: &PgPool, folder: &TempDir,
) -> Vec<(String, (String, u64, String))> {
    let report = folder.path().join("report");
    let args = ["import", folder.path().to_str().unwrap(), "--report", report.to_str().unwrap()];
    let output = Program::on(pool).run(&args);
    assert_eq!(output.status, 0, "{}", output.stderr);
    let lines = fs::read_to_string(&report).unwrap();
    let reported = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line.as_object().unwrap().len(), 4);
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        assert!(output.stderr.contains(&format!(
            "{}: {}:{}: {}\n",
            text("kind"),
            text("file"),
            line["line"],
            text("reason")
        )));
        let number = line["line"].as_u64().unwrap();
        (text("kind"), (text("file").replace(".json", ""), number, text("reason")))
    };
    lines.lines().map(reported).collect()
}

fn model(number: i64, key: &str) -> Value {
    json!({"id": number, "bk_obj_id": key, "bk_obj_name": key, "bk_supplier_account": "0"})
}

pub(crate) fn association(number: i64, source: &str, target: &str, mapping: &str) -> Value {
    json!({
        "id": number, "bk_obj_asst_id": format!("{source}_connect_{target}"), "bk_obj_id": source,
        "bk_asst_obj_id": target, "bk_asst_id": "connect", "mapping": mapping,
    })
}

pub(crate) fn instance(id: i64) -> Value {
    json!({"bk_inst_id": id, "bk_inst_name": format!("name {id}")})
}

pub(crate) fn link(
    id: i64, [source_model, target_model]: [&str; 2], source: i64, target: i64,
) -> Value {
    json!({
        "id": id, "bk_obj_asst_id": format!("{source_model}_connect_{target_model}"),
        "bk_obj_id": source_model, "bk_asst_obj_id": target_model, "bk_inst_id": source,
        "bk_asst_inst_id": target,
    })
}

async fn stored_links(pool: &PgPool) -> Vec<(i64, String, i64, i64)> {
    let sql = "select link.id, key, source_id, target_id from cmdb.instance_association link
               join cmdb.model_association association on association.id = model_association_id
               order by link.id";
    sqlx::query_as(sql).fetch_all(pool).await.unwrap()
}

/// An export with models `a` and `b`, 5 instances of each, and a model association of each mapping.
fn small(links: Vec<Value>) -> TempDir {
    export(&[
        ("cc_ObjDes", vec![model(50, "a"), model(51, "b")]),
        (
            "cc_ObjAsst",
            vec![
                association(1, "a", "b", "1:n"),
                association(2, "b", "a", "1:1"),
                association(3, "a", "a", "n:n"),
            ],
        ),
        ("cc_ObjectBase_0_pub_a", (1..=5).map(instance).collect()),
        ("cc_ObjectBase_0_pub_b", (1..=5).map(instance).collect()),
        ("cc_InstAsst_0_pub_a", links),
    ])
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_import_keeps_ids_and_the_next_id_follows_the_id_generator(pool: PgPool) {
    let folder = small(vec![
        link(7, ["a", "b"], 1, 1),
        link(3, ["b", "a"], 1, 1),
        link(9, ["a", "a"], 1, 1),
    ]);
    fs::write(
        folder.path().join("cc_idgenerator.json"),
        "{\"_id\":\"cc_ObjectBase\",\"SequenceID\":900}\n\
         {\"_id\":\"cc_InstAsst\",\"SequenceID\":{\"$numberLong\":\"41\"}}\n",
    )
    .unwrap();
    assert_eq!(rejected_rows(&pool, &folder), []);
    let link = |id, key: &str| (id, key.to_owned(), 1, 1);
    let links = [link(3, "b_connect_a"), link(7, "a_connect_b"), link(9, "a_connect_a")];
    assert_eq!(stored_links(&pool).await, links);
    let app = TestApp::new(pool).await;
    let body = json!({
        "bk_obj_id": "a", "bk_asst_obj_id": "b", "bk_obj_asst_id": "a_connect_b",
        "details": [{"bk_inst_id": 1, "bk_asst_inst_id": 2}],
    });
    assert_eq!(app.post(body).await.ids(), [42]);
    let number = "select export_number from cmdb.model where key = 'b'";
    assert_eq!(app.count(number).await, 51);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_second_import_adds_new_rows_and_updates_stored_ones(pool: PgPool) {
    let folder = small(vec![link(7, ["a", "b"], 1, 1)]);
    let total = |output: &Output| {
        let line = output.stdout.lines().last().unwrap().to_owned();
        line.split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect::<Vec<u64>>()
    };
    // read, added, updated, unchanged, rejected
    assert_eq!(total(&import(&pool, folder.path())), [16, 16, 0, 0, 0]);
    assert_eq!(total(&import(&pool, folder.path())), [16, 0, 0, 16, 0]);
    let before = stored_links(&pool).await;

    let changed = json!({"bk_inst_id": 2, "bk_inst_name": "another"});
    let rows = [instance(1), changed, instance(6)].map(|row| format!("{row}\n")).concat();
    fs::write(folder.path().join("cc_ObjectBase_0_pub_a.json"), rows).unwrap();
    let renamed = json!({"id": 50, "bk_obj_id": "a", "bk_obj_name": "renamed"});
    fs::write(folder.path().join("cc_ObjDes.json"), renamed.to_string()).unwrap();
    assert_eq!(total(&import(&pool, folder.path())), [13, 1, 2, 10, 0]);
    assert_eq!(stored_links(&pool).await, before);
    let names: Vec<String> = sqlx::query_scalar(
        "select instance.name from cmdb.instance join cmdb.model on model.id = model_id
         where key = 'a' order by instance_id",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(names, ["name 1", "another", "name 3", "name 4", "name 5", "name 6"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_form_of_mongoexport_is_read(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
    write(
        "cc_HostBase.json",
        "\u{feff}[{\"bk_host_id\":{\"$numberLong\":\"1\"},\"bk_host_innerip\":\"h\\u0000\\t\\\\\"},\n \
         {\"bk_host_id\":2.0}]",
    );
    write(
        "cc_PlatBase.json",
        "{\n  \"bk_cloud_id\": 0,\n  \"bk_cloud_name\": \"default area\"\n}\n",
    );
    write("cc_ProjectBase.json", "{\"id\":3,\"bk_project_id\":\"x\"}");
    write(
        "cc_ObjectBase_0_pub_bk_switch.json",
        "{\"bk_inst_id\":{\"$numberInt\":\"5\"}}\
         {\"bk_inst_id\":6,\"bk_obj_id\":\"bk_router\"}\r\n\r\n",
    );
    // Old exports have an empty kind, and a link is in the files of both models.
    let row = "{\"id\":{\"$numberLong\":\"8\"},\"bk_inst_id\":5.0,\"bk_obj_id\":\"bk_switch\",\
               \"bk_asst_inst_id\":1,\"bk_asst_obj_id\":\"host\",\
               \"bk_obj_asst_id\":\"bk_switch_connect_host\",\"bk_asst_id\":\"\"}";
    write("cc_InstAsst_0_pub_bk_switch.json", row);
    write("cc_InstAsst_0_pub_host.json", &format!("[{row}]"));
    write("cc_Something.json", "{}");
    write("README.txt", "");
    fs::create_dir(folder.path().join("cc_SetBase.json")).unwrap();
    let output = import(&pool, folder.path());
    assert_eq!(output.status, 0, "{}", output.stderr);
    let ignored: Vec<_> =
        output.stderr.lines().filter_map(|line| line.strip_prefix("ignored: ")).collect();
    let expected = [
        "README.txt is not a known collection",
        "cc_SetBase.json is not a file",
        "cc_Something.json is not a known collection",
    ];
    assert_eq!(ignored, expected);
    let stored: Vec<(String, i64, Option<String>)> = sqlx::query_as(
        "select key, instance_id, instance.name
         from cmdb.instance join cmdb.model on model.id = model_id order by 1, 2",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let row = |key: &str, id, name: Option<&str>| (key.to_owned(), id, name.map(str::to_owned));
    assert_eq!(
        stored,
        [
            row("bk_project", 3, None),
            row("bk_router", 6, None),
            row("bk_switch", 5, None),
            row("host", 1, Some("h\t\\")),
            row("host", 2, None),
            row("plat", 0, Some("default area")),
        ]
    );
    assert_eq!(stored_links(&pool).await, [(8, "bk_switch_connect_host".to_owned(), 5, 1)]);
}

/// Compass names the database too, and writes large collections in parts.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn compressed_files_names_of_databases_and_parts_are_read(pool: PgPool) {
    let folder = export(&[
        ("cmdb.cc_ObjDes", vec![model(50, "a"), model(51, "b")]),
        ("cc_ObjAsst", vec![association(1, "a", "b", "n:n")]),
        ("cmdb.cc_ObjectBase_0_pub_a.part1", vec![instance(1)]),
        ("cmdb.cc_ObjectBase_0_pub_a.part2", vec![instance(2)]),
        ("cc_InstAsst_0_pub_a", vec![link(1, ["a", "b"], 1, 1), link(2, ["a", "b"], 2, 1)]),
    ]);
    let content = gzip(&lines(&[instance(1)]));
    fs::write(folder.path().join("cc_ObjectBase_0_pub_b.json.gz"), content).unwrap();
    fs::write(folder.path().join("cc_ObjectBase_0_pub_b.metadata.json"), "{}").unwrap();
    let output = import(&pool, folder.path());
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert_eq!(
        output.stderr,
        "ignored: cc_ObjectBase_0_pub_b.metadata.json is metadata of mongodump, which has no \
         documents\n"
    );
    assert_eq!(stored_links(&pool).await.len(), 2);
}

fn gzip(content: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_damaged_gzip_file_stops_the_import(pool: PgPool) {
    let hosts: Vec<_> = (1..=1_000).map(|id| json!({"bk_host_id": id})).collect();
    let content = gzip(&lines(&hosts));
    let damage = |at: usize| {
        let mut damaged = content.clone();
        damaged[at] ^= 0xFF;
        damaged
    };
    for damaged in [
        content[..5].to_vec(),
        content[..content.len() / 2].to_vec(),
        content[..content.len() - 1].to_vec(),
        damage(0),
        damage(content.len() / 2),
        damage(content.len() - 6),
        b"{\"bk_host_id\":1}".to_vec(),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cc_HostBase.json.gz"), damaged).unwrap();
        let output = import(&pool, folder.path());
        assert_eq!(output.status, 2);
        let message = "cmdb-associations: nothing was imported: cc_HostBase.json.gz:";
        assert!(output.stderr.starts_with(message), "{}", output.stderr);
    }
}

/// Before version 3.10, one collection had the instances of all models, and one had all links.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn collections_of_before_3_10_are_imported_unless_the_folder_has_later_ones(pool: PgPool) {
    let of = |model: &str, mut instance: Value| {
        instance["bk_obj_id"] = json!(model);
        instance
    };
    let mut of_tenant = link(8, ["a", "b"], 2, 1);
    of_tenant["bk_supplier_account"] = json!("0");
    let mut collections = vec![
        ("cc_ObjDes", vec![model(50, "a"), model(51, "b")]),
        ("cc_ObjAsst", vec![association(1, "a", "b", "n:n")]),
        ("cc_ObjectBase", vec![of("a", instance(1)), of("a", instance(2)), of("b", instance(1))]),
        ("cc_InstAsst", vec![link(7, ["a", "b"], 1, 1), of_tenant]),
    ];
    assert_eq!(rejected_rows(&pool, &export(&collections)), []);
    let links = [(7, "a_connect_b".to_owned(), 1, 1), (8, "a_connect_b".to_owned(), 2, 1)];
    assert_eq!(stored_links(&pool).await, links);

    // The links of later collections take precedence: link 9 has been deleted there.
    collections[3].1.push(link(9, ["a", "b"], 2, 2));
    collections.push(("cc_InstAsst_0_pub_a", collections[3].1[..2].to_vec()));
    let output = import(&pool, export(&collections).path());
    assert_eq!(output.status, 0, "{}", output.stderr);
    for name in ["cc_InstAsst.json", "cc_ObjectBase.json"] {
        let ignored = format!("ignored: {name} is a collection of BlueKing CMDB before 3.10");
        assert!(output.stderr.contains(&ignored), "{}", output.stderr);
    }
    assert_eq!(stored_links(&pool).await, links);

    let folder = export(&[("cc_ObjectBase", vec![of("a", instance(1)), instance(2)])]);
    let output = import(&pool, folder.path());
    let message = "nothing was imported: cc_ObjectBase.json:2: bk_obj_id is missing\n";
    assert_eq!(output.status, 2);
    assert!(output.stderr.ends_with(message), "{}", output.stderr);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_invalid_row_is_rejected_and_reported_with_its_line(pool: PgPool) {
    let folder = small(vec![
        link(1, ["a", "b"], 9, 1),
        link(2, ["a", "b"], 1, 9),
        link(3, ["a", "c"], 1, 1),
        json!({
            "id": 4, "bk_obj_asst_id": "a_connect_b", "bk_obj_id": "b", "bk_asst_obj_id": "a",
            "bk_inst_id": 1, "bk_asst_inst_id": 1,
        }),
        link(5, ["a", "b"], 1, 1),
        link(5, ["a", "b"], 1, 2),
        link(-1, ["a", "b"], 1, 2),
    ]);
    let add = |name: &str, rows: &[Value]| {
        let path = folder.path().join(name);
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, before + &lines(rows)).unwrap();
    };
    add("cc_ObjDes.json", &[model(60, "a"), model(61, &"x".repeat(129))]);
    add("cc_ObjAsst.json", &[association(9, "a", "c", "1:n")]);
    add("cc_ObjectBase_0_pub_c.json", &[instance(1)]);
    add("cc_ObjectBase_0_pub_a.json", &[instance(-7)]);
    let row = |file: &str, line, reason: &str| (format!("cc_{file}"), line, reason.to_owned());
    let long = format!(
        "bk_obj_id {:?} is empty, longer than 128 characters or contains NUL",
        "x".repeat(40)
    );
    assert_eq!(
        rejected_rows(&pool, &folder),
        [
            row("ObjDes", 3, "another row of model a has a lower id"),
            row("ObjDes", 4, &long),
            row("ObjectBase_0_pub_a", 6, "bk_inst_id -7 is negative"),
            row("ObjectBase_0_pub_c", 1, "model c does not exist"),
            row("ObjAsst", 4, "model c does not exist"),
            row("InstAsst_0_pub_a", 1, "source instance 9 of model a does not exist"),
            row("InstAsst_0_pub_a", 2, "target instance 9 of model b does not exist"),
            row("InstAsst_0_pub_a", 3, "model association a_connect_c does not exist"),
            row(
                "InstAsst_0_pub_a",
                4,
                "model association a_connect_b is from a to b, not from b to a"
            ),
            row("InstAsst_0_pub_a", 6, "another row of this file has id 5"),
            row("InstAsst_0_pub_a", 7, "id -1 is not between 0 and 4611686018427387904"),
        ]
    );
    assert_eq!(stored_links(&pool).await, [(5, "a_connect_b".to_owned(), 1, 1)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_report_has_every_rejected_row_and_stderr_the_first_100(pool: PgPool) {
    let folder = small((1..=2_500).map(|id| link(id, ["a", "b"], 9, 1)).collect());
    let report = folder.path().join("report");
    let args = ["import", folder.path().to_str().unwrap(), "--report", report.to_str().unwrap()];
    let output = Program::on(&pool).run(&args);
    assert_eq!(output.status, 0, "{}", output.stderr);
    let report = fs::read_to_string(&report).unwrap();
    let lines: Vec<Value> =
        report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().map(|line| line["line"].as_u64().unwrap()).eq(1..=2_500));
    assert_eq!(output.stderr.matches("rejected: ").count(), 100);
    let rest = "… and 2400 more rejected rows; --report FILE writes all of them\n";
    assert!(output.stderr.ends_with(rest), "{}", output.stderr);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn any_mapping_but_1_1_and_1_n_is_imported_as_n_n_with_a_warning(pool: PgPool) {
    let mut missing = association(4, "a", "b", "");
    missing.as_object_mut().unwrap().remove("mapping");
    missing["bk_obj_asst_id"] = json!("missing");
    let folder = export(&[
        ("cc_ObjDes", vec![model(50, "a"), model(51, "b")]),
        (
            "cc_ObjAsst",
            vec![
                association(1, "a", "b", "n:1"),
                association(2, "b", "a", ""),
                association(3, "a", "a", "n:n"),
                missing,
                association(5, "a", "c", "n:1"),
            ],
        ),
    ]);
    let row = |line, reason: &str| ("cc_ObjAsst".to_owned(), line, reason.to_owned());
    let warning = |line, mapping: &str| {
        ("warning".to_owned(), row(line, &format!("mapping is {mapping}, imported as n:n")))
    };
    let expected = [
        warning(1, "\"n:1\""),
        warning(2, "\"\""),
        warning(4, "missing"),
        ("rejected".to_owned(), row(5, "model c does not exist")),
    ];
    assert_eq!(reported_rows(&pool, &folder), expected);
    let mappings: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "select association.key, mapping, exported_mapping from cmdb.model_association association
         join cmdb.model on model.id = source_model_id where model.key in ('a', 'b') order by 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let row = |key: &str, exported: Option<&str>| {
        (key.to_owned(), "n:n".to_owned(), exported.map(str::to_owned))
    };
    let expected = [
        row("a_connect_a", None),
        row("a_connect_b", Some("n:1")),
        row("b_connect_a", Some("")),
        row("missing", Some("")),
    ];
    assert_eq!(mappings, expected);
    let total = import(&pool, folder.path()).stdout;
    let total: Vec<_> = total.lines().last().unwrap().split_whitespace().collect();
    // read, added, updated, unchanged, rejected
    assert_eq!(total, ["total", "7", "0", "0", "6", "1"]);
}

/// The ids that callers see of the model associations with keys of at most 4 characters.
async fn model_association_ids(pool: &PgPool) -> Vec<(String, i32)> {
    let sql = "select key, id >> 2 from cmdb.model_association where length(key) < 5 order by key";
    sqlx::query_as(sql).fetch_all(pool).await.unwrap()
}

pub(crate) fn with_key(key: &str, mut association: Value) -> Value {
    association["bk_obj_asst_id"] = json!(key);
    association
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_model_association_keeps_its_id_unless_that_is_invalid_or_taken(pool: PgPool) {
    let of = |number: i64, key: &str| with_key(key, association(number, "host", "host", "n:n"));
    let mut without_id = of(0, "g");
    without_id.as_object_mut().unwrap().remove("id");
    let folder = export(&[
        (
            "cc_ObjAsst",
            vec![
                of(6_000_001, "a"),
                of(536_870_912, "b"),
                of(0, "c"),
                of(-1, "d"),
                of(6_000_001, "e"),
                of(7, "f"),
                without_id,
            ],
        ),
        ("cc_idgenerator", vec![json!({"_id": "cc_ObjAsst", "SequenceID": 6_000_004})]),
    ]);
    let reported = reported_rows(&pool, &folder);
    let warnings: Vec<_> = reported
        .iter()
        .map(|(kind, (_, line, reason))| format!("{kind} {line}: {reason}"))
        .collect();
    let ids = model_association_ids(&pool).await;
    assert_eq!(ids.iter().map(|(key, _)| key.as_str()).collect::<String>(), "abcdefg");
    let id = |key: &str| ids.iter().find(|(of, _)| of == key).unwrap().1;
    assert_eq!((id("a"), id("f")), (6_000_001, 7));
    let mut assigned = ["b", "c", "d", "e", "g"].map(id);
    assigned.sort_unstable();
    assert_eq!(assigned, [6_000_005, 6_000_006, 6_000_007, 6_000_008, 6_000_009]);
    let warning = |line: i32, exported: i32, key: &str| {
        let stored = id(key);
        format!("warning {line}: id {exported} is invalid or taken, imported with id {stored}")
    };
    let expected = [
        warning(2, 536_870_912, "b"),
        warning(3, 0, "c"),
        warning(4, -1, "d"),
        warning(5, 6_000_001, "e"),
    ];
    assert_eq!(warnings, expected);

    // A second import changes no id and assigns none.
    reported_rows(&pool, &folder);
    assert_eq!(model_association_ids(&pool).await, ids);
    let next = sqlx::query_scalar::<_, i64>("select nextval('cmdb.model_association_number_seq')");
    assert_eq!(next.fetch_one(&pool).await.unwrap(), 6_000_010);
    assert_eq!(Program::on(&pool).run(&["check", "--strict"]).status, 0);
}

/// The model association of the migrations has the id 5.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_stored_model_association_takes_the_exported_id_unless_it_has_links(pool: PgPool) {
    let initial = |number| association(number, "bk_switch", "host", "1:n");
    let other = |number| with_key("own", association(number, "host", "host", "n:n"));
    let initial_id = async || {
        let sql = "select id >> 2 from cmdb.model_association where key = 'bk_switch_connect_host'";
        sqlx::query_scalar::<_, i32>(sql).fetch_one(&pool).await.unwrap()
    };
    assert_eq!(initial_id().await, 5);
    let folder = export(&[
        ("cc_ObjAsst", vec![other(5), initial(9)]),
        ("cc_HostBase", vec![json!({"bk_host_id": 1})]),
        ("cc_ObjectBase_0_pub_bk_switch", vec![instance(1)]),
    ]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    assert_eq!(initial_id().await, 9);
    assert_eq!(model_association_ids(&pool).await, [("own".to_owned(), 5)]);

    let row = link(1, ["bk_switch", "host"], 1, 1).to_string();
    fs::write(folder.path().join("cc_InstAsst_0_pub_host.json"), row).unwrap();
    assert_eq!(rejected_rows(&pool, &folder), []);
    let ids = [other(11), initial(12)].map(|row| format!("{row}\n")).concat();
    fs::write(folder.path().join("cc_ObjAsst.json"), ids).unwrap();
    let reason = "id 12 is invalid or taken, imported with id 9".to_owned();
    let warning = ("warning".to_owned(), ("cc_ObjAsst".to_owned(), 2, reason));
    assert_eq!(reported_rows(&pool, &folder), std::slice::from_ref(&warning));
    assert_eq!(model_association_ids(&pool).await, [("own".to_owned(), 11)]);

    // Audit records of links that are deleted since still name the model association.
    sqlx::query("delete from cmdb.instance_association").execute(&pool).await.unwrap();
    fs::remove_file(folder.path().join("cc_InstAsst_0_pub_host.json")).unwrap();
    assert_eq!(reported_rows(&pool, &folder), [warning]);
    assert_eq!(initial_id().await, 9);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_conflicting_links_the_stored_one_or_the_lowest_id_is_kept(pool: PgPool) {
    let one_to_many = ["a", "b"];
    let one_to_one = ["b", "a"];
    let folder = small(vec![
        link(20, one_to_many, 1, 1),
        link(21, one_to_one, 1, 1),
        link(22, ["a", "a"], 1, 1),
    ]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    // These rows are not in the order of their ids.
    let second = small(vec![
        link(9, one_to_one, 2, 3),
        link(8, one_to_one, 2, 2),
        link(7, one_to_one, 3, 2),
        link(6, one_to_one, 3, 4),
        link(1, one_to_many, 2, 1),
        link(2, one_to_many, 1, 1),
        link(4, one_to_many, 3, 2),
        link(3, one_to_many, 2, 2),
        link(22, ["a", "a"], 1, 2),
    ]);
    let row = |line, reason: &str| ("cc_InstAsst_0_pub_a".to_owned(), line, reason.to_owned());
    assert_eq!(
        rejected_rows(&pool, &second),
        [
            row(1, "b_connect_a is 1:1, and link 8 has the same source"),
            row(3, "b_connect_a is 1:1, and link 6 has the same source"),
            row(5, "a_connect_b is 1:n, and link 20 has the same target"),
            row(6, "link 20 has the same source and target"),
            row(7, "a_connect_b is 1:n, and link 3 has the same target"),
            row(9, "another stored link has id 22"),
        ]
    );
    let ids: Vec<i64> = stored_links(&pool).await.into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, [3, 6, 8, 20, 21, 22]);
    assert_eq!(Program::on(&pool).run(&["check", "--strict"]).status, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_mapping_of_a_model_association_changes_only_while_it_has_no_links(pool: PgPool) {
    let folder = small(vec![]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    let change = |mapping: &str| {
        let row = association(1, "a", "b", mapping).to_string();
        fs::write(folder.path().join("cc_ObjAsst.json"), row).unwrap();
    };
    change("1:1");
    assert_eq!(rejected_rows(&pool, &folder), []);
    let row = link(1, ["a", "b"], 1, 1).to_string();
    fs::write(folder.path().join("cc_InstAsst_0_pub_a.json"), row).unwrap();
    change("n:n");
    assert_eq!(rejected_rows(&pool, &folder), []);
    change("1:1");
    let reason = "model association a_connect_b has links and is stored with other models, \
                  another kind or another mapping";
    assert_eq!(rejected_rows(&pool, &folder), [("cc_ObjAsst".to_owned(), 1, reason.to_owned())]);
    let mapping: String =
        sqlx::query_scalar("select mapping from cmdb.model_association where key = 'a_connect_b'")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(mapping, "n:n");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_tenant_of_a_row_overrides_that_of_its_file(pool: PgPool) {
    let folder = small(vec![]);
    let mut own = instance(12);
    own["bk_supplier_account"] = json!("own");
    let rows = format!("{}\n{own}\n", instance(11));
    fs::write(folder.path().join("cc_ObjectBase_tenant_pub_a.json"), rows).unwrap();
    assert_eq!(rejected_rows(&pool, &folder), []);
    let tenants: Vec<(i64, String)> = sqlx::query_as(
        "select instance_id, key from cmdb.instance join cmdb.tenant on tenant.id = tenant_id
         where instance_id > 10 order by 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(tenants, [(11, "tenant".to_owned()), (12, "own".to_owned())]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenant_with_a_control_character_is_rejected(pool: PgPool) {
    let folder = small(vec![]);
    let mut host = json!({"bk_host_id": 1});
    host["bk_supplier_account"] = json!("a\tb");
    fs::write(folder.path().join("cc_HostBase.json"), host.to_string()).unwrap();
    let reason =
        "bk_supplier_account is longer than 128 characters or contains a control character";
    assert_eq!(rejected_rows(&pool, &folder), [("cc_HostBase".to_owned(), 1, reason.to_owned())]);
}

/// Instances of tenant "0" are seen by everybody if their model is built in, as `host` is.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_link_to_an_instance_of_another_tenant_is_rejected(pool: PgPool) {
    let to_host = |id, source, target| link(id, ["bk_switch", "host"], source, target);
    let of_switches = |id, source, target| link(id, ["bk_switch", "bk_switch"], source, target);
    let of = |tenant: &str, mut row: Value| {
        row["bk_supplier_account"] = json!(tenant);
        row
    };
    let switches = [of("0", instance(1)), of("ten", instance(2)), of("ten", instance(3))];
    let host = |id: i64, tenant: &str| of(tenant, json!({"bk_host_id": id}));
    let folder = export(&[
        ("cc_ObjAsst", vec![association(1, "bk_switch", "bk_switch", "n:n")]),
        ("cc_HostBase", vec![host(1, "0"), host(2, "ten"), host(3, "other")]),
        ("cc_ObjectBase_0_pub_bk_switch", switches.to_vec()),
        (
            "cc_InstAsst_ten_pub_bk_switch",
            vec![
                to_host(1, 2, 1),
                to_host(2, 2, 2),
                to_host(3, 2, 3),
                to_host(4, 1, 1),
                of_switches(5, 2, 3),
                of_switches(6, 2, 1),
                of("0", to_host(7, 1, 2)),
            ],
        ),
    ]);
    let row = |line, reason: &str| {
        let reason = format!("{reason} belongs to another tenant");
        ("cc_InstAsst_ten_pub_bk_switch".to_owned(), line, reason)
    };
    assert_eq!(
        rejected_rows(&pool, &folder),
        [
            row(3, "target instance 3 of model host"),
            row(4, "source instance 1 of model bk_switch"),
            row(6, "target instance 1 of model bk_switch"),
            row(7, "target instance 2 of model host"),
        ]
    );
    assert_eq!(Program::on(&pool).run(&["check", "--strict"]).status, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_other_endpoints_show_is_imported(pool: PgPool) {
    let stored = async || {
        let model: (String, String, bool, bool) = sqlx::query_as(
            "select classification, icon, is_hidden, is_paused from cmdb.model where key = 'rack'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        let kind: (String, String, String, String, Option<bool>) = sqlx::query_as(
            "select tenant.key, source_text, target_text, direction, is_predefined
             from cmdb.association_kind kind join cmdb.tenant on tenant.id = tenant_id
             where kind.key = 'cools'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        let association: (String, String, Option<bool>) = sqlx::query_as(
            "select name, on_delete, is_predefined from cmdb.model_association
             where key = 'rack_cools_host'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        (model, kind, association)
    };
    let text = str::to_owned;
    let model = json!({
        "id": 9, "bk_obj_id": "rack", "bk_obj_name": "Rack", "bk_classification_id": "room",
        "bk_obj_icon": "icon-rack", "bk_ishidden": true, "bk_ispaused": true,
    });
    let kind = json!({
        "id": 9, "bk_asst_id": "cools", "bk_asst_name": "cools", "src_des": "cools",
        "dest_des": "is cooled by", "direction": "bidirectional", "ispre": false,
        "bk_supplier_account": "ten",
    });
    let association = json!({
        "id": 9, "bk_obj_asst_id": "rack_cools_host", "bk_obj_asst_name": "cooling",
        "bk_obj_id": "rack", "bk_asst_obj_id": "host", "bk_asst_id": "cools", "mapping": "n:n",
        "on_delete": "delete_dest", "ispre": true, "bk_supplier_account": "ten",
    });
    let folder = export(&[
        ("cc_ObjDes", vec![model]),
        ("cc_AsstDes", vec![kind]),
        ("cc_ObjAsst", vec![association]),
    ]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    let before = stored().await;
    let kind =
        (text("ten"), text("cools"), text("is cooled by"), text("bidirectional"), Some(false));
    let association = (text("cooling"), text("delete_dest"), Some(true));
    assert_eq!(before, ((text("room"), text("icon-rack"), true, true), kind, association));
    // What is absent stays.
    let folder = export(&[
        ("cc_ObjDes", vec![json!({"bk_obj_id": "rack"})]),
        ("cc_AsstDes", vec![json!({"bk_asst_id": "cools", "bk_supplier_account": "ten"})]),
        (
            "cc_ObjAsst",
            vec![json!({
                "bk_obj_asst_id": "rack_cools_host", "bk_obj_id": "rack", "bk_asst_obj_id": "host",
                "bk_asst_id": "cools", "mapping": "n:n", "bk_supplier_account": "ten",
            })],
        ),
    ]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    assert_eq!(stored().await, before);
}

/// A model association of tenant "0" has no use for another tenant's kind.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenants_own_kind_is_preferred_to_that_of_tenant_0(pool: PgPool) {
    let kind = |tenant: &str, key: &str| json!({"bk_asst_id": key, "bk_asst_name": tenant, "bk_supplier_account": tenant});
    let of = |tenant: &str, key: &str, kind: &str| {
        json!({
            "bk_obj_asst_id": key, "bk_obj_id": "bk_switch", "bk_asst_obj_id": "host",
            "bk_asst_id": kind, "mapping": "n:n", "bk_supplier_account": tenant,
        })
    };
    let folder = export(&[
        ("cc_AsstDes", vec![kind("0", "cools"), kind("ten", "cools"), kind("ten", "own")]),
        (
            "cc_ObjAsst",
            vec![
                of("0", "a", "cools"),
                of("ten", "b", "cools"),
                of("other", "c", "cools"),
                of("ten", "d", "own"),
                of("0", "e", "own"),
            ],
        ),
    ]);
    let reason = "association kind own does not exist".to_owned();
    assert_eq!(rejected_rows(&pool, &folder), [("cc_ObjAsst".to_owned(), 5, reason)]);
    let kinds: Vec<(String, String)> = sqlx::query_as(
        "select association.key, kind.name from cmdb.model_association association
         join cmdb.association_kind kind on kind.id = association_kind_id
         where length(association.key) = 1 order by 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let pair = |key: &str, kind: &str| (key.to_owned(), kind.to_owned());
    assert_eq!(kinds, [pair("a", "0"), pair("b", "ten"), pair("c", "0"), pair("d", "ten")]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_unreadable_file_stops_the_import_and_nothing_changes(pool: PgPool) {
    let row_count =
        "select (select count(*) from cmdb.model) + (select count(*) from cmdb.model_association)
        + (select count(*) from cmdb.instance) + (select count(*) from cmdb.instance_association)
        + (select last_value from cmdb.instance_association_id_seq)";
    let count = async || sqlx::query_scalar::<_, i64>(row_count).fetch_one(&pool).await.unwrap();
    let before = count().await;
    for (name, content, expected) in [
        (
            "cc_InstAsst_0_pub_b.json",
            "{\"id\":77,\n",
            "cc_InstAsst_0_pub_b.json:2: the file ends inside a document",
        ),
        ("cc_InstAsst_0_pub_b.json", "{}\n", "cc_InstAsst_0_pub_b.json:1: id is missing"),
        (
            "cc_HostBase.json",
            "{\"bk_host_id\":1}\n{\"bk_host_id\":\"2\"}\n",
            "cc_HostBase.json:2: bk_host_id is \"2\", not an integer",
        ),
        (
            "cc_HostBase.json",
            "{\"bk_host_id\":1.5}",
            "cc_HostBase.json:1: bk_host_id is 1.5, not an integer",
        ),
        ("cc_HostBase.json", "{\"bk_host_id\":1}\n7", "cc_HostBase.json:2: invalid type"),
        ("cc_HostBase.json", "[{\"bk_host_id\":1}]\n{}", "cc_HostBase.json:2: trailing characters"),
        (
            "cc_AsstDes.json",
            "{\"bk_asst_id\":[]}",
            "cc_AsstDes.json:1: bk_asst_id is [], not a string",
        ),
    ] {
        let folder = small(vec![link(70, ["a", "b"], 1, 1)]);
        fs::write(folder.path().join(name), content).unwrap();
        let output = import(&pool, folder.path());
        assert_eq!((output.status, output.stdout.as_str()), (2, ""));
        let message = format!("cmdb-associations: nothing was imported: {expected}");
        assert!(output.stderr.contains(&message), "{}", output.stderr);
        assert_eq!(count().await, before, "{content}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_folder_without_collections_is_refused(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let output = import(&pool, folder.path());
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("has no collection of an export"), "{}", output.stderr);
    for number in 10..22 {
        fs::write(folder.path().join(format!("cc_{number}.json")), "{}").unwrap();
    }
    fs::write(folder.path().join("cc_1.csv"), "").unwrap();
    fs::write(folder.path().join("cc_HostBase.bson"), "").unwrap();
    let output = import(&pool, folder.path());
    assert_eq!(output.status, 2);
    let list = "has no collection of an export (cc_*.json): cc_1.csv is not a known collection; \
                cc_10.json is not a known collection; cc_11.json";
    assert!(output.stderr.contains(list), "{}", output.stderr);
    let end = "; cc_18.json is not a known collection; and 4 more\n";
    assert!(output.stderr.ends_with(end), "{}", output.stderr);
    let output = import(&pool, &folder.path().join("none"));
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("cannot read the folder"), "{}", output.stderr);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_folder_with_files_of_several_databases_is_refused(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["cmdb.cc_HostBase.json", "cmdb_test.cc_ObjDes.json", "cc_AsstDes.json"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let output = import(&pool, folder.path());
    assert_eq!(output.status, 2);
    let reason = "has files of several databases: cmdb, cmdb_test\n";
    assert!(output.stderr.ends_with(reason), "{}", output.stderr);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn if_empty_refuses_a_database_that_has_instances(pool: PgPool) {
    let folder = small(vec![]);
    let args = ["import", "--if-empty", folder.path().to_str().unwrap()];
    assert_eq!(Program::on(&pool).run(&args).status, 0);
    let output = Program::on(&pool).run(&args);
    assert_eq!((output.status, output.stdout.as_str()), (1, ""));
    assert!(output.stderr.contains("the database is not empty"), "{}", output.stderr);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_imported_link_is_in_one_audit_record(pool: PgPool) {
    let links =
        (1..=5).map(|n| link(n * n, ["a", "a"], n, n)).chain([link(2_000_000, ["a", "b"], 1, 1)]);
    let folder = small(links.collect());
    assert_eq!(rejected_rows(&pool, &folder), []);
    let records: Vec<(String, String)> = sqlx::query_as(
        "select key, association_ids::text from cmdb.audit_log
         join cmdb.model_association association on association.id = model_association_id
         where origin = 'import' order by 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let record = |key: &str, ids: &str| (key.to_owned(), ids.to_owned());
    assert_eq!(
        records,
        [
            record("a_connect_a", "{[1,2),[4,5),[9,10),[16,17),[25,26)}"),
            record("a_connect_b", "{[2000000,2000001)}"),
        ]
    );
    assert_eq!(Program::on(&pool).run(&["check", "--strict"]).status, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_id_of_a_rejected_row_is_not_assigned_again(pool: PgPool) {
    let mut invalid = link(500, ["a", "b"], 1, 1);
    invalid["bk_obj_asst_id"] = json!("");
    let folder = small(vec![invalid, link(400, ["a", "b"], 9, 9)]);
    assert_eq!(rejected_rows(&pool, &folder).len(), 2);
    let next = sqlx::query_scalar::<_, i64>("select nextval('cmdb.instance_association_id_seq')");
    assert_eq!(next.fetch_one(&pool).await.unwrap(), 501);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_rejected_row_leaves_its_id_to_a_valid_row(pool: PgPool) {
    let folder = small(vec![link(9, ["a", "b"], 77, 1), link(9, ["a", "b"], 1, 1)]);
    let reason = "source instance 77 of model a does not exist";
    assert_eq!(
        rejected_rows(&pool, &folder),
        [("cc_InstAsst_0_pub_a".to_owned(), 1, reason.to_owned())]
    );
    assert_eq!(stored_links(&pool).await, [(9, "a_connect_b".to_owned(), 1, 1)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_deleted_link_is_restored_by_the_next_import(pool: PgPool) {
    let folder = small(vec![link(7, ["a", "b"], 1, 1), link(8, ["a", "b"], 1, 2)]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    sqlx::query("delete from cmdb.instance_association where id = 7").execute(&pool).await.unwrap();
    assert_eq!(rejected_rows(&pool, &folder), []);
    assert_eq!(stored_links(&pool).await.len(), 2);
    let checked = Program::on(&pool).run(&["check", "--strict"]);
    assert_eq!(checked.status, 0, "{}", checked.stdout);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_link_that_a_request_deleted_is_not_restored_by_the_next_import(pool: PgPool) {
    let folder = small(vec![link(7, ["a", "b"], 1, 1), link(8, ["a", "b"], 1, 2)]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    let app = TestApp::new(pool.clone()).await;
    app.post_to(MANY, &[], many("a", &[7])).await;
    assert_eq!(
        rejected_rows(&pool, &folder),
        [("cc_InstAsst_0_pub_a".to_owned(), 1, "link 7 was deleted by a request".to_owned())]
    );
    assert_eq!(stored_links(&pool).await.len(), 1);
    let checked = Program::on(&pool).run(&["check", "--strict"]);
    assert_eq!(checked.status, 0, "{}", checked.stdout);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_imported_link_with_the_id_of_a_requests_deleted_link_is_rejected(pool: PgPool) {
    let folder = small(vec![]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    let app = TestApp::new(pool.clone()).await;
    let body = json!({
        "bk_obj_id": "a", "bk_asst_obj_id": "b", "bk_obj_asst_id": "a_connect_b",
        "details": [{"bk_inst_id": 1, "bk_asst_inst_id": 2}],
    });
    assert_eq!(app.post(body).await.ids(), [1]);
    sqlx::query("delete from cmdb.instance_association").execute(&pool).await.unwrap();
    let second = small(vec![link(1, ["a", "b"], 3, 3)]);
    let reason = "id 1 was assigned to a link that a request created";
    assert_eq!(
        rejected_rows(&pool, &second),
        [("cc_InstAsst_0_pub_a".to_owned(), 1, reason.to_owned())]
    );
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_row_without_a_name_leaves_the_stored_name(pool: PgPool) {
    let names = async || {
        sqlx::query_scalar::<_, String>(
            "select name from cmdb.model where key = 'host'
             union all select name from cmdb.association_kind where key = 'connect'
             union all select name from cmdb.model_association where key = 'bk_switch_connect_host'
             union all select name from cmdb.instance",
        )
        .fetch_all(&pool)
        .await
        .unwrap()
    };
    let with_name = json!({
        "bk_obj_asst_id": "bk_switch_connect_host", "bk_obj_asst_name": "uplink",
        "bk_obj_id": "bk_switch", "bk_asst_obj_id": "host", "bk_asst_id": "connect",
        "mapping": "1:n",
    });
    let folder = export(&[
        ("cc_ObjAsst", vec![with_name.clone()]),
        (
            "cc_HostBase",
            vec![json!({"bk_host_id": 1, "bk_host_innerip": ["10.0.0.1", "10.0.0.2"]})],
        ),
    ]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    let before = names().await;
    assert_eq!(before, ["主机", "上联", "uplink", "10.0.0.1,10.0.0.2"]);
    let mut without_name = with_name;
    without_name.as_object_mut().unwrap().remove("bk_obj_asst_name");
    let folder = export(&[
        ("cc_ObjDes", vec![json!({"bk_obj_id": "host"})]),
        ("cc_AsstDes", vec![json!({"bk_asst_id": "connect"})]),
        ("cc_ObjAsst", vec![without_name]),
        ("cc_HostBase", vec![json!({"bk_host_id": 1})]),
    ]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    assert_eq!(names().await, before);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn instances_with_long_and_repeated_names_are_imported(pool: PgPool) {
    // No index can have it, and it cannot be compressed.
    let letters =
        std::iter::successors(Some(1_u32), |n| Some(n.wrapping_mul(1_664_525).wrapping_add(1)));
    let long: String = letters
        .take(5_000)
        .map(|n| char::from(b'!' + u8::try_from(n >> 24).unwrap() % 90))
        .collect();
    let named = |id: i64, name: &str| json!({"bk_inst_id": id, "bk_inst_name": name});
    let host = |id: i64, area: &str| json!({"bk_host_id": id, "bk_host_innerip": ["10.0.0.1"], "bk_cloud_id": area});
    let folder = export(&[
        ("cc_ObjectBase_0_pub_bk_switch", vec![named(1, &long), named(2, &long), named(3, "a")]),
        ("cc_HostBase", vec![host(1, "0"), host(2, "0"), host(3, &long)]),
    ]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    let unique = "select array_agg(unique_name order by unique_name) from cmdb.instance_document
        where unique_name is not null";
    let unique: Vec<String> = sqlx::query_scalar(unique).fetch_one(&pool).await.unwrap();
    assert_eq!(unique, ["0:10.0.0.1", "a"]);
    assert_sound(&pool).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_instance_belongs_to_the_tenant_that_had_it_first(pool: PgPool) {
    let folder = export(&[
        ("cc_ObjectBase_0_pub_bk_switch", vec![instance(1)]),
        ("cc_ObjectBase_ten_pub_bk_switch", vec![instance(1), instance(2)]),
    ]);
    let reason = "instance 1 of model bk_switch belongs to another tenant";
    let row = ("cc_ObjectBase_ten_pub_bk_switch".to_owned(), 1, reason.to_owned());
    assert_eq!(rejected_rows(&pool, &folder), std::slice::from_ref(&row));
    fs::remove_file(folder.path().join("cc_ObjectBase_0_pub_bk_switch.json")).unwrap();
    assert_eq!(rejected_rows(&pool, &folder), [row]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn if_empty_refuses_a_database_that_has_another_model(pool: PgPool) {
    let folder = export(&[("cc_ObjDes", vec![json!({"bk_obj_id": "rack"})])]);
    let args = ["import", "--if-empty", folder.path().to_str().unwrap()];
    assert_eq!(Program::on(&pool).run(&args).status, 0);
    assert_eq!(Program::on(&pool).run(&args).status, 1);
}

/// An import locks the table of links before it changes instances, as a deletion does.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_import_waits_for_a_deletion_without_a_deadlock(pool: PgPool) {
    let folder = small(vec![]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    let mut deleter = pool.begin().await.unwrap();
    sqlx::query("delete from cmdb.instance where instance_id = 5")
        .execute(&mut *deleter)
        .await
        .unwrap();
    let path = folder.path().to_owned();
    let importing = tokio::task::spawn_blocking({
        let pool = pool.clone();
        move || import(&pool, &path)
    });
    wait_until_blocked(&pool, 1).await;
    sqlx::query("delete from cmdb.instance where instance_id = 4")
        .execute(&mut *deleter)
        .await
        .unwrap();
    deleter.commit().await.unwrap();
    assert_eq!(importing.await.unwrap().status, 0);
}

/// The import stops after it has merged the model associations, at a trigger of this test.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn links_are_created_while_an_import_finds_its_differences(pool: PgPool) {
    let folder = small(vec![link(7, ["a", "b"], 1, 1)]);
    assert_eq!(rejected_rows(&pool, &folder), []);
    let mut holder = pool.begin().await.unwrap();
    sqlx::raw_sql(
        "create function public.wait() returns trigger language plpgsql as
             'begin perform pg_advisory_xact_lock(1); return null; end';
         create trigger wait after insert on cmdb.model_association
             for each statement execute function public.wait()",
    )
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *holder).await.unwrap();
    let path = folder.path().to_owned();
    let importing = tokio::task::spawn_blocking({
        let pool = pool.clone();
        move || import(&pool, &path)
    });
    wait_until_blocked(&pool, 1).await;
    let create =
        "insert into cmdb.instance_association (model_association_id, source_id, target_id)
                  select model_association_id, 2, 3 from cmdb.instance_association";
    sqlx::query(create).execute(&pool).await.unwrap();
    holder.commit().await.unwrap();
    assert_eq!(importing.await.unwrap().status, 0);
    assert_eq!(stored_links(&pool).await.len(), 2);
}
