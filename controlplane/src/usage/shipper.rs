//! From the journal to an outlet: what is on this node's disk, in order, each place once.
//!
//! The next delivery begins where the outlet says that it stands, so that an answer that was lost is no second
//! delivery. A segment's file goes when all of it is delivered. While the outlet is away one delivery is held, whatever
//! waits on the disk. What an outlet is, is not known here.

mod progress;

pub use self::progress::{Progress, Progressed};

use super::journal::read::{Part, SegmentReader};
use super::journal::segment;
use super::journal::shelf::{Shelf, Shelved};
use super::journal::tally::Tally;
use super::marks::Marks;
use super::outlet::{BATCH_ROWS, BATCH_ROWS_MAX, Delivery, Outlet, OutletError};
use crate::store::UsageRow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Pause after a first failure; twice as long after each further one.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause after failures, and after being refused: somebody must do something then, who should not wait long
/// to see that it was right.
const PAUSE_MAX: Duration = Duration::from_secs(2);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Longest that any call of an outlet is waited for. The database's outlet has bounds of its own, below; the queue's may
/// be cut off here, and sends only what is missing with the next try.
const CALL_MAX: Duration = Duration::from_secs(10);

/// Times in a row that a segment's file may fail to be opened or removed before those behind it go first: with the
/// pauses between, some 14 s.
const FILE_FAILURES_MAX: u32 = 10;

/// When a file that was put aside is tried again.
const ASIDE: Duration = Duration::from_secs(60);

/// Longest wait for more to be read without looking: a bound, should nobody tell.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who is told of rows that were delivered. It must not wait.
pub type Observer = Arc<dyn Fn(&[UsageRow]) + Send + Sync>;

/// What a shipper is made of.
pub struct ShipperSetup {
    /// The journal's segments.
    pub shelf: Arc<Shelf>,
    /// Counters of what is read.
    pub tally: Arc<Tally>,
    /// Where to.
    pub outlet: Arc<dyn Outlet>,
    /// Who else is told.
    pub observer: Option<Observer>,
}

/// The running shipper.
pub struct Shipper {
    progress: Arc<Progress>,
    last: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Shipper {
    /// Starts it.
    #[must_use]
    pub fn start(setup: ShipperSetup) -> Self {
        let progress = Arc::new(Progress::new(setup.outlet.kind()));
        let (last, told) = watch::channel(false);
        let round = Round::new(setup, Arc::clone(&progress), told);
        Self { progress, last, task: tokio::spawn(round.run()) }
    }

    /// What it did.
    #[must_use]
    pub const fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Delivers what is left, without pauses, and ends; whether that was done within `most`. What is not stays on the
    /// disk for the next process.
    pub async fn finish(mut self, most: Duration) -> bool {
        self.last.send_replace(true);
        timeout(most, &mut self.task).await.is_ok()
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The segment that is being delivered.
struct Reading {
    reader: SegmentReader,
    /// Whether this node notes itself how far it is.
    is_marked: bool,
}

struct Round {
    setup: ShipperSetup,
    marks: Arc<Marks>,
    progress: Arc<Progress>,
    last: watch::Receiver<bool>,
    /// Rows in the next delivery at most: halved by each failure, doubled by each success.
    rows_max: usize,
    /// `None`: the next segment is yet to be opened.
    reading: Option<Reading>,
    /// Failures in a row to open or remove a segment's file.
    file_failures: u32,
    /// Segments whose files failed for long, and when they are tried again: no more than the shelf has.
    aside: BTreeMap<u64, Instant>,
}

/// Says when the shipper ends by a panic: what it should deliver waits in the journal, and nothing else would say so.
struct SeenToEnd(Arc<Progress>);

impl Drop for SeenToEnd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = "what delivers it ended by itself, which is a bug: start again, and report it with the log";
            self.0.failed(why, true);
        }
    }
}

/// Why there was no delivery.
enum Failure {
    Outlet(OutletError),
    /// The journal's own disk.
    Disk(io::Error),
    /// A segment's file cannot be opened or removed.
    File(io::Error),
}

impl From<OutletError> for Failure {
    fn from(fault: OutletError) -> Self {
        Self::Outlet(fault)
    }
}

impl From<io::Error> for Failure {
    fn from(fault: io::Error) -> Self {
        Self::Disk(fault)
    }
}

impl Round {
    fn new(setup: ShipperSetup, progress: Arc<Progress>, last: watch::Receiver<bool>) -> Self {
        let marks = Arc::new(Marks::new(setup.shelf.folder()));
        let (rows_max, reading, aside) = (BATCH_ROWS, None, BTreeMap::new());
        Self { setup, marks, progress, last, rows_max, reading, file_failures: 0, aside }
    }

    async fn run(mut self) {
        let _seen = SeenToEnd(Arc::clone(&self.progress));
        let mut pause = PAUSE_MIN;
        let mut begun = Instant::now();
        loop {
            let Some(segment) = self.waiting() else {
                if self.wait_for_more().await {
                    return;
                }
                continue;
            };
            let is_little = segment.readable.saturating_sub(segment.delivered) <= BATCH_ROWS as u64;
            if is_little && !segment.sealed {
                self.keep_pace(begun).await;
            }
            begun = Instant::now();
            match self.step(segment.number).await {
                Ok(()) => {
                    self.progress.well();
                    self.file_failures = 0;
                    pause = PAUSE_MIN;
                }
                Err(failure) => {
                    let most = self.failed(segment.number, failure);
                    self.pause(pause.min(most)).await;
                    pause = (pause * 2).min(most);
                }
            }
        }
    }

    /// The oldest segment that has something to do.
    fn waiting(&self) -> Option<Shelved> {
        let now = Instant::now();
        let is_tried = |number| self.aside.get(&number).is_none_or(|again| *again <= now);
        let first = self.setup.shelf.first_that(is_tried)?;
        (first.sealed || first.readable > first.delivered).then_some(first)
    }

    /// Waits until more may be read; whether nothing more will come.
    async fn wait_for_more(&mut self) -> bool {
        self.progress.nothing_waits();
        if *self.last.borrow() {
            return true;
        }
        let more = timeout(LOOK_EVERY, self.setup.shelf.more.notified());
        tokio::select! {
            _ = more => {}
            _ = self.last.changed() => {}
        }
        false
    }

    /// Little waits: lets a little more come, but at the end.
    async fn keep_pace(&mut self, begun: Instant) {
        let pace = self.setup.outlet.pace();
        tokio::select! {
            () = sleep_until(begun + pace) => {}
            _ = self.last.wait_for(|last| *last) => {}
        }
    }

    /// Waits after a failure; at the end it is tried at once, and every 100 ms from then on.
    async fn pause(&mut self, pause: Duration) {
        if *self.last.borrow_and_update() {
            return sleep(PAUSE_MIN).await;
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = self.last.changed() => {}
        }
    }

    /// Delivers the next part of a segment, or ends the segment.
    async fn step(&mut self, number: u64) -> Result<(), Failure> {
        let Some(shelved) = self.setup.shelf.get(number) else { return Ok(()) };
        let mut reading = match self.reading.take() {
            Some(reading) if reading.reader.number() == number => reading,
            _ => match self.open(&shelved).await? {
                Some(reading) => reading,
                None => return Ok(()),
            },
        };
        let from = reading.reader.place();
        self.setup.shelf.delivered(number, from);
        if from >= shelved.readable {
            if shelved.sealed {
                return self.end(reading).await;
            }
            self.reading = Some(reading);
            return Ok(());
        }
        let most = self.rows_max.min(self.setup.outlet.rows_max()) as u64;
        let to = shelved.readable.min(from + most);
        let (mut reading, read) = apart(move || {
            let part = reading.reader.read(to);
            (reading, part)
        })
        .await?;
        let outcome = match read {
            Ok(part) => self.deliver(&mut reading, part).await,
            Err(fault) => Err(fault.into()),
        };
        self.setup.shelf.delivered(number, reading.reader.place());
        self.reading = Some(reading);
        outcome
    }

    /// Delivers a part; the reader then stands where the outlet wants to go on.
    async fn deliver(&mut self, reading: &mut Reading, mut part: Part) -> Result<(), Failure> {
        let reader = &mut reading.reader;
        let (node, segment, from, to) = (Arc::clone(reader.node()), reader.number(), reader.place(), part.to);
        let delivery = Delivery { node, segment, from, to, rows: mem::take(&mut part.rows) };
        self.progress.trying(&delivery.rows);
        let place = bounded(self.setup.outlet.deliver(&delivery)).await?;
        reader.pass(&part);
        if place != to {
            // An answer was lost, or somebody else delivers, or the database was set back.
            reader.seek(place);
        }
        self.rows_max = (self.rows_max * 2).min(BATCH_ROWS_MAX);
        let taken = delivery.rows.partition_point(|row| row.offset < place);
        self.progress.delivered(&delivery.rows[..taken]);
        if let Some(observer) = &self.setup.observer {
            observer(&delivery.rows[..taken]);
        }
        if reading.is_marked {
            let marks = Arc::clone(&self.marks);
            self.progress.marked(&apart(move || marks.write(segment, place)).await?);
        }
        Ok(())
    }

    /// Opens a segment where the outlet says that it stands; `None`: its file is gone.
    async fn open(&mut self, segment: &Shelved) -> Result<Option<Reading>, Failure> {
        let number = segment.number;
        self.progress.opening(segment::begun_ms(number));
        let known = bounded(self.setup.outlet.position(&segment.node, number)).await?;
        let (marks, shelf, of) = (Arc::clone(&self.marks), Arc::clone(&self.setup.shelf), segment.clone());
        let opened = apart(move || {
            let place = known.unwrap_or_else(|| marks.read(number));
            (place, SegmentReader::open(&shelf, &of, place))
        });
        match opened.await? {
            (_, Ok(reader)) => Ok(Some(Reading { reader, is_marked: known.is_none() })),
            (place, Err(fault)) if fault.kind() == io::ErrorKind::NotFound && segment.sealed => {
                let missing = segment.written.saturating_sub(place);
                tracing::error!(
                    segment = segment::name(number),
                    missing,
                    "a usage segment was removed by somebody else"
                );
                self.setup.tally.damaged(missing);
                self.setup.shelf.remove(number);
                Ok(None)
            }
            (_, Err(fault)) => Err(Failure::File(fault)),
        }
    }

    /// All of a segment is delivered: its file goes.
    async fn end(&mut self, reading: Reading) -> Result<(), Failure> {
        let number = reading.reader.number();
        let (path, marks) = (self.setup.shelf.folder().join(segment::name(number)), Arc::clone(&self.marks));
        let gone = apart(move || {
            let flaws = reading.reader.flaws()?;
            match fs::remove_file(&path) {
                Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(fault),
                _ => marks.remove(number),
            }
            Ok(flaws)
        });
        gone.await?.map_err(Failure::File)?.tell(&self.setup.tally);
        self.setup.shelf.remove(number);
        self.aside.remove(&number);
        Ok(())
    }

    /// Notes a failure; the longest pause that it makes sense to wait now.
    fn failed(&mut self, number: u64, failure: Failure) -> Duration {
        self.rows_max = (self.rows_max / 2).max(BATCH_ROWS);
        match failure {
            Failure::Outlet(OutletError::Away(why)) => {
                self.progress.failed(&why, false);
                PAUSE_MAX
            }
            Failure::Outlet(OutletError::Refused(why)) => {
                self.progress.failed(&why, true);
                REFUSED_PAUSE_MAX
            }
            Failure::Disk(fault) => {
                self.progress
                    .failed(&format!("the journal's {} cannot be read: {fault}", segment::name(number)), false);
                PAUSE_MAX
            }
            Failure::File(fault) => {
                let name = segment::name(number);
                self.progress.failed(&format!("the journal's {name} cannot be opened or removed: {fault}"), false);
                self.put_aside_if_it_lasts(number, &fault);
                PAUSE_MAX
            }
        }
    }

    /// Those behind a file that fails for long must not wait for it.
    fn put_aside_if_it_lasts(&mut self, number: u64, fault: &io::Error) {
        self.file_failures += 1;
        let is_known = self.aside.contains_key(&number);
        if !is_known && self.file_failures < FILE_FAILURES_MAX {
            return;
        }
        self.file_failures = 0;
        self.aside.insert(number, Instant::now() + ASIDE);
        if !is_known {
            self.setup.tally.unread();
            let segment = segment::name(number);
            tracing::error!(segment, %fault, "a usage segment is put aside, and tried again every minute: see to its file");
        }
    }
}

/// An outlet's answer, which is not waited for without end.
async fn bounded<T>(call: impl Future<Output = Result<T, OutletError>>) -> Result<T, OutletError> {
    let late = || OutletError::Away(format!("no answer within {} s", CALL_MAX.as_secs()));
    timeout(CALL_MAX, call).await.unwrap_or_else(|_| Err(late()))
}

/// Does what may wait for a disk on a thread for that.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
