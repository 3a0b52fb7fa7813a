//! `tsv`: cells parted by tabs, lines by LF, with a header row.
//!
//! No cell holds a tab or an end of line: a tab is written `\t`, a line feed `\n`, a carriage return `\r` and a backslash
//! `\\`, and nothing else is escaped or quoted. Formulas are kept from spreadsheets as in `csv`.

use super::{is_formula, push_number};
use crate::reports::lines::{Cell, Column};
use crate::store::UsageLine;
use std::io;

pub(super) fn head(columns: &[Column], into: &mut Vec<u8>) -> io::Result<()> {
    row(columns.iter().map(|column| column.name()), true, into);
    Ok(())
}

/// One row of texts.
pub(super) fn row<'a>(cells: impl Iterator<Item = &'a str>, raw: bool, into: &mut Vec<u8>) {
    for (place, cell) in cells.enumerate() {
        if place > 0 {
            into.push(b'\t');
        }
        push_text(cell, raw, into);
    }
    into.push(b'\n');
}

fn push_text(text: &str, raw: bool, into: &mut Vec<u8>) {
    if !raw && is_formula(text) {
        into.push(b'\'');
    }
    for byte in text.bytes() {
        match byte {
            b'\t' => into.extend_from_slice(b"\\t"),
            b'\n' => into.extend_from_slice(b"\\n"),
            b'\r' => into.extend_from_slice(b"\\r"),
            b'\\' => into.extend_from_slice(b"\\\\"),
            byte => into.push(byte),
        }
    }
}

pub(super) fn lines(columns: &[Column], lines: &[UsageLine], raw: bool, into: &mut Vec<u8>) -> io::Result<()> {
    for line in lines {
        for (place, column) in columns.iter().enumerate() {
            if place > 0 {
                into.push(b'\t');
            }
            match column.of(line) {
                Cell::Time(number) | Cell::Number(number) => push_number(number, into),
                Cell::Text(text) => push_text(text, raw, into),
            }
        }
        into.push(b'\n');
    }
    Ok(())
}
