//! What a node tells the others of itself: 24 numbers under fixed names, which an operator of the replaced system finds
//! under `cluster:stats:<node>`.
//!
//! All are whole numbers. Those that end in `_now` can fall, or are said to be something else; all others only grow
//! until the process ends.

use super::Counters;
use crate::api::ApiState;
use crate::cache::CacheHealth;
use crate::feeds::status::FeedsStatus;
use crate::prices::BoardState;
use crate::store::StoreHealth;
use dataplane_core::feed::FeedCounters;
use dataplane_engine::ShardStats;
use shared::code::Code;
use tuning::clock;

/// Everything that the numbers are taken from, as of one moment.
pub struct Sources {
    started_time_ms: u64,
    draining: bool,
    shards: Vec<ShardStats>,
    feed: FeedCounters,
    venues: FeedsStatus,
    board: BoardState,
    usage_requests: u64,
    cache: CacheHealth,
    store: StoreHealth,
}

/// One number.
pub struct Counter {
    /// Its name in the hash.
    pub name: &'static str,
    /// What it counts, for people.
    pub meaning: &'static str,
    value: fn(&Sources) -> u64,
}

const fn counter(name: &'static str, meaning: &'static str, value: fn(&Sources) -> u64) -> Counter {
    Counter { name, meaning, value }
}

/// Refusals for the key itself.
const OF_KEYS: [Code; 3] = [Code::KeyMissing, Code::KeyInvalid, Code::NotPermitted];
/// Refusals for a key's limit.
const OF_LIMITS: [Code; 2] = [Code::RateLimitedSecond, Code::RateLimitedMonth];
/// Refusals for what the node can do.
const OF_LOAD: [Code; 2] = [Code::Overloaded, Code::Draining];

/// The table.
pub const COUNTERS: [Counter; 24] = [
    counter("started_time_ms", "when the process started, Unix ms", |node| node.started_time_ms),
    counter("pid", "the process", |_| u64::from(std::process::id())),
    counter("time_ms", "the node's own clock when it wrote this, Unix ms", |_| clock::now().wall_ms),
    counter("draining_now", "1 while the node is going away", |node| u64::from(node.draining)),
    counter("shards", "shards", |node| node.shards.len() as u64),
    counter("shards_cpu_ms", "CPU time of all shards, ms", |node| node.sum(|shard| shard.cpu_ns) / 1_000_000),
    counter("connections_now", "open TCP connections", |node| node.sum(|shard| shard.connections)),
    counter("connections_active", "connections that the governor counts as active now", |node| {
        node.sum(|shard| shard.counters.active)
    }),
    counter("connections_accepted", "TCP connections accepted", |node| node.sum(|shard| shard.accepted)),
    counter("connections_closed", "TCP connections closed for time or room", |node| {
        node.sum(|shard| shard.closed_by_us)
    }),
    counter("http_requests", "HTTP requests answered by shards, whatever the answer", |node| {
        node.sum(|shard| shard.counters.http_requests)
    }),
    counter("datagrams", "datagrams received", |node| node.sum(|shard| shard.counters.datagrams)),
    counter("answered", "requests answered with a price", |node| node.sum(|shard| shard.counters.answered)),
    counter("refused_keys", "refused: no key, a wrong one, or not permitted", |node| node.refused(&OF_KEYS)),
    counter("refused_limits", "refused: beyond the key's limit per second or month", |node| node.refused(&OF_LIMITS)),
    counter("refused_load", "refused: overloaded or draining", |node| node.refused(&OF_LOAD)),
    counter("refused_else", "refused for anything else", |node| {
        let known = [&OF_KEYS[..], &OF_LIMITS, &OF_LOAD].concat();
        node.sum(|shard| shard.counters.refused.iter().sum()) - node.refused(&known)
    }),
    counter("usage_requests", "requests counted as usage", |node| node.usage_requests),
    counter("feed_ticks", "prices published to the shards", |node| node.feed.ticks),
    counter("venues_now", "venues with an open connection", |node| {
        node.venues.venues.iter().filter(|venue| venue.connected).count() as u64
    }),
    counter("prices_now", "assets with a price", |node| node.board.priced as u64),
    counter("prices_fresh_now", "assets with a price that is not stale", |node| node.board.fresh as u64),
    counter("cache_unreachable", "calls of the cache that did not reach it", |node| node.cache.unreachable),
    counter("store_unreachable", "calls of the database that did not reach it", |node| node.store.unreachable),
];

impl Sources {
    /// As of now.
    #[must_use]
    pub fn read(state: &ApiState) -> Self {
        Self {
            started_time_ms: state.facts.started_time_ms,
            draining: state.is_draining(),
            shards: state.plane.stats(),
            feed: state.plane.feed_counters(),
            venues: state.feeds.status(),
            board: state.prices.state(),
            usage_requests: state.usage.total().0,
            cache: state.cache.health(),
            store: state.store.health(),
        }
    }

    fn sum(&self, of: impl Fn(&ShardStats) -> u64) -> u64 {
        self.shards.iter().map(of).sum()
    }

    fn refused(&self, codes: &[Code]) -> u64 {
        let of = |shard: &ShardStats| codes.iter().map(|code| shard.counters.refused[usize::from(code.number())]).sum();
        self.sum(of)
    }
}

/// The numbers as they are written.
#[must_use]
pub fn of(state: &ApiState) -> Counters {
    let sources = Sources::read(state);
    COUNTERS.iter().map(|counter| (counter.name.to_owned(), (counter.value)(&sources).to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_number_has_a_name_of_its_own_and_a_meaning() {
        let names: BTreeSet<&str> = COUNTERS.iter().map(|counter| counter.name).collect();
        assert_eq!(names.len(), COUNTERS.len());
        assert!(COUNTERS.iter().all(|counter| !counter.meaning.is_empty()));
        assert!(names.contains(crate::governor::ACTIVE_FIELD), "what the governor reads");
    }
}
