//! The parameters: what may change while the service runs, for all nodes at once.
//!
//! They stand in the store as texts, and in force as one validated value that everybody watches. A parameter that nobody
//! has set stands at the setting of its name, where there is one, else at its default. What a parameter does is known to
//! whoever watches; here is known what it may be.

pub mod apply;
pub mod catalogue;
pub mod check;
pub mod desk;
pub mod last_good;

use crate::cache::CacheTimeouts;
use shared::asset::Symbol;
use shared::venue::VENUE_COUNT;
use std::time::Duration;
use tracing::Level;

/// A profile: `system_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SystemMode {
    /// As little as possible beside answering: errors alone are logged, and demo keys get 1,000 a second.
    Performance,
    /// The usual.
    #[default]
    Standard,
    /// For showing: as standard, with warnings logged.
    Demo,
}

impl SystemMode {
    /// Its name in `system_mode`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Performance => "performance",
            Self::Standard => "standard",
            Self::Demo => "demo",
        }
    }

    /// The mode of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Performance, Self::Standard, Self::Demo].into_iter().find(|mode| mode.name() == name)
    }
}

/// The governor's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adaptive {
    /// `adaptive_max_concurrent`: active connections of all nodes together, 1 ..= 10,000,000.
    pub max_concurrent: u32,
    /// `adaptive_success_threshold` × 1,000: below this share of successes the bound shrinks; 0 ..= 1,000.
    pub success_threshold_permille: u16,
    /// `adaptive_throttle_delay_ms`: what a refused client is told to wait at least, 0 ..= 60,000.
    pub throttle_delay_ms: u32,
}

/// How usage goes to the queue, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBounds {
    /// `sqs_batch_size`: messages of one request, 1 ..= 10.
    pub batch_messages: usize,
    /// `sqs_flush_ms`: time between two deliveries while little waits.
    pub flush_ms: u64,
    /// `sqs_buffer_size`: rows on their way at a time; the others wait in the journal.
    pub buffer_rows: usize,
    /// `sqs_timeout_ms`: longest that a request may take.
    pub timeout_ms: u64,
}

/// When assets kept warm are looked up that have no fresh price. See `crate::warm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrewarmTurns {
    /// `prewarm_interval`: 1 min to a day.
    pub every: Duration,
    /// `kraken_prewarm_interval_minutes`: the same with Kraken.
    pub kraken_every: Duration,
    /// `kraken_prewarm_offset_seconds`: how much later Kraken's turn is, up to an hour.
    pub kraken_later: Duration,
}

/// Every parameter in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// `system_mode`.
    pub mode: SystemMode,
    /// `adaptive_*`.
    pub adaptive: Adaptive,
    /// `udp_max_concurrent_lpo`: datagrams of one node that may wait for a lookup.
    pub udp_max_concurrent_lpo: u32,
    /// `udp_max_concurrent_lrs`: report datagrams of one node that may wait.
    pub udp_max_concurrent_lrs: u32,
    /// `db_max_open_conns`.
    pub db_max_open: u32,
    /// `db_max_idle_conns`.
    pub db_max_idle: u32,
    /// `cache_*_timeout_ms`.
    pub cache_timeouts: CacheTimeouts,
    /// `sqs_*`.
    pub queue: QueueBounds,
    /// `http_idle_timeout_seconds`: a connection is kept 15 s longer than this, which is the balancer's idle time.
    pub http_idle_timeout_s: u32,
    /// `http_read_timeout_seconds`: from a head's first byte to its end.
    pub http_read_timeout_s: u32,
    /// `http_write_timeout_seconds`: how long a client may take nothing of an answer.
    pub http_write_timeout_s: u32,
    /// `cache_ttl_seconds`: age at which a price is stale unless its feed is proven alive.
    pub cache_ttl_s: u32,
    /// `log_level`.
    pub log_level: Level,
    /// `*_prewarm_assets` or the venue's rows in `exchange_asset_map`, by venue; `None`: the built-in list.
    pub prewarm: [Option<Vec<Symbol>>; VENUE_COUNT],
    /// `prewarm_interval`, `kraken_prewarm_*`.
    pub prewarm_turns: PrewarmTurns,
    /// SHA-256 of a second administrator's key, from the parameter `ADMIN_KEY`: for changing keys without a restart.
    pub admin_key_hash: Option<[u8; 32]>,
}
