//! Appending to the journal: a state machine over a disk that may be full, fail or hang.
//!
//! Every record given to it is either on the disk for good, or in the file and in memory until it is, or still the
//! caller's. After a sync that failed nobody knows what is on the disk: the segments concerned are cut to what was
//! synced before, and what was not is the caller's again, for a new segment. After an append that failed the segment
//! ends: on a disk that is smaller than one segment it may be the very segment that fills the disk, and only one that
//! has ended is removed when it is delivered.

use super::disk::{Disk, write_all_at};
use super::segment::{self, CHANCE_BITS, ENTRY_BYTES, HEAD_BYTES, Head};
use super::shelf::Shelf;
use super::syncer::{Done, Job, Part, Syncer};
use super::tally::Tally;
use rand::RngExt;
use shared::usage::UsageRecord;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two syncs at least.
const SYNC_EVERY: Duration = Duration::from_millis(100);

/// A sync that takes longer is told of as a disk that does not answer.
const SYNC_SLOW: Duration = Duration::from_secs(5);

/// Records that may be in the file and not yet on the disk: they are kept in memory too, 131,072 × 64 bytes = 8 MiB.
/// With half of them a sync is due at once, so that a disk that syncs 4 MiB in 40 ms takes over 1,000,000 a second.
const UNSYNCED_MAX: usize = 131_072;

/// Bytes of a segment at most; less where the journal's bound is small, so that it is at least eight of them.
const SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// What to append with.
pub struct AppendSetup {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// This node's name.
    pub node: Arc<str>,
    /// Where segments are noted.
    pub shelf: Arc<Shelf>,
    /// Counters.
    pub tally: Arc<Tally>,
    /// Bytes of all segments at most.
    pub bytes_max: u64,
    /// The highest number among the segments that are there; 0: none.
    pub last_number: u64,
}

/// A segment of which not all is known to be on the disk.
struct Open {
    part: Part,
    /// Entries written.
    written: u64,
    /// Nothing more is appended.
    ended: bool,
}

/// See the module.
pub struct Appender {
    setup: AppendSetup,
    entries_max: u64,
    /// In order; what is appended goes to the last.
    open: Vec<Open>,
    /// What is written in them and not synced, in order.
    unsynced: Vec<UsageRecord>,
    syncer: Syncer,
    /// Entries that the running sync covers.
    syncing: Vec<u64>,
    last_sync: Option<Instant>,
    /// A sync failed; the open segments are to be cut.
    to_cut: bool,
    /// Whether the last append wrote all it was given.
    appends: bool,
}

impl Appender {
    /// Begins no segment before there is something to append.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(setup: AppendSetup) -> io::Result<Self> {
        let syncer = Syncer::start(Arc::clone(&setup.disk), setup.shelf.folder().to_owned())?;
        let entries_max = segment::entries(SEGMENT_BYTES_MAX.min(setup.bytes_max / 8)).max(1);
        Ok(Self {
            setup,
            entries_max,
            open: Vec::new(),
            unsynced: Vec::new(),
            syncer,
            syncing: Vec::new(),
            last_sync: None,
            to_cut: false,
            appends: true,
        })
    }

    /// How many records may be given now; 0 while the disk is waited for.
    pub const fn room(&self) -> usize {
        if self.to_cut { 0 } else { UNSYNCED_MAX - self.unsynced.len() }
    }

    /// Whether the last append did not do.
    pub const fn is_refused(&self) -> bool {
        !self.appends
    }

    /// Appends; how many of them, from the first on. The rest is the caller's. `wall_ms` is the time for a new
    /// segment's number.
    pub fn append(&mut self, records: &mut [UsageRecord], wall_ms: u64) -> usize {
        let given = records.len().min(self.room());
        if given == 0 {
            return 0;
        }
        let mut done = 0;
        while done < given {
            let appended = self.append_some(&mut records[done..given], wall_ms);
            match appended {
                Ok(count) => done += count,
                Err((count, why)) => {
                    done += count;
                    self.appends = false;
                    self.setup.tally.append_failed(&why);
                    break;
                }
            }
        }
        self.appends |= done == given;
        let requests = records[..done].iter().map(|record| record.requests).sum();
        self.setup.tally.appended(done as u64, requests);
        done
    }

    fn append_some(&mut self, records: &mut [UsageRecord], wall_ms: u64) -> Result<usize, (usize, String)> {
        if self.open.last().is_none_or(|open| open.ended) {
            self.begin(wall_ms).map_err(|why| (0, why))?;
        }
        let left = self.bytes_left() / ENTRY_BYTES;
        let Some(open) = self.open.last_mut() else { return Ok(0) };
        let count = (records.len() as u64).min(self.entries_max - open.written).min(left) as usize;
        if count == 0 {
            return Err((0, self.full()));
        }
        let records = &mut records[..count];
        for (record, place) in records.iter_mut().zip(open.written..) {
            segment::seal(record, open.part.number, place);
        }
        let bytes = bytemuck::cast_slice(records);
        let (written, outcome) = write_all_at(&*open.part.file, bytes, segment::at(open.written));
        // What of an entry was written is written over by the next, or is a tail.
        let entries = written / ENTRY_BYTES as usize;
        self.unsynced.extend_from_slice(&records[..entries]);
        open.written += entries as u64;
        open.ended = open.written == self.entries_max;
        self.setup.shelf.written(open.part.number, open.written);
        let has_some = open.written > 0;
        outcome.map(|()| entries).map_err(|fault| {
            // An empty one holds no more than its head: the next try may have it.
            if has_some {
                self.end();
            }
            (entries, fault.to_string())
        })
    }

    fn bytes_left(&self) -> u64 {
        self.setup.bytes_max.saturating_sub(self.setup.shelf.waiting().bytes)
    }

    fn full(&self) -> String {
        format!("TB_JOURNAL_BYTES_MAX, {} bytes, wait already for the database", self.setup.bytes_max)
    }

    /// Begins a segment. Its number is above that of any before it and, where all of those are lost with their disk,
    /// another than theirs: it holds the time and chance.
    fn begin(&mut self, wall_ms: u64) -> Result<(), String> {
        if self.bytes_left() < HEAD_BYTES + ENTRY_BYTES {
            return Err(self.full());
        }
        let chance: u64 = rand::rng().random_range(0..1 << CHANCE_BITS);
        let by_time = (wall_ms << CHANCE_BITS | chance) & (u64::MAX >> 1);
        let number = by_time.max(self.setup.last_number + 1);
        self.setup.last_number = number;
        let head = Head { number, node: self.setup.node.to_string(), begun_time_ms: wall_ms };
        let path = self.setup.shelf.folder().join(segment::name(number));
        let file = self.setup.disk.create(&path).map_err(|fault| fault.to_string())?;
        let (_, written) = write_all_at(&*file, &head.bytes(), 0);
        if let Err(fault) = written {
            // Without a head it would be a file that says nothing; where it cannot be removed, it says so at a start.
            let _ = std::fs::remove_file(&path);
            return Err(fault.to_string());
        }
        self.setup.shelf.begin(number, Arc::clone(&self.setup.node));
        self.open.push(Open { part: Part { number, file, to: 0, is_new: true }, written: 0, ended: false });
        Ok(())
    }

    /// Looks after what the disk was asked for, waiting for it up to `wait`. What it gives is the caller's again.
    pub fn settle(&mut self, wait: Duration) -> Vec<UsageRecord> {
        let mut back = Vec::new();
        match self.syncer.done(wait) {
            Some((Done::Synced(parts, outcome), took)) => {
                self.setup.tally.synced(took);
                self.take_synced(parts);
                match outcome {
                    Ok(()) if self.appends => self.setup.tally.well(),
                    Ok(()) => {}
                    Err(fault) => {
                        self.setup.tally.sync_failed(&fault.to_string());
                        self.to_cut = true;
                    }
                }
            }
            Some((Done::Cut(Ok(())), _)) => {
                self.open.drain(..).for_each(|open| self.setup.shelf.cut(open.part.number));
                self.to_cut = false;
                // It is not well before something new is on the disk.
                back = mem::take(&mut self.unsynced);
                let requests = back.iter().map(|record| record.requests).sum();
                self.setup.tally.taken_back(back.len() as u64, requests);
            }
            Some((Done::Cut(Err(fault)), _)) => self.setup.tally.sync_failed(&fault.to_string()),
            None if self.syncer.since().is_some_and(|since| since.elapsed() > SYNC_SLOW) => {
                self.setup.tally.trouble("the disk does not answer");
            }
            None => {}
        }
        back
    }

    fn take_synced(&mut self, parts: usize) {
        let mut count = 0;
        for (open, to) in self.open.iter_mut().zip(self.syncing.drain(..)).take(parts) {
            count += to - open.part.to;
            open.part.to = to;
            open.part.is_new = false;
            self.setup.shelf.readable(open.part.number, to, open.ended && to == open.written);
        }
        self.unsynced.drain(..count as usize);
        self.open.retain(|open| !open.ended || open.part.to < open.written);
    }

    /// Asks for a sync where one is due.
    pub fn sync_if_due(&mut self, now: Instant) {
        if self.syncer.since().is_some() {
            return;
        }
        if self.to_cut {
            let job = Job::Cut(self.open.iter().map(|open| part_to(open, open.part.to)).collect());
            self.syncer.ask(job);
            return;
        }
        let is_time = self.last_sync.is_none_or(|last| now.duration_since(last) >= SYNC_EVERY);
        let is_due = self.unsynced.len() >= UNSYNCED_MAX / 2 || (is_time && !self.unsynced.is_empty());
        if is_due {
            self.last_sync = Some(now);
            self.syncing = self.open.iter().map(|open| open.written).collect();
            self.syncer.ask(Job::Sync(self.open.iter().map(|open| part_to(open, open.written)).collect()));
        }
    }

    /// Ends the present segment: a later append begins a new one.
    pub fn end(&mut self) {
        for open in &mut self.open {
            open.ended = true;
            if open.part.to == open.written {
                self.setup.shelf.readable(open.part.number, open.written, true);
            }
        }
        self.open.retain(|open| open.part.to < open.written);
    }

    /// Whether nothing is left to do for the disk.
    pub const fn is_settled(&self) -> bool {
        self.unsynced.is_empty() && !self.to_cut && self.syncer.since().is_none()
    }
}

fn part_to(open: &Open, to: u64) -> Part {
    let Part { number, ref file, is_new, .. } = open.part;
    Part { number, file: Arc::clone(file), to, is_new }
}
