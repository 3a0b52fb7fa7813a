//! Keys' months: what was asked is added up over all nodes in the store, and a key over its bound is refused.
//!
//! Once a second what keys have asked goes to the store in one numbered batch, and the new totals of all nodes come
//! back. A batch whose answer is lost is sent again with its number, so it is added once. While the store is away
//! counting goes on here, one number per key, and nothing is lost as long as the process lives.
//!
//! What can slip over a quota: a node's requests of the 50 ms until shards hand them out, of the 25 ms until they are
//! taken, and of the second until they are counted; and until the next batch with a request of that key, what
//! other nodes have added. About two seconds of use per node. While the store is away, what other nodes use meanwhile.
//! At a month's turn (UTC) requests of the last second or so may count in the new month. Counting here, and the
//! month's turn, never wait for the store.

use crate::cache::names::{CacheKey, USAGE_COUNTER};
use crate::cache::{Cache, Value};
use crate::keys::to_hex;
use crate::store::{MonthUse, Store, USE_ROWS_MAX};
use crate::usage::UsageLedger;
use dataplane_core::access::Keys;
use dataplane_core::render::month_of;
use futures_util::future::{Fuse, FusedFuture};
use futures_util::{FutureExt, StreamExt, stream};
use serde::Serialize;
use shared::key::KeyId;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tuning::clock;

/// Time between two batches.
const ROUND: Duration = Duration::from_secs(1);

/// Counters written to the cache after one batch; those of further keys come with their next batch. At a millisecond
/// each and [`COUNTERS_AT_A_TIME`] together that is well within a second.
const COUNTERS_MAX: usize = 1_000;

/// Counters under way at a time.
const COUNTERS_AT_A_TIME: usize = 32;

/// Longest that this may take after one batch; what is not written by then comes with a later batch.
const MIRROR_MAX: Duration = Duration::from_secs(1);

/// Rounds between two looks whether keys have come whose totals are not known yet. A look passes over every key, on a
/// thread for that: 200 ms for a million.
const ROUNDS_PER_LOOK: u64 = 10;

/// Keys looked at under the lock at a time: about a millisecond.
const LOOK_PAGE: usize = 4_096;

/// Pages of [`USE_ROWS_MAX`] keys taken out of the usage, and batches sent, in one go at the most: enough for
/// 1,000,000 keys, as many as a node can know. Further ones come a second later.
const PAGES_MAX: usize = 100;

/// Wait after a try that failed at the end of the process, when only seconds are left.
const LAST_RETRY: Duration = Duration::from_millis(200);

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
    /// The same keys; who waits longest is first.
    line: VecDeque<KeyId>,
    /// The batch that was sent and not answered. At most [`USE_ROWS_MAX`].
    batch: Vec<MonthUse>,
    /// Requests by key of the batch's rows that are of this month.
    sent: HashMap<KeyId, u64>,
    /// Its number.
    number: i64,
    /// Requests of a month gone by that are in no batch yet. Emptied before anything of this month goes out.
    earlier: Vec<MonthUse>,
    over: HashSet<KeyId>,
    /// Keys with a bound whose totals are still to be asked for.
    unknown: Vec<u32>,
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
        self.line.clear();
        self.stored.clear();
        self.sent.clear();
        self.unknown.clear();
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
        for key in self.line.drain(..room.min(self.line.len())) {
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

    /// Requests that a key has asked, not sent yet.
    fn wait(&mut self, key: KeyId, requests: u64) {
        self.status.waiting += requests;
        match self.waiting.entry(key) {
            Entry::Occupied(mut kept) => *kept.get_mut() += requests,
            Entry::Vacant(room) => {
                room.insert(requests);
                self.line.push_back(key);
            }
        }
    }

    /// The batch was added, and these are the totals of its keys.
    fn stored(&mut self, totals: &[MonthUse]) {
        self.status.waiting -= self.batch.iter().map(|row| row.requests).sum::<u64>();
        self.batch.clear();
        self.sent.clear();
        self.know(totals);
        self.status.batches += 1;
        if self.status.away_since_ms.take().is_some() {
            tracing::debug!("months' use is stored again");
        }
    }

    /// The batch was not added, or nobody knows.
    fn not_stored(&mut self, wall_ms: u64) {
        self.status.failures += 1;
        // The store tells its own absence.
        self.status.away_since_ms.get_or_insert(wall_ms);
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
    /// that it says. What is under way with the store then is given up: a batch is sent again with its number.
    pub async fn run(self, months: Months, mut stop: watch::Receiver<Option<Instant>>) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut exchange = pin!(Fuse::terminated());
        let until = loop {
            tokio::select! {
                _ = rounds.tick() => {
                    self.count(&months, clock::now().wall_ms).await;
                    if exchange.is_terminated() {
                        exchange.set(self.exchange(&months, clock::now().wall_ms).fuse());
                    }
                }
                () = &mut exchange, if !exchange.is_terminated() => {}
                changed = stop.changed() => {
                    let until = *stop.borrow_and_update();
                    if changed.is_err() || until.is_some() {
                        break until.unwrap_or_else(Instant::now);
                    }
                }
            }
        };
        exchange.set(Fuse::terminated());
        self.finish(&months, until).await;
    }

    /// Takes what keys have asked, and marks those that are over at once, and those that are so no more.
    async fn count(&self, months: &Months, wall_ms: u64) {
        months.books().turn(month_of(wall_ms));
        self.mark(months);
        for _ in 0..PAGES_MAX {
            let taken = self.usage.take_month_use(USE_ROWS_MAX);
            self.note(months, &taken);
            if taken.len() < USE_ROWS_MAX {
                return;
            }
            yield_now().await;
        }
    }

    /// Notes what keys have asked.
    fn note(&self, months: &Months, taken: &[(KeyId, u64)]) {
        let mut books = months.books();
        let keys = self.keys();
        for (key, requests) in taken {
            books.wait(*key, *requests);
            self.judge(&mut books, &keys, *key);
        }
    }

    /// Sends what waits, and asks for totals that are not known: as much as there is now, until the store fails.
    async fn exchange(&self, months: &Months, wall_ms: u64) {
        for _ in 0..PAGES_MAX {
            let Some(totals) = self.send(months, wall_ms).await else { break };
            // Nothing is owed to those that read it in the cache.
            let _ = timeout(MIRROR_MAX, self.mirror(months, &totals)).await;
            if totals.len() < USE_ROWS_MAX {
                break;
            }
        }
        self.learn(months).await;
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
        books.status.keys_over = books.over.len();
    }

    /// Asks the store for the totals of keys with a bound that are not known yet: at the start, and when keys have
    /// come.
    async fn learn(&self, months: &Months) {
        self.look(months).await;
        loop {
            let (page, month) = {
                let books = months.books();
                let from = books.unknown.len().saturating_sub(USE_ROWS_MAX);
                (books.unknown[from..].to_vec(), books.status.month)
            };
            if page.is_empty() {
                return;
            }
            // Later again; what a batch brings back tells of the keys that ask meanwhile.
            let Ok(totals) = self.store.month_use(month, &page).await else { return };
            let mut books = months.books();
            if books.status.month != month {
                return;
            }
            let rest = books.unknown.len().saturating_sub(page.len());
            books.unknown.truncate(rest);
            // Who has no row has asked nothing; a batch may have told more in the meantime.
            for key in &page {
                books.stored.entry(KeyId(*key)).or_insert(0);
            }
            books.know(&totals);
            let keys = self.keys();
            totals.iter().for_each(|row| self.judge(&mut books, &keys, KeyId(row.key)));
        }
    }

    /// Notes keys with a bound whose totals are not known, now and then, where the number of keys has changed.
    async fn look(&self, months: &Months) {
        let keys = self.keys();
        {
            let mut books = months.books();
            books.rounds += 1;
            let is_time = books.looked_at == 0 || books.rounds.is_multiple_of(ROUNDS_PER_LOOK);
            if !is_time || books.looked_at == keys.len() || !books.unknown.is_empty() {
                return;
            }
            books.looked_at = keys.len();
        }
        let (bounds, months) = (Arc::clone(&self.bounds), months.clone());
        let looked = spawn_blocking(move || {
            let bounded = keys.records().map(|record| record.id).filter(|key| bounds.month_limit(*key).is_some());
            let bounded: Vec<KeyId> = bounded.collect();
            let month = months.books().status.month;
            for page in bounded.chunks(LOOK_PAGE) {
                let mut books = months.books();
                if books.status.month != month {
                    return;
                }
                let Books { unknown, stored, .. } = &mut *books;
                unknown.extend(page.iter().filter(|key| !stored.contains_key(key)).map(|key| key.0));
            }
        });
        // It can only fail with the runtime's end.
        let _ = looked.await;
    }

    /// Sends one batch, the one that was not answered first; the totals of its keys, `None` when there is nothing to
    /// send or the store does not take it.
    async fn send(&self, months: &Months, wall_ms: u64) -> Option<Vec<MonthUse>> {
        let (number, rows) = {
            let mut books = months.books();
            books.fill_batch();
            (books.number, books.batch.clone())
        };
        if rows.is_empty() {
            return None;
        }
        let answer = self.store.add_month_use(&self.writer, number, &rows).await;
        let mut books = months.books();
        match &answer {
            Ok(totals) => books.stored(totals),
            Err(why) => {
                tracing::debug!(%why, "months' use is counted in memory until the store takes it");
                books.not_stored(wall_ms);
            }
        }
        let keys = self.keys();
        rows.iter().for_each(|row| self.judge(&mut books, &keys, KeyId(row.key)));
        answer.ok()
    }

    /// Writes the totals to the cache, for other programs. What fails comes with the next batch.
    async fn mirror(&self, months: &Months, totals: &[MonthUse]) {
        let keys = self.keys();
        // Other ones each time, where there are too many for one time.
        let turn = usize::try_from(months.status().batches).unwrap_or(0).wrapping_mul(COUNTERS_MAX);
        let from = turn.checked_rem(totals.len()).unwrap_or(0);
        let rows = totals[from..].iter().chain(&totals[..from]).take(COUNTERS_MAX);
        let counters = rows.filter_map(|row| {
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
    }

    /// Sends batch after batch until nothing is left, trying again what fails, until the time is over.
    async fn finish(&self, months: &Months, until: Instant) {
        self.count(months, clock::now().wall_ms).await;
        let all = async {
            while months.status().waiting > 0 {
                if self.send(months, clock::now().wall_ms).await.is_none() {
                    sleep(LAST_RETRY).await;
                }
            }
        };
        if timeout_at(until, all).await.is_err() {
            let requests = months.status().waiting;
            tracing::warn!(requests, "the store did not take the last requests of the month's count");
        }
    }
}

#[cfg(test)]
mod tests;
