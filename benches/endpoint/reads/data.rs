//! The links: a few models with different numbers of model associations, all of them to hosts.

use sqlx::{ConnectOptions, Connection};

use crate::binary::{Program, Server};
use crate::cluster::Cluster;
use crate::dataset::{CREATE_INDEXES, DROP_INDEXES, configure, prepare, run};

/// How many model associations there are. Each has the same number of links.
const ASSOCIATIONS: i64 = 200;

/// A model, by the number of the model associations of which it is the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    Of20,
    Of10,
    Of1,
    Of169,
    /// The target of all of them.
    Host,
}

impl Model {
    /// Its key.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Of20 => "reads_20",
            Self::Of10 => "reads_10",
            Self::Of1 => "reads_1",
            Self::Of169 => "reads_169",
            Self::Host => "host",
        }
    }

    /// The id of one of its links, by the link's number in the order of ids, from 0 on.
    pub(super) fn link_id(self, number: i64) -> i64 {
        let (first, associations) = self.associations();
        1 + number / associations * ASSOCIATIONS + first + number % associations
    }

    /// The number of its first model association, and how many it has.
    fn associations(self) -> (i64, i64) {
        match self {
            Self::Of20 => (0, 20),
            Self::Of10 => (20, 10),
            Self::Of1 => (30, 1),
            Self::Of169 => (31, 169),
            Self::Host => (0, ASSOCIATIONS),
        }
    }
}

/// A database with links, and a server on it.
pub(super) struct Data {
    /// How many links there are at first.
    pub(super) links: i64,
    /// The surrogate keys of the model associations, in the order of their numbers.
    associations: Vec<i32>,
    pub(super) program: Program,
    pub(super) server: Server,
}

impl Data {
    /// Loads so many links.
    pub(super) async fn load(cluster: &Cluster, links: i64) -> Self {
        assert!(links % 1_000 == 0 && links >= 200_000, "a multiple of 1,000, at least 200,000");
        configure(cluster).await;
        let program = Program::at(cluster.options().to_url_lossy().as_str());
        prepare(&program);
        let mut conn = cluster.options().connect().await.unwrap();
        let per_association = links / ASSOCIATIONS;
        let sql = [INVENTORY, DROP_INDEXES, LINKS, CREATE_INDEXES].join(";");
        let sql = sql
            .replace("ASSOCIATIONS", &ASSOCIATIONS.to_string())
            .replace("INSTANCES", &per_association.to_string())
            .replace("SOURCES", &sources(links).to_string())
            .replace("SIZE", &links.to_string());
        run(&mut conn, sql).await;
        run(&mut conn, "vacuum (analyze)".to_owned()).await;
        run(&mut conn, PREWARM.to_owned()).await;
        let associations =
            "select id from cmdb.model_association where key like 'reads_%' order by id";
        let associations = sqlx::query_scalar(associations).fetch_all(&mut conn).await.unwrap();
        let bytes: i64 = sqlx::query_scalar("select pg_database_size(current_database())")
            .fetch_one(&mut conn)
            .await
            .unwrap();
        println!("{links} links, {} MB", bytes / 1_000_000);
        conn.close().await.unwrap();
        let server = program.serve(&[]);
        Self { links, associations, program, server }
    }

    /// The surrogate keys of the model associations of a model.
    pub(super) fn associations(&self, model: Model) -> &[i32] {
        let (first, number) = model.associations();
        let [first, number] = [first, number].map(|number| usize::try_from(number).unwrap());
        &self.associations[first..first + number]
    }

    /// How many links a model had at first.
    pub(super) fn links_of(&self, model: Model) -> i64 {
        self.links / ASSOCIATIONS * model.associations().1
    }

    /// How many instances of each model there are.
    pub(super) fn instances(&self) -> i64 {
        self.links / ASSOCIATIONS
    }

    /// How many instances of each model are sources in every model association.
    pub(super) fn sources(&self) -> i64 {
        sources(self.links)
    }
}

fn sources(links: i64) -> i64 {
    links / ASSOCIATIONS / 5
}

/// Reads the tables and their indexes into PostgreSQL's buffers.
const PREWARM: &str = "
    create extension pg_prewarm schema public;
    select public.pg_prewarm(oid) from pg_class
    where relnamespace = 'cmdb'::regnamespace and relkind in ('r', 'i')";

const INVENTORY: &str = "
    insert into cmdb.model (key, name)
    select 'reads_' || number, '' from unnest(array[20, 10, 1, 169]) number;
    insert into cmdb.instance (model_id, instance_id)
    select id, n from cmdb.model, generate_series(1, INSTANCES) n
    where key = 'host' or key like 'reads_%'
    order by 1, 2;
    insert into cmdb.model_association
        (key, source_model_id, target_model_id, association_kind_id, mapping)
    select 'reads_' || number, source.id, target.id, kind.id,
        (array['n:n', '1:n', '1:1'])[1 + number % 3]
    from generate_series(0, ASSOCIATIONS - 1) number
    join cmdb.model source on source.key = case
        when number < 20 then 'reads_20'
        when number < 30 then 'reads_10'
        when number < 31 then 'reads_1'
        else 'reads_169' end
    join cmdb.model target on target.key = 'host'
    join cmdb.association_kind kind on kind.key = 'default'
    order by number";

/// The model associations take turns, as if their links had been created at the same time. So the
/// links of a model, and those of an instance, are scattered over the table.
///
/// In 1:1, each instance is a source and a target. In 1:n and n:n, every fifth instance is the
/// source of five links. In 1:n, each instance is a target.
const LINKS: &str = "
    insert into cmdb.instance_association (id, model_association_id, source_id, target_id)
    select nextval('cmdb.instance_association_id_seq'),
        (array(select id from cmdb.model_association where key like 'reads_%' order by id))
            [1 + n % ASSOCIATIONS],
        1 + case n % ASSOCIATIONS % 3
            when 2 then n / ASSOCIATIONS else n / ASSOCIATIONS % SOURCES end,
        1 + case n % ASSOCIATIONS % 3
            when 0 then n / ASSOCIATIONS % SOURCES * 48271 + n / ASSOCIATIONS / SOURCES * 13
            else n / ASSOCIATIONS * 7919 end % INSTANCES
    from generate_series(0::bigint, SIZE - 1) n";
