//! The generic plans of statements: those that PostgreSQL keeps for any parameters. They must be
//! the same on an empty database, on many rows that were never analysed, and on analysed ones.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::tidy::files;

/// What the tables hold when a plan is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Nothing,
    /// 100,000 links and 20,000 instances, without statistics. `make test-large` has ten times as
    /// many.
    NeverAnalyzed,
    /// The same rows, with statistics.
    Analyzed,
}

impl Content {
    pub(crate) const ALL: [Self; 3] = [Self::Nothing, Self::NeverAnalyzed, Self::Analyzed];

    /// Makes this the content of a new database, or of one with the content before this one.
    pub(crate) async fn apply(self, conn: &mut PgConnection) {
        let factor = if std::env::var_os("CMDB_LARGE_TESTS").is_some() { 10 } else { 1 };
        let instances = (10_000 * factor).to_string();
        let links = (3_334 * factor).to_string();
        let sql = match self {
            Self::Nothing => String::new(),
            Self::NeverAnalyzed => {
                MANY_ROWS.replace("INSTANCES", &instances).replace("LINKS", &links)
            }
            Self::Analyzed => "analyze".to_owned(),
        };
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.unwrap();
    }
}

/// 30 model associations, `n:n`, `1:n` and `1:1`, between switches and hosts.
const MANY_ROWS: &str = "
    begin;
    set local session_replication_role = replica;
    do $$
    declare
        name text;
    begin
        for name in select relname from pg_class
            where relnamespace = 'cmdb'::regnamespace and relkind = 'r'
        loop
            execute format('alter table cmdb.%I set (autovacuum_enabled = false)', name);
        end loop;
    end
    $$;
    insert into cmdb.instance (model_id, instance_id)
    select model.id, n from cmdb.model, generate_series(1, INSTANCES) n
    where model.key in ('bk_switch', 'host');
    insert into cmdb.instance_document (model_id, instance_id, tenant_id, unique_name, document)
    select model_id, instance_id, instance.tenant_id, instance_id::text,
        cmdb.new_document(model.key, '0', instance_id, instance_id::text)
    from cmdb.instance join cmdb.model on model.id = model_id
    where instance_id <= INSTANCES;
    insert into cmdb.model_association
        (id, key, source_model_id, target_model_id, association_kind_id, mapping)
    select 4 * (1000 + n) + 1 + (n - 1) % 3, 'plan_' || n, source.id, target.id, 1,
        (array['1:1', '1:n', 'n:n'])[1 + (n - 1) % 3]
    from cmdb.model source, cmdb.model target, generate_series(1, 30) n
    where source.key = 'bk_switch' and target.key = 'host';
    insert into cmdb.instance_association (model_association_id, source_id, target_id)
    select association.id, number, number
    from cmdb.model_association association, generate_series(1, LINKS) number
    where association.key like 'plan_%';
    insert into cmdb.audit_log
        (created_at, origin, request_id, app, user_name, tenant_id, model_association_id,
         association_ids)
    select now() - number * interval '1 minute', 'request', 'id', 'app', 'user', 0, 1, '{}'
    from generate_series(1, 10000) number;
    insert into cmdb.idempotency_record
        (app, user_name, key, created_at, request_hash, request_id, language, association_ids,
         refusals)
    select 'app', 'user', number::text, now() - number * interval '1 minute',
        decode(repeat('00', 32), 'hex'), 'id', 'en', '{}', '{}'
    from generate_series(1, 10000) number;
    commit";

/// All statements of fixed text, from the program's query data.
fn queries() -> impl Iterator<Item = String> {
    files(".sqlx", ".json").into_iter().map(|path| {
        let data: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        data["query"].as_str().unwrap().to_owned()
    })
}

/// The one statement of the program that contains `part`.
pub(crate) fn statement(part: &str) -> String {
    let found: Vec<String> = queries().filter(|query| query.contains(part)).collect();
    assert_eq!(found.len(), 1, "statements with {part:?}");
    found.into_iter().next().unwrap()
}

/// The lines of the generic plan of a statement, without the marks of their depth.
pub(crate) async fn plan(conn: &mut PgConnection, statement: &str) -> Vec<String> {
    let mut tx = conn.begin().await.unwrap();
    for sql in [
        // As on the server's connections.
        "set local plan_cache_mode = force_generic_plan".to_owned(),
        "set local enable_seqscan = off; set local enable_bitmapscan = off".to_owned(),
        format!("prepare planned as {statement}"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
    }
    let parameters: i32 = sqlx::query_scalar(
        "select cardinality(parameter_types) from pg_prepared_statements where name = 'planned'",
    )
    .fetch_one(&mut *tx)
    .await
    .unwrap();
    let nulls = vec!["null"; usize::try_from(parameters).unwrap()].join(", ");
    let arguments = if nulls.is_empty() { nulls } else { format!("({nulls})") };
    let explain = format!("explain (costs off) execute planned{arguments}");
    let plan: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut *tx).await.unwrap();
    sqlx::raw_sql("deallocate planned").execute(&mut *tx).await.unwrap();
    tx.rollback().await.unwrap();
    plan.iter().map(|line| line.trim_start_matches([' ', '-', '>']).to_owned()).collect()
}

/// What the generic plan of a statement reads: the indexes, and `all of x` for tables that are
/// scanned sequentially.
pub(crate) async fn scans(conn: &mut PgConnection, statement: &str) -> BTreeSet<String> {
    plan(conn, statement).await.iter().filter_map(|line| scan(line)).collect()
}

/// What a node of a plan reads.
fn scan(node: &str) -> Option<String> {
    let (kind, rest) = node.split_once("Scan ")?;
    let name = |rest: &str| rest.split(' ').next().unwrap().to_owned();
    match kind.trim_start_matches("Parallel ") {
        "Index " | "Index Only " => {
            Some(name(rest.trim_start_matches("Backward ").trim_start_matches("using ")))
        }
        "Bitmap Index " => Some(name(rest.trim_start_matches("on "))),
        "Seq " => Some(format!("all of {}", name(rest.trim_start_matches("on ")))),
        // A bitmap heap scan reads what its bitmap index scans have found.
        "Bitmap Heap " | "CTE " | "Function " | "Tid " | "Subquery " | "WorkTable " | "Values " => {
            None
        }
        _ => panic!("an unknown kind of scan: {node}"),
    }
}

/// The tables that may have more than a few thousand rows.
const LARGE_TABLES: [&str; 5] =
    ["instance", "instance_document", "instance_association", "audit_log", "idempotency_record"];

/// Asserts that each statement reads large tables by its indexes only, whatever the tables hold.
pub(crate) async fn assert_indexes(pool: &PgPool, statements: &[(String, Vec<&str>)]) {
    let mut conn = pool.acquire().await.unwrap();
    for content in Content::ALL {
        content.apply(&mut conn).await;
        for (statement, expected) in statements {
            let scans = scans(&mut conn, statement).await;
            let is_large = |scan: &&String| {
                let of = |table: &&str| {
                    **scan == format!("all of {table}") || scan.starts_with(&format!("{table}_"))
                };
                LARGE_TABLES.iter().any(of)
            };
            let large: Vec<_> = scans.iter().filter(is_large).collect();
            assert_eq!(large, *expected, "{content:?} {statement}");
        }
    }
}

/// A part of each statement of fixed text that names a large table, and what it reads of these.
const STATEMENTS: [(&str, &[&str]); 27] = [
    (
        "-- Creates links with their audit record",
        &[
            "audit_log_pkey",
            "instance_association_pair_key",
            "instance_association_source_key",
            "instance_association_target_key",
            "instance_pkey",
        ],
    ),
    (
        "-- The stored state that each detail",
        &[
            "instance_association_pair_key",
            "instance_association_source_key",
            "instance_association_target_key",
            "instance_pkey",
        ],
    ),
    (
        "-- The ids of links and their tenants",
        &["instance_association_pair_key", "instance_association_source_key"],
    ),
    ("-- Deletes links by their ids", &["instance_association_pkey"]),
    (
        "as \"exist!\"",
        &[
            "audit_log_pkey",
            "audit_log_request_id_id_idx",
            "idempotency_record_pkey",
            "instance_association_pkey",
        ],
    ),
    (
        "group by is_outgoing, model.id",
        &[
            "instance_association_pair_key",
            "instance_association_source_key",
            "instance_association_target_idx",
            "instance_association_target_key",
            "instance_pkey",
        ],
    ),
    (
        "dense_rank() over (order by kind.key)",
        &[
            "instance_association_pair_key",
            "instance_association_source_key",
            "instance_association_target_idx",
            "instance_association_target_key",
        ],
    ),
    ("from unnest($3::bigint[]) wanted_id", &["instance_pkey"]),
    ("select instance.name, model.icon", &["instance_pkey"]),
    ("end_of_link.instance_id", &["instance_association_pkey", "instance_pkey"]),
    ("select $2::integer as model_id, id, $4::boolean", &["instance_pkey"]),
    ("refusals as \"refusals!", &["idempotency_record_pkey"]),
    ("interval '25 hours'", &["idempotency_record_created_at_idx"]),
    (
        "'audit_log_id_seq', last_value",
        &["audit_log_pkey", "instance_association_pkey", "instance_pkey"],
    ),
    ("'purge', session_user", &[]),
    ("with examined as materialized", &["audit_log_pkey"]),
    ("as \"has_instances!\"", &["instance_pkey"]),
    ("as \"has_links!\"", &["instance_association_list_idx"]),
    (
        "from unnest($4::text[]) with ordinality given (text, position)",
        &["instance_document_name_key"],
    ),
    ("where id <> 0 and", &["instance_pkey"]),
    ("nextval('cmdb.instance_id_seq')", &[]),
    ("case when $5 then (", &["instance_document_pkey", "instance_pkey"]),
    (
        "new.unique_name as \"unique_name?\"",
        &["instance_document_name_key", "instance_document_pkey"],
    ),
    ("unique_name_before", &["instance_document_pkey", "instance_pkey"]),
    ("'edit')\n           order by instance_id", &["instance_pkey"]),
    (
        "as \"linked_ids!\"",
        &[
            "instance_association_pair_key",
            "instance_association_source_key",
            "instance_association_target_idx",
            "instance_association_target_key",
            "instance_pkey",
        ],
    ),
    ("delete from cmdb.instance using stored", &["instance_document_pkey", "instance_pkey"]),
];

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn each_statement_reads_large_tables_by_its_indexes_only(pool: PgPool) {
    let statements = STATEMENTS.map(|(part, indexes)| (statement(part), indexes.to_vec()));
    for query in queries() {
        let names_large = LARGE_TABLES.iter().any(|table| query.contains(&format!("cmdb.{table}")));
        let is_listed = statements.iter().any(|(statement, _)| *statement == query);
        // It reads one row of each table.
        let is_of_one_row = query.contains("select not exists (select from cmdb.instance)");
        assert_eq!(names_large, is_listed || is_of_one_row, "{query}");
    }
    assert_indexes(&pool, &statements).await;
}

/// How many rows of large tables were read by reading whole tables.
async fn rows_read(conn: &mut PgConnection) -> i64 {
    let read = "select coalesce(sum(seq_tup_read), 0)::bigint from pg_stat_xact_user_tables
        where schemaname = 'cmdb'
            and relname in ('instance', 'instance_document', 'instance_association')";
    sqlx::query_scalar(read).fetch_one(conn).await.unwrap()
}

/// The triggers of the database search as the server's statements do.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn no_trigger_reads_a_whole_table_of_links_or_instances(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let unlinked = "insert into cmdb.instance (model_id, instance_id)
                    select id, 500000 from cmdb.model where key in ('bk_switch', 'host')";
    sqlx::query(unlinked).execute(&mut *conn).await.unwrap();
    for content in [Content::NeverAnalyzed, Content::Analyzed] {
        content.apply(&mut conn).await;
        for sql in [
            "insert into cmdb.instance_association (model_association_id, source_id, target_id)
             select id, 500000, 500000 from cmdb.model_association where key = 'plan_3'",
            "delete from cmdb.instance where model_id = 1 and instance_id = 500000",
            "update cmdb.instance set instance_id = 600000
             where model_id = 9 and instance_id = 500000",
            "delete from cmdb.model_association where key = 'bk_switch_connect_host'",
        ] {
            let mut tx = conn.begin().await.unwrap();
            // What earlier transactions of the session have read may be counted here, too.
            let before = rows_read(&mut tx).await;
            let changed = sqlx::query(sql).execute(&mut *tx).await.unwrap();
            assert_eq!(changed.rows_affected(), 1, "{sql}");
            assert_eq!(rows_read(&mut tx).await - before, 0, "{content:?}: {sql}");
            tx.rollback().await.unwrap();
        }
    }
}
