//! The trail of reports: each that was asked for is noted in the database and in the cache, behind the answer.
//!
//! No answer waits for it. While the database is away notes wait here, so many and no more; those beyond are given up,
//! counted and told of once. A note holds no key's text, only its number.

use super::query::ReportQuery;
use crate::cache::names::{CacheKey, REPORT_USAGE};
use crate::cache::{Cache, Value, Write};
use crate::store::{ReportLog, Store, StoreError, Stored};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// Notes that wait: some 500 bytes each, so half a megabyte.
const WAITING_MAX: usize = 1_024;

/// Notes that are written at a time: as one they cost the database little more than one alone.
const BATCH_MAX: usize = 64;

/// Bytes of a query that are noted: every parameter at its longest is less.
const QUERY_BYTES_MAX: usize = 1_024;

/// Waits between two tries while the database is away, doubling from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// How notes do, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Noted in the database.
    pub written: u64,
    /// Given up: too many waited, or the database refused them.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Counters {
    /// Taken, and neither written nor given up yet.
    waiting: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
    /// Whether losing them was told of since one was written.
    told: AtomicU64,
}

/// Takes notes.
#[derive(Clone, Debug)]
pub struct Trail {
    notes: Sender<ReportLog>,
    counters: Arc<Counters>,
}

impl Trail {
    /// A trail into `store` and `cache`, written on `runtime` until the last of its clones is dropped.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, cache: Arc<dyn Cache>, runtime: &Handle) -> Self {
        let (notes, waiting) = channel(WAITING_MAX);
        let counters = Arc::<Counters>::default();
        runtime.spawn(write(waiting, store, cache, Arc::clone(&counters)));
        Self { notes, counters }
    }

    /// How it does.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogCounts { written: of(&self.counters.written), lost: of(&self.counters.lost) }
    }

    /// Takes a note, if there is room. Waits for nothing.
    fn note(&self, note: ReportLog) {
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        match self.notes.try_send(note) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
                self.counters.lose("too many reports wait to be noted: see whether the database answers");
            }
        }
    }

    /// Waits until what was noted is written, but not for long: a process that ends.
    pub async fn settle(&self, most: Duration) {
        let all = async {
            while self.counters.waiting.load(Ordering::Relaxed) > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(most, all).await.is_err() {
            tracing::warn!("the last reports asked for are not noted: the database does not answer");
        }
    }
}

impl Counters {
    fn lose(&self, why: &str) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        if self.told.swap(1, Ordering::Relaxed) == 0 {
            tracing::warn!(why, "a report that was asked for is not noted");
        }
    }
}

async fn write(
    mut waiting: Receiver<ReportLog>,
    store: Arc<dyn Store>,
    cache: Arc<dyn Cache>,
    counters: Arc<Counters>,
) {
    let mut notes = Vec::with_capacity(BATCH_MAX);
    while waiting.recv_many(&mut notes, BATCH_MAX).await > 0 {
        let writes: Vec<Write> = notes.iter().filter_map(mirrored).collect();
        // The cache counts and tells its own faults, and may be without them.
        let _ = cache.write_all(&writes).await;
        if keep(&*store, &notes, &counters).await.is_err() {
            // One of them will not do: the others shall not be lost with it.
            for note in &notes {
                if let Err(refused) = keep(&*store, std::slice::from_ref(note), &counters).await {
                    counters.lose(&refused.to_string());
                }
            }
        }
        counters.waiting.fetch_sub(notes.len() as u64, Ordering::Relaxed);
        notes.clear();
    }
}

/// Writes notes into the database, all or none, as soon as it is there.
async fn keep(store: &dyn Store, notes: &[ReportLog], counters: &Counters) -> Stored<()> {
    let mut wait = RETRY.0;
    loop {
        match store.log_reports(notes).await {
            Ok(()) => {
                counters.written.fetch_add(notes.len() as u64, Ordering::Relaxed);
                counters.told.store(0, Ordering::Relaxed);
                return Ok(());
            }
            // The store tells of its own absence.
            Err(StoreError::Unreachable(_) | StoreError::Busy(_) | StoreError::Conflict(_)) => {
                sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
            }
            Err(refused) => return Err(refused),
        }
    }
}

/// A note as it stands in the cache.
fn mirrored(note: &ReportLog) -> Option<Write> {
    let Ok(serde_json::Value::Object(members)) = serde_json::to_value(note) else { return None };
    let plain = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    let fields = members.into_iter().map(|(name, value)| (name, plain(value))).collect();
    Some(Write::Put(CacheKey::new(REPORT_USAGE, &note.id).ok()?, Value::Hash(fields)))
}

/// One report that is being answered; noted when it is dropped, as far as it came then.
#[derive(Debug)]
pub struct Note {
    trail: Trail,
    begun: Instant,
    log: Option<ReportLog>,
}

/// What is known of a report before it is made.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// When, Unix ms.
    pub time_ms: u64,
    /// The key's number; 0 for the administrator.
    pub key: u32,
    /// `usage` or `summary`.
    pub report: &'a str,
    /// `tcp` or `udp`.
    pub protocol: &'a str,
    /// This node.
    pub node: &'a str,
}

impl Note {
    /// Begins a note.
    #[must_use]
    pub fn begin(trail: &Trail, asked: Asked<'_>) -> Self {
        let log = ReportLog {
            id: Uuid::now_v7().to_string(),
            time_ms: asked.time_ms,
            key: asked.key,
            report: asked.report.to_owned(),
            protocol: asked.protocol.to_owned(),
            format: String::new(),
            query: String::new(),
            status: 0,
            lines: 0,
            bytes: 0,
            took_ms: 0,
            complete: false,
            node: asked.node.to_owned(),
        };
        Self { trail: trail.clone(), begun: Instant::now(), log: Some(log) }
    }

    /// What it is about, once that is known.
    pub fn about(&mut self, query: &ReportQuery, format: &str) {
        if let Some(log) = &mut self.log {
            log.query = query.to_string();
            log.query.truncate(log.query.floor_char_boundary(QUERY_BYTES_MAX));
            log.format = format.to_owned();
        }
    }

    /// For tests: about a text that no query has.
    #[cfg(test)]
    fn about_text(&mut self, text: String) {
        if let Some(log) = &mut self.log {
            log.query = text;
        }
    }

    /// How it is answered.
    pub fn answered(&mut self, status: u16) {
        if let Some(log) = &mut self.log {
            log.status = status;
        }
    }

    /// A part of it went out: its lines, and its bytes before any encoding.
    pub fn sent(&mut self, lines: u64, bytes: u64) {
        if let Some(log) = &mut self.log {
            log.lines += lines;
            log.bytes += bytes;
        }
    }

    /// It was handed to the connection to its end.
    pub fn complete(&mut self) {
        if let Some(log) = &mut self.log {
            log.complete = true;
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Some(mut log) = self.log.take() {
            log.took_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.trail.note(log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::in_process::InProcessCache;
    use crate::store::sqlite::SqliteStore;

    #[tokio::test]
    async fn a_report_is_noted_when_it_ends_however_it_ends() {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().await.expect("a store"));
        let cache: Arc<dyn Cache> = Arc::new(InProcessCache::new());
        let trail = Trail::start(Arc::clone(&store), Arc::clone(&cache), &Handle::current());
        let begin =
            |time_ms| Note::begin(&trail, Asked { time_ms, key: 7, report: "usage", protocol: "tcp", node: "n1" });
        let mut whole = begin(1_793_500_000_000);
        whole.answered(200);
        whole.sent(3, 100);
        whole.sent(4, 200);
        whole.complete();
        drop(whole);
        let mut broken = begin(1_793_500_000_001);
        broken.answered(200);
        broken.sent(1, 10);
        drop(broken);
        // A text that no database takes is lost alone.
        let mut odd = begin(1_793_500_000_002);
        odd.about_text("x".repeat(5_000));
        drop(odd);
        trail.settle(harness::PATIENCE).await;
        let noted = store.report_page(None, 10).await.expect("the log");
        let seen: Vec<_> = noted.iter().map(|note| (note.lines, note.bytes, note.complete, note.key)).collect();
        assert_eq!(seen, [(1, 10, false, 7), (7, 300, true, 7)]);
        let key = CacheKey::new(REPORT_USAGE, &noted[1].id).expect("a name");
        let (value, lifetime_ms) = cache.get(&key).await.expect("the cache").expect("a note");
        let Value::Hash(fields) = value else { panic!("a hash: {value:?}") };
        assert_eq!((fields["lines"].as_str(), fields["complete"].as_str()), ("7", "true"));
        assert!(lifetime_ms.is_some());
        assert_eq!(trail.counts(), LogCounts { written: 2, lost: 1 });
    }
}
