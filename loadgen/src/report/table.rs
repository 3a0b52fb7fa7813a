//! What a run ends with, in plain text: its tables laid out in columns, then what else there is to say, a line each.
//!
//! What stands in the tables is not known here.

use super::condition::Verdict;
use super::figures::{cores, count, rounded, success};
use super::run::{LevelFinding, Protocol, Run};
use super::tables::{self, Cell, REASONS, Table, latency};
use crate::outcome::Tally;
use std::fmt::Write;

/// Space between two columns.
const GAP: &str = "  ";

/// The whole report as text.
#[must_use]
pub fn render(run: &Run) -> String {
    let tables: Vec<String> = tables::of(run).iter().map(lay_out).collect();
    let mut out = if tables.is_empty() { "No level was run.\n".to_owned() } else { tables.join("\n") };
    notes(run, &mut out);
    out
}

/// The head and a line for each row, words to the left and figures to the right of their columns.
fn lay_out(table: &Table) -> String {
    let head: Vec<String> = table.columns.iter().map(|column| column.name.to_uppercase()).collect();
    let rows = table.rows.iter().map(|row| row.cells.iter().map(text).collect());
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).zip(&table.columns).map(|((cell, &width), column)| {
            if column.is_text() { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let line = cells.collect::<Vec<_>>().join(GAP);
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Level(number) => number.to_string(),
        Cell::Protocol(protocol) => protocol.to_string(),
        Cell::Name(text) | Cell::Figure(text) => text.clone(),
        Cell::Trouble(number) => count(*number),
    }
}

/// A line for each condition; where it failed is told on stderr, and in the page.
fn required(run: &Run) -> Vec<String> {
    let line = |verdicts: &[Verdict]| {
        let held = verdicts.iter().filter(|verdict| verdict.held).count();
        let all = if held == verdicts.len() { "held" } else { "FAILED" };
        format!("Required: {} {all} ({held} of {})", verdicts[0].condition, verdicts.len())
    };
    run.verdicts.chunk_by(|one, next| one.condition == next.condition).map(line).collect()
}

/// What else there is to say, a line each, after an empty one.
fn notes(run: &Run, out: &mut String) {
    let mut lines = run.remarks();
    if let Some(idle) = run.machine.server_idle_cores.filter(|_| run.levels.iter().any(|level| level.server.is_some()))
    {
        lines.push(format!(
            "The server used {} cores before it was asked anything; that is part of its figures.",
            cores(idle)
        ));
    }
    lines.extend(run.machine.noise.iter().map(|noise| format!("Before the run, {noise}.")));
    lines.extend(run.faults().map(|(place, fault)| format!("At {place}: {fault}")));
    lines.extend(required(run));
    if !lines.is_empty() {
        out.push('\n');
    }
    for line in lines {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{line}");
    }
}

/// One level in one line for each protocol, for those who watch a run go by.
#[must_use]
pub fn level_lines(level: &LevelFinding) -> Vec<String> {
    let line = |(protocol, tally): (Protocol, &Tally)| {
        let mut line = format!(
            "level {:>2} {protocol}: {} sent, {} answered ({}), {}/s, p50 {}, p99 {}, max {}",
            level.outcome.level.number,
            count(tally.sent),
            count(tally.answered),
            success(tally),
            rounded(level.per_second(tally)),
            latency(&tally.latency_ns, 0.5),
            latency(&tally.latency_ns, 0.99),
            latency(&tally.latency_ns, 1.0),
        );
        for (name, number) in REASONS.map(|(name, of)| (name, of(tally))).iter().filter(|(_, number)| *number > 0) {
            // Writing to a string does not fail.
            let _ = write!(line, ", {} {}", name.to_lowercase(), count(*number));
        }
        line
    };
    level.totals().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::LEVELS;
    use crate::report::condition::{Condition, judge};
    use crate::report::sample;
    use std::time::Duration;

    #[test]
    fn every_level_and_protocol_has_a_row_of_the_same_width() {
        let numbers: Vec<u32> = LEVELS.iter().map(|level| level.number).collect();
        let text = render(&sample::run(&numbers, &Protocol::ALL, 3));
        let rows = |protocol: &str| text.lines().filter(|line| line.contains(protocol)).count();
        // Twice for the two first tables, and once for each of three targets; level 11 tells a fault of each target.
        assert_eq!((rows(" TCP "), rows(" UDP ")), (13 * 5 + 3, 13 * 5 + 3), "{text}");
        let first: Vec<&str> = text.split("\n\n").next().expect("a table").lines().collect();
        let width = first[0].chars().count();
        assert!(first.iter().all(|line| line.chars().count() == width), "{text}");
        assert!(!text.contains("generator's limit"), "{text}");
    }

    #[test]
    fn what_was_never_answered_has_no_latency() {
        let text = render(&sample::silent());
        let row = text.lines().nth(1).expect("a row");
        assert!(row.contains("0 %") && row.trim_end().ends_with('-'), "{text}");
        assert!(text.contains("no longer takes connections"), "{text}");
    }

    #[test]
    fn a_generator_that_cannot_keep_up_is_named() {
        let mut run = sample::run(&[1, 2], &[Protocol::Tcp], 1);
        let mut late = run.levels[1].outcome.clone();
        late.behind_ns.saturating_record_n(9_000_000, 9_000);
        run.levels[1] = LevelFinding::new(late, Duration::ZERO, None);
        let text = render(&run);
        assert!(text.contains("(level 2: it sent 9") && !text.contains("level 1:"), "{text}");
        run.levels[0].outcome.generator_cpu = run.levels[0].outcome.elapsed;
        assert!(render(&run).contains("level 1: its 1 thread had no time left"));
    }

    #[test]
    fn a_condition_is_one_line() {
        let mut run = sample::run(&[1, 2], &Protocol::ALL, 1);
        let conditions = ["success>=90", "L2:max<1ns"].map(|text| Condition::parse(text).expect(text));
        run.verdicts = judge(&conditions, &run);
        let text = render(&run);
        assert!(text.contains("Required: success>=90 held (4 of 4)\n"), "{text}");
        assert!(text.contains("Required: L2:max<1ns FAILED (0 of 2)\n"), "{text}");
    }

    #[test]
    fn a_line_for_a_level_names_only_what_went_wrong() {
        let run = sample::run(&[1, 11], &[Protocol::Udp], 1);
        let quiet = level_lines(&run.levels[0]).join("\n");
        assert!(quiet.contains("100 %") && !quiet.contains("lost"), "{quiet}");
        let loud = level_lines(&run.levels[1]).join("\n");
        assert!(loud.contains("lost 7") && loud.contains("wrong 2"), "{loud}");
    }
}
