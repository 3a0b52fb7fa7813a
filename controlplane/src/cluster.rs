//! The other nodes: who is alive, and what each counts.
//!
//! Each node writes its counters to `cluster:stats:<node>` every [`BEAT_EVERY`] and learns who else does. Without a
//! cache server a node is alone. When the cache has lost what stood in it, or was away, the nodes known before stay
//! until each has had the time to tell of itself again: else limits would be divided among too few. What is counted,
//! and what others make of it, is not known here.

pub mod counters;

use crate::cache::names::{CLUSTER_STATS, CacheKey};
use crate::cache::{Cache, CacheError, Roll, Value};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Time between two beats: a fifth of what a node's counters live, so that four may be lost.
pub const BEAT_EVERY: Duration = Duration::from_secs(2);

/// How long a node counts as alive after its last beat, ms, by the cache's own clock.
pub const ALIVE_MS: u64 = 10_000;

/// Nodes whose counters are read at the same time.
const READS_AT_ONCE: usize = 32;

/// What tells one process from another of the same name.
const OWN_FIELDS: [&str; 2] = ["started_time_ms", "pid"];

/// One node's counters, by name.
pub type Counters = BTreeMap<String, String>;

/// Who is there, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// Names of the nodes alive, this one included, in order.
    pub nodes: Vec<String>,
    /// Whether the cache answered the last time; when not, `nodes` are those of the last time it did.
    pub connected: bool,
}

/// This node's place among the others.
pub struct Cluster {
    node: String,
    cache: Arc<dyn Cache>,
    view: watch::Sender<ClusterView>,
}

/// The beats of a node, until [`stop`](Self::stop).
pub struct Beats {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Beats {
    /// Ends the beats and has the others forget this node. Takes as long as one call of the cache.
    pub async fn stop(self) {
        // The task is there as long as the runtime is.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

impl Cluster {
    /// `node` on `cache`; alone until the first beat.
    #[must_use]
    pub fn new(node: String, cache: Arc<dyn Cache>) -> Arc<Self> {
        let view = ClusterView { nodes: vec![node.clone()], connected: false };
        Arc::new(Self { node, cache, view: watch::Sender::new(view) })
    }

    /// Who is there, now and from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ClusterView> {
        self.view.subscribe()
    }

    /// Begins to beat, with what `counters` gives each time.
    pub fn run(self: &Arc<Self>, counters: impl Fn() -> Counters + Send + 'static) -> Beats {
        let (stop, mut stopped) = oneshot::channel();
        let cluster = Arc::clone(self);
        let task = tokio::spawn(async move {
            let mut beats = interval(BEAT_EVERY);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (mut namesake, mut remembered) = (Namesake::default(), Remembered::default());
            loop {
                tokio::select! {
                    _ = &mut stopped => break,
                    _ = beats.tick() => cluster.beat(&counters(), &mut namesake, &mut remembered).await,
                }
            }
            if let Err(why) = cluster.cache.leave(&cluster.node).await {
                tracing::debug!(%why, "the other nodes will see in 10 s that this one has left");
            }
        });
        Beats { stop, task }
    }

    async fn beat(&self, counters: &Counters, namesake: &mut Namesake, remembered: &mut Remembered) {
        if namesake.written {
            match self.counters(&self.node).await {
                Ok(found) => namesake.look(&self.node, found.as_ref(), counters),
                Err(_) => return self.see(None, remembered),
            }
        }
        let alive = self.cache.heartbeat(&self.node, counters, ALIVE_MS).await;
        namesake.written = alive.is_ok();
        self.see(alive.ok(), remembered);
    }

    /// Tells those who watch, if anything is new.
    fn see(&self, roll: Option<Roll>, remembered: &mut Remembered) {
        let now = Instant::now();
        self.view.send_if_modified(|view| {
            let before = view.clone();
            view.connected = roll.is_some();
            if let Some(roll) = roll {
                if !roll.was_noted || !before.connected {
                    remembered.begin(&before.nodes, now);
                }
                view.nodes = remembered.with(roll.nodes, now);
            }
            *view != before
        });
    }

    /// What one node wrote last; `None`: nothing in the last 10 s.
    ///
    /// # Errors
    /// When the cache is away, or something else stands there.
    pub async fn counters(&self, node: &str) -> Result<Option<Counters>, CacheError> {
        let key = CacheKey::new(CLUSTER_STATS, node).map_err(CacheError::Refused)?;
        Ok(match self.cache.get(&key).await? {
            Some((Value::Hash(counters), _)) => Some(counters),
            _ => None,
        })
    }

    /// What every node alive wrote last.
    ///
    /// # Errors
    /// When the cache is away.
    pub async fn everyone(&self) -> Result<BTreeMap<String, Option<Counters>>, CacheError> {
        let nodes = self.view.borrow().nodes.clone();
        let one = |node: String| async move { self.counters(&node).await.map(|counters| (node, counters)) };
        let found: Vec<_> = futures_util::stream::iter(nodes).map(one).buffered(READS_AT_ONCE).collect().await;
        found.into_iter().collect()
    }
}

/// Nodes that were there before the cache lost what stood in it, or went away.
#[derive(Default)]
struct Remembered {
    nodes: Vec<String>,
    until: Option<Instant>,
}

impl Remembered {
    /// These were there, and have [`ALIVE_MS`] from now to tell of themselves again. One that has gone meanwhile costs
    /// the others its part of the limits for as long.
    fn begin(&mut self, nodes: &[String], now: Instant) {
        self.nodes = nodes.to_vec();
        self.until = Some(now + Duration::from_millis(ALIVE_MS));
    }

    /// Who is there: those that the cache names, and those remembered while that is to be.
    fn with(&mut self, named: Vec<String>, now: Instant) -> Vec<String> {
        if self.until.is_none_or(|until| now >= until) {
            self.nodes.clear();
            return named;
        }
        let all: BTreeSet<String> = named.into_iter().chain(self.nodes.iter().cloned()).collect();
        all.into_iter().collect()
    }
}

/// Whether another process has this node's name: then both write to one place, and limits are divided among too few.
#[derive(Default)]
struct Namesake {
    /// Whether this process wrote last, as far as it knows: what stands there otherwise is somebody else's.
    written: bool,
    told: bool,
}

impl Namesake {
    fn look(&mut self, node: &str, found: Option<&Counters>, own: &Counters) {
        // Nothing there tells nothing: it may have been flushed.
        let Some(found) = found else { return };
        let is_own = OWN_FIELDS.iter().all(|field| found.get(*field) == own.get(*field));
        if !is_own && !self.told {
            tracing::warn!(node, "another process has this node's name: set CLUSTER_NODE to another on one of them");
        } else if is_own && self.told {
            tracing::info!(node, "no other process has this node's name any more");
        }
        self.told = !is_own;
    }
}

#[cfg(test)]
mod tests;
