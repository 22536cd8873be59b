//! Whether the database is one that the program can use. `monitor` asks the same while it runs.

use std::io;
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::error::BoxDynError;
use sqlx::migrate::MigrateError;
use tokio::time::timeout;

use crate::db::schema::{self, Applied};
use crate::db::sequence::SequenceBehind;
use crate::db::server::{self, Server};
use crate::db::session;
pub use crate::db::session::Database;
use crate::db::{ErrorClass, classify, sqlstate, timed_out};

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection and all checks may take.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum Problem {
    #[error("cannot connect to the database at {hosts}")]
    Connect { hosts: String, source: sqlx::Error },
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
    #[error("the database has no tables of this program: run `cmdb-associations migrate` first")]
    NoTables,
    #[error("{0} migrations are pending: run `cmdb-associations migrate` first")]
    Pending(usize),
    #[error("the schema is not as the migrations made it: {}", .0.join("; "))]
    Schema(Vec<String>),
    #[error("sequences are behind the rows of their tables: run {}", repair_statements(.0))]
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

fn repair_statements(sequences: &[SequenceBehind]) -> String {
    let statements = sequences.iter().map(|sequence| format!("`{}`", sequence.repair_statement()));
    statements.collect::<Vec<_>>().join(", ")
}

impl Problem {
    /// Whether only a person can solve it. The others may pass: a server waits for that.
    pub fn needs_person(&self) -> bool {
        match self {
            // The schema and the sequences can be repaired while the server runs.
            Self::Standby
            | Self::ReadOnly
            | Self::Timeout
            | Self::Schema(_)
            | Self::Sequences(_) => false,
            Self::Version(_)
            | Self::Encoding(_)
            | Self::Privileges(_)
            | Self::NoTables
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

/// Whether PostgreSQL refuses the role, or its certificate is not valid.
fn is_refused(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        // rustls reports an invalid certificate so.
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => sqlstate(error).is_some_and(|code| code.starts_with("28")),
    }
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
    /// `audit purge`.
    Purge,
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
/// commands begin transactions with [`session::begin`].
pub async fn connect(database: &Database, purpose: Purpose) -> Result<PgConnection, Problem> {
    let connecting = async {
        let mut conn = open(database).await?;
        require_usable(&mut conn, database, purpose).await?;
        if purpose != Purpose::Migrate {
            require_applied(schema::find_applied(&mut conn).await?)?;
        }
        Ok(conn)
    };
    timeout(CHECK_TIMEOUT, connecting).await.unwrap_or(Err(Problem::Timeout))
}

/// Checks that no migration is pending, and that none was changed after it was applied.
pub(super) fn require_applied(applied: Applied) -> Result<(), Problem> {
    match applied {
        Applied { has_table: false, .. } => Err(Problem::NoTables),
        Applied { modified: Some(version), .. } => {
            Err(MigrateError::VersionMismatch(version).into())
        }
        Applied { pending: 0, .. } => Ok(()),
        Applied { pending, .. } => Err(Problem::Pending(pending)),
    }
}

pub(super) async fn open(database: &Database) -> Result<PgConnection, Problem> {
    let hosts = &database.hosts;
    let opened = timeout(CONNECT_TIMEOUT, hosts.connect()).await;
    opened
        .unwrap_or_else(|_| Err(timed_out()))
        .map_err(|source| Problem::Connect { hosts: hosts.to_string(), source })
}

/// Opens a connection with the settings of requests, without other checks.
pub(super) async fn connect_for_requests(database: &Database) -> Result<PgConnection, Problem> {
    let mut conn = open(database).await?;
    database.apply_request_settings(&mut conn).await?;
    Ok(conn)
}

/// Checks the server, the database, the pooler before it, and the role.
pub(super) async fn require_usable(
    conn: &mut PgConnection, database: &Database, purpose: Purpose,
) -> Result<(), Problem> {
    match purpose {
        Purpose::Serve | Purpose::Manage => database.apply_request_settings(conn).await?,
        _ => database.apply_command_settings(conn).await?,
    }
    let server = server::find(conn).await?;
    require_kind(&server)?;
    if purpose != Purpose::Check {
        require_writable(&server)?;
    }
    require_privileges(conn, purpose).await
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

pub(super) fn require_writable(server: &Server) -> Result<(), Problem> {
    match server {
        Server { is_standby: true, .. } => Err(Problem::Standby),
        Server { is_read_only: true, .. } => Err(Problem::ReadOnly),
        _ => Ok(()),
    }
}

/// Checks all privileges that the purpose takes on the schema as it is, if it exists.
pub(super) async fn require_privileges(
    conn: &mut PgConnection, purpose: Purpose,
) -> Result<(), Problem> {
    let is_import = purpose == Purpose::Import;
    let mut missing = server::missing_database_privileges(conn, false, is_import).await?;
    let (tables, sequences) = match purpose {
        Purpose::Migrate => ("", ""),
        Purpose::Check => ("SELECT", "SELECT"),
        Purpose::Import => ("SELECT,INSERT,UPDATE,DELETE", "SELECT,USAGE,UPDATE"),
        _ => ("SELECT,INSERT,UPDATE,DELETE", "SELECT,USAGE"),
    };
    missing.extend(server::missing_schema_privileges(conn, "USAGE", tables, sequences).await?);
    if missing.is_empty() { Ok(()) } else { Err(Problem::Privileges(missing)) }
}

/// Applies the pending migrations and returns their number. If there are any, concurrent calls wait
/// for each other.
///
/// `lock_timeout` is PostgreSQL's setting: a number with a unit, or 0 for no limit.
pub async fn migrate(conn: &mut PgConnection, lock_timeout: &str) -> Result<usize, Problem> {
    let applied = schema::find_applied(conn).await?;
    if applied.pending == 0 {
        require_applied(applied)?;
        return Ok(0);
    }
    let mut missing = server::missing_database_privileges(conn, !applied.has_schema, false).await?;
    missing.extend(server::missing_schema_privileges(conn, "CREATE", "", "").await?);
    if !missing.is_empty() {
        return Err(Problem::Privileges(missing));
    }
    Ok(schema::migrate(conn, lock_timeout).await?)
}

/// Makes what the server relies on the default settings of the role in this database.
pub async fn set_role_defaults(conn: &mut PgConnection) -> Result<(), Problem> {
    Ok(session::set_role_defaults(conn).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_an_older_version_or_another_encoding_is_refused() {
        let server = |version_number, encoding: &str| Server {
            version: "the version".to_owned(),
            version_number,
            encoding: encoding.to_owned(),
            is_standby: false,
            is_read_only: false,
            weak_durability: Vec::new(),
        };
        assert!(require_kind(&server(15_00_00, "UTF8")).is_ok());
        let error = require_kind(&server(14_00_19, "UTF8")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "PostgreSQL 15 or later is needed, but the server has version the version: upgrade it"
        );
        let error = require_kind(&server(17_00_02, "LATIN1")).unwrap_err();
        assert!(error.to_string().starts_with("the encoding of the database is LATIN1, not UTF8"));
    }
}
