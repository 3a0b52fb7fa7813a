//! One key's requests of the present second, shared by all shards and the control plane: one atomic word.
//!
//! A window is one second, counted from the key's first request; while requests keep coming, the next window begins
//! where the last one ended, so that a steady load loses nothing between them. This file does not know what a key is.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Length of a window, ms.
pub(crate) const WINDOW_MS: u64 = 1_000;

/// Bits of the word that count requests; `KEY_LIMIT_PER_SECOND_MAX` fits them. The other 40 hold the window's start in
/// ms since boot: 34 years.
const USED_BITS: u32 = 24;
const USED_MASK: u64 = (1 << USED_BITS) - 1;

/// Allowances are allocated in chunks that directories share: a new directory adds chunks, and moves none.
const CHUNK: usize = 4_096;

/// What was taken from an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Requests taken: at least 1, at most what was wanted.
    pub(crate) granted: u32,
    /// Requests still there for others.
    pub(crate) left: u32,
    /// When the window began, ms since boot.
    pub(crate) start_ms: u64,
}

/// The window at `now_ms`, given the word as it is: its start, and the requests used in it.
const fn window(word: u64, now_ms: u64) -> (u64, u32) {
    let (start_ms, used) = (word >> USED_BITS, (word & USED_MASK) as u32);
    // A shard's clock may be read a little before another's: an earlier moment belongs to the window that is there.
    let age_ms = now_ms.saturating_sub(start_ms);
    if age_ms < WINDOW_MS {
        (start_ms, used)
    } else if age_ms < 2 * WINDOW_MS {
        (start_ms + WINDOW_MS, 0)
    } else {
        (now_ms, 0)
    }
}

/// Takes up to `wanted` of `limit` requests a second; `None` when this window's are used up.
pub(crate) fn take(word: &AtomicU64, limit: u32, wanted: u32, now_ms: u64) -> Option<Grant> {
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        let (start_ms, used) = window(seen, now_ms);
        let left = limit.saturating_sub(used);
        let granted = wanted.min(left);
        if granted == 0 {
            return None;
        }
        let next = start_ms << USED_BITS | u64::from(used + granted);
        match word.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(Grant { granted, left: left - granted, start_ms }),
            Err(other) => seen = other,
        }
    }
}

/// Gives back what was taken and not used, if its window is still the present one.
pub(crate) fn give_back(word: &AtomicU64, start_ms: u64, unused: u32) {
    let mut seen = word.load(Ordering::Relaxed);
    while seen >> USED_BITS == start_ms {
        let used = (seen & USED_MASK).saturating_sub(u64::from(unused));
        let next = start_ms << USED_BITS | used;
        match word.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(other) => seen = other,
        }
    }
}

/// Requests of the present window that nobody has taken yet.
pub(crate) fn left(word: &AtomicU64, limit: u32, now_ms: u64) -> u32 {
    let (_, used) = window(word.load(Ordering::Relaxed), now_ms);
    limit.saturating_sub(used)
}

/// The words of all keys of a directory. 8 bytes each, shared with the directory before and the one after.
#[derive(Clone, Default)]
pub(crate) struct Allowances {
    chunks: Vec<Arc<[AtomicU64]>>,
}

impl Allowances {
    /// The word at `home`.
    #[inline]
    pub(crate) fn word(&self, home: u32) -> Option<&AtomicU64> {
        self.chunks.get(home as usize / CHUNK)?.get(home as usize % CHUNK)
    }

    /// How many words there are.
    pub(crate) fn len(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Adds words until `wanted` are there.
    pub(crate) fn grow(&mut self, wanted: usize) {
        while self.len() < wanted {
            self.chunks.push((0..CHUNK).map(|_| AtomicU64::new(0)).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_each_other_while_requests_come_and_begin_anew_after_a_pause() {
        let word = AtomicU64::new(0);
        let check = |now_ms, wanted, expected: Option<(u32, u32, u64)>| {
            let grant = take(&word, 3, wanted, now_ms).map(|grant| (grant.granted, grant.left, grant.start_ms));
            assert_eq!(grant, expected, "at {now_ms}");
        };
        check(50_000, 1, Some((1, 2, 50_000)));
        check(50_999, 5, Some((2, 0, 50_000)));
        check(50_999, 1, None);
        check(51_700, 1, Some((1, 2, 51_000)));
        check(51_999, 2, Some((2, 0, 51_000)));
        check(51_998, 1, None);
        check(54_321, 1, Some((1, 2, 54_321)));
        check(54_320, 1, Some((1, 1, 54_321)));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_in_its_own_window_only() {
        let word = AtomicU64::new(0);
        let grant = take(&word, 10, 10, 5_000).expect("ten");
        give_back(&word, grant.start_ms, 4);
        assert_eq!(left(&word, 10, 5_100), 4);
        give_back(&word, grant.start_ms - 1_000, 4);
        assert_eq!(left(&word, 10, 5_100), 4);
        assert_eq!(left(&word, 10, 6_000), 10);
        assert_eq!(left(&word, 2, 5_100), 0, "a limit that was lowered since");
    }
}
