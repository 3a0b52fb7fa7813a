//! What the runs found, as a table for people and as JSON for machines.

use crate::median::median;
use crate::{Outside, Run, Settings};
use dataplane_engine::LagHistogram;
use serde_json::{Value, json};
use std::io::{self, Write};

/// One engine with so many shards, over all its runs.
struct Row {
    engine: &'static str,
    shards: usize,
    /// Quotes sent a second.
    rate: f64,
    quotes: u64,
    refused: u64,
    conflated: u64,
    /// Prices that every shard should have taken and did not, over all shards.
    missing: u64,
    /// µs: medians over the runs.
    p50: f64,
    p99: f64,
    p999: f64,
    /// µs: the least and the most that a run's p99 was.
    p99_range: (f64, f64),
    /// µs: of all runs.
    max: f64,
    feed_us: f64,
    shards_us: f64,
}

pub fn show(settings: &Settings, runs: &[Run], outside: &[Outside]) -> io::Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    for run in runs {
        if !rows.iter().any(|row| (row.engine, row.shards) == (run.engine, run.shards)) {
            let same = |other: &&Run| (other.engine, other.shards) == (run.engine, run.shards);
            rows.push(row(&runs.iter().filter(same).collect::<Vec<_>>()));
        }
    }
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} runs each of {} s; frame received → in the table of every shard, µs; medians of the runs' quantiles",
        settings.rounds,
        settings.duration.as_secs()
    )?;
    writeln!(
        out,
        "{:<9} {:>6} {:>9} {:>8} {:>8} {:>15} {:>8} {:>9} {:>13} {:>15}",
        "engine",
        "shards",
        "quotes/s",
        "p50",
        "p99",
        "(min to max)",
        "p99.9",
        "max",
        "feed µs/quote",
        "shards µs/quote"
    )?;
    for row in &rows {
        let range = format!("({:.1}-{:.1})", row.p99_range.0, row.p99_range.1);
        writeln!(
            out,
            "{:<9} {:>6} {:>9.0} {:>8.1} {:>8.1} {:>15} {:>8.1} {:>9.1} {:>13.2} {:>15.2}",
            row.engine, row.shards, row.rate, row.p50, row.p99, range, row.p999, row.max, row.feed_us, row.shards_us
        )?;
        if row.refused + row.conflated + row.missing > 0 {
            writeln!(
                out,
                "  of {} quotes {} were refused by the channel; {} prices were conflated, {} not seen by a shard",
                row.quotes, row.refused, row.conflated, row.missing
            )?;
        }
    }
    for Outside { engine, shards, latency } in outside {
        let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
        let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), at(1.0));
        writeln!(
            out,
            "frame received → answered by every shard, {engine}, {shards} shards, {} samples, µs: p50 {p50:.1}  \
             p99 {p99:.1}  p99.9 {p999:.1}  max {max:.1}",
            latency.len()
        )?;
    }
    if let Some(path) = &settings.json {
        std::fs::write(path, to_json(settings, &rows, outside).to_string())?;
    }
    Ok(())
}

fn row(runs: &[&Run]) -> Row {
    let first = runs[0];
    let of = |value: &dyn Fn(&Run) -> f64| -> Vec<f64> { runs.iter().map(|run| value(run)).collect() };
    let sum = |value: &dyn Fn(&Run) -> u64| -> u64 { runs.iter().map(|run| value(run)).sum() };
    let p99 = of(&|run| at(run, 10));
    let expected = |run: &Run| (run.sent.quotes - run.sent.refused) * run.shards as u64;
    let all = runs.iter().fold(LagHistogram::default(), |all, run| all.with(&run.lag));
    Row {
        engine: first.engine,
        shards: first.shards,
        rate: median(of(&|run| run.sent.quotes as f64 / run.sent.took.as_secs_f64())),
        quotes: sum(&|run| run.sent.quotes),
        refused: sum(&|run| run.sent.refused),
        conflated: sum(&|run| run.conflated),
        missing: sum(&|run| expected(run).saturating_sub(run.ticks)),
        p50: median(of(&|run| at(run, 500))),
        p99: median(p99.clone()),
        p999: median(of(&|run| at(run, 1))),
        p99_range: (p99.iter().copied().fold(f64::INFINITY, f64::min), p99.iter().copied().fold(0.0, f64::max)),
        max: micros(all.quantile_ns(1, 1)),
        feed_us: median(of(&|run| run.feed_ns)) / 1_000.0,
        shards_us: median(of(&|run| run.shards_ns)) / 1_000.0,
    }
}

/// The time within which all but `late` of a thousand prices were in every shard, µs: as many as that may be late in
/// some shard, each in one of them.
fn at(run: &Run, late: u64) -> f64 {
    let thousand = 1_000 * run.shards as u64;
    micros(run.lag.quantile_ns(thousand - late, thousand))
}

fn micros(ns: Option<u64>) -> f64 {
    match ns {
        None => f64::NAN,
        Some(u64::MAX) => f64::INFINITY,
        Some(ns) => ns as f64 / 1_000.0,
    }
}

fn to_json(settings: &Settings, rows: &[Row], outside: &[Outside]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "engine": row.engine, "shards": row.shards, "quotes_per_second": row.rate, "quotes": row.quotes,
                "refused": row.refused, "conflated": row.conflated, "missing": row.missing,
                "us": {"p50": row.p50, "p99": row.p99, "p999": row.p999, "max": row.max},
                "p99_us_min": row.p99_range.0, "p99_us_max": row.p99_range.1,
                "feed_us_per_quote": row.feed_us, "shards_us_per_quote": row.shards_us,
            })
        })
        .collect();
    let outside: Vec<Value> = outside
        .iter()
        .map(|Outside { engine, shards, latency }| {
            let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
            json!({
                "engine": engine, "shards": shards, "samples": latency.len(),
                "us": {"p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1.0)},
            })
        })
        .collect();
    json!({"rounds": settings.rounds, "seconds": settings.duration.as_secs(), "every_shard": rows, "answered": outside})
}
