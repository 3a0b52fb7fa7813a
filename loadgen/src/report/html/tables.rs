//! The tables as HTML; what stands in them is not known here.

use super::escape::escape;
use crate::report::figures::count;
use crate::report::run::Run;
use crate::report::tables::{self, Cell, Row, Table};
use std::fmt::Write;

/// Writes the tables with their headings.
pub fn write(run: &Run, out: &mut String) {
    tables::of(run).iter().for_each(|table| write_table(table, out));
}

fn write_table(table: &Table, out: &mut String) {
    let _ = write!(out, "<h2>{}</h2>\n<div class=\"card scroll\"><table><thead><tr>", escape(table.title));
    for column in &table.columns {
        let class = if column.is_text() { " class=\"text\"" } else { "" };
        let _ = write!(out, "<th{class}>{}</th>", escape(column.name));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in &table.rows {
        write_row(row, out);
    }
    out.push_str("</tbody></table></div>\n");
}

/// A level's number stands in its first row only.
fn write_row(row: &Row, out: &mut String) {
    let _ = write!(out, "<tr class=\"{}\">", if row.is_next { "next" } else { "first" });
    for cell in &row.cells {
        let _ = match cell {
            Cell::Level(_) if row.is_next => write!(out, "<td class=\"text\"></td>"),
            Cell::Level(number) => write!(out, "<td class=\"text\">{number}</td>"),
            Cell::Protocol(protocol) => {
                write!(out, "<td class=\"text\"><span class=\"tag {}\">{protocol}</span></td>", protocol.name())
            }
            Cell::Name(name) => write!(out, "<td class=\"text\">{}</td>", escape(name)),
            Cell::Figure(figure) => write!(out, "<td>{}</td>", escape(figure)),
            Cell::Trouble(0) => write!(out, "<td class=\"zero\">0</td>"),
            Cell::Trouble(number) => write!(out, "<td class=\"some\">{}</td>", count(*number)),
        };
    }
    out.push_str("</tr>\n");
}
