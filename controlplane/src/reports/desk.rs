//! Where reports are made: on threads of their own that stand back behind those of prices, a few at a time.
//!
//! However many reports are asked for, the control plane keeps its threads and the machine its CPUs for what cannot
//! wait. What a report holds is not known here.

use super::log::{LogCounts, Trail};
use crate::cache::Cache;
use crate::params::Parameters;
use crate::store::Store;
use anyhow::Context;
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tuning::priority::lower_current_thread;

/// Threads that make reports: one formats while another waits for its database, and beside prices more would not help.
const THREADS: usize = 2;

/// Nice value of these threads: about a tenth of a CPU that a shard wants too, and all that nobody wants.
const NICE: i32 = 10;

/// Downloads at once: some 4 MB each, so 32 MiB, and far fewer than the connections of the control plane.
const STREAMS_MAX: usize = 8;

/// Downloads at once of one key, so that one alone cannot keep the others out.
const STREAMS_PER_KEY_MAX: usize = 2;

/// Pages and summaries at once: short work, some 500 KB each.
const PAGES_MAX: usize = 32;

/// What a report takes a place for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A whole report, however long.
    Stream,
    /// One page, or a summary.
    Page,
    /// The totals of a datagram.
    Datagram,
}

#[derive(Debug, Default)]
struct Open {
    /// Streams by key; 0 for the administrator.
    streams: HashMap<u32, usize>,
    pages: usize,
    datagrams: usize,
}

/// What became of reports, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportCounts {
    /// Being made now: whole reports, pages, datagrams.
    pub open: [usize; 3],
    /// Turned away because too many were being made.
    pub overloaded: u64,
    /// Ended early because the database failed.
    pub broken: u64,
    /// Ended early because nobody read them any more.
    pub abandoned: u64,
    /// Their notes.
    pub log: LogCounts,
}

#[derive(Debug, Default)]
struct Shared {
    open: Mutex<Open>,
    overloaded: AtomicU64,
    broken: AtomicU64,
    abandoned: AtomicU64,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        // Plain numbers: whoever panicked left them as they were.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those at work; free again when dropped.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    work: Work,
    key: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.shared.open();
        match self.work {
            Work::Page => open.pages -= 1,
            Work::Datagram => open.datagrams -= 1,
            Work::Stream => {
                let left = open.streams.get_mut(&self.key).map(|streams| {
                    *streams -= 1;
                    *streams
                });
                if left == Some(0) {
                    open.streams.remove(&self.key);
                }
            }
        }
    }
}

/// Work that ends with whoever waits for it.
#[derive(Debug)]
pub struct Working<T>(JoinHandle<T>);

impl<T> Working<T> {
    /// What came of it; `None` when it panicked, or the process ends.
    pub async fn outcome(mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for Working<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes reports.
#[derive(Debug)]
pub struct ReportDesk {
    runtime: Option<Runtime>,
    handle: Handle,
    shared: Arc<Shared>,
    parameters: watch::Receiver<Arc<Parameters>>,
    retention_days: u64,
    /// The trail of what was asked for.
    pub trail: Trail,
}

impl ReportDesk {
    /// A desk with threads of its own. To be called on the runtime that serves; notes are written there.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn start(
        store: Arc<dyn Store>,
        cache: Arc<dyn Cache>,
        parameters: watch::Receiver<Arc<Parameters>>,
        retention_days: u64,
    ) -> anyhow::Result<Self> {
        let step_back = || {
            if let Err(kept) = lower_current_thread(NICE) {
                tracing::warn!("a thread of reports: {kept}");
            }
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(THREADS)
            .thread_name("reports")
            .on_thread_start(step_back)
            .enable_all()
            .build()
            .context("the threads of reports cannot be started")?;
        let trail = Trail::start(store, cache, &Handle::current());
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle, shared: Arc::default(), parameters, retention_days, trail })
    }

    /// How long detail is kept.
    #[must_use]
    pub const fn retention_days(&self) -> u64 {
        self.retention_days
    }

    /// A place for some work of a key (0: the administrator), if there is one.
    #[must_use]
    pub fn place(&self, work: Work, key: u32) -> Option<Place> {
        let mut open = self.shared.open();
        let streams: usize = open.streams.values().sum();
        let own = open.streams.get(&key).copied().unwrap_or(0);
        let datagrams_max = self.parameters.borrow().udp_max_concurrent_lrs;
        let is_room = match work {
            // The administrator is bounded with all others together alone.
            Work::Stream => streams < STREAMS_MAX && (key == 0 || own < STREAMS_PER_KEY_MAX),
            Work::Page => open.pages < PAGES_MAX,
            Work::Datagram => u32::try_from(open.datagrams).is_ok_and(|open| open < datagrams_max),
        };
        if !is_room {
            self.shared.overloaded.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        match work {
            Work::Stream => *open.streams.entry(key).or_default() += 1,
            Work::Page => open.pages += 1,
            Work::Datagram => open.datagrams += 1,
        }
        Some(Place { shared: Arc::clone(&self.shared), work, key })
    }

    /// Does work on these threads; it ends when what is returned is dropped.
    pub fn work<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Working<T> {
        Working(self.handle.spawn(work))
    }

    /// Does work on these threads that nobody waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(work);
    }

    /// Counts a report that the database broke off.
    pub fn count_broken(&self) {
        self.shared.broken.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a report that its reader left.
    pub fn count_abandoned(&self) {
        self.shared.abandoned.fetch_add(1, Ordering::Relaxed);
    }

    /// What became of reports since start.
    #[must_use]
    pub fn counts(&self) -> ReportCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let open = self.shared.open();
        ReportCounts {
            open: [open.streams.values().sum(), open.pages, open.datagrams],
            overloaded: of(&self.shared.overloaded),
            broken: of(&self.shared.broken),
            abandoned: of(&self.shared.abandoned),
            log: self.trail.counts(),
        }
    }
}

impl Drop for ReportDesk {
    fn drop(&mut self) {
        // Waiting for its threads would block whoever drops it, which may be a task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::in_process::InProcessCache;
    use crate::params::check::Base;
    use crate::params::desk::{DeskSetup, ParameterDesk};
    use crate::store::sqlite::SqliteStore;

    fn desk() -> ReportDesk {
        let (store, cache): (Arc<dyn Store>, Arc<dyn Cache>) =
            (Arc::new(SqliteStore::memory()), Arc::new(InProcessCache::new()));
        let (node, base) = ("n1".to_owned(), Base::default());
        let setup = DeskSetup { store: Arc::clone(&store), cache: Arc::clone(&cache), node, base, data_dir: None };
        let parameters = ParameterDesk::new(setup).expect("good settings");
        ReportDesk::start(store, cache, parameters.watch(), 93).expect("threads")
    }

    #[tokio::test]
    async fn one_key_leaves_room_for_others_and_all_together_for_the_rest() {
        let desk = desk();
        let mut places: Vec<Place> = (0..STREAMS_PER_KEY_MAX).filter_map(|_| desk.place(Work::Stream, 7)).collect();
        assert_eq!(places.len(), STREAMS_PER_KEY_MAX);
        assert!(desk.place(Work::Stream, 7).is_none(), "its own places are taken");
        places.extend((places.len()..STREAMS_MAX).filter_map(|_| desk.place(Work::Stream, 0)));
        assert_eq!((places.len(), desk.counts().open[0]), (STREAMS_MAX, STREAMS_MAX));
        assert!(desk.place(Work::Stream, 8).is_none(), "all places are taken");
        assert!(desk.place(Work::Page, 7).is_some() && desk.place(Work::Datagram, 7).is_some());
        assert_eq!(desk.counts().overloaded, 2);
        places.clear();
        assert_eq!(desk.counts().open, [0, 0, 0]);
        assert!(desk.place(Work::Stream, 7).is_some());
    }

    #[tokio::test]
    async fn work_ends_with_whoever_waits_for_it() {
        let desk = desk();
        assert_eq!(desk.work(async { 7 }).outcome().await, Some(7));
        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        let working = desk.work(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(working);
        assert!(gone.await.is_err(), "what it held is let go of");
    }
}
