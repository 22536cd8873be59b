//! The SQL: free functions on a connection, one statement each, whatever the size of the batch.
//!
//! Knows the tables and the domain's types; knows no HTTP and begins no transaction.

pub mod app;
pub mod background;
pub mod check;
pub mod idempotency;
pub mod import;
pub mod instance_association;
pub mod permission;
pub mod pool;
pub mod schema;

use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

/// How long a statement of a request may take before Postgres itself gives it up.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a statement did not do what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// Somebody else's commit came first. Nothing was written; look again.
    Conflict,
    /// The database is away, busy, or out of something. Nothing is known to be wrong with the request.
    Unavailable,
    /// A bug of ours.
    Bug,
}

/// Tells what an error means for whoever asked.
pub fn classify(error: &sqlx::Error) -> ErrorClass {
    use sqlx::Error as E;
    match error {
        E::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) if is_lost_race(error) => ErrorClass::Conflict,
            Some(error) if is_unavailable(error.code()) => ErrorClass::Unavailable,
            Some(_) | None => ErrorClass::Bug,
        },
        E::Io(_)
        | E::Tls(_)
        | E::Protocol(_)
        | E::PoolTimedOut
        | E::PoolClosed
        | E::WorkerCrashed => ErrorClass::Unavailable,
        _ => ErrorClass::Bug,
    }
}

/// Two wrote at once and the other one was first. What the keys of links and of kept answers and the guard
/// stand for is looked at just before, so that they fail only then.
fn is_lost_race(error: &PgDatabaseError) -> bool {
    match error.code() {
        // serialization failure, deadlock
        "40001" | "40P01" => true,
        // unique, foreign key
        "23505" | "23503" => {
            matches!(error.table(), Some("instance_association" | "idempotency_record"))
        }
        _ => false,
    }
}

fn is_unavailable(code: &str) -> bool {
    match code {
        // statement timeout, lock timeout, a server that only reads
        "57014" | "55P03" | "25006" => true,
        // connection, authorization, resources, operator intervention, system error
        _ => ["08", "28", "53", "57", "58"].iter().any(|class| code.starts_with(class)),
    }
}

/// Whether the connection is as good as before. One to a database that only reads is not: another may take its place.
pub fn leaves_connection(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| !["08", "57P", "25006"].iter().any(|class| code.starts_with(class)))
}
