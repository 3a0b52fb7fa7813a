//! What a whole run found, as values: how it was driven, on what machine, and each level's outcome with what was seen
//! beside it.
//!
//! Every report is made from this and from nothing else; how the figures came about is not known here.

use super::condition::Verdict;
use crate::job::Job;
use crate::outcome::{LevelOutcome, Tally, TargetOutcome};
use crate::plan::Level;
use std::fmt;
use std::time::{Duration, SystemTime};
use tuning::noise::Noise;

/// The generator's own lateness is worth a word from here on, ns: below it no latency that people look at is moved.
const BEHIND_NS_TOLD: u64 = 100_000;

/// Share of its threads' time, per hundred, from which a generator is called busy throughout.
const BUSY_PERCENT: f64 = 95.0;

/// What requests travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 over TCP.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// Both, in the order of every report.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// In JSON and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// What `target` did over it; `None` when it was not driven.
    #[must_use]
    pub fn tally(self, target: &TargetOutcome) -> Option<&Tally> {
        match self {
            Self::Tcp => target.tcp.as_ref(),
            Self::Udp => target.udp.as_ref(),
        }
    }

    /// Whether `job` drives it.
    #[must_use]
    pub fn is_driven_by(self, job: &Job) -> bool {
        job.targets.iter().any(|target| match self {
            Self::Tcp => target.tcp.is_some(),
            Self::Udp => target.udp.is_some(),
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// How the run came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every level ran.
    Complete,
    /// Someone stopped it; what was found until then is kept.
    Stopped,
    /// It could not go on, for this reason.
    Failed(String),
}

/// Where the generator ran.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Release of the kernel; empty when not told.
    pub kernel: String,
    /// What the CPU calls itself; empty when not told.
    pub cpu_model: String,
    /// CPUs this process may use.
    pub cpus_allowed: usize,
    /// How long each of those CPUs keeps anyone waiting all by itself, heard before the run; empty when not heard.
    pub noise: Vec<Noise>,
    /// CPUs' worth of time the server used before it was asked anything; `None` when it is not on this machine.
    pub server_idle_cores: Option<f64>,
}

/// CPU time of the server's processes on this machine while a level ran, its warm-up included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerCpu {
    /// User and system time used.
    pub cpu: Duration,
    /// Within this time.
    pub over: Duration,
    /// Requests that ended within it, however they ended; `None` when some went to a server that is not among these.
    pub requests: Option<u64>,
}

impl ServerCpu {
    /// CPUs' worth of time.
    #[must_use]
    pub fn cores(&self) -> f64 {
        self.cpu.as_secs_f64() / self.over.as_secs_f64().max(f64::EPSILON)
    }

    /// CPU time per request, µs; `None` when there was none, or it is not known whose they were.
    #[must_use]
    pub fn us_per_request(&self) -> Option<f64> {
        let requests = self.requests.filter(|requests| *requests > 0)?;
        Some(self.cpu.as_secs_f64() * 1e6 / requests as f64)
    }
}

/// One level.
#[derive(Clone, Debug)]
pub struct LevelFinding {
    /// What the clients found.
    pub outcome: LevelOutcome,
    /// When its counted time began, after the run's begin.
    pub began_after: Duration,
    /// What it cost the server; `None` when that is not on this machine.
    pub server: Option<ServerCpu>,
    totals: [Option<Tally>; 2],
}

impl LevelFinding {
    /// Adds up the targets.
    #[must_use]
    pub fn new(outcome: LevelOutcome, began_after: Duration, server: Option<ServerCpu>) -> Self {
        let totals = Protocol::ALL.map(|protocol| {
            let mut tallies = outcome.targets.iter().filter_map(|target| protocol.tally(target));
            let mut total = tallies.next()?.clone();
            tallies.for_each(|tally| total.add(tally));
            Some(total)
        });
        Self { outcome, began_after, server, totals }
    }

    /// All targets' tallies over one protocol; `None` when it was not driven.
    #[must_use]
    pub fn total(&self, protocol: Protocol) -> Option<&Tally> {
        self.totals[protocol as usize].as_ref()
    }

    /// The driven protocols' totals, in order.
    pub fn totals(&self) -> impl Iterator<Item = (Protocol, &Tally)> {
        Protocol::ALL.into_iter().filter_map(|protocol| Some((protocol, self.total(protocol)?)))
    }

    /// Each target's tally over each driven protocol, protocol by protocol.
    pub fn by_target(&self) -> impl Iterator<Item = (Protocol, &str, &Tally)> {
        Protocol::ALL.into_iter().flat_map(|protocol| {
            let targets = self.outcome.targets.iter();
            targets.filter_map(move |target| Some((protocol, target.name.as_str(), protocol.tally(target)?)))
        })
    }

    /// Right answers in time per second of the counted time, by when they came: what came after it is not of its rate.
    #[must_use]
    pub fn per_second(&self, tally: &Tally) -> f64 {
        tally.answered_within as f64 / self.outcome.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// CPUs' worth of time that the generator used.
    #[must_use]
    pub fn generator_cores(&self) -> f64 {
        self.outcome.generator_cpu.as_secs_f64() / self.outcome.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// CPUs' worth of time that the generator waited for, ready to run.
    #[must_use]
    pub fn generator_delay_cores(&self) -> f64 {
        self.outcome.generator_delay.as_secs_f64() / self.outcome.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// CPU time of the generator per request it sent, µs; `None` when it sent none.
    #[must_use]
    pub fn generator_us_per_request(&self) -> Option<f64> {
        let sent: u64 = self.totals().map(|(_, tally)| tally.sent).sum();
        (sent > 0).then(|| self.outcome.generator_cpu.as_secs_f64() * 1e6 / sent as f64)
    }

    /// Why this level's figures are the generator's limit and not the server's; `None` when they are the server's.
    ///
    /// They are the generator's when it sent so late that half of the 99th percentile of a latency is its own doing, or
    /// when its `threads` had no time left, because they used it all or others had their CPUs.
    #[must_use]
    pub fn generator_limit(&self, threads: usize) -> Option<String> {
        let behind_ns = self.outcome.behind_ns.value_at_quantile(0.99);
        let latency_ns = self.totals().filter(|(_, tally)| !tally.latency_ns.is_empty());
        let latency_ns = latency_ns.map(|(_, tally)| tally.latency_ns.value_at_quantile(0.99)).min().unwrap_or(0);
        if behind_ns >= BEHIND_NS_TOLD && behind_ns.saturating_mul(2) >= latency_ns {
            return Some(format!("it sent {} late at p99 by its own schedule", super::figures::time(behind_ns)));
        }
        let busy_percent = self.generator_cores() * 100.0 / threads.max(1) as f64;
        let delay_percent = self.generator_delay_cores() * 100.0 / threads.max(1) as f64;
        (busy_percent + delay_percent >= BUSY_PERCENT).then(|| {
            let plural = if threads == 1 { "" } else { "s" };
            let waited =
                if delay_percent >= 1.0 { format!(", {delay_percent:.0} % waiting for a CPU") } else { String::new() };
            format!("its {threads} thread{plural} had no time left ({busy_percent:.0} % busy{waited})")
        })
    }
}

/// A run, from its settings to its end.
#[derive(Clone, Debug)]
pub struct Run {
    /// How every level was driven.
    pub job: Job,
    /// The levels that were meant to run.
    pub planned: Vec<Level>,
    /// Where the generator ran.
    pub machine: Machine,
    /// When the first level began.
    pub began: SystemTime,
    /// Those that ran, in order.
    pub levels: Vec<LevelFinding>,
    /// How it ended.
    pub ending: Ending,
    /// What was required, and whether it was met.
    pub verdicts: Vec<Verdict>,
}

impl Run {
    /// Threads that generate.
    #[must_use]
    pub fn threads(&self) -> usize {
        if self.job.cpus.is_empty() { self.job.threads } else { self.job.cpus.len() }
    }

    /// The driven protocols, in order.
    pub fn protocols(&self) -> impl Iterator<Item = Protocol> {
        Protocol::ALL.into_iter().filter(|protocol| protocol.is_driven_by(&self.job))
    }

    /// What a reader must know to judge the figures, a line each.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        match &self.ending {
            Ending::Complete => {}
            Ending::Stopped => remarks.push(format!(
                "Stopped before its end: {} of {} levels ran, the last one perhaps in part.",
                self.levels.len(),
                self.planned.len()
            )),
            Ending::Failed(why) => remarks.push(format!("Ended early: {why}")),
        }
        let limit = |level: &LevelFinding| Some((level.outcome.level.number, level.generator_limit(self.threads())?));
        let limits: Vec<String> =
            self.levels.iter().filter_map(limit).map(|(level, why)| format!("level {level}: {why}")).collect();
        if !limits.is_empty() {
            remarks.push(format!(
                "Some figures are the generator's limit, not the server's ({}). Give it CPUs of its own (--threads, --cpus), \
                 or another machine.",
                limits.join("; ")
            ));
        }
        remarks
    }

    /// What went wrong, as the clients told it: level, protocol and target, then the line.
    pub fn faults(&self) -> impl Iterator<Item = (String, &str)> {
        self.levels.iter().flat_map(|level| {
            level.by_target().flat_map(|(protocol, name, tally)| {
                let place = format!("level {} {protocol} {name}", level.outcome.level.number);
                tally.faults.iter().map(move |fault| (place.clone(), fault.as_str()))
            })
        })
    }
}
