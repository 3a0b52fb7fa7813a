//! From the queue to the database: messages are taken in batches, their rows committed, and only then deleted.
//!
//! A batch that is not committed is left in the queue, which hands it out again; rows that are there already count once.
//! A message that is not ours, or that the database will not have, is left alone too, counted and told by its number:
//! the queue's redrive policy puts it aside. Who sent what, and why, is not known here.

use super::message;
use super::{ENTRIES_MAX, Received, UsageQueue, WAIT_MAX};
use crate::store::{StoreError, UsageRow, UsageWrite};
use crate::usage::outlet::{BATCH_ROWS_MAX, OutletError};
use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Messages of one batch at most: the replaced system's. Each is at most 256 KiB, so that a batch is 26 MB at the worst.
pub const BATCH_MESSAGES: usize = 100;

/// Longest that a batch waits for more messages: the replaced system's.
pub const WINDOW: Duration = Duration::from_secs(5);

/// Longest wait for a message when the queue is to be drained: long enough for all of SQS's servers to be asked.
const DRAIN_WAIT: Duration = Duration::from_secs(1);

/// Longest that the queue may take to answer beyond the wait it was given.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Longest that a batch is tried for, from its first message on: after 60 s, the queue's usual time, others get its
/// messages.
const BATCH_MAX: Duration = Duration::from_secs(50);

/// Pause after a failure, and the longest: it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Numbers of messages that were told of, lest a message that comes again is told again: 40 bytes each. Beyond it all
/// are forgotten.
const TOLD_MAX: usize = 1_000;

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterCounters {
    /// Messages received.
    pub received: u64,
    /// Messages committed and deleted.
    pub written: u64,
    /// Messages left alone, each time they came.
    pub left_alone: u64,
    /// Rows that were new.
    pub rows: u64,
    /// Rows that the database had already.
    pub rows_known: u64,
    /// Requests that the queue did not answer, or refused.
    pub queue_failures: u64,
    /// Commits that failed.
    pub store_failures: u64,
}

#[derive(Default)]
struct Counts {
    received: AtomicU64,
    written: AtomicU64,
    left_alone: AtomicU64,
    rows: AtomicU64,
    rows_known: AtomicU64,
    queue_failures: AtomicU64,
    store_failures: AtomicU64,
}

/// A part that may be away: told once when that begins and once when it ends.
struct Part {
    name: &'static str,
    is_away: AtomicBool,
}

impl Part {
    const fn new(name: &'static str) -> Self {
        Self { name, is_away: AtomicBool::new(false) }
    }

    fn answered(&self) {
        if self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!("{} is back", self.name);
        }
    }

    fn failed(&self, why: &str) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!("{} is away ({why}): messages stay in the queue, and it is tried again", self.name);
        }
    }
}

/// A message whose rows can be read.
struct Readable {
    id: String,
    receipt: String,
    rows: Vec<UsageRow>,
}

/// What became of a batch.
struct Written {
    /// Those whose rows stand.
    messages: Vec<Readable>,
    /// Why others are left that may be written later.
    missing: Option<OutletError>,
}

/// Brings messages to the store.
pub struct QueueWriter {
    queue: Arc<dyn UsageQueue>,
    store: Arc<dyn UsageWrite>,
    counts: Counts,
    queue_state: Part,
    store_state: Part,
    told: Mutex<HashSet<String>>,
}

impl QueueWriter {
    /// A writer from `queue` to `store`.
    #[must_use]
    pub fn new(queue: Arc<dyn UsageQueue>, store: Arc<dyn UsageWrite>) -> Self {
        let (queue_state, store_state) = (Part::new("the queue"), Part::new("the database"));
        Self { queue, store, counts: Counts::default(), queue_state, store_state, told: Mutex::default() }
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> WriterCounters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        WriterCounters {
            received: read(&counts.received),
            written: read(&counts.written),
            left_alone: read(&counts.left_alone),
            rows: read(&counts.rows),
            rows_known: read(&counts.rows_known),
            queue_failures: read(&counts.queue_failures),
            store_failures: read(&counts.store_failures),
        }
    }

    /// Whether both parts answered when they were asked last.
    #[must_use]
    pub fn is_well(&self) -> bool {
        ![&self.queue_state, &self.store_state].into_iter().any(|part| part.is_away.load(Ordering::Relaxed))
    }

    /// Batch after batch until `stop` says so or its sender is gone; the batch under way is finished.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        let mut pause = PAUSE_FIRST;
        while !*stop.borrow() && stop.has_changed().is_ok() {
            match self.turn(WINDOW, &stop).await {
                Ok(_) => pause = PAUSE_FIRST,
                Err(_) => {
                    // Whoever ends it ends the wait.
                    let _ = timeout(pause, stop.wait_for(|stop| *stop)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Batch after batch until nothing comes any more, or `stop` says so.
    ///
    /// # Errors
    /// What failed; messages that were not committed are still in the queue.
    pub async fn drain(&self, stop: watch::Receiver<bool>) -> Result<(), OutletError> {
        while self.turn(DRAIN_WAIT, &stop).await? > 0 {}
        Ok(())
    }

    /// One batch; how many messages came.
    async fn turn(&self, window: Duration, stop: &watch::Receiver<bool>) -> Result<usize, OutletError> {
        let ends = Instant::now() + BATCH_MAX;
        let received = self.gather(window, stop).await?;
        let count = received.len();
        let mut batch = Vec::with_capacity(count);
        for Received { id, receipt, body } in received {
            match message::unpack(&body) {
                Ok(rows) => batch.push(Readable { id, receipt, rows }),
                Err(why) => self.leave_alone(&id, &why),
            }
        }
        let Written { messages, missing } = self.commit(batch, ends).await;
        self.delete(&messages).await;
        missing.map_or(Ok(count), Err)
    }

    /// Messages until there are enough, none comes any more, or the window ends.
    async fn gather(&self, window: Duration, stop: &watch::Receiver<bool>) -> Result<Vec<Received>, OutletError> {
        let ends = Instant::now() + window;
        let mut batch = Vec::new();
        while batch.len() < BATCH_MESSAGES && !*stop.borrow() {
            // The queue waits whole seconds.
            let left_ms = ends.saturating_duration_since(Instant::now()).as_millis();
            let wait = Duration::from_secs(u64::try_from(left_ms.div_ceil(1_000)).unwrap_or(0)).min(WAIT_MAX);
            let most = ENTRIES_MAX.min(BATCH_MESSAGES - batch.len());
            let answer = timeout(wait + ANSWER_MAX, self.queue.receive(most, wait)).await;
            match self.answer(answer) {
                Ok(some) if some.is_empty() => break,
                Ok(some) => batch.extend(some),
                // What has come is still to be written.
                Err(why) if batch.is_empty() => return Err(why),
                Err(_) => break,
            }
            if Instant::now() >= ends {
                break;
            }
        }
        self.counts.received.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(batch)
    }

    /// What the queue answered, noted.
    fn answer<T>(&self, answer: Result<Result<T, OutletError>, tokio::time::error::Elapsed>) -> Result<T, OutletError> {
        let answer = answer.unwrap_or_else(|_| Err(OutletError::Away("the queue did not answer in time".to_owned())));
        match &answer {
            Ok(_) => self.queue_state.answered(),
            Err(why) => {
                self.counts.queue_failures.fetch_add(1, Ordering::Relaxed);
                self.queue_state.failed(&why.to_string());
            }
        }
        answer
    }

    /// Commits the rows of all messages, trying again until `ends`. A message whose rows the database will not have does
    /// not keep the others.
    async fn commit(&self, batch: Vec<Readable>, ends: Instant) -> Written {
        match self.add_until(ends, || batch.iter().flat_map(|message| &message.rows)).await {
            Ok(()) => Written { messages: batch, missing: None },
            Err(why) if is_passing(&why) => Written { messages: Vec::new(), missing: Some(away(&why)) },
            Err(_) => self.commit_singly(batch, ends).await,
        }
    }

    /// Commits message by message, until `ends`, and leaves alone what is refused.
    async fn commit_singly(&self, batch: Vec<Readable>, ends: Instant) -> Written {
        let mut messages = Vec::with_capacity(batch.len());
        for message in batch {
            match self.add_until(ends, || &message.rows).await {
                Ok(()) => messages.push(message),
                // What is written is deleted; what is not comes again.
                Err(why) if is_passing(&why) => return Written { messages, missing: Some(away(&why)) },
                Err(why) => self.leave_alone(&message.id, &why),
            }
        }
        Written { messages, missing: None }
    }

    /// Commits rows, trying again until `ends` what may do then.
    async fn add_until<'a, R>(&self, ends: Instant, rows: impl Fn() -> R) -> Result<(), StoreError>
    where
        R: IntoIterator<Item = &'a UsageRow>,
    {
        let mut pause = PAUSE_FIRST;
        loop {
            match self.add(rows()).await {
                Err(why) if is_passing(&why) && Instant::now() + pause < ends => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                outcome => return outcome,
            }
        }
    }

    /// Commits rows, each once, in the order of their places.
    async fn add<'a>(&self, rows: impl IntoIterator<Item = &'a UsageRow>) -> Result<(), StoreError> {
        let mut rows: Vec<UsageRow> = rows.into_iter().cloned().collect();
        rows.sort_unstable_by(|one, other| place(one).cmp(&place(other)));
        rows.dedup_by(|one, other| place(one) == place(other));
        for rows in rows.chunks(BATCH_ROWS_MAX) {
            match self.store.add_usage(rows).await {
                Ok(new) => {
                    self.store_state.answered();
                    self.counts.rows.fetch_add(new, Ordering::Relaxed);
                    self.counts.rows_known.fetch_add((rows.len() as u64).saturating_sub(new), Ordering::Relaxed);
                }
                Err(why) => {
                    self.counts.store_failures.fetch_add(1, Ordering::Relaxed);
                    if is_away(&why) {
                        self.store_state.failed(&why.to_string());
                    }
                    return Err(why);
                }
            }
        }
        Ok(())
    }

    /// Deletes what is committed. A message that is not deleted comes again, and its rows are known then.
    async fn delete(&self, batch: &[Readable]) {
        for some in batch.chunks(ENTRIES_MAX) {
            let receipts: Vec<String> = some.iter().map(|message| message.receipt.clone()).collect();
            let answer = timeout(ANSWER_MAX, self.queue.delete(&receipts)).await;
            let Ok(outcomes) = self.answer(answer) else { return };
            let gone = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            self.counts.written.fetch_add(gone as u64, Ordering::Relaxed);
        }
    }

    fn leave_alone(&self, id: &str, why: &impl fmt::Display) {
        self.counts.left_alone.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        if told.insert(id.to_owned()) {
            tracing::error!(message = id, "a message is left to the queue's redrive policy: {why}; look at it there");
        }
    }
}

const fn is_away(why: &StoreError) -> bool {
    matches!(why, StoreError::Unreachable(_) | StoreError::NotMigrated(_))
}

/// Whether the same may be taken later: the database is away, or somebody else's transaction was in the way.
const fn is_passing(why: &StoreError) -> bool {
    is_away(why) || matches!(why, StoreError::Conflict(_))
}

fn away(why: &StoreError) -> OutletError {
    OutletError::Away(why.to_string())
}

/// A row's place, unique for ever.
fn place(row: &UsageRow) -> (&str, u64, u64) {
    (&row.node, row.segment, row.offset)
}
