//! The venues, clocks and readers around one feed shard, moved by a seed.

use crate::oracle::Oracle;
use dataplane_core::feed::{FeedInput, FeedParameters, FeedSetup, FeedShard, RemotePrice};
use rtrb::{Consumer, RingBuffer};
use shared::asset::{AssetDirectory, AssetId, Symbol};
use shared::moment::Moment;
use shared::price::Price;
use shared::quote::{Currency, Field, Quote, Route};
use shared::tick::{Tick, Tier};
use shared::venue::{VENUE_COUNT, Venue, VenueSet};
use std::sync::Arc;

pub const ASSETS: usize = 4;
/// The asset that is the tether, by index.
pub const TETHER: usize = 0;
/// What each asset costs before anything happens, in units of 10^-8.
const BASE: [i64; ASSETS] = [100_000_000, 6_712_345_000_000, 441, 12_345_678];

/// Xorshift: a seed gives one world.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// What one seed, or all of them, have brought about.
#[derive(Default)]
pub struct Seen {
    stale_ticks: u64,
    conflated: u64,
    quarantines: u64,
    refused: [u64; 3],
    replays: u64,
    tiers: [u64; 3],
    remote: [u64; 6],
}

impl Seen {
    pub fn add(&mut self, world: &World) {
        let counters = world.shard.counters();
        self.conflated += counters.conflated;
        self.stale_ticks += world.oracle.stale_ticks;
        self.replays += world.seen.replays;
        self.tiers.iter_mut().zip(world.oracle.tiers).for_each(|(sum, count)| *sum += count);
        let remote = &counters.remote;
        let refused = [remote.refused_price, remote.refused_time, remote.refused_stale, remote.refused_older];
        let counts = refused.into_iter().chain([remote.refused_apart, remote.taken]);
        self.remote.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        for venue in &counters.venues {
            self.quarantines += venue.quarantines;
            let refused = [venue.refused_price, venue.refused_order, venue.refused_time];
            self.refused.iter_mut().zip(refused).for_each(|(sum, count)| *sum += count);
        }
    }

    /// A simulation in which something never happens proves nothing about it.
    pub fn check_that_everything_happened(&self) {
        assert!(self.refused.iter().all(|count| *count > 1_000), "{:?}", self.refused);
        let others = [self.stale_ticks, self.conflated, self.quarantines, self.replays];
        assert!(others.iter().all(|count| *count > 1_000), "{others:?}");
        let remote = self.tiers.iter().chain(&self.remote);
        assert!(remote.into_iter().all(|count| *count > 100), "{:?} {:?}", self.tiers, self.remote);
    }
}

pub struct World {
    pub shard: FeedShard,
    pub now: Moment,
    pub oracle: Oracle,
    fast: Consumer<Tick>,
    slow: Consumer<Tick>,
    dice: Dice,
    /// Market price of each asset, 10^-8.
    market: [i64; ASSETS],
    /// What venues add to the true time, which the shard's wall clock may leave.
    true_wall_ms: u64,
    /// Venues that say nothing at all.
    silent: VenueSet,
    sequence: u64,
    /// The last quote of each listing that was taken, has a sequence, and whose connection still stands.
    replayable: [[Option<Quote>; ASSETS]; VENUE_COUNT],
    seen: Seen,
}

pub fn asset(index: usize) -> AssetId {
    AssetId::new(index).expect("an id")
}

fn feed(rings: Vec<rtrb::Producer<Tick>>) -> FeedShard {
    let mut assets = AssetDirectory::new();
    for symbol in ["USDT", "BTC", "PEPE", "DOGE"] {
        assets.add(Symbol::new(symbol.as_bytes()).expect("a symbol"), true, VenueSet::EMPTY).expect("room");
    }
    FeedShard::new(FeedSetup {
        assets: Arc::new(assets),
        parameters: FeedParameters::default(),
        first_sequence: 1,
        rings,
        simulated: true,
    })
}

/// Three venues quote tether, but tether itself is quoted in dollars everywhere.
fn currency(venue: Venue, asset: usize) -> Currency {
    match venue {
        Venue::Gateio | Venue::Bybit | Venue::Okx if asset != TETHER => Currency::Usdt,
        _ => Currency::Usd,
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let (fast_producer, fast) = RingBuffer::new(64);
        let (slow_producer, slow) = RingBuffer::new(2);
        let now = Moment { mono_ns: 50_000_000_000, wall_ms: 1_793_500_000_000 };
        Self {
            shard: feed(vec![fast_producer, slow_producer]),
            now,
            oracle: Oracle::new(),
            fast,
            slow,
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            market: BASE,
            true_wall_ms: now.wall_ms,
            silent: VenueSet::EMPTY,
            sequence: 0,
            replayable: [[None; ASSETS]; VENUE_COUNT],
            seen: Seen::default(),
        }
    }

    /// Something happens.
    pub fn step(&mut self) {
        let venue = Venue::ALL[self.dice.below(VENUE_COUNT as u64) as usize];
        let index = self.dice.below(ASSETS as u64) as usize;
        match self.dice.below(100) {
            0 => self.silent = self.silent.with(venue),
            1..=3 => self.silent = self.silent.without(venue),
            4 => self.lose(venue),
            5..=6 => self.subscription(venue, index, self.dice.0.is_multiple_of(3)),
            7..=12 if !self.silent.contains(venue) => self.alive(venue),
            13..=17 => self.replay(venue, index),
            18 => self.crash(index),
            19 if self.dice.one_in(4) => self.jump_wall(),
            20 if self.dice.one_in(8) => self.suspend(),
            21..=40 => {
                let ms = 1 + self.dice.below(600);
                self.wait_ms(ms);
            }
            41..=42 => {
                let ms = self.dice.below(12_000);
                self.wait_ms(ms);
            }
            43..=48 => self.read_slow(),
            49..=54 => self.remote(index),
            _ if !self.silent.contains(venue) => self.quote(venue, index),
            _ => {}
        }
    }

    fn take(&mut self, input: FeedInput) {
        self.shard.take(self.now, input);
        self.read_fast();
    }

    fn read_fast(&mut self) {
        let ticks: Vec<Tick> = std::iter::from_fn(|| self.fast.pop().ok()).collect();
        self.oracle.check(self.now, &self.shard, &ticks);
    }

    fn read_slow(&mut self) {
        while let Ok(tick) = self.slow.pop() {
            self.oracle.check_slow(&tick);
        }
    }

    fn quote(&mut self, venue: Venue, index: usize) {
        let market = &mut self.market[index];
        // A walk of up to half a percent, and each venue up to a tenth beside it.
        let drift = self.dice.below(11) as i64 - 5;
        *market = (*market + *market * drift / 1_000).clamp(BASE[index] / 50, BASE[index] * 50);
        let mut price = (*market + *market * (self.dice.below(21) as i64 - 10) / 10_000).max(2);
        if currency(venue, index) == Currency::Usdt {
            price = i64::try_from(i128::from(price) * 100_000_000 / i128::from(self.market[TETHER])).expect("fits");
        }
        if self.dice.one_in(40) {
            price = [price / 2, price * 2, price * 30, 1][self.dice.below(4) as usize].max(1);
        }
        let at = |price: i64| Field::At(Price::new(price, -8));
        let half_spread = price / 2_000;
        let (last, bid, ask) = match self.dice.below(5) {
            0 => (at(price), Field::Unchanged, Field::Unchanged),
            1 => (Field::Unchanged, at(price), Field::Unchanged),
            2 => (Field::Unchanged, Field::Unchanged, at(price)),
            _ => (Field::Unchanged, at((price - half_spread).max(1)), at(price + half_spread)),
        };
        let mut quote = self.said(venue, index);
        (quote.last, quote.bid, quote.ask) = (last, bid, ask);
        if self.dice.one_in(15) {
            self.spoil(&mut quote);
        }
        self.say(quote);
    }

    /// A quote without prices, as a venue in good order sends it now.
    fn said(&mut self, venue: Venue, index: usize) -> Quote {
        self.sequence += 1;
        Quote {
            venue,
            asset: asset(index),
            currency: currency(venue, index),
            route: if self.dice.one_in(20) { Route::Rest } else { Route::Ws },
            snapshot: self.dice.one_in(20),
            last: Field::Unchanged,
            bid: Field::Unchanged,
            ask: Field::Unchanged,
            exchange_time_ms: (!self.dice.one_in(4)).then_some(self.true_wall_ms),
            venue_sequence: (venue as u8).is_multiple_of(2).then_some(self.sequence),
            received_time_ms: self.now.wall_ms,
            received_mono_ns: self.now.mono_ns,
        }
    }

    fn spoil(&mut self, quote: &mut Quote) {
        let nonsense = [0, -1, i64::MIN, i64::MAX][self.dice.below(4) as usize];
        match self.dice.below(8) {
            0 => quote.last = Field::At(Price::new(nonsense, 0)),
            1 => quote.bid = Field::At(Price::new(nonsense, 0)),
            2 => quote.ask = Field::At(Price::new(nonsense, 12)),
            3 => quote.exchange_time_ms = Some(self.true_wall_ms - self.dice.below(200_000)),
            4 => quote.exchange_time_ms = Some(self.true_wall_ms + self.dice.below(20_000)),
            5 => quote.exchange_time_ms = Some([0, u64::MAX][self.dice.below(2) as usize]),
            6 => quote.venue_sequence = Some([0, u64::MAX - 1][self.dice.below(2) as usize]),
            _ => (quote.bid, quote.ask) = (Field::Empty, Field::Empty),
        }
    }

    fn say(&mut self, quote: Quote) {
        let (venue, index) = (quote.venue.index(), quote.asset.index());
        let before = self.shard.counters().venues[venue].quotes;
        self.oracle.said(&quote, before);
        self.take(FeedInput::Quote(quote));
        if self.shard.counters().venues[venue].quotes > before {
            let can_be_replayed = quote.venue_sequence.is_some() && quote.route == Route::Ws;
            self.replayable[venue][index] = can_be_replayed.then_some(Quote { snapshot: false, ..quote });
        }
    }

    /// Another node's price comes, by the true time or not far from it.
    fn remote(&mut self, index: usize) {
        let shift = [0, 0, 0, 0, 0, 8, -12, 19, -19, 40][self.dice.below(10) as usize];
        let mut mantissa = self.market[index] + self.market[index] * shift / 100 + self.dice.below(50) as i64;
        if self.dice.one_in(20) {
            mantissa = [0, -1, i64::MIN][self.dice.below(3) as usize];
        }
        let ahead_ms = if self.dice.one_in(20) { self.dice.below(20_000) } else { 0 };
        let received_time_ms = self.true_wall_ms + ahead_ms - self.dice.below(15_000);
        let is_proven = self.dice.one_in(2);
        let proven_time_ms = if is_proven { received_time_ms + self.dice.below(3_000) } else { received_time_ms };
        let remote = RemotePrice {
            asset: asset(index),
            price: Price::new(mantissa, -8),
            currency: if self.dice.one_in(4) { Currency::Usdt } else { Currency::Usd },
            converted: self.dice.one_in(2),
            venues: VenueSet::from_bits(self.dice.below(16) as u16 * 2),
            spread_centibps: 100,
            exchange_time_ms: self.dice.one_in(2).then_some(received_time_ms),
            received_time_ms,
            proven_time_ms,
        };
        let age_ms = self.true_wall_ms.saturating_sub(proven_time_ms);
        self.oracle.offered(&remote, self.now.mono_ns - age_ms * 1_000_000);
        self.take(FeedInput::Remote(remote));
    }

    /// The last message of a listing comes once more.
    fn replay(&mut self, venue: Venue, index: usize) {
        let Some(quote) = self.replayable[venue.index()][index] else {
            return;
        };
        let before = self.shard.counters().venues[venue.index()].quotes;
        self.oracle.said(&Quote { received_mono_ns: 0, ..quote }, before);
        self.take(FeedInput::Quote(Quote { received_mono_ns: self.now.mono_ns, ..quote }));
        self.oracle.heard(venue, self.now.mono_ns);
        assert_eq!(self.shard.counters().venues[venue.index()].quotes, before, "{quote:?} was taken twice");
        self.seen.replays += 1;
    }

    /// The market itself moves by half, for everyone.
    fn crash(&mut self, index: usize) {
        if index != TETHER || self.dice.one_in(4) {
            self.market[index] = (self.market[index] / 2).max(BASE[index] / 50);
        }
    }

    fn lose(&mut self, venue: Venue) {
        self.replayable[venue.index()] = [None; ASSETS];
        self.oracle.lost(venue);
        self.take(FeedInput::VenueLost(venue));
    }

    fn subscription(&mut self, venue: Venue, index: usize, live: bool) {
        if !live {
            self.replayable[venue.index()][index] = None;
        }
        self.oracle.subscription(venue, index, live);
        self.take(FeedInput::Subscription { venue, asset: asset(index), live });
    }

    fn alive(&mut self, venue: Venue) {
        self.oracle.heard(venue, self.now.mono_ns);
        self.take(FeedInput::VenueAlive(venue));
    }

    fn jump_wall(&mut self) {
        let jump_ms = [3_600_000, -3_600_000, 30_000, -8_000, -1][self.dice.below(5) as usize];
        self.now.wall_ms = self.now.wall_ms.saturating_add_signed(jump_ms);
    }

    /// Time passes without anybody here noticing.
    fn suspend(&mut self) {
        self.now = self.now.plus_ms(60_000);
        self.true_wall_ms += 60_000;
        self.sweep();
    }

    fn wait_ms(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(100);
            left -= step;
            self.now = self.now.plus_ms(step);
            self.true_wall_ms += step;
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        self.shard.sweep(self.now);
        self.read_fast();
        self.oracle.check_freshness(self.now);
    }

    /// The wall was half a minute fast from the start and is set right while no venue is heard: other nodes' prices are
    /// believed before long.
    pub fn set_wall_right(&mut self) {
        let index = 1;
        self.true_wall_ms -= 30_000;
        self.now.wall_ms = self.true_wall_ms;
        Venue::ALL.into_iter().for_each(|venue| self.lose(venue));
        self.wait_ms(70_000);
        let price = self.oracle.own[index].map_or(Price::new(BASE[index], -8), |own| own.price());
        let received_time_ms = self.true_wall_ms - 1_000;
        let remote = RemotePrice {
            asset: asset(index),
            price,
            currency: Currency::Usd,
            converted: false,
            venues: VenueSet::EMPTY.with(Venue::Kraken),
            spread_centibps: 100,
            exchange_time_ms: None,
            received_time_ms,
            proven_time_ms: received_time_ms,
        };
        self.oracle.offered(&remote, self.now.mono_ns - 1_000_000_000);
        self.take(FeedInput::Remote(remote));
        let tick = self.oracle.newest[index].expect("a tick");
        assert_eq!((tick.price(), tick.is_stale(), tick.tier), (price, false, Tier::Valkey as u8), "{tick:?}");
    }

    /// Everyone says the same for eight seconds, in order, and readers keep up: everything must be right again.
    pub fn heal(&mut self) {
        self.now.wall_ms = self.true_wall_ms;
        self.market = BASE;
        Venue::ALL.into_iter().for_each(|venue| self.lose(venue));
        for _ in 0..8 {
            for venue in Venue::ALL {
                for (index, base) in BASE.into_iter().enumerate() {
                    let price = Field::At(Price::new(base, -8));
                    let (bid, ask) = (price, price);
                    let quote = Quote { route: Route::Ws, snapshot: false, ..self.said(venue, index) };
                    self.say(Quote { last: price, bid, ask, ..quote });
                }
            }
            self.wait_ms(1_000);
        }
        for _ in 0..ASSETS {
            self.read_slow();
            self.sweep();
        }
        for (index, base) in BASE.into_iter().enumerate() {
            let tick = self.oracle.newest[index].expect("a tick");
            assert_eq!(tick.price().compare_value(Price::new(base, -8)), std::cmp::Ordering::Equal, "{tick:?}");
            let told = (tick.is_stale(), tick.venue_set().len(), tick.tier);
            assert_eq!(told, (false, VENUE_COUNT as u16, Tier::Local as u8), "{tick:?}");
            assert_eq!(self.oracle.newest_slow[index], Some(tick), "the slow reader has what the fast one has");
        }
        assert!(self.shard.counters().venues.iter().all(|venue| venue.quarantined == 0));
    }
}

/// Sends `count` quotes, each with a new price, through four rings that are read all the while: quotes and ticks.
pub fn flood(count: u64) -> (u64, usize) {
    let (producers, mut rings): (Vec<_>, Vec<_>) = (0..4).map(|_| RingBuffer::new(4_096)).unzip();
    let mut shard = feed(producers);
    let mut now = Moment { mono_ns: 50_000_000_000, wall_ms: 1_793_500_000_000 };
    let mut ticks = [0; 4];
    for step in 0..count {
        now.mono_ns += 50_000;
        let price = Field::At(Price::new(6_712_345_000_000 + step as i64 * 1_000_000, -8));
        let venue = Venue::ALL[(step % 7) as usize];
        shard.take(
            now,
            FeedInput::Quote(Quote {
                venue,
                asset: asset(1 + (step / 7 % 3) as usize),
                currency: Currency::Usd,
                route: Route::Ws,
                snapshot: false,
                last: price,
                bid: price,
                ask: price,
                exchange_time_ms: None,
                venue_sequence: Some(step),
                received_time_ms: now.wall_ms,
                received_mono_ns: now.mono_ns,
            }),
        );
        if step % 1_000 == 999 {
            shard.sweep(now);
            for (ring, ticks) in rings.iter_mut().zip(&mut ticks) {
                *ticks += std::iter::from_fn(|| ring.pop().ok()).count();
            }
        }
    }
    assert!(ticks.iter().all(|each| *each == ticks[0]), "{ticks:?}");
    (shard.counters().venues.iter().map(|venue| venue.quotes).sum(), ticks[0])
}
