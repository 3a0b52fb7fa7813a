//! Keys' months: what was asked is added up over all nodes in the store, and a key over its bound is refused.
//!
//! Once a second what keys have asked goes to the store in one numbered batch, and the new totals of all nodes come back.
//! A batch whose answer is lost is sent again with its number, so it is added once. While the store is away counting goes
//! on here, one number per key, and nothing is lost as long as the process lives.
//!
//! What can slip over a quota: a node's requests of the 100 ms until shards publish them, of the 50 ms until they are
//! taken out, and of the second until they are added; and until the next batch with a request of that key, what other
//! nodes have added. About two seconds of use per node. While the store is away, what other nodes use meanwhile. At a
//! month's turn (UTC) requests of the last second or so may count in the new month.

use crate::cache::names::{CacheKey, USAGE_COUNTER};
use crate::cache::{Cache, Value};
use crate::keys::to_hex;
use crate::store::{MonthUse, Store, USE_ROWS_MAX};
use crate::usage::UsageLedger;
use dataplane_core::access::Keys;
use dataplane_core::render::month_of;
use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;
use shared::key::KeyId;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tuning::clock;

/// Time between two batches.
const ROUND: Duration = Duration::from_secs(1);

/// Counters written to the cache after one batch; those of further keys come with their next batch. At a millisecond
/// each and [`COUNTERS_AT_A_TIME`] together that is well within a second.
const COUNTERS_MAX: usize = 1_000;

/// Counters under way at a time.
const COUNTERS_AT_A_TIME: usize = 32;

/// Rounds between two looks whether keys have come whose totals are not known yet. A look passes over every key: some
/// milliseconds for a million.
const ROUNDS_PER_LOOK: u64 = 10;

/// What a key may ask in a month.
pub trait MonthLimits: Send + Sync {
    /// Requests per calendar month (UTC); `None`: no bound, or no such key.
    fn month_limit(&self, key: KeyId) -> Option<u64>;
}

/// What the quota is made of.
pub struct Quota {
    /// The keys in force.
    pub keys: watch::Receiver<Keys>,
    /// Their bounds.
    pub bounds: Arc<dyn MonthLimits>,
    /// What they ask.
    pub usage: Arc<UsageLedger>,
    /// Where it is added up.
    pub store: Arc<dyn Store>,
    /// Where it is mirrored.
    pub cache: Arc<dyn Cache>,
    /// Names this process since its start among all that ever wrote.
    pub writer: String,
}

/// How counting stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QuotaStatus {
    /// The month, UTC: year × 12 + month − 1.
    pub month: u32,
    /// Keys that are over their months.
    pub keys_over: usize,
    /// Requests that are not known to be in the store.
    pub waiting: u64,
    /// Batches that were added.
    pub batches: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Since when the store takes none, Unix ms.
    pub away_since_ms: Option<u64>,
}

#[derive(Default)]
struct Books {
    status: QuotaStatus,
    /// Totals of all nodes, as the store told them last.
    stored: HashMap<KeyId, u64>,
    /// Requests by key that are in no batch yet: of this month.
    waiting: HashMap<KeyId, u64>,
    /// The batch that was sent and not answered. At most [`USE_ROWS_MAX`].
    batch: Vec<MonthUse>,
    /// Requests by key of the batch's rows that are of this month.
    sent: HashMap<KeyId, u64>,
    /// Its number.
    number: i64,
    /// Requests of a month gone by that are in no batch yet. Emptied before anything of this month goes out.
    earlier: Vec<MonthUse>,
    over: HashSet<KeyId>,
    looked_at: usize,
    rounds: u64,
}

impl Books {
    fn used(&self, key: KeyId) -> u64 {
        [&self.stored, &self.sent, &self.waiting].into_iter().filter_map(|part| part.get(&key)).sum()
    }

    /// Begins a new month if it is one.
    fn turn(&mut self, month: u32) {
        let before = std::mem::replace(&mut self.status.month, month);
        if before == month {
            return;
        }
        let rows = self.waiting.drain().map(|(key, requests)| MonthUse { key: key.0, month: before, requests });
        self.earlier.extend(rows);
        self.stored.clear();
        self.sent.clear();
        self.looked_at = 0;
    }

    /// Makes the next batch, if there is something to send and none under way.
    fn fill_batch(&mut self) {
        if !self.batch.is_empty() {
            return;
        }
        let from = self.earlier.len().saturating_sub(USE_ROWS_MAX);
        self.batch = self.earlier.split_off(from);
        let room = USE_ROWS_MAX - self.batch.len();
        let keys: Vec<KeyId> = self.waiting.keys().copied().take(room).collect();
        for key in keys {
            let requests = self.waiting.remove(&key).unwrap_or(0);
            self.batch.push(MonthUse { key: key.0, month: self.status.month, requests });
            self.sent.insert(key, requests);
        }
        if !self.batch.is_empty() {
            self.number += 1;
        }
    }

    fn know(&mut self, totals: &[MonthUse]) {
        for row in totals.iter().filter(|row| row.month == self.status.month) {
            self.stored.insert(KeyId(row.key), row.requests);
        }
    }

    fn count_waiting(&mut self) {
        let rows = self.batch.iter().chain(&self.earlier).map(|row| row.requests).sum::<u64>();
        self.status.waiting = rows + self.waiting.values().sum::<u64>();
    }
}

/// The running count, for whoever asks.
#[derive(Clone, Default)]
pub struct Months(Arc<Mutex<Books>>);

impl Months {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests of this key in the present month, all nodes', as far as this one knows.
    #[must_use]
    pub fn used(&self, key: KeyId) -> u64 {
        self.books().used(key)
    }

    /// How counting stands.
    #[must_use]
    pub fn status(&self) -> QuotaStatus {
        self.books().status
    }
}

impl Quota {
    /// Counts once a second until `stop` says so or is gone, and then sends what is left, for no longer than the time
    /// that it says.
    pub async fn run(self, months: Months, mut stop: watch::Receiver<Option<Instant>>) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = rounds.tick() => self.round(&months, clock::now().wall_ms).await,
                changed = stop.changed() => {
                    let until = *stop.borrow_and_update();
                    if changed.is_err() || until.is_some() {
                        self.finish(&months, until.unwrap_or_else(Instant::now)).await;
                        return;
                    }
                }
            }
        }
    }

    /// One round at this time.
    pub(super) async fn round(&self, months: &Months, wall_ms: u64) {
        self.count(months, wall_ms);
        self.learn(months).await;
        self.send(months, wall_ms).await;
        self.mark(months);
    }

    /// Takes what keys have asked, and marks those that are over at once.
    fn count(&self, months: &Months, wall_ms: u64) {
        let mut books = months.books();
        books.turn(month_of(wall_ms));
        let taken = self.usage.take_month_use(USE_ROWS_MAX);
        let keys = self.keys();
        for (key, requests) in taken {
            *books.waiting.entry(key).or_default() += requests;
            self.judge(&mut books, &keys, key);
        }
        books.count_waiting();
    }

    fn keys(&self) -> Keys {
        Arc::clone(&self.keys.borrow())
    }

    /// Whether the key is over its month, and sees to it that shards know.
    fn judge(&self, books: &mut Books, keys: &Keys, key: KeyId) {
        let bound = self.bounds.month_limit(key);
        let is_over = bound.is_some_and(|bound| books.used(key) >= bound);
        if is_over && keys.set_month_used_up(key, true) {
            if books.over.insert(key) {
                tracing::info!(key = key.0, "the key's requests of this month are used up");
            }
        } else if books.over.remove(&key) {
            keys.set_month_used_up(key, false);
        }
    }

    /// Asks the store for the totals of keys with a bound that are not known yet: at the start, and when keys have come.
    async fn learn(&self, months: &Months) {
        let (wanted, month) = {
            let mut books = months.books();
            books.rounds += 1;
            let keys = self.keys();
            let is_time = books.looked_at == 0 || books.rounds % ROUNDS_PER_LOOK == 0;
            if !is_time || books.looked_at == keys.len() {
                return;
            }
            let bounded = keys.records().map(|record| record.id).filter(|key| self.bounds.month_limit(*key).is_some());
            let unknown: Vec<u32> = bounded.filter(|key| !books.stored.contains_key(key)).map(|key| key.0).collect();
            books.looked_at = keys.len();
            (unknown, books.status.month)
        };
        for page in wanted.chunks(USE_ROWS_MAX) {
            let answer = self.store.month_use(month, page).await;
            let mut books = months.books();
            let Ok(totals) = answer else {
                // Later again; what a batch brings back tells of the keys that ask meanwhile.
                books.looked_at = 0;
                return;
            };
            books.know(&totals);
            let keys = self.keys();
            totals.iter().for_each(|row| self.judge(&mut books, &keys, KeyId(row.key)));
        }
    }

    /// Sends one batch, the one that was not answered first.
    async fn send(&self, months: &Months, wall_ms: u64) {
        let (number, rows) = {
            let mut books = months.books();
            books.fill_batch();
            (books.number, books.batch.clone())
        };
        if rows.is_empty() {
            return;
        }
        let answer = self.store.add_month_use(&self.writer, number, &rows).await;
        {
            let mut books = months.books();
            match &answer {
                Ok(totals) => {
                    books.batch.clear();
                    books.sent.clear();
                    books.know(totals);
                    books.status.batches += 1;
                    if books.status.away_since_ms.take().is_some() {
                        tracing::info!("months' use is stored again");
                    }
                }
                Err(why) => {
                    books.status.failures += 1;
                    if books.status.away_since_ms.is_none() {
                        books.status.away_since_ms = Some(wall_ms);
                        tracing::warn!("months' use is counted in memory until the store takes it: {why}");
                    }
                }
            }
            books.count_waiting();
            let keys = self.keys();
            rows.iter().for_each(|row| self.judge(&mut books, &keys, KeyId(row.key)));
        }
        if let Ok(totals) = answer {
            self.mirror(&totals).await;
        }
    }

    /// Writes the totals to the cache, for other programs. What fails comes with the next batch.
    async fn mirror(&self, totals: &[MonthUse]) {
        let keys = self.keys();
        let counters = totals.iter().take(COUNTERS_MAX).filter_map(|row| {
            let hash = keys.find_id(KeyId(row.key))?.hash;
            let name = CacheKey::new(USAGE_COUNTER, &to_hex(&hash)).ok()?;
            Some((name, Value::Text(row.requests.to_string())))
        });
        let write = |(name, value): (CacheKey, Value)| async move {
            // The cache counts and tells its own failures.
            let _ = self.cache.put(&name, &value).await;
        };
        stream::iter(counters).for_each_concurrent(COUNTERS_AT_A_TIME, write).await;
    }

    /// Keys that are over, in the directory that is in force now and under the bounds of now.
    fn mark(&self, months: &Months) {
        let mut books = months.books();
        let keys = self.keys();
        let over: Vec<KeyId> = books.over.iter().copied().collect();
        over.into_iter().for_each(|key| self.judge(&mut books, &keys, key));
        books.status.keys_over = books.over.len();
    }

    async fn finish(&self, months: &Months, until: Instant) {
        loop {
            self.count(months, clock::now().wall_ms);
            let waiting = months.status().waiting;
            if waiting == 0 {
                return;
            }
            let sent = timeout_at(until, self.send(months, clock::now().wall_ms)).await;
            if sent.is_err() || months.status().away_since_ms.is_some() {
                tracing::warn!(requests = waiting, "the store did not take the last requests of the month's count");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
