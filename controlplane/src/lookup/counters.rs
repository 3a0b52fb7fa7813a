//! What the desk counts, for metrics, and when the cache's odd prices are told of.

use super::entry::Odd;
use shared::asset::Symbol;
use shared::code::Code;
use shared::tick::Tier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Upper bounds of the durations counted, ms; one bucket more is for what is longer.
pub const DURATIONS_MS: [u64; 11] = [1, 2, 5, 10, 20, 60, 100, 200, 500, 1_000, 1_500];

/// The codes of lookups that found nothing.
pub const CODES: [Code; 3] = [Code::AssetUnknown, Code::PriceUnavailable, Code::Overloaded];

/// The tiers of those that found something, by [`Tier`] number.
pub const TIERS: [Tier; 3] = [Tier::Local, Tier::Valkey, Tier::Rest];

/// Without an odd price for so long, a spell of them is over.
const SPELL: Duration = Duration::from_secs(60);

/// How long lookups took.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; DURATIONS_MS.len() + 1],
    micros: AtomicU64,
}

impl Durations {
    fn count(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATIONS_MS.iter().take_while(|bound_ms| micros > **bound_ms * 1_000).count();
        add(&self.buckets[bucket], 1);
        add(&self.micros, micros);
    }

    /// How many took at most each of [`DURATIONS_MS`], all of them, and the sum of their times in µs.
    #[must_use]
    pub fn cumulated(&self) -> ([u64; DURATIONS_MS.len()], u64, u64) {
        let mut sum = 0;
        let counts = self.buckets.each_ref().map(|count| {
            sum += get(count);
            sum
        });
        (std::array::from_fn(|index| counts[index]), sum, get(&self.micros))
    }
}

/// Everything counted. All only grow.
#[derive(Debug, Default)]
pub struct Counters {
    /// Flights that found a price, by the tier of the price.
    pub found: [Durations; TIERS.len()],
    /// Flights that found none, by [`CODES`].
    pub nothing: [Durations; CODES.len()],
    /// Questions answered without a flight, by [`CODES`]: what came to nothing a moment ago, or no room.
    pub answered: [AtomicU64; CODES.len()],
    /// Questions that joined a flight under way.
    pub joined: AtomicU64,
    /// Answers that could not be given to a shard: whoever waits is answered at the deadline.
    pub untold: AtomicU64,
    /// Questions to the cache that gave a fresh price, gave one that is fresh no more, gave none, and failed.
    pub cache: [AtomicU64; 4],
    /// Of those that gave none: what stood there was odd.
    pub odd: [AtomicU64; Odd::ALL.len()],
    /// Prices written to the cache, and those given up.
    pub written: [AtomicU64; 2],
    spell: Mutex<Option<Instant>>,
}

/// What a question to the cache gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheGave {
    /// A fresh price.
    Fresh,
    /// A price that is fresh no more.
    Old,
    /// None.
    None,
    /// The cache failed.
    Failed,
}

impl CacheGave {
    /// All, in the order in which they are counted.
    pub const ALL: [Self; 4] = [Self::Fresh, Self::Old, Self::None, Self::Failed];

    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Old => "old",
            Self::None => "none",
            Self::Failed => "failed",
        }
    }
}

fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

fn place(code: Code) -> usize {
    CODES.iter().position(|known| *known == code).unwrap_or(1)
}

impl Counters {
    pub(super) fn found(&self, tier: u8, took: Duration) {
        self.found[usize::from(tier).min(TIERS.len() - 1)].count(took);
    }

    pub(super) fn nothing(&self, code: Code, took: Duration) {
        self.nothing[place(code)].count(took);
    }

    pub(super) fn answered(&self, code: Code) {
        add(&self.answered[place(code)], 1);
    }

    pub(super) fn joined(&self) {
        add(&self.joined, 1);
    }

    pub(super) fn untold(&self) {
        add(&self.untold, 1);
    }

    pub(super) fn cache_gave(&self, what: CacheGave) {
        add(&self.cache[what as usize], 1);
    }

    pub(super) fn wrote(&self, prices: usize, well: bool) {
        add(&self.written[usize::from(!well)], prices as u64);
    }

    /// Counts what stood in the cache and is no price; the first one of a spell is told.
    pub(super) fn odd(&self, symbol: &Symbol, what: Odd, now: Instant) {
        add(&self.odd[what as usize], 1);
        let mut spell = self.spell.lock().unwrap_or_else(PoisonError::into_inner);
        if spell.replace(now).is_none() {
            tracing::warn!(
                asset = symbol.as_str(),
                "price:{symbol} in the cache is not used: {what}; this and the like are counted in /metrics until it ends"
            );
        }
    }

    /// Notices that a spell of odd prices is over.
    pub(super) fn settle(&self, now: Instant) {
        let mut spell = self.spell.lock().unwrap_or_else(PoisonError::into_inner);
        if spell.is_some_and(|last| now.duration_since(last) >= SPELL) {
            *spell = None;
            tracing::info!("the cache has shown no odd price for a minute");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let durations = Durations::default();
        for micros in [900, 1_000, 1_001, 59_999, 1_500_000, 1_500_001] {
            durations.count(Duration::from_micros(micros));
        }
        let (counts, all, micros) = durations.cumulated();
        assert_eq!(counts, [2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5]);
        assert_eq!((all, micros), (6, 3_062_901));
    }
}
