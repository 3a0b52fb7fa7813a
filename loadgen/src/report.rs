//! What a run of the generator found, and the forms in which it is told.

pub mod condition;
pub mod figures;
pub mod hdr;
pub mod html;
pub mod json;
pub mod run;
#[cfg(test)]
mod sample;
pub mod table;
pub mod tables;

use hdrhistogram::Histogram;
use std::time::Duration;

/// Longest latency that is told apart, ns: a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Counts and latencies of one run, the warm-up left out.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// Requests sent.
    pub sent: u64,
    /// Right answers.
    pub answered: u64,
    /// Answers that refuse (429, 503, …).
    pub refused: u64,
    /// Answers that are not what was asked for.
    pub wrong: u64,
    /// Datagrams that were never answered.
    pub lost: u64,
    /// Time measured.
    pub elapsed: Duration,
    /// From sending to the answer's arrival, ns.
    pub latency_ns: Histogram<u64>,
    /// What whoever reads the figures should know: that trains were refused, for one.
    pub note: Option<String>,
}

impl LoadReport {
    pub(crate) fn new() -> Self {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("fixed bounds that fit together");
        Self { sent: 0, answered: 0, refused: 0, wrong: 0, lost: 0, elapsed: Duration::ZERO, latency_ns, note: None }
    }

    /// Right answers per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }
}

/// What one answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Right,
    Refused,
    Wrong,
}

impl LoadReport {
    pub(crate) fn count(&mut self, outcome: Outcome, latency_ns: u64) {
        match outcome {
            Outcome::Right => self.answered += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Wrong => self.wrong += 1,
        }
        self.latency_ns.saturating_record(latency_ns.max(1));
    }
}
