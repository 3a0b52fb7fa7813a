//! What the shipper did, counted; and since when the outlet is away, which is told once when it begins and once when it
//! ends.

use crate::store::UsageRow;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tuning::clock;

/// Counters of deliveries since the process started.
#[derive(Debug)]
pub struct Progress {
    kind: &'static str,
    deliveries: AtomicU64,
    rows: AtomicU64,
    failures: AtomicU64,
    mark_failures: AtomicU64,
    /// Whether the last mark could not be written.
    is_unmarked: AtomicBool,
    /// Whether it was told that somebody must do something.
    is_refusal_told: AtomicBool,
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
    /// Marks on this node's disk that could not be written.
    pub mark_failures: u64,
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
            mark_failures: AtomicU64::new(0),
            is_unmarked: AtomicBool::new(false),
            is_refusal_told: AtomicBool::new(false),
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
            mark_failures: of(&self.mark_failures),
            away_since_ms: of(&self.away_since_ms),
            oldest_time_ms: of(&self.oldest_time_ms),
        }
    }

    /// A segment is to be read of which it is not known how far it is delivered: it waits since it was begun, or less
    /// long.
    pub(super) fn opening(&self, begun_ms: u64) {
        self.oldest_time_ms.store(begun_ms, Ordering::Relaxed);
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
    }

    /// What was to be done last was done.
    pub(super) fn well(&self) {
        self.is_refusal_told.store(false, Ordering::Relaxed);
        let since_ms = self.away_since_ms.swap(0, Ordering::Relaxed);
        if since_ms > 0 {
            let away_ms = clock::now().wall_ms.saturating_sub(since_ms);
            tracing::info!(to = self.kind, away_ms, "usage is delivered again");
        }
    }

    /// Told once, and once more where somebody must do something.
    pub(super) fn failed(&self, why: &str, is_refusal: bool) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let now_ms = clock::now().wall_ms.max(1);
        let begins = self.away_since_ms.compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let is_news = is_refusal && !self.is_refusal_told.swap(true, Ordering::Relaxed);
        if begins || is_news {
            tracing::warn!(to = self.kind, why, "usage cannot be delivered: it waits in the journal, nothing is lost");
        }
    }

    /// Whether a mark was written after a delivery. One that was not costs no more than rows that are sent again after
    /// the next start, and counted once.
    pub(super) fn marked(&self, outcome: &io::Result<()>) {
        if let Err(fault) = outcome {
            self.mark_failures.fetch_add(1, Ordering::Relaxed);
            if !self.is_unmarked.swap(true, Ordering::Relaxed) {
                tracing::warn!(%fault, "marks cannot be written beside the journal: after a start rows may be sent again");
            }
        } else if self.is_unmarked.swap(false, Ordering::Relaxed) {
            tracing::info!("marks are written beside the journal again");
        }
    }
}
