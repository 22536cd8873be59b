//! `check`.

use std::io::{self, Write};

use super::Outcome;
use crate::service;
use crate::service::check::Violations;

pub(super) async fn check(strict: bool) -> anyhow::Result<Outcome> {
    let mut conn = super::connect().await?;
    let report = service::check::check(&mut conn).await?;

    let mut out = io::stdout().lock();
    for (name, findings) in &report.invariants {
        print_findings(&mut out, "broken", name, findings)?;
    }
    let (name, unaudited) = &report.unaudited;
    print_findings(&mut out, "noted", name, unaudited)?;
    let fine = report.is_sound() && !(strict && unaudited.count > 0);
    Ok(if fine { Outcome::Success } else { Outcome::Negative })
}

fn print_findings(
    out: &mut impl Write,
    word: &str,
    name: &str,
    found: &Violations,
) -> io::Result<()> {
    if found.count == 0 {
        return writeln!(out, "ok      {name}");
    }
    let exceptions = if found.count == 1 { "exception" } else { "exceptions" };
    writeln!(out, "{word:7} {name}: {} {exceptions}", found.count)?;
    for example in &found.examples {
        writeln!(out, "        {example}")?;
    }
    Ok(())
}
