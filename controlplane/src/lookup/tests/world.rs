//! Simulated exchanges, feeds on them, a feed shard and a desk; the cache is what a test wants.

use super::super::asks::{Told, answers};
use super::super::desk::{LookupDesk, LookupSetup};
use crate::cache::in_process::InProcessCache;
use crate::cache::valkey::Valkey;
use crate::cache::{Cache, CacheTimeouts};
use crate::feeds::instruments::{self, Sources};
use crate::feeds::outlet::FeedSink;
use crate::feeds::plan::Wanted;
use crate::feeds::simulator::fault::Fault;
use crate::feeds::simulator::{SimulatorSettings, Simulators};
use crate::feeds::timing::Timing;
use crate::feeds::{self, Feeds, FeedsSetup};
use crate::params::check::{Base, Rows, check};
use crate::prices::PriceBoard;
use crossbeam_channel::Receiver;
use dataplane_core::feed::{FeedInput, FeedParameters, FeedSetup, FeedShard};
use dataplane_core::lookup::{Ask, AskKind};
use harness::proxy::Proxy;
use harness::redis::Redis;
use shared::asset::Symbol;
use shared::key::KeyId;
use shared::limits::TICK_RING_CAPACITY;
use shared::tick::{Tick, Tier};
use shared::venue::Venue;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a condition may take to come true: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// A symbol.
pub fn symbol(text: &str) -> Symbol {
    Symbol::new(text.as_bytes()).expect("a good symbol")
}

/// The number of this shard's lookups, for tests in which it has one at a time.
pub const fn number_of(shard: u16) -> u32 {
    u32::MAX - shard as u32
}

/// The feed thread, without a thread.
struct Shard(Mutex<FeedShard>);

impl FeedSink for Shard {
    fn try_send(&self, input: FeedInput) -> Result<(), FeedInput> {
        self.0.lock().expect("no panic").take(tuning::clock::now(), input);
        Ok(())
    }
}

/// What a world is made of.
pub struct Setting {
    /// The venues' REST pace, ms.
    pub gap_ms: u64,
    /// The shortest and the longest wait after failures, ms.
    pub backoff_ms: [u64; 2],
    /// How long a new asset's name has to arrive everywhere, ms.
    pub settle_ms: u64,
    /// `None`: one of its own, in this process.
    pub cache: Option<Arc<dyn Cache>>,
}

impl Default for Setting {
    /// No pace, short waits, and a cache of its own.
    fn default() -> Self {
        Self { gap_ms: 0, backoff_ms: [20, 200], settle_ms: 10, cache: None }
    }
}

impl Setting {
    /// A cache on a real server, behind a proxy. Its time-outs are so long that a lookup sees a slow server, not one that
    /// is given up.
    pub fn with_slow_cache() -> (Self, Redis, Proxy) {
        let server = Redis::start();
        let proxy = Proxy::start(server.address());
        let patient = CacheTimeouts { dial_ms: 300, read_ms: 3_000, write_ms: 3_000 };
        let cache = Valkey::open(&server.url_at(proxy.address()), patient, || Err("no TLS is wanted".to_owned()));
        (Self { cache: Some(Arc::new(cache.expect("a cache"))), ..Self::default() }, server, proxy)
    }
}

/// A running world. All venues are simulated; nothing but BTC and USDT is subscribed at first.
pub struct World {
    /// The desk under test.
    pub desk: Arc<LookupDesk>,
    simulators: Simulators,
    feeds: Arc<Feeds>,
    cache: Arc<dyn Cache>,
    prices: Arc<PriceBoard>,
    answers: Receiver<Told>,
    heard: Mutex<Vec<Told>>,
    tasks: JoinSet<()>,
}

impl World {
    /// A world in which both are priced.
    pub async fn start(setting: Setting) -> Self {
        let settings = SimulatorSettings { major_every_ms: 100, other_every_ms: 100, ..SimulatorSettings::default() };
        let simulators = Simulators::start(&settings).await.expect("free ports");
        let wanted = |name| Wanted { symbol: symbol(name), prewarmed: true };
        let timing = Timing {
            tick_ms: 20,
            connect_gap_ms: 50,
            backoff_min_ms: setting.backoff_ms[0],
            backoff_max_ms: setting.backoff_ms[1],
            directory_settle_ms: setting.settle_ms,
            lists_ms: 20_000,
            ..Timing::default()
        };
        let sources = Sources {
            wanted: ["BTC", "USDT"].map(wanted).to_vec(),
            overrides: simulators.overrides(),
            rest_gap_ms: Some(setting.gap_ms),
            timing,
            ..Sources::new()
        };
        let catalogue = instruments::load(&sources).await.expect("good settings");
        let (producer, consumer) = rtrb::RingBuffer::new(TICK_RING_CAPACITY);
        let shard = Arc::new(Shard(Mutex::new(FeedShard::new(FeedSetup {
            assets: catalogue.directory(),
            parameters: FeedParameters::default(),
            first_sequence: 1,
            rings: vec![producer],
            simulated: false,
        }))));
        let sink = Arc::clone(&shard) as Arc<dyn FeedSink>;
        let feeds = Arc::new(feeds::start(FeedsSetup { sources, catalogue, sink: Arc::clone(&sink) }));
        let cache = setting.cache.unwrap_or_else(|| Arc::new(InProcessCache::new()));
        let prices = Arc::new(PriceBoard::new(Some(consumer)));
        let (sender, answers) = answers();
        let parameters = check(&Rows::default(), &Base::default()).expect("the defaults are valid").parameters;
        let desk = LookupDesk::new(LookupSetup {
            node: "n1".to_owned(),
            simulated: false,
            cache: Arc::clone(&cache),
            feeds: Arc::clone(&feeds),
            sink,
            prices: Arc::clone(&prices),
            parameters: watch::channel(Arc::new(parameters)).1,
            answers: sender,
        });
        let mut tasks = desk.run();
        tasks.spawn(turn(shard, Arc::clone(&feeds)));
        let heard = Mutex::default();
        let world = Self { desk, simulators, feeds, cache, prices, answers, heard, tasks };
        world.until("the first prices", || world.tier("BTC").is_some() && world.tier("USDT").is_some()).await;
        world
    }

    /// The cache, for another world.
    pub fn cache(&self) -> Arc<dyn Cache> {
        Arc::clone(&self.cache)
    }

    /// A shard's question, for a key of its own; the lookup's number is of the shard too.
    pub fn ask(&self, name: &str, shard: u16) {
        let kind = AskKind::Find { key: KeyId(u32::from(shard)), number: number_of(shard), sequence: 0 };
        self.desk.take(Ask { symbol: symbol(name), shard, kind });
    }

    /// What shards were told so far.
    pub fn told(&self) -> Vec<Told> {
        let mut heard = self.heard.lock().expect("no panic");
        heard.extend(self.answers.try_iter());
        heard.clone()
    }

    /// The newest tick of an asset.
    pub fn tick(&self, name: &str) -> Option<Tick> {
        let asset = self.feeds.directory().borrow().find(&symbol(name))?;
        self.prices.price(asset)
    }

    /// Whether an asset has got a name, and whether that has had the time to arrive everywhere.
    pub fn is_named(&self, name: &str) -> (bool, bool) {
        let is_settled = self.feeds.plan().directory.find(&symbol(name)).is_some();
        (self.feeds.directory().borrow().find(&symbol(name)).is_some(), is_settled)
    }

    /// The tier of an asset's price, if it is fresh.
    pub fn tier(&self, name: &str) -> Option<Tier> {
        self.tick(name).filter(|tick| !tick.is_stale()).and_then(|tick| Tier::from_number(tick.tier))
    }

    /// Requests to all venues so far.
    pub fn requests(&self) -> u64 {
        Venue::ALL.into_iter().map(|venue| self.requests_to(venue)).sum()
    }

    /// Requests to one.
    pub fn requests_to(&self, venue: Venue) -> u64 {
        self.simulators.requests(venue).map_or(0, |requests| requests.total)
    }

    /// Makes something go wrong at a venue.
    pub fn fault(&self, venue: Venue, fault: &Fault) {
        self.simulators.fault(venue, fault);
    }

    /// What the desk counted.
    pub fn counters(&self) -> Counted {
        let counters = &self.desk.counters;
        let get = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        Counted {
            written: counters.written.each_ref().map(get),
            cache: counters.cache.each_ref().map(get),
            odd: counters.odd.each_ref().map(get),
        }
    }

    /// Waits until a condition holds.
    ///
    /// # Panics
    /// When it does not within the deadline.
    pub async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            let state = (self.desk.state(), &self.desk.counters);
            assert!(
                began.elapsed() < DEADLINE,
                "not within {DEADLINE:?}: {what}\n{state:#?}\n{:#?}",
                self.feeds.status()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the world.
    pub async fn stop(mut self) {
        self.tasks.abort_all();
        self.feeds.stop().await;
        self.simulators.stop().await;
    }
}

/// What the desk counted, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub written: [u64; 2],
    pub cache: [u64; 4],
    pub odd: [u64; 9],
}

/// The feed thread's housekeeping, and its directory.
async fn turn(shard: Arc<Shard>, feeds: Arc<Feeds>) {
    let mut directories = feeds.directory();
    loop {
        if directories.has_changed().unwrap_or(false) {
            let directory = Arc::clone(&directories.borrow_and_update());
            assert!(shard.try_send(FeedInput::Assets(directory)).is_ok());
        }
        shard.0.lock().expect("no panic").sweep(tuning::clock::now());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
