//! What the rounds found, as a table for people and as JSON for machines: medians over rounds.

use crate::listing::Listing;
use crate::loads::{Load, Sample};
use crate::median::median;
use crate::{Round, Settings};
use serde_json::{Value, json};
use std::io;

/// One engine under one load.
struct Row {
    engine: &'static str,
    load: Load,
    floor: Sample,
    plane: Sample,
    /// Median over rounds of data plane over floor, CPU per request; and its extremes.
    ratio: f64,
    ratio_range: (f64, f64),
}

pub fn show(rounds: &[Round], settings: &Settings) -> io::Result<()> {
    let rows: Vec<Row> = (0..rounds[0].len()).map(|index| row(rounds, index)).collect();
    let (count, millis) = (rounds.len(), settings.duration.as_millis());
    let title = format!("medians of {count} rounds of {millis} ms each; CPU of the serving thread per right answer");
    let head = [
        "load",
        "engine",
        "floor ns",
        "plane ns",
        "ratio",
        "(min to max)",
        "floor req/s",
        "plane req/s",
        "p50 µs",
        "p99 µs",
    ];
    let mut listing = Listing::new(title, &head);
    for row in &rows {
        let (floor, plane) = (&row.floor, &row.plane);
        listing.rows.push(vec![
            row.load.name().to_owned(),
            row.engine.to_owned(),
            format!("{:.0}", floor.cpu_ns),
            format!("{:.0}", plane.cpu_ns),
            format!("{:.3}", row.ratio),
            format!("({:.3}-{:.3})", row.ratio_range.0, row.ratio_range.1),
            format!("{:.0}", floor.rate),
            format!("{:.0}", plane.rate),
            format!("{:.1}", plane.p50_us),
            format!("{:.1}", plane.p99_us),
        ]);
    }
    let gains: Vec<(&str, f64, f64)> = ["io_uring", "epoll"].into_iter().filter_map(|name| gain(&rows, name)).collect();
    listing.remarks.extend(gains.iter().map(|(engine, rate, cpu)| {
        format!("16 deep against one at a time, {engine}: {rate:.1} × the rate, 1/{cpu:.1} of the CPU per request")
    }));
    listing.print()?;
    if let Some(path) = &settings.write {
        listing.append_to(path)?;
    }
    if let Some(path) = &settings.json {
        std::fs::write(path, to_json(&rows, &gains, settings).to_string())?;
    }
    Ok(())
}

fn row(rounds: &[Round], index: usize) -> Row {
    let (engine, load, ..) = rounds[0][index];
    let of = |value: &dyn Fn(&Sample, &Sample) -> f64| -> Vec<f64> {
        rounds.iter().map(|round| value(&round[index].2, &round[index].3)).collect()
    };
    let floor = Sample {
        cpu_ns: median(of(&|floor, _| floor.cpu_ns)),
        rate: median(of(&|floor, _| floor.rate)),
        p50_us: median(of(&|floor, _| floor.p50_us)),
        p99_us: median(of(&|floor, _| floor.p99_us)),
    };
    let plane = Sample {
        cpu_ns: median(of(&|_, plane| plane.cpu_ns)),
        rate: median(of(&|_, plane| plane.rate)),
        p50_us: median(of(&|_, plane| plane.p50_us)),
        p99_us: median(of(&|_, plane| plane.p99_us)),
    };
    let ratios = of(&|floor, plane| plane.cpu_ns / floor.cpu_ns);
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    Row { engine: engine.name(), load, floor, plane, ratio: median(ratios), ratio_range: (least, most) }
}

/// What pipelining gains an engine: rate over rate, and CPU over CPU.
fn gain<'a>(rows: &[Row], engine: &'a str) -> Option<(&'a str, f64, f64)> {
    let find = |load| rows.iter().find(|row| row.engine == engine && row.load == load);
    let (one, deep) = (find(Load::Tcp)?, find(Load::TcpPipelined)?);
    Some((engine, deep.plane.rate / one.plane.rate, one.plane.cpu_ns / deep.plane.cpu_ns))
}

fn to_json(rows: &[Row], gains: &[(&str, f64, f64)], settings: &Settings) -> Value {
    let sample = |sample: &Sample| json!({"cpu_ns": sample.cpu_ns, "requests_per_second": sample.rate, "p50_us": sample.p50_us, "p99_us": sample.p99_us});
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "load": row.load.name(), "engine": row.engine, "floor": sample(&row.floor), "plane": sample(&row.plane),
                "ratio": row.ratio, "ratio_min": row.ratio_range.0, "ratio_max": row.ratio_range.1,
            })
        })
        .collect();
    let gains: Vec<Value> = gains
        .iter()
        .map(|(engine, rate, cpu)| json!({"engine": engine, "pipelined_rate": rate, "pipelined_cpu": cpu}))
        .collect();
    json!({"rounds": settings.rounds, "millis": settings.duration.as_millis(), "rows": rows, "pipelining": gains})
}
