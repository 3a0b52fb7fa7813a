//! Prices of what is kept warm, looked up before anybody asks.
//!
//! Exchanges send by themselves what is subscribed, so a round asks for nothing but what has no fresh price all the same:
//! everything when the node has just started, and later what no socket delivers. Kraken's REST interface has its own
//! interval, as in the system being replaced. How a price is looked up is not known here.

use super::turns::Turn;
use crate::lookup::{Lookups, Warmed};
use crate::params::PrewarmTurns;
use crate::prices::PriceBoard;
use shared::asset::{AssetDirectory, AssetEntry, AssetId, Symbol};
use shared::venue::{Venue, VenueSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Longest that one round may take: as long as the shortest interval.
const ROUND_MAX: Duration = Duration::from_secs(60);

/// Whose interval it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Every venue's but Kraken's.
    Most,
    /// Kraken's.
    Kraken,
}

impl Part {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Most, Self::Kraken];

    fn venues(self) -> VenueSet {
        let of = |venue: &Venue| (*venue == Venue::Kraken) == (self == Self::Kraken);
        Venue::ALL.into_iter().filter(of).fold(VenueSet::EMPTY, VenueSet::with)
    }

    fn has(self, asset: &AssetEntry) -> bool {
        self == Self::Most || asset.venues.contains(Venue::Kraken)
    }

    /// When it is.
    pub fn turn(self, turns: &PrewarmTurns) -> Turn {
        match self {
            Self::Most => Turn { every: turns.every, later: Duration::ZERO },
            Self::Kraken => Turn { every: turns.kraken_every, later: turns.kraken_later },
        }
    }
}

/// What was looked up since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrewarmCounters {
    /// Rounds that ended, the one at start included.
    pub rounds: u64,
    /// Prices found with other nodes.
    pub from_cache: u64,
    /// Prices found with venues.
    pub from_rest: u64,
    /// Assets for which nothing was found.
    pub missing: u64,
    /// Rounds that a minute was too short for; what had come by then counts.
    pub unfinished: u64,
}

/// What is kept warm, and how it went.
pub struct Prewarm {
    prices: Arc<PriceBoard>,
    assets: watch::Receiver<Arc<AssetDirectory>>,
    lookups: Arc<dyn Lookups>,
    rounds: AtomicU64,
    from_cache: AtomicU64,
    from_rest: AtomicU64,
    missing: AtomicU64,
    unfinished: AtomicU64,
}

impl Prewarm {
    /// Nothing is warm yet.
    pub fn new(
        prices: Arc<PriceBoard>,
        assets: watch::Receiver<Arc<AssetDirectory>>,
        lookups: Arc<dyn Lookups>,
    ) -> Self {
        let none = AtomicU64::default;
        let (rounds, from_cache, from_rest, missing, unfinished) = (none(), none(), none(), none(), none());
        Self { prices, assets, lookups, rounds, from_cache, from_rest, missing, unfinished }
    }

    /// How it went so far.
    pub fn counters(&self) -> PrewarmCounters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PrewarmCounters {
            rounds: read(&self.rounds),
            from_cache: read(&self.from_cache),
            from_rest: read(&self.from_rest),
            missing: read(&self.missing),
            unfinished: read(&self.unfinished),
        }
    }

    /// Takes what other nodes know of everything that is kept warm, and asks no venue.
    pub async fn take_others(&self) {
        let warmed = self.look_up(|_| true, VenueSet::EMPTY).await;
        tracing::info!(prices = warmed.from_cache, missing = warmed.missing, "took the other nodes' prices");
    }

    /// Looks up what has no fresh price, with this part's venues.
    pub async fn round(&self, part: Part) {
        let Warmed { from_cache, from_rest, missing, unfinished } =
            self.look_up(|asset| part.has(asset), part.venues()).await;
        tracing::debug!(?part, from_cache, from_rest, missing, unfinished, "looked up what had no fresh price");
    }

    /// What became of it.
    async fn look_up(&self, is_wanted: impl Fn(&AssetEntry) -> bool, venues: VenueSet) -> Warmed {
        let cold = self.cold(is_wanted);
        let warmed = match cold.len() {
            0 => Warmed::default(),
            _ => self.lookups.warm(&cold, venues, Instant::now() + ROUND_MAX).await,
        };
        let add = |count: &AtomicU64, more: usize| count.fetch_add(more as u64, Ordering::Relaxed);
        add(&self.from_cache, warmed.from_cache);
        add(&self.from_rest, warmed.from_rest);
        add(&self.missing, warmed.missing);
        add(if warmed.unfinished { &self.unfinished } else { &self.rounds }, 1);
        warmed
    }

    /// What is kept warm and has no fresh price.
    fn cold(&self, is_wanted: impl Fn(&AssetEntry) -> bool) -> Vec<Symbol> {
        let fresh: Vec<AssetId> = {
            let ticks = self.prices.ticks();
            ticks.iter().filter(|tick| !tick.is_stale()).filter_map(|tick| tick.asset_id()).collect()
        };
        let assets = Arc::clone(&self.assets.borrow());
        // Ticks come by their ids.
        let is_cold = |(id, asset): &(AssetId, &AssetEntry)| {
            asset.prewarmed && is_wanted(asset) && fresh.binary_search(id).is_err()
        };
        assets.iter().filter(is_cold).map(|(_, asset)| asset.symbol).collect()
    }
}
