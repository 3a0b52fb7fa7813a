//! What the journal asks of a disk: a layer so thin that a test can put one in its place that is full, breaks or hangs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// A disk.
pub trait Disk: Send + Sync {
    /// A new file for its owner only.
    ///
    /// # Errors
    /// The system's; `AlreadyExists` where there is one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>>;

    /// Brings a directory's entries to the disk.
    ///
    /// # Errors
    /// The system's.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file that is being written.
pub trait SegmentFile: Send + Sync {
    /// Writes a part of `bytes` at this place of the file; how much.
    ///
    /// # Errors
    /// The system's: nothing of this call may be relied on.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Brings what was written to the disk.
    ///
    /// # Errors
    /// The system's: what was written since the last success may be lost, whatever a later call says.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file to this length, on the disk too.
    ///
    /// # Errors
    /// The system's.
    fn cut(&self, bytes: u64) -> io::Result<()>;
}

/// The system's files.
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(file))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

impl SegmentFile for File {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)?;
        self.sync_all()
    }
}

/// Writes all of `bytes` at this place of the file; how much was written before it failed.
pub fn write_all_at(file: &dyn SegmentFile, bytes: &[u8], at: u64) -> (usize, io::Result<()>) {
    let mut done = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], at + done as u64) {
            Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
            Ok(written) => done += written,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return (done, Err(fault)),
        }
    }
    (done, Ok(()))
}

/// A journal's directory, for this process alone until it is dropped.
pub struct FolderLock(#[expect(dead_code, reason = "held, never asked")] File);

impl FolderLock {
    /// Makes the directory where there is none, and takes it.
    ///
    /// # Errors
    /// `WouldBlock` where another process has it; the system's.
    pub fn take(folder: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let file = File::open(folder)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(fault)) => Err(fault),
        }
    }
}
