//! What the rounds found, server by server and load by load, and how two of them compare.

use crate::loads::{Load, Sample};
use crate::median::median;
use crate::subject::{Kind, Subject};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// A figure over rounds.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// Of one value for each round; `None` of nothing.
    pub fn of(values: Vec<f64>) -> Option<Self> {
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(values), least, most })
    }

    pub fn to_json(self) -> Value {
        json!({"median": self.median, "min": self.least, "max": self.most})
    }
}

impl fmt::Display for Spread {
    /// As many digits behind the point as are asked for, 3 otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(3);
        write!(f, "{:.digits$} ({:.digits$}-{:.digits$})", self.median, self.least, self.most)
    }
}

/// Everything that was measured; of each server and load one sample for each round, in their order.
pub struct Results {
    /// The servers, and what a peer says it is.
    pub servers: Vec<(Kind, Option<String>)>,
    samples: BTreeMap<(Load, usize), Vec<Sample>>,
}

impl Results {
    pub fn new(subjects: &[Subject]) -> Self {
        let servers = subjects.iter().map(|subject| (subject.kind, subject.version.clone())).collect();
        Self { servers, samples: BTreeMap::new() }
    }

    pub fn add(&mut self, load: Load, server: usize, sample: Sample) {
        self.samples.entry((load, server)).or_default().push(sample);
    }

    /// A server's samples under a load; none when it was not measured.
    pub fn samples(&self, load: Load, kind: Kind) -> &[Sample] {
        let index = self.servers.iter().position(|(other, _)| *other == kind);
        index.and_then(|index| self.samples.get(&(load, index))).map_or(&[], Vec::as_slice)
    }

    /// One figure of a server under a load, over rounds.
    pub fn spread(&self, load: Load, kind: Kind, of: fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples(load, kind).iter().map(of).collect())
    }

    /// CPU time per right answer of one server and load over that of another, within each round.
    pub fn ratio(&self, above: (Load, Kind), below: (Load, Kind)) -> Option<Spread> {
        let pairs = self.samples(above.0, above.1).iter().zip(self.samples(below.0, below.1));
        Spread::of(pairs.map(|(above, below)| above.cpu_ns / below.cpu_ns).collect())
    }
}
