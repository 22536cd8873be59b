//! The command `import`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde_json::json;

use super::Outcome;
use crate::service;
use crate::service::database::Purpose;
use crate::service::import::{ReportedRow, Stats};

/// How long merging takes, as a multiple of the time for reading the files: if all rows are new,
/// and if most are stored already. Both were measured by `make bench-import`.
const MERGING_NEW: f64 = 4.0;
const MERGING_AGAIN: f64 = 1.0;

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
    let is_new = service::import::has_no_instance(&mut conn).await?;
    let merging = if is_new { MERGING_NEW } else { MERGING_AGAIN };
    let read_after = Arc::new(OnceLock::new());
    let progress = progress_bar(export.bytes, merging, Arc::clone(&read_after))?;
    let (mut rejected, mut warnings) = (0_u64, 0_u64);
    let mut report_written = Ok(());
    let result = service::import::import(
        &mut conn,
        &export,
        |path| Ok(progress.wrap_read(File::open(path)?)),
        || {
            read_after.get_or_init(|| progress.elapsed());
            progress.set_message("merging, ");
        },
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

/// A bar for reading the files, and an estimate of the time until all is merged. `read_after` is
/// how long reading took, once it is done.
fn progress_bar(
    bytes: u64, merging: f64, read_after: Arc<OnceLock<Duration>>,
) -> anyhow::Result<ProgressBar> {
    let left = move |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        let left = time_left(state.elapsed(), state.fraction().into(), read_after.get(), merging);
        let _ = write!(text, "about {} s left", left.as_secs());
    };
    let template = "{bar:40} {bytes} of {total_bytes}, {elapsed}, {msg}{left}";
    let style = ProgressStyle::with_template(template)?.with_key("left", left);
    let progress = ProgressBar::new(bytes).with_style(style);
    progress.enable_steady_tick(Duration::from_millis(200));
    Ok(progress)
}

/// How long an import will take after `elapsed`. Until the files are read, `fraction` of them is.
fn time_left(
    elapsed: Duration, fraction: f64, read_after: Option<&Duration>, merging: f64,
) -> Duration {
    let reading = match read_after {
        Some(reading) => *reading,
        None => elapsed.div_f64(fraction.clamp(0.001, 1.0)),
    };
    reading.mul_f64(1.0 + merging).saturating_sub(elapsed)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_from_the_part_that_was_read_or_from_the_time_that_reading_took() {
        let seconds = Duration::from_secs;
        assert_eq!(time_left(seconds(2), 0.5, None, 4.0), seconds(18));
        assert_eq!(time_left(seconds(4), 1.0, Some(&seconds(4)), 4.0), seconds(16));
        assert_eq!(time_left(seconds(12), 1.0, Some(&seconds(4)), 4.0), seconds(8));
        assert_eq!(time_left(seconds(60), 1.0, Some(&seconds(4)), 4.0), seconds(0));
        assert!(time_left(seconds(1), 0.0, None, 1.0) > seconds(1_000));
    }
}
