//! Carries each tick into every ring. A full ring costs ticks in between, never the last one and never the order.
//!
//! The newest tick of every asset is kept once, for all rings; a ring that was full only remembers, one bit an asset,
//! whose newest tick it still has to get. So a waiting tick that is replaced is conflated by itself, and an older one
//! can never come after a newer.

use alloc::vec::Vec;
use rtrb::Producer;
use shared::limits::ASSETS_MAX;
use shared::tick::Tick;

/// Rings there can be: one bit each in what `FeedShard::take_touched` gives.
pub const RINGS_MAX: usize = 64;
const WORDS: usize = ASSETS_MAX / 64;
const _: () = assert!(ASSETS_MAX.is_multiple_of(64));

/// One reader of ticks. 1 KiB of waiting marks beside the ring itself.
struct Ring {
    producer: Producer<Tick>,
    /// Assets whose newest tick has not been sent.
    waiting: [u64; WORDS],
    waiting_count: usize,
    /// Where the next retry begins, so that low ids are not always first.
    cursor: usize,
}

/// All rings.
pub(super) struct Fanout {
    rings: Vec<Ring>,
    touched: u64,
    conflated: u64,
}

impl Fanout {
    /// # Panics
    /// With more than 64 rings.
    pub(super) fn new(rings: Vec<Producer<Tick>>) -> Self {
        assert!(rings.len() <= RINGS_MAX, "a feed shard serves at most {RINGS_MAX} rings");
        let ring = |producer| Ring { producer, waiting: [0; WORDS], waiting_count: 0, cursor: 0 };
        Self { rings: rings.into_iter().map(ring).collect(), touched: 0, conflated: 0 }
    }

    /// Sends a tick to every ring that has room; the others will get the asset's newest from [`Fanout::retry`].
    pub(super) fn publish(&mut self, tick: &Tick) {
        let (word, bit) = (usize::from(tick.asset) / 64, 1 << (tick.asset % 64));
        for (index, ring) in self.rings.iter_mut().enumerate() {
            if ring.waiting[word] & bit != 0 {
                self.conflated += 1;
            } else if ring.producer.push(*tick).is_ok() {
                self.touched |= 1 << index;
            } else {
                ring.waiting[word] |= bit;
                ring.waiting_count += 1;
            }
        }
    }

    /// Sends what waited, as far as there is room. `newest` holds each asset's newest tick by asset index.
    pub(super) fn retry(&mut self, newest: &[Tick]) {
        for (index, ring) in self.rings.iter_mut().enumerate() {
            if ring.waiting_count > 0 && ring.retry(newest) {
                self.touched |= 1 << index;
            }
        }
    }

    /// The rings that got ticks since the last call, as bits by index.
    pub(super) fn take_touched(&mut self) -> u64 {
        core::mem::take(&mut self.touched)
    }

    /// Ticks replaced before a ring had room, over all rings.
    pub(super) const fn conflated(&self) -> u64 {
        self.conflated
    }
}

impl Ring {
    /// Sends waiting ticks until none waits or the ring is full. Whether any was sent.
    fn retry(&mut self, newest: &[Tick]) -> bool {
        let mut sent = false;
        // One more than there are words: the first is left half-way when the cursor stands inside it.
        for _ in 0..=WORDS {
            let word = self.cursor / 64;
            let mut rest = self.waiting[word] & (u64::MAX << (self.cursor % 64));
            while rest != 0 {
                let bit = rest.trailing_zeros() as usize;
                self.cursor = word * 64 + bit;
                if self.producer.push(newest[self.cursor]).is_err() {
                    return sent;
                }
                sent = true;
                self.waiting[word] &= !(1 << bit);
                self.waiting_count -= 1;
                rest &= rest - 1;
            }
            if self.waiting_count == 0 {
                return sent;
            }
            self.cursor = (word + 1) % WORDS * 64;
        }
        sent
    }
}
