//! Rows on stdout: aligned columns with a head on a terminal, else separated by tabs.

use std::io::{self, BufWriter, IsTerminal, Write};

use unicode_width::UnicodeWidthStr;

/// Prints rows of the columns that `head` names. White space within a value becomes a blank, so
/// that a row is a line and a tab separates two columns.
pub(super) fn print<const N: usize>(
    head: [&str; N], rows: impl IntoIterator<Item = [String; N]>,
) -> io::Result<()> {
    print_page(head, rows, true)
}

/// As [`print()`], a part of the rows. Only the first part has a head.
pub(super) fn print_page<const N: usize>(
    head: [&str; N], rows: impl IntoIterator<Item = [String; N]>, is_first: bool,
) -> io::Result<()> {
    let rows: Vec<_> = rows.into_iter().map(|row| row.map(|value| one_line(&value))).collect();
    let out = io::stdout().lock();
    if out.is_terminal() {
        write_aligned(out, head, &rows, is_first)
    } else {
        write_tabs(BufWriter::new(out), &rows)
    }
}

fn one_line(value: &str) -> String {
    value.replace(char::is_control, " ")
}

fn write_tabs<const N: usize>(mut out: impl Write, rows: &[[String; N]]) -> io::Result<()> {
    for row in rows {
        writeln!(out, "{}", row.join("\t"))?;
    }
    out.flush()
}

fn write_aligned<const N: usize>(
    mut out: impl Write, head: [&str; N], rows: &[[String; N]], has_head: bool,
) -> io::Result<()> {
    let head = head.map(str::to_uppercase);
    let lines = || std::iter::once(&head).chain(rows);
    let mut widths = [0; N];
    for line in lines() {
        for (width, value) in widths.iter_mut().zip(line) {
            *width = (*width).max(value.width());
        }
    }
    for line in lines().skip(usize::from(!has_head)) {
        let cells = widths.iter().zip(line).map(|(width, value)| {
            let padding = width.saturating_sub(value.width());
            format!("{value}{:padding$}", "")
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<[String; 2]> {
        [["rack", "a\tb\nc"], ["机柜", "x"]].map(|row| row.map(one_line)).to_vec()
    }

    #[test]
    fn columns_are_aligned_on_a_terminal() {
        let mut out = Vec::new();
        write_aligned(&mut out, ["key", "name"], &rows(), true).unwrap();
        write_aligned(&mut out, ["key", "name"], &rows()[1..], false).unwrap();
        let lines = "KEY   NAME\nrack  a b c\n机柜  x\n机柜  x\n";
        assert_eq!(String::from_utf8(out).unwrap(), lines);
    }

    #[test]
    fn columns_are_separated_by_tabs_elsewhere() {
        let mut out = Vec::new();
        write_tabs(&mut out, &rows()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "rack\ta b c\n机柜\tx\n");
    }
}
