//! Usage rows in the cache, for programs beside this one: `usage_log:<uuid>` and the sets that find them by time.
//!
//! Off the way of everything that counts: rows come here when they are delivered, wait in a bounded line, and are left
//! out and counted when the cache is away or slower than they come. Nobody waits for it, and no report reads it. What the
//! database holds is whole; this is a copy of its newest part.

mod entry;

pub use self::entry::Entry;

use super::outlet::BATCH_ROWS_MAX;
use crate::cache::load::Shown;
use crate::cache::names::{CacheKey, Pattern, USAGE_BY_ASSET, USAGE_BY_KEY, USAGE_INDEX, USAGE_LOG};
use crate::cache::{Cache, CacheError, Value, WRITES_MAX, Write};
use crate::keys::to_hex;
use crate::store::UsageRow;
use dataplane_core::access::Keys;
use shared::key::KeyId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tuning::clock;

/// Deliveries that may wait.
const DELIVERIES_MAX: usize = 64;

/// Rows that may wait, of all deliveries together: two of the largest, 4 MB.
const ROWS_MAX: u64 = 2 * BATCH_ROWS_MAX as u64;

/// Rows written in one call: each is a hash and stands in up to three sets.
const ROWS_AT_A_TIME: usize = 100;
const _: () = assert!(3 * ROWS_AT_A_TIME < WRITES_MAX);

/// Members of one set at most, the newest: at about 100 bytes each 25 MB, and as many rows as the replaced system had.
/// The cache in this process keeps fewer.
pub const MEMBERS_MAX: usize = 250_000;

/// What became of rows since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorCounters {
    /// Rows written.
    pub written: u64,
    /// Rows left out: the line was full, or the cache away.
    pub dropped: u64,
    /// Rows that wait.
    pub waiting: u64,
}

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
    waiting: AtomicU64,
}

/// The line to the cache; with it the writing ends.
pub struct Mirror {
    line: mpsc::Sender<Vec<UsageRow>>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mirror {
    /// Begins writing to `cache`, on the present runtime. Keys that `keys` does not know have no set.
    #[must_use]
    pub fn start(cache: Arc<dyn Cache>, keys: watch::Receiver<Keys>) -> Arc<Self> {
        let (line, rows) = mpsc::channel(DELIVERIES_MAX);
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(write(rows, cache, keys, Arc::clone(&counts)));
        Arc::new(Self { line, counts, task })
    }

    /// Takes rows that were delivered, or leaves them out where there is no room. Waits for nobody.
    pub fn offer(&self, rows: &[UsageRow]) {
        if rows.is_empty() {
            return;
        }
        let count = rows.len() as u64;
        let waiting = self.counts.waiting.fetch_add(count, Ordering::Relaxed);
        if waiting + count > ROWS_MAX || self.line.try_send(rows.to_vec()).is_err() {
            self.counts.waiting.fetch_sub(count, Ordering::Relaxed);
            self.counts.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// What became of rows.
    #[must_use]
    pub fn counters(&self) -> MirrorCounters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { written, dropped, waiting } = &*self.counts;
        MirrorCounters { written: read(written), dropped: read(dropped), waiting: read(waiting) }
    }
}

/// Writes what comes, for as long as the line is there.
async fn write(
    mut line: mpsc::Receiver<Vec<UsageRow>>,
    cache: Arc<dyn Cache>,
    keys: watch::Receiver<Keys>,
    counts: Arc<Counts>,
) {
    while let Some(delivery) = line.recv().await {
        for rows in delivery.chunks(ROWS_AT_A_TIME) {
            let count = rows.len() as u64;
            let known = Keys::clone(&keys.borrow());
            let done = cache.write_all(&writes(rows, &known)).await;
            // The cache counts and tells its own absence; what it refuses is not told by anybody else.
            if let Err(CacheError::Refused(why)) = &done {
                tracing::debug!(%why, "usage rows are not mirrored");
            }
            let became = if done.is_ok() { &counts.written } else { &counts.dropped };
            became.fetch_add(count, Ordering::Relaxed);
            counts.waiting.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

/// What is written of some rows: each by itself, and each set once.
fn writes(rows: &[UsageRow], keys: &Keys) -> Vec<Write> {
    let mut writes = Vec::with_capacity(2 * rows.len());
    let mut sets: BTreeMap<String, (CacheKey, Vec<(String, i64)>)> = BTreeMap::new();
    let mut add = |pattern: Pattern, variable: &str, member: &str, time_ms: i64| {
        let Ok(key) = CacheKey::new(pattern, variable) else { return };
        let set = sets.entry(key.name().to_owned()).or_insert_with(|| (key, Vec::new()));
        set.1.push((member.to_owned(), time_ms));
    };
    for row in rows {
        let entry = Entry::of_row(row);
        let (uuid, time_ms) = (entry.uuid().to_string(), i64::try_from(row.record.first_time_ms).unwrap_or(i64::MAX));
        let Ok(log) = CacheKey::new(USAGE_LOG, &uuid) else { continue };
        writes.push(Write::Put(log, Value::Hash(fields(&entry))));
        add(USAGE_INDEX, "", &uuid, time_ms);
        if let Some(key) = keys.find_id(KeyId(row.record.key)) {
            add(USAGE_BY_KEY, &to_hex(&key.hash), &uuid, time_ms);
        }
        if !row.asset().is_empty() {
            add(USAGE_BY_ASSET, row.asset(), &uuid, time_ms);
        }
    }
    // A clock that was ahead shall not end what others wrote.
    let newest_ms = rows.iter().map(|row| row.record.first_time_ms).max().unwrap_or(0).min(clock::now().wall_ms);
    writes.extend(sets.into_values().map(|(key, members)| {
        // A set lives on as long as it grows: its members go one by one, when their own time is over.
        let lifetime_ms = key.pattern().lifetime_s.unwrap_or(0) * 1_000;
        let since = i64::try_from(newest_ms.saturating_sub(lifetime_ms)).unwrap_or(0);
        Write::Append { key, members, since, keep: MEMBERS_MAX }
    }));
    writes
}

/// A row's fields as texts.
fn fields(entry: &Entry<'_>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Shown::Number(number) => number.to_string(),
        Shown::Text(text) => text.to_owned(),
    };
    entry.fields().into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect()
}

#[cfg(test)]
mod tests;
