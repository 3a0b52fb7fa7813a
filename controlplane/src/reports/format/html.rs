//! Text and tables as HTML.
//!
//! Every element is closed and every attribute quoted, so that the page can be read as XML too. What a report is about
//! is not known here.

use super::{shown, text};
use crate::reports::lines::{Column, Kind};
use crate::reports::zone::Zone;
use crate::store::UsageLine;
use std::io::{self, Write};

/// A text as HTML, in an element or in a quoted attribute.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

pub(super) fn head(columns: &[Column], into: &mut Vec<u8>) -> io::Result<()> {
    into.extend_from_slice(b"<table class=\"lines\">\n<thead><tr>");
    for column in columns {
        write!(into, "<th{}>{}</th>", class(*column), text::title(*column))?;
    }
    into.write_all(b"</tr></thead>\n<tbody>\n")
}

const fn class(column: Column) -> &'static str {
    match column.kind() {
        Kind::Number => " class=\"n\"",
        Kind::Time | Kind::Text => "",
    }
}

pub(super) fn lines(columns: &[Column], lines: &[UsageLine], zone: &Zone, into: &mut Vec<u8>) -> io::Result<()> {
    for line in lines {
        into.extend_from_slice(b"<tr>");
        for column in columns {
            write!(into, "<td{}>{}</td>", class(*column), escaped(&shown(column.of(line), zone)))?;
        }
        into.extend_from_slice(b"</tr>\n");
    }
    Ok(())
}

pub(super) fn end(into: &mut Vec<u8>) -> io::Result<()> {
    into.write_all(b"</tbody></table>\n")
}
