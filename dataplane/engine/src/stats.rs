//! What a shard lets others see: numbers it stores now and then, without caring who reads.
//!
//! Relaxed stores of single numbers. A reader may see some of one publication and some of the next; every number is
//! right by itself.

use crate::lag::{LAG_COUNTS, LagHistogram};
use dataplane_core::counters::ShardCounters;
use dataplane_core::governor::RANKS;
use shared::moment::Moment;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one shard published at its last idle tick.
#[derive(Clone, Debug, Default)]
pub struct ShardStats {
    /// The shard.
    pub index: usize,
    /// The CPU it is pinned to; `None` when it is not.
    pub cpu: Option<usize>,
    /// Open TCP connections.
    pub connections: u64,
    /// Connections accepted since start.
    pub accepted: u64,
    /// Connections closed because the slab was full, for a time-out, or for a bound on what a connection may hold.
    pub closed_by_us: u64,
    /// Times the loop waited in the kernel.
    pub parks: u64,
    /// Times a receive ended because no buffer was free (io_uring only); it was armed again.
    pub receive_buffers_short: u64,
    /// Turns in which the completion queue had overflowed (io_uring only); nothing was lost.
    pub completion_overflows: u64,
    /// Replies to datagrams that the kernel would not take.
    pub datagrams_unsent: u64,
    /// Replies to datagrams that left together with others to the same peer.
    pub datagrams_grouped: u64,
    /// Times the kernel refused such a group; its replies left one by one.
    pub datagram_groups_refused: u64,
    /// CPU time of the shard's thread, ns.
    pub cpu_ns: u64,
    /// When the loop last turned, monotonic ms.
    pub turned_mono_ms: u64,
    /// How long prices took from their frames' receipt until this shard had them, since start. Prices that the feed's
    /// housekeeping made (a refresh, staleness) are not in it.
    pub feed_lag: LagHistogram,
    /// What the shard's logic counted.
    pub counters: ShardCounters,
}

/// What a loop counts by itself: plain numbers on its own stack. All but `connections` only grow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoopCounters {
    /// Gauge: open connections.
    pub connections: u64,
    /// See [`ShardStats::accepted`].
    pub accepted: u64,
    /// See [`ShardStats::closed_by_us`].
    pub closed_by_us: u64,
    /// See [`ShardStats::parks`].
    pub parks: u64,
    /// See [`ShardStats::receive_buffers_short`].
    pub receive_buffers_short: u64,
    /// See [`ShardStats::completion_overflows`].
    pub completion_overflows: u64,
    /// See [`ShardStats::datagrams_unsent`].
    pub datagrams_unsent: u64,
    /// See [`ShardStats::datagrams_grouped`].
    pub datagrams_grouped: u64,
    /// See [`ShardStats::datagram_groups_refused`].
    pub datagram_groups_refused: u64,
}

/// Numbers of a loop, of a shard's logic but its refusals, and refusals by code.
const LOOP_NUMBERS: usize = 11;
const SHARD_NUMBERS: usize = 21;
const REFUSALS: usize = 64;

/// Where a shard publishes.
pub(crate) struct PublishedStats {
    index: usize,
    /// 0: not pinned; else the CPU plus one.
    cpu_plus_one: AtomicU64,
    of_loop: [AtomicU64; LOOP_NUMBERS],
    of_shard: [AtomicU64; SHARD_NUMBERS],
    refused: [AtomicU64; REFUSALS],
    shed: [AtomicU64; RANKS],
    lags: [AtomicU64; LAG_COUNTS],
    lag_sum_ns: AtomicU64,
}

impl PublishedStats {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            index,
            cpu_plus_one: AtomicU64::new(0),
            of_loop: [const { AtomicU64::new(0) }; LOOP_NUMBERS],
            of_shard: [const { AtomicU64::new(0) }; SHARD_NUMBERS],
            refused: [const { AtomicU64::new(0) }; REFUSALS],
            shed: [const { AtomicU64::new(0) }; RANKS],
            lags: [const { AtomicU64::new(0) }; LAG_COUNTS],
            lag_sum_ns: AtomicU64::new(0),
        }
    }

    /// Called once, by the shard's thread, when it is pinned.
    pub(crate) fn pinned_to(&self, cpu: usize) {
        self.cpu_plus_one.store(cpu as u64 + 1, Ordering::Relaxed);
    }

    /// Called by the shard's thread at its idle tick: also stores the thread's CPU time.
    pub(crate) fn publish(
        &self,
        now: Moment,
        of_loop: &LoopCounters,
        feed_lag: &LagHistogram,
        of_shard: &ShardCounters,
    ) {
        let cpu_ns = tuning::clock::thread_cpu_ns();
        let numbers = [
            of_loop.connections,
            of_loop.accepted,
            of_loop.closed_by_us,
            of_loop.parks,
            of_loop.receive_buffers_short,
            of_loop.completion_overflows,
            of_loop.datagrams_unsent,
            of_loop.datagrams_grouped,
            of_loop.datagram_groups_refused,
            cpu_ns,
            now.mono_ms(),
        ];
        store(&self.of_loop, &numbers);
        let counted = [
            of_shard.http_requests,
            of_shard.datagrams,
            of_shard.datagram_replies,
            of_shard.datagrams_silent,
            of_shard.answered,
            of_shard.ticks,
            of_shard.hand_overs,
            of_shard.waiting,
            of_shard.generation,
            of_shard.usage_ring_full,
            of_shard.usage_coarser,
            of_shard.http_overloaded,
            of_shard.active,
            of_shard.active_max,
            of_shard.datagrams_waiting,
            of_shard.lookups_begun,
            of_shard.lookups_found,
            of_shard.lookups_fruitless,
            of_shard.lookups_expired,
            of_shard.lookups_refused,
            of_shard.lookups_under_way,
        ];
        store(&self.of_shard, &counted);
        store(&self.refused, &of_shard.refused);
        store(&self.shed, &of_shard.shed);
        store(&self.lags, &feed_lag.counts);
        self.lag_sum_ns.store(feed_lag.sum_ns, Ordering::Relaxed);
    }

    /// What was published last.
    pub(crate) fn read(&self) -> ShardStats {
        let [
            connections,
            accepted,
            closed_by_us,
            parks,
            receive_buffers_short,
            completion_overflows,
            datagrams_unsent,
            datagrams_grouped,
            datagram_groups_refused,
            cpu_ns,
            turned_mono_ms,
        ] = load(&self.of_loop);
        let cpu_plus_one = self.cpu_plus_one.load(Ordering::Relaxed);
        ShardStats {
            index: self.index,
            cpu: cpu_plus_one.checked_sub(1).and_then(|cpu| usize::try_from(cpu).ok()),
            connections,
            accepted,
            closed_by_us,
            parks,
            receive_buffers_short,
            completion_overflows,
            datagrams_unsent,
            datagrams_grouped,
            datagram_groups_refused,
            cpu_ns,
            turned_mono_ms,
            feed_lag: LagHistogram { counts: load(&self.lags), sum_ns: self.lag_sum_ns.load(Ordering::Relaxed) },
            counters: self.read_counters(),
        }
    }

    fn read_counters(&self) -> ShardCounters {
        let [
            http_requests,
            datagrams,
            datagram_replies,
            datagrams_silent,
            answered,
            ticks,
            hand_overs,
            waiting,
            generation,
            usage_ring_full,
            usage_coarser,
            http_overloaded,
            active,
            active_max,
            datagrams_waiting,
            lookups_begun,
            lookups_found,
            lookups_fruitless,
            lookups_expired,
            lookups_refused,
            lookups_under_way,
        ] = load(&self.of_shard);
        ShardCounters {
            http_requests,
            datagrams,
            datagram_replies,
            datagrams_silent,
            answered,
            ticks,
            hand_overs,
            waiting,
            generation,
            usage_ring_full,
            usage_coarser,
            http_overloaded,
            active,
            active_max,
            datagrams_waiting,
            lookups_begun,
            lookups_found,
            lookups_fruitless,
            lookups_expired,
            lookups_refused,
            lookups_under_way,
            refused: load(&self.refused),
            shed: load(&self.shed),
        }
    }
}

fn store<const N: usize>(cells: &[AtomicU64; N], numbers: &[u64; N]) {
    for (cell, number) in cells.iter().zip(numbers) {
        cell.store(*number, Ordering::Relaxed);
    }
}

fn load<const N: usize>(cells: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|index| cells[index].load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_back() {
        let published = PublishedStats::new(3);
        assert_eq!(published.read().cpu, None);
        published.pinned_to(0);
        let of_loop = LoopCounters {
            connections: 1,
            accepted: 2,
            closed_by_us: 3,
            parks: 4,
            receive_buffers_short: 5,
            completion_overflows: 6,
            datagrams_unsent: 12,
            datagrams_grouped: 14,
            datagram_groups_refused: 15,
        };
        let mut of_shard = ShardCounters {
            http_requests: 7,
            usage_ring_full: 8,
            generation: 9,
            active_max: 16,
            lookups_under_way: 18,
            ..Default::default()
        };
        (of_shard.refused[63], of_shard.shed[3]) = (10, 17);
        let now = Moment { mono_ns: 11_000_000, wall_ms: 0 };
        let mut feed_lag = LagHistogram::default();
        feed_lag.add(13);
        published.publish(now, &of_loop, &feed_lag, &of_shard);
        let stats = published.read();
        assert_eq!((stats.index, stats.cpu, stats.turned_mono_ms), (3, Some(0), 11));
        assert_eq!((stats.connections, stats.accepted, stats.closed_by_us, stats.parks), (1, 2, 3, 4));
        assert_eq!((stats.receive_buffers_short, stats.completion_overflows, stats.datagrams_unsent), (5, 6, 12));
        assert_eq!((stats.datagrams_grouped, stats.datagram_groups_refused), (14, 15));
        assert_eq!((stats.feed_lag, stats.counters), (feed_lag, of_shard));
    }
}
