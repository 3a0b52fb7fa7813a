//! Our load generator beside wrk: what an answered request costs whoever asks, against the same server.
//!
//! Both are processes of their own on the generator's CPU, 64 connections, one request in flight on each, no schedule.
//! Cost is all CPU time of the process from start to end, as the kernel tells it to whoever waits for it, so each pays
//! for its own start. Ours checks the asset in every answer; wrk looks at the status only, and asks for one asset.

use crate::child::{self, Server};
use crate::command;
use crate::loads::CLIENTS;
use crate::plane;
use crate::process::{self, Process};
use crate::results::Spread;
use crate::settings::Settings;
use crate::{Cpus, Interruption};
use dataplane_engine::Engine;
use loadgen::job::{Credentials, DatagramFormat, Job, Pace, Progress, Target};
use loadgen::level;
use loadgen::plan::Level;
use serde_json::{Value, json};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// First argument of our generator's process.
const ROLE: &str = "generator";

/// Longest wait for an answer: nothing here takes a hundredth of that.
const PATIENCE: Duration = Duration::from_secs(10);

/// Oldest price: those of a server that gets no quotes are as old as the run, which lasts an hour at most.
const PRICE_AGE_MAX: Duration = Duration::from_secs(3_600);

/// What our generator is told.
pub struct Order {
    target: SocketAddr,
    cpu: Option<usize>,
    seconds: u64,
}

impl Order {
    fn to_arguments(&self) -> Vec<String> {
        let cpu = self.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
        vec![ROLE.to_owned(), self.target.to_string(), cpu, self.seconds.to_string()]
    }

    /// The order in the arguments of this process, if it was started as a generator.
    pub fn from_arguments(arguments: &[String]) -> Option<Self> {
        let [role, target, cpu, seconds] = arguments else { return None };
        let (target, seconds) = (target.parse().ok()?, seconds.parse().ok()?);
        (role == ROLE).then(|| Self { target, cpu: cpu.parse().ok(), seconds })
    }
}

/// Runs the process to its end: it asks, and says how many answers were right. What runs is a level of `trinity-stress`
/// with `--closed`, with everything that it checks and counts.
pub fn run(order: &Order) -> io::Result<()> {
    let target = Target { name: order.target.to_string(), tcp: Some(order.target), udp: None };
    let job = Job {
        targets: vec![target],
        credentials: Credentials { key: plane::key_text(0), ..Credentials::default() },
        pace: Pace::Closed,
        pipeline: 1,
        train: 1,
        format: DatagramFormat::default(),
        assets: (0..plane::ASSETS).map(plane::symbol).collect(),
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(order.seconds),
        late_after: PATIENCE,
        lost_after: PATIENCE,
        age_max: PRICE_AGE_MAX,
        cpus: order.cpu.into_iter().collect(),
        threads: 1,
    };
    // A closed loop does not look at the rate.
    let level = Level { number: 1, connections: CLIENTS, rate: 1 };
    let outcome = level::run(&job, &level, &Progress::default()).map_err(io::Error::other)?;
    let Some(tally) = outcome.targets.into_iter().find_map(|target| target.tcp) else {
        return Err(io::Error::other("the level drove nothing"));
    };
    let failed = tally.late + tally.wrong + tally.refused + tally.lost + tally.broken;
    if failed > 0 {
        return Err(io::Error::other(format!("{failed} answers were not right: {}", tally.faults.join("; "))));
    }
    process::answer(&tally.answered.to_string(), |_| Err(io::Error::other("there is nothing to ask")))
}

/// What one round found: CPU time of each generator per right answer, ns.
struct Round {
    ours_ns: f64,
    wrk_ns: f64,
}

impl Round {
    /// One after the other, `ours_first` or last: every other round the other way about.
    fn measure(wrk: &Path, order: &Order, ours_first: bool) -> io::Result<Self> {
        if ours_first {
            let ours_ns = ours(order)?;
            return Ok(Self { ours_ns, wrk_ns: wrk_of(wrk, order)? });
        }
        let wrk_ns = wrk_of(wrk, order)?;
        Ok(Self { ours_ns: ours(order)?, wrk_ns })
    }
}

/// What all rounds found, for each engine that served.
#[derive(Default)]
pub struct Generators {
    rounds: Vec<(Engine, Vec<Round>)>,
    /// What wrk says it is.
    pub version: Option<String>,
}

impl Generators {
    /// Requests per CPU-second of ours over those of wrk.
    pub fn gains(&self) -> Vec<(Engine, Option<Spread>)> {
        let gain = |rounds: &[Round]| Spread::of(rounds.iter().map(|round| round.wrk_ns / round.ours_ns).collect());
        self.rounds.iter().map(|(engine, rounds)| (*engine, gain(rounds))).collect()
    }

    /// CPU time per right answer: the engine, ours, wrk's.
    pub fn costs(&self) -> Vec<(Engine, Option<Spread>, Option<Spread>)> {
        let of = |rounds: &[Round], of: fn(&Round) -> f64| Spread::of(rounds.iter().map(of).collect());
        let costs = |(engine, rounds): &(Engine, Vec<Round>)| {
            (*engine, of(rounds, |round| round.ours_ns), of(rounds, |round| round.wrk_ns))
        };
        self.rounds.iter().map(costs).collect()
    }

    pub fn to_json(&self) -> Value {
        let row = |(engine, ours, wrk): (Engine, Option<Spread>, Option<Spread>)| {
            let [ours, wrk] = [ours, wrk].map(|spread| spread.map(Spread::to_json));
            json!({"server": engine.name(), "ours_cpu_ns": ours, "wrk_cpu_ns": wrk})
        };
        self.costs().into_iter().map(row).collect()
    }
}

/// Compares them; and says if there is no wrk.
pub fn compare(
    settings: &Settings,
    cpus: Cpus,
    interruption: &Interruption,
) -> io::Result<(Generators, Option<String>)> {
    let engines = [Engine::IoUring, Engine::Epoll];
    let Some(wrk) = command::find("wrk") else {
        let rounds = engines.map(|engine| (engine, Vec::new())).into();
        return Ok((Generators { rounds, version: None }, Some("wrk: not installed; Debian has it as wrk".to_owned())));
    };
    // wrk counts in whole seconds.
    let seconds = settings.duration.as_millis().div_ceil(1_000) as u64;
    let mut servers = Vec::new();
    for engine in engines {
        servers.push((engine, Server::start(child::Order::plane(engine, cpus.server))?, Vec::new()));
    }
    for number in 0..settings.rounds {
        eprintln!("peers: generators, round {} of {}", number + 1, settings.rounds);
        for (_, server, rounds) in &mut servers {
            let order = Order { target: server.tcp, cpu: cpus.generator, seconds };
            let round = Round::measure(&wrk, &order, number % 2 == 0);
            interruption.check()?;
            rounds.push(round?);
        }
    }
    let rounds = servers.into_iter().map(|(engine, _, rounds)| (engine, rounds)).collect();
    let version = command::first_line(&wrk, "-v")?;
    Ok((Generators { rounds, version: Some(version) }, None))
}

/// CPU time of our generator per right answer, ns.
fn ours(order: &Order) -> io::Result<f64> {
    let before_ns = ended_children_ns()?;
    let mut process = Process::start(&order.to_arguments())?;
    let answered: u64 = process.line()?.parse().map_err(io::Error::other)?;
    // Waits for it.
    drop(process);
    Ok((ended_children_ns()? - before_ns) as f64 / answered as f64)
}

/// CPU time of wrk per answer, ns.
fn wrk_of(wrk: &Path, order: &Order) -> io::Result<f64> {
    let request = String::from_utf8_lossy(&plane::request(0)).into_owned();
    let mut lines = request.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or("/").to_owned();
    let mut command = command::command(wrk, order.cpu);
    command.args(["-t", "1", "-c", &CLIENTS.to_string(), "-d", &order.seconds.to_string()]);
    for field in lines.filter(|line| !line.is_empty()) {
        command.args(["-H", field]);
    }
    let before_ns = ended_children_ns()?;
    let output = command.arg(format!("http://{}{path}", order.target)).output()?;
    let used_ns = ended_children_ns()? - before_ns;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || said.contains("Non-2xx") || said.contains("Socket errors") {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("wrk was not answered as it should be: {said}{complaint}")));
    }
    let answered = said.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<u64>().ok());
    let answered = answered.ok_or_else(|| io::Error::other(format!("wrk does not say how many answers: {said}")))?;
    Ok(used_ns as f64 / answered as f64)
}

/// CPU time of all processes we started that have ended and were waited for, ns.
fn ended_children_ns() -> io::Result<u64> {
    // SAFETY: a plain C structure of integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is live and writable, the only memory the call touches.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let ns = |time: libc::timeval| (time.tv_sec * 1_000_000 + time.tv_usec) * 1_000;
    u64::try_from(ns(usage.ru_utime) + ns(usage.ru_stime)).map_err(io::Error::other)
}
