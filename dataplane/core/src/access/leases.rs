//! What one shard has leased of keys' seconds: a table of fixed size, four places to a set.
//!
//! A lease is worth something only within its window, so forgetting one is no loss after at most a second; one that
//! must make room before that is given back to the key's shared allowance.

use super::KeyDirectory;
use super::allowance::WINDOW_MS;
use crate::limits::LEASE_SETS;
use alloc::boxed::Box;
use alloc::vec;

/// Places in a set.
const WAYS: usize = 4;

/// `slot` of a place that nobody holds.
const NOBODY: u32 = u32::MAX;

/// Requests a key may still make through this shard without asking the shared allowance.
#[derive(Clone, Copy)]
struct Lease {
    /// The key's place in the directory.
    slot: u32,
    /// Requests left in the lease.
    tokens: u32,
    /// Requests that were left in the shared allowance when it was last asked.
    shared_left: u32,
    /// When the window began, ms since boot.
    start_ms: u64,
}

impl Lease {
    const NONE: Self = Self { slot: NOBODY, tokens: 0, shared_left: 0, start_ms: 0 };

    #[inline]
    const fn is_over(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.start_ms) >= WINDOW_MS
    }
}

/// Whose request it is, and by how much to lease.
#[derive(Clone, Copy)]
pub(crate) struct Purse {
    /// The key's place in the directory.
    pub(crate) slot: u32,
    /// Its limit per second.
    pub(crate) limit: u32,
    /// By what part of the limit to lease at a time, and by 1 at least.
    pub(crate) share: u32,
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
            && lease.slot == purse.slot
            && lease.tokens > 0
            && !lease.is_over(now_ms)
        {
            lease.tokens -= 1;
            return Some(lease.shared_left.saturating_add(lease.tokens));
        }
        self.take_slowly(keys, purse, now_ms, hint)
    }

    fn take_slowly(&mut self, keys: &KeyDirectory, purse: Purse, now_ms: u64, hint: &mut u32) -> Option<u32> {
        let place = self.place(keys, purse.slot, now_ms);
        *hint = place as u32;
        let lease = &mut self.places[place];
        if lease.tokens == 0 || lease.is_over(now_ms) {
            lease.tokens = 0;
            let grant = keys.word(purse.slot)?.take(keys.nodes().part(), purse.limit, purse.share, now_ms);
            if grant.tell {
                keys.tell(keys.record(purse.slot)?.id);
            }
            if grant.granted == 0 {
                return None;
            }
            *lease =
                Lease { slot: purse.slot, tokens: grant.granted, shared_left: grant.left, start_ms: grant.start_ms };
        }
        lease.tokens -= 1;
        Some(lease.shared_left.saturating_add(lease.tokens))
    }

    /// The place of the key's lease, made free for it if it has none.
    fn place(&mut self, keys: &KeyDirectory, slot: u32, now_ms: u64) -> usize {
        // Multiplying by an odd number spreads neighbouring slots; slots are ours, so nobody can aim at one set.
        let set = (slot.wrapping_mul(0x9E37_79B1) >> 16) as usize & (LEASE_SETS - 1);
        let first = set * WAYS;
        let ways = &self.places[first..first + WAYS];
        if let Some(way) = ways.iter().position(|lease| lease.slot == slot) {
            return first + way;
        }
        let worth = |lease: &Lease| if lease.is_over(now_ms) { 0 } else { lease.tokens };
        let cheapest = (0..WAYS).min_by_key(|way| worth(&ways[*way])).unwrap_or(0);
        self.give_back(keys, first + cheapest);
        self.places[first + cheapest] = Lease { slot, ..Lease::NONE };
        first + cheapest
    }

    fn give_back(&mut self, keys: &KeyDirectory, place: usize) {
        let lease = self.places[place];
        if let Some(word) = keys.word(lease.slot).filter(|_| lease.tokens > 0) {
            word.give_back(lease.start_ms, lease.tokens);
        }
        self.places[place] = Lease::NONE;
    }

    /// Gives every lease back: the places of keys are about to change.
    pub(crate) fn give_all_back(&mut self, keys: &KeyDirectory) {
        for place in 0..self.places.len() {
            self.give_back(keys, place);
        }
    }
}
