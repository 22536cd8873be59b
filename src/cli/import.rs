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
use crate::service::import::{RejectedRow, Stats};

/// How many rejected rows are printed. The report has all of them.
const PRINTED_REJECTIONS: u64 = 100;

pub(super) async fn import(
    dir: &Path, report: Option<&Path>, if_empty: bool,
) -> anyhow::Result<Outcome> {
    let export = service::import::find_export(dir)?;
    let mut stderr = io::stderr();
    for name in &export.ignored {
        writeln!(stderr, "ignored: {name} is not a known collection")?;
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
    let mut rejected = 0_u64;
    let mut report_written = Ok(());
    let result = service::import::import(
        &mut conn,
        &export,
        |path| Ok(progress.wrap_read(File::open(path)?)),
        || progress.set_message("merging"),
        |file, RejectedRow { line, reason, .. }| {
            rejected += 1;
            if rejected <= PRINTED_REJECTIONS {
                progress.suspend(|| {
                    let _ = writeln!(io::stderr(), "rejected: {file}:{line}: {reason}");
                });
            }
            if let (Some(report), Ok(())) = (&mut report, &report_written) {
                let row = json!({"file": file, "line": line, "reason": reason});
                report_written = writeln!(report, "{row}");
            }
        },
    )
    .await;
    progress.finish_and_clear();
    let stats = result.context("nothing was imported")?;
    if rejected > PRINTED_REJECTIONS {
        let more = rejected - PRINTED_REJECTIONS;
        writeln!(stderr, "… and {more} more rejected rows; --report FILE writes all of them")?;
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
