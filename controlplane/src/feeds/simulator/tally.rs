//! What was asked of a simulated exchange over REST: how often, of what, and how fast, so that a test can hold a client
//! to one request or to the venue's limits.

use serde::Serialize;
use shared::moment::Moment;
use std::collections::{BTreeMap, VecDeque};

/// Paths counted one by one; what is asked for beyond them is only in the total.
const PATHS_MAX: usize = 4_096;

/// Requests remembered with their time, for the pace: more in a second are told as this many.
const RECENT_MAX: usize = 1_024;

/// What was asked since the start, or since it was last forgotten.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    total: u64,
    most_in_a_second: usize,
    paths: BTreeMap<String, u64>,
    recent_mono_ns: VecDeque<u64>,
}

/// A tally, for people and tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Requests, refused ones included.
    pub total: u64,
    /// Most of them that came within one second.
    pub most_in_a_second: usize,
    /// By path and query.
    pub paths: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts a request; answers its number, from 0.
    pub fn count(&mut self, path: &str, now: Moment) -> u64 {
        if let Some(count) = self.paths.get_mut(path) {
            *count += 1;
        } else if self.paths.len() < PATHS_MAX {
            self.paths.insert(path.to_owned(), 1);
        }
        while self.recent_mono_ns.front().is_some_and(|then| now.ms_since(*then) >= 1_000) {
            self.recent_mono_ns.pop_front();
        }
        if self.recent_mono_ns.len() < RECENT_MAX {
            self.recent_mono_ns.push_back(now.mono_ns);
        }
        self.most_in_a_second = self.most_in_a_second.max(self.recent_mono_ns.len());
        self.total += 1;
        self.total - 1
    }

    /// What has been counted.
    #[must_use]
    pub fn shown(&self) -> Requests {
        Requests { total: self.total, most_in_a_second: self.most_in_a_second, paths: self.paths.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_path_and_pace() {
        let (mut tally, start) = (Tally::default(), Moment { mono_ns: 1_000_000_000, wall_ms: 0 });
        for (ms, path) in [(0, "/a"), (400, "/b"), (999, "/a"), (1_000, "/a"), (5_000, "/c?x=1")] {
            tally.count(path, start.plus_ms(ms));
        }
        let shown = tally.shown();
        assert_eq!((shown.total, shown.most_in_a_second), (5, 3));
        let paths: Vec<_> = shown.paths.iter().map(|(path, count)| (path.as_str(), *count)).collect();
        assert_eq!(paths, [("/a", 3), ("/b", 1), ("/c?x=1", 1)]);
    }

    #[test]
    fn nothing_grows_without_end() {
        let mut tally = Tally::default();
        for index in 0..3 * PATHS_MAX {
            tally.count(&index.to_string(), Moment::default());
        }
        assert_eq!((tally.shown().total, tally.paths.len()), (3 * PATHS_MAX as u64, PATHS_MAX));
        assert_eq!((tally.recent_mono_ns.len(), tally.most_in_a_second), (RECENT_MAX, RECENT_MAX));
    }
}
