//! What the journal did, counted; and whether it is in trouble, which is told once when it begins and once when it ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Counters of a journal and of what is read of it. All are since the process started.
#[derive(Debug, Default)]
pub struct Tally {
    records: AtomicU64,
    requests: AtomicU64,
    merged: AtomicU64,
    append_failures: AtomicU64,
    syncs: AtomicU64,
    sync_failures: AtomicU64,
    sync_ns: AtomicU64,
    sync_ns_max: AtomicU64,
    damaged: AtomicU64,
    torn: AtomicU64,
    unread: AtomicU64,
    in_trouble: AtomicBool,
}

/// The counters as they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tallied {
    /// Records in the journal, less those that a failed sync gave back.
    pub records: u64,
    /// Requests they stand for.
    pub requests: u64,
    /// Records merged into equal ones because many came at once.
    pub merged: u64,
    /// Appends that failed.
    pub append_failures: u64,
    /// Syncs.
    pub syncs: u64,
    /// Syncs that failed.
    pub sync_failures: u64,
    /// Time that all syncs took, ns.
    pub sync_ns: u64,
    /// Time that the longest took, ns.
    pub sync_ns_max: u64,
    /// Entries that were found damaged.
    pub damaged: u64,
    /// Segments that ended with a tail not wholly written.
    pub torn: u64,
    /// Files in the journal's directory that are no segments this program can read.
    pub unread: u64,
    /// Whether records cannot be written now.
    pub in_trouble: bool,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Tally {
    /// The counters as they stand.
    #[must_use]
    pub fn read(&self) -> Tallied {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tallied {
            records: of(&self.records),
            requests: of(&self.requests),
            merged: of(&self.merged),
            append_failures: of(&self.append_failures),
            syncs: of(&self.syncs),
            sync_failures: of(&self.sync_failures),
            sync_ns: of(&self.sync_ns),
            sync_ns_max: of(&self.sync_ns_max),
            damaged: of(&self.damaged),
            torn: of(&self.torn),
            unread: of(&self.unread),
            in_trouble: self.in_trouble.load(Ordering::Relaxed),
        }
    }

    pub(super) fn appended(&self, records: u64, requests: u64) {
        add(&self.records, records);
        add(&self.requests, requests);
    }

    pub(super) fn taken_back(&self, records: u64, requests: u64) {
        self.records.fetch_sub(records, Ordering::Relaxed);
        self.requests.fetch_sub(requests, Ordering::Relaxed);
    }

    pub(super) fn merged(&self, records: usize) {
        add(&self.merged, records as u64);
    }

    pub(super) fn synced(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        add(&self.syncs, 1);
        add(&self.sync_ns, ns);
        self.sync_ns_max.fetch_max(ns, Ordering::Relaxed);
    }

    pub(super) fn append_failed(&self, why: &str) {
        add(&self.append_failures, 1);
        self.trouble(why);
    }

    pub(super) fn sync_failed(&self, why: &str) {
        add(&self.sync_failures, 1);
        self.trouble(why);
    }

    /// Entries were found damaged, or their file was gone.
    pub fn damaged(&self, entries: u64) {
        add(&self.damaged, entries);
    }

    pub(super) fn torn(&self) {
        add(&self.torn, 1);
    }

    /// A file is left alone.
    pub fn unread(&self) {
        add(&self.unread, 1);
    }

    pub(super) fn trouble(&self, why: &str) {
        if !self.in_trouble.swap(true, Ordering::Relaxed) {
            tracing::error!(
                why,
                "usage cannot be written to the journal: every count is kept in memory, detail is given up if it lasts; \
                 see to the disk of TB_DATA_DIR, or to the database if TB_JOURNAL_BYTES_MAX is reached"
            );
        }
    }

    pub(super) fn well(&self) {
        if self.in_trouble.swap(false, Ordering::Relaxed) {
            tracing::info!("usage is written to the journal again");
        }
    }
}
