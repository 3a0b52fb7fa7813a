//! What the rounds found, as a table for people and as JSON for machines. Quantiles are medians over rounds.

use crate::listing::Listing;
use crate::median::median;
use crate::settings::Settings;
use crate::subject::{Found, Subject};
use crate::{CLIENTS, LISTENED};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::io;
use tuning::noise::Noise;

/// Longest that 99.9 % of answers may take, µs.
const GOAL_US: f64 = 1_000.0;

/// A quantile of each round in µs: their median and extremes.
struct Quantile {
    median: f64,
    least: f64,
    most: f64,
}

fn quantile(rounds: &[Found], of: fn(&Found) -> &Histogram<u64>, quantile: f64) -> Quantile {
    let values = rounds.iter().map(|found| of(found).value_at_quantile(quantile) as f64 / 1_000.0);
    let (least, most) = (values.clone().fold(f64::INFINITY, f64::min), values.clone().fold(0.0, f64::max));
    Quantile { median: median(values.collect()), least, most }
}

pub fn show(settings: &Settings, subjects: &[Subject], noises: &[Vec<Noise>]) -> io::Result<()> {
    let listing = listing(settings, subjects, noises);
    listing.print()?;
    if let Some(path) = &settings.write {
        listing.append_to(path)?;
    }
    if let Some(path) = &settings.json {
        std::fs::write(path, to_json(settings, subjects, noises).to_string())?;
    }
    Ok(())
}

fn listing(settings: &Settings, subjects: &[Subject], noises: &[Vec<Noise>]) -> Listing {
    let title = format!(
        "Latency at half of the peak rate, open schedule, from the moment a request was due: µs, medians of {} rounds of \
         {} ms",
        settings.rounds,
        settings.duration.as_millis()
    );
    let head = ["server", "req/s", "p50", "p99", "p99.9", "(min to max)", "p99.99", "generator late p99.9", "≤ 1 ms"];
    let mut listing = Listing::new(title, &head);
    for subject in subjects {
        let at = |part| quantile(&subject.rounds, |found| &found.latency_ns, part);
        let late = quantile(&subject.rounds, |found| &found.behind_ns, 0.999);
        let tail = at(0.999);
        let verdict = match (subject.is_floor(), tail.median <= GOAL_US) {
            (true, _) => "",
            (false, true) => "met",
            (false, false) => "missed",
        };
        listing.rows.push(vec![
            subject.name.clone(),
            subject.rate().to_string(),
            format!("{:.0}", at(0.5).median),
            format!("{:.0}", at(0.99).median),
            format!("{:.0}", tail.median),
            format!("({:.0}-{:.0})", tail.least, tail.most),
            format!("{:.0}", at(0.9999).median),
            format!("{:.0}", late.median),
            verdict.to_owned(),
        ]);
    }
    listing.remarks.push(format!(
        "{CLIENTS} connections or sockets, one request in flight on each; a floor answers the schedule of the data plane \
         above it and parses nothing"
    ));
    for cpu in 0..noises.first().map_or(0, Vec::len) {
        listing.remarks.push(noise_line(noises, cpu));
    }
    listing
}

/// What was heard on one CPU before, between and after the rounds.
fn noise_line(noises: &[Vec<Noise>], cpu: usize) -> String {
    let heard: Vec<&Noise> = noises.iter().filter_map(|all| all.get(cpu)).collect();
    let of = |value: fn(&Noise) -> u64| median(heard.iter().map(|noise| value(noise) as f64).collect());
    let longest = heard.iter().map(|noise| noise.longest_ns).max().unwrap_or(0) / 1_000;
    let number = heard.first().and_then(|noise| noise.cpu).map_or_else(|| "?".to_owned(), |cpu| cpu.to_string());
    format!(
        "CPU {number} with nobody asking ({} times {} ms, medians): work that arrives waits for it {:.0} µs at p99, {:.0} µs \
         at p99.9, {:.0} µs at p99.99; {:.1} % of the time is lost, {:.0} gaps a second are over 1 ms, the longest was \
         {longest} µs",
        heard.len(),
        LISTENED.as_millis(),
        of(|noise| noise.wait.p99_ns) / 1_000.0,
        of(|noise| noise.wait.p999_ns) / 1_000.0,
        of(|noise| noise.wait.p9999_ns) / 1_000.0,
        of(|noise| noise.lost_ppm) / 10_000.0,
        of(|noise| noise.gaps_over_1ms_per_s),
    )
}

fn to_json(settings: &Settings, subjects: &[Subject], noises: &[Vec<Noise>]) -> Value {
    let rows: Vec<Value> = subjects
        .iter()
        .map(|subject| {
            let at = |part| quantile(&subject.rounds, |found| &found.latency_ns, part);
            let tail = at(0.999);
            json!({
                "server": subject.name, "requests_per_second": subject.rate(), "peak": subject.peak,
                "p50_us": at(0.5).median, "p99_us": at(0.99).median, "p999_us": tail.median,
                "p999_min_us": tail.least, "p999_max_us": tail.most, "p9999_us": at(0.9999).median,
            })
        })
        .collect();
    json!({"rounds": settings.rounds, "millis": settings.duration.as_millis(), "rows": rows, "noise": noises})
}
