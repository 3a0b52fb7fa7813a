//! The whole run as one JSON object, for programs: every figure in one unit, which its name tells last; no secret.
//!
//! The README lists the members. A member is there in every report; what was not measured is `null`.

use super::condition::Verdict;
use super::run::{Ending, LevelFinding, Protocol, Run, ServerCpu};
use crate::job::{DatagramFormat, Pace, Target};
use crate::outcome::Tally;
use crate::plan::Level;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::time::{Duration, UNIX_EPOCH};

/// Quantiles at which a latency's distribution is told: enough to draw its curve from, few enough to read.
pub const CURVE: [f64; 20] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999, 0.999_9, 0.999_99,
    1.0,
];

/// The run.
#[must_use]
pub fn render(run: &Run) -> Value {
    let (ended, why) = match &run.ending {
        Ending::Complete => ("complete", None),
        Ending::Stopped => ("stopped", None),
        Ending::Failed(why) => ("failed", Some(why)),
    };
    let levels: Vec<Value> = run.levels.iter().map(|level| level_of(run, level)).collect();
    json!({
        "tool": "trinity-stress",
        "version": env!("CARGO_PKG_VERSION"),
        "began_ms": run.began.duration_since(UNIX_EPOCH).map_or(0, ms),
        "ended": ended,
        "ended_why": why,
        "settings": settings(run),
        "machine": machine(run),
        "levels": levels,
        "remarks": run.remarks(),
        "required": run.verdicts.iter().map(verdict).collect::<Vec<_>>(),
    })
}

/// A plan by itself.
#[must_use]
pub fn plan(levels: &[Level]) -> Value {
    json!({ "levels": levels.iter().map(|level| Value::Object(offered(level))).collect::<Vec<_>>() })
}

fn offered(level: &Level) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("level".to_owned(), level.number.into());
    object.insert("connections".to_owned(), level.connections.into());
    object.insert("offered_per_second".to_owned(), level.rate.into());
    object
}

fn settings(run: &Run) -> Value {
    let job = &run.job;
    let target = |target: &Target| json!({ "name": target.name, "tcp": target.tcp, "udp": target.udp });
    json!({
        "targets": job.targets.iter().map(target).collect::<Vec<_>>(),
        "protocols": run.protocols().map(Protocol::name).collect::<Vec<_>>(),
        "pace": match job.pace { Pace::Open => "open", Pace::Closed => "closed" },
        "pipeline": job.pipeline,
        "train": job.train,
        "udp_format": match job.format { DatagramFormat::Binary => "binary", DatagramFormat::Json => "json" },
        "assets": job.assets.iter().map(shared::asset::Symbol::as_str).collect::<Vec<_>>(),
        "levels_planned": run.planned.iter().map(|level| level.number).collect::<Vec<_>>(),
        "warm_up_ms": ms(job.warm_up),
        "duration_ms": ms(job.duration),
        "late_ms": ms(job.late_after),
        "lost_ms": ms(job.lost_after),
        "age_max_ms": ms(job.age_max),
        "threads": run.threads(),
        "cpus": job.cpus,
    })
}

fn machine(run: &Run) -> Value {
    let machine = &run.machine;
    json!({
        "kernel": machine.kernel,
        "cpu_model": machine.cpu_model,
        "cpus_allowed": machine.cpus_allowed,
        "server_idle_cores": machine.server_idle_cores,
        "noise": machine.noise,
    })
}

fn level_of(run: &Run, level: &LevelFinding) -> Value {
    let outcome = &level.outcome;
    let mut object = offered(&outcome.level);
    object.insert("began_after_ms".to_owned(), ms(level.began_after).into());
    object.insert("elapsed_ms".to_owned(), ms(outcome.elapsed).into());
    object.insert("stopped".to_owned(), outcome.stopped.into());
    for protocol in Protocol::ALL {
        let tally = level.total(protocol).map(|tally| tally_of(level, tally));
        object.insert(protocol.name().to_owned(), tally.into());
    }
    let targets = outcome.targets.iter().map(|target| {
        let mut object = Map::new();
        object.insert("name".to_owned(), target.name.as_str().into());
        for protocol in Protocol::ALL {
            let tally = protocol.tally(target).map(|tally| tally_of(level, tally));
            object.insert(protocol.name().to_owned(), tally.into());
        }
        Value::Object(object)
    });
    object.insert("targets".to_owned(), targets.collect::<Vec<_>>().into());
    object.insert("generator".to_owned(), generator(run, level));
    object.insert("server".to_owned(), level.server.map(server).into());
    Value::Object(object)
}

fn generator(run: &Run, level: &LevelFinding) -> Value {
    let behind = &level.outcome.behind_ns;
    json!({
        "cores": level.generator_cores(),
        "delay_cores": level.generator_delay_cores(),
        "cpu_per_request_us": level.generator_us_per_request(),
        "behind_p50_ns": quantile(behind, 0.5),
        "behind_p99_ns": quantile(behind, 0.99),
        "behind_max_ns": quantile(behind, 1.0),
        "is_limit": level.generator_limit(run.threads()).is_some(),
    })
}

fn server(server: ServerCpu) -> Value {
    json!({
        "cores": server.cores(),
        "cpu_per_request_us": server.us_per_request(),
        "cpu_ms": ms(server.cpu),
        "over_ms": ms(server.over),
        "requests": server.requests,
    })
}

fn tally_of(level: &LevelFinding, tally: &Tally) -> Value {
    let latency = &tally.latency_ns;
    let curve = CURVE.map(|part| json!({ "percentile": part * 100.0, "latency_ns": quantile(latency, part) }));
    json!({
        "due": tally.sent + tally.unsent,
        "sent": tally.sent,
        "answered": tally.answered,
        "late": tally.late,
        "wrong": tally.wrong,
        "refused": tally.refused,
        "lost": tally.lost,
        "unsent": tally.unsent,
        "broken": tally.broken,
        "success_percent": tally.success_percent(),
        "answered_per_second": level.per_second(tally),
        "latency_mean_ns": (!latency.is_empty()).then(|| latency.mean().round() as u64),
        "latency_p50_ns": quantile(latency, 0.5),
        "latency_p90_ns": quantile(latency, 0.9),
        "latency_p99_ns": quantile(latency, 0.99),
        "latency_p99_9_ns": quantile(latency, 0.999),
        "latency_max_ns": quantile(latency, 1.0),
        "latency_curve": if latency.is_empty() { Vec::new() } else { curve.to_vec() },
        "age_p50_ms": quantile(&tally.age_ms, 0.5),
        "age_p99_ms": quantile(&tally.age_ms, 0.99),
        "age_max_ms": quantile(&tally.age_ms, 1.0),
        "answer_bytes": tally.bytes_in,
        "faults": tally.faults,
    })
}

fn verdict(verdict: &Verdict) -> Value {
    json!({
        "condition": verdict.condition,
        "level": verdict.place.map(|(level, _)| level),
        "protocol": verdict.place.map(|(_, protocol)| protocol.name()),
        "found": verdict.found,
        "held": verdict.held,
    })
}

fn quantile(histogram: &Histogram<u64>, quantile: f64) -> Option<u64> {
    (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::LEVELS;
    use crate::report::sample;

    #[test]
    fn every_request_is_in_one_column() {
        let object = render(&sample::run(&[1, 11, 13], &Protocol::ALL, 3));
        for level in object["levels"].as_array().expect("levels") {
            for protocol in ["tcp", "udp"] {
                let total = &level[protocol];
                let sum = |names: &[&str]| names.iter().map(|name| total[*name].as_u64().expect(name)).sum::<u64>();
                assert_eq!(sum(&["answered", "late", "wrong", "refused", "lost"]), sum(&["sent"]), "{total}");
                assert_eq!(sum(&["sent", "unsent"]), sum(&["due"]), "{total}");
                let targets = level["targets"].as_array().expect("targets").iter();
                assert_eq!(
                    targets.map(|target| target[protocol]["sent"].as_u64().expect("sent")).sum::<u64>(),
                    sum(&["sent"])
                );
            }
        }
    }

    #[test]
    fn no_secret_is_told() {
        let text = render(&sample::run(&[1], &Protocol::ALL, 1)).to_string();
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let object = render(&sample::silent());
        let level = &object["levels"][0];
        assert_eq!((&object["ended"], &level["udp"], &level["server"]), (&json!("failed"), &Value::Null, &Value::Null));
        assert_eq!(level["tcp"]["latency_p99_ns"], Value::Null);
        assert_eq!(level["tcp"]["lost"], 100);
    }

    #[test]
    fn a_plan_has_thirteen_levels() {
        let object = plan(&LEVELS);
        assert_eq!(object["levels"].as_array().map(Vec::len), Some(13));
        assert_eq!(object["levels"][12], json!({ "level": 13, "connections": 1_024, "offered_per_second": 500_000 }));
    }
}
