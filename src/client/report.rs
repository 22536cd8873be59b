//! What became of all rows, and the file of those that were refused.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, ensure};

use super::input::{BATCH_ROWS, ColumnKind, FileSummary, Rows, kind_of_key, text};
use super::progress::{Progress, sync_folder};
use super::{BatchResult, RowError};

/// The columns that are added to a row that was refused.
const ADDED: [&str; 4] = ["code", "reason", "blocking_id", "message"];

/// How many rows there are of each result.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Links that were created, or would be.
    pub created: u64,
    /// Links that existed, as far as the server tells.
    pub existing: u64,
    /// Rows that were refused, by code and reason.
    pub refused: BTreeMap<(Option<i64>, String), u64>,
}

impl Totals {
    fn add(&mut self, result: &BatchResult) {
        self.created += result.created.len() as u64;
        self.existing += result.existing.len() as u64;
        for RowError { code, reason, .. } in result.refused.values() {
            *self.refused.entry((*code, reason.clone())).or_default() += 1;
        }
    }
}

/// Sums up a run whose batches are all answered, and writes the rows that were refused to a file
/// that replaces an earlier one. Without such rows there is no file.
pub fn write(
    input: &Path, summary: &FileSummary, progress: &Progress, failed: &Path,
) -> anyhow::Result<Totals> {
    let temporary = failed.with_extension("csv.tmp");
    let cannot = || format!("cannot write {}", temporary.display());
    let mut output = BufWriter::new(File::create(&temporary).with_context(cannot)?);
    if summary.has_bom {
        output.write_all("\u{feff}".as_bytes())?;
    }
    let layout = Layout::new(summary);
    let mut output = csv::Writer::from_writer(output);
    output.write_record(layout.header(summary))?;

    let mut rows = Rows::open_after_header(input, summary)?;
    let (mut totals, mut result, mut number) = (Totals::default(), BatchResult::default(), 0_u64);
    while let Some(row) = rows.next_filled()? {
        let position = usize::try_from(number % BATCH_ROWS)?;
        if position == 0 {
            result = progress.answer(number / BATCH_ROWS)?;
            totals.add(&result);
        }
        number += 1;
        if let Some(error) = result.refused.get(&position) {
            let cells = row.iter().map(|cell| String::from_utf8_lossy(cell).into_owned());
            output.write_record(layout.row(cells.collect(), error))?;
        }
    }
    let is_same = rows.sha256() == summary.sha256;
    ensure!(is_same, "{} was changed while it was sent", input.display());
    let output =
        output.into_inner().map_err(csv::IntoInnerError::into_error).with_context(cannot)?;
    let file = output.into_inner().map_err(io::IntoInnerError::into_error).with_context(cannot)?;
    file.sync_all().with_context(cannot)?;
    if totals.refused.is_empty() {
        fs::remove_file(&temporary)?;
        if failed.exists() {
            fs::remove_file(failed)?;
        }
    } else {
        let cannot = || format!("cannot write {}", failed.display());
        fs::rename(&temporary, failed).with_context(cannot)?;
    }
    sync_folder(failed)?;
    Ok(totals)
}

/// Which columns the file of refused rows has: those of the input, but for columns that an earlier
/// run has added, and then the added ones.
struct Layout {
    columns: usize,
    /// Where the columns begin that an earlier run has added.
    added: Option<usize>,
}

impl Layout {
    fn new(summary: &FileSummary) -> Self {
        let header = summary.header.as_deref().unwrap_or_default();
        let windows = || header.windows(ADDED.len()).enumerate().skip(2);
        let added = windows().find(|(_, names)| *names == ADDED).map(|(start, _)| start);
        Self { columns: summary.columns.max(2), added }
    }

    fn without_added(&self, cells: Vec<String>) -> Vec<String> {
        let is_added =
            |column| self.added.is_some_and(|start| (start..start + ADDED.len()).contains(&column));
        let mut cells = cells;
        cells.resize(self.columns, String::new());
        let kept = cells.into_iter().enumerate().filter(|(column, _)| !is_added(*column));
        kept.map(|(_, cell)| cell).collect()
    }

    /// The names of the columns. The first two say whether the columns have ids or names.
    fn header(&self, summary: &FileSummary) -> Vec<String> {
        let given = summary.header.as_deref().unwrap_or_default();
        let mut names: Vec<_> = (0..self.columns)
            .map(|column| given.get(column).cloned().unwrap_or(format!("column_{}", column + 1)))
            .collect();
        for ((name, kind), end) in names.iter_mut().zip(summary.kinds).zip(["source", "target"]) {
            let suffix = if kind == ColumnKind::Ids { "id" } else { "name" };
            if kind_of_key(name) != Some(kind) {
                *name = format!("{end}_{suffix}");
            }
        }
        let mut names = self.without_added(names);
        names.extend(ADDED.map(str::to_owned));
        names
    }

    fn row(&self, cells: Vec<String>, error: &RowError) -> Vec<String> {
        let number = |number: Option<i64>| number.map(|n| n.to_string()).unwrap_or_default();
        let mut cells = self.without_added(cells);
        cells.extend([
            number(error.code),
            error.reason.clone(),
            number(error.blocking_id),
            text(error.message.as_bytes()),
        ]);
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summarize(header: Option<&[&str]>, columns: usize, kinds: [ColumnKind; 2]) -> FileSummary {
        let header = header.map(|names| names.iter().map(ToString::to_string).collect());
        let (sha256, checksums) = (String::new(), Vec::new());
        FileSummary { sha256, checksums, has_bom: false, header, rows: 1, columns, kinds }
    }

    #[test]
    fn refused_rows_keep_their_columns_and_a_second_run_replaces_the_added_ones() {
        let error =
            RowError { code: Some(7), blocking_id: Some(73), ..RowError::unsent("r", "text") };
        let of = |summary: &FileSummary, cells: &[&str]| {
            let layout = Layout::new(summary);
            let cells = cells.iter().map(ToString::to_string).collect();
            [layout.header(summary), layout.row(cells, &error)].map(|cells| cells.join("|"))
        };
        let kinds = [ColumnKind::Ids, ColumnKind::Names];
        assert_eq!(
            of(&summarize(None, 3, kinds), &["1", "x"]),
            ["source_id|target_name|column_3|code|reason|blocking_id|message", "1|x||7|r|73|text"]
        );
        let header = ["bk_host_id", "rack", "note"];
        assert_eq!(
            of(&summarize(Some(&header), 3, kinds), &["1", "x", "n"]),
            ["bk_host_id|target_name|note|code|reason|blocking_id|message", "1|x|n|7|r|73|text"]
        );
        let header = ["source_id", "target_name", "code", "reason", "blocking_id", "message", "n"];
        assert_eq!(
            of(&summarize(Some(&header), 7, kinds), &["1", "x", "5", "q", "", "old", "n"]),
            ["source_id|target_name|n|code|reason|blocking_id|message", "1|x|n|7|r|73|text"]
        );
    }
}
