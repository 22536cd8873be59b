//! `import`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};

use super::Outcome;
use crate::service;
use crate::service::import::{Error as ImportError, Omission, Progress, Stats};

pub(super) async fn import(
    dir: &Path,
    report: Option<&Path>,
    if_empty: bool,
) -> anyhow::Result<Outcome> {
    let export = service::import::find_export(dir)?;
    let mut words = io::stderr();
    for name in &export.ignored {
        writeln!(words, "ignored: {name} is not a collection that is imported")?;
    }
    let create = |path: &Path| {
        File::create(path).with_context(|| format!("cannot write {}", path.display()))
    };
    let mut report = report.map(create).transpose()?.map(BufWriter::new);

    let mut conn = super::connect().await?;
    let progress = ProgressBar::new(export.bytes).with_style(ProgressStyle::with_template(
        "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {elapsed} {msg}",
    )?);
    progress.enable_steady_tick(Duration::from_millis(200));
    let mut left_out = 0_u64;
    let mut written = Ok(());
    let result = service::import::import(
        &mut conn,
        &export,
        if_empty,
        |event| match event {
            Progress::Read(bytes) => progress.inc(bytes),
            Progress::Merging => progress.set_message("read, merging"),
        },
        |omission| {
            left_out += 1;
            if left_out <= OMISSIONS_IN_WORDS {
                let Omission { file, line, reason } = omission;
                progress.suspend(|| {
                    let _ = writeln!(io::stderr(), "left out: {file}:{line}: {reason}");
                });
            }
            if let (Some(report), Ok(())) = (&mut report, &written) {
                written = write_omission(report, &omission);
            }
        },
    )
    .await;
    progress.finish_and_clear();
    let tallies = match result {
        Ok(tallies) => tallies,
        Err(ImportError::NotEmpty) => {
            writeln!(words, "nothing was imported: {}", ImportError::NotEmpty)?;
            return Ok(Outcome::Negative);
        }
        Err(error) => return Err(anyhow!(error).context("nothing was imported")),
    };
    if left_out > OMISSIONS_IN_WORDS {
        let more = left_out - OMISSIONS_IN_WORDS;
        writeln!(words, "… and {more} more rows left out; --report FILE has all of them")?;
    }
    written
        .and_then(|()| report.map_or(Ok(()), |mut report| report.flush()))
        .context("the report")?;
    print_tallies(&tallies)?;
    Ok(Outcome::Success)
}

/// How many of the rows that were left out are told in words; the report has all.
const OMISSIONS_IN_WORDS: u64 = 100;

fn write_omission(report: &mut impl Write, omission: &Omission<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *report, omission)?;
    writeln!(report)
}

fn print_tallies(tallies: &[Stats]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let width = tallies.iter().map(|tally| tally.file.chars().count()).max().unwrap_or(0).max(5);
    writeln!(
        out,
        "{:width$} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "file", "read", "added", "updated", "same", "left out"
    )?;
    let mut total = Stats { file: "total".to_owned(), ..Stats::default() };
    for tally in tallies {
        total.read += tally.read;
        total.added += tally.added;
        total.updated += tally.updated;
        total.left_out += tally.left_out;
    }
    for tally in tallies.iter().chain([&total]) {
        let Stats { file, read, added, updated, left_out } = tally;
        let same = tally.same();
        writeln!(out, "{file:width$} {read:>9} {added:>9} {updated:>9} {same:>9} {left_out:>9}")?;
    }
    out.flush()
}
