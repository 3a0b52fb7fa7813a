//! The page's tables: every level, and every target where there are several.

use super::escape::escape;
use crate::job::Pace;
use crate::outcome::Tally;
use crate::report::figures::{cores, count, rounded, success, time, us};
use crate::report::run::{LevelFinding, Protocol, Run};
use hdrhistogram::Histogram;
use std::fmt::Write;

/// Writes the tables with their headings.
pub fn write(run: &Run, out: &mut String) {
    out.push_str("<h2>All levels</h2>\n");
    all_levels(run, out);
    out.push_str("<h2>What did not succeed, and what it cost</h2>\n");
    troubles(run, out);
    if run.job.targets.len() > 1 {
        out.push_str("<h2>By target</h2>\n");
        by_target(run, out);
    }
}

fn head(texts: usize, names: &[&str], out: &mut String) {
    out.push_str("<div class=\"card scroll\"><table><thead><tr>");
    for (index, name) in names.iter().enumerate() {
        let class = if index < texts { " class=\"text\"" } else { "" };
        let _ = write!(out, "<th{class}>{name}</th>");
    }
    out.push_str("</tr></thead><tbody>\n");
}

const FOOT: &str = "</tbody></table></div>\n";

fn cell(text: &str, out: &mut String) {
    let _ = write!(out, "<td>{}</td>", escape(text));
}

fn row(is_first: bool, level: u32, protocol: Protocol, out: &mut String) {
    let class = if is_first { "first" } else { "next" };
    let number = if is_first { level.to_string() } else { String::new() };
    let _ = write!(
        out,
        "<tr class=\"{class}\"><td class=\"text\">{number}</td><td class=\"text\"><span class=\"tag {}\">{protocol}</span></td>",
        protocol.name()
    );
}

fn answers(level: &LevelFinding, tally: &Tally, out: &mut String) {
    cell(&count(tally.sent), out);
    cell(&count(tally.answered), out);
    cell(&success(tally), out);
    cell(&rounded(level.per_second(tally)), out);
}

fn quantiles(histogram: &Histogram<u64>, quantiles: &[f64], text: fn(u64) -> String, out: &mut String) {
    for &quantile in quantiles {
        let text = if histogram.is_empty() { "-".to_owned() } else { text(histogram.value_at_quantile(quantile)) };
        cell(&text, out);
    }
}

fn reasons(tally: &Tally, out: &mut String) {
    for number in [tally.wrong, tally.late, tally.lost, tally.refused, tally.unsent, tally.broken] {
        let class = if number == 0 { "zero" } else { "some" };
        let _ = write!(out, "<td class=\"{class}\">{}</td>", count(number));
    }
}

fn all_levels(run: &Run, out: &mut String) {
    let names = [
        "Level",
        "",
        "Conns",
        "Offered/s",
        "Sent",
        "Answered",
        "Success",
        "Answers/s",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "Age p50",
        "Age p99",
    ];
    head(2, &names, out);
    for level in &run.levels {
        for (index, (protocol, tally)) in level.totals().enumerate() {
            let outcome = &level.outcome;
            row(index == 0, outcome.level.number, protocol, out);
            cell(&count(outcome.level.connections as u64), out);
            cell(&if run.job.pace == Pace::Open { count(outcome.level.rate) } else { "closed".to_owned() }, out);
            answers(level, tally, out);
            quantiles(&tally.latency_ns, &[0.5, 0.9, 0.99, 0.999, 1.0], time, out);
            quantiles(&tally.age_ms, &[0.5, 0.99], |ms| format!("{} ms", count(ms)), out);
            out.push_str("</tr>\n");
        }
    }
    out.push_str(FOOT);
}

fn troubles(run: &Run, out: &mut String) {
    let names = [
        "Level",
        "",
        "Wrong",
        "Late",
        "Lost",
        "Refused",
        "Unsent",
        "Broken",
        "Generator cores",
        "CPU per request",
        "Behind p99",
        "Server cores",
        "CPU per request",
    ];
    head(2, &names, out);
    for level in &run.levels {
        for (index, (protocol, tally)) in level.totals().enumerate() {
            row(index == 0, level.outcome.level.number, protocol, out);
            reasons(tally, out);
            costs(index == 0, level, out);
            out.push_str("</tr>\n");
        }
    }
    out.push_str(FOOT);
}

/// What both protocols cost together; it stands in the first row only.
fn costs(is_first: bool, level: &LevelFinding, out: &mut String) {
    if !is_first {
        out.push_str("<td></td><td></td><td></td><td></td><td></td>");
        return;
    }
    cell(&cores(level.generator_cores()), out);
    cell(&us(level.generator_us_per_request()), out);
    quantiles(&level.outcome.behind_ns, &[0.99], time, out);
    cell(&level.server.map_or_else(|| "-".to_owned(), |server| cores(server.cores())), out);
    cell(&us(level.server.and_then(|server| server.us_per_request())), out);
}

fn by_target(run: &Run, out: &mut String) {
    let names = [
        "Level",
        "",
        "Target",
        "Sent",
        "Answered",
        "Success",
        "Answers/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "Age p99",
        "Wrong",
        "Late",
        "Lost",
        "Refused",
        "Unsent",
        "Broken",
    ];
    head(3, &names, out);
    for level in &run.levels {
        for (index, (protocol, name, tally)) in level.by_target().enumerate() {
            row(index == 0, level.outcome.level.number, protocol, out);
            let _ = write!(out, "<td class=\"text\">{}</td>", escape(name));
            answers(level, tally, out);
            quantiles(&tally.latency_ns, &[0.5, 0.99, 0.999, 1.0], time, out);
            quantiles(&tally.age_ms, &[0.99], |ms| format!("{} ms", count(ms)), out);
            reasons(tally, out);
            out.push_str("</tr>\n");
        }
    }
    out.push_str(FOOT);
}
