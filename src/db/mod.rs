//! The SQL: functions on a connection. On a request's path each is one statement, however large the
//! batch; commands may run several.
//!
//! Knows the tables and the types of `domain`; knows no HTTP. The transactions of requests are
//! single statements, and `session::begin` begins those of commands.

pub mod app;
pub mod association_kind;
pub mod audit_log;
pub mod cache_version;
pub mod check;
pub mod commit;
pub mod condition;
pub mod creation;
pub mod deletion;
mod document_condition;
pub mod hosts;
pub mod idempotency;
pub mod import;
pub mod index;
pub mod instance;
pub mod instance_association;
pub mod instance_change;
pub mod instance_list;
pub mod instance_name;
pub mod instance_search;
pub mod link_search;
pub mod linked_instance;
pub mod model;
pub mod model_association;
pub mod model_association_change;
pub mod permission;
pub mod pool;
pub mod schema;
pub mod sequence;
pub mod server;
pub mod session;
pub mod tenant;
pub mod topology;

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

/// The `statement_timeout` of the server's connections.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a failed statement means for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// It conflicted with another transaction. Nothing was written; the request can be run again.
    Conflict,
    /// The database is unreachable, too slow or out of a resource.
    Unavailable,
    /// The database is not as the program needs it, and a person must repair it.
    NeedsAttention,
    /// A bug of this server.
    Bug,
}

/// The error of a database that does not answer in time.
pub fn timed_out() -> sqlx::Error {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// The SQLSTATE of an error of PostgreSQL.
pub fn sqlstate(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(DatabaseError::code)
}

/// Whether the statement took longer than the statement timeout, or is too complex for PostgreSQL.
pub fn is_too_expensive(error: &sqlx::Error) -> bool {
    // query_canceled, invalid_regular_expression; class: program limit exceeded
    sqlstate(error)
        .is_some_and(|code| ["57014", "2201B"].contains(&&*code) || code.starts_with("54"))
}

/// Classifies an error by its SQLSTATE.
pub fn classify(error: &sqlx::Error) -> ErrorClass {
    use sqlx::Error as E;
    match error {
        E::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) if is_conflict(error) => ErrorClass::Conflict,
            Some(error) if is_unavailable(error.code()) || is_outdated(error) => {
                ErrorClass::Unavailable
            }
            Some(error) if needs_attention(error) => ErrorClass::NeedsAttention,
            Some(_) | None => ErrorClass::Bug,
        },
        E::Io(_)
        | E::Tls(_)
        | E::Protocol(_)
        | E::PoolTimedOut
        | E::PoolClosed
        | E::WorkerCrashed => ErrorClass::Unavailable,
        // A pooler or a role whose settings are not those that the program relies on.
        E::Configuration(_) => ErrorClass::NeedsAttention,
        _ => ErrorClass::Bug,
    }
}

/// Whether other transactions caused the error: a deadlock, or a key of these tables that was free,
/// or a row that existed, when the request looked it up.
fn is_conflict(error: &PgDatabaseError) -> bool {
    match error.code() {
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => true,
        // unique_violation, foreign_key_violation
        "23505" | "23503" => {
            matches!(
                error.table(),
                Some(
                    "instance"
                        | "instance_document"
                        | "instance_association"
                        | "idempotency_record"
                        | "model"
                        | "association_kind"
                        | "model_association"
                )
            ) && !is_assigned_id(error)
        }
        _ => false,
    }
}

/// Whether a sequence has assigned an id that exists. SQL clients assign ids of instances, too:
/// when such a transaction has ended, the sequence is past them.
fn is_assigned_id(error: &PgDatabaseError) -> bool {
    error.code() == "23505"
        && !["idempotency_record", "instance", "instance_document"]
            .contains(&error.table().unwrap_or_default())
        && error
            .constraint()
            .is_some_and(|name| name.ends_with("_pkey") || name.ends_with("_number_key"))
}

/// Whether the result types of a prepared statement have changed since it was prepared.
fn is_outdated(error: &PgDatabaseError) -> bool {
    error.code() == "0A000" && error.routine() == Some("RevalidateCachedQuery")
}

/// Whether tables, functions, privileges or sequences are not as the program needs them.
fn needs_attention(error: &PgDatabaseError) -> bool {
    match error.code() {
        // invalid_schema_name, undefined_table, undefined_column, undefined_function,
        // insufficient_privilege, invalid_catalog_name, sequence_generator_limit_exceeded,
        // data_corrupted, index_corrupted; invalid_sql_statement_name,
        // duplicate_prepared_statement: a pooler loses prepared statements
        "3F000" | "42P01" | "42703" | "42883" | "42501" | "3D000" | "2200H" | "XX001" | "XX002"
        | "26000" | "42P05" => true,
        _ => is_assigned_id(error),
    }
}

fn is_unavailable(code: &str) -> bool {
    match code {
        // query_canceled, lock_not_available, read_only_sql_transaction
        "57014" | "55P03" | "25006" => true,
        // classes: connection exception, invalid authorization, insufficient resources, operator
        // intervention, system error
        _ => ["08", "28", "53", "57", "58"].iter().any(|class| code.starts_with(class)),
    }
}

/// Whether the connection can be used again after this error. A connection to a read-only database
/// is not: a new one may lead to the primary. Nor is one whose prepared statements are outdated or
/// lost.
pub fn is_connection_usable_after(error: &sqlx::Error) -> bool {
    sqlstate(error).is_some_and(|code| {
        !["08", "57P", "25006", "0A000", "26000", "42P05"]
            .iter()
            .any(|class| code.starts_with(class))
    })
}
