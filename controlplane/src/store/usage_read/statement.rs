//! The statements that read usage: put together from constant texts, every value bound to a place of its own.
//!
//! They are the same for both databases but for the outermost: a server is asked for sums as one row, a list for each
//! column, which is a third of the work of a row for each line on either side; and for a page of rows as a copy, which is
//! half of that again. A copy has no places: its numbers stand in it as digits, its texts are settings that are made
//! before it. What a statement's answer becomes is not known here.

use super::answer::Part;
use super::{PIECES_MAX, UsageField, UsageFilter, UsageMark, UsageOrder, UsagePiece, UsageSource, UsageSums};
use crate::store::value::{Value, stored_number};
use crate::store::{StoreError, Stored};
use std::fmt::Write as _;

/// The largest number that a column holds.
const MOST: &str = "9223372036854775807";

/// A statement, its values, and what its columns are.
pub struct Statement<'a> {
    pub sql: String,
    pub values: Vec<Value<'a>>,
    pub parts: Vec<Part>,
    /// Whether it is a server's `COPY … TO STDOUT`, and the values are texts that [`Statement::settings`] makes known.
    pub is_copy: bool,
}

impl<'a> Statement<'a> {
    pub const fn new(is_copy: bool) -> Self {
        Self { sql: String::new(), values: Vec::new(), parts: Vec::new(), is_copy }
    }

    /// Binds a value; its place as the statement names it.
    pub fn bind(&mut self, value: Value<'a>) -> String {
        match value {
            Value::Int(number) if self.is_copy => number.to_string(),
            value => {
                self.values.push(value);
                let place = self.values.len();
                if self.is_copy { format!("current_setting('trinity.value_{place}')") } else { format!("${place}") }
            }
        }
    }

    /// What is asked before a copy, with the same values; `None` where it has none.
    pub fn settings(&self) -> Option<String> {
        let settings =
            (1..=self.values.len()).map(|place| format!("set_config('trinity.value_{place}', ${place}, false)"));
        let settings: Vec<String> = settings.collect();
        (self.is_copy && !settings.is_empty()).then(|| format!("SELECT {}", settings.join(", ")))
    }

    fn number(&mut self, number: u64) -> Stored<String> {
        Ok(self.bind(Value::Int(stored_number(number)?)))
    }

    /// What every row must fit, but for the time: ` AND …`.
    fn conditions(&mut self, filter: &'a UsageFilter) -> String {
        let numbers = [("key_id", filter.key.map(i64::from)), ("status", filter.status.map(i64::from))];
        let texts =
            [("asset", &filter.asset), ("protocol", &filter.protocol), ("tier", &filter.tier), ("node", &filter.node)];
        let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name, Value::Int(number?))));
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, Value::Text(text.as_ref()?))));
        let mut all = String::new();
        for (name, value) in numbers.chain(texts) {
            let place = self.bind(value);
            // Writing to a String does not fail.
            let _ = write!(all, " AND {name} = {place}");
        }
        all
    }

    /// Asks a server for one row of lists.
    fn as_lists(&mut self) {
        let lists: Vec<String> = self.parts.iter().map(|part| format!("array_agg({})", part.column())).collect();
        self.sql = format!("SELECT {} FROM ({}) AS lines", lists.join(", "), self.sql);
    }
}

/// A page of rows.
///
/// # Errors
/// `Invalid` for a number beyond what is stored.
pub fn page<'a>(
    postgres: bool,
    filter: &'a UsageFilter,
    after: Option<&'a UsageMark>,
    limit: usize,
) -> Stored<Statement<'a>> {
    let mut statement = Statement::new(postgres);
    statement.parts = Part::ROW.to_vec();
    let columns: Vec<&str> = Part::ROW.iter().map(|part| part.column()).collect();
    // The bound beside the place behind which to go on lets partitions be left out.
    let from_ms = after.map_or(filter.from_ms, |mark| mark.time_ms.max(filter.from_ms));
    let (from, to) = (statement.number(from_ms)?, statement.number(filter.to_ms)?);
    let conditions = statement.conditions(filter);
    let behind = match after {
        None => String::new(),
        Some(mark) => {
            let (time, node) = (statement.number(mark.time_ms)?, statement.bind(Value::Text(&mark.node)));
            let (segment, offset) = (statement.number(mark.segment)?, statement.number(mark.offset)?);
            format!(" AND (time_ms, node, segment, record_offset) > ({time}, {node}, {segment}, {offset})")
        }
    };
    let limit = statement.number(limit as u64)?;
    statement.sql = format!(
        "SELECT {} FROM usage_logs WHERE time_ms >= {from} AND time_ms < {to}{conditions}{behind} ORDER BY time_ms, node, \
         segment, record_offset LIMIT {limit}",
        columns.join(", ")
    );
    if postgres {
        statement.sql = format!("COPY ({}) TO STDOUT (FORMAT binary)", statement.sql);
    }
    Ok(statement)
}

/// The first and the last time in a source.
///
/// # Errors
/// As [`page`].
pub fn ends(source: UsageSource, filter: &UsageFilter) -> Stored<Statement<'_>> {
    let mut statement = Statement::new(false);
    let (from, to) = (statement.number(filter.from_ms)?, statement.number(filter.to_ms)?);
    let conditions = statement.conditions(filter);
    let (table, time) = source.table();
    statement.sql =
        format!("SELECT min({time}), max({time}) FROM {table} WHERE {time} >= {from} AND {time} < {to}{conditions}");
    Ok(statement)
}

/// Sums.
///
/// # Errors
/// As [`page`], and for more pieces than [`PIECES_MAX`].
pub fn sums<'a>(postgres: bool, sums: &UsageSums<'a>) -> Stored<Statement<'a>> {
    if sums.pieces.len() > PIECES_MAX {
        return Err(StoreError::Invalid(format!("at most {PIECES_MAX} parts of time can be asked for at once")));
    }
    let mut statement = Statement::new(false);
    let time = sums.timed.then_some(Part::Time);
    let keys: Vec<Part> = time.into_iter().chain(sums.fields.iter().map(|field| Part::of(*field))).collect();
    let conditions = statement.conditions(sums.filter);
    let mut pieces = Vec::with_capacity(sums.pieces.len());
    for piece in sums.pieces {
        pieces.push(statement.piece(piece, sums, &conditions)?);
    }
    let columns = |separator: &str| keys.iter().map(|part| part.column()).collect::<Vec<_>>().join(separator);
    let names = columns(", ");
    let total = if postgres { format!("least(sum(n), {MOST})::bigint") } else { "sum(n)".to_owned() };
    let comma = if keys.is_empty() { "" } else { ", " };
    let behind = statement.behind(&keys, sums)?;
    let grouped = if keys.is_empty() { String::new() } else { format!(" GROUP BY {names}") };
    let order = match (sums.order, keys.is_empty()) {
        (UsageOrder::Fields, true) => String::new(),
        (UsageOrder::Fields, false) => format!(" ORDER BY {names}"),
        (UsageOrder::Requests, _) => format!(" ORDER BY requests DESC{comma}{names}"),
    };
    let limit = statement.number(sums.limit as u64)?;
    statement.sql = format!(
        "SELECT {names}{comma}{total} AS requests FROM ({}) AS parts{behind}{grouped} HAVING sum(n) > 0{order} LIMIT \
         {limit}",
        pieces.join(" UNION ALL ")
    );
    statement.parts = keys;
    statement.parts.push(Part::Requests);
    if postgres {
        statement.as_lists();
    }
    Ok(statement)
}

impl<'a> Statement<'a> {
    /// The rows of one part of time, each with its interval's begin.
    fn piece(&mut self, piece: &UsagePiece, sums: &UsageSums<'_>, conditions: &str) -> Stored<String> {
        let (table, time) = piece.source.table();
        let (from, to) = (self.number(piece.from_ms)?, self.number(piece.to_ms)?);
        let mut columns = String::new();
        if sums.timed {
            let (base, step) = (self.number(piece.base_ms)?, self.number(piece.step_ms.max(1))?);
            let _ = write!(columns, "{base} + ({time} - {base}) / {step} * {step} AS time_ms, ");
        }
        for field in sums.fields {
            let _ = write!(columns, "{}, ", Part::of(*field).column());
        }
        let sign = if piece.minus { "-" } else { "" };
        Ok(format!(
            "SELECT {columns}{sign}requests AS n FROM {table} WHERE {time} >= {from} AND {time} < {to}{conditions}"
        ))
    }

    /// Behind which line: ` WHERE …`.
    fn behind(&mut self, keys: &[Part], sums: &UsageSums<'a>) -> Stored<String> {
        let Some(line) = sums.after.filter(|_| !keys.is_empty()) else { return Ok(String::new()) };
        let mut places = Vec::with_capacity(keys.len());
        for part in keys {
            let value = match part.number_of(line) {
                Some(number) => Value::Int(stored_number(number)?),
                None => Value::Text(part.text_of(line)),
            };
            places.push(self.bind(value));
        }
        let columns: Vec<&str> = keys.iter().map(|part| part.column()).collect();
        Ok(format!(" WHERE ({}) > ({})", columns.join(", "), places.join(", ")))
    }
}

impl UsageSource {
    /// Its table, and the column of time.
    const fn table(self) -> (&'static str, &'static str) {
        match self {
            Self::Rows => ("usage_logs", "time_ms"),
            Self::Minutes => ("usage_minutes", "bucket_ms"),
            Self::Hours => ("usage_hours", "bucket_ms"),
        }
    }
}

impl Part {
    const fn of(field: UsageField) -> Self {
        match field {
            UsageField::Key => Self::Key,
            UsageField::Asset => Self::Asset,
            UsageField::Protocol => Self::Protocol,
            UsageField::Status => Self::Status,
            UsageField::Tier => Self::Tier,
            UsageField::Node => Self::Node,
        }
    }
}
