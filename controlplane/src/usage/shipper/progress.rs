//! What the shipper did, counted; and since when the outlet is away, which is told once when it begins and once when it
//! ends.

use crate::store::UsageRow;
use std::sync::atomic::{AtomicU64, Ordering};
use tuning::clock;

/// Counters of deliveries since the process started.
#[derive(Debug)]
pub struct Progress {
    kind: &'static str,
    deliveries: AtomicU64,
    rows: AtomicU64,
    failures: AtomicU64,
    /// Unix ms; 0: it takes what it is given.
    away_since_ms: AtomicU64,
    /// When the oldest request that waits came, Unix ms; 0: none waits.
    oldest_time_ms: AtomicU64,
}

/// The counters as they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progressed {
    /// `database` or `queue`.
    pub kind: &'static str,
    /// Deliveries that were taken.
    pub deliveries: u64,
    /// Rows in them.
    pub rows: u64,
    /// Deliveries that were not.
    pub failures: u64,
    /// Since when none is, Unix ms; 0: they are.
    pub away_since_ms: u64,
    /// When the oldest request that waits came, Unix ms; 0: none waits.
    pub oldest_time_ms: u64,
}

impl Progress {
    /// Nothing was done.
    pub(in crate::usage) const fn new(kind: &'static str) -> Self {
        Self {
            kind,
            deliveries: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            away_since_ms: AtomicU64::new(0),
            oldest_time_ms: AtomicU64::new(0),
        }
    }

    /// The counters as they stand.
    #[must_use]
    pub fn read(&self) -> Progressed {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progressed {
            kind: self.kind,
            deliveries: of(&self.deliveries),
            rows: of(&self.rows),
            failures: of(&self.failures),
            away_since_ms: of(&self.away_since_ms),
            oldest_time_ms: of(&self.oldest_time_ms),
        }
    }

    pub(super) fn trying(&self, rows: &[UsageRow]) {
        if let Some(first) = rows.first() {
            self.oldest_time_ms.store(first.record.first_time_ms, Ordering::Relaxed);
        }
    }

    pub(super) fn nothing_waits(&self) {
        self.oldest_time_ms.store(0, Ordering::Relaxed);
    }

    pub(super) fn delivered(&self, rows: &[UsageRow]) {
        self.deliveries.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        let since_ms = self.away_since_ms.swap(0, Ordering::Relaxed);
        if since_ms > 0 {
            let away_ms = clock::now().wall_ms.saturating_sub(since_ms);
            tracing::info!(to = self.kind, away_ms, "usage is delivered again");
        }
    }

    pub(super) fn failed(&self, why: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let now_ms = clock::now().wall_ms.max(1);
        if self.away_since_ms.compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(to = self.kind, why, "usage cannot be delivered: it waits in the journal, nothing is lost");
        }
    }
}
