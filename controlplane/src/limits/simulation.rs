//! Nodes, shards and the cache's arithmetic in virtual time: what is admitted of a limit, whatever the load and however
//! slow the cache. No socket, no thread, and the same outcome for the same seed.

mod below;

use super::book::{Absence, Ask, Book};
use super::leaser::{ANSWER_WAIT, PROBE};
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
    /// Steady on the first node; on the others one request at `first_ms`, and the load from `from_ms` on.
    Late {
        first_ms: u64,
        from_ms: u64,
    },
}

impl Arrival {
    /// Requests that have come to a node by now.
    fn due(self, node: usize, offered: u64, now_us: u64) -> u64 {
        // Nodes are not in step: each counts its requests from another phase.
        let phase_us = 130_000 * node as u64;
        let steady = |us: u64| offered * (us + phase_us) / 1_000_000 - offered * phase_us / 1_000_000;
        match self {
            Self::Late { first_ms, from_ms } if node > 0 => {
                u64::from(now_us >= first_ms * 1_000) + steady(now_us.saturating_sub(from_ms * 1_000))
            }
            Self::Steady | Self::Late { .. } => steady(now_us),
            Self::Bursts => steady(now_us / 100_000 * 100_000),
        }
    }
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
    /// Of 100 calls, so many are lost on their way, half of them after the cache has granted.
    lost: u32,
    /// For whom there is no cache, from when until when, ms.
    away: Option<Away>,
    /// Until when each node takes itself for the only one, ms; 0: none does.
    alone_ms: u64,
    seed: u64,
}

/// A cache that is away.
#[derive(Clone, Copy, Debug)]
struct Away {
    from_ms: u64,
    until_ms: u64,
    /// For so many nodes, the first.
    nodes: usize,
}

impl Away {
    const fn is_for(self, node: usize, now_ms: u64) -> bool {
        node < self.nodes && self.from_ms <= now_ms && now_ms < self.until_ms
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            limit: 1_000,
            shards: 8,
            offered: Vec::new(),
            arrival: Arrival::Steady,
            way_us: (100, 400),
            seconds: 4,
            flush_at_ms: None,
            lost: 0,
            away: None,
            alone_ms: 0,
            seed: 1,
        }
    }
}

struct Node {
    keys: Keys,
    shards: Vec<(Gate, KeyMemo)>,
    book: Book,
    absence: Absence,
    /// When it looks whether the cache is back, µs.
    probe_us: u64,
    /// Its clock, against virtual time, ms.
    clock_ms: u64,
    /// When the leaser looks next, µs.
    look_us: u64,
    offered: u64,
    arrived: u64,
}

enum Message {
    /// With the time at which it is waited for no longer, µs.
    Question(Ask, u64),
    Answer(Ask, Lease),
    Failure(Ask),
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
    keys.set_sharing(if scene.alone_ms > 0 { Sharing::Part(1) } else { Sharing::Granted }, 1);
    let shards = (0..scene.shards).map(|_| {
        let gate = Gate::new(Arc::clone(&keys), scene.shards);
        let memo = gate.identify(TEXT).expect("the key");
        (gate, memo)
    });
    let mut book = Book::default();
    book.set_nodes(scene.offered.len());
    let clock_ms = 5_000_000 + 777_777 * index as u64;
    Node {
        shards: shards.collect(),
        keys,
        book,
        absence: Absence::default(),
        probe_us: 0,
        clock_ms,
        look_us: 0,
        offered: scene.offered[index],
        arrived: 0,
    }
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

    fn post(&mut self, node: usize, at_us: u64, message: Message) {
        self.sent += 1;
        self.messages.insert((at_us, self.sent), (node, message));
    }

    fn way_us(&mut self) -> u64 {
        let (from, to) = self.scene.way_us;
        self.random.random_range(from..=to)
    }

    fn is_lost(&mut self) -> bool {
        self.scene.lost > 0 && self.random.random_range(0..200) < self.scene.lost
    }

    fn is_away(&self, node: usize, now_us: u64) -> bool {
        self.scene.away.is_some_and(|away| away.is_for(node, now_us / 1_000))
    }

    fn ask(&mut self, node: usize, now_us: u64, asks: Vec<Ask>) {
        for ask in asks {
            let until_us = now_us + ANSWER_WAIT.as_micros() as u64;
            let way_us = self.way_us();
            if self.is_away(node, now_us) {
                self.post(node, now_us + way_us, Message::Failure(ask));
            } else if self.is_lost() {
                self.post(node, until_us, Message::Failure(ask));
            } else {
                self.post(node, now_us + way_us, Message::Question(ask, until_us));
            }
        }
    }

    fn lease(&mut self, ask: Ask, now_ms: u64) -> Lease {
        let mut window = Window::at(self.window.take(), CACHE_EPOCH_MS + now_ms);
        let lease = window.grant(ask.wish, CACHE_EPOCH_MS + now_ms);
        let start_ms = window.start_ms + BEFORE_MS - CACHE_EPOCH_MS;
        if self.starts.last() != Some(&start_ms) {
            self.starts.push(start_ms);
        }
        self.window = Some(window);
        lease
    }

    fn deliver(&mut self, now_us: u64) {
        while let Some(first) = self.messages.first_entry()
            && first.key().0 <= now_us
        {
            let (node, message) = first.remove();
            let now_ms = now_us / 1_000;
            match message {
                Message::Question(ask, until_us) => {
                    let lease = self.lease(ask, now_ms);
                    let answer_us = now_us + self.way_us();
                    if self.is_lost() || answer_us > until_us {
                        self.post(node, until_us, Message::Failure(ask));
                    } else {
                        self.post(node, answer_us, Message::Answer(ask, lease));
                    }
                }
                Message::Answer(ask, lease) => {
                    let (mut asks, here) = (Vec::new(), &mut self.nodes[node]);
                    here.absence.answered();
                    here.book.answered(&here.keys, &ask, lease, here.clock_ms + now_ms, &mut asks);
                    self.ask(node, now_us, asks);
                }
                Message::Failure(ask) => {
                    let here = &mut self.nodes[node];
                    here.book.failed(&here.keys, &ask, here.clock_ms + now_ms);
                    if here.absence.failed(here.clock_ms + now_ms) {
                        here.book.clear();
                        here.keys.set_sharing(Sharing::Part(self.scene.offered.len() as u32), here.clock_ms + now_ms);
                        here.probe_us = now_us + self.random.random_range(0..PROBE.as_micros() as u64);
                    }
                }
            }
        }
    }

    fn look(&mut self, node: usize, now_us: u64) {
        let is_there = !self.is_away(node, now_us);
        let here = &mut self.nodes[node];
        if here.keys.sharing() == Sharing::Part(1) {
            // They do not notice each other at the same time.
            if now_us / 1_000 >= self.scene.alone_ms + 40 * node as u64 {
                here.keys.set_sharing(Sharing::Granted, here.clock_ms + now_us / 1_000);
            }
            return;
        }
        if here.absence.is_away() {
            if now_us >= here.probe_us {
                here.probe_us = now_us + PROBE.as_micros() as u64;
                if is_there {
                    here.absence.back();
                    here.keys.set_sharing(Sharing::Granted, here.clock_ms + now_us / 1_000);
                }
            }
            return;
        }
        if now_us < here.look_us {
            return;
        }
        // Two milliseconds, twice what is wished for, and sometimes more: a machine that is busy.
        let late_us = if self.random.random_range(0..50) == 0 { self.random.random_range(0..5_000) } else { 0 };
        here.look_us = now_us + 2_000 + late_us;
        let mut asks = Vec::new();
        here.book.look(&here.keys, here.clock_ms + now_us / 1_000, &mut asks);
        self.ask(node, now_us, asks);
    }

    fn serve(&mut self, node: usize, now_us: u64) {
        let here = &mut self.nodes[node];
        let due = self.scene.arrival.due(node, here.offered, now_us);
        let now_ms = here.clock_ms + now_us / 1_000;
        let mut admitted_in = Vec::new();
        while here.arrived < due {
            here.arrived += 1;
            let shard = self.random.random_range(0..here.shards.len());
            let (gate, memo) = &mut here.shards[shard];
            let admitted = gate.admit(memo, Moment { mono_ns: now_ms * 1_000_000, wall_ms: 0 }).refused.is_none();
            let second = &mut self.outcome.seconds[(now_us / 1_000_000) as usize];
            second.0 += 1;
            second.1 += u64::from(admitted);
            if admitted {
                let state = here.keys.second(KEY).expect("the key").state(now_ms);
                admitted_in.push(state.start_ms + BEFORE_MS - here.clock_ms);
            }
        }
        for start_ms in admitted_in {
            let window = self.window_of(start_ms);
            *self.outcome.windows.entry(window).or_default() += 1;
        }
    }

    /// The cache's window that one of a node's belongs to. What nobody has asked the cache about yet follows the last one.
    fn window_of(&self, start_ms: u64) -> u64 {
        let last = self.starts.last().copied().unwrap_or(0);
        let after = last + (start_ms.saturating_sub(last) + 500) / 1_000 * 1_000;
        let known = self.starts.iter().rev().take(3).copied();
        known.chain([after]).min_by_key(|start| start.abs_diff(start_ms)).unwrap_or(after)
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

/// As [`check`], where the cache is away for a while: until all nodes know that it is back they may admit a part each.
#[track_caller]
fn check_away(scene: Scene) {
    let what = format!("{scene:?}");
    let away = scene.away.expect("a cache that is away");
    let (limit, advances, nodes) = (u64::from(scene.limit), advances(&scene), scene.offered.len() as u64);
    let part = (limit / nodes).max(1);
    let cut = away.nodes as u64;
    let outcome = World::new(scene).run();
    let (from, until) = (away.from_ms + BEFORE_MS, away.until_ms + BEFORE_MS);
    for (start, admitted) in &outcome.windows {
        let is_return = (until..until + 1_500).contains(&(start + 1_000));
        let is_split = cut < nodes && *start + 1_000 > from && *start < until + 500;
        let more = if is_return || is_split { cut * part } else { 0 };
        assert!(*admitted <= limit + advances + more, "{what}: window at {start}: {:?}", outcome.windows);
    }
    // Whole seconds in which each has its part, and those after the return.
    let seconds = outcome.seconds.iter().enumerate().map(|(at, admitted)| (at as u64 * 1_000, *admitted));
    for (at_ms, (arrived, admitted)) in seconds {
        let is_known = at_ms >= away.from_ms + 2_000 && at_ms + 1_000 <= away.until_ms;
        if is_known || at_ms >= away.until_ms + 3_000 {
            // A second of this clock is none of the windows'.
            assert!(admitted * 100 >= limit.min(arrived) * 90, "{what}: second at {at_ms}: {:?}", outcome.seconds);
        }
    }
}

/// Shares of three nodes, of 12.
const SHARES: [[u64; 3]; 4] = [[4, 4, 4], [8, 3, 1], [12, 0, 0], [6, 6, 0]];

fn scenes(limit: u32, seconds: u64) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for (load, seed) in [(6_u64, 1_u64), (12, 2), (18, 3), (36, 4)] {
        for (at, shares) in (0_u64..).zip(SHARES) {
            // Large loads take long to play: of them, those that tell most.
            if limit > 10_000 && (load != 18 || at == 3) {
                continue;
            }
            // Each load and each share meets either way to the cache and either number of shards.
            let way_us = if (seed + at) % 2 == 0 { (100, 400) } else { (150, 10_000) };
            let shards = if (seed + at) / 2 % 2 == 0 { 8 } else { 1 };
            let offered = shares.map(|share| u64::from(limit) * load * share / 144).to_vec();
            scenes.push(Scene { limit, shards, offered, way_us, seconds, seed, ..Scene::default() });
        }
    }
    scenes
}

#[test]
fn small_limits_hold_over_nodes() {
    scenes(3, 5).into_iter().for_each(check);
}

#[test]
fn middling_limits_hold_over_nodes() {
    scenes(1_000, 3).into_iter().for_each(check);
}

#[test]
fn large_limits_hold_over_nodes() {
    scenes(100_000, 2).into_iter().for_each(check);
}

#[test]
fn bursts_and_a_cache_that_forgets_admit_no_more() {
    for limit in [3, 1_000, 20_000] {
        for (seed, offered) in [(1, [2, 2, 2]), (2, [5, 1, 0]), (3, [1, 0, 0])] {
            let offered = offered.map(|load| u64::from(limit) * load / 2).to_vec();
            let (way_us, seconds) = ((100, 10_000), if limit > 1_000 { 2 } else { 6 });
            let arrival = Arrival::Bursts;
            let scene = Scene { limit, offered, arrival, way_us, seconds, seed, ..Scene::default() };
            check(scene.clone());
            let flushed = World::new(Scene { flush_at_ms: Some(1_437), ..scene.clone() }).run();
            let admitted: u64 = flushed.seconds.iter().map(|(_, admitted)| admitted).sum();
            let most = u64::from(limit) * (seconds + 2) + 3 * advances(&scene);
            assert!(admitted <= most, "{scene:?}: {admitted}, at most {most}: {:?}", flushed.seconds);
        }
    }
}

#[test]
fn a_limit_of_one_holds_over_nodes() {
    for (seed, load) in [(1, 1), (2, 2), (3, 7)] {
        check(Scene { limit: 1, offered: vec![load; 3], seconds: 5, seed, ..Scene::default() });
    }
}

#[test]
fn lost_and_late_answers_admit_no_more() {
    for limit in [3, 1_000] {
        for (seed, lost, way_us) in [(1, 10, (100, 400)), (2, 50, (100, 400)), (3, 0, (20_000, 150_000))] {
            let offered = vec![u64::from(limit), u64::from(limit) / 2, u64::from(limit) / 2];
            let scene = Scene { limit, offered, lost, way_us, seed, ..Scene::default() };
            let outcome = World::new(scene.clone()).run();
            let most = u64::from(limit) + advances(&scene);
            assert!(outcome.windows.values().all(|admitted| *admitted <= most), "{scene:?}: {:?}", outcome.windows);
            assert!(outcome.windows.values().sum::<u64>() > 0, "{scene:?}: nothing was admitted");
        }
    }
}

#[test]
fn a_cache_that_goes_and_comes_back_admits_no_more_until_nodes_differ_about_it() {
    for limit in [3, 1_000] {
        for (seed, nodes) in [(1, 3), (2, 3), (3, 1), (4, 2)] {
            let offered = vec![u64::from(limit) / 2 + 1; 3];
            let away = Some(Away { from_ms: 1_300 + 170 * seed, until_ms: 4_500 + 170 * seed, nodes });
            check_away(Scene { limit, shards: 2, offered, away, seconds: 9, seed, ..Scene::default() });
        }
    }
}
