//! What the rounds found, as a table for people and as JSON for machines: medians over rounds.

use crate::loads::Sample;
use crate::median::median;
use crate::{ACTIVE, Settings, Subject};
use serde_json::{Value, json};
use std::io::{self, Write};

pub fn show(settings: &Settings, idle: usize, subjects: &[Subject]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let millis = settings.duration.as_millis();
    writeln!(
        out,
        "{ACTIVE} active connections, alone and beside {idle} idle ones: medians of {} rounds of {millis} ms each",
        settings.rounds
    )?;
    writeln!(
        out,
        "{:<9} {:>15} {:>11} {:>12} {:>6} {:>13} {:>11} {:>12} {:>11} {:>12}",
        "engine",
        "bytes/idle conn",
        "alone ns",
        "beside ns",
        "ratio",
        "(min to max)",
        "alone req/s",
        "beside req/s",
        "alone p99",
        "beside p99"
    )?;
    for subject in subjects {
        let row = Row::of(subject, idle);
        writeln!(
            out,
            "{:<9} {:>15.0} {:>11.0} {:>12.0} {:>6.3} {:>13} {:>11.0} {:>12.0} {:>11.1} {:>12.1}",
            subject.engine,
            row.bytes,
            row.alone.cpu_ns,
            row.beside.cpu_ns,
            row.ratio,
            format!("({:.3}-{:.3})", row.ratio_range.0, row.ratio_range.1),
            row.alone.rate,
            row.beside.rate,
            row.alone.p99_us,
            row.beside.p99_us
        )?;
    }
    writeln!(out, "ns: CPU of the serving thread per right answer. p99: of the active clients, µs")?;
    for subject in subjects {
        let (engine, grown, later) = (subject.engine, subject.grown / 1_024, subject.grown_later / 1_024);
        writeln!(
            out,
            "{engine}: the server grew by {grown} KiB when {idle} came, and by {later} KiB in all when they came again"
        )?;
    }
    if let Some(path) = &settings.json {
        std::fs::write(path, to_json(settings, idle, subjects).to_string())?;
    }
    Ok(())
}

struct Row {
    bytes: f64,
    alone: Sample,
    beside: Sample,
    /// Median over rounds of CPU per request beside over alone; and its extremes.
    ratio: f64,
    ratio_range: (f64, f64),
}

impl Row {
    fn of(subject: &Subject, idle: usize) -> Self {
        let (alone, beside): (Vec<Sample>, Vec<Sample>) = subject.rounds.iter().copied().unzip();
        let ratios: Vec<f64> = subject.rounds.iter().map(|(alone, beside)| beside.cpu_ns / alone.cpu_ns).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        Self {
            bytes: subject.grown as f64 / idle as f64,
            alone: middle(&alone),
            beside: middle(&beside),
            ratio: median(ratios),
            ratio_range: (least, most),
        }
    }
}

/// The median of each figure.
fn middle(samples: &[Sample]) -> Sample {
    let of = |value: &dyn Fn(&Sample) -> f64| median(samples.iter().map(value).collect());
    Sample {
        cpu_ns: of(&|sample| sample.cpu_ns),
        rate: of(&|sample| sample.rate),
        p50_us: of(&|sample| sample.p50_us),
        p99_us: of(&|sample| sample.p99_us),
    }
}

fn to_json(settings: &Settings, idle: usize, subjects: &[Subject]) -> Value {
    let sample = |sample: &Sample| json!({"cpu_ns": sample.cpu_ns, "requests_per_second": sample.rate, "p50_us": sample.p50_us, "p99_us": sample.p99_us});
    let rows: Vec<Value> = subjects
        .iter()
        .map(|subject| {
            let row = Row::of(subject, idle);
            json!({
                "engine": subject.engine, "bytes_per_idle_connection": row.bytes,
                "grown_bytes": subject.grown, "grown_later_bytes": subject.grown_later,
                "alone": sample(&row.alone), "beside": sample(&row.beside),
                "ratio": row.ratio, "ratio_min": row.ratio_range.0, "ratio_max": row.ratio_range.1,
            })
        })
        .collect();
    json!({"rounds": settings.rounds, "millis": settings.duration.as_millis(), "active": ACTIVE, "idle": idle, "rows": rows})
}
