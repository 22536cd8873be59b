//! The command `check`.

use std::io::{self, Write};

use super::Outcome;
use crate::service;
use crate::service::check::Violations;
use crate::service::database::Purpose;

pub(super) async fn check(strict: bool) -> anyhow::Result<Outcome> {
    let mut conn = super::connect(Purpose::Check).await?;
    let report = service::check::check(&mut conn).await?;

    let mut out = io::stdout().lock();
    for (name, violations) in &report.invariants {
        print_violations(&mut out, "broken", name, violations)?;
    }
    for (name, violations) in &report.warnings {
        print_violations(&mut out, "warning", name, violations)?;
    }
    for skipped in &report.skipped {
        writeln!(out, "skipped {skipped}")?;
    }
    for (name, violations) in &report.unaudited {
        print_violations(&mut out, "noted", name, violations)?;
    }
    Ok(if report.is_sound(strict) { Outcome::Success } else { Outcome::Negative })
}

/// Prints `ok` or `label` with the name of an invariant, and a line for each example.
fn print_violations(
    out: &mut impl Write, label: &str, name: &str, violations: &Violations,
) -> io::Result<()> {
    if violations.count == 0 {
        return writeln!(out, "ok      {name}");
    }
    let exceptions = if violations.count == 1 { "exception" } else { "exceptions" };
    writeln!(out, "{label:7} {name}: {} {exceptions}", violations.count)?;
    for example in &violations.examples {
        writeln!(out, "        {example}")?;
    }
    Ok(())
}
