//! The journal: usage records on this node's disk, so that neither a killed process nor a database that is away loses a
//! count.
//!
//! A thread of its own takes what was counted every [`TURN`] and appends it to the present segment; another brings it
//! to the disk, at most every 100 ms. Written, a record survives the process; synced, the power. What is synced may be
//! read by the shipper. [`segment`] says what a file looks like.

pub mod append;
pub mod disk;
#[cfg(test)]
mod faulty;
pub mod read;
mod replay;
pub mod segment;
pub mod shelf;
mod syncer;
pub mod tally;

use self::append::{AppendSetup, Appender};
use self::disk::{Disk, FolderLock, SystemDisk};
use self::shelf::Shelf;
use self::tally::Tally;
use super::held;
use super::ledger::UsageLedger;
use anyhow::{Context, anyhow};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use shared::usage::UsageRecord;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tuning::clock;

/// Time between two turns. With the 50 ms that a shard may keep its sums, a record is in the file within 75 ms and the
/// time of a turn: inside the 100 ms that a killed process may cost.
const TURN: Duration = Duration::from_millis(25);

/// Records of one turn above which equal ones are merged: 300 in 100 ms.
const TURN_RECORDS: usize = 75;

/// Longest that the end waits for the disk.
const END_MAX: Duration = Duration::from_secs(2);

/// What a journal is made of.
pub struct JournalSetup {
    /// `TB_DATA_DIR`; `None`: a directory of its own that goes with the process.
    pub data_dir: Option<PathBuf>,
    /// This node's name.
    pub node: Arc<str>,
    /// `TB_JOURNAL_BYTES_MAX`.
    pub bytes_max: u64,
    /// Where records come from.
    pub ledger: Arc<UsageLedger>,
}

/// The running journal.
pub struct Journal {
    shelf: Arc<Shelf>,
    tally: Arc<Tally>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
    private: PrivateFolder,
}

impl Journal {
    /// Takes the directory, puts what an earlier process left on the shelf, starts the threads.
    ///
    /// # Errors
    /// When another process has the directory, or it cannot be made or read.
    pub fn start(setup: JournalSetup) -> anyhow::Result<Self> {
        Self::start_on(setup, Arc::new(SystemDisk))
    }

    fn start_on(setup: JournalSetup, disk: Arc<dyn Disk>) -> anyhow::Result<Self> {
        let JournalSetup { data_dir, node, bytes_max, ledger } = setup;
        let (folder, private) = match data_dir {
            Some(data_dir) => (data_dir.join("journal"), None),
            None => {
                let name = format!("trinity-beast-{}-{:08x}", std::process::id(), rand::random::<u32>());
                let folder = std::env::temp_dir().join(name);
                (folder.clone(), Some(folder))
            }
        };
        let private = PrivateFolder(private);
        let lock = FolderLock::take(&folder).map_err(|fault| refusal(&folder, &fault))?;
        let (shelf, tally) = (Arc::new(Shelf::new(folder.clone())), Arc::new(Tally::default()));
        let last_number = replay::replay(&shelf, &tally, &node).with_context(|| {
            format!("cannot read the journal's directory {}: see to its permissions", folder.display())
        })?;
        let (shelf_of, tally_of) = (Arc::clone(&shelf), Arc::clone(&tally));
        let appender =
            Appender::new(AppendSetup { disk, node, shelf: shelf_of, tally: tally_of, bytes_max, last_number });
        let (stop, stopped) = bounded(1);
        let tally_of = Arc::clone(&tally);
        let thread = appender.and_then(|appender| {
            let seen = SeenToEnd(Arc::clone(&tally_of));
            let mut turns = Turns { appender, ledger, tally: tally_of, batch: Vec::new() };
            std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
                turns.run(&stopped);
                drop((lock, seen));
            })
        });
        let thread = thread.context("cannot start the journal's threads; raise the limit on processes")?;
        Ok(Self { shelf, tally, stop, thread, private })
    }

    /// Its segments.
    #[must_use]
    pub const fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    /// Its counters.
    #[must_use]
    pub const fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Writes what was counted, syncs it, waiting for the disk 2 s at most, and ends. A directory of its own stays until
    /// what this gives is dropped.
    #[must_use]
    pub fn stop(self) -> PrivateFolder {
        drop(self.stop);
        // A thread that panicked has said so on stderr.
        let _ = self.thread.join();
        self.private
    }
}

/// A directory that goes with the process.
pub struct PrivateFolder(Option<PathBuf>);

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        if let Some(folder) = &self.0
            && let Err(fault) = fs::remove_dir_all(folder)
        {
            tracing::warn!(%fault, path = %folder.display(), "a temporary directory stays behind: remove it");
        }
    }
}

fn refusal(folder: &Path, fault: &io::Error) -> anyhow::Error {
    let folder = folder.display();
    match fault.kind() {
        io::ErrorKind::WouldBlock => anyhow!(
            "another process has the journal {folder}: stop it, or give this one a directory of its own in TB_DATA_DIR"
        ),
        _ => anyhow!("cannot use the journal {folder}: {fault}; set TB_DATA_DIR to a directory that can be written"),
    }
}

/// Says when its thread ends by a panic: prices are served on, and counts kept in memory, so that nothing else would.
struct SeenToEnd(Arc<Tally>);

impl Drop for SeenToEnd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.trouble("its thread ended by itself, which is a bug: start again, and report it with the log");
        }
    }
}

/// What the journal's thread does.
struct Turns {
    appender: Appender,
    ledger: Arc<UsageLedger>,
    tally: Arc<Tally>,
    batch: Vec<UsageRecord>,
}

impl Turns {
    fn run(&mut self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(TURN) == Err(RecvTimeoutError::Timeout) {
            self.turn(Duration::ZERO);
        }
        self.end();
    }

    fn turn(&mut self, wait: Duration) {
        let back = self.appender.settle(wait);
        self.ledger.give_back(&back);
        self.ledger.drain();
        // A disk that did not take the last is asked with one record first: a turn then costs nothing.
        if !self.appender.is_refused() || self.append(1) {
            self.append(usize::MAX);
        }
        self.appender.sync_if_due(Instant::now());
    }

    /// Appends up to `most` records; whether all of those went in.
    fn append(&mut self, most: usize) -> bool {
        self.batch.clear();
        self.ledger.take(&mut self.batch, most.min(self.appender.room()));
        if self.batch.len() > TURN_RECORDS {
            self.tally.merged(held::merge(&mut self.batch));
        }
        let done = self.appender.append(&mut self.batch, clock::now().wall_ms);
        self.ledger.give_back(&self.batch[done..]);
        done == self.batch.len()
    }

    fn end(&mut self) {
        let deadline = Instant::now() + END_MAX;
        self.turn(Duration::ZERO);
        while !self.appender.is_settled() && Instant::now() < deadline {
            self.turn(TURN);
        }
        self.appender.end();
        let (records, _) = self.ledger.held();
        if records > 0 {
            tracing::error!(records, "usage that could not be written to the journal is lost with this process");
        }
    }
}

#[cfg(test)]
mod tests;
