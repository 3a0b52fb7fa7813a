//! What the control plane tells a shard, and the settings a shard runs on.

use crate::access::KeyDirectory;
use crate::governor::GovernorBounds;
use crate::lookup::NotFound;
use alloc::sync::Arc;
use shared::asset::AssetDirectory;

/// Tunables of a shard that may change while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardParameters {
    /// Keep-alive: how long an idle connection stays open, ms.
    pub keep_alive_ms: u64,
    /// How long a request head may take from its first byte, ms.
    pub head_timeout_ms: u64,
    /// How long a client may take nothing of its answer, ms.
    pub write_stall_ms: u64,
    /// Datagrams that may wait for a lookup, all shards of the node together (`udp_max_concurrent_lpo`). A shard lets its
    /// even part of them wait, rounded up, and never more than [`crate::limits::DATAGRAMS_WAITING_MAX`]; of one key no more
    /// than it leaves room for others, which is half of them where it is alone.
    pub datagrams_waiting: u32,
}

impl Default for ShardParameters {
    /// 315 s, above the load balancer's 300; 5 s; 5 s; 3,000.
    fn default() -> Self {
        Self { keep_alive_ms: 315_000, head_timeout_ms: 5_000, write_stall_ms: 5_000, datagrams_waiting: 3_000 }
    }
}

/// An instruction from the control plane to one shard, taken between requests.
#[derive(Clone, Debug)]
pub enum ShardCommand {
    /// Use this key directory from now on. The engine keeps the one before until every shard has changed over: the last
    /// to let go of a large one spends milliseconds on it, and that must not be a shard.
    Keys(Arc<KeyDirectory>),
    /// Use this asset directory from now on; it holds every old id.
    Assets(Arc<AssetDirectory>),
    /// Use these tunables from now on.
    Parameters(ShardParameters),
    /// Hold active connections to these bounds from now on.
    Governor(GovernorBounds),
    /// Lookups that this shard asked for and that came to nothing.
    NotFound(Arc<[NotFound]>),
    /// Answer with `Connection: close` from now on.
    Drain,
    /// Accept no new TCP connections from now on (carried out by the engine), and let no request wait any longer:
    /// those that do are answered at the next idle tick. UDP is answered to the end.
    StopAccepting,
    /// Leave the loop. Carried out by the engine. Requests that wait are not answered any more: [`Self::StopAccepting`] and
    /// an idle tick, 50 ms, go before it where they are to be.
    Stop,
}
