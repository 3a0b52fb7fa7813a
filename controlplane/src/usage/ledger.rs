//! What each key has asked, in memory: the shards' usage records, added up per key.
//!
//! The journal's thread empties every shard's ring, and the housekeeping thread does, so that totals and months go on
//! where a disk hangs; the control plane counts its own answers here too. What is counted is held for the journal, where
//! there is one. Nothing is written to disk here: totals begin at the process's start.

use super::held::Held;
use rtrb::Consumer;
use serde::Serialize;
use shared::code::Code;
use shared::key::KeyId;
use shared::limits::USAGE_RING_CAPACITY;
use shared::usage::{PROTOCOL_TCP, PROTOCOL_UDP, UsageRecord};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Totals of one key since the process started.
///
/// Bounded by what is finite: 22 outcomes, 2 protocols. With the 1,000,000 keys a node can know, all of them used,
/// that is about 300 bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeyUsage {
    /// Requests, whatever the outcome.
    pub requests: u64,
    /// Requests by outcome: `ok`, or the name of the code.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Requests by protocol.
    pub protocols: BTreeMap<&'static str, u64>,
    /// When the first was, Unix ms.
    pub first_time_ms: u64,
    /// When the last was, Unix ms.
    pub last_time_ms: u64,
}

impl KeyUsage {
    fn add(&mut self, record: &UsageRecord) {
        self.requests += record.requests;
        let outcome = Code::from_number(record.code).map_or("ok", Code::name);
        *self.outcomes.entry(outcome).or_default() += record.requests;
        let protocol = match record.protocol {
            PROTOCOL_TCP => "tcp",
            PROTOCOL_UDP => "udp",
            _ => "other",
        };
        *self.protocols.entry(protocol).or_default() += record.requests;
        if self.first_time_ms == 0 || record.first_time_ms < self.first_time_ms {
            self.first_time_ms = record.first_time_ms;
        }
        self.last_time_ms = self.last_time_ms.max(record.last_time_ms);
    }
}

/// What is kept of one key.
#[derive(Default)]
struct Kept {
    usage: KeyUsage,
    /// Requests towards its month that nobody has taken yet.
    untaken: u64,
}

#[derive(Default)]
struct Totals {
    /// By number, so that a page is found without looking at every key.
    keys: BTreeMap<KeyId, Kept>,
    /// Keys with untaken requests, each once; who waits longest is first.
    untaken: VecDeque<KeyId>,
    requests: u64,
    records: u64,
}

/// Whether a request with this outcome counts towards its key's month: all of a known key do, but those that were
/// turned away before anybody looked at what they asked.
fn counts_in_month(key: u32, code: u8) -> bool {
    let turned_away = matches!(
        Code::from_number(code),
        Some(
            Code::KeyMissing
                | Code::KeyInvalid
                | Code::NotPermitted
                | Code::RateLimitedSecond
                | Code::RateLimitedMonth
                | Code::Overloaded
                | Code::Draining
                | Code::ClockSkew
        )
    );
    key != KeyId::NOBODY.0 && !turned_away
}

/// Totals of every key that asked something.
pub struct UsageLedger {
    rings: Mutex<Vec<Consumer<UsageRecord>>>,
    totals: Mutex<Totals>,
    /// What the journal has not taken; `None`: there is none.
    held: Option<Mutex<Held>>,
    /// Whether anything is counted.
    counts: bool,
}

impl UsageLedger {
    /// A ledger over the shards' rings, from which nothing is journaled.
    #[must_use]
    pub fn new(rings: Vec<Consumer<UsageRecord>>) -> Self {
        Self { rings: Mutex::new(rings), totals: Mutex::default(), held: None, counts: true }
    }

    /// A ledger over the shards' rings that holds what it counts until a journal takes it.
    #[must_use]
    pub fn journaled(rings: Vec<Consumer<UsageRecord>>) -> Self {
        Self { held: Some(Mutex::default()), ..Self::new(rings) }
    }

    /// A ledger that counts nothing (`TB_USAGE=off`).
    #[must_use]
    pub fn off() -> Self {
        Self { counts: false, ..Self::new(Vec::new()) }
    }

    /// Takes what the shards have pushed: at most one ring's capacity of each, so that one call ends.
    pub fn drain(&self) {
        let mut rings = lock(&self.rings);
        let mut totals = lock(&self.totals);
        let mut held = self.held.as_ref().map(lock);
        for ring in rings.iter_mut() {
            for _ in 0..USAGE_RING_CAPACITY {
                let Ok(record) = ring.pop() else { break };
                totals.add(&record);
                if let Some(held) = &mut held {
                    held.push(record);
                }
            }
        }
    }

    /// Counts an answer that the control plane gave itself.
    pub fn count(&self, record: &UsageRecord) {
        if !self.counts {
            return;
        }
        lock(&self.totals).add(record);
        if let Some(held) = &self.held {
            lock(held).push(*record);
        }
    }

    /// For the journal: takes up to `most` records that were counted, behind what is in `into`.
    pub fn take(&self, into: &mut Vec<UsageRecord>, most: usize) {
        if let Some(held) = &self.held {
            lock(held).take(into, most);
        }
    }

    /// For the journal: gives back what it could not write. It was counted before, so no total changes.
    pub fn give_back(&self, records: &[UsageRecord]) {
        if let Some(held) = &self.held {
            let mut held = lock(held);
            records.iter().for_each(|record| held.push(*record));
        }
    }

    /// Records that wait in memory for the journal, and how many were merged into others because it did not take them.
    #[must_use]
    pub fn held(&self) -> (usize, u64) {
        self.held.as_ref().map(lock).map_or((0, 0), |held| (held.len(), held.given_up()))
    }

    /// The totals of one key.
    #[must_use]
    pub fn of(&self, key: KeyId) -> KeyUsage {
        lock(&self.totals).keys.get(&key).map(|kept| kept.usage.clone()).unwrap_or_default()
    }

    /// Takes what up to `limit` keys have asked towards their months since it was taken last; those that wait longest
    /// first, so that every key's turn comes however many ask.
    #[must_use]
    pub fn take_month_use(&self, limit: usize) -> Vec<(KeyId, u64)> {
        let mut totals = lock(&self.totals);
        let Totals { keys, untaken, .. } = &mut *totals;
        let count = limit.min(untaken.len());
        let take = |key| Some((key, std::mem::take(&mut keys.get_mut(&key)?.untaken)));
        untaken.drain(..count).filter_map(take).collect()
    }

    /// Totals of up to `limit` keys whose number is above `after`, by number.
    #[must_use]
    pub fn page(&self, after: u32, limit: usize) -> Vec<(u32, KeyUsage)> {
        let totals = lock(&self.totals);
        let rows = totals.keys.range((Excluded(KeyId(after)), Unbounded)).take(limit);
        rows.map(|(key, kept)| (key.0, kept.usage.clone())).collect()
    }

    /// Requests of all keys, and records they came in.
    #[must_use]
    pub fn total(&self) -> (u64, u64) {
        let totals = lock(&self.totals);
        (totals.requests, totals.records)
    }
}

impl Totals {
    fn add(&mut self, record: &UsageRecord) {
        self.records += 1;
        self.requests += record.requests;
        let key = KeyId(record.key);
        let kept = self.keys.entry(key).or_default();
        kept.usage.add(record);
        if record.requests > 0 && counts_in_month(record.key, record.code) {
            if kept.untaken == 0 {
                self.untaken.push_back(key);
            }
            kept.untaken += record.requests;
        }
    }
}

/// A panic elsewhere leaves plain numbers behind, never half of a change: they stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: u32, code: u8, protocol: u8, requests: u64, at: u64) -> UsageRecord {
        UsageRecord { key, code, protocol, requests, first_time_ms: at, last_time_ms: at + 1, ..UsageRecord::default() }
    }

    #[test]
    fn the_sum_over_rings_and_own_answers_is_what_was_pushed() {
        let (mut producer, consumer) = rtrb::RingBuffer::new(8);
        let ledger = UsageLedger::new(vec![consumer]);
        let limited = Code::RateLimitedSecond.number();
        for record in [record(7, 0, PROTOCOL_TCP, 40, 100), record(7, limited, PROTOCOL_UDP, 2, 50)] {
            producer.push(record).expect("room");
        }
        ledger.drain();
        ledger.count(&record(7, 0, PROTOCOL_TCP, 1, 200));
        ledger.count(&record(0, Code::KeyInvalid.number(), PROTOCOL_TCP, 5, 200));
        let usage = ledger.of(KeyId(7));
        assert_eq!((usage.requests, usage.first_time_ms, usage.last_time_ms), (43, 50, 201));
        assert_eq!(usage.outcomes, BTreeMap::from([("ok", 41), ("rate_limited_second", 2)]));
        assert_eq!(usage.protocols, BTreeMap::from([("tcp", 41), ("udp", 2)]));
        assert_eq!(ledger.of(KeyId(8)), KeyUsage::default());
        assert_eq!(ledger.total(), (48, 4));
    }

    #[test]
    fn what_is_counted_is_held_for_the_journal_once() {
        let (mut producer, consumer) = rtrb::RingBuffer::new(8);
        let ledger = UsageLedger::journaled(vec![consumer]);
        producer.push(record(7, 0, PROTOCOL_TCP, 40, 100)).expect("room");
        ledger.drain();
        ledger.count(&record(7, 0, PROTOCOL_TCP, 1, 200));
        assert_eq!(ledger.held(), (2, 0));
        let mut taken = Vec::new();
        ledger.take(&mut taken, 1);
        ledger.take(&mut taken, usize::MAX);
        assert_eq!(taken.iter().map(|record| record.requests).collect::<Vec<_>>(), [1, 40]);
        ledger.give_back(&taken[..1]);
        assert_eq!((ledger.held(), ledger.total()), ((1, 0), (41, 2)), "no total counts it again");
    }

    #[test]
    fn what_counts_towards_a_month_is_taken_once() {
        let ledger = UsageLedger::new(Vec::new());
        let outcomes = [
            (7, 0),
            (7, Code::RateLimitedSecond.number()),
            (7, Code::RateLimitedMonth.number()),
            (7, Code::NotPermitted.number()),
            (7, Code::AssetUnknown.number()),
            (0, Code::AssetUnknown.number()),
            (8, Code::Overloaded.number()),
            (9, 0),
        ];
        for (key, code) in outcomes {
            ledger.count(&record(key, code, PROTOCOL_TCP, 10, 1));
        }
        let take = |limit| {
            let mut taken = ledger.take_month_use(limit);
            taken.sort_unstable();
            taken
        };
        assert_eq!(take(1), [(KeyId(7), 20)]);
        ledger.count(&record(7, 0, PROTOCOL_TCP, 1, 1));
        assert_eq!(take(1), [(KeyId(9), 10)], "who waits longest is first");
        assert_eq!(take(10), [(KeyId(7), 1)]);
        assert_eq!(take(10), []);
        assert_eq!(ledger.of(KeyId(7)).requests, 51);
    }

    #[test]
    fn pages_go_by_key_number() {
        let ledger = UsageLedger::new(Vec::new());
        for key in [5, 3, 9, 1] {
            ledger.count(&record(key, 0, PROTOCOL_TCP, 1, 1));
        }
        let numbers = |after, limit| ledger.page(after, limit).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(numbers(0, 2), [1, 3]);
        assert_eq!(numbers(3, 10), [5, 9]);
    }
}
