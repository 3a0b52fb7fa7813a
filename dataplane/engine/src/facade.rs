//! The façade: everything the control plane may ask of the data plane.

use crossbeam_channel::Receiver;
use dataplane_core::access::KeyDirectory;
use dataplane_core::command::{ShardCommand, ShardParameters};
use dataplane_core::counters::ShardCounters;
use dataplane_core::feed::{FeedCounters, FeedInput, FeedParameters, VenueDetail};
use rtrb::Consumer;
use shared::asset::{AssetDirectory, AssetId};
use shared::tick::Tick;
use shared::usage::UsageRecord;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tuning::core_plan::CorePlan;

/// What `TB_ENGINE` may say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring where it is to be had, else epoll, saying why.
    #[default]
    Auto,
    /// io_uring or do not start.
    IoUring,
    /// epoll.
    Epoll,
}

/// What moves bytes for the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// io_uring.
    IoUring,
    /// epoll.
    Epoll,
}

/// What the data plane is made of.
pub struct DataPlaneSetup {
    /// Which engine is wanted.
    pub engine: EngineChoice,
    /// Address to listen on; an unspecified IPv6 address listens on both families.
    pub bind: IpAddr,
    /// TCP port for prices; 0 for any.
    pub tcp_port: u16,
    /// UDP port for prices; 0 for any.
    pub udp_port: u16,
    /// Who runs where.
    pub plan: CorePlan,
    /// Every asset.
    pub assets: Arc<AssetDirectory>,
    /// Every key.
    pub keys: Arc<KeyDirectory>,
    /// Tunables of the shards.
    pub shard_parameters: ShardParameters,
    /// Tunables of the feed shard.
    pub feed_parameters: FeedParameters,
    /// Whether prices come from simulated exchanges.
    pub simulated: bool,
}

/// Why the data plane did not start. Each text says what to do.
#[derive(Debug)]
pub enum StartRefused {
    /// `TB_ENGINE=io_uring`, or a lack of resources that is no reason to fall back.
    Engine(String),
    /// A port or address cannot be had.
    Bind(String),
    /// A thread could not be started.
    Thread(String),
}

/// A socket that asked for something other than a price, with the bytes read from it so far.
pub struct HandedOver {
    /// The connection, in blocking mode.
    pub stream: TcpStream,
    /// Everything read from it that has not been answered: the request begins here.
    pub bytes: Vec<u8>,
}

/// Sends inputs to the feed thread. Cheap to clone.
#[derive(Clone)]
pub struct FeedSender {}

impl FeedSender {
    /// Sends without waiting.
    ///
    /// # Errors
    /// Gives the input back when the channel is full: keep the newest per (venue, asset) and try again.
    pub fn try_send(&self, _input: FeedInput) -> Result<(), FeedInput> {
        unimplemented!()
    }
}

/// What one shard published at its last idle tick.
#[derive(Clone, Debug)]
pub struct ShardStats {
    /// The shard.
    pub index: usize,
    /// The CPU it is pinned to; `None` when it is not.
    pub cpu: Option<usize>,
    /// Open TCP connections.
    pub connections: u64,
    /// Connections accepted since start.
    pub accepted: u64,
    /// Connections closed because the slab was full, or for a time-out.
    pub closed_by_us: u64,
    /// Times the loop waited in the kernel.
    pub parks: u64,
    /// CPU time of the shard's thread, ns.
    pub cpu_ns: u64,
    /// When the loop last turned, monotonic ms.
    pub turned_mono_ms: u64,
    /// What the shard's logic counted.
    pub counters: ShardCounters,
}

/// The running data plane.
pub struct DataPlane {}

impl DataPlane {
    /// Starts shards and feed thread; answers when every port is bound and every shard turns.
    ///
    /// # Errors
    /// See [`StartRefused`]; nothing is left running.
    pub fn start(_setup: DataPlaneSetup) -> Result<Self, StartRefused> {
        unimplemented!()
    }

    /// The engine all shards run.
    #[must_use]
    pub fn engine(&self) -> Engine {
        unimplemented!()
    }

    /// Why that engine: one line, also logged once.
    #[must_use]
    pub fn engine_reason(&self) -> &str {
        unimplemented!()
    }

    /// Bound TCP address.
    #[must_use]
    pub fn tcp_address(&self) -> SocketAddr {
        unimplemented!()
    }

    /// Bound UDP address.
    #[must_use]
    pub fn udp_address(&self) -> SocketAddr {
        unimplemented!()
    }

    /// A way to send quotes to the feed thread.
    #[must_use]
    pub fn feed(&self) -> FeedSender {
        unimplemented!()
    }

    /// What each venue contributes to `asset` now, asked of the feed thread; `None` when it does not answer in time.
    #[must_use]
    pub fn inspect(&self, _asset: AssetId, _wait: Duration) -> Option<Vec<VenueDetail>> {
        unimplemented!()
    }

    /// The feed shard's counters, as of its last sweep.
    #[must_use]
    pub fn feed_counters(&self) -> FeedCounters {
        unimplemented!()
    }

    /// Sockets handed over. One thread should receive.
    #[must_use]
    pub fn hand_overs(&self) -> Receiver<HandedOver> {
        unimplemented!()
    }

    /// The control plane's own ring of ticks; can be taken once.
    #[must_use]
    pub fn take_ticks(&mut self) -> Option<Consumer<Tick>> {
        unimplemented!()
    }

    /// Each shard's ring of usage records; can be taken once.
    #[must_use]
    pub fn take_usage(&mut self) -> Vec<Consumer<UsageRecord>> {
        unimplemented!()
    }

    /// Gives an instruction to every shard and wakes them; waits for room in a shard's channel.
    pub fn command(&self, _command: &ShardCommand) {
        unimplemented!()
    }

    /// What every shard published last.
    #[must_use]
    pub fn stats(&self) -> Vec<ShardStats> {
        unimplemented!()
    }

    /// The name of a data plane thread that ended though it was not told to: a bug, the process must stop.
    #[must_use]
    pub fn failed_thread(&self) -> Option<String> {
        unimplemented!()
    }

    /// Stops every thread and waits for them.
    pub fn stop(&mut self) {
        unimplemented!()
    }
}
