//! The tables that a run ends with, in plain text: latencies by level, then what went wrong and what it cost, then
//! each target by itself.

use super::condition::Verdict;
use super::figures::{cores, count, rounded, success, time, us};
use super::run::{LevelFinding, Protocol, Run};
use crate::job::Pace;
use crate::outcome::Tally;
use hdrhistogram::Histogram;
use std::fmt::Write;

/// Space between two columns.
const GAP: &str = "  ";

/// A table: a head and rows of as many cells each. The first columns are text, the others figures.
struct Table {
    head: Vec<&'static str>,
    texts: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(texts: usize, head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), texts, rows: Vec::new() }
    }

    fn write(&self, out: &mut String) {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.head[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let head: Vec<String> = self.head.iter().map(|&name| name.to_owned()).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column < self.texts { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let line = cells.collect::<Vec<_>>().join(GAP);
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
}

/// A latency's quantile as text; `-` when nothing was answered.
fn latency(histogram: &Histogram<u64>, quantile: f64) -> String {
    if histogram.is_empty() { "-".to_owned() } else { time(histogram.value_at_quantile(quantile)) }
}

/// A price's age at a quantile as text; `-` when nothing was answered.
fn age(histogram: &Histogram<u64>, quantile: f64) -> String {
    if histogram.is_empty() { "-".to_owned() } else { format!("{} ms", count(histogram.value_at_quantile(quantile))) }
}

/// The whole report as text.
#[must_use]
pub fn render(run: &Run) -> String {
    let mut out = String::new();
    if run.levels.is_empty() {
        out.push_str("No level was run.\n");
    } else {
        latencies(run).write(&mut out);
        out.push('\n');
        troubles(run).write(&mut out);
        if run.job.targets.len() > 1 {
            out.push('\n');
            targets(run).write(&mut out);
        }
    }
    notes(run, &mut out);
    out
}

fn latencies(run: &Run) -> Table {
    let mut table = Table::new(
        2,
        &[
            "LEVEL",
            "",
            "CONNS",
            "OFFERED/S",
            "SENT",
            "ANSWERED",
            "SUCCESS",
            "ANSWERS/S",
            "P50",
            "P90",
            "P99",
            "P99.9",
            "MAX",
            "AGE P50",
            "AGE P99",
        ],
    );
    for level in &run.levels {
        for (protocol, tally) in level.totals() {
            let mut row = vec![
                level.outcome.level.number.to_string(),
                protocol.to_string(),
                count(level.outcome.level.connections as u64),
                if run.job.pace == Pace::Open { count(level.outcome.level.rate) } else { "closed".to_owned() },
            ];
            row.extend(answers(level, tally));
            row.extend([0.5, 0.9, 0.99, 0.999, 1.0].map(|quantile| latency(&tally.latency_ns, quantile)));
            row.extend([0.5, 0.99].map(|quantile| age(&tally.age_ms, quantile)));
            table.rows.push(row);
        }
    }
    table
}

/// Sent, answered, success and rate.
fn answers(level: &LevelFinding, tally: &Tally) -> [String; 4] {
    [count(tally.sent), count(tally.answered), success(tally), rounded(level.per_second(tally))]
}

/// What did not succeed, by reason.
fn reasons(tally: &Tally) -> [String; 6] {
    [tally.wrong, tally.late, tally.lost, tally.refused, tally.unsent, tally.broken].map(count)
}

fn troubles(run: &Run) -> Table {
    let mut table = Table::new(
        2,
        &[
            "LEVEL",
            "",
            "WRONG",
            "LATE",
            "LOST",
            "REFUSED",
            "UNSENT",
            "BROKEN",
            "GENERATOR CORES",
            "CPU/REQUEST",
            "BEHIND P99",
            "SERVER CORES",
            "CPU/REQUEST",
        ],
    );
    for level in &run.levels {
        // What both protocols cost together stands once.
        for (index, (protocol, tally)) in level.totals().enumerate() {
            let mut row = vec![level.outcome.level.number.to_string(), protocol.to_string()];
            row.extend(reasons(tally));
            row.extend(if index == 0 { costs(level) } else { Default::default() });
            table.rows.push(row);
        }
    }
    table
}

/// CPU of the generator, how late it was, CPU of the server.
fn costs(level: &LevelFinding) -> [String; 5] {
    [
        cores(level.generator_cores()),
        us(level.generator_us_per_request()),
        latency(&level.outcome.behind_ns, 0.99),
        level.server.map_or_else(|| "-".to_owned(), |server| cores(server.cores())),
        us(level.server.and_then(|server| server.us_per_request())),
    ]
}

fn targets(run: &Run) -> Table {
    let mut table = Table::new(
        3,
        &[
            "LEVEL",
            "",
            "TARGET",
            "SENT",
            "ANSWERED",
            "SUCCESS",
            "ANSWERS/S",
            "P50",
            "P99",
            "P99.9",
            "MAX",
            "WRONG",
            "LATE",
            "LOST",
            "REFUSED",
            "UNSENT",
            "BROKEN",
        ],
    );
    for level in &run.levels {
        for (protocol, name, tally) in level.by_target() {
            let mut row = vec![level.outcome.level.number.to_string(), protocol.to_string(), name.to_owned()];
            row.extend(answers(level, tally));
            row.extend([0.5, 0.99, 0.999, 1.0].map(|quantile| latency(&tally.latency_ns, quantile)));
            row.extend(reasons(tally));
            table.rows.push(row);
        }
    }
    table
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
        let [sent, answered, success, rate] = answers(level, tally);
        let mut line = format!(
            "level {:>2} {protocol}: {sent} sent, {answered} answered ({success}), {rate}/s, p50 {}, p99 {}, max {}",
            level.outcome.level.number,
            latency(&tally.latency_ns, 0.5),
            latency(&tally.latency_ns, 0.99),
            latency(&tally.latency_ns, 1.0),
        );
        let names = ["wrong", "late", "lost", "refused", "unsent", "broken"];
        for (name, number) in names.into_iter().zip(reasons(tally)).filter(|(_, number)| number != "0") {
            // Writing to a string does not fail.
            let _ = write!(line, ", {name} {number}");
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
