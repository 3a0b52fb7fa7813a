//! `json` and `ndjson`: a line is an object, its members in the order of the columns.
//!
//! `ndjson` has one object a line and nothing else; the page of `json` around the objects is made by whoever knows the
//! page.

use super::push_number;
use crate::reports::lines::{Cell, Column};
use crate::store::UsageLine;
use std::io;

fn object(columns: &[Column], line: &UsageLine, into: &mut Vec<u8>) -> io::Result<()> {
    for (place, column) in columns.iter().enumerate() {
        into.extend_from_slice(if place == 0 { b"{\"" } else { b",\"" });
        into.extend_from_slice(column.name().as_bytes());
        into.extend_from_slice(b"\":");
        match column.of(line) {
            Cell::Time(number) | Cell::Number(number) => push_number(number, into),
            Cell::Text(text) => serde_json::to_writer(&mut *into, text)?,
        }
    }
    into.push(b'}');
    Ok(())
}

pub(super) fn lines(columns: &[Column], lines: &[UsageLine], into: &mut Vec<u8>) -> io::Result<()> {
    for line in lines {
        object(columns, line, into)?;
        into.push(b'\n');
    }
    Ok(())
}

pub(super) fn array(columns: &[Column], lines: &[UsageLine], into: &mut Vec<u8>) -> io::Result<()> {
    into.push(b'[');
    for (place, line) in lines.iter().enumerate() {
        if place > 0 {
            into.push(b',');
        }
        object(columns, line, into)?;
    }
    into.push(b']');
    Ok(())
}
