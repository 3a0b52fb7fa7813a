//! A feed shard, a clock that is turned by hand, and one ring that is read after every step.

use dataplane_core::feed::{Exclusion, FeedInput, FeedParameters, FeedSetup, FeedShard, VenueCounters, VenueDetail};
use rtrb::{Consumer, RingBuffer};
use shared::asset::{AssetDirectory, AssetId, Symbol};
use shared::moment::Moment;
use shared::price::Price;
use shared::quote::{Currency, Field, Quote, Route};
use shared::tick::{Source, Tick};
use shared::venue::{Venue, VenueSet};
use std::sync::Arc;

/// Virtual time at the start: some day, an hour after boot.
pub const START: Moment = Moment { mono_ns: 3_600_000_000_000, wall_ms: 1_793_500_000_000 };
/// Number of the first tick.
pub const FIRST_SEQUENCE: u64 = 1_000;
/// Assets every world has.
pub const ASSETS: [&str; 4] = ["BTC", "ETH", "USDT", "RENDER"];

pub fn directory() -> AssetDirectory {
    let mut directory = AssetDirectory::new();
    for asset in ASSETS {
        directory.add(Symbol::new(asset.as_bytes()).expect("a symbol"), true, VenueSet::EMPTY).expect("room");
    }
    directory
}

pub fn asset(text: &str) -> AssetId {
    directory().find(&Symbol::new(text.as_bytes()).expect("a symbol")).expect("a known asset")
}

pub fn field(text: &str) -> Field {
    match text {
        "" => Field::Unchanged,
        "none" => Field::Empty,
        price => Field::At(Price::parse(price.as_bytes()).expect("a price")),
    }
}

pub struct World {
    pub shard: FeedShard,
    pub now: Moment,
    pub ring: Consumer<Tick>,
    /// Venues that give a sign of life every second.
    pub alive: Vec<Venue>,
    /// Every tick so far.
    pub ticks: Vec<Tick>,
}

impl World {
    pub fn new() -> Self {
        let (producer, ring) = RingBuffer::new(4_096);
        let setup = FeedSetup {
            assets: Arc::new(directory()),
            parameters: FeedParameters::default(),
            first_sequence: FIRST_SEQUENCE,
            rings: vec![producer],
            simulated: false,
        };
        Self { shard: FeedShard::new(setup), now: START, ring, alive: Vec::new(), ticks: Vec::new() }
    }

    /// A quote of BTC in USD by WebSocket, now, without prices: change what matters.
    pub fn quote(&self, venue: Venue) -> Quote {
        Quote {
            venue,
            asset: asset("BTC"),
            currency: Currency::Usd,
            route: Route::Ws,
            snapshot: false,
            last: Field::Unchanged,
            bid: Field::Unchanged,
            ask: Field::Unchanged,
            exchange_time_ms: Some(self.now.wall_ms),
            venue_sequence: None,
            received_time_ms: self.now.wall_ms,
            received_mono_ns: self.now.mono_ns,
        }
    }

    pub fn take(&mut self, input: FeedInput) {
        self.shard.take(self.now, input);
        self.read();
    }

    pub fn say(&mut self, quote: Quote) {
        self.take(FeedInput::Quote(quote));
    }

    /// A last price of BTC in USD.
    pub fn last(&mut self, venue: Venue, price: &str) {
        self.say(Quote { last: field(price), ..self.quote(venue) });
    }

    /// A last price of `of` in USDT.
    pub fn last_usdt(&mut self, venue: Venue, price: &str) {
        self.say(Quote { last: field(price), currency: Currency::Usdt, ..self.quote(venue) });
    }

    /// The price of a tether in USD.
    pub fn tether(&mut self, venue: Venue, price: &str) {
        self.say(Quote { last: field(price), asset: asset("USDT"), ..self.quote(venue) });
    }

    /// A book of BTC in USD.
    pub fn book(&mut self, venue: Venue, bid: &str, ask: &str) {
        self.say(Quote { bid: field(bid), ask: field(ask), ..self.quote(venue) });
    }

    pub fn live(&mut self, venue: Venue, live: bool) {
        self.take(FeedInput::Subscription { venue, asset: asset("BTC"), live });
    }

    /// Lets time pass, with a sweep every 100 ms.
    pub fn wait_ms(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(100);
            left -= step;
            self.now = self.now.plus_ms(step);
            if self.now.mono_ms().is_multiple_of(1_000) {
                for venue in self.alive.clone() {
                    self.take(FeedInput::VenueAlive(venue));
                }
            }
            self.shard.sweep(self.now);
            self.read();
        }
    }

    /// Reads the ring; every tick must be newer than all before it and named after a price that was not made up.
    fn read(&mut self) {
        while let Ok(tick) = self.ring.pop() {
            let before = self.ticks.last().map_or(FIRST_SEQUENCE - 1, |tick| tick.sequence);
            assert!(tick.sequence > before, "sequence went from {before} to {}", tick.sequence);
            assert!(tick.mantissa > 0, "{tick:?}");
            self.ticks.push(tick);
        }
    }

    /// The newest tick of an asset.
    pub fn newest(&self, of: &str) -> Option<Tick> {
        let id = asset(of).number();
        self.ticks.iter().rev().find(|tick| tick.asset == id).copied()
    }

    /// The newest tick of BTC for people: price, currency, source, contributors, and `stale`.
    pub fn btc(&self) -> String {
        self.newest("BTC").map_or_else(|| "nothing".to_owned(), |tick| show(&tick))
    }

    pub fn detail(&self, venue: Venue) -> Option<VenueDetail> {
        self.shard.detail(self.now, asset("BTC")).into_iter().find(|detail| detail.venue == venue)
    }

    pub fn excluded(&self, venue: Venue) -> Option<Exclusion> {
        self.detail(venue).expect("a venue that was heard").excluded
    }

    pub fn counters(&self, venue: Venue) -> VenueCounters {
        self.shard.counters().venues[venue.index()]
    }
}

pub fn show(tick: &Tick) -> String {
    let source = Source::from_number(tick.source).expect("a source").tag();
    let stale = if tick.is_stale() { " stale" } else { "" };
    format!("{} {} {source} {}{stale}", tick.price(), tick.currency().code(), tick.venue_set().len())
}
