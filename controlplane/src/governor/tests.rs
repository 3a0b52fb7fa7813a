//! Nodes that meet in one cache, in time that passes as told.

use super::*;
use crate::cache::in_process::InProcessCache;
use crate::cache::load::Loads;
use crate::cache::{CacheError, CacheHealth, CacheTimeouts, Lease, LeaseWish, News, Roll, Write};
use crate::params::check::{Base, Rows, check};
use async_trait::async_trait;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What one node's clients do, and what its shards were told.
#[derive(Default)]
struct World {
    /// Connections that clients of each shard want active, all the time.
    wanted: Vec<u32>,
    bounds: Option<GovernorBounds>,
    answers: u64,
    failed: u64,
}

struct Shards(Mutex<World>);

impl Shards {
    fn active(&self) -> Vec<u32> {
        let world = self.0.lock().expect("whole");
        let bound = |shard: usize| world.bounds.as_ref().map_or(u32::MAX, |bounds| bounds.active_max[shard]);
        world.wanted.iter().enumerate().map(|(shard, wanted)| (*wanted).min(bound(shard))).collect()
    }

    fn want(&self, wanted: &[u32]) {
        self.0.lock().expect("whole").wanted = wanted.to_vec();
    }

    fn answer(&self, answers: u64, failed: u64) {
        let mut world = self.0.lock().expect("whole");
        world.answers += answers;
        world.failed += failed;
    }

    fn told(&self) -> GovernorBounds {
        self.0.lock().expect("whole").bounds.clone().expect("told")
    }
}

impl Governed for Shards {
    fn counts(&self) -> Vec<ShardCounts> {
        let active = self.active();
        let world = self.0.lock().expect("whole");
        let of = |(shard, active): (usize, u32)| match shard {
            0 => ShardCounts { active, answers: world.answers, failed: world.failed },
            _ => ShardCounts { active, ..ShardCounts::default() },
        };
        active.into_iter().enumerate().map(of).collect()
    }

    fn bind(&self, bounds: GovernorBounds) {
        self.0.lock().expect("whole").bounds = Some(bounds);
    }
}

/// A cache that can be away.
struct Line {
    cache: Arc<InProcessCache>,
    is_cut: Arc<AtomicBool>,
}

impl Line {
    fn reach(&self) -> Cached<&InProcessCache> {
        match self.is_cut.load(Ordering::Relaxed) {
            true => Err(CacheError::Unreachable("cut".to_owned())),
            false => Ok(&self.cache),
        }
    }
}

#[async_trait]
impl Cache for Line {
    fn kind(&self) -> &'static str {
        "line"
    }
    async fn set_timeouts(&self, _: CacheTimeouts) {}
    async fn ping(&self) -> Cached<()> {
        self.reach()?.ping().await
    }
    async fn get(&self, key: &CacheKey) -> Cached<Option<(Value, Option<u64>)>> {
        self.reach()?.get(key).await
    }
    async fn put(&self, key: &CacheKey, value: &Value) -> Cached<()> {
        self.reach()?.put(key, value).await
    }
    async fn delete(&self, key: &CacheKey) -> Cached<bool> {
        self.reach()?.delete(key).await
    }
    async fn add(&self, key: &CacheKey, amount: i64) -> Cached<i64> {
        self.reach()?.add(key, amount).await
    }
    async fn write_all(&self, writes: &[Write]) -> Cached<()> {
        self.reach()?.write_all(writes).await
    }
    async fn load(&self, loads: Loads) -> Cached<()> {
        self.reach()?.load(loads).await
    }
    async fn advance(&self, key: &CacheKey, guard: (&str, &str), news: &[(&str, News)]) -> Cached<bool> {
        self.reach()?.advance(key, guard, news).await
    }
    async fn lease(&self, key: &CacheKey, wish: LeaseWish) -> Cached<Lease> {
        self.reach()?.lease(key, wish).await
    }
    async fn heartbeat(&self, node: &str, counters: &BTreeMap<String, String>, ms: u64) -> Cached<Roll> {
        self.reach()?.heartbeat(node, counters, ms).await
    }
    async fn leave(&self, node: &str) -> Cached<()> {
        self.reach()?.leave(node).await
    }
    fn health(&self) -> CacheHealth {
        self.cache.health()
    }
    async fn close(&self) {}
}

struct Node {
    name: String,
    shards: Arc<Shards>,
    governor: Governor,
    view: watch::Sender<ClusterView>,
}

/// Three nodes of two shards and their cache.
struct Cluster {
    cache: Arc<InProcessCache>,
    is_cut: Arc<AtomicBool>,
    parameters: watch::Sender<Arc<Parameters>>,
    nodes: Vec<Node>,
    quarters: u32,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn parameters(max_concurrent: u32) -> Arc<Parameters> {
    let adaptive = Adaptive { max_concurrent, success_threshold_permille: 500, throttle_delay_ms: 1_500 };
    let usual = check(&Rows::default(), &Base::default()).expect("the defaults are valid").parameters;
    Arc::new(Parameters { adaptive, ..usual })
}

impl Cluster {
    fn new(max_concurrent: u32) -> Self {
        let (cache, is_cut) = (Arc::new(InProcessCache::new()), Arc::new(AtomicBool::new(false)));
        let (parameters, watched) = watch::channel(parameters(max_concurrent));
        let start = |name: &str| {
            let world = World { wanted: vec![0, 0], ..World::default() };
            let shards = Arc::new(Shards(Mutex::new(world)));
            let (view, cluster) =
                watch::channel(ClusterView { nodes: NAMES.map(str::to_owned).to_vec(), connected: true });
            let governor = Governor::start(GovernorSetup {
                node: name.to_owned(),
                governed: Arc::<Shards>::clone(&shards),
                cache: Arc::new(Line { cache: Arc::clone(&cache), is_cut: Arc::clone(&is_cut) }),
                parameters: watched.clone(),
                cluster,
            });
            Node { name: name.to_owned(), shards, governor, view }
        };
        let nodes = NAMES.map(start).into();
        Self { cache, is_cut, parameters, nodes, quarters: 0 }
    }

    /// Lets so many seconds pass, in each of which every node answers so much.
    async fn pass(&mut self, seconds: u32, answers: u64, failed: u64) {
        for _ in 0..seconds * 4 {
            for node in &self.nodes {
                node.shards.answer(answers / 4, failed / 4);
                if self.quarters.is_multiple_of(8) {
                    let active: u32 = node.shards.active().iter().sum();
                    let fields = BTreeMap::from([(ACTIVE_FIELD.to_owned(), active.to_string())]);
                    self.cache.heartbeat(&node.name, &fields, 10_000).await.expect("it answers");
                }
            }
            self.quarters += 1;
            tokio::time::sleep(ROUND).await;
        }
    }

    fn active(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.shards.active().iter().sum()).collect()
    }

    fn status(&self) -> Vec<GovernorStatus> {
        self.nodes.iter().map(|node| node.governor.status()).collect()
    }

    fn withheld(&self) -> Vec<u16> {
        self.status().iter().map(|status| status.withheld_permille).collect()
    }

    async fn standing(&self) -> Option<String> {
        match self.cache.get(&CacheKey::fixed(ADAPTIVE_THROTTLE)).await.expect("it answers")? {
            (Value::Text(text), _) => Some(text),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_bound_follows_the_load_and_holds_in_sum() {
    let mut cluster = Cluster::new(6_000);
    cluster.pass(2, 400, 0).await;
    assert_eq!(cluster.status().iter().map(|status| status.node_bound).collect::<Vec<_>>(), [2_000; 3]);
    assert_eq!(cluster.nodes[0].shards.told().retry_after_s, 2, "1.5 s, rounded up");
    cluster.nodes[0].shards.want(&[9_000, 1_000]);
    cluster.nodes[1].shards.want(&[100, 100]);
    cluster.pass(30, 400, 0).await;
    let active = cluster.active();
    assert_eq!((active[1], active[2]), (200, 0), "who is below its part is left alone");
    assert!(active[0] > 4_500 && active.iter().sum::<u32>() <= 6_000, "{active:?}");
    // Its first shard has what the second does not use.
    assert!(cluster.nodes[0].shards.active()[0] > 3_500, "{:?}", cluster.nodes[0].shards.active());
    // Load everywhere: everybody gets a part, and the sum holds again once figures have gone round.
    cluster.nodes.iter().for_each(|node| node.shards.want(&[9_000, 9_000]));
    cluster.pass(6, 400, 0).await;
    let active = cluster.active();
    assert!(active.iter().sum::<u32>() <= 6_000 && active.iter().all(|part| *part >= 499), "{active:?}");
    cluster.parameters.send_replace(parameters(600));
    cluster.pass(6, 400, 0).await;
    assert!(cluster.active().iter().sum::<u32>() <= 600, "{:?}", cluster.active());
}

#[tokio::test(start_paused = true)]
async fn failures_anywhere_lower_the_bound_everywhere_and_it_recovers() {
    let mut cluster = Cluster::new(6_000);
    cluster.pass(3, 400, 100).await;
    assert_eq!(cluster.withheld(), [0; 3], "three quarters succeed");
    cluster.pass(20, 400, 400).await;
    assert_eq!(cluster.withheld(), [900; 3], "down to the floor, and no further");
    assert!(cluster.status().iter().all(|status| status.cluster_bound == 600 && status.success_permille == Some(0)));
    assert_eq!(cluster.standing().await.as_deref(), Some("900"));
    cluster.pass(25, 400, 0).await;
    assert_eq!(cluster.withheld(), [0; 3]);
    assert_eq!(cluster.standing().await.as_deref(), Some("0"));
}

#[tokio::test(start_paused = true)]
async fn one_decides_and_the_others_follow() {
    let mut cluster = Cluster::new(6_000);
    cluster.pass(4, 400, 400).await;
    let first = cluster.withheld()[0];
    assert!((1..900).contains(&first), "one step a second, not one of each node: {first}");
    // What an administrator writes is gone on from; what is no number is written over.
    let throttle = CacheKey::fixed(ADAPTIVE_THROTTLE);
    cluster.cache.put(&throttle, &Value::Text("900".to_owned())).await.expect("written");
    cluster.pass(1, 400, 0).await;
    assert!(cluster.withheld().iter().all(|withheld| *withheld >= 850), "{:?}", cluster.withheld());
    cluster.cache.put(&throttle, &Value::Text("a lot".to_owned())).await.expect("written");
    cluster.pass(2, 400, 0).await;
    let standing = cluster.standing().await.and_then(|text| text.parse::<u16>().ok());
    assert!(standing.is_some_and(|standing| standing <= 850), "{standing:?}");
    // The first is gone: the next one decides.
    for node in &cluster.nodes[1..] {
        node.view.send_replace(ClusterView { nodes: vec!["b".to_owned(), "c".to_owned()], connected: true });
    }
    cluster.nodes.remove(0).governor.stop();
    cluster.pass(25, 400, 0).await;
    assert_eq!(cluster.withheld(), [0; 2]);
    assert_eq!(cluster.status().iter().map(|status| status.node_bound).collect::<Vec<_>>(), [3_000; 2]);
}

#[tokio::test(start_paused = true)]
async fn without_the_cache_each_takes_its_share_and_goes_by_its_own_answers() {
    let mut cluster = Cluster::new(6_000);
    cluster.nodes[0].shards.want(&[9_000, 9_000]);
    cluster.pass(20, 400, 0).await;
    assert!(cluster.active()[0] > 4_500);
    cluster.is_cut.store(true, Ordering::Relaxed);
    cluster.pass(3, 400, 0).await;
    assert!(cluster.status().iter().all(|status| status.alone && status.node_bound == 2_000));
    cluster.nodes[2].shards.answer(10_000, 10_000);
    cluster.pass(1, 400, 0).await;
    assert_eq!(cluster.withheld()[..2], [0, 0], "the third is in trouble by itself");
    assert!(cluster.withheld()[2] > 0);
    cluster.is_cut.store(false, Ordering::Relaxed);
    cluster.pass(30, 400, 0).await;
    assert!(cluster.status().iter().all(|status| !status.alone && status.withheld_permille == 0));
    assert!(cluster.active()[0] > 4_500);
}

#[tokio::test(start_paused = true)]
async fn an_emptied_cache_changes_nothing_but_is_filled_again() {
    let mut cluster = Cluster::new(6_000);
    cluster.pass(4, 400, 400).await;
    let before = cluster.withheld();
    for pattern in [ADAPTIVE_SUCCESSES, ADAPTIVE_TOTAL, ADAPTIVE_THROTTLE] {
        cluster.cache.delete(&CacheKey::fixed(pattern)).await.expect("deleted");
    }
    cluster.pass(1, 400, 400).await;
    let after = cluster.withheld();
    assert!(after.iter().zip(&before).all(|(after, before)| after.abs_diff(*before) <= 200), "{before:?} {after:?}");
    cluster.pass(25, 400, 0).await;
    assert_eq!(cluster.standing().await.as_deref(), Some("0"));
}
