//! A summary in every format: `json` is the document, the others are its numbers as a table of three columns.
//!
//! `section` says what kind of number it is, `name` which of them, `value` the number: times are Unix ms, and shown in
//! the report's zone in `text` and `html`.

use super::page::{self, Opening};
use super::text::push_cell;
use super::{csv, html::escaped, shown, tsv};
use crate::reports::lines::Cell;
use crate::reports::query::{Format, ReportQuery};
use crate::reports::summary::Summary;
use crate::reports::zone::Zone;
use serde_json::json;
use std::io::{self, Write};

/// The columns.
const COLUMNS: [&str; 3] = ["section", "name", "value"];

/// One number.
#[derive(Debug)]
struct Row {
    section: &'static str,
    name: String,
    value: u64,
    is_time: bool,
}

impl Row {
    fn shown(&self, zone: &Zone) -> String {
        shown(if self.is_time { Cell::Time(self.value) } else { Cell::Number(self.value) }, zone)
    }
}

fn rows(summary: &Summary) -> Vec<Row> {
    let time = |name: &str, value| Row { section: "range", name: name.to_owned(), value, is_time: true };
    let row = |section, name: &str, value| Row { section, name: name.to_owned(), value, is_time: false };
    let mut rows = vec![time("from_ms", summary.from_ms), time("to_ms", summary.to_ms)];
    rows.extend(summary.first_time_ms.map(|value| time("first_time_ms", value)));
    rows.extend(summary.last_time_ms.map(|value| time("last_time_ms", value)));
    rows.push(row("total", "requests", summary.requests));
    let parts =
        [("protocol", &summary.by_protocol), ("status", &summary.by_status), ("tier", &summary.by_tier)].into_iter();
    rows.extend(parts.flat_map(|(section, sums)| sums.iter().map(move |(name, sum)| row(section, name, *sum))));
    let spread = &summary.per_minute;
    let spread = [
        ("p50", spread.p50),
        ("p90", spread.p90),
        ("p99", spread.p99),
        ("max", spread.max),
        ("minutes", spread.minutes),
    ];
    rows.extend(spread.into_iter().map(|(name, value)| row("per_minute", name, value)));
    rows.extend(summary.top_assets.iter().map(|top| row("top_asset", &top.asset, top.requests)));
    let keys = summary.top_keys.iter().flatten();
    rows.extend(keys.map(|top| row("top_key", &top.key_id.to_string(), top.requests)));
    rows
}

/// Writes the summary; `opening` is what stands above the table of `html`.
///
/// # Errors
/// None that memory has; they are passed on all the same.
pub fn write(
    format: Format,
    query: &ReportQuery,
    summary: &Summary,
    opening: Option<&Opening>,
    into: &mut Vec<u8>,
) -> io::Result<()> {
    let rows = rows(summary);
    match format {
        Format::Json => {
            serde_json::to_writer(&mut *into, summary)?;
            into.push(b'\n');
        }
        Format::Ndjson => {
            for Row { section, name, value, .. } in &rows {
                writeln!(into, "{}", json!({ "section": section, "name": name, "value": value }))?;
            }
        }
        Format::Csv => {
            csv::row(COLUMNS.into_iter(), into)?;
            for row in &rows {
                let (mut space, value) = (String::new(), row.value.to_string());
                csv::row([row.section, csv::safe(&row.name, query.raw, &mut space), &value].into_iter(), into)?;
            }
        }
        Format::Tsv => {
            tsv::row(COLUMNS.into_iter(), true, into);
            for row in &rows {
                tsv::row([row.section, &row.name, &row.value.to_string()].into_iter(), query.raw, into);
            }
        }
        Format::Text => table(&rows, &query.zone, into),
        Format::Html => {
            page::open(opening, into)?;
            into.extend_from_slice(b"<table class=\"lines\">\n<thead><tr><th>section</th><th>name</th>");
            into.extend_from_slice(b"<th class=\"n\">value</th></tr></thead>\n<tbody>\n");
            for row in &rows {
                let (name, value) = (escaped(&row.name), escaped(&row.shown(&query.zone)));
                writeln!(into, "<tr><td>{}</td><td>{name}</td><td class=\"n\">{value}</td></tr>", row.section)?;
            }
            into.extend_from_slice(b"</tbody></table>\n");
            page::close(rows.len() as u64, summary.requests, false, into)?;
        }
    }
    Ok(())
}

/// A table for a terminal.
fn table(rows: &[Row], zone: &Zone, into: &mut Vec<u8>) {
    let head = COLUMNS.map(str::to_owned);
    let cells = rows.iter().map(|row| {
        let name = shown(Cell::Text(&row.name), zone);
        [row.section.to_owned(), name, row.shown(zone)]
    });
    let cells: Vec<[String; 3]> = std::iter::once(head).chain(cells).collect();
    let width = |place: usize| cells.iter().map(|row| row[place].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for row in &cells {
        for (place, cell) in row.iter().enumerate() {
            if place > 0 {
                into.extend_from_slice(b"  ");
            }
            push_cell(cell, widths[place], place == 2, into);
        }
        into.push(b'\n');
    }
}
