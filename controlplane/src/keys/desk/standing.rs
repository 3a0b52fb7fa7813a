//! What anybody may ask of the desk at once: how far it has followed the store, and which keys are held.
//!
//! Nobody waits here for a directory that is being made, or for a file: numbers are atomic, and the lock over the held
//! keys is never kept for longer than `CHUNK` marks take, and nothing else is locked under it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module. The numbers are written by whoever is in the line, and by the one task that follows.
#[derive(Debug, Default)]
pub(super) struct Standing {
    seen: AtomicI64,
    is_loaded: AtomicBool,
    published: AtomicU64,
    is_merge_lost: AtomicBool,
    /// Keys to be read anew as soon as the store answers, refused until then. At most as many as there are keys.
    held: Mutex<BTreeSet<u32>>,
    /// Times that a key has been held or released.
    holds: AtomicU64,
    /// The version that was copied last.
    copied: AtomicU64,
}

impl Standing {
    /// Highest change that has been taken over.
    pub(super) fn seen(&self) -> i64 {
        self.seen.load(Ordering::Acquire)
    }

    pub(super) fn set_seen(&self, seen: i64) {
        self.seen.store(seen, Ordering::Release);
    }

    /// Whether every stored key has been read.
    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire)
    }

    pub(super) fn set_loaded(&self, loaded: bool) {
        self.is_loaded.store(loaded, Ordering::Release);
    }

    /// Directories published.
    pub(super) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    pub(super) fn count_published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    /// A large part that was built is of no use, because another has been put in force meanwhile.
    pub(super) fn lose_merge(&self) {
        self.is_merge_lost.store(true, Ordering::Relaxed);
    }

    /// Whether that has happened since this was asked last.
    pub(super) fn take_merge_lost(&self) -> bool {
        self.is_merge_lost.swap(false, Ordering::Relaxed)
    }

    /// The held keys. Whoever has them must not lock anything.
    pub(super) fn held(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some keys are held that were not, or the other way round.
    pub(super) fn count_holds(&self) {
        self.holds.fetch_add(1, Ordering::Relaxed);
    }

    /// Another number whenever a copy would hold something else.
    fn version(&self) -> u64 {
        self.published() + self.holds.load(Ordering::Relaxed)
    }

    /// Whether a copy is due: everything has been read, or somebody must be left out of the copy there is; and
    /// something has changed since the last one.
    pub(super) fn is_copy_due(&self) -> bool {
        let is_worth_it = self.is_loaded() || self.holds.load(Ordering::Relaxed) > 0;
        is_worth_it && self.version() != self.copied.load(Ordering::Relaxed)
    }

    /// What is copied from now on is as it stands now.
    pub(super) fn begin_copy(&self) {
        self.copied.store(self.version(), Ordering::Relaxed);
    }
}
