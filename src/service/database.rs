//! Whether the database is as the program needs it: for commands, when the server starts, and in
//! the background while it runs.

use std::io;
use std::time::Duration;

use metrics::gauge;
use sqlx::error::BoxDynError;
use sqlx::migrate::MigrateError;
use sqlx::{ConnectOptions, PgConnection};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::Error;
use crate::db::pool::Pool;
use crate::db::schema::{self, Applied};
use crate::db::sequence::{self, SequenceBehind};
use crate::db::server::{self, Server};
use crate::db::session;
pub use crate::db::session::Database;
use crate::db::{ErrorClass, classify};
use crate::domain::error::error_chain;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one inspection may take.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the server inspects the database.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// How often it does so while there is a problem.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum Problem {
    #[error("cannot connect to the database at {host}:{port}")]
    Connect { host: String, port: u16, source: sqlx::Error },
    #[error("the database returned an error")]
    Database(#[source] sqlx::Error),
    #[error("{0}")]
    Session(BoxDynError),
    #[error("the database cannot be migrated")]
    Migrate(#[from] MigrateError),
    #[error("PostgreSQL 15 or later is needed, but the server has version {0}: upgrade it")]
    Version(String),
    #[error(
        "the encoding of the database is {0}, not UTF8: create another one with `createdb \
         --template=template0 --encoding=UTF8`"
    )]
    Encoding(String),
    #[error("the database is read-only: the server is a standby")]
    Standby,
    #[error("the database is read-only: default_transaction_read_only is on")]
    ReadOnly,
    #[error("the role lacks privileges: {}; the owner of the tables has them", .0.join("; "))]
    Privileges(Vec<String>),
    #[error("{0} migrations are pending: run `cmdb-associations migrate` first")]
    Pending(usize),
    #[error("the schema is not as the migrations made it: {}", .0.join("; "))]
    Schema(Vec<String>),
    #[error("sequences are behind the rows of their tables: run {}", cures(.0))]
    Sequences(Vec<SequenceBehind>),
    #[error("the database did not answer in time")]
    Timeout,
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Configuration(error) => Self::Session(error),
            error => Self::Database(error),
        }
    }
}

fn cures(sequences: &[SequenceBehind]) -> String {
    sequences.iter().map(SequenceBehind::cure).collect::<Vec<_>>().join("; ")
}

impl Problem {
    /// Whether only a person can solve it. The others may pass: a server waits for that.
    pub fn needs_person(&self) -> bool {
        match self {
            Self::Standby | Self::ReadOnly | Self::Timeout => false,
            // The schema and the sequences are repaired while the server runs.
            Self::Schema(_) | Self::Sequences(_) => false,
            Self::Version(_)
            | Self::Encoding(_)
            | Self::Privileges(_)
            | Self::Pending(_)
            | Self::Session(_) => true,
            Self::Connect { source: error, .. } => is_refused(error) || is_persistent(error),
            Self::Database(error) => is_persistent(error),
            Self::Migrate(error) => match error {
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                    is_persistent(error)
                }
                _ => true,
            },
        }
    }
}

/// Whether PostgreSQL refuses the role, or TLS fails.
fn is_refused(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(error, sqlx::Error::Tls(_)) || code.is_some_and(|code| code.starts_with("28"))
}

fn is_persistent(error: &sqlx::Error) -> bool {
    matches!(classify(error), ErrorClass::NeedsAttention | ErrorClass::Bug)
}

/// What a connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Requests.
    Serve,
    /// `app` and `grant`.
    Manage,
    /// `import`.
    Import,
    /// `check`, which only reads.
    Check,
    /// `migrate`.
    Migrate,
}

/// Connects to a database, and fails unless it is one that can be used for this purpose.
///
/// Statements of requests, and those of `app` and `grant`, can be run on the connection. The other
/// commands begin transactions with [`session::begin`](crate::db::session::begin).
pub async fn connect(database: &Database, purpose: Purpose) -> Result<PgConnection, Problem> {
    let mut conn = open(database).await?;
    require_usable(&mut conn, database, purpose).await?;
    if purpose != Purpose::Migrate {
        let Applied { pending, .. } = schema::find_applied(&mut conn).await?;
        require_privileges(&mut conn, purpose).await?;
        if pending > 0 {
            return Err(Problem::Pending(pending));
        }
    }
    Ok(conn)
}

async fn open(database: &Database) -> Result<PgConnection, Problem> {
    let options = &database.options;
    let timed_out = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
    let opened = timeout(CONNECT_TIMEOUT, options.connect()).await.unwrap_or_else(timed_out);
    opened.map_err(|source| {
        let socket = options.get_socket().map(|directory| directory.display().to_string());
        let host = socket.unwrap_or_else(|| options.get_host().to_owned());
        Problem::Connect { host, port: options.get_port(), source }
    })
}

/// Checks the server, the database and the pooler before it.
async fn require_usable(
    conn: &mut PgConnection, database: &Database, purpose: Purpose,
) -> Result<(), Problem> {
    database.detect_pooling(conn).await?;
    let server = server::find(conn).await?;
    require_kind(&server)?;
    if purpose != Purpose::Check {
        require_writable(&server)?;
    }
    if matches!(purpose, Purpose::Serve | Purpose::Manage) {
        database.prepare(conn).await?;
    }
    Ok(())
}

fn require_kind(server: &Server) -> Result<(), Problem> {
    if server.is_too_old() {
        return Err(Problem::Version(server.version.clone()));
    }
    if server.encoding != "UTF8" {
        return Err(Problem::Encoding(server.encoding.clone()));
    }
    Ok(())
}

fn require_writable(server: &Server) -> Result<(), Problem> {
    match server {
        Server { is_standby: true, .. } => Err(Problem::Standby),
        Server { is_read_only: true, .. } => Err(Problem::ReadOnly),
        _ => Ok(()),
    }
}

/// Checks all privileges that the purpose takes, apart from those of migrations.
async fn require_privileges(conn: &mut PgConnection, purpose: Purpose) -> Result<(), Problem> {
    let is_import = purpose == Purpose::Import;
    let mut missing = server::missing_database_privileges(conn, false, is_import).await?;
    let (tables, sequences) = match purpose {
        Purpose::Check => ("SELECT", "SELECT"),
        Purpose::Import => ("SELECT,INSERT,UPDATE,DELETE", "USAGE,UPDATE"),
        _ => ("SELECT,INSERT,UPDATE,DELETE", "USAGE"),
    };
    missing.extend(server::missing_schema_privileges(conn, "USAGE", tables, sequences).await?);
    if missing.is_empty() { Ok(()) } else { Err(Problem::Privileges(missing)) }
}

/// Applies the pending migrations and returns their number. Concurrent calls wait for each other.
///
/// `lock_timeout` is PostgreSQL's setting: a number with a unit, or 0 for no limit.
pub async fn migrate(conn: &mut PgConnection, lock_timeout: &str) -> Result<usize, Problem> {
    let Applied { pending, has_schema, .. } = schema::find_applied(conn).await?;
    let mut missing = server::missing_database_privileges(conn, !has_schema, false).await?;
    if has_schema {
        let on_schema = if pending > 0 { "USAGE,CREATE" } else { "USAGE" };
        missing.extend(server::missing_schema_privileges(conn, on_schema, "", "").await?);
    }
    if !missing.is_empty() {
        return Err(Problem::Privileges(missing));
    }
    Ok(schema::migrate(conn, lock_timeout).await?)
}

/// Makes what the server relies on the default settings of the role in this database.
pub async fn set_role_defaults(conn: &mut PgConnection) -> Result<(), Problem> {
    Ok(session::set_role_defaults(conn).await?)
}

/// What the server knows of its database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Why the server is not ready.
    pub problem: Option<String>,
    /// That acknowledged associations can be lost, unless that is accepted.
    pub warning: Option<String>,
}

/// Inspects the database of a server.
pub struct Monitor {
    database: Database,
    pool: Pool,
    migrates: bool,
    accepts_data_loss: bool,
    /// Whether the database was once reachable, writable and migrated.
    is_prepared: bool,
    state: watch::Sender<State>,
}

impl Monitor {
    /// A monitor of the database from which the pool has its connections. `migrates`: it applies
    /// pending migrations. `accepts_data_loss`: it does not warn of weak durability.
    pub fn new(database: Database, pool: Pool, migrates: bool, accepts_data_loss: bool) -> Self {
        let state = watch::Sender::default();
        Self { database, pool, migrates, accepts_data_loss, is_prepared: false, state }
    }

    /// Receives what was found last.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Prepares the database when the server starts. Fails if only a person can solve the problem.
    pub async fn start(&mut self) -> Result<(), Problem> {
        match self.prepare().await {
            Err(problem) if problem.needs_person() => return Err(problem),
            Err(problem) => self.publish(Err(problem)),
            Ok(()) => self.inspect().await,
        }
        Ok(())
    }

    /// Inspects the database again and again. Never returns.
    pub async fn run(mut self, interval: Duration, retry_interval: Duration) {
        loop {
            let has_problem = self.state.borrow().problem.is_some();
            sleep(if has_problem { retry_interval } else { interval }).await;
            if self.is_prepared {
                self.inspect().await;
            } else if let Err(problem) = self.prepare().await {
                self.publish(Err(problem));
            } else {
                self.inspect().await;
            }
        }
    }

    /// Connects, migrates, and checks what does not change while the server runs.
    async fn prepare(&mut self) -> Result<(), Problem> {
        let mut conn = open(&self.database).await?;
        require_usable(&mut conn, &self.database, Purpose::Serve).await?;
        let Applied { pending, .. } = schema::find_applied(&mut conn).await?;
        if pending > 0 && !self.migrates {
            return Err(Problem::Pending(pending));
        }
        if self.migrates {
            migrate(&mut conn, "0").await?;
        }
        require_privileges(&mut conn, Purpose::Serve).await?;
        self.is_prepared = true;
        Ok(())
    }

    async fn inspect(&mut self) {
        let mut conn = match self.pool.acquire().await {
            Ok(conn) => conn,
            // All connections are in use, so the database can be reached.
            Err(sqlx::Error::PoolTimedOut) => return,
            Err(error) => return self.publish(Err(error.into())),
        };
        let inspected = timeout(INSPECTION_TIMEOUT, inspect(&mut conn)).await;
        let inspected = inspected.unwrap_or(Err(Problem::Timeout));
        // A connection to an unready database is closed: a new one may lead to another server.
        if inspected.is_ok() {
            conn.release();
        }
        self.publish(inspected);
    }

    /// Publishes what was found, and logs it if it is new.
    fn publish(&self, found: Result<Vec<String>, Problem>) {
        let before = self.state.borrow().clone();
        let mut state = before.clone();
        match found {
            Ok(weak_durability) => {
                let is_durable = weak_durability.is_empty();
                gauge!("cmdb_database_durable").set(u32::from(is_durable));
                let settings = weak_durability.join(", ");
                let warning = format!("a crash can lose acknowledged associations: {settings}");
                let is_warning = !is_durable && !self.accepts_data_loss;
                state = State { problem: None, warning: is_warning.then_some(warning) };
            }
            Err(problem) => state.problem = Some(error_chain(&problem)),
        }
        match &state.problem {
            Some(problem) if before.problem.as_ref() != Some(problem) => {
                warn!(problem, "the database is not ready");
            }
            None if before.problem.is_some() => info!("the database is ready"),
            _ => {}
        }
        if let Some(warning) = &state.warning
            && before.warning.as_ref() != Some(warning)
        {
            warn!("{warning}");
        }
        self.state.send_replace(state);
    }
}

/// Inspects what can change while a server runs. Returns the settings of weak durability.
async fn inspect(conn: &mut PgConnection) -> Result<Vec<String>, Problem> {
    let server = server::find(conn).await?;
    require_writable(&server)?;
    require_migrated(conn).await?;
    let behind = sequence::list_behind(conn).await?;
    if behind.is_empty() { Ok(server.weak_durability) } else { Err(Problem::Sequences(behind)) }
}

/// Checks that no migration is pending and that the schema is as they made it.
async fn require_migrated(conn: &mut PgConnection) -> Result<(), Problem> {
    let Applied { pending, has_newer, has_table, .. } = schema::find_applied(conn).await?;
    if pending > 0 && has_table {
        return Err(Problem::Pending(pending));
    }
    let differences = schema::find_differences(conn, has_newer).await?;
    if differences.is_empty() {
        return Ok(());
    }
    let descriptions = differences.into_iter().map(|difference| difference.description);
    Err(Problem::Schema(descriptions.collect()))
}

/// Returns why a server must get no requests now, or `None` if it can serve them. Asks what can
/// change from one second to the next; [`Monitor`] finds the rest.
///
/// Fails if the database cannot be reached or does not answer before `deadline`.
pub async fn find_problem(pool: &Pool, deadline: Instant) -> Result<Option<String>, Error> {
    let find = async |conn: &mut PgConnection| {
        let Applied { pending, has_table, .. } = schema::find_applied(conn).await?;
        if !has_table {
            return Ok(Some("the database has no tables of this program".to_owned()));
        }
        if pending > 0 {
            return Ok(Some("migrations are pending".to_owned()));
        }
        let server = server::find(conn).await?;
        Ok(require_writable(&server).err().map(|problem| problem.to_string()))
    };
    let mut conn = pool.acquire().await?;
    let problem = timeout_at(deadline, find(&mut conn)).await.unwrap_or(Err(Error::OutOfTime))?;
    // A connection to an unready database is closed: a new one may lead to another server.
    if problem.is_none() {
        conn.release();
    }
    Ok(problem)
}
