//! What a level found: one tally for each target and protocol.

use crate::plan::Level;
use hdrhistogram::Histogram;
use std::fmt;
use std::time::{Duration, Instant};

/// Longest latency that is told apart, ns: a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Oldest price that is told apart, ms: a day.
const AGE_MS_MAX: u64 = 86_400_000;

/// Counts of one protocol at one target, the warm-up left out. Every request sent ends in exactly one of `answered`,
/// `late`, `wrong`, `refused` and `lost`.
#[derive(Clone)]
pub struct Tally {
    /// Requests whose intended time was in the counted time and that were sent.
    pub sent: u64,
    /// Requests whose intended time came but that could not be sent: no connection, or no room in the pipeline, until they
    /// would have been lost.
    pub unsent: u64,
    /// Right answers in time.
    pub answered: u64,
    /// Right answers in time that came in the counted time, whenever they were asked for: what a rate is told by. The
    /// others came after it, or were asked for in the warm-up.
    pub answered_within: u64,
    /// Right answers that took longer than allowed.
    pub late: u64,
    /// Answers that are not what was asked for: status, asset, id, signature, sequence gone back, or too old.
    pub wrong: u64,
    /// Answers that refuse: 401, 403, 429, 503 and their kin over UDP.
    pub refused: u64,
    /// Never answered: the time is over, or the connection broke.
    pub lost: u64,
    /// Connections that the server broke or refused while the level ran.
    pub broken: u64,
    /// From the intended send time (closed loop: from sending) to the arrival of every right answer, ns.
    pub latency_ns: Histogram<u64>,
    /// `age_ms` of every right answer.
    pub age_ms: Histogram<u64>,
    /// Bytes of answers.
    pub bytes_in: u64,
    /// The first few things that went wrong, a line each, at most [`FAULTS_KEPT`].
    pub faults: Vec<String>,
}

/// Lines of what went wrong that are kept in one tally.
pub const FAULTS_KEPT: usize = 5;

impl Default for Tally {
    fn default() -> Self {
        let histogram = |max| Histogram::new_with_bounds(1, max, 3).expect("fixed bounds that fit together");
        Self {
            sent: 0,
            unsent: 0,
            answered: 0,
            answered_within: 0,
            late: 0,
            wrong: 0,
            refused: 0,
            lost: 0,
            broken: 0,
            latency_ns: histogram(LATENCY_NS_MAX),
            age_ms: histogram(AGE_MS_MAX),
            bytes_in: 0,
            faults: Vec::new(),
        }
    }
}

impl fmt::Debug for Tally {
    /// The counts: a histogram's twenty thousand numbers tell nobody anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, unsent, answered, late, wrong, refused, lost, broken, bytes_in, faults, .. } = self;
        let counts = format_args!(
            "sent {sent}, unsent {unsent}, answered {answered}, late {late}, wrong {wrong}, refused {refused}, \
             lost {lost}, broken {broken}, bytes in {bytes_in}"
        );
        f.debug_tuple("Tally").field(&counts).field(faults).finish()
    }
}

impl Tally {
    /// Adds what another thread or target counted.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.answered += other.answered;
        self.answered_within += other.answered_within;
        self.late += other.late;
        self.wrong += other.wrong;
        self.refused += other.refused;
        self.lost += other.lost;
        self.broken += other.broken;
        self.latency_ns.add(&other.latency_ns).expect("the same bounds");
        self.age_ms.add(&other.age_ms).expect("the same bounds");
        self.bytes_in += other.bytes_in;
        let room = FAULTS_KEPT.saturating_sub(self.faults.len());
        self.faults.extend(other.faults.iter().take(room).cloned());
    }

    /// Right answers in time per hundred requests that were due; `None` when none was.
    #[must_use]
    pub fn success_percent(&self) -> Option<f64> {
        let due = self.sent + self.unsent;
        (due > 0).then(|| self.answered as f64 * 100.0 / due as f64)
    }
}

/// What one target did in a level.
#[derive(Clone, Debug, Default)]
pub struct TargetOutcome {
    /// [`crate::job::Target::name`].
    pub name: String,
    /// Over TCP, if driven.
    pub tcp: Option<Tally>,
    /// Over UDP, if driven.
    pub udp: Option<Tally>,
}

/// What one level found.
#[derive(Clone, Debug)]
pub struct LevelOutcome {
    /// Which.
    pub level: Level,
    /// When the counted time began; later than now when it was stopped before.
    pub counted_from: Instant,
    /// Time counted; shorter than asked for when it was stopped.
    pub elapsed: Duration,
    /// One for each target, in their order.
    pub targets: Vec<TargetOutcome>,
    /// How far behind its schedule the generator itself sent, ns: what it does to a latency is the generator's own doing.
    pub behind_ns: Histogram<u64>,
    /// CPU time the generator's threads used while counting.
    pub generator_cpu: Duration,
    /// Time the generator's threads were ready to run while counting but had no CPU, over all of them; zero where the kernel
    /// does not count it. What it makes of a latency shows nowhere else.
    pub generator_delay: Duration,
    /// Stopped before its time.
    pub stopped: bool,
}

/// A histogram for [`LevelOutcome::behind_ns`].
#[must_use]
pub fn behind_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("fixed bounds that fit together")
}
