//! The lookup desk: finds a price that this node's table does not have, or only a stale one.
//!
//! First in the cache, where other nodes leave theirs, then at the venues' REST interfaces, once for each asset however
//! many ask. What is found goes to the feed thread like any other word of a venue or a node, and comes to the shards as a
//! tick; only that nothing was found is told in words. Shards are never waited for, and no answer from a shard's table
//! waits for anything here. How a venue is asked, and how often, is `feeds::rest`'s.
//!
//! ```text
//! shards ─asks─► asks ─► desk (one flight for each asset) ─► search ─► cache, venues ─► feed thread ─ticks─► shards
//!                              └─ nothing found ─────────────────────────────────────────────────────────►
//! ```

pub mod ahead;
pub mod asks;
pub mod counters;
pub mod desk;
pub mod entry;
pub mod keeper;
mod search;
mod table;

#[cfg(test)]
mod tests;

use self::counters::Counters;
use self::desk::LookupState;
use async_trait::async_trait;
use shared::asset::Symbol;
use shared::code::Code;
use shared::key::KeyId;
use shared::venue::VenueSet;
use tokio::time::Instant;

/// What became of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is a fresh price: it stands on the price board, and the shards have it or will in a moment.
    Found,
    /// There is none, and this is what to say: `asset_unknown`, `price_unavailable` or `overloaded`.
    Nothing(Code),
}

/// What became of lookups in advance. Assets that had a fresh price before are in none of the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warmed {
    /// Assets whose price was another node's.
    pub from_cache: usize,
    /// Assets whose price a venue gave.
    pub from_rest: usize,
    /// Assets without a fresh price still.
    pub missing: usize,
    /// Time was up before each asset had been looked for.
    pub unfinished: bool,
}

/// Who looks prices up.
#[async_trait]
pub trait Lookups: Send + Sync {
    /// Looks an asset up for a request of `key`, unless it has a fresh price; together with whoever else waits for it.
    /// Ends within `LOOKUP_WAIT_MS`.
    async fn look_up(&self, symbol: Symbol, key: KeyId) -> Outcome;

    /// Looks up those of `assets` that have no fresh price and that nobody waits for: in the cache all at once, then at
    /// `venues` alone, behind every client, as many in a request as a venue takes. What venues gave is written to the
    /// cache as it comes. Ends when each asset was looked for, at `until` at the latest, but for a write that is under way:
    /// what has come by then counts. A venue that cannot be asked before is not asked.
    async fn warm(&self, assets: &[Symbol], venues: VenueSet, until: Instant) -> Warmed;

    /// What was counted, and how it does now; `None` where nothing is counted.
    fn figures(&self) -> Option<(&Counters, LookupState)> {
        None
    }
}
