//! What was answered to whom, merged until it is taken.
//!
//! A record stands for one turn's equal requests while there is little to do: sums leave at the end of the turn that began
//! them. The more records a flush makes, the longer the next one waits, so that a busy shard merges more instead of
//! writing more. A count is never lost: when the ring is full the sums go on growing here, and when the sums run out of
//! places, detail is given up (first the asset, then the key) rather than a request. What becomes of a record is not
//! known here.

use crate::limits::{METER_ENTRIES_MAX, METER_ENTRIES_RESERVED, METER_RECORD_NS, METER_WINDOW_MAX_NS};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use foldhash::fast::FixedState;
use rtrb::Producer;
use shared::asset::AssetDirectory;
use shared::asset::AssetId;
use shared::key::KeyId;
use shared::moment::Moment;
use shared::usage::{ASSET_NONE, UsageRecord};

/// Places of the index: a power of two with at least half of them free, so that probing stays short.
const INDEX_PLACES: usize = (METER_ENTRIES_MAX * 2).next_power_of_two();

/// Room in the ring without which a crowded meter is not worth a flush: it costs what all sums cost, whatever leaves.
const CROWDED_FLUSH_MIN: usize = METER_ENTRIES_MAX / 4;

/// What requests must share to be one sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) key: KeyId,
    /// `ASSET_NONE` where no single asset was answered about.
    pub(crate) asset: u16,
    pub(crate) status: u16,
    pub(crate) protocol: u8,
    /// `Code` number, 0 for ok.
    pub(crate) code: u8,
    pub(crate) tier: u8,
    pub(crate) endpoint: u8,
}

impl Outcome {
    /// All of it in one number, which is quick to hash and to compare.
    #[inline]
    const fn packed(&self) -> (u64, u32) {
        let what = (self.protocol as u32) << 24 | (self.code as u32) << 16 | (self.tier as u32) << 8;
        let whose = (self.key.0 as u64) << 32 | (self.asset as u64) << 16 | self.status as u64;
        (whose, what | self.endpoint as u32)
    }
}

#[derive(Clone, Copy)]
struct Sum {
    outcome: Outcome,
    /// Where the index names it.
    indexed: u16,
    requests: u64,
    first_time_ms: u64,
    last_time_ms: u64,
}

const _: () = assert!(size_of::<Sum>() == 40 && INDEX_PLACES <= 1 << 16);

/// One shard's sums since they were last taken.
pub(crate) struct UsageMeter {
    sums: Vec<Sum>,
    /// Place of a sum + 1, by the outcome's hash; 0 is free.
    index: Box<[u16]>,
    hasher: FixedState,
    shard: u16,
    /// How long the other sums wait for one that was flushed, ns.
    record_ns: u64,
    /// Number of the next record.
    next_number: u64,
    /// When the window after the last flush ends, monotonic ns.
    window_ends_mono_ns: u64,
    /// The same while there are sums, `u64::MAX` while there are none.
    due_mono_ns: u64,
    /// Requests whose detail was given up, since they were taken last.
    coarser: u64,
}

impl UsageMeter {
    /// No sums, in one of so many shards. Allocates all it will ever need.
    pub(crate) fn new(shard: u16, shards: u16, hash_seed: u64) -> Self {
        Self {
            sums: Vec::with_capacity(METER_ENTRIES_MAX),
            index: vec![0; INDEX_PLACES].into_boxed_slice(),
            hasher: FixedState::with_seed(hash_seed),
            shard,
            record_ns: METER_RECORD_NS * u64::from(shards),
            next_number: 0,
            window_ends_mono_ns: 0,
            due_mono_ns: u64::MAX,
            coarser: 0,
        }
    }

    /// Counts one answered request if `hint` names its sum, which is where it was found last and may be anything;
    /// whether it did.
    #[inline]
    pub(crate) fn count_hinted(&mut self, outcome: Outcome, wall_ms: u64, hint: u16) -> bool {
        match self.sums.get_mut(usize::from(hint)) {
            Some(sum) if sum.outcome.packed() == outcome.packed() => {
                sum.count(wall_ms);
                true
            }
            _ => false,
        }
    }

    /// Counts one answered request in the sum of its outcome, which is begun if there is none; answers the hint to it.
    #[inline(never)]
    pub(crate) fn count(&mut self, outcome: Outcome, wall_ms: u64) -> u16 {
        let place = match self.find(&outcome) {
            Ok(place) => place,
            Err(free) => self.begin(outcome, free, wall_ms),
        };
        self.sums[place].count(wall_ms);
        place as u16
    }

    /// Requests counted without their asset, or their key too, since this was asked last.
    pub(crate) const fn take_coarser(&mut self) -> u64 {
        core::mem::replace(&mut self.coarser, 0)
    }

    /// Whether a flush is due: there are sums, and the window after the last flush is over.
    #[inline]
    pub(crate) const fn is_due(&self, mono_ns: u64) -> bool {
        mono_ns >= self.due_mono_ns
    }

    /// Whether sums should leave before that, because places run out and the ring can take a good part.
    pub(crate) fn is_pressed(&self, ring: &Producer<UsageRecord>) -> bool {
        self.is_crowded() && ring.slots() >= CROWDED_FLUSH_MIN
    }

    const fn is_crowded(&self) -> bool {
        self.sums.len() >= METER_ENTRIES_MAX - METER_ENTRIES_RESERVED
    }

    /// The sum of `outcome`, or the free place of the index where it would be.
    #[inline]
    fn find(&self, outcome: &Outcome) -> Result<usize, usize> {
        let packed = outcome.packed();
        let mut place = self.hasher.hash_one(packed) as usize & (INDEX_PLACES - 1);
        loop {
            match usize::from(self.index[place]) {
                0 => return Err(place),
                taken if self.sums[taken - 1].outcome.packed() == packed => return Ok(taken - 1),
                _ => place = (place + 1) & (INDEX_PLACES - 1),
            }
        }
    }

    /// Begins a sum; where places run out, of coarser outcomes that come up again and again.
    fn begin(&mut self, outcome: Outcome, free: usize, wall_ms: u64) -> usize {
        let without_asset = Outcome { asset: ASSET_NONE, ..outcome };
        let without_key = Outcome { key: KeyId::NOBODY, ..without_asset };
        let (outcome, free) = if !self.is_crowded() || outcome == without_key {
            (outcome, free)
        } else {
            self.coarser += 1;
            match (self.find(&without_asset), self.find(&without_key)) {
                (Ok(place), _) | (_, Ok(place)) => return place,
                (_, Err(free)) => (without_key, free),
            }
        };
        // Outcomes without key and asset are fewer than the reserved places.
        debug_assert!(self.sums.len() < METER_ENTRIES_MAX);
        let indexed = free as u16;
        self.sums.push(Sum { outcome, indexed, requests: 0, first_time_ms: wall_ms, last_time_ms: wall_ms });
        self.index[free] = self.sums.len() as u16;
        self.due_mono_ns = self.window_ends_mono_ns;
        self.sums.len() - 1
    }

    /// Sends what the ring has room for, and begins the next window; answers how many sums had to stay.
    #[inline(never)]
    pub(crate) fn flush(&mut self, now: Moment, ring: &mut Producer<UsageRecord>, assets: &AssetDirectory) -> usize {
        let handled = self.sums.len();
        if handled == 0 {
            return 0;
        }
        let sent = self.send(ring, assets);
        // All places are given up before any is taken again: one that is free ends a search.
        for sum in &self.sums {
            self.index[usize::from(sum.indexed)] = 0;
        }
        self.sums.drain(..sent);
        for place in 0..self.sums.len() {
            if let Err(free) = self.find(&self.sums[place].outcome) {
                self.index[free] = place as u16 + 1;
                self.sums[place].indexed = free as u16;
            }
        }
        let window_ns = (handled as u64 * self.record_ns).min(METER_WINDOW_MAX_NS);
        self.window_ends_mono_ns = self.window_ends_mono_ns.max(now.mono_ns + window_ns);
        self.due_mono_ns = if self.sums.is_empty() { u64::MAX } else { self.window_ends_mono_ns };
        self.sums.len()
    }

    /// Pushes a record of each of the first sums; answers of how many.
    fn send(&mut self, ring: &mut Producer<UsageRecord>, assets: &AssetDirectory) -> usize {
        let room = self.sums.len().min(ring.slots());
        // Only this shard pushes, so there is as much room as there was.
        let Ok(chunk) = ring.write_chunk_uninit(room) else { return 0 };
        let (shard, first_number) = (self.shard, self.next_number);
        let numbered = self.sums.iter().zip(first_number..);
        let sent = chunk.fill_from_iter(numbered.map(|(sum, number)| sum.record(number, shard, assets)));
        self.next_number += sent as u64;
        sent
    }
}

impl Sum {
    #[inline]
    fn count(&mut self, wall_ms: u64) {
        self.requests += 1;
        // The wall clock may be set back; a window never ends before it began.
        self.last_time_ms = wall_ms.max(self.first_time_ms);
    }

    fn record(&self, number: u64, shard: u16, assets: &AssetDirectory) -> UsageRecord {
        let entry = AssetId::new(usize::from(self.outcome.asset)).and_then(|asset| assets.entry(asset));
        UsageRecord {
            number,
            first_time_ms: self.first_time_ms,
            last_time_ms: self.last_time_ms,
            requests: self.requests,
            asset: entry.map_or([0; 16], |entry| *entry.symbol.padded()),
            key: self.outcome.key.0,
            shard,
            status: self.outcome.status,
            protocol: self.outcome.protocol,
            code: self.outcome.code,
            tier: self.outcome.tier,
            endpoint: self.outcome.endpoint,
            check: [0; 4],
        }
    }
}

#[cfg(test)]
mod tests;
