//! Nodes, shards and the cache's arithmetic in virtual time: what is admitted of a limit, whatever the load and however
//! slow the cache. No socket, no thread, and the same outcome for the same seed.

use super::book::{Ask, Book};
use crate::cache::Lease;
use crate::cache::window::Window;
use dataplane_core::access::{Gate, KeyDirectory, KeyMemo, Keys, Sharing, hash_text};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shared::key::{KeyId, KeyRecord, Permissions};
use shared::moment::Moment;
use std::collections::BTreeMap;
use std::sync::Arc;

const TEXT: &[u8] = b"tb_live_simulated";
const KEY: KeyId = KeyId(7);

/// Steps of virtual time, µs.
const STEP_US: u64 = 100;

/// When the cache's clock begins: it has nothing to do with the nodes'.
const CACHE_EPOCH_MS: u64 = 1_700_000_000_000;

/// A node may think that a window began a little before the simulation did.
const BEFORE_MS: u64 = 10_000;

/// How load arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    Steady,
    /// All of 100 ms at once.
    Bursts,
}

/// What is simulated.
#[derive(Clone, Debug)]
struct Scene {
    limit: u32,
    shards: u16,
    /// Requests a second offered to each node.
    offered: Vec<u64>,
    arrival: Arrival,
    /// One way to the cache, µs, from and to.
    way_us: (u64, u64),
    seconds: u64,
    /// When the cache loses everything, ms.
    flush_at_ms: Option<u64>,
    seed: u64,
}

struct Node {
    keys: Keys,
    shards: Vec<(Gate, KeyMemo)>,
    book: Book,
    /// Its clock, against virtual time, ms.
    clock_ms: u64,
    /// When the leaser looks next, µs.
    look_us: u64,
    offered: u64,
    arrived: u64,
}

enum Message {
    Question(Ask),
    Answer(Ask, Lease),
}

/// What came out.
struct Outcome {
    /// Admitted in each of the cache's windows, by the window that the node counted it in.
    windows: BTreeMap<u64, u64>,
    /// Requests that arrived in each second of virtual time, and that were admitted.
    seconds: Vec<(u64, u64)>,
}

fn node(scene: &Scene, index: usize) -> Node {
    let record = KeyRecord {
        id: KEY,
        hash: hash_text(TEXT),
        limit_per_second: scene.limit,
        rank: 3,
        expires_at_ms: 0,
        permissions: Permissions(Permissions::PRICES),
        udp_secret: [0; 16],
    };
    let keys = Arc::new(KeyDirectory::build(vec![record], None, usize::from(scene.shards)));
    keys.set_sharing(Sharing::Granted);
    let shards = (0..scene.shards).map(|_| {
        let gate = Gate::new(Arc::clone(&keys), scene.shards);
        let memo = gate.identify(TEXT).expect("the key");
        (gate, memo)
    });
    let mut book = Book::default();
    book.set_nodes(scene.offered.len());
    let clock_ms = 5_000_000 + 777_777 * index as u64;
    Node { shards: shards.collect(), keys, book, clock_ms, look_us: 0, offered: scene.offered[index], arrived: 0 }
}

struct World {
    scene: Scene,
    random: StdRng,
    nodes: Vec<Node>,
    window: Option<Window>,
    /// Starts of the cache's windows, virtual ms.
    starts: Vec<u64>,
    messages: BTreeMap<(u64, u64), (usize, Message)>,
    sent: u64,
    outcome: Outcome,
}

impl World {
    fn new(scene: Scene) -> Self {
        let nodes = (0..scene.offered.len()).map(|index| node(&scene, index)).collect();
        let outcome = Outcome { windows: BTreeMap::new(), seconds: vec![(0, 0); scene.seconds as usize] };
        let random = StdRng::seed_from_u64(scene.seed);
        Self { scene, random, nodes, window: None, starts: Vec::new(), messages: BTreeMap::new(), sent: 0, outcome }
    }

    fn send(&mut self, node: usize, now_us: u64, message: Message) {
        let (from, to) = self.scene.way_us;
        let way_us = self.random.random_range(from..=to);
        self.sent += 1;
        self.messages.insert((now_us + way_us, self.sent), (node, message));
    }

    fn deliver(&mut self, now_us: u64) {
        while let Some(first) = self.messages.first_entry()
            && first.key().0 <= now_us
        {
            let (node, message) = first.remove();
            let now_ms = now_us / 1_000;
            match message {
                Message::Question(ask) => {
                    let mut window = Window::at(self.window.take(), CACHE_EPOCH_MS + now_ms);
                    let lease = window.grant(ask.wish, CACHE_EPOCH_MS + now_ms);
                    let start_ms = window.start_ms + BEFORE_MS - CACHE_EPOCH_MS;
                    if self.starts.last() != Some(&start_ms) {
                        self.starts.push(start_ms);
                    }
                    self.window = Some(window);
                    self.send(node, now_us, Message::Answer(ask, lease));
                }
                Message::Answer(ask, lease) => {
                    let (mut asks, here) = (Vec::new(), &mut self.nodes[node]);
                    here.book.answered(&here.keys, &ask, lease, here.clock_ms + now_ms, &mut asks);
                    asks.into_iter().for_each(|ask| self.send(node, now_us, Message::Question(ask)));
                }
            }
        }
    }

    fn look(&mut self, node: usize, now_us: u64) {
        let here = &mut self.nodes[node];
        if now_us < here.look_us {
            return;
        }
        // A millisecond, and sometimes a machine that is busy.
        let late_us = if self.random.random_range(0..50) == 0 { self.random.random_range(0..5_000) } else { 0 };
        here.look_us = now_us + 1_000 + late_us;
        let mut asks = Vec::new();
        here.book.look(&here.keys, here.clock_ms + now_us / 1_000, &mut asks);
        asks.into_iter().for_each(|ask| self.send(node, now_us, Message::Question(ask)));
    }

    fn serve(&mut self, node: usize, now_us: u64) {
        let here = &mut self.nodes[node];
        let arrival_us = match self.scene.arrival {
            Arrival::Steady => now_us,
            Arrival::Bursts => now_us / 100_000 * 100_000,
        };
        // Nodes are not in step: each counts its requests from another phase.
        let phase_us = 130_000 * node as u64;
        let due = here.offered * (arrival_us + phase_us) / 1_000_000 - here.offered * phase_us / 1_000_000;
        let now_ms = here.clock_ms + now_us / 1_000;
        while here.arrived < due {
            here.arrived += 1;
            let shard = self.random.random_range(0..here.shards.len());
            let (gate, memo) = &mut here.shards[shard];
            let admitted = gate.admit(memo, Moment { mono_ns: now_ms * 1_000_000, wall_ms: 0 }).refused.is_none();
            let second = &mut self.outcome.seconds[(now_us / 1_000_000) as usize];
            second.0 += 1;
            second.1 += u64::from(admitted);
            if admitted {
                let start_ms =
                    here.keys.second(KEY).expect("the key").state(now_ms).start_ms + BEFORE_MS - here.clock_ms;
                let nearest = self.starts.iter().rev().take(3).copied();
                // A window that nobody has asked the cache about yet will follow the last one.
                let nearest = nearest.chain(self.starts.last().map(|last| last + 1_000));
                let window = nearest.min_by_key(|start| start.abs_diff(start_ms)).unwrap_or(0);
                *self.outcome.windows.entry(window).or_default() += 1;
            }
        }
    }

    fn run(mut self) -> Outcome {
        for now_us in (0..self.scene.seconds * 1_000_000).step_by(STEP_US as usize) {
            if self.scene.flush_at_ms == Some(now_us / 1_000) {
                self.window = None;
            }
            self.deliver(now_us);
            for node in 0..self.nodes.len() {
                self.serve(node, now_us);
                self.look(node, now_us);
            }
        }
        self.outcome
    }
}

/// What nodes without a grant may admit in a window of the key, all together.
fn advances(scene: &Scene) -> u64 {
    scene.offered.len() as u64 * u64::from((scene.limit / 128).max(1))
}

#[track_caller]
fn check(scene: Scene) {
    let what = format!("{scene:?}");
    let (limit, advances, seconds) = (u64::from(scene.limit), advances(&scene), scene.seconds);
    let offered: u64 = scene.offered.iter().sum();
    let steady = scene.arrival == Arrival::Steady;
    let outcome = World::new(scene).run();
    for (start, admitted) in &outcome.windows {
        assert!(*admitted <= limit + advances, "{what}: window at {start}: {:?}", outcome.windows);
    }
    // The first second finds no window that was asked for ahead.
    let after = outcome.seconds.iter().skip(1).map(|(_, admitted)| admitted).sum::<u64>();
    let due = limit.min(offered) * (seconds - 1);
    // A load of exactly the limit is in step with the windows: a request that comes at an edge may find itself in the
    // window before or after, which then has one too many.
    let at_edges = if offered > limit { 1 } else { seconds };
    if steady {
        assert!((after + at_edges) * 100 >= due * 99, "{what}: {after} of {due}: {:?}", outcome.seconds);
    }
    assert!(after <= limit * seconds + advances, "{what}: {after}: {:?}", outcome.seconds);
}

/// Shares of three nodes, of 12.
const SHARES: [[u64; 3]; 4] = [[4, 4, 4], [8, 3, 1], [12, 0, 0], [6, 6, 0]];

fn scenes(limit: u32, shards: u16, seconds: u64) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for (load, seed) in [(6_u64, 1_u64), (12, 2), (18, 3), (36, 4)] {
        for shares in SHARES {
            // Large loads take long to play: of them, those that tell most.
            if limit > 10_000 && (load != 18 || shares[1] == 6) {
                continue;
            }
            for way_us in [(100, 400), (150, 10_000)] {
                let offered = shares.map(|share| u64::from(limit) * load * share / 144).to_vec();
                let arrival = Arrival::Steady;
                scenes.push(Scene { limit, shards, offered, arrival, way_us, seconds, flush_at_ms: None, seed });
            }
        }
    }
    scenes
}

#[test]
fn small_limits_hold_over_nodes() {
    [1, 8].into_iter().for_each(|shards| scenes(3, shards, 10).into_iter().for_each(check));
}

#[test]
fn middling_limits_hold_over_nodes() {
    [1, 8].into_iter().for_each(|shards| scenes(1_000, shards, 4).into_iter().for_each(check));
}

#[test]
fn large_limits_hold_over_nodes() {
    [1, 8].into_iter().for_each(|shards| scenes(100_000, shards, 2).into_iter().for_each(check));
}

#[test]
fn bursts_and_a_cache_that_forgets_admit_no_more() {
    for limit in [3, 1_000, 20_000] {
        for (seed, offered) in [(1, [2, 2, 2]), (2, [5, 1, 0]), (3, [1, 0, 0])] {
            let offered = offered.map(|load| u64::from(limit) * load / 2).to_vec();
            let (way_us, seconds) = ((100, 10_000), if limit > 1_000 { 2 } else { 6 });
            let scene =
                Scene { limit, shards: 8, offered, arrival: Arrival::Bursts, way_us, seconds, flush_at_ms: None, seed };
            check(scene.clone());
            let flushed = World::new(Scene { flush_at_ms: Some(1_437), ..scene.clone() }).run();
            let admitted: u64 = flushed.seconds.iter().map(|(_, admitted)| admitted).sum();
            let most = u64::from(limit) * (seconds + 2) + 3 * advances(&scene);
            assert!(admitted <= most, "{scene:?}: {admitted}, at most {most}: {:?}", flushed.seconds);
        }
    }
}
