//! `csv`: RFC 4180, with a header row and CRLF at the end of every line.
//!
//! A text that a spreadsheet would take for a formula has `'` before it, unless the report is asked for as it is
//! (`raw=1`). Numbers and times are never texts, so nothing is put before them.

use super::is_formula;
use crate::reports::lines::{Cell, Column};
use crate::store::UsageLine;
use csv::{Terminator, Writer, WriterBuilder};
use std::io;

/// Bytes gathered before they are moved on: large beside a line of 100.
const BUFFER_BYTES: usize = 16 << 10;

fn writer(into: &mut Vec<u8>) -> Writer<&mut Vec<u8>> {
    WriterBuilder::new().terminator(Terminator::CRLF).buffer_capacity(BUFFER_BYTES).from_writer(into)
}

pub(super) fn head(columns: &[Column], into: &mut Vec<u8>) -> io::Result<()> {
    row(columns.iter().map(|column| column.name()), into)
}

/// One row of texts.
pub(super) fn row<'a>(cells: impl Iterator<Item = &'a str>, into: &mut Vec<u8>) -> io::Result<()> {
    let mut writer = writer(into);
    writer.write_record(cells)?;
    writer.flush()
}

/// Appends the text to `space` as it stands in a cell, and gives it back.
pub(super) fn safe<'a>(text: &'a str, raw: bool, space: &'a mut String) -> &'a str {
    if raw || !is_formula(text) {
        return text;
    }
    space.clear();
    space.push('\'');
    space.push_str(text);
    space
}

pub(super) fn lines(columns: &[Column], lines: &[UsageLine], raw: bool, into: &mut Vec<u8>) -> io::Result<()> {
    let mut writer = writer(into);
    let (mut digits, mut space) = (itoa::Buffer::new(), String::new());
    for line in lines {
        for column in columns {
            match column.of(line) {
                Cell::Time(number) | Cell::Number(number) => writer.write_field(digits.format(number))?,
                Cell::Text(text) => writer.write_field(safe(text, raw, &mut space))?,
            }
        }
        writer.write_record(None::<&[u8]>)?;
    }
    writer.flush()
}
