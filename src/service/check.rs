//! Checks that the stored data is sound.

use sqlx::PgConnection;

pub use crate::db::check::Violations;
use crate::db::check::{INVARIANTS, UNAUDITED, find_violations};
use crate::db::sequence::SequenceBehind;
use crate::db::{index, schema, sequence, session};

/// What was checked, by its name, and what was found.
type Checked = (&'static str, Violations);

/// The result of a check.
pub struct Report {
    /// The invariants of sound data, and what violates them.
    pub invariants: Vec<Checked>,
    /// What can lead to violations.
    pub warnings: Vec<Checked>,
    /// Changes of links without an audit record: SQL clients made them, or the record was deleted.
    /// They are allowed.
    pub unaudited: Vec<Checked>,
    /// What could not be checked, and why.
    pub skipped: Vec<&'static str>,
}

impl Report {
    /// Whether all invariants hold, and if `strict`, no change is unaudited.
    pub fn is_sound(&self, strict: bool) -> bool {
        let unaudited = self.unaudited.iter().filter(|_| strict);
        self.invariants.iter().chain(unaudited).all(|(_, violations)| violations.count == 0)
    }
}

/// Checks the data in one snapshot.
pub async fn check(conn: &mut PgConnection) -> sqlx::Result<Report> {
    let begin = "begin isolation level repeatable read read only";
    let mut tx = session::begin(conn, begin).await?;
    let report = check_in_transaction(&mut tx).await?;
    tx.rollback().await?;
    Ok(report)
}

/// Checks the data that the current transaction sees.
pub async fn check_in_transaction(conn: &mut PgConnection) -> sqlx::Result<Report> {
    let has_newer = schema::find_applied(conn).await?.has_newer;
    let differences = schema::find_differences(conn, has_newer).await?;
    let is_readable = !differences.iter().any(|difference| difference.prevents_reading);
    let differences = differences.into_iter().map(|difference| difference.description);
    let differences = violations(differences.collect());
    let mut report = Report {
        invariants: vec![("the schema is as the migrations made it", differences)],
        warnings: Vec::new(),
        unaudited: Vec::new(),
        skipped: Vec::new(),
    };
    if !is_readable {
        report.skipped.push("the data: tables are missing or changed");
        return Ok(report);
    }
    let invariants = &mut report.invariants;
    for invariant in &INVARIANTS {
        invariants.push((invariant.name, find_violations(conn, invariant).await?));
    }
    let behind = sequence::list_behind(conn).await?.into_iter();
    let behind = behind.map(|behind: SequenceBehind| {
        format!("{}: run `{}`", behind.name, behind.repair_statement())
    });
    invariants.push(("no sequence is behind the rows of its table", violations(behind.collect())));
    let mismatches = index::find_key_mismatches(conn).await?;
    invariants.push(("every index has the keys of its table", violations(mismatches)));
    match index::find_corruption(conn).await? {
        Some(corruption) => {
            invariants.push(("amcheck finds no index corrupt", violations(corruption)));
        }
        None => report.skipped.push("amcheck: not installed, or not allowed for this role"),
    }
    let collations = index::find_changed_collations(conn).await?;
    report.warnings.push(("no index depends on a changed collation", violations(collations)));
    for invariant in &UNAUDITED {
        report.unaudited.push((invariant.name, find_violations(conn, invariant).await?));
    }
    Ok(report)
}

fn violations(descriptions: Vec<String>) -> Violations {
    let count = descriptions.len().try_into().unwrap_or(i64::MAX);
    Violations { count, examples: descriptions.into_iter().take(10).collect() }
}
