//! Bringing parameters into force: who is told what, and what could not be told.
//!
//! Only what differs is told. Shards take it between two requests and close nothing for it: time-outs count from each
//! connection's next wait. Governor and keys are not here: they watch.

use super::Parameters;
use crate::cache::Cache;
use crate::feeds::Feeds;
use crate::feeds::instruments::wanted;
use crate::feeds::plan::Wanted;
use crate::orders::Orders;
use crate::store::Store;
use dataplane_core::command::{ShardCommand, ShardParameters};
use dataplane_core::feed::{FeedInput, FeedParameters};
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tracing::Level;

/// How much longer than the balancer's idle time a connection is kept, s: the balancer must be the one that closes, or it
/// sends a request into a connection that we have just closed.
const BEYOND_BALANCER_S: u32 = 15;

/// Who subscribes assets.
pub trait AssetLists: Send + Sync {
    /// Prices these from now on, and no others.
    fn want(&self, wanted: Vec<Wanted>);
}

impl AssetLists for Feeds {
    fn want(&self, wanted: Vec<Wanted>) {
        Self::want(self, wanted);
    }
}

/// Whom parameters are told to.
pub struct Hands {
    /// The data plane.
    pub orders: Arc<dyn Orders>,
    /// The feeds.
    pub feeds: Arc<dyn AssetLists>,
    /// Sets the log's level; whether that could be done.
    pub log_level: fn(Level) -> bool,
}

impl Parameters {
    /// What a shard runs on.
    #[must_use]
    pub fn of_shards(&self) -> ShardParameters {
        let ms = |seconds: u32| u64::from(seconds) * 1_000;
        ShardParameters {
            keep_alive_ms: ms(self.http_idle_timeout_s + BEYOND_BALANCER_S),
            head_timeout_ms: ms(self.http_read_timeout_s),
            write_stall_ms: ms(self.http_write_timeout_s),
            datagrams_waiting: self.udp_max_concurrent_lpo,
        }
    }

    /// What the feed shard runs on.
    #[must_use]
    pub fn of_feed(&self) -> FeedParameters {
        FeedParameters { fresh_ms: u64::from(self.cache_ttl_s) * 1_000, ..FeedParameters::default() }
    }
}

impl Hands {
    /// Tells what differs between `before` and `after`; what could not be told, for people.
    pub async fn apply(&self, before: &Parameters, after: &Parameters) -> Vec<String> {
        let mut untold = Vec::new();
        let (shards, feed) = (after.of_shards(), after.of_feed());
        let (tell_shards, tell_feed) = (before.of_shards() != shards, before.of_feed() != feed);
        if tell_shards || tell_feed {
            let orders = Arc::clone(&self.orders);
            // A shard's channel may be full for a moment.
            let told = spawn_blocking(move || {
                if tell_shards {
                    orders.shards(&ShardCommand::Parameters(shards));
                }
                !tell_feed || orders.feed(FeedInput::Parameters(feed))
            });
            if !told.await.unwrap_or(false) {
                untold.push("cache_ttl_seconds: the feed thread did not take it; reload again".to_owned());
            }
        }
        if before.log_level != after.log_level && !(self.log_level)(after.log_level) {
            untold.push("log_level: the log of this process cannot be changed; restart it".to_owned());
        }
        if before.prewarm != after.prewarm {
            self.feeds.want(wanted(&after.prewarm));
        }
        untold
    }
}

/// Gives store and cache their bounds.
pub async fn bound(store: &dyn Store, cache: &dyn Cache, parameters: &Parameters) {
    store.set_pool(parameters.db_max_open, parameters.db_max_idle).await;
    cache.set_timeouts(parameters.cache_timeouts).await;
}
