//! For tests: a disk that is full, fails or hangs, over real files.

use super::disk::{Disk, SegmentFile, SystemDisk};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is wrong with the disk.
pub struct Faults {
    /// Bytes that it still takes.
    pub room: AtomicI64,
    /// Syncs that will fail.
    pub bad_syncs: AtomicI64,
    /// Cuts that will fail.
    pub bad_cuts: AtomicI64,
    /// Whoever has it keeps syncs from ending.
    pub gate: Mutex<()>,
}

/// See the module.
pub struct FaultyDisk(pub Arc<Faults>);

impl FaultyDisk {
    /// Nothing is wrong with it yet.
    pub fn new() -> (Arc<Self>, Arc<Faults>) {
        let faults = Arc::new(Faults {
            room: AtomicI64::new(i64::MAX),
            bad_syncs: AtomicI64::new(0),
            bad_cuts: AtomicI64::new(0),
            gate: Mutex::default(),
        });
        (Arc::new(Self(Arc::clone(&faults))), faults)
    }
}

struct FaultyFile(Arc<dyn SegmentFile>, Arc<Faults>);

fn broken(left: &AtomicI64) -> io::Result<()> {
    if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| (left > 0).then(|| left - 1)).is_ok() {
        Err(io::Error::other("a broken disk"))
    } else {
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(FaultyFile(SystemDisk.create(path)?, Arc::clone(&self.0))))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        SystemDisk.sync_folder(folder)
    }
}

impl SegmentFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let room = self.1.room.load(Ordering::SeqCst).max(0) as usize;
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.0.write_at(&bytes[..bytes.len().min(room)], at)?;
        self.1.room.fetch_sub(written as i64, Ordering::SeqCst);
        Ok(written)
    }

    fn sync(&self) -> io::Result<()> {
        drop(self.1.gate.lock().unwrap_or_else(PoisonError::into_inner));
        broken(&self.1.bad_syncs)?;
        self.0.sync()
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        broken(&self.1.bad_cuts)?;
        self.0.cut(bytes)
    }
}
