//! The SQL: free functions on a connection, one statement each, whatever the size of the batch.
//!
//! Knows the tables and the domain's types; knows no HTTP and begins no transaction.

pub mod app;
pub mod check;
pub mod import;
pub mod instance_association;
pub mod model_association;
pub mod schema;

use sqlx::postgres::PgDatabaseError;

/// Why a statement did not do what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Somebody else's commit came first. Nothing was written; look again.
    LostRace,
    /// The database is away, busy, or out of something. Nothing is known to be wrong with the request.
    Unavailable,
    /// A bug of ours.
    Bug,
}

/// Tells what an error means for whoever asked.
pub fn trouble(error: &sqlx::Error) -> Trouble {
    use sqlx::Error as E;
    match error {
        E::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => sqlstate_trouble(error.code()),
            None => Trouble::Bug,
        },
        E::Io(_)
        | E::Tls(_)
        | E::Protocol(_)
        | E::PoolTimedOut
        | E::PoolClosed
        | E::WorkerCrashed => Trouble::Unavailable,
        _ => Trouble::Bug,
    }
}

fn sqlstate_trouble(code: &str) -> Trouble {
    match code {
        // foreign key, unique, serialization failure, deadlock
        "23503" | "23505" | "40001" | "40P01" => Trouble::LostRace,
        // statement timeout, lock timeout, and a server that only reads (a standby)
        "57014" | "55P03" | "25006" => Trouble::Unavailable,
        // connection, authorization, resources, operator intervention, system error
        code if ["08", "28", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
            Trouble::Unavailable
        }
        _ => Trouble::Bug,
    }
}
