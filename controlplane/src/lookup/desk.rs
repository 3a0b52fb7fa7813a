//! The desk itself: takes questions, keeps one flight for each asset, and tells whoever waits when it ends.

use super::asks::Told;
use super::counters::{CacheGave, Counters};
use super::entry::{self, PriceEntry};
use super::keeper::{Keeper, Owner};
use super::table::{Asker, Entered, Flight, OfShard, Table};
use super::{Lookups, Outcome, Warmed};
use crate::cache::{Cache, CacheError, Cached, Value, Write};
use crate::feeds::Feeds;
use crate::feeds::outlet::FeedSink;
use crate::params::Parameters;
use crate::prices::PriceBoard;
use async_trait::async_trait;
use crossbeam_channel::Sender;
use dataplane_core::feed::FeedInput;
use dataplane_core::lookup::{Ask, AskKind, NotFound};
use shared::asset::{AssetId, Symbol, resolve_alias};
use shared::code::Code;
use shared::key::KeyId;
use shared::tick::{Tick, Tier};
use shared::venue::VenueSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How often it is looked whether what is searched has got a fresh price. Nobody waits for this: clients are answered by
/// the tick itself.
const LOOK: Duration = Duration::from_millis(5);

/// Least time between two changes of what is kept subscribed.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Tries to give the feed thread something, a millisecond apart: its channel empties in well under that.
const FEED_TRIES: usize = 50;

/// Prices being written to the cache at a time; more are given up. At 1,000 a second and 1 ms each it is one.
const WRITES_MAX: usize = 256;

/// How a server's refusal to read what is of another type begins.
const ANOTHER_TYPE: &str = "WRONGTYPE";

/// What the desk is made of.
pub struct LookupSetup {
    /// This node.
    pub node: String,
    /// Whether its prices come from simulated exchanges.
    pub simulated: bool,
    /// Where nodes leave their prices.
    pub cache: Arc<dyn Cache>,
    /// The venues.
    pub feeds: Arc<Feeds>,
    /// The feed thread.
    pub sink: Arc<dyn FeedSink>,
    /// What the feed thread has published.
    pub prices: Arc<PriceBoard>,
    /// How long prices are fresh.
    pub parameters: watch::Receiver<Arc<Parameters>>,
    /// The way of answers to the shards.
    pub answers: Sender<Told>,
}

/// How the desk does, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupState {
    /// Flights under way.
    pub in_flight: usize,
    /// Assets kept on demand.
    pub kept: usize,
}

/// The desk.
pub struct LookupDesk {
    pub(super) setup: LookupSetup,
    /// What is counted.
    pub counters: Counters,
    table: Mutex<Table>,
    begun: Notify,
    keeper: Mutex<Keeper>,
    writes: Arc<Semaphore>,
}

/// Ends a flight when it is dropped, however its search ended.
struct Landing<'a> {
    desk: &'a Arc<LookupDesk>,
    flight: Arc<Flight>,
    outcome: Outcome,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.desk.land(&self.flight, self.outcome);
    }
}

impl LookupDesk {
    /// An empty desk. Nothing moves before [`LookupDesk::run`].
    #[must_use]
    pub fn new(setup: LookupSetup) -> Arc<Self> {
        Arc::new(Self {
            setup,
            counters: Counters::default(),
            table: Mutex::default(),
            begun: Notify::new(),
            keeper: Mutex::default(),
            writes: Arc::new(Semaphore::new(WRITES_MAX)),
        })
    }

    /// What it does besides answering, until the tasks are aborted. In a runtime.
    #[must_use]
    pub fn run(self: &Arc<Self>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(self).watch_prices());
        tasks.spawn(Arc::clone(self).keep());
        tasks
    }

    /// How it does.
    #[must_use]
    pub fn state(&self) -> LookupState {
        LookupState { in_flight: self.table().count(), kept: self.keeper().count() }
    }

    /// Takes a shard's word. In a runtime; never waits.
    pub fn take(self: &Arc<Self>, ask: Ask) {
        let (key, number, above) = match ask.kind {
            AskKind::InUse => return self.keep_on_demand(resolve_alias(ask.symbol), None),
            AskKind::Find { key, number, sequence } => (key, number, sequence),
        };
        let asset = self.find(&ask.symbol);
        let tick = asset.and_then(|asset| self.setup.prices.price(asset));
        // A fresh price is on its way to the shard already. One that the shard has had is not: it asks because that one is
        // stale, which the board has not heard yet.
        if tick.is_some_and(|tick| !tick.is_stale() && tick.sequence > above) {
            return;
        }
        let shard = OfShard { shard: ask.shard, number };
        if let Err(code) = self.enter(ask.symbol, Asker { key, shard: Some(shard), above }) {
            self.tell(shard, ask.symbol, code);
        }
    }

    /// The flight of an asset, begun if there is none.
    fn enter(self: &Arc<Self>, symbol: Symbol, asker: Asker) -> Result<Arc<Flight>, Code> {
        let entered = self.table().enter(symbol, asker, Instant::now());
        let code = match entered {
            Entered::Begun(flight) => {
                if let Some(asset) = self.find(&symbol) {
                    flight.set_asset(asset);
                }
                tokio::spawn(Arc::clone(self).fly(Arc::clone(&flight)));
                self.begun.notify_one();
                return Ok(flight);
            }
            Entered::Joined(flight) => {
                self.counters.joined();
                return Ok(flight);
            }
            Entered::Known(code) => code,
            Entered::Full => Code::Overloaded,
        };
        self.counters.answered(code);
        Err(code)
    }

    async fn fly(self: Arc<Self>, flight: Arc<Flight>) {
        let mut landing = Landing { desk: &self, flight, outcome: Outcome::Nothing(Code::PriceUnavailable) };
        landing.outcome = self.search(&landing.flight).await;
    }

    fn land(self: &Arc<Self>, flight: &Flight, outcome: Outcome) {
        let took = flight.began.elapsed();
        let tick = flight.asset().and_then(|asset| self.setup.prices.price(asset));
        let shards = self.table().end(flight, outcome, Instant::now());
        match outcome {
            Outcome::Nothing(code) => {
                self.counters.nothing(code, took);
                shards.into_iter().for_each(|shard| self.tell(shard, flight.symbol, code));
            }
            Outcome::Found => {
                // Somebody joined at the last moment who had that very tick.
                if !shards.is_empty() && tick.is_some_and(|tick| !flight.is_news(&tick)) {
                    return self.go_on(flight, shards);
                }
                self.counters.found(tick.map_or(Tier::Local as u8, |tick| tick.tier), took);
                self.keep_on_demand(flight.symbol, Some(flight.key));
                if let Some(tick) = tick.filter(|tick| tick.tier == Tier::Rest as u8) {
                    self.write_through(flight.symbol, &tick);
                }
            }
        }
    }

    /// Looks on for those shards of a flight that has ended to whom what was found is no news.
    fn go_on(self: &Arc<Self>, flight: &Flight, shards: Vec<OfShard>) {
        for shard in shards {
            let asker = Asker { key: flight.key, shard: Some(shard), above: flight.above() };
            if let Err(code) = self.enter(flight.symbol, asker) {
                self.tell(shard, flight.symbol, code);
            }
        }
    }

    /// Keeps an asset that somebody asks for subscribed, unless it always is or no venue lists it.
    fn keep_on_demand(&self, symbol: Symbol, owner: Owner) {
        let directory = Arc::clone(&self.setup.feeds.directory().borrow());
        let entry = directory.find(&symbol).and_then(|asset| directory.entry(asset));
        if entry.is_some_and(|entry| !entry.prewarmed && !entry.venues.is_empty()) {
            self.keeper().touch(symbol, owner, Instant::now());
        }
    }

    /// Tells a shard what came of its lookup.
    fn tell(&self, OfShard { shard, number }: OfShard, symbol: Symbol, code: Code) {
        if self.setup.answers.try_send((shard, NotFound { symbol, number, code })).is_err() {
            self.counters.untold();
        }
    }

    /// Leaves a price for the other nodes, unless too many are being written.
    fn write_through(self: &Arc<Self>, symbol: Symbol, tick: &Tick) {
        let Some(write) = self.told_of(symbol, tick) else { return };
        let Ok(place) = Arc::clone(&self.writes).try_acquire_owned() else { return self.counters.wrote(1, false) };
        let desk = Arc::clone(self);
        tokio::spawn(async move {
            let written = desk.setup.cache.write_all(&[write]).await;
            desk.counters.wrote(1, written.is_ok());
            drop(place);
        });
    }

    /// A price of our own as the others may have it.
    pub(super) fn told_of(&self, symbol: Symbol, tick: &Tick) -> Option<Write> {
        let entry = PriceEntry::of(symbol, tick, tick.received_time_ms, &self.setup.node)?;
        entry.write(tuning::clock::now().wall_ms)
    }

    /// What another node left, if it is a price and fresh. Counted.
    pub(super) fn usable(&self, symbol: &Symbol, got: Cached<Option<(Value, Option<u64>)>>) -> Option<PriceEntry> {
        self.judge(symbol, got).ok()
    }

    /// What another node left, if it is a price and fresh, else what it is. Counted.
    pub(super) fn judge(
        &self,
        symbol: &Symbol,
        got: Cached<Option<(Value, Option<u64>)>>,
    ) -> Result<PriceEntry, CacheGave> {
        let value = match got {
            Ok(Some((value, _))) => value,
            Ok(None) => return self.gave(CacheGave::None),
            Err(CacheError::Refused(why)) if why.contains(ANOTHER_TYPE) => {
                self.counters.odd(symbol, entry::Odd::Type, Instant::now());
                return self.gave(CacheGave::None);
            }
            // Whatever else a server refuses says nothing of what stands there.
            Err(CacheError::Refused(_) | CacheError::Unreachable(_)) => return self.gave(CacheGave::Failed),
        };
        let now_ms = tuning::clock::now().wall_ms;
        match PriceEntry::read(&value, symbol, self.setup.simulated, now_ms) {
            Err(odd) => {
                self.counters.odd(symbol, odd, Instant::now());
                self.gave(CacheGave::None)
            }
            Ok(entry) if !entry.is_fresh(now_ms, self.fresh_ms()) => self.gave(CacheGave::Old),
            Ok(entry) => {
                self.counters.cache_gave(CacheGave::Fresh);
                Ok(entry)
            }
        }
    }

    fn gave(&self, what: CacheGave) -> Result<PriceEntry, CacheGave> {
        self.counters.cache_gave(what);
        Err(what)
    }

    fn fresh_ms(&self) -> u64 {
        u64::from(self.setup.parameters.borrow().cache_ttl_s) * 1_000
    }

    /// Gives the feed thread something, and waits for room if there is none; whether it took it.
    pub(super) async fn feed(&self, mut input: FeedInput) -> bool {
        for _ in 0..FEED_TRIES {
            match self.setup.sink.try_send(input) {
                Ok(()) => return true,
                Err(refused) => input = refused,
            }
            sleep(Duration::from_millis(1)).await;
        }
        false
    }

    /// The asset's number, if it has one that everybody has heard of: a price must never come before its name.
    pub(super) fn find(&self, symbol: &Symbol) -> Option<AssetId> {
        self.setup.feeds.plan().directory.find(symbol)
    }

    fn is_fresh(&self, symbol: &Symbol) -> bool {
        self.find(symbol).is_some_and(|asset| self.setup.prices.is_fresh(asset))
    }

    /// Whether the board has what a flight looks for.
    pub(super) fn has_news(&self, flight: &Flight) -> bool {
        let tick = flight.asset().and_then(|asset| self.setup.prices.price(asset));
        tick.is_some_and(|tick| flight.is_news(&tick))
    }

    /// Tells the flights whose asset has got a fresh price, from wherever.
    async fn watch_prices(self: Arc<Self>) {
        loop {
            let mut flights: Vec<Arc<Flight>> = self.table().flights().map(Arc::clone).collect();
            if flights.is_empty() {
                self.begun.notified().await;
                continue;
            }
            self.setup.prices.retain(&mut flights, |flight| flight.asset(), |flight, tick| flight.is_news(tick));
            flights.drain(..).for_each(|flight| flight.fresh.notify_one());
            sleep(LOOK).await;
        }
    }

    /// Tells the feeds what to keep subscribed.
    async fn keep(self: Arc<Self>) {
        loop {
            sleep(KEEP_EVERY).await;
            let now = Instant::now();
            self.counters.settle(now);
            let kept = self.keeper().take_change(now);
            if let Some(kept) = kept {
                self.setup.feeds.keep(kept);
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Lookups for Arc<LookupDesk> {
    async fn look_up(&self, symbol: Symbol, key: KeyId) -> Outcome {
        let symbol = resolve_alias(symbol);
        if self.is_fresh(&symbol) {
            // No shard tells of this one, and whoever asks so every second wants it kept.
            self.keep_on_demand(symbol, Some(key));
            return Outcome::Found;
        }
        match self.enter(symbol, Asker { key, shard: None, above: 0 }) {
            Ok(flight) => flight.ended().await,
            Err(code) => Outcome::Nothing(code),
        }
    }

    async fn warm(&self, assets: &[Symbol], venues: VenueSet, until: Instant) -> Warmed {
        super::ahead::warm(self, assets, venues, until).await
    }

    fn figures(&self) -> Option<(&Counters, LookupState)> {
        Some((&self.counters, self.state()))
    }
}
