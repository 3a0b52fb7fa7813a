//! The governor of active TCP connections, over all nodes together.
//!
//! `adaptive_max_concurrent` bounds the connections of the cluster that are active at a time (see
//! `dataplane_core::governor`: idle ones do not count). Four times a second each node tells the cache what it answered,
//! hears what all did, and divides: the bound among the nodes by what each uses, this node's part among its shards. A
//! shard enforces its part by itself, so no request waits for any of this.
//!
//! While too few answers succeed the bound is lowered (see `throttle`). One node decides that, the first by name of those
//! alive, and writes it to `{adaptive:lpo}:throttle` as the part withheld, in thousandths; all others follow what stands
//! there. For as long as two nodes each think themselves the first, the last to write wins, and both go on from that, so
//! they agree once they agree on who is alive. What an administrator writes there is gone on from just so.
//!
//! Without the cache a node goes by its own answers and takes an equal part, by the nodes it knew last. Other nodes'
//! figures are as old as their heartbeat, so for some two seconds after load has moved the cluster may have more active
//! connections than its bound, by what has moved.

mod parts;
mod throttle;

#[cfg(test)]
mod tests;

use self::parts::divide;
use self::throttle::{Answers, Throttle};
use crate::cache::names::{ADAPTIVE_SUCCESSES, ADAPTIVE_THROTTLE, ADAPTIVE_TOTAL, CLUSTER_STATS, CacheKey};
use crate::cache::{Cache, Cached, Value};
use crate::cluster::ClusterView;
use crate::params::{Adaptive, Parameters};
use dataplane_core::command::ShardCommand;
use dataplane_core::governor::GovernorBounds;
use dataplane_engine::DataPlane;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The field of `cluster:stats:<node>` in which a node's active connections stand.
pub const ACTIVE_FIELD: &str = "connections_active";

/// Time between two rounds: twice what the shards take to publish, so that a part follows what is used within a window or
/// two.
const ROUND: Duration = Duration::from_millis(250);

/// Rounds between two looks at the other nodes' figures: they are renewed every two seconds.
const ROUNDS_PER_LOOK: u32 = 4;

/// Nodes whose figures are read. In a larger cluster each takes an equal part: that many reads a second would be a load.
const NODES_READ_MAX: usize = 64;

/// What the governor governs.
pub trait Governed: Send + Sync {
    /// What each shard has counted.
    fn counts(&self) -> Vec<ShardCounts>;

    /// Tells every shard its part. May block for as long as a shard's channel is full.
    fn bind(&self, bounds: GovernorBounds);
}

/// What one shard has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounts {
    /// Active connections now.
    pub active: u32,
    /// Answers since start, without those that were shed.
    pub answers: u64,
    /// Those of them that were `overloaded` for another reason: no room for one more long answer.
    pub failed: u64,
}

impl Governed for DataPlane {
    fn counts(&self) -> Vec<ShardCounts> {
        let stats = self.stats();
        let count = |counters: &dataplane_core::counters::ShardCounters| {
            let shed: u64 = counters.shed.iter().sum();
            ShardCounts {
                active: u32::try_from(counters.active).unwrap_or(u32::MAX),
                answers: counters.http_requests.saturating_sub(shed),
                failed: counters.http_overloaded.saturating_sub(shed),
            }
        };
        stats.iter().map(|shard| count(&shard.counters)).collect()
    }

    fn bind(&self, bounds: GovernorBounds) {
        self.command(&ShardCommand::Governor(bounds));
    }
}

/// What the governor goes by and what it has decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct GovernorStatus {
    /// Active connections that all nodes together may have now; 0 before the first round.
    pub cluster_bound: u32,
    /// This node's part of it.
    pub node_bound: u32,
    /// This node's active connections.
    pub active: u32,
    /// What part of `adaptive_max_concurrent` is withheld, in thousandths.
    pub withheld_permille: u16,
    /// Share of answers that succeeded lately, in thousandths; `None` where there were too few to judge.
    pub success_permille: Option<u16>,
    /// Whether the cache did not answer, so that this node goes by itself.
    pub alone: bool,
}

/// What a governor is made of.
pub struct GovernorSetup {
    /// This node's name, as it stands in the cluster's view.
    pub node: String,
    /// The shards.
    pub governed: Arc<dyn Governed>,
    /// Where the nodes meet.
    pub cache: Arc<dyn Cache>,
    /// The parameters in force.
    pub parameters: watch::Receiver<Arc<Parameters>>,
    /// Who is alive.
    pub cluster: watch::Receiver<ClusterView>,
}

/// The running governor.
pub struct Governor {
    status: watch::Receiver<GovernorStatus>,
    task: JoinHandle<()>,
}

impl Governor {
    /// Starts it. To be called on a runtime.
    #[must_use]
    pub fn start(setup: GovernorSetup) -> Self {
        let (publish, status) = watch::channel(GovernorStatus::default());
        let task = tokio::spawn(Rounds::new(setup, publish).run());
        Self { status, task }
    }

    /// What it has decided last.
    #[must_use]
    pub fn status(&self) -> GovernorStatus {
        *self.status.borrow()
    }

    /// Ends it. The shards keep the bounds they have; there is nothing to save.
    pub fn stop(&self) {
        self.task.abort();
    }
}

/// The names in the cache.
struct Names {
    successes: CacheKey,
    total: CacheKey,
    throttle: CacheKey,
}

/// The rounds' state.
struct Rounds {
    setup: GovernorSetup,
    publish: watch::Sender<GovernorStatus>,
    names: Names,
    began: Instant,
    throttle: Throttle,
    /// Own answers as of the last round.
    told: Answers,
    /// Whether the last round went by this node's own answers.
    was_alone: bool,
    /// Other nodes' active connections, as read last.
    others: BTreeMap<String, u32>,
    rounds: u32,
    bound: Option<GovernorBounds>,
}

impl Rounds {
    fn new(setup: GovernorSetup, publish: watch::Sender<GovernorStatus>) -> Self {
        let names = Names {
            successes: CacheKey::fixed(ADAPTIVE_SUCCESSES),
            total: CacheKey::fixed(ADAPTIVE_TOTAL),
            throttle: CacheKey::fixed(ADAPTIVE_THROTTLE),
        };
        Self {
            setup,
            publish,
            names,
            began: Instant::now(),
            throttle: Throttle::default(),
            told: Answers::default(),
            was_alone: false,
            others: BTreeMap::new(),
            rounds: 0,
            bound: None,
        }
    }

    async fn run(mut self) {
        let mut rounds = interval(ROUND);
        // Rounds that a slow cache has held up are not made up for: each goes by what is then.
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            self.round().await;
        }
    }

    async fn round(&mut self) {
        let counts = self.setup.governed.counts();
        let adaptive = self.setup.parameters.borrow().adaptive;
        let view = self.setup.cluster.borrow().clone();
        let mine = Answers {
            successes: counts.iter().map(|shard| shard.answers.saturating_sub(shard.failed)).sum(),
            total: counts.iter().map(|shard| shard.answers).sum(),
        };
        let told = self.tell(mine).await;
        let alone = told.is_err();
        if alone != self.was_alone {
            // The sums of one node and those of all have nothing in common.
            self.throttle.forget();
            self.was_alone = alone;
        }
        let (answers, standing) = told.unwrap_or((mine, None));
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.throttle.see(now_ms, answers);
        let decides = alone || view.nodes.first().is_none_or(|first| *first == self.setup.node);
        self.decide(now_ms, adaptive, standing, decides, alone).await;
        self.look(&view).await;
        let active: Vec<u32> = counts.iter().map(|shard| shard.active).collect();
        self.divide(adaptive, &view, &active, alone).await;
    }

    /// Adds what this node has answered since the last round, and hears what all have, and which throttle stands. What
    /// could not be told is not told later: it is about the last seconds.
    async fn tell(&mut self, mine: Answers) -> Cached<(Answers, Option<u16>)> {
        let grown = |now: u64, before: u64| i64::try_from(now.saturating_sub(before)).unwrap_or(i64::MAX);
        let successes = grown(mine.successes, self.told.successes);
        let total = grown(mine.total, self.told.total);
        self.told = mine;
        let (cache, names) = (&self.setup.cache, &self.names);
        let (successes, total, throttle) = tokio::join!(
            cache.add(&names.successes, successes),
            cache.add(&names.total, total),
            cache.get(&names.throttle)
        );
        let sum = |sum: i64| u64::try_from(sum).unwrap_or(0);
        let answers = Answers { successes: sum(successes?), total: sum(total?) };
        let standing = match throttle? {
            Some((Value::Text(text), _)) => text.trim().parse().ok(),
            _ => None,
        };
        Ok((answers, standing))
    }

    /// Goes on from the throttle that stands; if it is this node's to decide, decides and writes.
    async fn decide(&mut self, now_ms: u64, adaptive: Adaptive, standing: Option<u16>, decides: bool, alone: bool) {
        let before = self.throttle.withheld_permille();
        if let Some(standing) = standing {
            self.throttle.follow(standing);
        }
        if decides {
            self.throttle.decide(now_ms, adaptive.success_threshold_permille);
        }
        let after = self.throttle.withheld_permille();
        match (before, after) {
            (0, 1..) => tracing::warn!("too few answers succeed: fewer active connections are let in until more do"),
            (1.., 0) => tracing::info!("enough answers succeed: the bound on active connections stands at its height"),
            _ => {}
        }
        if decides && !alone && standing != Some(after) {
            // Not written, it is written in the next round: then it is still not what stands there.
            let _ = self.setup.cache.put(&self.names.throttle, &Value::Text(after.to_string())).await;
        }
    }

    /// Reads the other nodes' figures, if it is time. Those that cannot be read stay as they were.
    async fn look(&mut self, view: &ClusterView) {
        self.rounds = self.rounds.wrapping_add(1);
        self.others.retain(|node, _| view.nodes.contains(node));
        let is_time = self.rounds % ROUNDS_PER_LOOK == 1;
        if !is_time || !view.connected || view.nodes.len() > NODES_READ_MAX {
            return;
        }
        for node in view.nodes.iter().filter(|node| **node != self.setup.node) {
            let Ok(key) = CacheKey::new(CLUSTER_STATS, node) else { continue };
            let Ok(Some((Value::Hash(fields), _))) = self.setup.cache.get(&key).await else { continue };
            let active = fields.get(ACTIVE_FIELD).and_then(|text| text.parse().ok());
            self.others.insert(node.clone(), active.unwrap_or(0));
        }
    }

    /// Divides the bound and tells the shards, if their parts are others now.
    async fn divide(&mut self, adaptive: Adaptive, view: &ClusterView, active: &[u32], alone: bool) {
        let mine = active.iter().fold(0, |sum: u32, active| sum.saturating_add(*active));
        let cluster_bound = self.throttle.apply(adaptive.max_concurrent);
        let node_bound = self.node_part(cluster_bound, view, mine, alone);
        let bounds = GovernorBounds {
            active_max: divide(node_bound, active).into(),
            retry_after_s: adaptive.throttle_delay_ms.div_ceil(1_000),
        };
        if self.bound.as_ref() != Some(&bounds) {
            let (governed, told) = (Arc::clone(&self.setup.governed), bounds.clone());
            if spawn_blocking(move || governed.bind(told)).await.is_ok() {
                self.bound = Some(bounds);
            }
        }
        self.publish.send_replace(GovernorStatus {
            cluster_bound,
            node_bound,
            active: mine,
            withheld_permille: self.throttle.withheld_permille(),
            success_permille: self.throttle.success_permille(),
            alone,
        });
    }

    /// This node's part of the cluster's bound.
    fn node_part(&self, bound: u32, view: &ClusterView, mine: u32, alone: bool) -> u32 {
        let count = view.nodes.len().max(1);
        let position = view.nodes.iter().position(|node| *node == self.setup.node);
        match position {
            Some(position) if !alone && count <= NODES_READ_MAX => {
                let of = |node: &String| self.others.get(node).copied().unwrap_or(0);
                let mut active: Vec<u32> = view.nodes.iter().map(of).collect();
                active[position] = mine;
                divide(bound, &active)[position]
            }
            _ => (bound / u32::try_from(count).unwrap_or(u32::MAX)).max(1),
        }
    }
}
