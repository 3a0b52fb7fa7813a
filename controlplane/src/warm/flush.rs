//! One node's fresh prices, written for the others in one go.
//!
//! Only what this node has from its own sockets goes out: a price it took from another node would come back to that one
//! with a newer date. Each says until when it was known to be fresh, and never more than is known here. What others make
//! of it is not known here.

use crate::cache::{Cache, WRITES_MAX, Write};
use crate::lookup::entry::PriceEntry;
use crate::params::Parameters;
use crate::prices::PriceBoard;
use shared::asset::AssetDirectory;
use shared::moment::Moment;
use shared::tick::{Tick, Tier};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::watch;
use tuning::clock;

/// How late the feed shard may be to call a price stale, ms: it looks at 1,024 assets every 100 ms, and there are 8,192 at
/// most; twice that.
pub const SWEEP_MS: u64 = 1_600;

/// How old the newest price of all may be while this node's feeds are taken to be alive, ms.
const NEWEST_MS: u64 = 2_000;

/// How the flushes went, since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushCounters {
    /// Rounds that wrote all they had.
    pub rounds: u64,
    /// Rounds in which the cache did not take everything.
    pub failures: u64,
    /// Prices written.
    pub prices: u64,
    /// When the last good round ended, Unix ms; 0 before the first.
    pub last_ms: u64,
}

/// What is flushed, where, and how it went.
pub struct Flush {
    node: String,
    cache: Arc<dyn Cache>,
    prices: Arc<PriceBoard>,
    assets: watch::Receiver<Arc<AssetDirectory>>,
    parameters: watch::Receiver<Arc<Parameters>>,
    rounds: AtomicU64,
    failures: AtomicU64,
    written: AtomicU64,
    last_ms: AtomicU64,
    is_failing: AtomicBool,
}

impl Flush {
    /// Of `node`, which has written nothing yet.
    pub fn new(
        node: String,
        cache: Arc<dyn Cache>,
        prices: Arc<PriceBoard>,
        assets: watch::Receiver<Arc<AssetDirectory>>,
        parameters: watch::Receiver<Arc<Parameters>>,
    ) -> Self {
        let none = AtomicU64::default;
        let (rounds, failures, written, last_ms) = (none(), none(), none(), none());
        let is_failing = AtomicBool::new(false);
        Self { node, cache, prices, assets, parameters, rounds, failures, written, last_ms, is_failing }
    }

    /// How it went so far.
    pub fn counters(&self) -> FlushCounters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        FlushCounters {
            rounds: read(&self.rounds),
            failures: read(&self.failures),
            prices: read(&self.written),
            last_ms: read(&self.last_ms),
        }
    }

    /// Whether the last round failed.
    #[cfg(test)]
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Writes what is fresh now; says so once when it begins to fail, and once when it is over. Who `has_run` knows that
    /// this process was not held up for [`SWEEP_MS`]; else nothing is told as kept fresh by its feed.
    pub async fn round(&self, has_run: bool) {
        let fresh_ms = u64::from(self.parameters.borrow().cache_ttl_s) * 1_000;
        let assets = Arc::clone(&self.assets.borrow());
        let writes = writes(&self.prices.ticks(), &assets, &self.node, clock::now(), fresh_ms, has_run);
        for part in writes.chunks(WRITES_MAX) {
            if let Err(why) = self.cache.write_all(part).await {
                self.failures.fetch_add(1, Ordering::Relaxed);
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%why, "the cache does not take this node's prices: others go without them until it does");
                }
                return;
            }
            self.written.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
        self.rounds.fetch_add(1, Ordering::Relaxed);
        self.last_ms.store(clock::now().wall_ms, Ordering::Relaxed);
        if self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(prices = writes.len(), "the cache takes this node's prices again");
        }
    }
}

/// What `node` writes of its ticks: those that others would find fresh for half their time yet. What has less left is no
/// gain.
pub fn writes(
    ticks: &[Tick],
    assets: &AssetDirectory,
    node: &str,
    now: Moment,
    fresh_ms: u64,
    has_run: bool,
) -> Vec<Write> {
    let is_live = has_run && ticks.iter().any(|tick| now.ms_since(tick.published_mono_ns) <= NEWEST_MS);
    let write = |tick: &Tick| {
        let asset = assets.entry(tick.asset_id()?)?;
        let entry = PriceEntry::of(asset.symbol, tick, proven_ms(tick, now, fresh_ms, is_live), node)?;
        let is_useful = tick.tier == Tier::Local as u8 && entry.is_fresh(now.wall_ms, fresh_ms / 2);
        is_useful.then(|| entry.write(now.wall_ms))?
    };
    ticks.iter().filter_map(write).collect()
}

/// When the price was last known to be fresh, Unix ms.
///
/// A young price is fresh by itself, its feed proven alive or not: no more is claimed of it than its arrival. One that is
/// older and yet not called stale is so because its feed is alive, now; but not in the moment in which the feed shard may
/// not have looked yet, nor when all may have stood still (not `is_live`): then nothing is called stale either.
fn proven_ms(tick: &Tick, now: Moment, fresh_ms: u64, is_live: bool) -> u64 {
    let is_kept_by_its_feed = is_live && now.ms_since(tick.received_mono_ns) > fresh_ms + SWEEP_MS;
    if is_kept_by_its_feed { now.wall_ms } else { tick.received_time_ms }
}
