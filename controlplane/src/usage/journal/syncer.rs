//! The thread that waits for the disk, so that the one that appends never does: records would stay in memory meanwhile,
//! and a process that is killed would lose them.

use super::disk::{Disk, SegmentFile};
use super::segment;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A file, up to which entry it is to be on the disk, or to be cut.
pub struct Part {
    /// The segment.
    pub number: u64,
    /// Its file.
    pub file: Arc<dyn SegmentFile>,
    /// The place behind the last entry.
    pub to: u64,
    /// Whether the directory must be told of the file too.
    pub is_new: bool,
}

/// What is to be done. The parts are few: segments that were begun since the last sync.
pub enum Job {
    /// Bring to the disk, in this order.
    Sync(Vec<Part>),
    /// Cut.
    Cut(Vec<Part>),
}

/// What became of it.
pub enum Done {
    /// How many parts are on the disk, and why not all.
    Synced(usize, io::Result<()>),
    /// Whether all were cut.
    Cut(io::Result<()>),
}

/// The running thread.
pub struct Syncer {
    jobs: Option<Sender<Job>>,
    done: Receiver<(Done, Duration)>,
    since: Option<Instant>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn start(disk: Arc<dyn Disk>, folder: PathBuf) -> io::Result<Self> {
        // One job at a time is asked for.
        let (jobs, asked) = bounded::<Job>(1);
        let (tell, done) = bounded(1);
        let thread = std::thread::Builder::new().name("journal-sync".to_owned()).spawn(move || {
            for job in asked {
                let begun = Instant::now();
                let became = match job {
                    Job::Sync(parts) => sync(&*disk, &folder, &parts),
                    Job::Cut(parts) => Done::Cut(parts.iter().try_for_each(|part| part.file.cut(segment::at(part.to)))),
                };
                if tell.send((became, begun.elapsed())).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs: Some(jobs), done, since: None, thread: Some(thread) })
    }

    /// Since when a job is being done.
    pub const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Asks for a job; there must be none.
    pub fn ask(&mut self, job: Job) {
        debug_assert!(self.since.is_none(), "one job at a time");
        if let Some(jobs) = &self.jobs {
            // There is room for one job. A thread that has panicked takes none: it is seen as a disk that does not
            // answer.
            let _ = jobs.try_send(job);
            self.since = Some(Instant::now());
        }
    }

    /// What became of the job, waiting for it this long; and how long it took.
    pub fn done(&mut self, wait: Duration) -> Option<(Done, Duration)> {
        self.since?;
        let done = self.done.recv_timeout(wait).ok()?;
        self.since = None;
        Some(done)
    }
}

impl Drop for Syncer {
    /// Ends the thread, unless it waits for a disk that does not answer.
    fn drop(&mut self) {
        self.jobs = None;
        if self.since.is_none()
            && let Some(thread) = self.thread.take()
        {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

fn sync(disk: &dyn Disk, folder: &std::path::Path, parts: &[Part]) -> Done {
    for (count, part) in parts.iter().enumerate() {
        let synced = part.file.sync().and_then(|()| if part.is_new { disk.sync_folder(folder) } else { Ok(()) });
        if synced.is_err() {
            return Done::Synced(count, synced);
        }
    }
    Done::Synced(parts.len(), Ok(()))
}
