//! What one shard has leased of keys' seconds: a table of fixed size, four places to a set.
//!
//! A lease is worth something only within its window, so forgetting one is no loss after at most a second; one that
//! must make room before that, or that was taken under another limit, is given back to the key's shared allowance.
//! Leases are by the key's home, which it keeps from directory to directory: another directory leaves them as they are.

use super::KeyDirectory;
use super::allowance::{Grant, WINDOW_MS};
use crate::limits::LEASE_SETS;
use alloc::boxed::Box;
use alloc::vec;
use shared::key::KeyId;

/// Places in a set.
const WAYS: usize = 4;

/// `home` of a place that nobody holds.
const NOBODY: u32 = u32::MAX;

/// Refusals are added to the key's second when there are an eighth as many as there were in this window, so that the
/// first few are known at once, and at 64 at the latest: a key that is refused 100,000 times a second by each of eight
/// shards writes its line 12,500 times, not 800,000.
const UNTOLD_PART: u32 = 8;
const UNTOLD_MAX: u32 = 64;

/// Requests a key may still make through this shard without asking the shared allowance. 32 bytes: two to a cache line.
#[derive(Clone, Copy)]
struct Lease {
    /// Whose it is: the key's place among the shared allowances.
    home: u32,
    /// The key's limit when it was taken.
    limit: u32,
    /// When the window began, ms since boot.
    start_ms: u64,
    /// Requests left in the lease.
    tokens: u32,
    /// Requests that were left in the shared allowance when it was last asked.
    shared_left: u32,
    /// Requests refused in this window while nodes share, and those of them that the key's second does not know of.
    refused: u32,
    untold: u32,
}

const _: () = assert!(size_of::<Lease>() == 32);

impl Lease {
    const NONE: Self = Self { home: NOBODY, limit: 0, start_ms: 0, tokens: 0, shared_left: 0, refused: 0, untold: 0 };

    #[inline]
    const fn is_over(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.start_ms) >= WINDOW_MS
    }

    /// Counts a refusal. Answers how many the key's second is to be told of now.
    fn refuse(&mut self, start_ms: u64) -> u32 {
        if self.start_ms != start_ms {
            (self.start_ms, self.refused) = (start_ms, 0);
        }
        self.refused = self.refused.saturating_add(1);
        self.untold += 1;
        let due = self.untold >= (self.refused / UNTOLD_PART).clamp(1, UNTOLD_MAX);
        if due { core::mem::take(&mut self.untold) } else { 0 }
    }
}

/// Whose request it is, and by how much to lease.
#[derive(Clone, Copy)]
pub(crate) struct Purse {
    /// The key's place among the shared allowances.
    pub(crate) home: u32,
    /// Its limit per second.
    pub(crate) limit: u32,
    /// By what part of the limit to lease at a time, and by 1 at least.
    pub(crate) share: u32,
    /// Its number.
    pub(crate) key: KeyId,
}

/// All leases of one shard.
pub(crate) struct Leases {
    places: Box<[Lease]>,
}

impl Leases {
    /// No leases. Allocates all it will ever need.
    pub(crate) fn new() -> Self {
        Self { places: vec![Lease::NONE; LEASE_SETS * WAYS].into_boxed_slice() }
    }

    /// Takes one request. Answers how many are left this second, as far as this shard knows; `None` when used up.
    ///
    /// `hint` is where the key's lease was found last; it saves the search and may be anything.
    #[inline]
    pub(crate) fn take(&mut self, keys: &KeyDirectory, purse: Purse, now_ms: u64, hint: &mut u32) -> Option<u32> {
        if let Some(lease) = self.places.get_mut(*hint as usize)
            && (lease.home, lease.limit) == (purse.home, purse.limit)
            && lease.tokens > 0
            && !lease.is_over(now_ms)
        {
            lease.tokens -= 1;
            return Some(lease.shared_left.saturating_add(lease.tokens));
        }
        self.take_slowly(keys, purse, now_ms, hint)
    }

    fn take_slowly(&mut self, keys: &KeyDirectory, purse: Purse, now_ms: u64, hint: &mut u32) -> Option<u32> {
        let place = self.place(keys, purse, now_ms);
        *hint = place as u32;
        let lease = &mut self.places[place];
        if lease.tokens == 0 || lease.is_over(now_ms) {
            lease.tokens = 0;
            let second = keys.word(purse.home)?;
            let Grant { granted, left, start_ms, tell } =
                second.take(keys.nodes().part(), purse.limit, purse.share, now_ms);
            if tell {
                keys.tell(purse.key);
            }
            if granted == 0 {
                // It is told only where nodes share, and so are refusals.
                let refused = if tell { lease.refuse(start_ms) } else { 0 };
                if refused > 0 {
                    second.add_refused(refused);
                }
                return None;
            }
            if lease.start_ms != start_ms {
                (lease.start_ms, lease.refused) = (start_ms, 0);
                if lease.untold > 0 {
                    second.add_refused(core::mem::take(&mut lease.untold));
                }
            }
            (lease.tokens, lease.shared_left) = (granted, left);
        }
        lease.tokens -= 1;
        Some(lease.shared_left.saturating_add(lease.tokens))
    }

    /// The place of the key's lease, made free for it if it has none.
    fn place(&mut self, keys: &KeyDirectory, purse: Purse, now_ms: u64) -> usize {
        let Purse { home, limit, .. } = purse;
        // Multiplying by an odd number spreads neighbouring homes; homes are ours, so nobody can aim at one set.
        let set = (home.wrapping_mul(0x9E37_79B1) >> 16) as usize & (LEASE_SETS - 1);
        let first = set * WAYS;
        let ways = &self.places[first..first + WAYS];
        if let Some(way) = ways.iter().position(|lease| lease.home == home) {
            if ways[way].limit != limit {
                self.give_back(keys, first + way, purse);
            }
            return first + way;
        }
        let worth = |lease: &Lease| if lease.is_over(now_ms) { 0 } else { lease.tokens };
        let cheapest = (0..WAYS).min_by_key(|way| worth(&ways[*way])).unwrap_or(0);
        self.give_back(keys, first + cheapest, purse);
        first + cheapest
    }

    /// Gives back what is left of the lease at a place, and makes the place this key's.
    fn give_back(&mut self, keys: &KeyDirectory, place: usize, next: Purse) {
        let lease = self.places[place];
        if let Some(second) = keys.word(lease.home).filter(|_| lease.tokens > 0 || lease.untold > 0) {
            second.give_back(lease.start_ms, lease.tokens);
            second.add_refused(lease.untold);
        }
        self.places[place] = Lease { home: next.home, limit: next.limit, ..Lease::NONE };
    }

    /// Forgets every lease: homes are about to be those of other keys.
    pub(crate) fn forget_all(&mut self) {
        self.places.fill(Lease::NONE);
    }
}
