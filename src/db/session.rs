//! The settings of PostgreSQL that statements rely on, and the poolers between it and the program.
//!
//! A role or a database can have other defaults, so they are set for each connection, or for each
//! transaction, and read back: a pooler may drop them.

use std::sync::{Arc, OnceLock};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection, Postgres, Row, Transaction};
use uuid::Uuid;

use super::hosts::Hosts;
use super::{STATEMENT_TIMEOUT, sqlstate};

/// A setting, and the value that statements rely on.
type Setting = (&'static str, &'static str);

/// The settings of connections that requests use.
const REQUESTS: [Setting; 15] = settings("5s", "off", "force_generic_plan");

/// The settings of the transactions of commands, which take as long as they take.
const COMMANDS: [Setting; 15] = settings("0", "on", "auto");

const _: () = assert!(STATEMENT_TIMEOUT.as_secs() == 5, "REQUESTS repeats it");

const fn settings(
    statement_timeout: &'static str, reads_whole_tables: &'static str,
    plan_cache_mode: &'static str,
) -> [Setting; 15] {
    [
        ("statement_timeout", statement_timeout),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("idle_session_timeout", "0"),
        ("transaction_timeout", "0"),
        // Writes rely on a new snapshot for each statement; the migrations explain why.
        ("default_transaction_isolation", "read committed"),
        ("default_transaction_read_only", "off"),
        // Triggers must run.
        ("session_replication_role", "origin"),
        // An error instead of rows that a policy hides.
        ("row_security", "off"),
        // Statements name the schema of each table. No other schema can replace a function or type.
        ("search_path", "pg_catalog, pg_temp"),
        // Statements of requests are written so that their generic plans are good. PostgreSQL keeps
        // these until statistics or tables change.
        ("plan_cache_mode", plan_cache_mode),
        ("jit", "off"),
        // Requests read large tables by the order of an index, whatever the statistics say.
        ("enable_seqscan", reads_whole_tables),
        ("enable_bitmapscan", reads_whole_tables),
        // A search would take the processors from other requests.
        ("max_parallel_workers_per_gather", "0"),
    ]
}

/// The first setting in the start-up option `options` that the program sets itself.
pub fn is_set_by_program(options: &str) -> Option<&'static str> {
    let options = options.to_ascii_lowercase().replace('-', "_");
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut words = options.split(|character| !is_word(character)).map(|word| {
        // `-c name` and `--name`, but also `-cname`.
        let word = word.trim_start_matches('_');
        REQUESTS.iter().find(|(name, _)| word == *name || word.strip_prefix('c') == Some(name))
    });
    words.find_map(|setting| setting.map(|(name, _)| *name))
}

/// Why a connection cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum SessionError {
    #[error("settings cannot be changed: {}", values(.0))]
    NotSet(Vec<WrongSetting>),
    #[error(
        "the pooler assigns a connection for each transaction, so the server relies on the \
         defaults of its role, but {}: run `cmdb-associations migrate --set-role-defaults`, or {}, \
         and let the pooler connect anew (pgbouncer: RECONNECT)",
        values(.0), statements(.0)
    )]
    WrongDefaults(Vec<WrongSetting>),
    #[error(
        "the pooler assigns a connection for each transaction and does not keep prepared \
         statements: use pool_mode = session, or pgbouncer 1.21 or later with \
         max_prepared_statements"
    )]
    NoPreparedStatements,
}

impl From<SessionError> for sqlx::Error {
    fn from(error: SessionError) -> Self {
        Self::Configuration(error.into())
    }
}

/// A setting that has another value than expected.
#[derive(Debug, FromRow)]
pub struct WrongSetting {
    name: String,
    value: String,
    expected: String,
    /// The statement that makes the expected value the default of the role.
    statement: String,
}

fn values(settings: &[WrongSetting]) -> String {
    let describe = |WrongSetting { name, value, expected, .. }: &WrongSetting| {
        format!("{name} is {value:?}, not {expected:?}")
    };
    settings.iter().map(describe).collect::<Vec<_>>().join(", ")
}

fn statements(settings: &[WrongSetting]) -> String {
    let statements = settings.iter().map(|setting| format!("`{}`", setting.statement));
    statements.collect::<Vec<_>>().join(", ")
}

/// How connections to PostgreSQL are assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pooling {
    /// A connection has the same PostgreSQL backend until it is closed.
    Session,
    /// A pooler assigns a backend for each transaction. What is set for a session is lost.
    Transaction,
}

/// A database, and how connections to it are assigned.
#[derive(Clone)]
pub struct Database {
    /// How to connect.
    pub hosts: Hosts,
    /// Unknown until the first connection is open.
    pooling: Arc<OnceLock<Pooling>>,
}

/// A database without a pooler in transaction mode.
impl From<PgConnectOptions> for Database {
    fn from(options: PgConnectOptions) -> Self {
        Self { hosts: options.into(), pooling: Arc::new(Pooling::Session.into()) }
    }
}

impl Database {
    /// A database that may be behind a pooler.
    pub fn new(hosts: Hosts) -> Self {
        Self { hosts, pooling: Arc::default() }
    }

    /// Applies the settings of requests to a new connection. Fails unless it has them then.
    pub async fn apply_request_settings(&self, conn: &mut PgConnection) -> sqlx::Result<()> {
        let pooling = self.pooling(conn).await?;
        if pooling == Pooling::Session {
            set(conn, &REQUESTS, false).await?;
        }
        let wrong = find_wrong_settings(conn, &REQUESTS).await?;
        match pooling {
            _ if wrong.is_empty() => Ok(()),
            Pooling::Session => Err(SessionError::NotSet(wrong).into()),
            Pooling::Transaction => Err(SessionError::WrongDefaults(wrong).into()),
        }
    }

    /// Applies the settings of commands to a new connection, for the statements that are not in
    /// their transactions. A pooler in transaction mode has no sessions; there, these statements
    /// have the defaults of the role.
    pub async fn apply_command_settings(&self, conn: &mut PgConnection) -> sqlx::Result<()> {
        match self.pooling(conn).await? {
            Pooling::Session => set(conn, &COMMANDS, false).await,
            Pooling::Transaction => Ok(()),
        }
    }

    /// How connections are assigned. The first call finds out, with a second connection.
    async fn pooling(&self, conn: &mut PgConnection) -> sqlx::Result<Pooling> {
        if let Some(pooling) = self.pooling.get() {
            return Ok(*pooling);
        }
        let pooling = detect_pooling(conn, &self.hosts).await?;
        Ok(*self.pooling.get_or_init(|| pooling))
    }
}

/// Finds out how connections are assigned: in a pooler's transaction mode, this connection gets
/// another backend while another connection's transaction uses the one that it had.
async fn detect_pooling(conn: &mut PgConnection, hosts: &Hosts) -> sqlx::Result<Pooling> {
    let id = Uuid::new_v4().simple().to_string();
    let first = backend_pid(conn, &id).await?;
    let mut other = hosts.connect().await?;
    let mut pooling = Pooling::Session;
    // A pooler that assigns its connections in turn is found out after a few transactions.
    for _ in 0..3 {
        let mut tx = other.begin().await?;
        let held: i32 = sqlx::raw_sql(BACKEND_PID).fetch_one(&mut *tx).await?.try_get(0)?;
        let is_held = held == first;
        if backend_pid(conn, &id).await? != first || is_held {
            pooling = Pooling::Transaction;
        }
        tx.rollback().await?;
    }
    other.close().await?;
    Ok(pooling)
}

const BACKEND_PID: &str = "select pg_catalog.pg_backend_pid()";

/// The process id of the connection's backend, found with a prepared statement that contains `id`.
/// A backend may have a statement of the same name that another client has left there.
async fn backend_pid(conn: &mut PgConnection, id: &str) -> sqlx::Result<i32> {
    let sql = AssertSqlSafe(format!("{BACKEND_PID} || ' {id}'"));
    let found: sqlx::Result<String> = sqlx::query_scalar(sql).fetch_one(conn).await;
    let is_lost = match &found {
        Ok(text) => !text.ends_with(id),
        Err(sqlx::Error::ColumnDecode { .. }) => true,
        // invalid_sql_statement_name, duplicate_prepared_statement
        Err(error) => matches!(sqlstate(error).as_deref(), Some("26000" | "42P05")),
    };
    if is_lost {
        return Err(SessionError::NoPreparedStatements.into());
    }
    let text = found?;
    let (pid, _) = text.split_once(' ').unwrap_or_default();
    pid.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Begins a transaction of a command with the statement `begin`. Fails unless it has the settings
/// that commands rely on.
pub async fn begin<'a>(
    conn: &'a mut PgConnection, begin: &'static str,
) -> sqlx::Result<Transaction<'a, Postgres>> {
    let mut tx = conn.begin_with(begin).await?;
    set(&mut tx, &COMMANDS, true).await?;
    let wrong = find_wrong_settings(&mut tx, &COMMANDS).await?;
    if wrong.is_empty() { Ok(tx) } else { Err(SessionError::NotSet(wrong).into()) }
}

/// Makes the settings that requests rely on defaults of the current role in this database.
pub async fn set_role_defaults(conn: &mut PgConnection) -> sqlx::Result<()> {
    // Only a superuser may set session_replication_role. PostgreSQL's default is what is needed.
    // A default of the role for default_transaction_read_only would override that of a server or a
    // database, so only one that exists is changed.
    let sql = format!(
        "select {STATEMENT} from {} join pg_catalog.pg_settings using (name)
         where name <> 'session_replication_role'
             and (name <> 'default_transaction_read_only' or exists (
                 select from pg_catalog.pg_db_role_setting, pg_catalog.unnest(setconfig) setting
                 where setrole = current_user::regrole
                     and setting like 'default_transaction_read_only=%'))",
        table_of(&REQUESTS)
    );
    for row in sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *conn).await? {
        let statement: String = row.try_get(0)?;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *conn).await?;
    }
    Ok(())
}

/// The settings as a table of SQL.
fn table_of(settings: &[Setting]) -> String {
    let row = |(name, value): &Setting| format!("('{name}', '{value}')");
    format!(
        "(values {}) wanted (name, value)",
        settings.iter().map(row).collect::<Vec<_>>().join(", ")
    )
}

/// The statement for a row of the table. The value is a literal. Quoted as one literal, the list of
/// `search_path` would be one name.
const STATEMENT: &str = "
    pg_catalog.format('alter role %I in database %I set %s = %s',
        current_user, pg_catalog.current_database(), name,
        case when name = 'search_path' then value else pg_catalog.quote_literal(value) end)";

/// Whether a row of the table has another value in this session. A setting that this version of
/// PostgreSQL does not have is skipped. A server or a database that is configured to be read-only
/// stays so; the default of a role is changed.
const DIFFERS: &str = "
    pg_catalog.current_setting(name, true) <> value
    and not (name = 'default_transaction_read_only' and exists (
        select from pg_catalog.pg_settings
        where pg_settings.name = 'default_transaction_read_only'
            and source in ('configuration file', 'command line', 'database')))";

async fn set(conn: &mut PgConnection, settings: &[Setting], is_local: bool) -> sqlx::Result<()> {
    let sql = format!(
        "select pg_catalog.set_config(name, value, {is_local}) from {} where {DIFFERS}",
        table_of(settings)
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.map(drop)
}

async fn find_wrong_settings(
    conn: &mut PgConnection, settings: &[Setting],
) -> sqlx::Result<Vec<WrongSetting>> {
    let sql = format!(
        "select name, pg_catalog.current_setting(name) as value, value as expected,
             {STATEMENT} as statement
         from {} where {DIFFERS}",
        table_of(settings)
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(conn).await?;
    rows.iter().map(WrongSetting::from_row).collect()
}
