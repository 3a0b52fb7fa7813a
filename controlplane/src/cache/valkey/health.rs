//! How a server does: counted, and told in the log when it goes away and when it is back.

use super::super::{CacheError, CacheHealth, Cached};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tuning::clock;

/// Counters of one cache. Relaxed: every number is right by itself.
pub struct Health {
    calls: AtomicU64,
    unreachable: AtomicU64,
    refused: AtomicU64,
    connections: AtomicU64,
    /// Unix ms; 0: it answers.
    away_since_ms: AtomicU64,
    round_trip_us: AtomicU64,
}

impl Health {
    /// Nothing counted; away until the first connection.
    pub fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            unreachable: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            away_since_ms: AtomicU64::new(clock::now().wall_ms),
            round_trip_us: AtomicU64::new(0),
        }
    }

    /// One call has ended.
    pub fn count<T>(&self, outcome: &Cached<T>, took: Duration) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Err(CacheError::Unreachable(_)) => {
                self.unreachable.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(CacheError::Refused(_)) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => {}
        }
        self.round_trip_us.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A connection is there.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.away_since_ms.store(0, Ordering::Relaxed);
    }

    /// There is none. Keeps the time of the first time that this was said.
    pub fn away(&self) {
        let now_ms = clock::now().wall_ms;
        // That it was away already is what the comparison is for.
        let _ = self.away_since_ms.compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// As of now.
    pub fn read(&self) -> CacheHealth {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        CacheHealth {
            calls: load(&self.calls),
            unreachable: load(&self.unreachable),
            refused: load(&self.refused),
            connections: load(&self.connections),
            away_since_ms: Some(load(&self.away_since_ms)).filter(|since_ms| *since_ms > 0),
            round_trip_us: load(&self.round_trip_us),
            held: None,
        }
    }
}
