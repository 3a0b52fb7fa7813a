//! The task that asks the cache for parts of keys' seconds, while several nodes are alive.
//!
//! With one node it does nothing at all: every limit is that node's. With several it looks every millisecond which keys
//! ask. When the cache answers nothing for as long as a grant can last, each node admits its part of every limit, until
//! it does. What to ask and what to make of an answer is in `book`.

use super::book::{Absence, Ask, Book, Counts};
use crate::cache::names::{CacheKey, RATE_LIMIT};
use crate::cache::{Cache, CacheError, Cached, Lease, LeaseWish};
use crate::cluster::ClusterView;
use crate::keys::to_hex;
use dataplane_core::access::{Keys, Sharing};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tuning::clock;

/// How often it looks which keys ask.
const LOOK: Duration = Duration::from_millis(1);

/// Questions under way at a time. At the 20 ms of a slow round trip that is 51,200 a second; keys beyond keep to what they
/// have until they are asked for again.
const UNDER_WAY_MAX: usize = 1_024;

/// A lease that has not come after so long is of little use in a second.
pub const ANSWER_WAIT: Duration = Duration::from_millis(200);

/// How often it is asked then whether it is back.
pub const PROBE: Duration = Duration::from_millis(250);

/// How the sharing of seconds stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeaserStatus {
    /// Nodes that share, as far as this one knows.
    pub nodes: usize,
    /// `local`: this node is alone; `shared`: by grants; `part`: the cache is away, and each node admits its part.
    pub sharing: SharingName,
    /// Keys that are asked for now.
    pub keys: usize,
    /// Times that the cache went away.
    pub times_away: u64,
    /// What was asked and what came of it.
    pub counts: Counts,
}

/// See [`LeaserStatus::sharing`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SharingName {
    /// This node is alone.
    #[default]
    Local,
    /// By grants.
    Shared,
    /// Each node admits its part.
    Part,
}

/// What the leaser is made of.
pub struct Leaser {
    /// The keys in force.
    pub keys: watch::Receiver<Keys>,
    /// The nodes alive.
    pub cluster: watch::Receiver<ClusterView>,
    /// The cache that they share.
    pub cache: Arc<dyn Cache>,
    /// Where to tell how it stands.
    pub status: Arc<Mutex<LeaserStatus>>,
}

type Answer = BoxFuture<'static, (Ask, Cached<Lease>)>;

struct Running {
    setup: Leaser,
    book: Book,
    nodes: usize,
    absence: Absence,
    times_away: u64,
    under_way: FuturesUnordered<Answer>,
    asks: Vec<Ask>,
}

/// What woke it.
enum Woken {
    Look,
    Answer(Ask, Cached<Lease>),
    Cluster,
    Probe(bool),
    /// Whoever publishes keys or nodes is gone.
    Over,
}

impl Leaser {
    /// Runs until it is aborted or whoever publishes nodes is gone.
    pub async fn run(self) {
        let mut running = Running {
            setup: self,
            book: Book::default(),
            nodes: 0,
            absence: Absence::default(),
            times_away: 0,
            under_way: FuturesUnordered::new(),
            asks: Vec::new(),
        };
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        running.take_view();
        loop {
            match running.wait(&mut look, &mut probe).await {
                Woken::Look => running.look(),
                Woken::Answer(ask, answer) => running.answered(&ask, answer),
                Woken::Cluster => running.take_view(),
                Woken::Probe(is_back) => running.probed(is_back),
                Woken::Over => return,
            }
            running.send();
            running.tell();
        }
    }
}

async fn question(cache: Arc<dyn Cache>, ask: Ask) -> (Ask, Cached<Lease>) {
    let answer = match CacheKey::new(RATE_LIMIT, &to_hex(&ask.hash)) {
        Ok(key) => timeout(ANSWER_WAIT, cache.lease(&key, ask.wish)).await,
        Err(why) => Ok(Err(CacheError::Refused(why))),
    };
    (ask, answer.unwrap_or_else(|_| Err(CacheError::Unreachable("no lease in time".to_owned()))))
}

/// Whether leases can be had again: a cache that answers may still take no writes. Asked under a name that is no key's,
/// and for nothing.
async fn leases(cache: &dyn Cache) -> bool {
    let nothing = LeaseWish { limit: 1, want: 0, demand: 0, next: false, debt: 0 };
    match CacheKey::new(RATE_LIMIT, &to_hex(&[0; 32])) {
        Ok(key) => cache.lease(&key, nothing).await.is_ok(),
        Err(_) => false,
    }
}

impl Running {
    async fn wait(&mut self, look: &mut Interval, probe: &mut Interval) -> Woken {
        let Leaser { cluster, cache, .. } = &mut self.setup;
        let alone = self.nodes <= 1;
        tokio::select! {
            changed = cluster.changed() => if changed.is_ok() { Woken::Cluster } else { Woken::Over },
            Some((ask, answer)) = self.under_way.next() => Woken::Answer(ask, answer),
            _ = look.tick(), if !alone && !self.absence.is_away() => Woken::Look,
            is_back = async { probe.tick().await; leases(&**cache).await }, if !alone && self.absence.is_away() => {
                Woken::Probe(is_back)
            }
        }
    }

    fn take_view(&mut self) {
        let nodes = self.setup.cluster.borrow_and_update().nodes.len();
        if nodes != self.nodes {
            self.nodes = nodes;
            self.book.set_nodes(nodes);
            tracing::info!(nodes, "limits per second are shared by so many nodes");
        }
        if nodes <= 1 {
            self.absence.back();
            self.book.clear();
        }
        self.set_sharing();
    }

    fn sharing(&self) -> Sharing {
        match (self.nodes, self.absence.is_away()) {
            (0 | 1, _) => Sharing::Part(1),
            (nodes, true) => Sharing::Part(u32::try_from(nodes).unwrap_or(u32::MAX)),
            (_, false) => Sharing::Granted,
        }
    }

    fn set_sharing(&self) {
        self.setup.keys.borrow().set_sharing(self.sharing(), clock::now().mono_ms());
    }

    fn keys(&self) -> Keys {
        Arc::clone(&self.setup.keys.borrow())
    }

    fn look(&mut self) {
        let keys = self.keys();
        if keys.sharing() != Sharing::Granted {
            // A directory of another line than the one before.
            self.set_sharing();
        }
        self.book.look(&keys, clock::now().mono_ms(), &mut self.asks);
    }

    fn answered(&mut self, ask: &Ask, answer: Cached<Lease>) {
        let (keys, now_ms) = (self.keys(), clock::now().mono_ms());
        match answer {
            Ok(lease) => {
                self.absence.answered();
                self.book.answered(&keys, ask, lease, now_ms, &mut self.asks);
            }
            Err(why) => {
                self.book.failed(&keys, ask, now_ms);
                if self.nodes > 1 && self.absence.failed(now_ms) {
                    self.times_away += 1;
                    self.book.clear();
                    self.set_sharing();
                    tracing::warn!(
                        nodes = self.nodes,
                        "{why}: each node now admits its part of every limit per second"
                    );
                }
            }
        }
    }

    fn probed(&mut self, is_back: bool) {
        if is_back {
            self.absence.back();
            self.set_sharing();
            tracing::info!(nodes = self.nodes, "the cache is back: limits per second are shared again");
        }
    }

    fn send(&mut self) {
        let keys = self.keys();
        for ask in self.asks.drain(..) {
            if self.absence.is_away() || self.under_way.len() >= UNDER_WAY_MAX {
                self.book.failed(&keys, &ask, clock::now().mono_ms());
            } else {
                self.under_way.push(Box::pin(question(Arc::clone(&self.setup.cache), ask)));
            }
        }
    }

    fn tell(&self) {
        let sharing = match self.sharing() {
            Sharing::Part(1) => SharingName::Local,
            Sharing::Part(_) => SharingName::Part,
            Sharing::Granted => SharingName::Shared,
        };
        let status = LeaserStatus {
            nodes: self.nodes,
            sharing,
            keys: self.book.keys(),
            times_away: self.times_away,
            counts: self.book.counts(),
        };
        *self.setup.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}
