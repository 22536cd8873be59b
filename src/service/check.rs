//! Proving the stored data sound.

use sqlx::{Connection, PgConnection};

pub use crate::db::check::Violations;
use crate::db::check::{INVARIANTS, UNAUDITED, find};

/// What was looked at, and what was found.
pub struct Report {
    /// Each invariant with what breaks it.
    pub invariants: Vec<(&'static str, Violations)>,
    /// Links that were written past the server, which is no break by itself.
    pub unaudited: (&'static str, Violations),
}

impl Report {
    /// Whether all invariants hold.
    pub fn is_sound(&self) -> bool {
        self.invariants.iter().all(|(_, findings)| findings.count == 0)
    }
}

/// Looks at everything as of one moment.
pub async fn check(conn: &mut PgConnection) -> sqlx::Result<Report> {
    let mut tx = conn.begin_with("begin isolation level repeatable read read only").await?;
    let report = look(&mut tx).await?;
    tx.rollback().await?;
    Ok(report)
}

/// Looks at everything as the connection's transaction sees it.
pub async fn look(conn: &mut PgConnection) -> sqlx::Result<Report> {
    let mut invariants = Vec::new();
    for invariant in &INVARIANTS {
        invariants.push((invariant.name, find(conn, invariant).await?));
    }
    let unaudited = (UNAUDITED.name, find(conn, &UNAUDITED).await?);
    Ok(Report { invariants, unaudited })
}
