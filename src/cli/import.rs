//! The command `import`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::Outcome;
use crate::service;
use crate::service::database::Purpose;
use crate::service::import::{ReportedRow, Stats};

/// How many rejected rows are printed, and how many warnings. The report has all of them.
const PRINTED_ROWS: u64 = 100;

pub(super) async fn import(
    dir: &Path, report: Option<&Path>, if_empty: bool,
) -> anyhow::Result<Outcome> {
    let export = service::import::find_export(dir)?;
    let mut stderr = io::stderr();
    for file in &export.ignored {
        writeln!(stderr, "ignored: {file}")?;
    }
    let create = |path: &Path| {
        File::create(path).with_context(|| format!("cannot write {}", path.display()))
    };
    let mut report = report.map(create).transpose()?.map(BufWriter::new);

    let mut conn = super::connect(Purpose::Import).await?;
    if if_empty && !service::import::is_empty(&mut conn).await? {
        writeln!(stderr, "nothing was imported: the database is not empty")?;
        return Ok(Outcome::Negative);
    }
    let progress = ProgressBar::new(export.bytes).with_style(ProgressStyle::with_template(
        "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {elapsed} {msg}",
    )?);
    progress.enable_steady_tick(Duration::from_millis(200));
    let (mut rejected, mut warnings) = (0_u64, 0_u64);
    let mut report_written = Ok(());
    let result = service::import::import(
        &mut conn,
        &export,
        |path| Ok(progress.wrap_read(File::open(path)?)),
        || progress.set_message("merging"),
        |file, ReportedRow { line, reason, is_rejected, .. }| {
            let (kind, count) =
                if *is_rejected { ("rejected", &mut rejected) } else { ("warning", &mut warnings) };
            *count += 1;
            if *count <= PRINTED_ROWS {
                progress.suspend(|| {
                    let _ = writeln!(io::stderr(), "{kind}: {file}:{line}: {reason}");
                });
            }
            if let (Some(report), Ok(())) = (&mut report, &report_written) {
                let row = json!({"kind": kind, "file": file, "line": line, "reason": reason});
                report_written = writeln!(report, "{row}");
            }
        },
    )
    .await;
    progress.finish_and_clear();
    let stats = result.context("nothing was imported")?;
    for (count, what) in [(rejected, "rejected rows"), (warnings, "warnings")] {
        if count > PRINTED_ROWS {
            let more = count - PRINTED_ROWS;
            writeln!(stderr, "… and {more} more {what}; --report FILE writes all of them")?;
        }
    }
    report_written
        .and_then(|()| report.map_or(Ok(()), |mut report| report.flush()))
        .context("cannot write the report")?;
    print_stats(&stats)?;
    Ok(Outcome::Success)
}

fn print_stats(files: &[Stats]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let width = files.iter().map(|stats| stats.file.chars().count()).max().unwrap_or(0).max(5);
    writeln!(
        out,
        "{:width$} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "file", "read", "added", "updated", "unchanged", "rejected"
    )?;
    let mut total = Stats { file: "total".to_owned(), ..Stats::default() };
    for stats in files {
        total.read += stats.read;
        total.added += stats.added;
        total.updated += stats.updated;
        total.rejected += stats.rejected;
    }
    for stats in files.iter().chain([&total]) {
        let Stats { file, read, added, updated, rejected } = stats;
        let unchanged = stats.unchanged();
        writeln!(
            out,
            "{file:width$} {read:>9} {added:>9} {updated:>9} {unchanged:>9} {rejected:>9}"
        )?;
    }
    out.flush()
}
