//! What a node writes for the others on a real server, when it says that it cannot, and what it looks up unasked.

use super::flush::writes;
use super::*;
use crate::cache::in_process::InProcessCache;
use crate::cache::names::CacheKey;
use crate::cache::{self, CacheTimeouts, Write};
use crate::keys::Secret;
use crate::lookup::entry::PriceEntry;
use crate::lookup::{Outcome, Warmed};
use crate::params::check::{Base, Rows, check};
use async_trait::async_trait;
use bytemuck::Zeroable;
use harness::proxy::{Fault, Proxy};
use harness::redis::Redis;
use rtrb::Producer;
use shared::asset::Symbol;
use shared::key::KeyId;
use shared::quote::Currency;
use shared::tick::{Source, TICK_STALE, Tick, Tier};
use shared::venue::{Venue, VenueSet};
use std::sync::Mutex;

const FRESH_MS: u64 = 9_000;

fn symbol(text: &str) -> Symbol {
    Symbol::new(text.as_bytes()).expect("a good symbol")
}

fn directory(names: &[(&str, bool, &[Venue])]) -> Arc<AssetDirectory> {
    let mut directory = AssetDirectory::new();
    for (name, prewarmed, venues) in names {
        let venues = venues.iter().copied().fold(VenueSet::EMPTY, VenueSet::with);
        directory.add(symbol(name), *prewarmed, venues).expect("room");
    }
    Arc::new(directory)
}

/// A tick of the asset with this number that arrived `age_ms` ago.
fn tick(asset: u16, now: Moment, age_ms: u64) -> Tick {
    Tick {
        mantissa: 12_345,
        exponent: -2,
        sequence: u64::from(asset) + 1,
        asset,
        currency: Currency::Usd as u8,
        source: Source::Ws(Venue::Okx).number(),
        venues: VenueSet::EMPTY.with(Venue::Okx).bits(),
        tier: Tier::Local as u8,
        received_time_ms: now.wall_ms.saturating_sub(age_ms),
        received_mono_ns: now.mono_ns.saturating_sub(age_ms * 1_000_000),
        ..Tick::zeroed()
    }
}

#[test]
fn a_price_is_told_with_what_is_known_of_its_freshness_and_no_more() {
    let now = Moment { mono_ns: 1_000_000_000_000, wall_ms: 1_793_500_000_000 };
    let assets = directory(&[("AAA", true, &[])]);
    // Another asset's, which is in no directory: it shows that the feeds are alive, or that they are not.
    let newest = |age_ms: u64| Tick { published_mono_ns: now.mono_ns - age_ms * 1_000_000, ..tick(9, now, age_ms) };
    let told = |what: &str, tick: Tick, (newest_ms, has_run): (u64, bool), proven_age_ms: Option<u64>| {
        let written = writes(&[tick, newest(newest_ms)], &assets, "n1", now, FRESH_MS, has_run);
        let proven = written.first().map(|write| {
            let Write::PutLatest { key, value, .. } = write else { panic!("{what}: {write:?}") };
            assert_eq!(key.name(), "price:AAA");
            let entry = PriceEntry::read(value, &symbol("AAA"), false, now.wall_ms).expect("a good entry");
            assert_eq!((entry.node.as_str(), entry.received_time_ms), ("n1", tick.received_time_ms));
            now.wall_ms - entry.proven_time_ms
        });
        assert_eq!(proven, proven_age_ms, "{what}");
    };
    let check = |what: &str, tick: Tick, proven_age_ms| told(what, tick, (100, true), proven_age_ms);
    check("just come", tick(0, now, 10), Some(10));
    check("young, whatever its feed does", tick(0, now, FRESH_MS / 2), Some(FRESH_MS / 2));
    check("with less than half of its time left", tick(0, now, FRESH_MS / 2 + 1), None);
    check("old, but the feed shard may not have looked yet", tick(0, now, FRESH_MS + 1_000), None);
    check("quiet for an hour on a live feed", tick(0, now, 3_600_000), Some(0));
    let quiet = tick(0, now, 3_600_000);
    told("quiet, and nothing else has come for seconds", quiet, (2_001, true), None);
    told("quiet, and the process was held up", quiet, (100, false), None);
    told("just come, and the process was held up", tick(0, now, 10), (100, false), Some(10));
    check("stale", Tick { flags: TICK_STALE, ..tick(0, now, 10) }, None);
    check("over REST", Tick { tier: Tier::Rest as u8, ..tick(0, now, 10) }, None);
    let remote = Tick { tier: Tier::Valkey as u8, source: Source::Valkey.number(), ..tick(0, now, 10) };
    check("another node's", remote, None);
    check("of an asset that nobody knows", tick(7, now, 10), None);
}

#[test]
fn a_process_that_was_held_up_knows_it() {
    let check = |after_ms: u64, expected: bool| {
        let now = Moment { mono_ns: (1_000_000 + after_ms) * 1_000_000, wall_ms: 1_793_500_000_000 };
        assert_eq!(has_run(1_000_000_000_000, now), expected, "{after_ms}");
    };
    check(1_600, true);
    check(2_100, true);
    check(2_101, false);
    check(12_000, false);
}

/// A node's board and what it is told.
struct Node {
    ticks: Producer<Tick>,
    prices: Arc<PriceBoard>,
    assets: watch::Sender<Arc<AssetDirectory>>,
    parameters: watch::Sender<Arc<Parameters>>,
    cluster: watch::Sender<ClusterView>,
}

fn parameters(rows: &[(&str, &str)]) -> Arc<Parameters> {
    let parameters = rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let rows = Rows { parameters, ..Rows::default() };
    Arc::new(check(&rows, &Base::default()).expect("good").parameters)
}

impl Node {
    fn new(assets: Arc<AssetDirectory>) -> Self {
        let (ticks, consumer) = rtrb::RingBuffer::new(4_096);
        let view = ClusterView { nodes: vec!["n1".to_owned()], connected: true };
        Self {
            ticks,
            prices: Arc::new(PriceBoard::new(Some(consumer))),
            assets: watch::Sender::new(assets),
            parameters: watch::Sender::new(parameters(&[])),
            cluster: watch::Sender::new(view),
        }
    }

    fn has(&mut self, tick: Tick) {
        self.ticks.push(tick).expect("room");
    }

    fn flush(&self, cache: Arc<dyn Cache>) -> Flush {
        let (assets, parameters) = (self.assets.subscribe(), self.parameters.subscribe());
        Flush::new("n1".to_owned(), cache, Arc::clone(&self.prices), assets, parameters)
    }

    fn setup(&self, cache: Arc<dyn Cache>, lookups: Arc<dyn Lookups>) -> WarmSetup {
        WarmSetup {
            node: "n1".to_owned(),
            cache,
            cluster: self.cluster.subscribe(),
            prices: Arc::clone(&self.prices),
            assets: self.assets.subscribe(),
            parameters: self.parameters.subscribe(),
            lookups,
        }
    }
}

fn open(url: &str) -> Arc<dyn Cache> {
    cache::open(Some(&Secret::new(url.to_owned())), CacheTimeouts::default()).expect("a good address")
}

async fn until(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + harness::PATIENCE;
    while !probe().await {
        assert!(Instant::now() < deadline, "waited for: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn more_prices_than_one_call_takes_are_all_written_and_live_for_a_minute() {
    let redis = Redis::start();
    let names: Vec<String> = (0..1_500).map(|number| format!("A{number}")).collect();
    let assets: Vec<(&str, bool, &[Venue])> = names.iter().map(|name| (name.as_str(), true, &[][..])).collect();
    let mut node = Node::new(directory(&assets));
    let cache = open(&redis.url());
    until("the cache", async || cache.ping().await.is_ok()).await;
    for asset in 0..1_500 {
        node.has(tick(asset, clock::now(), 0));
    }
    let flush = node.flush(Arc::clone(&cache));
    flush.round(true).await;
    let counters = flush.counters();
    assert_eq!((counters.rounds, counters.failures, counters.prices), (1, 0, 1_500));
    assert!(counters.last_ms >= clock::now().wall_ms - 60_000);
    assert_eq!(redis.ask(&["DBSIZE"]), "1500");
    let key = CacheKey::parse("price:A1499").expect("a name");
    let (value, left_ms) = cache.get(&key).await.expect("an answer").expect("a price");
    assert!((1..=60_000).contains(&left_ms.expect("it ends")));
    let entry = PriceEntry::read(&value, &symbol("A1499"), false, clock::now().wall_ms).expect("a good entry");
    assert!(entry.is_fresh(clock::now().wall_ms, 60_000));
}

#[tokio::test]
async fn what_another_node_has_proven_later_is_not_replaced() {
    let redis = Redis::start();
    let cache = open(&redis.url());
    until("the cache", async || cache.ping().await.is_ok()).await;
    let mut node =
        Node::new(directory(&[("AAA", true, &[]), ("BBB", true, &[]), ("CCC", true, &[]), ("DDD", true, &[])]));
    let now = clock::now();
    let proven_by_others = |asset: u16, name: &str, age_ms: i64| {
        let entry = PriceEntry::of(symbol(name), &tick(asset, now, 4_000), now.wall_ms, "n2").expect("an entry");
        let proven_time_ms = now.wall_ms.checked_add_signed(-age_ms).expect("a time");
        PriceEntry { proven_time_ms, ..entry }.value()
    };
    // Two seconds later than what this node has; earlier; and at a time that cannot be.
    for (asset, name, age_ms) in [(0, "AAA", -1_000), (1, "BBB", 2_000), (2, "CCC", -3_600_000)] {
        node.has(tick(asset, now, 1_000));
        let key = CacheKey::parse(&format!("price:{name}")).expect("a name");
        cache.put(&key, &proven_by_others(asset, name, age_ms)).await.expect("written");
    }
    node.has(tick(3, now, 1_000));
    assert_eq!(redis.ask(&["HSET", "price:DDD", "proven_time_ms", "9"]), "1");
    let flush = node.flush(Arc::clone(&cache));
    flush.round(true).await;
    assert_eq!((flush.counters().rounds, flush.counters().failures), (1, 0));
    let of = |name: &str| {
        let text = redis.ask(&["GET", &format!("price:{name}")]);
        ["n1", "n2"].into_iter().find(|node| text.contains(&format!("\"{node}\""))).map(str::to_owned)
    };
    assert_eq!(["AAA", "BBB", "CCC", "DDD"].map(of), ["n2", "n1", "n1", "n1"].map(|node| Some(node.to_owned())));
    let left_ms: u64 = redis.ask(&["PTTL", "price:BBB"]).parse().expect("a number");
    assert!((1..=60_000).contains(&left_ms), "{left_ms}");
}

#[tokio::test]
async fn a_cache_that_is_away_is_told_once_and_gets_everything_when_it_is_back() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    let mut node = Node::new(directory(&[("AAA", true, &[]), ("BBB", true, &[])]));
    node.has(tick(0, clock::now(), 0));
    let cache = open(&redis.url_at(proxy.address()));
    until("the cache", async || cache.ping().await.is_ok()).await;
    let flush = node.flush(cache);
    flush.round(true).await;
    proxy.set(Fault::Refuse);
    flush.round(true).await;
    assert!(flush.is_failing());
    flush.round(true).await;
    let counters = flush.counters();
    assert_eq!((counters.rounds, counters.failures, counters.prices), (1, 2, 1));
    node.has(tick(1, clock::now(), 0));
    proxy.set(Fault::None);
    until("the cache to be back", async || {
        flush.round(true).await;
        !flush.is_failing()
    })
    .await;
    assert_eq!(redis.ask(&["EXISTS", "price:AAA", "price:BBB"]), "2");
    redis.flush_all();
    flush.round(true).await;
    assert_eq!(redis.ask(&["EXISTS", "price:AAA", "price:BBB"]), "2", "what was flushed away is written anew");
}

/// What was asked for, with how many venues.
#[derive(Default)]
struct Asked(Mutex<Vec<(String, VenueSet, Instant)>>);

#[async_trait]
impl Lookups for Asked {
    async fn look_up(&self, _: Symbol, _: KeyId) -> Outcome {
        unreachable!("nobody waits")
    }

    async fn warm(&self, assets: &[Symbol], venues: VenueSet, _: Instant) -> Warmed {
        let names: Vec<&str> = assets.iter().map(Symbol::as_str).collect();
        self.0.lock().expect("whole").push((names.join(" "), venues, Instant::now()));
        Warmed { from_cache: 1, missing: assets.len() - 1, ..Warmed::default() }
    }
}

impl Asked {
    /// What, whether of Kraken alone, and how many seconds after `began`.
    fn since(&self, began: Instant) -> Vec<(String, usize, u64)> {
        let asked = self.0.lock().expect("whole");
        let count = |venues: &VenueSet| venues.iter().count();
        asked.iter().map(|(what, venues, when)| (what.clone(), count(venues), (*when - began).as_secs())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_no_fresh_price_is_looked_up_at_start_and_at_intervals() {
    let mut node = Node::new(directory(&[
        ("COLD", true, &[Venue::Okx]),
        ("WARM", true, &[Venue::Kraken]),
        ("STALE", true, &[Venue::Kraken]),
        ("UNASKED", false, &[Venue::Kraken]),
    ]));
    node.parameters.send_replace(parameters(&[("prewarm_interval", "2"), ("kraken_prewarm_offset_seconds", "15")]));
    node.cluster.send_modify(|view| view.nodes = vec!["n0".to_owned(), "n1".to_owned()]);
    let asked = Arc::new(Asked::default());
    node.has(tick(1, clock::now(), 0));
    node.has(Tick { flags: TICK_STALE, ..tick(2, clock::now(), 0) });
    let began = Instant::now();
    let warm = Warm::start(node.setup(Arc::new(InProcessCache::new()), Arc::clone(&asked) as Arc<dyn Lookups>));
    assert_eq!(warm.counters().flush, None, "nobody else reads a cache of this process' own");
    sleep(Duration::from_secs(60)).await;
    let first = [
        // The others' prices at once; then, second of two, five seconds after the first would.
        ("COLD STALE".to_owned(), 0, 0),
        ("COLD STALE".to_owned(), 6, 10),
        ("STALE".to_owned(), 1, 25),
    ];
    assert_eq!(asked.since(began)[..3], first);
    sleep(Duration::from_secs(600)).await;
    let later = asked.since(began);
    let times = |venues: usize| -> Vec<u64> {
        later.iter().skip(1).filter(|(_, count, _)| *count == venues).map(|(_, _, at)| *at).collect()
    };
    // The wall clock stands still while time is paused, so that each turn comes after the same wait.
    let (most, kraken) = (times(6), times(1));
    assert!(most.len() >= 4 && most.windows(2).all(|pair| (60..=180).contains(&(pair[1] - pair[0]))), "{most:?}");
    assert!(kraken.len() >= 3 && kraken.windows(2).all(|pair| (90..=270).contains(&(pair[1] - pair[0]))), "{kraken:?}");
    let counters = warm.counters().prewarm;
    assert_eq!((counters.rounds, counters.from_cache), (later.len() as u64, later.len() as u64));
    // A new parameter is in force at once, not after the wait that the old one had begun.
    node.parameters.send_replace(parameters(&[("prewarm_interval", "1")]));
    let of_most = || asked.since(began).iter().filter(|(_, venues, _)| *venues == 6).count();
    let before = of_most();
    sleep(Duration::from_secs(91)).await;
    assert!(of_most() > before);
}

#[tokio::test(start_paused = true)]
async fn the_others_prices_are_taken_again_when_the_cache_connects_after_the_start() {
    let connects_after = async |after: Duration| {
        let node = Node::new(directory(&[("COLD", true, &[Venue::Okx])]));
        node.cluster.send_modify(|view| view.connected = false);
        let (asked, began) = (Arc::new(Asked::default()), Instant::now());
        let _warm = Warm::start(node.setup(Arc::new(InProcessCache::new()), Arc::clone(&asked) as Arc<dyn Lookups>));
        sleep(after).await;
        node.cluster.send_modify(|view| view.connected = true);
        sleep(FEEDS_SETTLE + UNSEEN_FIRST).await;
        // Those without a venue; and when the first with venues was.
        let (others, venues): (Vec<_>, Vec<_>) =
            asked.since(began).into_iter().partition(|(_, venues, _)| *venues == 0);
        (others.into_iter().map(|(_, _, at)| at).collect::<Vec<_>>(), venues[0].2)
    };
    assert_eq!(connects_after(Duration::from_millis(2_200)).await, (vec![0, 2], 5));
    let (others, first) = connects_after(Duration::from_secs(6)).await;
    assert!(others == [0] && (5..=65).contains(&first), "the first round asks the cache too: {others:?} {first}");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_start_while_the_cache_is_away_do_not_ask_together() {
    let mut firsts = Vec::new();
    for name in ["n1", "n2", "n3", "ip-10-0-1-17", "ip-10-0-1-18", "ip-10-0-1-19"] {
        let node = Node::new(directory(&[("COLD", true, &[Venue::Okx])]));
        node.cluster.send_replace(ClusterView { nodes: vec![name.to_owned()], connected: false });
        let (asked, began) = (Arc::new(Asked::default()), Instant::now());
        let setup = node.setup(Arc::new(InProcessCache::new()), Arc::clone(&asked) as Arc<dyn Lookups>);
        let warm = Warm::start(WarmSetup { node: name.to_owned(), ..setup });
        sleep(FEEDS_SETTLE + UNSEEN_FIRST + Duration::from_secs(1)).await;
        let with_venues = asked.since(began).into_iter().find(|(_, venues, _)| *venues > 0);
        firsts.push(with_venues.expect("it asks within a minute").2);
        drop(warm);
    }
    let (least, most) = (firsts.iter().min().expect("some"), firsts.iter().max().expect("some"));
    assert!(*least >= 5 && *most <= 65, "{firsts:?}");
    let mut differing = firsts.clone();
    differing.sort_unstable();
    differing.dedup();
    assert_eq!(differing.len(), firsts.len(), "{firsts:?}");
}

/// One whose time is always up before all is looked for.
struct Slow;

#[async_trait]
impl Lookups for Slow {
    async fn look_up(&self, _: Symbol, _: KeyId) -> Outcome {
        unreachable!("nobody waits")
    }

    async fn warm(&self, _: &[Symbol], venues: VenueSet, until: Instant) -> Warmed {
        tokio::time::sleep_until(until).await;
        let from_rest = usize::from(!venues.is_empty());
        Warmed { from_rest, missing: 1, unfinished: true, ..Warmed::default() }
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_round_was_out_of_time_counts() {
    let node = Node::new(directory(&[("COLD", true, &[Venue::Kraken]), ("COLDER", true, &[Venue::Kraken])]));
    let warm = Warm::start(node.setup(Arc::new(InProcessCache::new()), Arc::new(Slow)));
    sleep(Duration::from_secs(600)).await;
    let counters = warm.counters().prewarm;
    assert!(counters.unfinished >= 3 && counters.rounds == 0, "{counters:?}");
    assert_eq!(counters.missing, counters.unfinished);
    assert!(counters.from_rest >= 2, "{counters:?}");
}
