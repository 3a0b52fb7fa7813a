//! What was answered to whom, merged until it is taken.
//!
//! A count is never lost. When the ring is full the sums go on growing here, and when the sums run out of places,
//! detail is given up (first the asset, then the key) rather than a request.

use crate::limits::{METER_ENTRIES_MAX, METER_ENTRIES_RESERVED};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use foldhash::fast::FixedState;
use rtrb::Producer;
use shared::asset::AssetDirectory;
use shared::asset::AssetId;
use shared::key::KeyId;
use shared::usage::{ASSET_NONE, UsageRecord};

/// Places of the index: a power of two with at least half of them free, so that probing stays short.
const INDEX_PLACES: usize = (METER_ENTRIES_MAX * 2).next_power_of_two();

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
    requests: u64,
    first_time_ms: u64,
    last_time_ms: u64,
}

/// One shard's sums since they were last taken.
pub(crate) struct UsageMeter {
    sums: Vec<Sum>,
    /// Place of a sum + 1, by the outcome's hash; 0 is free.
    index: Box<[u16]>,
    hasher: FixedState,
    shard: u16,
    /// Number of the next record.
    next_number: u64,
}

impl UsageMeter {
    /// No sums. Allocates all it will ever need.
    pub(crate) fn new(shard: u16, hash_seed: u64) -> Self {
        Self {
            sums: Vec::with_capacity(METER_ENTRIES_MAX),
            index: vec![0; INDEX_PLACES].into_boxed_slice(),
            hasher: FixedState::with_seed(hash_seed),
            shard,
            next_number: 0,
        }
    }

    /// Counts one answered request. `hint` is where its sum was found last; it saves the search and may be anything.
    #[inline]
    pub(crate) fn count(&mut self, outcome: Outcome, wall_ms: u64, hint: &mut u16) {
        let hinted = usize::from(*hint);
        let is_right = self.sums.get(hinted).is_some_and(|sum| sum.outcome.packed() == outcome.packed());
        let place = if is_right { hinted } else { self.search(outcome, wall_ms) };
        *hint = place as u16;
        let sum = &mut self.sums[place];
        sum.requests += 1;
        // The wall clock may be set back; a window never ends before it began.
        sum.last_time_ms = wall_ms.max(sum.first_time_ms);
    }

    /// The place of the outcome's sum, which is begun if there is none.
    #[inline(never)]
    fn search(&mut self, outcome: Outcome, wall_ms: u64) -> usize {
        match self.find(&outcome) {
            Ok(place) => place,
            Err(free) => self.begin(outcome, free, wall_ms),
        }
    }

    /// Whether sums should be taken before the next flush is due.
    #[inline]
    pub(crate) fn is_crowded(&self) -> bool {
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
            match (self.find(&without_asset), self.find(&without_key)) {
                (Ok(place), _) | (_, Ok(place)) => return place,
                (_, Err(free)) => (without_key, free),
            }
        };
        // Outcomes without key and asset are fewer than the reserved places.
        debug_assert!(self.sums.len() < METER_ENTRIES_MAX);
        self.sums.push(Sum { outcome, requests: 0, first_time_ms: wall_ms, last_time_ms: wall_ms });
        self.index[free] = self.sums.len() as u16;
        self.sums.len() - 1
    }

    /// Sends what the ring has room for; answers how many sums had to stay.
    pub(crate) fn flush(&mut self, ring: &mut Producer<UsageRecord>, assets: &AssetDirectory) -> usize {
        if self.sums.is_empty() {
            return 0;
        }
        let sent = self.sums.len().min(ring.slots());
        for place in 0..sent {
            let record = self.record(&self.sums[place], assets);
            if ring.push(record).is_err() {
                debug_assert!(false, "only this shard pushes, so there is room");
            }
            self.next_number += 1;
        }
        if sent > 0 {
            self.sums.drain(..sent);
            self.index.fill(0);
            for place in 0..self.sums.len() {
                if let Err(free) = self.find(&self.sums[place].outcome) {
                    self.index[free] = place as u16 + 1;
                }
            }
        }
        self.sums.len()
    }

    fn record(&self, sum: &Sum, assets: &AssetDirectory) -> UsageRecord {
        let entry = AssetId::new(usize::from(sum.outcome.asset)).and_then(|asset| assets.entry(asset));
        UsageRecord {
            number: self.next_number,
            first_time_ms: sum.first_time_ms,
            last_time_ms: sum.last_time_ms,
            requests: sum.requests,
            asset: entry.map_or([0; 16], |entry| *entry.symbol.padded()),
            key: sum.outcome.key.0,
            shard: self.shard,
            status: sum.outcome.status,
            protocol: sum.outcome.protocol,
            code: sum.outcome.code,
            tier: sum.outcome.tier,
            endpoint: sum.outcome.endpoint,
            check: [0; 4],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtrb::{Consumer, RingBuffer};

    fn outcome(key: u32, asset: u16) -> Outcome {
        Outcome { key: KeyId(key), asset, status: 200, protocol: 0, code: 0, tier: 0, endpoint: 0 }
    }

    fn drain(ring: &mut Consumer<UsageRecord>) -> Vec<UsageRecord> {
        core::iter::from_fn(|| ring.pop().ok()).collect()
    }

    #[test]
    fn equal_outcomes_merge_and_numbers_have_no_gap() {
        let (mut producer, mut consumer) = RingBuffer::new(8);
        let mut meter = UsageMeter::new(3, 7);
        let mut hint = 99;
        for wall_ms in [10, 30, 20] {
            meter.count(outcome(1, 0), wall_ms, &mut hint);
        }
        meter.count(outcome(2, 0), 40, &mut hint);
        assert_eq!(meter.flush(&mut producer, &AssetDirectory::new()), 0);
        meter.count(outcome(1, 0), 50, &mut hint);
        meter.flush(&mut producer, &AssetDirectory::new());
        let seen: Vec<_> = drain(&mut consumer)
            .iter()
            .map(|record| (record.number, record.key, record.requests, record.first_time_ms, record.last_time_ms))
            .collect();
        assert_eq!(seen, [(0, 1, 3, 10, 20), (1, 2, 1, 40, 40), (2, 1, 1, 50, 50)]);
    }

    #[test]
    fn a_full_ring_makes_sums_grow_and_loses_nothing() {
        let (mut producer, mut consumer) = RingBuffer::new(4);
        let mut meter = UsageMeter::new(0, 7);
        let (mut counted, mut hint) = (0, 0);
        for round in 0..3_u64 {
            for key in 0..3_000 {
                for asset in 0..3 {
                    meter.count(outcome(key, asset), round, &mut hint);
                    counted += 1;
                }
            }
            assert!(meter.flush(&mut producer, &AssetDirectory::new()) > 0);
        }
        assert!(meter.is_crowded());
        let mut records = drain(&mut consumer);
        while meter.flush(&mut producer, &AssetDirectory::new()) > 0 {
            records.extend(drain(&mut consumer));
        }
        records.extend(drain(&mut consumer));
        assert_eq!(records.iter().map(|record| record.requests).sum::<u64>(), counted);
        assert!(records.iter().enumerate().all(|(number, record)| record.number == number as u64));
        assert!(records.iter().any(|record| record.key == 0), "detail was given up, not a count");
    }
}
