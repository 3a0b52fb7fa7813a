//! How the store is: what its calls gave, and since when it is away.
//!
//! It is told of in the log once when it goes away and once when it is back, however many calls fail in between.

use super::{StoreError, Stored};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use tuning::clock;

/// The counters of a store, since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreHealth {
    /// Calls that have ended.
    pub calls: u64,
    /// Of these: no connection, or no answer in time.
    pub unreachable: u64,
    /// The schema is missing or another.
    pub not_migrated: u64,
    /// Clashes and rows that are not there: faults of callers, the store being well.
    pub refused: u64,
    /// Answers that should not be.
    pub broken: u64,
    /// Since when calls have failed for the store's own sake, Unix ms; `None`: the last one did not.
    pub away_since_ms: Option<u64>,
    /// Connections open, idle ones included.
    pub connections: u32,
    /// Connections idle.
    pub connections_idle: u32,
    /// Times that credentials were fetched; 0 where they are in the address.
    pub secret_fetches: u64,
    /// Of these: failed.
    pub secret_failures: u64,
}

/// Counts what calls give.
#[derive(Default)]
pub struct Watch {
    calls: AtomicU64,
    unreachable: AtomicU64,
    not_migrated: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    /// Unix ms; 0: it is not away.
    away_since_ms: AtomicU64,
}

impl Watch {
    /// Counts one call, and tells the log when the store goes away or is back.
    pub fn note<T>(&self, kind: &'static str, done: &Stored<T>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let counter = match done {
            Ok(_) => None,
            Err(StoreError::Unreachable(_)) => Some(&self.unreachable),
            Err(StoreError::NotMigrated(_)) => Some(&self.not_migrated),
            Err(StoreError::Broken(_)) => Some(&self.broken),
            Err(StoreError::NotFound | StoreError::Conflict(_) | StoreError::Invalid(_)) => Some(&self.refused),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        match done {
            Err(why @ (StoreError::Unreachable(_) | StoreError::NotMigrated(_))) => self.away(kind, why),
            // One broken answer says nothing of the others.
            Err(StoreError::Broken(why)) => tracing::error!(database = kind, "the store: {why}"),
            _ => self.back(kind),
        }
    }

    /// The counters now.
    pub fn health(&self, connections: (u32, u32), fetches: (u64, u64)) -> StoreHealth {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreHealth {
            calls: read(&self.calls),
            unreachable: read(&self.unreachable),
            not_migrated: read(&self.not_migrated),
            refused: read(&self.refused),
            broken: read(&self.broken),
            away_since_ms: Some(read(&self.away_since_ms)).filter(|since_ms| *since_ms > 0),
            connections: connections.0,
            connections_idle: connections.1,
            secret_fetches: fetches.0,
            secret_failures: fetches.1,
        }
    }

    fn away(&self, kind: &'static str, why: &StoreError) {
        let now_ms = clock::now().wall_ms.max(1);
        if self.away_since_ms.compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(database = kind, "the store is away: {why}; prices, known keys and limits go on without it");
        }
    }

    fn back(&self, kind: &'static str) {
        let since_ms = self.away_since_ms.swap(0, Ordering::Relaxed);
        if since_ms > 0 {
            let away_ms = clock::now().wall_ms.saturating_sub(since_ms);
            tracing::info!(database = kind, away_ms, "the store is back");
        }
    }
}
