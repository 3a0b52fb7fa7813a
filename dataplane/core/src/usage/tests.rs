//! The meter on its own: nothing is lost, nothing is counted twice, and how many records come of it.

use super::*;
use alloc::collections::BTreeMap;
use rtrb::{Consumer, RingBuffer};

const MS: u64 = 1_000_000;

/// A meter with its ring, as a shard has them.
struct Rig {
    meter: UsageMeter,
    producer: Producer<UsageRecord>,
    consumer: Consumer<UsageRecord>,
    assets: AssetDirectory,
    now: Moment,
    /// Where sums were found last, by asset.
    hints: [u16; 64],
}

impl Rig {
    fn new(shards: u16, ring: usize) -> Self {
        let (producer, consumer) = RingBuffer::new(ring);
        let now = Moment { mono_ns: 1_000 * MS, wall_ms: 5_000 };
        let meter = UsageMeter::new(3, shards, 7);
        Self { meter, producer, consumer, assets: AssetDirectory::new(), now, hints: [0; 64] }
    }

    /// As a shard does it.
    fn count(&mut self, outcome: Outcome) {
        let hint = &mut self.hints[usize::from(outcome.asset) % 64];
        if !self.meter.count_hinted(outcome, self.now.wall_ms, *hint) {
            if self.meter.is_pressed(&self.producer) {
                self.meter.flush(self.now, &mut self.producer, &self.assets);
            }
            *hint = self.meter.count(outcome, self.now.wall_ms);
        }
    }

    fn flush(&mut self) -> usize {
        self.meter.flush(self.now, &mut self.producer, &self.assets)
    }

    fn end_turn(&mut self) {
        if self.meter.is_due(self.now.mono_ns) {
            self.flush();
        }
    }

    fn drain(&mut self) -> Vec<UsageRecord> {
        core::iter::from_fn(|| self.consumer.pop().ok()).collect()
    }
}

fn outcome(key: u32, asset: u16) -> Outcome {
    Outcome { key: KeyId(key), asset, status: 200, protocol: 0, code: 0, tier: 0, endpoint: 0 }
}

/// Numbers that follow from a seed: hashes of 1, 2, 3, ….
struct Dice(FixedState, u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.1 += 1;
        self.0.hash_one(self.1) % bound
    }
}

#[test]
fn equal_outcomes_merge_and_numbers_have_no_gap() {
    let mut rig = Rig::new(1, 8);
    for wall_ms in [10, 30, 20] {
        rig.now.wall_ms = wall_ms;
        rig.count(outcome(1, 0));
    }
    rig.now.wall_ms = 40;
    rig.count(outcome(2, 0));
    assert_eq!(rig.flush(), 0);
    rig.now.wall_ms = 50;
    rig.count(outcome(1, 0));
    rig.flush();
    let of = |record: &UsageRecord| {
        (record.number, record.key, record.requests, record.first_time_ms, record.last_time_ms, record.shard)
    };
    let seen: Vec<_> = rig.drain().iter().map(of).collect();
    assert_eq!(seen, [(0, 1, 3, 10, 20, 3), (1, 2, 1, 40, 40, 3), (2, 1, 1, 50, 50, 3)]);
}

#[test]
fn a_full_ring_makes_sums_grow_and_loses_nothing() {
    let mut rig = Rig::new(1, 4);
    let mut counted = 0;
    for round in 0..3_u64 {
        rig.now.wall_ms = round;
        for key in 0..3_000 {
            for asset in 0..3 {
                rig.count(outcome(key, asset));
                counted += 1;
            }
        }
        assert!(rig.flush() > 0);
    }
    assert!(rig.meter.is_crowded());
    let mut records = rig.drain();
    while rig.flush() > 0 {
        records.extend(rig.drain());
    }
    records.extend(rig.drain());
    assert_eq!(records.iter().map(|record| record.requests).sum::<u64>(), counted);
    assert!(records.iter().enumerate().all(|(number, record)| record.number == number as u64));
    let keyless: u64 = records.iter().filter(|record| record.key == 0).map(|record| record.requests).sum();
    // Key 0 asked itself: three assets in each of three rounds, all of them before places ran out.
    assert_eq!(rig.meter.take_coarser(), keyless - 9, "detail was given up, not a count, and that is told");
    assert_eq!(rig.meter.take_coarser(), 0);
}

/// Sends `requests` in turns of `per_turn` each, one turn every `turn_ns`; the records that come of it in so much time.
fn records_of(shards: u16, per_turn: u32, turn_ns: u64, turns: u64) -> usize {
    let mut rig = Rig::new(shards, 8_192);
    let (mut records, mut counted) = (0, 0);
    for turn in 0..turns {
        rig.now.mono_ns += turn_ns;
        for number in 0..per_turn {
            rig.count(outcome(number + 1, (turn % 10) as u16));
            counted += 1;
        }
        rig.end_turn();
        let drained = rig.drain();
        counted -= drained.iter().map(|record| record.requests).sum::<u64>();
        records += drained.len();
    }
    rig.flush();
    assert_eq!(rig.drain().iter().map(|record| record.requests).sum::<u64>(), counted);
    records
}

#[test]
fn a_quiet_shard_makes_a_record_of_each_request() {
    assert_eq!(records_of(1, 1, MS, 1_000), 1_000, "one request a millisecond");
    assert_eq!(records_of(2, 1, MS, 1_000), 1_000, "the same on both of two shards");
    assert_eq!(records_of(1, 3, 2 * MS, 500), 1_500, "three keys in one turn are three records");
}

#[test]
fn a_busy_shard_makes_its_part_of_3_000_records_a_second() {
    for shards in [1_u16, 2, 8] {
        let records = records_of(shards, 1, MS / 100, 100_000);
        let share = 3_000 / usize::from(shards);
        assert!(records <= share + share / 50 + 1 && records >= share / 2, "{records} of {shards} shards in a second");
    }
    // Where one flush alone is more than the part of a whole housekeeping turn, it is one flush in each.
    assert_eq!(records_of(2, 300, MS, 1_000), 300 + 19 * 3_000, "the first flush is of one turn");
}

#[test]
fn a_window_is_never_longer_than_a_housekeeping_turn() {
    let mut rig = Rig::new(63, 8_192);
    (0..2_000).for_each(|key| rig.count(outcome(key, 0)));
    rig.flush();
    assert!(!rig.meter.is_due(u64::MAX - 1), "nothing is due while there is nothing");
    rig.count(outcome(1, 0));
    assert!(!rig.meter.is_due(rig.now.mono_ns + 50 * MS - 1));
    assert!(rig.meter.is_due(rig.now.mono_ns + 50 * MS));
    // A flush of few in between does not end the wait for the many before it.
    rig.now.mono_ns += MS;
    rig.flush();
    rig.count(outcome(1, 0));
    assert!(!rig.meter.is_due(rig.now.mono_ns + 48 * MS));
}

/// What was counted by everything that is never given up, and by key where that was not given up either.
type Books = BTreeMap<(u16, u8, u8, u8), u64>;

fn enter(books: &mut Books, of: (u16, u8, u8, u8), requests: u64) {
    *books.entry(of).or_default() += requests;
}

/// Counts, turns, flushes and drains in any order, over rings of any size: the sums are exact at every moment.
#[test]
fn sums_are_exact_under_any_mix() {
    for seed in 1..=60_u64 {
        let mut dice = Dice(FixedState::with_seed(seed), 0);
        let ring = 1 << dice.below(13);
        let keys = 1 + dice.below(6_000);
        let mut rig = Rig::new(1 + dice.below(8) as u16, ring);
        let (mut counted, mut recorded) = (Books::new(), Books::new());
        let mut by_key: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        let mut next_number = 0;
        let mut take = |records: Vec<UsageRecord>, by_key: &mut BTreeMap<u32, (u64, u64)>| {
            for record in records {
                assert_eq!(record.number, next_number, "seed {seed}: numbers have no gap");
                next_number += 1;
                assert!(record.requests > 0 && record.first_time_ms <= record.last_time_ms, "seed {seed}: {record:?}");
                by_key.entry(record.key).or_default().1 += record.requests;
                let of = (record.status, record.protocol, record.code, record.endpoint);
                enter(&mut recorded, of, record.requests);
            }
        };
        for _ in 0..3_000 {
            match dice.below(10) {
                0 => take(rig.drain(), &mut by_key),
                1 => drop(rig.flush()),
                2 => rig.end_turn(),
                3 => rig.now.mono_ns += dice.below(20 * MS),
                4 => rig.now.wall_ms = 5_000 + dice.below(1_000),
                _ => {
                    let (key, asset) = (1 + dice.below(keys) as u32, dice.below(40) as u16);
                    let status = [200, 401, 429][dice.below(3) as usize];
                    let (protocol, endpoint) = (dice.below(2) as u8, dice.below(4) as u8);
                    let asked = Outcome { status, protocol, endpoint, ..outcome(key, asset) };
                    for _ in 0..=dice.below(6) {
                        rig.count(asked);
                        enter(&mut counted, (status, protocol, 0, endpoint), 1);
                        by_key.entry(key).or_default().0 += 1;
                    }
                }
            }
        }
        for _ in 0..10_000 {
            let left = rig.flush();
            take(rig.drain(), &mut by_key);
            if left == 0 {
                break;
            }
        }
        assert_eq!(counted, recorded, "seed {seed}");
        let given_up = by_key.remove(&0).map_or(0, |(_, without_key)| without_key);
        let missing: u64 = by_key.values().map(|(asked, found)| asked.checked_sub(*found).expect("never more")).sum();
        assert_eq!(missing, given_up, "seed {seed}: what a key misses is counted without a key");
        assert!(rig.meter.index.iter().all(|place| *place == 0), "seed {seed}: an empty meter has an empty index");
    }
}
