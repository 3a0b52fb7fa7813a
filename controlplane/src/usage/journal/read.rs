//! Reading a segment from a place on: entries that are what was written there, and how many are not.

use super::segment::{self, ENTRY_BYTES};
use super::shelf::{Shelf, Shelved};
use super::tally::Tally;
use crate::store::UsageRow;
use bytemuck::Zeroable;
use shared::usage::UsageRecord;
use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Tries of reading a place that fails before its entries are given up as damaged: the shipper pauses up to 2 s between
/// two, so that a disk that is away for some seconds costs nothing.
const TRIES_MAX: u32 = 10;

/// A segment that is being read, in order.
pub struct SegmentReader {
    file: File,
    number: u64,
    node: Arc<str>,
    place: u64,
    /// Entries just before `place` that are none: damage if a valid one follows, else a tail.
    bad: u64,
    damaged: u64,
    /// The place up to which what is none was counted: what is read again is not counted again.
    judged: u64,
    failures: u32,
    records: Vec<UsageRecord>,
}

/// What stands in a part of a segment.
#[derive(Debug)]
pub struct Part {
    /// The place behind it.
    pub to: u64,
    /// Its entries.
    pub rows: Vec<UsageRow>,
    bad: u64,
    damaged: u64,
}

/// What was wrong with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaws {
    number: u64,
    /// Entries with valid ones behind them that are none.
    pub damaged: u64,
    /// Entries at the end that are none.
    pub tail: u64,
    /// Whether the end was not wholly written.
    pub is_torn: bool,
}

impl SegmentReader {
    /// Opens a segment to read from `place` on.
    ///
    /// # Errors
    /// The system's.
    pub fn open(shelf: &Shelf, segment: &Shelved, place: u64) -> io::Result<Self> {
        let file = File::open(shelf.folder().join(segment::name(segment.number)))?;
        let (number, node) = (segment.number, Arc::clone(&segment.node));
        Ok(Self { file, number, node, place, bad: 0, damaged: 0, judged: 0, failures: 0, records: Vec::new() })
    }

    /// The segment.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The node that wrote it.
    #[must_use]
    pub const fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// Where it stands.
    #[must_use]
    pub const fn place(&self) -> u64 {
        self.place
    }

    /// Reads up to the place `to` and stays where it is; what is no entry is left out.
    ///
    /// # Errors
    /// The system's; after some in a row, places that cannot be read are no entries.
    pub fn read(&mut self, to: u64) -> io::Result<Part> {
        let count = to.saturating_sub(self.place) as usize;
        self.records.clear();
        self.records.resize(count, UsageRecord::zeroed());
        let bytes = bytemuck::cast_slice_mut(&mut self.records);
        if let Err(fault) = self.file.read_exact_at(bytes, segment::at(self.place)) {
            self.failures += 1;
            if self.failures < TRIES_MAX {
                return Err(fault);
            }
            for (entry, place) in bytes.chunks_exact_mut(ENTRY_BYTES as usize).zip(self.place..) {
                if self.file.read_exact_at(entry, segment::at(place)).is_err() {
                    entry.fill(0);
                }
            }
        }
        self.failures = 0;
        let mut part = Part { to, rows: Vec::with_capacity(count), bad: self.bad, damaged: self.damaged };
        for (record, offset) in self.records.iter().zip(self.place..) {
            if segment::is_entry(record, self.number, offset) {
                part.damaged += mem::take(&mut part.bad);
                let node = Arc::clone(&self.node);
                part.rows.push(UsageRow { node, segment: self.number, offset, record: *record });
            } else if offset >= self.judged {
                part.bad += 1;
            }
        }
        Ok(part)
    }

    /// Goes behind a part that was read; what was wrong with it is remembered.
    pub const fn pass(&mut self, part: &Part) {
        (self.place, self.bad, self.damaged) = (part.to, part.bad, part.damaged);
    }

    /// Goes to another place.
    pub fn seek(&mut self, place: u64) {
        // Whether those just before are damage or a tail is not known yet.
        self.judged = self.judged.max(self.place - self.bad);
        (self.place, self.bad) = (place, 0);
    }

    /// What was wrong with the segment, of which all is read.
    ///
    /// # Errors
    /// The system's.
    pub fn flaws(&self) -> io::Result<Flaws> {
        let entries_bytes = self.file.metadata()?.len().saturating_sub(segment::at(0));
        let is_torn = self.bad > 0 || !entries_bytes.is_multiple_of(ENTRY_BYTES);
        Ok(Flaws { number: self.number, damaged: self.damaged, tail: self.bad, is_torn })
    }
}

impl Flaws {
    /// Counts and tells them.
    pub fn tell(self, tally: &Tally) {
        let Self { number, damaged, tail, is_torn } = self;
        let segment = segment::name(number);
        if damaged > 0 {
            tally.damaged(damaged);
            tracing::error!(segment, entries = damaged, "a usage segment has damaged entries, which are lost");
        }
        if is_torn {
            tally.torn();
            tracing::warn!(segment, entries = tail, "a usage segment ends with what was not wholly written");
        }
    }
}
