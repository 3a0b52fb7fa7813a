//! The tables that a run ends with, as values: all levels, what did not succeed and what it cost, and each target by
//! itself where there are several.
//!
//! What stands in which column is said here, once; how a table looks is not known here: text and page lay it out.

use super::figures::{cores, count, rounded, success, time, us};
use super::run::{LevelFinding, Protocol, Run};
use crate::job::Pace;
use crate::outcome::Tally;
use hdrhistogram::Histogram;

/// A way not to succeed: its name, and how often a tally saw it.
pub type Reason = (&'static str, fn(&Tally) -> u64);

/// All of them, in the order of every table.
pub const REASONS: [Reason; 6] = [
    ("Wrong", |tally| tally.wrong),
    ("Late", |tally| tally.late),
    ("Lost", |tally| tally.lost),
    ("Refused", |tally| tally.refused),
    ("Unsent", |tally| tally.unsent),
    ("Broken", |tally| tally.broken),
];

/// A table: a title, and rows of as many cells as there are columns.
pub struct Table {
    /// Heading.
    pub title: &'static str,
    /// Columns, those of text first.
    pub columns: Vec<Column>,
    /// Rows, level by level.
    pub rows: Vec<Row>,
}

/// A column of a table.
#[derive(Clone, Copy)]
pub struct Column {
    /// As it is written in a sentence; empty where its cells say what they are.
    pub name: &'static str,
    shows: Shows,
}

/// A row of a table.
pub struct Row {
    /// It is of the same level as the row before.
    pub is_next: bool,
    /// A cell for each column.
    pub cells: Vec<Cell>,
}

/// What stands in a row at a column.
pub enum Cell {
    /// The level's number.
    Level(u32),
    /// What the requests travelled in.
    Protocol(Protocol),
    /// A name that someone gave.
    Name(String),
    /// A figure with its unit; `-` where there is none, empty where the row before has it.
    Figure(String),
    /// How often one of the [`REASONS`] was seen: an alert unless it is 0.
    Trouble(u64),
}

/// How a column's cells are made.
#[derive(Clone, Copy)]
enum Shows {
    Level,
    Protocol,
    Target,
    Figure(fn(&Entry<'_>) -> String),
    /// A figure of the level, not of its protocols: it stands in the level's first row only.
    LevelFigure(fn(&LevelFinding) -> String),
    Trouble(fn(&Tally) -> u64),
}

/// What a row is about.
struct Entry<'a> {
    level: &'a LevelFinding,
    protocol: Protocol,
    /// Empty where all targets are meant.
    target: &'a str,
    tally: &'a Tally,
    is_next: bool,
}

const LEVEL: Column = Column { name: "Level", shows: Shows::Level };
const PROTOCOL: Column = Column { name: "", shows: Shows::Protocol };
const TARGET: Column = Column { name: "Target", shows: Shows::Target };
const CONNECTIONS: Column = figure("Conns", |entry| count(entry.level.outcome.level.connections as u64));
const OFFERED: &str = "Offered/s";
const OFFERED_OPEN: Column = figure(OFFERED, |entry| count(entry.level.outcome.level.rate));
const OFFERED_CLOSED: Column = figure(OFFERED, |_| "closed".to_owned());
const ANSWERS: [Column; 4] = [
    figure("Sent", |entry| count(entry.tally.sent)),
    figure("Answered", |entry| count(entry.tally.answered)),
    figure("Success", |entry| success(entry.tally)),
    figure("Answers/s", |entry| rounded(entry.level.per_second(entry.tally))),
];
const P50: Column = figure("p50", |entry| latency(&entry.tally.latency_ns, 0.5));
const P90: Column = figure("p90", |entry| latency(&entry.tally.latency_ns, 0.9));
const P99: Column = figure("p99", |entry| latency(&entry.tally.latency_ns, 0.99));
const P999: Column = figure("p99.9", |entry| latency(&entry.tally.latency_ns, 0.999));
const MAX: Column = figure("max", |entry| latency(&entry.tally.latency_ns, 1.0));
const AGE_P50: Column = figure("Age p50", |entry| age(&entry.tally.age_ms, 0.5));
const AGE_P99: Column = figure("Age p99", |entry| age(&entry.tally.age_ms, 0.99));
const COSTS: [Column; 5] = [
    level_figure("Generator cores", |level| cores(level.generator_cores())),
    level_figure("CPU per request", |level| us(level.generator_us_per_request())),
    level_figure("Behind p99", |level| latency(&level.outcome.behind_ns, 0.99)),
    level_figure("Server cores", |level| level.server.map_or_else(|| "-".to_owned(), |server| cores(server.cores()))),
    level_figure("CPU per request", |level| us(level.server.and_then(|server| server.us_per_request()))),
];

const fn figure(name: &'static str, text: fn(&Entry<'_>) -> String) -> Column {
    Column { name, shows: Shows::Figure(text) }
}

const fn level_figure(name: &'static str, text: fn(&LevelFinding) -> String) -> Column {
    Column { name, shows: Shows::LevelFigure(text) }
}

/// A latency's quantile; `-` when nothing was answered.
#[must_use]
pub fn latency(histogram: &Histogram<u64>, quantile: f64) -> String {
    at(histogram, quantile, time)
}

/// A price's age at a quantile; `-` when nothing was answered.
fn age(histogram: &Histogram<u64>, quantile: f64) -> String {
    at(histogram, quantile, |ms| format!("{} ms", count(ms)))
}

fn at(histogram: &Histogram<u64>, quantile: f64, text: fn(u64) -> String) -> String {
    if histogram.is_empty() { "-".to_owned() } else { text(histogram.value_at_quantile(quantile)) }
}

impl Column {
    /// Whether its cells are words, and not figures to compare with those above and below.
    #[must_use]
    pub fn is_text(&self) -> bool {
        matches!(self.shows, Shows::Level | Shows::Protocol | Shows::Target)
    }

    fn cell(&self, entry: &Entry<'_>) -> Cell {
        match self.shows {
            Shows::Level => Cell::Level(entry.level.outcome.level.number),
            Shows::Protocol => Cell::Protocol(entry.protocol),
            Shows::Target => Cell::Name(entry.target.to_owned()),
            Shows::Figure(text) => Cell::Figure(text(entry)),
            Shows::LevelFigure(_) if entry.is_next => Cell::Figure(String::new()),
            Shows::LevelFigure(text) => Cell::Figure(text(entry.level)),
            Shows::Trouble(of) => Cell::Trouble(of(entry.tally)),
        }
    }
}

impl Table {
    fn new<'a>(title: &'static str, columns: Vec<Column>, entries: impl Iterator<Item = Entry<'a>>) -> Self {
        let row = |entry: Entry<'_>| Row {
            is_next: entry.is_next,
            cells: columns.iter().map(|column| column.cell(&entry)).collect(),
        };
        let rows = entries.map(row).collect();
        Self { title, columns, rows }
    }
}

/// The tables of `run`, in order; none when no level ran.
#[must_use]
pub fn of(run: &Run) -> Vec<Table> {
    if run.levels.is_empty() {
        return Vec::new();
    }
    let offered = if run.job.pace == Pace::Open { OFFERED_OPEN } else { OFFERED_CLOSED };
    let troubles = REASONS.map(|(name, of)| Column { name, shows: Shows::Trouble(of) });
    let levels = [LEVEL, PROTOCOL, CONNECTIONS, offered];
    let latencies = [P50, P90, P99, P999, MAX, AGE_P50, AGE_P99];
    let mut tables = vec![
        Table::new("All levels", [&levels[..], &ANSWERS, &latencies].concat(), totals(run)),
        Table::new(
            "What did not succeed, and what it cost",
            [&[LEVEL, PROTOCOL][..], &troubles, &COSTS].concat(),
            totals(run),
        ),
    ];
    if run.job.targets.len() > 1 {
        let latencies = [P50, P99, P999, MAX, AGE_P99];
        let columns = [&[LEVEL, PROTOCOL, TARGET][..], &ANSWERS, &latencies, &troubles].concat();
        tables.push(Table::new("By target", columns, by_target(run)));
    }
    tables
}

fn totals(run: &Run) -> impl Iterator<Item = Entry<'_>> {
    run.levels.iter().flat_map(|level| {
        let entries = level.totals().enumerate();
        entries.map(move |(index, (protocol, tally))| Entry { level, protocol, target: "", tally, is_next: index > 0 })
    })
}

fn by_target(run: &Run) -> impl Iterator<Item = Entry<'_>> {
    run.levels.iter().flat_map(|level| {
        let entries = level.by_target().enumerate();
        entries.map(move |(index, (protocol, target, tally))| Entry {
            level,
            protocol,
            target,
            tally,
            is_next: index > 0,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_level_s_own_figures_stand_once() {
        let tables = of(&sample::run(&[1, 11], &Protocol::ALL, 1));
        assert_eq!(tables.len(), 2);
        for row in &tables[1].rows {
            let costs = &row.cells[row.cells.len() - COSTS.len()..];
            let is_empty = |cell: &Cell| matches!(cell, Cell::Figure(text) if text.is_empty());
            assert!(costs.iter().all(|cell| is_empty(cell) == row.is_next));
        }
    }

    #[test]
    fn a_row_has_a_cell_for_each_column_and_its_words_come_first() {
        let mut run = sample::run(&[1, 11], &Protocol::ALL, 3);
        run.job.pace = Pace::Closed;
        let tables = of(&run);
        assert_eq!(tables.len(), 3);
        for table in &tables {
            assert!(table.columns.is_sorted_by_key(|column| !column.is_text()), "{}", table.title);
            assert!(table.rows.iter().all(|row| row.cells.len() == table.columns.len()), "{}", table.title);
            let first: Vec<bool> = table.rows.iter().map(|row| !row.is_next).collect();
            assert_eq!(first.iter().filter(|is_first| **is_first).count(), 2, "{}", table.title);
        }
        let offered = tables[0].columns.iter().position(|column| column.name == OFFERED).expect("a column");
        let is_closed = |row: &Row| matches!(&row.cells[offered], Cell::Figure(text) if text == "closed");
        assert!(tables[0].rows.iter().all(is_closed));
    }
}
