//! The formats of a report, line by line: how bytes look, and nothing of where lines come from or bytes go to.
//!
//! All formats have the same columns in the same order. What is written is exact: times are Unix ms, but in `text` and
//! `html`, which are for people and show them in the report's zone. Memory does not grow with the number of lines.

mod csv;
pub mod html;
mod json;
mod page;
pub mod summary;
mod text;
mod tsv;

pub use self::page::{BARS_MAX, Bar, Opening};

use super::lines::{Cell, Column};
use super::query::{Format, ReportQuery};
use super::zone::Zone;
use crate::store::UsageLine;
use std::io;

/// Lines that a page to read shows: a browser is quick with them, and nobody reads more. The page says so where there
/// are more, and how to get them.
pub const HTML_LINES_MAX: u64 = 5_000;

impl Format {
    /// `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Tsv => "text/tab-separated-values; charset=utf-8",
            Self::Text => "text/plain; charset=utf-8",
            Self::Ndjson => "application/x-ndjson; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
        }
    }

    /// Ending of a file's name.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            other => other.name(),
        }
    }

    /// Whether a browser had better show it than save it.
    #[must_use]
    pub const fn is_read_in_place(self) -> bool {
        matches!(self, Self::Json | Self::Text | Self::Html)
    }
}

/// Writes the lines of one report in one format.
#[derive(Debug)]
pub struct LineWriter {
    format: Format,
    columns: Vec<Column>,
    zone: Zone,
    raw: bool,
    /// Of `text`: characters in each column, as the first page has them.
    widths: Vec<usize>,
    lines: u64,
    requests: u64,
    was_cut: bool,
}

impl LineWriter {
    /// A writer of the report that `query` asks for.
    #[must_use]
    pub fn new(format: Format, query: &ReportQuery) -> Self {
        let (columns, zone, raw) = (query.columns(), query.zone.clone(), query.raw);
        Self { format, columns, zone, raw, widths: Vec::new(), lines: 0, requests: 0, was_cut: false }
    }

    /// Lines written so far.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    /// Whether no further line would be shown.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.was_cut
    }

    /// Writes what stands before the lines. `first` are the lines that come first: `text` makes its columns as wide as
    /// they need. `opening` is what stands above the table of `html`.
    ///
    /// # Errors
    /// None that memory has; they are passed on all the same.
    pub fn begin(&mut self, first: &[UsageLine], opening: Option<&Opening>, into: &mut Vec<u8>) -> io::Result<()> {
        match self.format {
            Format::Csv => csv::head(&self.columns, into),
            Format::Tsv => tsv::head(&self.columns, into),
            Format::Text => {
                self.widths = text::widths(&self.columns, first, &self.zone);
                text::head(&self.columns, &self.widths, into)
            }
            Format::Html => {
                page::open(opening, into)?;
                html::head(&self.columns, into)
            }
            Format::Ndjson | Format::Json => Ok(()),
        }
    }

    /// Writes lines.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn write(&mut self, lines: &[UsageLine], into: &mut Vec<u8>) -> io::Result<()> {
        let lines = self.shown(lines);
        self.lines += lines.len() as u64;
        self.requests = lines.iter().fold(self.requests, |sum, line| sum.saturating_add(line.requests));
        match self.format {
            Format::Csv => csv::lines(&self.columns, lines, self.raw, into),
            Format::Tsv => tsv::lines(&self.columns, lines, self.raw, into),
            Format::Text => text::lines(&self.columns, lines, &self.widths, &self.zone, into),
            Format::Html => html::lines(&self.columns, lines, &self.zone, into),
            Format::Ndjson => json::lines(&self.columns, lines, into),
            Format::Json => json::array(&self.columns, lines, into),
        }
    }

    /// Writes what stands behind the lines.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn end(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        match self.format {
            Format::Text => text::end(self.lines, self.requests, into),
            Format::Html => {
                html::end(into)?;
                page::close(self.lines, self.requests, self.was_cut, into)
            }
            Format::Csv | Format::Tsv | Format::Ndjson | Format::Json => Ok(()),
        }
    }

    /// The part of these lines that is shown.
    fn shown<'a>(&mut self, lines: &'a [UsageLine]) -> &'a [UsageLine] {
        if self.format != Format::Html {
            return lines;
        }
        let room = usize::try_from(HTML_LINES_MAX.saturating_sub(self.lines)).unwrap_or(usize::MAX);
        self.was_cut |= lines.len() > room;
        &lines[..lines.len().min(room)]
    }
}

/// Appends a whole number.
fn push_number(number: u64, into: &mut Vec<u8>) {
    into.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Whether a spreadsheet would take a text for a formula, or drop what stands in front of one: `'` before it stops that.
fn is_formula(text: &str) -> bool {
    matches!(text.as_bytes().first(), Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r' | 0))
}

/// A cell for people: times in the zone, and nothing that a terminal or a page would take for more than text.
fn shown(cell: Cell<'_>, zone: &Zone) -> String {
    match cell {
        Cell::Time(time_ms) => zone.rfc3339(time_ms),
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) if text.chars().any(char::is_control) => {
            let plain = |character: char| match character.is_control() {
                true => character.escape_default().to_string(),
                false => character.to_string(),
            };
            text.chars().map(plain).collect()
        }
        Cell::Text(text) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
