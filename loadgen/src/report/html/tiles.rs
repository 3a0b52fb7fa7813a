//! The figures that one looks for first, large.

use super::escape::escape;
use crate::job::Pace;
use crate::outcome::Tally;
use crate::report::figures::{cores, count, rounded, success, time, us};
use crate::report::run::{LevelFinding, Protocol, Run, ServerCpu};
use std::fmt::Write;

/// Success from which a level counts as carried.
const CARRIED_PERCENT: f64 = 99.9;

struct Tile {
    label: String,
    value: String,
    detail: String,
    /// `good`, `bad`, or nothing.
    class: &'static str,
}

/// Writes the tiles.
pub fn write(run: &Run, out: &mut String) {
    let mut tiles: Vec<Tile> = run.protocols().map(|protocol| highest(run, protocol)).collect();
    if run.job.pace == Pace::Open {
        tiles.extend(run.protocols().map(|protocol| carried(run, protocol)));
    }
    tiles.push(wrong(run));
    tiles.extend(server(run));
    tiles.extend(noise(run));
    out.push_str("<div class=\"tiles\">\n");
    for Tile { label, value, detail, class } in tiles {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "<div class=\"card tile\"><div class=\"label\">{}</div><div class=\"value {class}\">{}</div>\
             <div class=\"detail\">{}</div></div>",
            escape(&label),
            escape(&value),
            escape(&detail)
        );
    }
    out.push_str("</div>\n");
}

/// A protocol's levels with what they found over it.
fn levels(run: &Run, protocol: Protocol) -> impl Iterator<Item = (&LevelFinding, &Tally)> {
    run.levels.iter().filter_map(move |level| Some((level, level.total(protocol)?)))
}

fn highest(run: &Run, protocol: Protocol) -> Tile {
    let label = format!("{protocol} answers/s");
    let rate = |(level, tally): &(&LevelFinding, &Tally)| level.per_second(tally);
    match levels(run, protocol).max_by(|one, other| rate(one).total_cmp(&rate(other))) {
        Some((level, tally)) if tally.answered > 0 => Tile {
            label,
            value: rounded(level.per_second(tally)),
            detail: format!("level {}, {} success", level.outcome.level.number, success(tally)),
            class: "",
        },
        _ => Tile { label, value: "none".to_owned(), detail: "nothing was answered".to_owned(), class: "bad" },
    }
}

fn carried(run: &Run, protocol: Protocol) -> Tile {
    let label = format!("{protocol} at {CARRIED_PERCENT} % success");
    let carried =
        levels(run, protocol).filter(|(_, tally)| tally.success_percent().is_some_and(|it| it >= CARRIED_PERCENT));
    match carried.max_by_key(|(level, _)| level.outcome.level.rate) {
        Some((level, tally)) => Tile {
            label,
            value: format!("level {}", level.outcome.level.number),
            detail: format!(
                "{}/s, p99 {}",
                count(level.outcome.level.rate),
                time(tally.latency_ns.value_at_quantile(0.99))
            ),
            class: "good",
        },
        None => Tile { label, value: "none".to_owned(), detail: "no level reached it".to_owned(), class: "bad" },
    }
}

fn wrong(run: &Run) -> Tile {
    let sum =
        |of: fn(&Tally) -> u64| -> u64 { run.levels.iter().flat_map(LevelFinding::totals).map(|(_, it)| of(it)).sum() };
    let (wrong, checked) = (sum(|tally| tally.wrong), sum(|tally| tally.answered + tally.late + tally.wrong));
    let class = match (wrong, checked) {
        (0, 0) => "",
        (0, _) => "good",
        _ => "bad",
    };
    Tile {
        label: "Wrong answers".to_owned(),
        value: count(wrong),
        detail: format!("of {} checked", count(checked)),
        class,
    }
}

fn server(run: &Run) -> Option<Tile> {
    let per_second = |server: &ServerCpu| Some(server.requests? * 1_000 / server.over.as_millis().max(1) as u64);
    let known = run.levels.iter().filter_map(|level| Some((level, level.server?, per_second(&level.server?)?)));
    let (level, server, _) = known.max_by_key(|(_, _, per_second)| *per_second)?;
    Some(Tile {
        label: "Server CPU per request".to_owned(),
        value: us(server.us_per_request()),
        detail: format!("level {}, {} cores in use", level.outcome.level.number, cores(server.cores())),
        class: "",
    })
}

fn noise(run: &Run) -> Option<Tile> {
    let worst = run.machine.noise.iter().max_by_key(|noise| noise.wait.p999_ns)?;
    Some(Tile {
        label: "Machine's own noise".to_owned(),
        value: time(worst.wait.p999_ns),
        detail: format!("p99.9 wait for an idle CPU, longest {}", time(worst.longest_ns)),
        class: "",
    })
}
