//! Usage records on their way to the journal, in memory: as they came while there is room, merged when there is not.
//!
//! A count is never lost here. What is given up, when the disk takes nothing for long, is detail: first the time within
//! a second, a minute, an hour, then the asset, then the key. How much was given up is counted. What a disk is, is not
//! known here.

use shared::usage::UsageRecord;
use std::cmp::Ordering;
use std::mem;

/// Records that are held at most before equal ones are merged: 65,536 × 64 bytes = 4 MiB. A full disk at 20,000
/// records/s is so merged every three seconds, which takes some 10 ms.
pub const HELD_MAX: usize = 65_536;

/// What records must still share to stay apart.
#[derive(Clone, Copy, Debug)]
struct Detail {
    /// Records of different units of this many ms stay apart.
    unit_ms: u64,
    asset: bool,
    key: bool,
}

/// From full detail to none. With the last, what stays apart is finite: outcomes, protocols, endpoints, tiers.
const DETAILS: [Detail; 6] = [
    Detail { unit_ms: 1_000, asset: true, key: true },
    Detail { unit_ms: 60_000, asset: true, key: true },
    Detail { unit_ms: 3_600_000, asset: true, key: true },
    Detail { unit_ms: 3_600_000, asset: false, key: true },
    Detail { unit_ms: 3_600_000, asset: false, key: false },
    Detail { unit_ms: u64::MAX, asset: false, key: false },
];

impl Detail {
    /// Takes from a record what is given up.
    const fn blur(self, record: &mut UsageRecord) {
        if !self.asset {
            record.asset = [0; 16];
        }
        if !self.key {
            record.key = 0;
        }
    }

    fn order(self, a: &UsageRecord, b: &UsageRecord) -> Ordering {
        let whole = |record: &UsageRecord| {
            let UsageRecord { key, status, protocol, code, tier, endpoint, first_time_ms, .. } = *record;
            (key, status, protocol, code, tier, endpoint, first_time_ms / self.unit_ms)
        };
        whole(a).cmp(&whole(b)).then_with(|| a.asset.cmp(&b.asset))
    }

    fn merge(self, records: &mut Vec<UsageRecord>) {
        records.iter_mut().for_each(|record| self.blur(record));
        records.sort_unstable_by(|a, b| self.order(a, b));
        records.dedup_by(|next, sum| {
            let is_equal = self.order(next, sum) == Ordering::Equal;
            if is_equal {
                sum.requests = sum.requests.saturating_add(next.requests);
                sum.first_time_ms = sum.first_time_ms.min(next.first_time_ms);
                sum.last_time_ms = sum.last_time_ms.max(next.last_time_ms);
            }
            is_equal
        });
    }
}

/// Merges records that differ in nothing but shard, number and the time within a second; how many there are fewer.
pub fn merge(records: &mut Vec<UsageRecord>) -> usize {
    let before = records.len();
    DETAILS[0].merge(records);
    before - records.len()
}

/// Records that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Held {
    records: Vec<UsageRecord>,
    /// Which of `DETAILS` is in force.
    detail: usize,
    given_up: u64,
}

impl Held {
    /// Holds one more.
    pub fn push(&mut self, record: UsageRecord) {
        if self.records.len() >= HELD_MAX {
            self.make_room();
        }
        self.records.push(record);
    }

    /// Takes up to `most` records, those that came last where it is fewer than all, behind what is in `into`.
    pub fn take(&mut self, into: &mut Vec<UsageRecord>, most: usize) {
        if most >= self.records.len() && into.is_empty() {
            mem::swap(&mut self.records, into);
        } else {
            into.extend(self.records.drain(self.records.len().saturating_sub(most)..));
        }
        if self.records.is_empty() {
            self.detail = 0;
        }
    }

    /// How many records are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// How many records were merged into others, ever, because nobody took them.
    #[must_use]
    pub const fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Merges until half of the room is free, so that merging stays seldom.
    fn make_room(&mut self) {
        let before = self.records.len();
        DETAILS[self.detail].merge(&mut self.records);
        while self.records.len() > HELD_MAX / 2 && self.detail + 1 < DETAILS.len() {
            self.detail += 1;
            DETAILS[self.detail].merge(&mut self.records);
        }
        self.given_up += (before - self.records.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Numbers that look like chance, the same in every run.
    fn noise(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    }

    fn any_record(seed: &mut u64, keys: u64, span_ms: u64) -> UsageRecord {
        let first_time_ms = 1_000_000 + (noise(seed) << 20 | noise(seed)) % span_ms;
        let mut asset = [0; 16];
        asset[0] = b'A' + (noise(seed) % 3) as u8;
        UsageRecord {
            key: (noise(seed) % keys) as u32,
            asset,
            code: (noise(seed) % 2) as u8,
            protocol: (noise(seed) % 2) as u8,
            requests: 1 + noise(seed) % 9,
            first_time_ms,
            last_time_ms: first_time_ms + noise(seed) % 50,
            ..UsageRecord::default()
        }
    }

    /// Requests by (key, asset, code, protocol, second).
    fn sums(records: &[UsageRecord]) -> BTreeMap<(u32, u8, u8, u8, u64), u64> {
        let mut sums = BTreeMap::new();
        for record in records {
            let place = (record.key, record.asset[0], record.code, record.protocol, record.first_time_ms / 1_000);
            *sums.entry(place).or_default() += record.requests;
        }
        sums
    }

    #[test]
    fn merging_keeps_every_count_of_every_second() {
        for (seed, count, keys) in [(1, 2, 1), (2, 500, 3), (3, 5_000, 40), (4, 20_000, 2)] {
            let mut seed = seed;
            let before: Vec<_> = (0..count).map(|_| any_record(&mut seed, keys, 5_000)).collect();
            let mut after = before.clone();
            let fewer = merge(&mut after);
            assert_eq!(sums(&after), sums(&before));
            assert_eq!((after.len() + fewer, after.len()), (before.len(), sums(&before).len()));
            let times = |records: &[UsageRecord]| {
                let first = records.iter().map(|record| record.first_time_ms).min();
                (first, records.iter().map(|record| record.last_time_ms).max())
            };
            assert_eq!(times(&after), times(&before));
        }
    }

    #[test]
    fn what_is_taken_is_what_was_held_while_there_is_room() {
        let (mut held, mut seed) = (Held::default(), 5);
        let records: Vec<_> = (0..1_000).map(|_| any_record(&mut seed, 10, 1_000)).collect();
        records.iter().for_each(|record| held.push(*record));
        let mut taken = Vec::new();
        held.take(&mut taken, 1);
        held.take(&mut taken, 99);
        held.take(&mut taken, usize::MAX);
        assert_eq!(taken[0], records[999]);
        assert_eq!((held.len(), held.given_up()), (0, 0));
        let whole = |mut records: Vec<UsageRecord>| {
            records.sort_by(|a, b| bytemuck::bytes_of(a).cmp(bytemuck::bytes_of(b)));
            records
        };
        assert_eq!(whole(taken), whole(records));
    }

    #[test]
    fn however_much_comes_the_sum_is_exact_and_memory_is_bounded() {
        // (keys, span of time, which detail is left)
        for (keys, span_ms, detail) in [(5, 1_000, 0), (50_000, 10_000, 4), (1 << 31, 1 << 40, 5)] {
            let (mut held, mut seed, mut requests) = (Held::default(), 11, 0);
            let pushed = HELD_MAX * 3;
            for _ in 0..pushed {
                let record = any_record(&mut seed, keys, span_ms);
                requests += record.requests;
                held.push(record);
                assert!(held.len() <= HELD_MAX);
            }
            assert_eq!(held.detail, detail, "{keys} keys");
            let mut taken = Vec::new();
            held.take(&mut taken, usize::MAX);
            assert_eq!(taken.iter().map(|record| record.requests).sum::<u64>(), requests);
            assert_eq!(taken.len() as u64 + held.given_up(), pushed as u64, "what was given up is counted");
            assert!(held.given_up() > 0);
            assert_eq!(held.detail, 0, "what comes next is kept in full");
        }
    }
}
