//! Which segments there are, how much of each may be read, and how much was delivered: what the journal's thread writes
//! and the shipper reads.

use super::segment::{ENTRY_BYTES, HEAD_BYTES};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A segment on the disk. Places are counted in entries.
#[derive(Clone, Debug)]
pub struct Shelved {
    /// Its number.
    pub number: u64,
    /// The node that wrote it.
    pub node: Arc<str>,
    /// Entries that were written.
    pub written: u64,
    /// Entries that may be read: those that are on the disk for good.
    pub readable: u64,
    /// Entries that were delivered.
    pub delivered: u64,
    /// Whether nothing will be written behind `readable`.
    pub sealed: bool,
}

/// What waits on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Segments.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Records in them that were not delivered.
    pub records: u64,
}

#[derive(Default)]
struct Inner {
    segments: BTreeMap<u64, Shelved>,
    /// Bytes of all files, kept so that nobody adds up 65,536 segments 40 times a second.
    bytes: u64,
    /// Entries that were written and not delivered.
    waiting: u64,
}

/// Every segment of the journal.
pub struct Shelf {
    folder: PathBuf,
    inner: Mutex<Inner>,
    /// Told when more may be read.
    pub more: Notify,
}

impl Shelf {
    /// An empty one over a directory.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, inner: Mutex::default(), more: Notify::new() }
    }

    /// The directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The oldest segment.
    #[must_use]
    pub fn first(&self) -> Option<Shelved> {
        self.first_that(|_| true)
    }

    /// The oldest segment whose number will do.
    #[must_use]
    pub fn first_that(&self, will_do: impl Fn(u64) -> bool) -> Option<Shelved> {
        self.lock().segments.values().find(|shelved| will_do(shelved.number)).cloned()
    }

    /// A segment as it is now.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Shelved> {
        self.lock().segments.get(&number).cloned()
    }

    /// What waits.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        let inner = self.lock();
        Waiting { segments: inner.segments.len() as u64, bytes: inner.bytes, records: inner.waiting }
    }

    /// Adds a segment of an earlier process, with as many entries as its file is long.
    pub fn add_sealed(&self, number: u64, node: Arc<str>, entries: u64) {
        self.add(Shelved { number, node, written: entries, readable: entries, delivered: 0, sealed: true });
    }

    /// Adds one that is begun.
    pub fn begin(&self, number: u64, node: Arc<str>) {
        self.add(Shelved { number, node, written: 0, readable: 0, delivered: 0, sealed: false });
    }

    fn add(&self, shelved: Shelved) {
        let mut inner = self.lock();
        inner.bytes += HEAD_BYTES + shelved.written * ENTRY_BYTES;
        inner.waiting += shelved.written - shelved.delivered;
        inner.segments.insert(shelved.number, shelved);
    }

    /// Entries of this segment are written up to here.
    pub fn written(&self, number: u64, to: u64) {
        self.change(number, |shelved| shelved.written = to);
    }

    /// Entries of this segment may be read up to here.
    pub fn readable(&self, number: u64, to: u64, sealed: bool) {
        self.change(number, |shelved| {
            shelved.readable = to;
            shelved.sealed = sealed;
        });
        self.more.notify_one();
    }

    /// The segment was cut to what may be read, and ends there.
    pub fn cut(&self, number: u64) {
        self.change(number, |shelved| {
            shelved.written = shelved.readable;
            shelved.sealed = true;
        });
        self.more.notify_one();
    }

    /// Entries of this segment are delivered up to here.
    pub fn delivered(&self, number: u64, to: u64) {
        self.change(number, |shelved| shelved.delivered = to);
    }

    /// The segment's file is gone.
    pub fn remove(&self, number: u64) {
        self.change(number, |shelved| shelved.delivered = shelved.written);
        let mut inner = self.lock();
        if let Some(shelved) = inner.segments.remove(&number) {
            inner.bytes -= HEAD_BYTES + shelved.written * ENTRY_BYTES;
        }
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Shelved)) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(shelved) = inner.segments.get_mut(&number) else { return };
        inner.bytes -= shelved.written * ENTRY_BYTES;
        inner.waiting -= shelved.written - shelved.delivered;
        change(shelved);
        shelved.delivered = shelved.delivered.min(shelved.written);
        inner.bytes += shelved.written * ENTRY_BYTES;
        inner.waiting += shelved.written - shelved.delivered;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
