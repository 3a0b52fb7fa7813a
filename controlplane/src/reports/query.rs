//! What a report is asked to be: the parameters of a request, checked as a whole.
//!
//! Every fault is told at once, each with the parameter's name, its value and what is allowed; a parameter that means
//! nothing is a fault too, because it would be taken for one that works. How a request travels is not known here.

use super::cursor::{Cursor, CursorFault, Mark};
use super::lines::Column;
use super::parameters::Parameters;
use super::zone::Zone;
use crate::store::UsageFilter;
use shared::code::Code;
use std::fmt::{self, Write as _};

pub use super::parameters::Fault;
pub use super::terms::{Asking, Format, Interval, LIMIT_MAX, Report, Scope};

/// A report, as it is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportQuery {
    /// Which.
    pub report: Report,
    /// About what: the range that the report covers in effect, which is the one to tell, and everything else that was
    /// asked for. A caller's own key is in it.
    pub filter: UsageFilter,
    /// The range as it was asked for, Unix ms. It differs from the filter's where detail is not kept any more: a report
    /// of lines begins where detail does, one of groups at whole minutes.
    pub asked_ms: (u64, u64),
    /// What lines are grouped by, in the order of columns; empty: by nothing but the interval.
    pub groups: Vec<Column>,
    /// The interval that lines are grouped by.
    pub interval: Option<Interval>,
    /// Lines in the page, where it was asked for: json alone has pages.
    pub limit: Option<usize>,
    /// Where to go on; for json alone.
    pub cursor: Option<Cursor>,
    /// Where days begin, and what clocks show in text and html.
    pub zone: Zone,
    /// The format, where it was asked for.
    pub format: Option<Format>,
    /// Whether cells that a spreadsheet would take for a formula are left as they are.
    pub raw: bool,
}

impl ReportQuery {
    /// Reads the parameters of a request: names and values, decoded, in their order. Names that carry who asks or which
    /// report (`key`, `report`) are not among them.
    ///
    /// # Errors
    /// Every fault there is.
    pub fn parse(report: Report, pairs: &[(String, String)], asking: &Asking) -> Result<Self, Vec<Fault>> {
        let mut given = Parameters::new(pairs);
        let cursor = given.cursor(report);
        let span = given.span(cursor.as_ref(), asking.now_ms);
        let (groups, interval) = given.grouping(report);
        let grouped = interval.is_some() || !groups.is_empty() || report == Report::Summary;
        // What the page before covered, where there is one.
        let (from_ms, to_ms) = match &cursor {
            Some(cursor) => cursor.covered_ms,
            None => super::groups::covered(grouped, span, asking),
        };
        let filter = UsageFilter {
            from_ms,
            to_ms,
            key: given.key(asking.scope),
            asset: given.asset(),
            protocol: given.protocol(),
            status: given.status(),
            tier: given.tier(),
            node: given.node(),
        };
        let zone = given.zone();
        let format = given.format();
        let limit = given.limit(report);
        let raw = given.raw();
        let asked_ms = (span.from_ms, span.to_ms);
        let query = Self { report, filter, asked_ms, groups, interval, limit, cursor, zone, format, raw };
        if query.cursor.as_ref().is_some_and(|cursor| cursor.print != query.print()) {
            given.refuse_cursor(CursorFault::OtherQuery);
        }
        given.end().map(|()| query)
    }

    /// Whether its lines are sums.
    #[must_use]
    pub fn is_grouped(&self) -> bool {
        self.interval.is_some() || !self.groups.is_empty()
    }

    /// The columns of its lines.
    #[must_use]
    pub fn columns(&self) -> Vec<Column> {
        if !self.is_grouped() {
            return Column::ALL.to_vec();
        }
        let time = self.interval.map(|_| Column::Time);
        time.into_iter().chain(self.groups.iter().copied()).chain([Column::Requests]).collect()
    }

    /// What tells it from other queries: everything that decides which lines there are and in which order.
    fn print(&self) -> u32 {
        crc32c::crc32c(format!("{}?{self}", self.report.name()).as_bytes())
    }

    /// The place behind a line of it.
    #[must_use]
    pub fn behind(&self, mark: Mark) -> Cursor {
        let covered_ms = (self.filter.from_ms, self.filter.to_ms);
        Cursor { asked_ms: self.asked_ms, covered_ms, print: self.print(), mark }
    }

    /// Refuses what a format does not have: only json comes in pages, so `limit` and `cursor` would cut any other short
    /// without its showing.
    ///
    /// # Errors
    /// A fault for each.
    pub fn fits(&self, format: Format) -> Result<(), Vec<Fault>> {
        let paged = [("limit", self.limit.is_some()), ("cursor", self.cursor.is_some())];
        let faults: Vec<Fault> = paged
            .into_iter()
            .filter(|(_, given)| *given && format != Format::Json)
            .map(|(name, _)| Fault {
                code: Code::ParameterInvalid,
                parameter: name.to_owned(),
                value: String::new(),
                allowed: "with format=json alone: the others give the whole report at once".to_owned(),
            })
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

impl fmt::Display for ReportQuery {
    /// As the text of a query, with everything that it means and without who asked: for the log of reports.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from={}&to={}", self.filter.from_ms, self.filter.to_ms)?;
        let filter = &self.filter;
        if let Some(key) = filter.key {
            write!(f, "&key_id={key}")?;
        }
        for (name, value) in [("asset", &filter.asset), ("protocol", &filter.protocol), ("tier", &filter.tier)] {
            if let Some(value) = value {
                write!(f, "&{name}={}", Encoded(value))?;
            }
        }
        if let Some(status) = filter.status {
            write!(f, "&status={status}")?;
        }
        if let Some(node) = &filter.node {
            write!(f, "&node={}", Encoded(node))?;
        }
        if !self.groups.is_empty() {
            let names: Vec<&str> = self.groups.iter().map(|column| column.group_name()).collect();
            write!(f, "&group_by={}", names.join(","))?;
        }
        if let Some(interval) = self.interval {
            write!(f, "&interval={}", interval.name())?;
        }
        write!(f, "&tz={}", Encoded(&self.zone.to_string()))
    }
}

/// A value as it stands in a query: what could be taken for the query's own marks is escaped.
pub struct Encoded<'a>(pub &'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => f.write_char(byte.into()),
            byte => write!(f, "%{byte:02X}"),
        })
    }
}
