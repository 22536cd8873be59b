//! `check`.

use std::io::{self, Write};

use super::Answer;
use crate::service;
use crate::service::check::Findings;

pub(super) async fn check(strict: bool) -> anyhow::Result<Answer> {
    let mut conn = super::connect().await?;
    let report = service::check::check(&mut conn).await?;

    let mut out = io::stdout().lock();
    for (name, findings) in &report.invariants {
        print_findings(&mut out, "broken", name, findings)?;
    }
    let (name, written_past) = &report.written_past;
    print_findings(&mut out, "noted", name, written_past)?;
    let fine = report.is_sound() && !(strict && written_past.count > 0);
    Ok(if fine { Answer::Fine } else { Answer::No })
}

fn print_findings(
    out: &mut impl Write,
    word: &str,
    name: &str,
    found: &Findings,
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
