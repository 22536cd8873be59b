//! Checks that the stored data is sound.

use sqlx::{Connection, PgConnection};

pub use crate::db::check::Violations;
use crate::db::check::{INVARIANTS, UNAUDITED, find_violations};

/// The result of a check. Each invariant is given by its name.
pub struct Report {
    /// The invariants of sound data, and what violates them.
    pub invariants: Vec<(&'static str, Violations)>,
    /// Links without an audit record. They violate no invariant.
    pub unaudited: (&'static str, Violations),
}

impl Report {
    /// Whether all invariants hold.
    pub fn is_sound(&self) -> bool {
        self.invariants.iter().all(|(_, violations)| violations.count == 0)
    }
}

/// Checks the data in one snapshot.
pub async fn check(conn: &mut PgConnection) -> sqlx::Result<Report> {
    let mut tx = conn.begin_with("begin isolation level repeatable read read only").await?;
    let report = check_in_transaction(&mut tx).await?;
    tx.rollback().await?;
    Ok(report)
}

/// Checks the data that the current transaction sees.
pub async fn check_in_transaction(conn: &mut PgConnection) -> sqlx::Result<Report> {
    let mut invariants = Vec::new();
    for invariant in &INVARIANTS {
        invariants.push((invariant.name, find_violations(conn, invariant).await?));
    }
    let unaudited = (UNAUDITED.name, find_violations(conn, &UNAUDITED).await?);
    Ok(Report { invariants, unaudited })
}
