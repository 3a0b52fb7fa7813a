//! The feed shard: the one writer of ticks. Quotes go in, numbered ticks come out into every shard's ring.
//!
//! The way of a quote: `guard` refuses what cannot be, `listing` merges it with what the venue said before,
//! `quarantine` decides whether the venue is believed, `consolidator` takes the median, and here it is numbered and
//! handed to `fanout`. This file knows when something is published, and nothing about how a price comes about.
//!
//! Bounds: an asset takes 136 bytes here and each venue heard of it a `Listing`; 8,192 assets on seven venues would
//! be 22 MiB, the usual 150 are half a megabyte and 4,000 that nobody asks for another half. `take` looks at one asset;
//! only a lost venue, a venue that comes back and new tunables mark all assets, and the looking itself is done by
//! `sweep`, 1,024 assets a call.

mod amount;
mod consolidator;
mod fanout;
mod guard;
mod history;
mod listing;
mod own;
mod quarantine;
mod remote;

use alloc::sync::Arc;
use alloc::vec::Vec;
use bytemuck::Zeroable;
use consolidator::{AssetState, Consolidator, NEVER, Outcome};
use fanout::Fanout;
use guard::{Refusal, Walls};
use own::Peg;
use remote::{Remotes, Taking};
use rtrb::Producer;
use shared::asset::{AssetDirectory, AssetId, Symbol};
use shared::moment::Moment;
use shared::price::Price;
use shared::quote::{Currency, Quote, Route};
use shared::tick::{TICK_STALE, Tick, Tier};
use shared::venue::{VENUE_COUNT, Venue, VenueSet};

/// Assets that one sweep looks at, at under a microsecond each: less than a millisecond that quotes wait. With all
/// 8,192 due at once it takes eight sweeps, 0.8 s, to get round; those left over come first next time.
const SWEEP_ASSETS_MAX: usize = 1_024;
/// Least time between two ticks of an asset whose price and contributors stay the same: its `age_ms` stays true to
/// this and one sweep, and a busy asset costs four ticks a second for it. Changes are published at once.
const REFRESH_NS: u64 = 250_000_000;
/// The asset whose price in USD converts prices in USDT.
const TETHER: &[u8] = b"USDT";

/// Tunables of the feed shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedParameters {
    /// Age after which a price whose feed is not proven alive is stale, ms (`cache_ttl_seconds`).
    pub fresh_ms: u64,
    /// How long a venue's last sign of life proves its subscriptions alive, ms.
    pub alive_ms: u64,
}

impl Default for FeedParameters {
    /// 9 s, the old system's `cache_ttl_seconds`; 10 s, the bound within which a dead connection must be noticed.
    fn default() -> Self {
        Self { fresh_ms: 9_000, alive_ms: 10_000 }
    }
}

/// What the feed shard is made of.
pub struct FeedSetup {
    /// Every asset.
    pub assets: Arc<AssetDirectory>,
    /// Tunables.
    pub parameters: FeedParameters,
    /// Number of the first tick: see `shared::tick::first_sequence`.
    pub first_sequence: u64,
    /// One ring for each serving shard, and one more for each other reader of ticks.
    pub rings: Vec<Producer<Tick>>,
    /// Whether prices come from simulated exchanges.
    pub simulated: bool,
}

/// What the venue sessions tell the feed shard.
#[derive(Clone, Debug)]
pub enum FeedInput {
    /// A venue said something about an asset.
    Quote(Quote),
    /// A frame of any kind came from the venue's live connection: sessions send this at most once a second.
    VenueAlive(Venue),
    /// The asset's subscription at the venue has delivered on the present connection (`live`), or is refused, ended,
    /// or under suspicion of having gone silent.
    Subscription {
        /// Who.
        venue: Venue,
        /// What.
        asset: AssetId,
        /// Whether deliveries are proven.
        live: bool,
    },
    /// The venue's connection is gone: none of its subscriptions is live.
    VenueLost(Venue),
    /// Another node's price: counts for as long as no venue of ours has a fresh one.
    Remote(RemotePrice),
    /// Use this directory from now on; it holds every old id.
    Assets(Arc<AssetDirectory>),
    /// Use these tunables from now on.
    Parameters(FeedParameters),
}

/// What another node published, as it stands in the cache. Times are that node's wall clock, Unix ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemotePrice {
    /// What it is about.
    pub asset: AssetId,
    /// The price.
    pub price: Price,
    /// What the price is in.
    pub currency: Currency,
    /// Whether a contributor was converted from USDT.
    pub converted: bool,
    /// The venues behind it.
    pub venues: VenueSet,
    /// As in a tick.
    pub spread_centibps: u32,
    /// The newest contributing venue time; `None` where no contributor gives one.
    pub exchange_time_ms: Option<u64>,
    /// When the newest contributing frame arrived there.
    pub received_time_ms: u64,
    /// When that node last knew it to be fresh: not before `received_time_ms`.
    pub proven_time_ms: u64,
}

/// Why a venue does not contribute to an asset's price now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// It never said a usable price.
    NoPrice,
    /// Its last word is too old and its feed not proven alive.
    Stale,
    /// It jumped alone and is not yet believed.
    Quarantined,
    /// It stays far from what at least two other venues agree on.
    Outlier,
    /// Its price is in USDT and there is no live USDT/USD price, while venues that quote USD are there.
    NoConversion,
}

/// What one venue contributes to one asset's price.
#[derive(Clone, Copy, Debug)]
pub struct VenueDetail {
    /// Who.
    pub venue: Venue,
    /// Its present price for the asset, in its own currency (mid of bid and ask, else last).
    pub price: Option<Price>,
    /// What that is in.
    pub currency: Currency,
    /// Price of its last trade.
    pub last: Option<Price>,
    /// Its best bid.
    pub bid: Option<Price>,
    /// Its best ask.
    pub ask: Option<Price>,
    /// Its own time, Unix ms.
    pub exchange_time_ms: Option<u64>,
    /// Our wall clock at its last frame for the asset, Unix ms; 0 if there was none.
    pub received_time_ms: u64,
    /// Our monotonic clock at that frame, ns.
    pub received_mono_ns: u64,
    /// Whether its subscription is proven alive.
    pub live: bool,
    /// Why it does not contribute; `None` when it does.
    pub excluded: Option<Exclusion>,
}

/// Counters of one venue in the feed shard. All only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VenueCounters {
    /// Quotes taken.
    pub quotes: u64,
    /// Refused: zero, negative or absurd price, or bid above ask beyond reason.
    pub refused_price: u64,
    /// Refused: older than what we have, or a sequence seen before.
    pub refused_order: u64,
    /// Refused: time more than 60 s old or 5 s ahead.
    pub refused_time: u64,
    /// Times an asset of the venue went into quarantine.
    pub quarantines: u64,
    /// Assets of the venue in quarantine now (gauge).
    pub quarantined: u64,
}

/// Counters of other nodes' prices. All only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteCounters {
    /// Taken. Whether one is published depends on our own venues.
    pub taken: u64,
    /// Refused: zero, negative or absurd, of USDT in USDT, or with no venue behind it.
    pub refused_price: u64,
    /// Refused: a time more than 5 s ahead of ours.
    pub refused_time: u64,
    /// Refused: not fresh.
    pub refused_stale: u64,
    /// Refused: not newer than what we have.
    pub refused_older: u64,
    /// Refused: more than 20 % (USDT: 10 %) from our own price that was fresh in the last 10 minutes; USDT else
    /// from one dollar.
    pub refused_apart: u64,
}

/// Counters of the feed shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedCounters {
    /// Per venue.
    pub venues: [VenueCounters; VENUE_COUNT],
    /// Other nodes' prices.
    pub remote: RemoteCounters,
    /// Ticks published.
    pub ticks: u64,
    /// Ticks replaced by a newer one of the same asset before a shard took them, over all shards.
    pub conflated: u64,
    /// Prices of USDT that came over REST alone and convert nothing: more than 10 % from our own that was fresh in the last
    /// 10 minutes, else from one dollar.
    pub rates_refused: u64,
}

/// The one writer of ticks.
pub struct FeedShard {
    assets: Arc<AssetDirectory>,
    tether: Option<AssetId>,
    walls: Walls,
    market: Consolidator,
    remotes: Remotes,
    /// By asset index: what was published last; `sequence` 0 where nothing was.
    newest: Vec<Tick>,
    /// By asset index: when to look at it again at the latest, monotonic ns.
    due_mono_ns: Vec<u64>,
    /// Where the next sweep begins.
    sweep_from: usize,
    peg: Peg,
    /// The USDT/USD price has changed since the last sweep.
    rate_changed: bool,
    next_sequence: u64,
    fanout: Fanout,
    counters: FeedCounters,
}

impl FeedShard {
    /// Builds the feed shard.
    ///
    /// # Panics
    /// With more than 64 rings.
    #[must_use]
    pub fn new(setup: FeedSetup) -> Self {
        let mut shard = Self {
            assets: Arc::default(),
            tether: None,
            walls: Walls::default(),
            market: Consolidator::new(setup.parameters, setup.simulated),
            remotes: Remotes::default(),
            newest: Vec::new(),
            due_mono_ns: Vec::new(),
            sweep_from: 0,
            peg: Peg::default(),
            rate_changed: false,
            next_sequence: setup.first_sequence,
            fanout: Fanout::new(setup.rings),
            counters: FeedCounters::default(),
        };
        shard.use_assets(setup.assets);
        shard
    }

    /// Takes one input; publishes what changed.
    pub fn take(&mut self, now: Moment, input: FeedInput) {
        self.fanout.retry(&self.newest);
        match input {
            FeedInput::Quote(quote) => self.take_quote(now, &quote),
            FeedInput::VenueAlive(venue) => self.hear(now.mono_ns, venue, now.mono_ns),
            FeedInput::Subscription { venue, asset, live } => self.take_subscription(now, venue, asset, live),
            FeedInput::VenueLost(venue) => {
                self.market.lose(venue);
                self.look_soon_at(|state| state.listings[venue.index()].is_some());
            }
            FeedInput::Remote(remote) => self.take_remote(now, &remote),
            FeedInput::Assets(assets) => self.use_assets(assets),
            FeedInput::Parameters(parameters) => {
                self.market.parameters = parameters;
                self.look_soon_at(|_| true);
            }
        }
        self.counters.conflated = self.fanout.conflated();
    }

    /// Housekeeping, to be called at least every 100 ms: staleness, quarantines that end, ticks that waited for room.
    pub fn sweep(&mut self, now: Moment) {
        self.walls.watch(now);
        self.fanout.retry(&self.newest);
        if core::mem::take(&mut self.rate_changed) {
            self.look_soon_at(|state| state.follows_usdt);
        }
        let count = self.due_mono_ns.len();
        let mut looked_at = 0;
        for step in 0..count {
            let index = (self.sweep_from + step) % count;
            if self.due_mono_ns[index] > now.mono_ns {
                continue;
            }
            if looked_at == SWEEP_ASSETS_MAX {
                self.sweep_from = index;
                break;
            }
            looked_at += 1;
            self.look_at(now, index, None);
        }
        self.counters.conflated = self.fanout.conflated();
    }

    /// The rings that got ticks since the last call, as bits by index: whom to wake.
    #[must_use]
    pub fn take_touched(&mut self) -> u64 {
        self.fanout.take_touched()
    }

    /// What each venue contributes to `asset` now; only venues that were heard of it or list it.
    #[must_use]
    pub fn detail(&self, now: Moment, asset: AssetId) -> Vec<VenueDetail> {
        let nothing = AssetState::default();
        let state = self.market.states.get(asset.index()).unwrap_or(&nothing);
        let listed = self.assets.entry(asset).map_or(VenueSet::EMPTY, |entry| entry.venues);
        self.market.detail(now.mono_ns, state, listed)
    }

    /// What has been counted.
    #[must_use]
    pub const fn counters(&self) -> &FeedCounters {
        &self.counters
    }

    fn take_quote(&mut self, now: Moment, quote: &Quote) {
        let (venue, index) = (quote.venue, quote.asset.index());
        if quote.route == Route::Ws {
            self.hear(now.mono_ns, venue, quote.received_mono_ns);
        }
        self.make_room(index + 1);
        let counters = &mut self.counters.venues[venue.index()];
        // A price of tether in tether says nothing.
        let is_usable = quote.currency == Currency::Usd || self.tether != Some(quote.asset);
        let order = self.market.order(quote);
        let admitted = if is_usable { guard::admit(now, quote, order, &mut self.walls) } else { Err(Refusal::Price) };
        match admitted {
            Ok(fields) => {
                counters.quotes += 1;
                counters.refused_price += u64::from(fields.incomplete);
                let trade_age_ms = self.walls.trade_age_ms(now, quote);
                self.market.merge(now.mono_ns, quote, &fields, trade_age_ms, counters);
                self.look_at(now, index, Some(quote));
            }
            Err(refusal) => {
                match refusal {
                    Refusal::Price => counters.refused_price += 1,
                    Refusal::Order => counters.refused_order += 1,
                    Refusal::Time => counters.refused_time += 1,
                }
                if self.market.refuse(quote) {
                    self.due_mono_ns[index] = 0;
                }
            }
        }
    }

    fn take_subscription(&mut self, now: Moment, venue: Venue, asset: AssetId, live: bool) {
        self.make_room(asset.index() + 1);
        self.market.subscription(venue, asset.index(), live);
        self.look_at(now, asset.index(), None);
    }

    fn take_remote(&mut self, now: Moment, remote: &RemotePrice) {
        let index = remote.asset.index();
        self.make_room(index + 1);
        let (newest, is_tether) = (&self.newest[index], self.tether == Some(remote.asset));
        let taking = Taking { now, remote, newest, is_tether, market: &self.market };
        if self.remotes.take(&taking, &mut self.walls, &mut self.counters.remote) {
            self.market.states[index].follows_usdt |= remote.currency == Currency::Usdt;
            self.look_at(now, index, None);
        }
    }

    /// A sign of life from a venue. One that had been silent for too long proves its quiet assets again.
    fn hear(&mut self, mono_ns: u64, venue: Venue, heard_mono_ns: u64) {
        if self.market.hear(mono_ns, venue, heard_mono_ns) {
            self.look_soon_at(|state| state.live.contains(venue));
        }
    }

    /// Uses a directory. Ids are dense and lasting, so room for them, and to know the tether, is all that is needed.
    fn use_assets(&mut self, assets: Arc<AssetDirectory>) {
        self.make_room(assets.len());
        self.tether = Symbol::new(TETHER).and_then(|symbol| assets.find(&symbol));
        if let Some(tether) = self.tether {
            self.due_mono_ns[tether.index()] = 0;
        }
        self.assets = assets;
    }

    /// Grows the tables to `count` assets: at most `ASSETS_MAX`, which no `AssetId` reaches.
    fn make_room(&mut self, count: usize) {
        if count > self.newest.len() {
            self.market.states.resize_with(count, AssetState::default);
            self.newest.resize(count, Tick::zeroed());
            self.due_mono_ns.resize(count, NEVER);
        }
    }

    /// Lets the next sweeps look at some assets.
    fn look_soon_at(&mut self, concerned: impl Fn(&AssetState) -> bool) {
        for (state, due_mono_ns) in self.market.states.iter().zip(&mut self.due_mono_ns) {
            if concerned(state) {
                *due_mono_ns = 0;
            }
        }
    }

    /// Weighs one asset and publishes what is new about it: a change at once, the same price at intervals.
    fn look_at(&mut self, now: Moment, index: usize, spoke: Option<&Quote>) {
        let venue = spoke.map(|quote| quote.venue);
        let (outcome, mut due_mono_ns) = self.market.weigh(now.mono_ns, index, venue, &mut self.counters.venues);
        let before = self.newest[index];
        let remote = self.remotes.fresh(now.mono_ns, index, &self.market);
        let outcome = match (outcome, remote) {
            (Outcome::Price(tick), _) => {
                self.remotes.forget(index);
                Outcome::Price(tick)
            }
            (Outcome::Stale, Some((tick, until_mono_ns))) => {
                due_mono_ns = due_mono_ns.min(until_mono_ns.saturating_add(1));
                Outcome::Price(tick)
            }
            (outcome, _) => outcome,
        };
        let stale = Tick { flags: before.flags | TICK_STALE, ..before };
        let can_go_stale = before.sequence != 0 && !before.is_stale();
        match outcome {
            Outcome::Price(tick) if before.sequence == 0 || is_changed(&before, &tick) => {
                self.publish(now, tick, spoke)
            }
            Outcome::Price(tick) if is_refreshed(&before, &tick) => {
                let from_mono_ns = before.published_mono_ns.saturating_add(REFRESH_NS);
                if now.mono_ns >= from_mono_ns {
                    self.publish(now, tick, spoke);
                } else {
                    due_mono_ns = due_mono_ns.min(from_mono_ns);
                }
            }
            Outcome::Hold if can_go_stale => {
                let is_remote = before.tier == Tier::Valkey as u8;
                let remote_until_mono_ns = remote.map_or(0, |(_, until_mono_ns)| until_mono_ns);
                let proven_until_mono_ns =
                    if is_remote { remote_until_mono_ns } else { self.market.proven_until_mono_ns(&before) };
                if now.mono_ns > proven_until_mono_ns {
                    self.publish(now, stale, None);
                } else {
                    due_mono_ns = due_mono_ns.min(proven_until_mono_ns + 1);
                }
            }
            Outcome::Stale if can_go_stale => self.publish(now, stale, None),
            Outcome::Price(_) | Outcome::Hold | Outcome::Stale => {}
        }
        self.due_mono_ns[index] = due_mono_ns;
        if self.tether.is_some_and(|tether| tether.index() == index) {
            self.use_rate(now, index);
        }
    }

    /// Numbers a tick and sends it; `spoke` is what it was made for, if a quote.
    fn publish(&mut self, now: Moment, tick: Tick, spoke: Option<&Quote>) {
        let is_prompt = spoke.is_some_and(|quote| quote.received_mono_ns == tick.received_mono_ns);
        let (sequence, published_mono_ns) = (self.next_sequence, now.mono_ns);
        let tick = Tick { sequence, published_mono_ns, prompt: is_prompt.into(), ..tick };
        self.next_sequence += 1;
        self.newest[usize::from(tick.asset)] = tick;
        self.fanout.publish(&tick);
        self.counters.ticks += 1;
    }

    /// Takes over the USDT/USD price, if it may be a rate; assets that follow it are looked at by the next sweep, or at
    /// their next quote.
    fn use_rate(&mut self, now: Moment, index: usize) {
        let rate = self.peg.rate(now, &self.newest[index], &mut self.counters.rates_refused);
        self.rate_changed |= rate != self.market.rate;
        self.market.rate = rate;
    }
}

/// Whether readers would see another price, from others, or another state of it.
fn is_changed(before: &Tick, tick: &Tick) -> bool {
    let seen =
        |tick: &Tick| (tick.mantissa, tick.exponent, tick.currency, tick.flags, tick.venues, tick.source, tick.tier);
    seen(before) != seen(tick)
}

/// Whether the same price has newer times or another spread.
fn is_refreshed(before: &Tick, tick: &Tick) -> bool {
    let seen = |tick: &Tick| (tick.received_mono_ns, tick.exchange_time_ms, tick.spread_centibps);
    seen(before) != seen(tick)
}
