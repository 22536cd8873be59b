//! The databases, each with a server: an inventory, its links, and the bare table of the floor.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};

use crate::binary::{Program, Server};
use crate::cluster::Cluster;

/// Instances of each of the two models.
pub(crate) const INSTANCES: i64 = 200_000;

/// What a database holds.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) links: i64,
    /// Whether PostgreSQL has statistics.
    pub(crate) is_analyzed: bool,
}

/// What each database of `make bench` holds.
pub(crate) const SIZES: [Size; 4] = {
    const fn analyzed(links: i64) -> Size {
        Size { links, is_analyzed: true }
    }
    [
        analyzed(100_000),
        analyzed(1_000_000),
        analyzed(10_000_000),
        Size { links: 1_000_000, is_analyzed: false },
    ]
};

/// The settings that differ from those of a new PostgreSQL server. No checkpoint is due during the
/// run: full-page images are written to the WAL only where the report says so.
pub(crate) const SETTINGS: [(&str, &str); 6] = [
    ("shared_buffers", "4GB"),
    ("max_wal_size", "64GB"),
    ("checkpoint_timeout", "1h"),
    ("autovacuum", "off"),
    ("max_connections", "200"),
    ("shared_preload_libraries", "pg_stat_statements"),
];

/// A database, and a server on it.
pub(crate) struct Dataset {
    /// How many links it held at first.
    pub(crate) size: i64,
    pub(crate) options: PgConnectOptions,
    pub(crate) program: Program,
    pub(crate) server: Server,
}

impl Dataset {
    /// One dataset for each of these sizes, on copies of one inventory.
    pub(crate) async fn all(cluster: &Cluster, sizes: &[Size]) -> Vec<Self> {
        configure(cluster).await;
        let url = cluster.options().to_url_lossy();
        load_inventory(&Program::at(url.as_str()), &cluster.options()).await;
        // All copies are made before links are loaded, because each copy needs a checkpoint.
        let mut conn = cluster.options().database("postgres").connect().await.unwrap();
        for index in 0..sizes.len() {
            let copy = format!("create database links_{index} template cmdb strategy file_copy");
            run(&mut conn, copy).await;
        }
        let mut datasets = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            let options = cluster.options().database(&format!("links_{index}"));
            load_links(&options, size.links).await;
            if !size.is_analyzed {
                run(&mut options.connect().await.unwrap(), FORGET_STATISTICS.to_owned()).await;
            }
            let program = Program::at(options.to_url_lossy().as_str());
            let server = program.serve(&[]);
            datasets.push(Self { size: size.links, options, program, server });
        }
        datasets
    }

    /// A dataset for any build of the program, whose schema may differ from that of this build.
    pub(crate) async fn of(cluster: &Cluster, executable: &str, name: &str, size: i64) -> Self {
        let mut conn = cluster.options().database("postgres").connect().await.unwrap();
        run(&mut conn, format!("create database {name}")).await;
        let options = cluster.options().database(name);
        let program = Program::of(executable, options.to_url_lossy().as_str());
        load_inventory(&program, &options).await;
        load_links(&options, size).await;
        let server = program.serve(&[]);
        Self { size, options, program, server }
    }

    /// A connection with the driver's default settings.
    pub(crate) async fn connect(&self) -> PgConnection {
        self.options.connect().await.unwrap()
    }
}

/// The secret of the application `bench`.
pub(crate) const SECRET: &str = "bench";

/// The user of all requests, who may edit everything.
pub(crate) const USER: &str = "bench";

/// Restarts PostgreSQL with [`SETTINGS`].
pub(crate) async fn configure(cluster: &Cluster) {
    let mut conn = cluster.options().connect().await.unwrap();
    for (name, value) in SETTINGS {
        set(&mut conn, name, value).await;
    }
    drop(conn);
    cluster.does("stop");
    cluster.does("start");
}

/// Sets a setting of PostgreSQL, from its next start on.
pub(crate) async fn set(conn: &mut PgConnection, name: &str, value: &str) {
    run(conn, format!("alter system set {name} = '{value}'")).await;
}

/// The schema, the application and the user.
pub(crate) fn prepare(program: &Program) {
    let migrated = program.run(&["migrate"]);
    assert_eq!(migrated.status, 0, "{}", migrated.stderr);
    let add = ["app", "add", "bench", "--trust-username", "--secret-stdin"];
    assert_eq!(program.run_with(&add, SECRET).status, 0);
    assert_eq!(program.run(&["grant", "add", "--user", USER, "--all"]).status, 0);
}

/// What [`prepare`] makes, the instances and the model associations.
async fn load_inventory(program: &Program, options: &PgConnectOptions) {
    prepare(program);
    let mut conn = options.connect().await.unwrap();
    run(&mut conn, INVENTORY.replace("INSTANCES", &INSTANCES.to_string())).await;
    run(&mut conn, "vacuum (freeze, analyze)".to_owned()).await;
    conn.close().await.unwrap();
}

/// Like [`load_inventory`], without statistics, and the empty table of the floor.
pub(crate) async fn load_new(program: &Program, options: &PgConnectOptions) {
    prepare(program);
    let mut conn = options.connect().await.unwrap();
    // The extension is not loaded.
    let inventory = INVENTORY.replace("INSTANCES", &INSTANCES.to_string());
    run(&mut conn, [&inventory, BARE].join(";")).await;
    conn.close().await.unwrap();
}

async fn load_links(options: &PgConnectOptions, size: i64) {
    let mut conn = options.connect().await.unwrap();
    let links = LINKS.replace("INSTANCES", &INSTANCES.to_string());
    let links = links.replace("SIZE", &size.to_string());
    run(&mut conn, [DROP_INDEXES, &links, CREATE_INDEXES, BARE].join(";")).await;
    run(&mut conn, "vacuum (freeze, analyze)".to_owned()).await;
    conn.close().await.unwrap();
}

/// Runs statements without parameters.
pub(crate) async fn run(conn: &mut PgConnection, sql: String) {
    conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

/// The instances are inserted in the order of their keys, as an import does it. There are enough
/// 1:n and 1:1 model associations for all requests of a run: see `batches`.
const INVENTORY: &str = "
    insert into cmdb.instance (model_id, instance_id)
    select id, n from cmdb.model, generate_series(1, INSTANCES) n
    where key in ('bk_switch', 'host')
    order by 1, 2;
    insert into cmdb.model_association
        (key, source_model_id, target_model_id, association_kind_id, mapping)
    select 'bench_' || new.key, source.id, target.id, kind.id, mapping
    from (
        select 'n:n' as key, 'n:n' as mapping
        union all
        select mapping || '_' || n, mapping
        from unnest(array['1:n', '1:1']) mapping, generate_series(0, 19) n
    ) new
    join cmdb.model source on source.key = 'bk_switch'
    join cmdb.model target on target.key = 'host'
    join cmdb.association_kind kind on kind.key = 'default';
    create extension pg_stat_statements schema public";

/// Switches off the triggers of this connection and drops the indexes of the links, so that
/// [`CREATE_INDEXES`] makes them after the rows are there. Their pages then have as much free space
/// as those of indexes whose rows were inserted one by one.
pub(crate) const DROP_INDEXES: &str = "
    set session_replication_role = replica;
    create temporary table definition (statement text);
    do $$
    declare
        index record;
        primary_key record;
    begin
        for index in
            select indexrelid as id, indexrelid::regclass as name from pg_index
            where indrelid = 'cmdb.instance_association'::regclass and not indisprimary
        loop
            execute format('alter index %s set (fillfactor = 70)', index.name);
            insert into definition values (pg_get_indexdef(index.id));
            execute format('drop index %s', index.name);
        end loop;
        for primary_key in
            select conname as name, pg_get_constraintdef(oid) as text from pg_constraint
            where conrelid = 'cmdb.instance_association'::regclass and contype = 'p'
        loop
            insert into definition values (format(
                'alter table cmdb.instance_association add constraint %I %s',
                primary_key.name, primary_key.text));
            execute format(
                'alter table cmdb.instance_association drop constraint %I', primary_key.name);
        end loop;
    end
    $$";

/// Makes the indexes again that [`DROP_INDEXES`] has dropped.
pub(crate) const CREATE_INDEXES: &str = "
    do $$
    declare
        statement text;
    begin
        for statement in select definition.statement from definition loop
            execute statement;
        end loop;
    end
    $$";

/// Link number n associates source n % INSTANCES with a target that no other link of this source
/// has: see [`stored_pair`].
const LINKS: &str = "
    insert into cmdb.instance_association (id, model_association_id, source_id, target_id)
    select nextval('cmdb.instance_association_id_seq'),
        (select id from cmdb.model_association where key = 'bench_n:n'),
        1 + n % INSTANCES, 1 + (n % INSTANCES * 48271 + n / INSTANCES * 13) % INSTANCES
    from generate_series(0::bigint, SIZE - 1) n";

/// Makes the tables as if they had never been analysed.
const FORGET_STATISTICS: &str = "
    delete from pg_statistic;
    update pg_class set reltuples = -1, relpages = 0 where relnamespace = 'cmdb'::regnamespace";

/// The table of the floor.
const BARE: &str = "
    create table public.bare (
        id bigint generated by default as identity,
        association integer not null,
        source bigint not null,
        target bigint not null
    );
    insert into public.bare (association, source, target)
    select 1, source_id, target_id from cmdb.instance_association order by id;
    alter table public.bare
        add primary key (id),
        add unique (association, source, target) with (fillfactor = 70)";

/// The pair of stored link number `n`.
pub(crate) fn stored_pair(n: i64) -> (i64, i64) {
    (1 + n % INSTANCES, 1 + (n % INSTANCES * 48_271 + n / INSTANCES * 13) % INSTANCES)
}
