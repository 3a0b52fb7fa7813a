//! Usage rows: `usage_log:<uuid>`, each until 93 days after its own time, and the sets that find them by time.
//!
//! Pages are read ahead of what is written, and one is made ready while another is on its way, so that neither the
//! database nor the cache waits for this process. Members of sets are gathered over many pages: with ten thousand keys a
//! page has a row or two of each, and a command for each would be as many as for the rows. Rows of keys that are not in the
//! database (those of a settings file) are in no key's set. A set that does not grow is not looked at: what is too old in
//! it ends with the set, 93 days after it grew last.

use super::{KEPT_MS, Part, Round, SyncError, since_ms};
use crate::cache::load::Loads;
use crate::cache::names::{CacheKey, Pattern, USAGE_BY_ASSET, USAGE_BY_KEY, USAGE_INDEX, USAGE_LOG};
use crate::cache::{Cached, SCORE_MAX, VALUE_PARTS_MAX};
use crate::keys::to_hex;
use crate::store::{ArrivalMark, PAGE_MAX, Store, Stored, SyncMarks, USE_ROWS_MAX, UsageFilter, UsageLine, UsageMark};
use crate::usage::mirror::{Entry, MEMBERS_MAX};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Rows of one page, and of one load, which is so within what one may have.
const PAGE_ROWS: usize = 10_000;
const _: () = assert!(PAGE_ROWS <= USE_ROWS_MAX);

/// Loads on their way at once: one is made ready while the other is answered.
const LOADS_AT_ONCE: usize = 2;

/// Members of one set that are sent as soon as there are so many, all that one thing of a load may have. Then those beyond
/// [`MEMBERS_MAX`] go: so many are gone in a few ms.
const SET_FULL: usize = VALUE_PARTS_MAX;

/// Members of all sets that are gathered before all are sent: 24 bytes each, up to twice that with room to grow, 48 MB. A
/// row is in three sets at the most, so that it takes 330,000 rows.
const GATHERED_MAX: usize = 1_000_000;

/// Sets that are written to, or trimmed, in one load, and members that they have together: 70 bytes each.
const SETS_AT_ONCE: usize = 10_000;
const MEMBERS_AT_ONCE: usize = 100_000;

/// Letters of a UUID.
const UUID_LENGTH: usize = 36;

/// Writes those that have come.
pub async fn write(round: &Round, marks: &SyncMarks) -> Result<Part, SyncError> {
    let began = Instant::now();
    let from_ms = round.now_ms.saturating_sub(KEPT_MS);
    let (line, mut pages) = mpsc::channel(1);
    let store = Arc::clone(&round.store);
    let reading = match &round.since {
        None => tokio::spawn(read_all(store, from_ms, line)),
        Some(cursor) if cursor.usage < marks.usage => {
            tokio::spawn(read_arrived(store, cursor.usage, marks.usage, from_ms, line))
        }
        Some(_) => return Ok(Part::default()),
    };
    let mut writer = Writer::new(round);
    while let Some(page) = pages.recv().await {
        for lines in page.chunks(PAGE_ROWS) {
            writer.write(lines).await?;
        }
    }
    reading.await.map_err(SyncError::of_task)??;
    let written = writer.end().await?;
    Ok(Part { written, deleted: 0, took_ms: since_ms(began) })
}

/// Reads every row from `from_ms` on, in the order of time.
async fn read_all(store: Arc<dyn Store>, from_ms: u64, line: mpsc::Sender<Vec<UsageLine>>) -> Stored<()> {
    let filter = UsageFilter { from_ms, to_ms: i64::MAX.unsigned_abs(), ..UsageFilter::default() };
    let mut after = None;
    loop {
        let page = store.usage_page(&filter, after.as_ref(), PAGE_ROWS).await?;
        let Some(last) = page.last().filter(|_| page.len() == PAGE_ROWS) else {
            // Whoever has gone has failed, and says why.
            let _ = line.send(page).await;
            return Ok(());
        };
        let UsageLine { time_ms, segment, offset, .. } = *last;
        after = Some(UsageMark { time_ms, node: last.node.to_string(), segment, offset });
        if line.send(page).await.is_err() {
            return Ok(());
        }
    }
}

/// Reads the rows that came from change `since` on and before change `before`.
async fn read_arrived(
    store: Arc<dyn Store>,
    since: i64,
    before: i64,
    from_ms: u64,
    line: mpsc::Sender<Vec<UsageLine>>,
) -> Stored<()> {
    let mut after = ArrivalMark::before(since);
    loop {
        let spans = store.usage_arrivals(&after, before, PAGE_MAX).await?;
        let mut spans_left = spans.as_slice();
        while !spans_left.is_empty() {
            let mut rows = 0_u64;
            // The first is taken whatever it is.
            let fit = |rows_of: u64, rows: &mut u64| {
                *rows += rows_of;
                *rows <= PAGE_ROWS as u64
            };
            let count = spans_left.iter().take_while(|span| fit(span.rows, &mut rows)).count().max(1);
            let to = spans_left[count - 1].mark.clone();
            let page = store.usage_arrived(&after, &to, from_ms).await?;
            if line.send(page).await.is_err() {
                return Ok(());
            }
            after = to;
            spans_left = &spans_left[count..];
        }
        if spans.len() < PAGE_MAX {
            return Ok(());
        }
    }
}

/// A set that rows are found by.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Set {
    All,
    Key(u32),
    Asset(Arc<str>),
}

/// A set's new members.
#[derive(Default)]
struct Grown {
    /// Gathered, and not sent yet, with their scores.
    members: Vec<(Uuid, i64)>,
    /// Whether some were sent since it was trimmed.
    is_sent: bool,
}

/// Makes loads of rows and sends them.
struct Writer<'a> {
    round: &'a Round,
    /// Hashes of keys in hex; `None`: there is no such key.
    hashes: HashMap<u32, Option<String>>,
    /// New members of each set: as many sets as there are keys and assets.
    grown: HashMap<Set, Grown>,
    /// Members that are gathered in all of them, about [`GATHERED_MAX`] at the most.
    gathered: usize,
    loads: JoinSet<Cached<()>>,
    written: u64,
}

impl<'a> Writer<'a> {
    fn new(round: &'a Round) -> Self {
        let (hashes, grown) = (HashMap::new(), HashMap::new());
        Self { round, hashes, grown, gathered: 0, loads: JoinSet::new(), written: 0 }
    }

    async fn write(&mut self, lines: &[UsageLine]) -> Result<(), SyncError> {
        self.learn(lines).await?;
        let loads = self.loads_of(lines)?;
        self.send(loads).await?;
        let is_full = self.gathered >= GATHERED_MAX;
        let is_due = |grown: &Grown| grown.members.len() >= SET_FULL || is_full && !grown.members.is_empty();
        let due: Vec<Set> = self.grown.iter().filter(|(_, grown)| is_due(grown)).map(|(set, _)| set.clone()).collect();
        self.grow(&due).await?;
        // While rows come only those that have grown much.
        let large: Vec<Set> = if is_full { Vec::new() } else { due };
        self.trim(&large).await
    }

    /// Learns the hashes of keys that are met for the first time.
    async fn learn(&mut self, lines: &[UsageLine]) -> Result<(), SyncError> {
        let mut new = Vec::new();
        for line in lines {
            self.hashes.entry(line.key).or_insert_with(|| {
                new.push(line.key);
                None
            });
        }
        if !new.is_empty() {
            for (id, hash) in self.round.store.key_hashes(&new).await? {
                self.hashes.insert(id, Some(to_hex(&hash)));
            }
        }
        Ok(())
    }

    /// The rows; what they are found by is gathered.
    fn loads_of(&mut self, lines: &[UsageLine]) -> Cached<Loads> {
        let mut loads = Loads::default();
        for line in lines {
            let entry = Entry::of_line(line);
            let uuid = entry.uuid();
            if let Ok(key) = CacheKey::new(USAGE_LOG, uuid.hyphenated().encode_lower(&mut [0; UUID_LENGTH])) {
                loads.fields(&key, &entry.fields(), line.time_ms.min(self.round.now_ms) + KEPT_MS)?;
            }
            let score = i64::try_from(line.time_ms).unwrap_or(SCORE_MAX).min(SCORE_MAX);
            self.gather(Set::All, uuid, score);
            self.gather(Set::Key(line.key), uuid, score);
            if !line.asset.is_empty() {
                self.gather(Set::Asset(Arc::clone(&line.asset)), uuid, score);
            }
        }
        self.written += lines.len() as u64;
        Ok(loads)
    }

    fn gather(&mut self, set: Set, uuid: Uuid, score: i64) {
        self.grown.entry(set).or_default().members.push((uuid, score));
        self.gathered += 1;
    }

    /// Sends what is gathered for these sets, as few commands for each as may be.
    async fn grow(&mut self, sets: &[Set]) -> Result<(), SyncError> {
        let (mut loads, mut count) = (Loads::default(), 0);
        for set in sets {
            let name = self.name(set);
            let Some(grown) = self.grown.get_mut(set) else { continue };
            let members = std::mem::take(&mut grown.members);
            grown.is_sent = true;
            self.gathered -= members.len();
            let Some(key) = name else { continue };
            for members in members.chunks(VALUE_PARTS_MAX) {
                let mut letters = vec![[0; UUID_LENGTH]; members.len()];
                let spelt = members.iter().zip(&mut letters);
                let members: Vec<(&str, i64)> =
                    spelt.map(|((uuid, score), letters)| (&*uuid.hyphenated().encode_lower(letters), *score)).collect();
                loads.members(&key, &members)?;
                count += members.len();
                if count >= MEMBERS_AT_ONCE || loads.count() >= SETS_AT_ONCE {
                    self.send(std::mem::take(&mut loads)).await?;
                    count = 0;
                }
            }
        }
        self.send(loads).await
    }

    /// A set's name; `None` for a key that there is not, and an asset that makes no name.
    fn name(&self, set: &Set) -> Option<CacheKey> {
        let of = |pattern: Pattern, variable: &str| CacheKey::new(pattern, variable).ok();
        match set {
            Set::All => of(USAGE_INDEX, ""),
            Set::Key(id) => of(USAGE_BY_KEY, self.hashes.get(id)?.as_ref()?),
            Set::Asset(asset) => of(USAGE_BY_ASSET, asset),
        }
    }

    /// Lets members go that are too old or too many.
    async fn trim(&mut self, sets: &[Set]) -> Result<(), SyncError> {
        let since = i64::try_from(self.round.now_ms.saturating_sub(KEPT_MS)).unwrap_or(0);
        for sets in sets.chunks(SETS_AT_ONCE) {
            let mut loads = Loads::default();
            for set in sets {
                if let Some(key) = self.name(set) {
                    loads.trim(&key, since, MEMBERS_MAX)?;
                }
                if let Some(grown) = self.grown.get_mut(set) {
                    grown.is_sent = false;
                }
            }
            self.send(loads).await?;
        }
        Ok(())
    }

    /// Sends a load as soon as there is room for it.
    async fn send(&mut self, loads: Loads) -> Result<(), SyncError> {
        if loads.count() == 0 {
            return Ok(());
        }
        while self.loads.len() >= LOADS_AT_ONCE {
            self.one_is_done().await?;
        }
        let cache = Arc::clone(&self.round.cache);
        self.loads.spawn(async move { cache.load(loads).await });
        Ok(())
    }

    async fn one_is_done(&mut self) -> Result<(), SyncError> {
        match self.loads.join_next().await {
            Some(done) => Ok(done.map_err(SyncError::of_task)??),
            None => Ok(()),
        }
    }

    async fn all_are_done(&mut self) -> Result<(), SyncError> {
        while !self.loads.is_empty() {
            self.one_is_done().await?;
        }
        Ok(())
    }

    /// Sends what is still gathered, and trims every set that has grown; how many rows were written.
    async fn end(mut self) -> Result<u64, SyncError> {
        let all: Vec<Set> = self.grown.keys().cloned().collect();
        self.grow(&all).await?;
        self.all_are_done().await?;
        let sent: Vec<Set> = self.grown.iter().filter(|(_, grown)| grown.is_sent).map(|(set, _)| set.clone()).collect();
        self.trim(&sent).await?;
        self.all_are_done().await?;
        Ok(self.written)
    }
}
