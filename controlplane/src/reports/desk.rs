//! Where reports are made: on threads of their own that stand back behind those of prices, a few at a time.
//!
//! However many reports are asked for, the control plane keeps its threads and the machine its CPUs for what cannot
//! wait. What a report holds is not known here.

use super::log::{LogCounts, Trail};
use crate::cache::Cache;
use crate::params::Parameters;
use crate::store::{Store, report_calls_max};
use anyhow::Context;
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tuning::priority::lower_current_thread;

/// Threads that make reports: one formats while another waits for its database, and beside prices more would not help.
const THREADS: usize = 2;

/// Nice value of these threads: about a tenth of a CPU that a shard wants too, and all that nobody wants.
const NICE: i32 = 10;

/// Downloads at once: some 4 MB each, so 32 MiB, and far fewer than the connections of the control plane.
const STREAMS_MAX: usize = 8;

/// Downloads at once of one key, so that one alone cannot keep the others out; the administrator leaves as many.
const STREAMS_PER_KEY_MAX: usize = 2;

/// Pages and summaries at once: short work, some 500 KB each.
const PAGES_MAX: usize = 32;

/// Pages and summaries at once of one key; the administrator leaves as many.
const PAGES_PER_KEY_MAX: usize = 8;

/// Datagrams of one key that wait for their totals at once: half a second's work.
const DATAGRAMS_PER_KEY_MAX: usize = 64;

/// Datagrams of which totals are made at a time: the others wait here, not where pages and downloads wait.
const DATAGRAMS_AT_WORK_MAX: usize = 2;

/// Longest that a page waits until it is made, of the minute in which its answer must begin.
const PAGE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Longest that a datagram waits: who asked has asked again by then.
const DATAGRAM_WAIT_MAX: Duration = Duration::from_secs(2);

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

/// Kinds of work.
const KINDS: usize = 3;

/// How many there are of one kind of work.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// By key; 0 for the administrator.
    own: HashMap<u32, usize>,
}

#[derive(Debug, Default)]
struct Open([Taken; KINDS]);

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
        let taken = &mut open.0[self.work as usize];
        taken.all -= 1;
        let left = taken.own.get_mut(&self.key).map(|own| {
            *own -= 1;
            *own
        });
        if left == Some(0) {
            taken.own.remove(&self.key);
        }
    }
}

/// A turn to be made, for a page or a datagram; the next one's when dropped.
#[derive(Debug)]
pub struct Turn {
    _short: OwnedSemaphorePermit,
    _datagram: Option<OwnedSemaphorePermit>,
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
    /// Pages and datagrams at work: one fewer than reports may read at a time, so that downloads go on meanwhile.
    short: Arc<Semaphore>,
    datagrams: Arc<Semaphore>,
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
        let short_max = report_calls_max(store.kind()) - 1;
        let short = Arc::new(Semaphore::new(short_max));
        let datagrams = Arc::new(Semaphore::new(DATAGRAMS_AT_WORK_MAX.min(short_max)));
        let trail = Trail::start(store, cache, &Handle::current());
        let (handle, shared) = (runtime.handle().clone(), Arc::default());
        Ok(Self { runtime: Some(runtime), handle, shared, short, datagrams, parameters, retention_days, trail })
    }

    /// How long detail is kept.
    #[must_use]
    pub const fn retention_days(&self) -> u64 {
        self.retention_days
    }

    /// A place for some work of a key (0: the administrator), if there is one.
    #[must_use]
    pub fn place(&self, work: Work, key: u32) -> Option<Place> {
        let (all_max, own_max) = match work {
            Work::Stream => (STREAMS_MAX, STREAMS_PER_KEY_MAX),
            Work::Page => (PAGES_MAX, PAGES_PER_KEY_MAX),
            Work::Datagram => {
                let all_max = self.parameters.borrow().udp_max_concurrent_lrs;
                (usize::try_from(all_max).unwrap_or(usize::MAX), DATAGRAMS_PER_KEY_MAX)
            }
        };
        let own_max = if key == 0 { all_max - own_max.min(all_max) } else { own_max };
        let mut open = self.shared.open();
        let taken = &mut open.0[work as usize];
        if taken.all >= all_max || taken.own.get(&key).is_some_and(|own| *own >= own_max) {
            self.shared.overloaded.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        taken.all += 1;
        *taken.own.entry(key).or_default() += 1;
        Some(Place { shared: Arc::clone(&self.shared), work, key })
    }

    /// A turn for a page or a datagram that has a place, if it comes soon enough.
    pub async fn turn(&self, work: Work) -> Option<Turn> {
        let is_datagram = work == Work::Datagram;
        let taken = timeout(if is_datagram { DATAGRAM_WAIT_MAX } else { PAGE_WAIT_MAX }, async {
            // Neither is ever closed.
            let datagram = match is_datagram {
                true => Some(Arc::clone(&self.datagrams).acquire_owned().await.ok()?),
                false => None,
            };
            Some(Turn { _short: Arc::clone(&self.short).acquire_owned().await.ok()?, _datagram: datagram })
        });
        let turn = taken.await.ok().flatten();
        if turn.is_none() {
            self.shared.overloaded.fetch_add(1, Ordering::Relaxed);
        }
        turn
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
            open: open.0.each_ref().map(|taken| taken.all),
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
        assert_eq!(places.len(), STREAMS_MAX, "the administrator takes all but those of one other");
        assert_eq!((places.len(), desk.counts().open[0]), (STREAMS_MAX, STREAMS_MAX));
        assert!(desk.place(Work::Stream, 8).is_none(), "all places are taken");
        assert!(desk.place(Work::Page, 7).is_some() && desk.place(Work::Datagram, 7).is_some());
        assert_eq!(desk.counts().overloaded, 2);
        places.clear();
        assert_eq!(desk.counts().open, [0, 0, 0]);
        assert!(desk.place(Work::Stream, 7).is_some());
    }

    #[tokio::test]
    async fn no_key_takes_the_places_of_pages_or_datagrams() {
        let desk = desk();
        for (work, own_max) in [(Work::Page, PAGES_PER_KEY_MAX), (Work::Datagram, DATAGRAMS_PER_KEY_MAX)] {
            let places: Vec<Place> = (0..100).filter_map(|_| desk.place(work, 7)).collect();
            assert_eq!(places.len(), own_max);
            assert!(desk.place(work, 8).is_some(), "others have theirs");
        }
        let pages: Vec<Place> = (0..100).filter_map(|_| desk.place(Work::Page, 0)).collect();
        assert_eq!(pages.len(), PAGES_MAX - PAGES_PER_KEY_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn datagrams_wait_for_each_other_and_not_for_long() {
        let desk = desk();
        let page = desk.turn(Work::Page).await.expect("nobody is at work");
        assert!(desk.turn(Work::Datagram).await.is_none(), "a store in memory serves one short report at a time");
        drop(page);
        let datagram = desk.turn(Work::Datagram).await.expect("its turn");
        let (page, ()) = tokio::join!(desk.turn(Work::Page), async { drop(datagram) });
        assert!(page.is_some(), "whoever waits comes next");
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
