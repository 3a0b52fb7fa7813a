//! `text`: a table for a terminal. Numbers stand to the right, times show the report's zone.
//!
//! A column is as wide as its widest cell of the first page; the few that are wider later push the rest of their line to
//! the right. The last line tells how many lines there are: where it is missing, the end is.

use super::shown;
use crate::reports::lines::{Column, Kind};
use crate::reports::zone::Zone;
use crate::store::UsageLine;
use std::io::{self, Write};

/// Lines that widths are taken from, of the first page: nodes and assets are few, and mostly among them.
const MEASURED_MAX: usize = 1_000;

/// Blanks between two columns.
const GAP: &str = "  ";

pub(super) fn widths(columns: &[Column], first: &[UsageLine], zone: &Zone) -> Vec<usize> {
    let width = |column: &Column| {
        let cells = first.iter().take(MEASURED_MAX).map(|line| shown(column.of(line), zone).chars().count());
        cells.max().unwrap_or(0).max(title(*column).len())
    };
    columns.iter().map(width).collect()
}

/// What stands over a column: times here are no numbers.
pub(super) const fn title(column: Column) -> &'static str {
    match column {
        Column::Time => "time",
        other => other.name(),
    }
}

fn push_row(columns: &[Column], widths: &[usize], cells: impl Iterator<Item = String>, into: &mut Vec<u8>) {
    let begin = into.len();
    for ((column, width), cell) in columns.iter().zip(widths).zip(cells) {
        if into.len() > begin {
            into.extend_from_slice(GAP.as_bytes());
        }
        push_cell(&cell, *width, column.kind() == Kind::Number, into);
    }
    while into.len() > begin && into.last() == Some(&b' ') {
        into.pop();
    }
    into.push(b'\n');
}

/// A cell, filled up to its width with blanks: before it where it stands to the right.
pub(super) fn push_cell(cell: &str, width: usize, is_right: bool, into: &mut Vec<u8>) {
    let blanks = width.saturating_sub(cell.chars().count());
    if is_right {
        into.resize(into.len() + blanks, b' ');
    }
    into.extend_from_slice(cell.as_bytes());
    if !is_right {
        into.resize(into.len() + blanks, b' ');
    }
}

pub(super) fn head(columns: &[Column], widths: &[usize], into: &mut Vec<u8>) -> io::Result<()> {
    push_row(columns, widths, columns.iter().map(|column| title(*column).to_owned()), into);
    push_row(columns, widths, widths.iter().map(|width| "-".repeat(*width)), into);
    Ok(())
}

pub(super) fn lines(
    columns: &[Column],
    lines: &[UsageLine],
    widths: &[usize],
    zone: &Zone,
    into: &mut Vec<u8>,
) -> io::Result<()> {
    for line in lines {
        push_row(columns, widths, columns.iter().map(|column| shown(column.of(line), zone)), into);
    }
    Ok(())
}

pub(super) fn end(lines: u64, requests: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let (one, ones) = (if lines == 1 { "" } else { "s" }, if requests == 1 { "" } else { "s" });
    writeln!(into, "\n{lines} line{one}, {requests} request{ones}")
}
