//! One key's requests of the present second, shared by all shards and the control plane.
//!
//! A window is one second, counted from the key's first request; while requests keep coming, the next window begins
//! where the last one ended, so that a steady load loses nothing between them. Where several nodes share a key's second,
//! windows are those that grants name, and a grant is what this node may admit in one of them. This file knows neither
//! what a key is nor who grants.

use super::sharing::{Part, SharedByNodes};
use crate::limits::LEASE_SHARE;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Length of a window, ms.
pub(crate) const WINDOW_MS: u64 = 1_000;

/// Bits of a word that count requests; `KEY_LIMIT_PER_SECOND_MAX` fits them. The other 40 hold a window's start in ms
/// since boot: 34 years.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// Farthest that a granted window's start may be from where the window before it ends, ms: the nodes' windows follow the
/// cache's clock in steps, and a window that waits for its successor's start grows by so much.
pub(crate) const STEP_MS_MAX: u64 = 50;

/// Allowances are allocated in chunks that directories share: a new directory adds chunks, and moves none.
const CHUNK: usize = 4_096;

/// What was taken from an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Requests taken: at most what was wanted; 0 when there are none left.
    pub(crate) granted: u32,
    /// Requests still there for others.
    pub(crate) left: u32,
    /// When the window began, ms since boot.
    pub(crate) start_ms: u64,
    /// Whether whoever grants should look at this key.
    pub(crate) tell: bool,
}

/// A key's second as it stands on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondState {
    /// When the present window began, ms since boot.
    pub start_ms: u64,
    /// Requests taken in it, leases that shards hold included.
    pub used: u32,
    /// Requests that this node may take in it; `None` when nothing was granted for it.
    pub granted: Option<u32>,
    /// Requests refused because nothing was left, since start; counted only while nodes share, and modulo 2^32. Each shard
    /// may know of an eighth more in this window, and of 64 at most.
    pub refused: u32,
}

/// One key's allowance. 32 bytes.
#[derive(Default)]
pub(crate) struct Second {
    /// Start of the present window, and the requests used in it.
    used: AtomicU64,
    /// Starts of two windows, the present and the next in no order, and what this node was granted for each.
    grants: [AtomicU64; 2],
    /// See [`SecondState::refused`].
    refused: AtomicU32,
    /// Requests that all nodes together still had when a grant was stored last.
    pool_left: AtomicU32,
}

pub(crate) const fn pack(start_ms: u64, count: u32) -> u64 {
    start_ms << COUNT_BITS | (count as u64 & COUNT_MASK)
}

pub(crate) const fn unpack(word: u64) -> (u64, u32) {
    (word >> COUNT_BITS, (word & COUNT_MASK) as u32)
}

/// The window at `now_ms`, given the word as it is: its start, and the requests used in it.
const fn window(word: u64, now_ms: u64) -> (u64, u32) {
    let (start_ms, used) = unpack(word);
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

/// As [`window`], where windows begin as grants say; with the grant for it.
fn granted_window(word: u64, grants: [u64; 2], now_ms: u64) -> (u64, u32, Option<u32>) {
    let (start_ms, used) = unpack(word);
    let later = || grants.into_iter().map(unpack).filter(|(start, _)| *start > start_ms);
    let begun = later().filter(|(start, _)| (*start..*start + WINDOW_MS).contains(&now_ms));
    if let Some((start_ms, granted)) = begun.max() {
        return (start_ms, 0, Some(granted));
    }
    let waits = later().any(|(start, _)| now_ms < start && start <= start_ms + WINDOW_MS + STEP_MS_MAX);
    let (start_ms, used) = if waits { (start_ms, used) } else { window(word, now_ms) };
    let grant = grants.into_iter().map(unpack).find(|(start, _)| *start == start_ms);
    (start_ms, used, grant.map(|(_, granted)| granted))
}

/// What a node that was granted nothing may take in a window of one key: a lease's worth, as if it were one shard.
const fn unasked(limit: u32) -> u32 {
    if limit < LEASE_SHARE { 1 } else { limit / LEASE_SHARE }
}

/// One of so many parts of a limit, and one request at least.
pub(crate) fn part_of(limit: u32, nodes: u32) -> u32 {
    (limit / nodes.max(1)).max(1)
}

/// A window that something is to be taken from.
struct Open {
    start_ms: u64,
    used: u32,
    /// What may be used in it.
    bound: u32,
    /// What a lease is a part of.
    lease_of: u32,
    granted: Option<u32>,
}

impl Second {
    fn open(&self, word: u64, part: Part, limit: u32, now_ms: u64) -> Open {
        let (since_ms, before) = match part {
            Part::Granted { since_ms, before } => (since_ms, before),
            Part::One(nodes) => {
                let ((start_ms, used), bound) = (window(word, now_ms), part_of(limit, nodes));
                return Open { start_ms, used, bound, lease_of: bound, granted: None };
            }
        };
        let grants = [&self.grants[0], &self.grants[1]].map(|grant| grant.load(Ordering::Relaxed));
        let (start_ms, used, granted) = granted_window(word, grants, now_ms);
        let bound = match granted {
            // Whoever was granted next to nothing while there is more would be worse off than one who was granted nothing
            // yet. What he takes beyond the grant is debt like any advance.
            Some(granted) if self.pool_left.load(Ordering::Relaxed) > 0 => granted.max(unasked(limit)),
            Some(granted) => granted,
            // It has used of this window what was its part then, and cannot have asked for any of it.
            None if start_ms < since_ms => part_of(limit, before).max(unasked(limit)),
            None => unasked(limit),
        };
        Open { start_ms, used, bound, lease_of: granted.unwrap_or(limit), granted }
    }

    /// Takes a lease of the `share`th part, and 1 at least, of what this node may admit of `limit` requests a second.
    pub(crate) fn take(&self, part: Part, limit: u32, share: u32, now_ms: u64) -> Grant {
        let mut seen = self.used.load(Ordering::Relaxed);
        loop {
            let open = self.open(seen, part, limit, now_ms);
            let left = open.bound.saturating_sub(open.used);
            let granted = (open.lease_of / share).max(1).min(left);
            let shared = part.is_granted();
            if granted == 0 {
                return Grant { granted, left: 0, start_ms: open.start_ms, tell: shared };
            }
            let next = pack(open.start_ms, open.used + granted);
            match self.used.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let taken = open.used + granted;
                    let tell = shared && open.granted.is_none_or(|all| all.saturating_sub(taken) < all / 2 + 1);
                    let left = self.left_of(&open, part, limit) - granted;
                    return Grant { granted, left, start_ms: open.start_ms, tell };
                }
                Err(other) => seen = other,
            }
        }
    }

    /// Takes one request without a lease, and counts it if it is refused.
    pub(crate) fn take_one(&self, part: Part, limit: u32, now_ms: u64) -> Grant {
        let taken = self.take(part, limit, u32::MAX, now_ms);
        if taken.granted == 0 && part.is_granted() {
            self.add_refused(1);
        }
        taken
    }

    /// Counts so many refused requests. Whoever takes leases counts for itself first: this line is every shard's.
    pub(crate) fn add_refused(&self, refused: u32) {
        self.refused.fetch_add(refused, Ordering::Relaxed);
    }

    /// Requests of the open window that nobody is known to have taken.
    fn left_of(&self, open: &Open, part: Part, limit: u32) -> u32 {
        let here = open.bound.saturating_sub(open.used);
        match open.granted {
            Some(_) => here.saturating_add(self.pool_left.load(Ordering::Relaxed)).min(limit.max(here)),
            None if part.is_granted() => limit.saturating_sub(open.used).max(here),
            None => here,
        }
    }

    /// Gives back what was taken and not used, if its window is still the present one.
    pub(crate) fn give_back(&self, start_ms: u64, unused: u32) {
        let back = |word| {
            let (start, used) = unpack(word);
            (start == start_ms).then(|| pack(start, used.saturating_sub(unused)))
        };
        // Refused where the window has gone by, and then it is worth nothing.
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
    }

    /// Requests of the present window that nobody has taken yet, as far as this node knows.
    pub(crate) fn left(&self, part: Part, limit: u32, now_ms: u64) -> u32 {
        let open = self.open(self.used.load(Ordering::Relaxed), part, limit, now_ms);
        self.left_of(&open, part, limit)
    }

    /// How the second stands, where windows begin as grants say.
    pub(crate) fn state(&self, now_ms: u64) -> SecondState {
        let open = self.open(self.used.load(Ordering::Relaxed), Part::GRANTED, 0, now_ms);
        let refused = self.refused.load(Ordering::Relaxed);
        SecondState { start_ms: open.start_ms, used: open.used, granted: open.granted, refused }
    }

    /// From now on this node may take `granted` requests in the window that begins at `start_ms`. One caller at a time.
    pub(crate) fn grant(&self, start_ms: u64, granted: u32, pool_left: u32) {
        let starts = [&self.grants[0], &self.grants[1]].map(|grant| unpack(grant.load(Ordering::Relaxed)).0);
        let place = starts.iter().position(|start| *start == start_ms).unwrap_or(usize::from(starts[1] < starts[0]));
        self.pool_left.store(pool_left, Ordering::Relaxed);
        self.grants[place].store(pack(start_ms, granted.min(COUNT_MASK as u32)), Ordering::Relaxed);
    }

    /// Says that the window that was taken to begin at `from_ms` begins at `to_ms`; what was used in it stays used.
    pub(crate) fn shift(&self, from_ms: u64, to_ms: u64) {
        let moved = |word| {
            let (start_ms, used) = unpack(word);
            (start_ms == from_ms).then(|| pack(to_ms, used))
        };
        // Refused where the next window has begun meanwhile: then there is nothing to move.
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }
}

/// The allowances of all keys of a directory, shared with the directory before and the one after.
#[derive(Clone, Default)]
pub(crate) struct Allowances {
    chunks: Vec<Arc<[Second]>>,
    nodes: SharedByNodes,
}

impl Allowances {
    /// The allowance at `home`.
    #[inline]
    pub(crate) fn at(&self, home: u32) -> Option<&Second> {
        self.chunks.get(home as usize / CHUNK)?.get(home as usize % CHUNK)
    }

    /// How nodes share them.
    #[inline]
    pub(crate) const fn nodes(&self) -> &SharedByNodes {
        &self.nodes
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Adds allowances until `wanted` are there.
    pub(crate) fn grow(&mut self, wanted: usize) {
        while self.len() < wanted {
            self.chunks.push((0..CHUNK).map(|_| Second::default()).collect());
        }
    }
}

const _: () = assert!(size_of::<Second>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Part = Part::One(1);

    #[test]
    fn windows_follow_each_other_while_requests_come_and_begin_anew_after_a_pause() {
        let second = Second::default();
        let check = |now_ms, wanted: u32, expected: (u32, u32, u64)| {
            let taken = second.take(WHOLE, 3, 3 / wanted, now_ms);
            assert_eq!((taken.granted, taken.left, taken.start_ms), expected, "at {now_ms}");
        };
        check(50_000, 1, (1, 2, 50_000));
        check(50_999, 3, (2, 0, 50_000));
        check(50_999, 1, (0, 0, 50_000));
        check(51_700, 1, (1, 2, 51_000));
        check(51_999, 3, (2, 0, 51_000));
        check(51_998, 1, (0, 0, 51_000));
        check(54_321, 1, (1, 2, 54_321));
        check(54_320, 1, (1, 1, 54_321));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_in_its_own_window_only() {
        let second = Second::default();
        let taken = second.take(WHOLE, 10, 1, 5_000);
        second.give_back(taken.start_ms, 4);
        assert_eq!(second.left(WHOLE, 10, 5_100), 4);
        second.give_back(taken.start_ms - 1_000, 4);
        assert_eq!(second.left(WHOLE, 10, 5_100), 4);
        assert_eq!(second.left(WHOLE, 10, 6_000), 10);
        assert_eq!(second.left(WHOLE, 2, 5_100), 0, "a limit that was lowered since");
    }

    #[test]
    fn a_part_of_a_limit_is_one_at_least() {
        for (limit, nodes, expected) in [(1_000, 3, 333), (3, 3, 1), (3, 4, 1), (1, 1, 1)] {
            let second = Second::default();
            let taken = (0..).take_while(|_| second.take(Part::One(nodes), limit, limit, 5_000).granted > 0).count();
            assert_eq!(taken, expected, "{limit} over {nodes}");
        }
    }

    /// Takes one at a time until nothing is left; how many.
    fn take_all(second: &Second, limit: u32, now_ms: u64) -> usize {
        (0..).take_while(|_| second.take_one(Part::GRANTED, limit, now_ms).granted > 0).count()
    }

    #[test]
    fn without_a_grant_a_node_takes_one_lease_and_tells() {
        let second = Second::default();
        assert!(second.take(Part::GRANTED, 1_280, u32::MAX, 5_000).tell);
        assert_eq!(take_all(&second, 1_280, 5_000), 9);
        assert!(second.take_one(Part::GRANTED, 1_280, 5_001).tell, "refused, and told");
        let expected = SecondState { start_ms: 5_000, used: 10, granted: None, refused: 2 };
        assert_eq!(second.state(5_001), expected);
        assert_eq!(take_all(&second, 3, 9_000), 1, "one at least");
    }

    #[test]
    fn windows_begin_where_grants_say() {
        let second = Second::default();
        assert_eq!(take_all(&second, 1_280, 5_000), 10);
        // The cache says that the second began 300 ms before.
        second.shift(5_000, 4_700);
        second.grant(4_700, 15, 100);
        assert_eq!(second.left(Part::GRANTED, 1_280, 5_001), 105);
        assert_eq!(take_all(&second, 1_280, 5_001), 5);
        // The next one was granted ahead, and begins 2 ms after this one's thousandth.
        second.grant(5_702, 20, 100);
        assert_eq!(take_all(&second, 1_280, 5_701), 0, "the present one goes on until then");
        assert_eq!(second.state(5_701).start_ms, 4_700);
        assert_eq!(take_all(&second, 1_280, 5_702), 20);
        // What is granted later in it adds up with what the granter says.
        second.grant(5_702, 27, 0);
        assert_eq!(take_all(&second, 1_280, 6_000), 7);
        // Nobody granted the one after.
        assert_eq!(take_all(&second, 1_280, 6_702), 10);
        assert_eq!(second.state(6_702), SecondState { start_ms: 6_702, used: 10, granted: None, refused: 6 });
        // A grant of next to nothing is no worse than none while others have something left.
        second.grant(7_702, 2, 50);
        assert_eq!(second.take_one(Part::GRANTED, 1_280, 7_702).left, 59);
        assert!(second.take_one(Part::GRANTED, 1_280, 7_702).tell);
        assert_eq!(take_all(&second, 1_280, 7_703), 8);
        // A grant of nothing, where nothing is left, is not the same as none.
        second.grant(8_702, 0, 0);
        assert_eq!(take_all(&second, 1_280, 8_702), 0);
        // After a pause, old grants mean nothing.
        assert_eq!(take_all(&second, 1_280, 60_000), 10);
    }

    #[test]
    fn a_window_that_began_before_others_came_ends_as_it_began() {
        let second = Second::default();
        let taken = |part, most, now_ms| (0..most).filter(|_| second.take_one(part, 1_280, now_ms).granted > 0).count();
        let granted = Part::Granted { since_ms: 5_600, before: 2 };
        assert_eq!(taken(Part::One(2), 300, 5_000), 300, "half of the limit is 640");
        assert!(second.take_one(granted, 1_280, 5_700).tell, "all of it is debt");
        assert_eq!(second.state(5_700), SecondState { start_ms: 5_000, used: 301, granted: None, refused: 0 });
        assert_eq!(taken(granted, 1_000, 5_999), 339, "no more than it was before");
        assert_eq!(taken(granted, 1_000, 6_000), 10);
        // What was granted counts, in such a window too.
        second.grant(6_000, 20, 0);
        assert_eq!(taken(Part::Granted { since_ms: 6_500, before: 1 }, 1_000, 6_600), 10);
    }

    #[test]
    fn a_lease_is_a_part_of_what_was_granted() {
        let second = Second::default();
        second.shift(0, 4_000);
        second.grant(4_000, 640, 0);
        let taken = second.take(Part::GRANTED, 1_280, 128, 4_100);
        assert_eq!((taken.granted, taken.left, taken.tell), (5, 635, false));
        second.take(Part::GRANTED, 1_280, 2, 4_100);
        assert!(second.take(Part::GRANTED, 1_280, 128, 4_100).tell, "less than half is left");
    }
}
