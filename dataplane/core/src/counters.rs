//! What a shard counts. Plain numbers, written by the shard alone; the engine publishes them at the idle tick.

use crate::governor::RANKS;
use shared::code::Code;

/// Counters of one shard since start. Every field only grows, but for the gauges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardCounters {
    /// HTTP requests answered, whatever the answer.
    pub http_requests: u64,
    /// Datagrams received.
    pub datagrams: u64,
    /// Datagrams answered.
    pub datagram_replies: u64,
    /// Datagrams met with silence.
    pub datagrams_silent: u64,
    /// Requests answered with a price.
    pub answered: u64,
    /// Requests refused, by `Code` number.
    pub refused: [u64; 64],
    /// Ticks taken from the ring.
    pub ticks: u64,
    /// Connections handed to the control plane.
    pub hand_overs: u64,
    /// Gauge: requests waiting, for a newer price or for a lookup, datagrams among them.
    pub waiting: u64,
    /// Gauge: datagrams waiting for a lookup.
    pub datagrams_waiting: u64,
    /// Lookups begun: each was asked of the control plane once.
    pub lookups_begun: u64,
    /// Lookups that ended with a price.
    pub lookups_found: u64,
    /// Lookups of which it was told that there is nothing.
    pub lookups_fruitless: u64,
    /// Lookups that nobody answered in time.
    pub lookups_expired: u64,
    /// Requests for a lookup that was not begun, because a bound was reached: the table's, the key's, or the ring's.
    pub lookups_refused: u64,
    /// Gauge: lookups under way.
    pub lookups_under_way: u64,
    /// Gauge: highest sequence in the table.
    pub generation: u64,
    /// Usage records that waited because the ring was full.
    pub usage_ring_full: u64,
    /// Requests counted without their asset, or without their key too, because more different ones were asked at a time
    /// than there are places for.
    pub usage_coarser: u64,
    /// HTTP requests answered `overloaded`, those shed by the governor among them: what load is to blame for. A price that
    /// is stale or missing is a 503 too, and no load's fault; nor is it that more is looked up than may be.
    pub http_overloaded: u64,
    /// Gauge: active connections, see `governor`.
    pub active: u64,
    /// Gauge: active connections beyond which even the highest rank is shed; `u32::MAX` without a bound,
    /// which is how it begins.
    pub active_max: u64,
    /// HTTP requests shed by the governor, by rank.
    pub shed: [u64; RANKS],
}

impl Default for ShardCounters {
    fn default() -> Self {
        Self {
            http_requests: 0,
            datagrams: 0,
            datagram_replies: 0,
            datagrams_silent: 0,
            answered: 0,
            refused: [0; 64],
            ticks: 0,
            hand_overs: 0,
            waiting: 0,
            datagrams_waiting: 0,
            lookups_begun: 0,
            lookups_found: 0,
            lookups_fruitless: 0,
            lookups_expired: 0,
            lookups_refused: 0,
            lookups_under_way: 0,
            generation: 0,
            usage_ring_full: 0,
            usage_coarser: 0,
            http_overloaded: 0,
            active: 0,
            active_max: u64::from(u32::MAX),
            shed: [0; RANKS],
        }
    }
}

impl ShardCounters {
    /// Counts one refusal.
    #[inline]
    pub fn refuse(&mut self, code: Code) {
        self.refused[usize::from(code.number()) & 63] += 1;
    }
}
