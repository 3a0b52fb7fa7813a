//! Runs made up for the tests of the reports: every report is shown the same ones.

use super::run::{Ending, LevelFinding, Machine, Protocol, Run, ServerCpu};
use crate::job::{Credentials, DatagramFormat, Job, Pace, Target};
use crate::outcome::{LevelOutcome, Tally, TargetOutcome, behind_histogram};
use crate::plan::{LEVELS, Level};
use shared::asset::Symbol;
use std::net::SocketAddr;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// A secret that must not show in any report.
pub const SECRET: &str = "canary-key-5150";

fn job(protocols: &[Protocol], targets: usize) -> Job {
    let address = |port: u16, index: usize| Some(SocketAddr::from(([127, 0, 0, 1], port + index as u16)));
    let target = |index| Target {
        name: format!("node-{index}<&\">"),
        tcp: protocols.contains(&Protocol::Tcp).then(|| address(8_080, index)).flatten(),
        udp: protocols.contains(&Protocol::Udp).then(|| address(2_679, index)).flatten(),
    };
    Job {
        targets: (0..targets).map(target).collect(),
        credentials: Credentials { key: SECRET.to_owned(), udp_key_id: 2, udp_secret: *b"canary-secret-16" },
        pace: Pace::Open,
        pipeline: 1,
        train: 1,
        format: DatagramFormat::Binary,
        assets: ["BTC", "ETH"].iter().filter_map(|name| Symbol::new(name.as_bytes())).collect(),
        warm_up: Duration::from_secs(1),
        duration: Duration::from_secs(10),
        late_after: Duration::from_secs(1),
        lost_after: Duration::from_secs(2),
        age_max: Duration::from_secs(60),
        cpus: Vec::new(),
        threads: 1,
    }
}

/// A tally in which every request is in one column; latencies grow with the level and its load.
fn tally(level: Level, targets: usize, protocol: Protocol) -> Tally {
    let mut tally = Tally::default();
    let due = level.rate * 10 / targets as u64;
    let overload = due.saturating_sub(2_000_000 / targets as u64);
    tally.unsent = overload / 2;
    tally.sent = due - tally.unsent;
    tally.late = overload / 4;
    tally.answered = tally.sent - tally.late;
    if level.number == 11 {
        (tally.lost, tally.wrong, tally.broken) = (7, 2, 1);
        tally.answered -= 9;
        tally.faults.push("a connection broke: <connection reset>".to_owned());
    }
    tally.answered_within = tally.answered;
    let slower = if protocol == Protocol::Udp { 1 } else { 2 };
    for step in 0..1_000_u64 {
        let tail = if step > 900 { (step - 900) * (step - 900) * 300 } else { step * 40 };
        let latency_ns = 20_000 * slower + tail * u64::from(level.number) * slower;
        let queue_ns = if overload > 0 { step * 900_000 } else { 0 };
        tally.latency_ns.saturating_record_n(latency_ns + queue_ns, (tally.answered / 1_000).max(1));
        tally.age_ms.saturating_record_n(1 + step * step / 900, (tally.answered / 1_000).max(1));
    }
    tally.bytes_in = tally.answered * 64;
    tally
}

fn finding(level: Level, protocols: &[Protocol], targets: &[Target]) -> LevelFinding {
    let of = |protocol| protocols.contains(&protocol).then(|| tally(level, targets.len(), protocol));
    let target =
        |target: &Target| TargetOutcome { name: target.name.clone(), tcp: of(Protocol::Tcp), udp: of(Protocol::Udp) };
    let mut behind_ns = behind_histogram();
    behind_ns.saturating_record_n(4_000 * u64::from(level.number), 1_000);
    let outcome = LevelOutcome {
        level,
        counted_from: Instant::now(),
        elapsed: Duration::from_secs(10),
        targets: targets.iter().map(target).collect(),
        behind_ns,
        generator_cpu: Duration::from_millis(200 + level.rate / 60),
        generator_delay: Duration::ZERO,
        stopped: false,
    };
    let requests = level.rate * 11 * protocols.len() as u64;
    let cpu = Duration::from_millis(110) + Duration::from_nanos(requests * 2_600);
    let server = ServerCpu { cpu, over: Duration::from_secs(11), requests: Some(requests) };
    LevelFinding::new(outcome, Duration::from_secs(u64::from(level.number) * 12), Some(server))
}

/// The plan's levels of these numbers, driven over these protocols at so many targets.
pub fn run(numbers: &[u32], protocols: &[Protocol], targets: usize) -> Run {
    let job = job(protocols, targets);
    let planned: Vec<Level> = LEVELS.into_iter().filter(|level| numbers.contains(&level.number)).collect();
    let levels = planned.iter().map(|level| finding(*level, protocols, &job.targets)).collect();
    let machine = Machine {
        kernel: "6.18.0".to_owned(),
        cpu_model: "Some CPU <3 GHz>".to_owned(),
        cpus_allowed: 2,
        noise: vec![tuning::noise::listen_here(tuning::noise::LISTENED_MIN)],
        server_idle_cores: Some(0.01),
    };
    let began = UNIX_EPOCH + Duration::from_millis(1_793_500_000_123);
    Run { job, planned, machine, began, levels, ending: Ending::Complete, verdicts: Vec::new() }
}

/// One level over TCP in which nothing was answered, at the end of which its target was gone.
pub fn silent() -> Run {
    let mut silent = run(&[1], &[Protocol::Tcp], 1);
    let mut outcome = silent.levels[0].outcome.clone();
    outcome.behind_ns = behind_histogram();
    outcome.targets[0].tcp = Some(Tally { sent: 100, lost: 100, broken: 8, ..Tally::default() });
    silent.levels[0] = LevelFinding::new(outcome, Duration::ZERO, None);
    silent.ending = Ending::Failed("node-0 no longer takes connections".to_owned());
    silent
}
