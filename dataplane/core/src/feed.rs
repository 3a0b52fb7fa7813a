//! The feed shard: the one writer of ticks. Quotes go in, numbered ticks come out into every shard's ring.

use alloc::sync::Arc;
use alloc::vec::Vec;
use rtrb::Producer;
use shared::asset::{AssetDirectory, AssetId};
use shared::moment::Moment;
use shared::price::Price;
use shared::quote::{Currency, Quote};
use shared::tick::Tick;
use shared::venue::{VENUE_COUNT, Venue};

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
    /// Use this directory from now on; it holds every old id.
    Assets(Arc<AssetDirectory>),
    /// Use these tunables from now on.
    Parameters(FeedParameters),
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

/// Counters of the feed shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedCounters {
    /// Per venue.
    pub venues: [VenueCounters; VENUE_COUNT],
    /// Ticks published.
    pub ticks: u64,
    /// Ticks replaced by a newer one of the same asset before a shard took them, over all shards.
    pub conflated: u64,
}

/// The one writer of ticks.
pub struct FeedShard {}

impl FeedShard {
    /// Builds the feed shard.
    #[must_use]
    pub fn new(_setup: FeedSetup) -> Self {
        unimplemented!()
    }

    /// Takes one input; publishes what changed.
    pub fn take(&mut self, _now: Moment, _input: FeedInput) {
        unimplemented!()
    }

    /// Housekeeping, to be called at least every 100 ms: staleness, quarantines that end, ticks that waited for room.
    pub fn sweep(&mut self, _now: Moment) {
        unimplemented!()
    }

    /// The rings that got ticks since the last call, as bits by index: whom to wake.
    #[must_use]
    pub fn take_touched(&mut self) -> u64 {
        unimplemented!()
    }

    /// What each venue contributes to `asset` now; only venues that were heard of it or list it.
    #[must_use]
    pub fn detail(&self, _now: Moment, _asset: AssetId) -> Vec<VenueDetail> {
        unimplemented!()
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &FeedCounters {
        unimplemented!()
    }
}
