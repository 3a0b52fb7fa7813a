//! Which plots a page has, and what stands in them.

use super::plot::{Axis, Mark, Plot, Point, Series};
use crate::job::Pace;
use crate::outcome::Tally;
use crate::report::figures::{cores, count, percent, rounded, three_digits, time};
use crate::report::run::{LevelFinding, Protocol, Run};

/// Points of a distribution's curve to each nine of its percentile.
const POINTS_PER_NINE: u32 = 10;
/// Nines that the percentile axis shows: up to 99.999 %.
const NINES: u32 = 5;

/// The age axis goes up to this at least, ms: five lines of whole milliseconds.
const AGE_MS_SHOWN_MIN: f64 = 5.0;

/// Quantiles of a latency that have a line of their own.
const QUANTILES: [(&str, f64, &str); 5] = [
    ("p50", 0.5, "var(--p50)"),
    ("p90", 0.9, "var(--p90)"),
    ("p99", 0.99, "var(--p99)"),
    ("p99.9", 0.999, "var(--p999)"),
    ("max", 1.0, "var(--max)"),
];

/// A name, how many requests of a tally it is about, and a colour.
type Reason = (&'static str, fn(&Tally) -> u64, &'static str);

/// Why a request that was due has no right answer in time.
const REASONS: [Reason; 5] = [
    ("late", |tally| tally.late, "var(--p90)"),
    ("lost", |tally| tally.lost, "var(--max)"),
    ("refused", |tally| tally.refused, "var(--udp)"),
    ("wrong", |tally| tally.wrong, "var(--p999)"),
    ("unsent", |tally| tally.unsent, "var(--offered)"),
];

/// Writes every plot.
pub fn write(run: &Run, out: &mut String) {
    let mut plots = vec![rates(run), success(run)];
    plots.extend(run.protocols().map(|protocol| latencies(run, protocol)));
    plots.extend(run.protocols().map(|protocol| distributions(run, protocol)));
    plots.extend([ages(run), reasons(run), cpu_per_request(run), cpu(run)]);
    plots.iter().for_each(|plot| plot.write(out));
}

fn colour(protocol: Protocol) -> String {
    format!("var(--{})", protocol.name())
}

/// Where level number `index` of all levels stands.
fn place(run: &Run, index: usize) -> f64 {
    (index as f64 + 0.5) / run.levels.len().max(1) as f64
}

/// A plot with a place for each level.
fn by_level(run: &Run, title: &str, subtitle: &str, axis: Axis, series: Vec<Series>) -> Plot {
    let label = |(index, level): (usize, &LevelFinding)| (place(run, index), level.outcome.level.number.to_string());
    Plot {
        title: title.to_owned(),
        subtitle: subtitle.to_owned(),
        below: run.levels.iter().enumerate().map(label).collect(),
        below_name: "level",
        axis,
        empty: "nothing was answered",
        series,
    }
}

/// A series with a point for each level that has a value.
fn series(
    run: &Run,
    name: &str,
    colour: &str,
    mark: Mark,
    text: fn(f64) -> String,
    value: impl Fn(&LevelFinding) -> Option<f64>,
) -> Series {
    let point = |(index, level): (usize, &LevelFinding)| {
        let value = value(level)?;
        let told = format!("level {}, {name}: {}", level.outcome.level.number, text(value));
        Some(Point { at: place(run, index), value, told })
    };
    let points = run.levels.iter().enumerate().filter_map(point).collect();
    Series { name: name.to_owned(), colour: colour.to_owned(), mark, points }
}

fn highest(series: &[Series]) -> f64 {
    series.iter().flat_map(|series| &series.points).map(|point| point.value).fold(0.0, f64::max)
}

/// A logarithmic axis around everything in `series`.
fn log_axis(series: &[Series], label: fn(f64) -> String) -> Axis {
    Axis::log(series.iter().flat_map(|series| &series.points).map(|point| point.value), label)
}

/// `500k`, `1.5M`.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        _ if value >= 1e6 => (value / 1e6, "M"),
        _ if value >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    format!("{}{unit}", (value * 100.0).round() / 100.0)
}

/// With as many decimals as it needs, six at most.
fn plain(value: f64) -> String {
    ((value * 1e6).round() / 1e6).to_string()
}

fn plain_percent(value: f64) -> String {
    format!("{} %", plain(value))
}

fn time_of(ns: f64) -> String {
    time(ns.round() as u64)
}

fn per_second(rate: f64) -> String {
    format!("{}/s", rounded(rate))
}

fn rates(run: &Run) -> Plot {
    let answered = |protocol: Protocol| {
        series(run, &format!("{protocol} answered"), &colour(protocol), Mark::Bars, per_second, |level| {
            Some(level.per_second(level.total(protocol)?))
        })
    };
    let mut all: Vec<Series> = run.protocols().map(answered).collect();
    let subtitle = if run.job.pace == Pace::Open {
        all.push(series(run, "offered to each", "var(--offered)", Mark::Dashes, per_second, |level| {
            Some(level.outcome.level.rate as f64)
        }));
        "right answers per second, beside what was asked"
    } else {
        "right answers per second, as fast as they came"
    };
    by_level(run, "Offered and answered", subtitle, Axis::linear(highest(&all), short), all)
}

/// A line for each of both protocols, neither hidden by the other where they agree.
fn mark(run: &Run, protocol: Protocol) -> Mark {
    if protocol == Protocol::Tcp && run.protocols().count() > 1 { Mark::Under } else { Mark::Dots }
}

fn success(run: &Run) -> Plot {
    let of = |protocol: Protocol| {
        series(run, &protocol.to_string(), &colour(protocol), mark(run, protocol), percent, |level| {
            level.total(protocol)?.success_percent()
        })
    };
    let all: Vec<Series> = run.protocols().map(of).collect();
    let lowest = all.iter().flat_map(|series| &series.points).map(|point| point.value).fold(100.0, f64::min);
    // So that a thousandth is seen where nothing worse happened.
    let from = [99.9, 99.0, 95.0, 90.0, 50.0].into_iter().find(|from| lowest >= *from).unwrap_or(0.0);
    let axis = Axis::between(from, 100.0, plain_percent);
    by_level(run, "Success", "right answers in time, of all requests that were due", axis, all)
}

fn latencies(run: &Run, protocol: Protocol) -> Plot {
    let line = |(name, quantile, colour): (&str, f64, &str)| {
        series(run, name, colour, Mark::Dots, time_of, |level| {
            let latency = &level.total(protocol)?.latency_ns;
            (!latency.is_empty()).then(|| latency.value_at_quantile(quantile) as f64)
        })
    };
    let all: Vec<Series> = QUANTILES.into_iter().map(line).collect();
    let subtitle = match run.job.pace {
        Pace::Open => "from the intended send time, logarithmic",
        Pace::Closed => "from sending (closed loop), logarithmic",
    };
    by_level(run, &format!("{protocol}: latency by level"), subtitle, log_axis(&all, time_of), all)
}

/// A line for each level; the axis below gives every further nine the same room.
fn distributions(run: &Run, protocol: Protocol) -> Plot {
    let count = run.levels.len().max(2) as f64 - 1.0;
    let line = |(index, level): (usize, &LevelFinding)| {
        let hue = 185.0 + 155.0 * index as f64 / count;
        let number = level.outcome.level.number;
        Series {
            name: format!("level {number}"),
            colour: format!("hsl({hue:.0} 62% 54%)"),
            mark: Mark::Line,
            points: level.total(protocol).map(|tally| curve(number, tally)).unwrap_or_default(),
        }
    };
    let all: Vec<Series> = run.levels.iter().enumerate().map(line).collect();
    let nines =
        (0..=NINES).map(|nine| (f64::from(nine) / f64::from(NINES), percent(100.0 - 10_f64.powi(2 - nine as i32))));
    Plot {
        title: format!("{protocol}: latency distribution"),
        subtitle: "one line per level, logarithmic both ways".to_owned(),
        below: nines.collect(),
        below_name: "percentile",
        axis: log_axis(&all, time_of),
        empty: "nothing was answered",
        series: all,
    }
}

fn curve(number: u32, tally: &Tally) -> Vec<Point> {
    let latency = &tally.latency_ns;
    let mut points = Vec::new();
    for step in 0..=NINES * POINTS_PER_NINE {
        let nines = f64::from(step) / f64::from(POINTS_PER_NINE);
        let above = 10_f64.powf(-nines);
        // Beyond this the line would only repeat the one slowest answer.
        if above * latency.len() as f64 * 2.0 < 1.0 {
            break;
        }
        let value = latency.value_at_quantile(1.0 - above) as f64;
        let told = if step % POINTS_PER_NINE == 0 {
            format!("level {number}, {}: {}", percent(100.0 - above * 100.0), time_of(value))
        } else {
            String::new()
        };
        points.push(Point { at: nines / f64::from(NINES), value, told });
    }
    points
}

fn ages(run: &Run) -> Plot {
    let text = |ms: f64| format!("{} ms", count(ms.round() as u64));
    let mut all = Vec::new();
    for protocol in run.protocols() {
        for (name, quantile, mark) in [("p99", 0.99, mark(run, protocol)), ("p50", 0.5, Mark::Dashes)] {
            all.push(series(run, &format!("{protocol} {name}"), &colour(protocol), mark, text, |level| {
                let age = &level.total(protocol)?.age_ms;
                (!age.is_empty()).then(|| age.value_at_quantile(quantile) as f64)
            }));
        }
    }
    by_level(
        run,
        "Freshness",
        "age of the prices that were answered",
        Axis::linear(highest(&all).max(AGE_MS_SHOWN_MIN), text),
        all,
    )
}

fn reasons(run: &Run) -> Plot {
    let mut all = Vec::new();
    for protocol in run.protocols() {
        for (name, of, colour) in REASONS {
            let mark = if protocol == Protocol::Tcp { Mark::Dots } else { Mark::Dashes };
            let line = series(run, &format!("{protocol} {name}"), colour, mark, percent, |level| {
                let tally = level.total(protocol)?;
                Some(of(tally) as f64 * 100.0 / (tally.sent + tally.unsent).max(1) as f64)
            });
            if line.points.iter().any(|point| point.value > 0.0) {
                all.push(line);
            }
        }
    }
    let axis = Axis::linear(highest(&all).max(0.000_1), plain_percent);
    let mut plot = by_level(run, "What did not succeed, and why", "of all requests that were due", axis, all);
    plot.empty = "every request was answered right and in time";
    plot
}

fn us(value: f64) -> String {
    format!("{} µs", three_digits(value))
}

fn cpu_per_request(run: &Run) -> Plot {
    let all = with_server(
        run,
        us,
        |level| level.server.and_then(|server| server.us_per_request()),
        LevelFinding::generator_us_per_request,
        Mark::Dots,
    );
    by_level(run, "CPU time per request", "of the whole process, logarithmic", log_axis(&all, us), all)
}

fn cpu(run: &Run) -> Plot {
    let generator = |level: &LevelFinding| Some(level.generator_cores());
    let all = with_server(run, cores, |level| level.server.map(|server| server.cores()), generator, Mark::Bars);
    by_level(run, "CPU in use", "cores", Axis::linear(highest(&all).max(0.01), plain), all)
}

/// The server's line, where it is on this machine, and the generator's.
fn with_server(
    run: &Run,
    text: fn(f64) -> String,
    server: fn(&LevelFinding) -> Option<f64>,
    generator: fn(&LevelFinding) -> Option<f64>,
    mark: Mark,
) -> Vec<Series> {
    let mut all = Vec::new();
    if run.levels.iter().any(|level| level.server.is_some()) {
        all.push(series(run, "server", "var(--server)", mark, text, server));
    }
    all.push(series(run, "generator", "var(--generator)", mark, text, generator));
    all
}
