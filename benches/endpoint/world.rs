//! The databases: an inventory, stored links, and beside them the bare table of the floor.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};

use crate::binary::{Program, Server};
use crate::cluster::Cluster;

/// Instances of each of the two models.
pub(crate) const INSTANCES: i64 = 200_000;

/// How many links each database holds.
pub(crate) const SIZES: [i64; 3] = [100_000, 1_000_000, 10_000_000];

/// What differs from a fresh Postgres. No checkpoint is due during the run: a page is written to the WAL in full
/// only where it says so.
pub(crate) const SETTINGS: [(&str, &str); 6] = [
    ("shared_buffers", "4GB"),
    ("max_wal_size", "64GB"),
    ("checkpoint_timeout", "1h"),
    ("autovacuum", "off"),
    ("max_connections", "200"),
    ("shared_preload_libraries", "pg_stat_statements"),
];

/// A database, and a server on it.
pub(crate) struct World {
    /// How many links it held at first.
    pub(crate) size: i64,
    pub(crate) options: PgConnectOptions,
    pub(crate) program: Program,
    pub(crate) server: Server,
}

impl World {
    /// One for each of these sizes.
    pub(crate) async fn all(cluster: &Cluster, sizes: &[i64]) -> Vec<Self> {
        let mut conn = cluster.options().connect().await.unwrap();
        for (name, value) in SETTINGS {
            set(&mut conn, name, value).await;
        }
        drop(conn);
        cluster.does("stop");
        cluster.does("start");

        let program = Program::at(cluster.options().to_url_lossy().as_str());
        assert_eq!(program.run(&["migrate"]).status, 0);
        let add = ["app", "add", "bench", "--trust-username", "--secret-stdin"];
        assert_eq!(program.run_with(&add, SECRET).status, 0);
        assert_eq!(program.run(&["grant", "add", "--user", USER, "--all"]).status, 0);
        let mut conn = cluster.options().connect().await.unwrap();
        run(&mut conn, INVENTORY.replace("INSTANCES", &INSTANCES.to_string())).await;
        run(&mut conn, "vacuum (freeze, analyze)".to_owned()).await;
        conn.close().await.unwrap();
        // Databases are copied first: every copy is a checkpoint.
        let mut conn = cluster.options().database("postgres").connect().await.unwrap();
        for &size in sizes {
            run(
                &mut conn,
                format!("create database links_{size} template cmdb strategy file_copy"),
            )
            .await;
        }
        let mut worlds = Vec::new();
        for &size in sizes {
            let options = cluster.options().database(&format!("links_{size}"));
            let mut conn = options.connect().await.unwrap();
            run(
                &mut conn,
                LINKS
                    .replace("INSTANCES", &INSTANCES.to_string())
                    .replace("SIZE", &size.to_string()),
            )
            .await;
            run(&mut conn, "vacuum (freeze, analyze)".to_owned()).await;
            let program = Program::at(options.to_url_lossy().as_str());
            let server = program.serve(&[]);
            worlds.push(Self { size, options, program, server });
        }
        worlds
    }

    /// A connection as the bare driver has it.
    pub(crate) async fn connect(&self) -> PgConnection {
        self.options.connect().await.unwrap()
    }
}

/// What proves the application to be itself.
pub(crate) const SECRET: &str = "bench";

/// May edit everything.
pub(crate) const USER: &str = "bench";

/// Sets a setting of Postgres, from its next start on.
pub(crate) async fn set(conn: &mut PgConnection, name: &str, value: &str) {
    run(conn, format!("alter system set {name} = '{value}'")).await;
}

async fn run(conn: &mut PgConnection, sql: String) {
    conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

/// In the order of keys, as an import does it. There are enough associations of the narrower mappings to take every instance once.
const INVENTORY: &str = "
    insert into instance (model_id, instance_id)
    select id, number from model, generate_series(1, INSTANCES) number where key in ('bk_switch', 'host')
    order by 1, 2;
    insert into model_association (key, source_model_id, target_model_id, association_kind_id, mapping)
    select 'bench_' || wanted.key, source.id, target.id, kind.id, mapping
    from (
        select 'n:n' as key, 'n:n' as mapping
        union all select mapping || '_' || n, mapping from unnest(array['1:n', '1:1']) mapping, generate_series(0, 19) n
    ) wanted
    join model source on source.key = 'bk_switch'
    join model target on target.key = 'host'
    join association_kind kind on kind.key = 'default';
    create extension pg_stat_statements";

/// Link number n associates source n % INSTANCES with a target that no other link of this source has: see `stored`.
/// Keys are built once all rows are there, with the room in their pages that they have when rows came one by one.
const LINKS: &str = "
    set session_replication_role = replica;
    create temporary table definition as
        select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as text
        from pg_index where indrelid = 'instance_association'::regclass and not indisprimary;
    drop index instance_association_source_key, instance_association_target_key;
    alter table instance_association drop constraint instance_association_pkey;
    insert into instance_association (id, model_association_id, source_id, target_id)
    select nextval('instance_association_id_seq'), (select id from model_association where key = 'bench_n:n'),
        1 + n % INSTANCES, 1 + (n % INSTANCES * 48271 + n / INSTANCES * 13) % INSTANCES
    from generate_series(0::bigint, SIZE - 1) n;
    alter table instance_association add constraint instance_association_pkey primary key (id);
    do $$
    declare
        definition record;
    begin
        for definition in select * from definition loop
            execute definition.text || ' with (fillfactor = 70)';
        end loop;
    end
    $$;

    create table bare (
        id bigint generated by default as identity,
        association integer not null,
        source bigint not null,
        target bigint not null
    );
    insert into bare (association, source, target)
    select 1, source_id, target_id from instance_association order by id;
    alter table bare add primary key (id), add unique (association, source, target) with (fillfactor = 70)";

/// The pair of stored link number `n`.
pub(crate) fn stored(n: i64) -> (i64, i64) {
    (1 + n % INSTANCES, 1 + (n % INSTANCES * 48_271 + n / INSTANCES * 13) % INSTANCES)
}
