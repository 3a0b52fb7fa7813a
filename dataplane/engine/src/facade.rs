//! The façade: everything the control plane may ask of the data plane.

use crate::asks::AskReceiver;
use crate::choice::{Engine, EngineChoice};
use crate::feed_thread::{self, FeedSender};
use crate::handover::HandedOver;
use crate::stats::{PublishedStats, ShardStats};
use crate::wake::ShardWake;
use crossbeam_channel::{Receiver, Sender};
use dataplane_core::access::KeyDirectory;
use dataplane_core::command::{ShardCommand, ShardParameters};
use dataplane_core::feed::{FeedCounters, FeedParameters, VenueDetail};
use keys_in_use::KeysInUse;
use rtrb::Consumer;
use shared::asset::{AssetDirectory, AssetId};
use shared::tick::Tick;
use shared::usage::UsageRecord;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tuning::core_plan::CorePlan;
use tuning::steering::{Steering, SteeringChoice};

mod keys_in_use;
mod start;

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
    /// Which shard a new flow meets.
    pub steering: SteeringChoice,
    /// TCP connections of one shard, 1 ..= `CONNECTIONS_MAX`; fewer where the open files limit is lower (see
    /// [`DataPlane::warnings`]).
    pub connections_max: usize,
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
    /// Whether answers are counted as usage; `false` is for measuring what that costs.
    pub counts_usage: bool,
}

/// Why the data plane did not start. Each text is one line and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartRefused {
    /// `TB_ENGINE=io_uring`, or a lack of resources that is no reason to fall back.
    Engine(String),
    /// A port or address cannot be had.
    Bind(String),
    /// A thread could not be started, or ended before it served.
    Thread(String),
}

impl fmt::Display for StartRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Engine(text) | Self::Bind(text) | Self::Thread(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for StartRefused {}

/// One shard, seen from outside.
struct ShardHandle {
    commands: Sender<ShardCommand>,
    wake: Arc<ShardWake>,
    stats: Arc<PublishedStats>,
}

struct Thread {
    name: String,
    handle: JoinHandle<()>,
}

/// The running data plane. Dropping it stops it.
pub struct DataPlane {
    engine: Engine,
    reason: String,
    warnings: Vec<String>,
    steering: Steering,
    tcp: SocketAddr,
    udp: SocketAddr,
    shards: Vec<ShardHandle>,
    feed: FeedSender,
    feed_counters: Arc<Mutex<FeedCounters>>,
    hand_overs: Receiver<HandedOver>,
    keys: Mutex<KeysInUse>,
    ticks: Mutex<Option<Consumer<Tick>>>,
    usage: Mutex<Vec<Consumer<UsageRecord>>>,
    asks: Mutex<Option<AskReceiver>>,
    threads: Mutex<Vec<Thread>>,
    stopping: AtomicBool,
}

impl DataPlane {
    /// Starts shards and feed thread; answers when every port is bound and every shard turns. Raises the soft limit
    /// on open files to the hard one.
    ///
    /// # Errors
    /// See [`StartRefused`]; nothing is left running.
    pub fn start(setup: DataPlaneSetup) -> Result<Self, StartRefused> {
        start::start(&setup, tuning::ring_probe::probe)
    }

    /// The engine all shards run.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Why that engine: one line, to be logged once.
    #[must_use]
    pub fn engine_reason(&self) -> &str {
        &self.reason
    }

    /// What did not go as planned at start but is no reason not to serve, one line each, to be logged once.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How flows find their shards, and why so.
    #[must_use]
    pub fn steering(&self) -> &Steering {
        &self.steering
    }

    /// Bound TCP address.
    #[must_use]
    pub fn tcp_address(&self) -> SocketAddr {
        self.tcp
    }

    /// Bound UDP address.
    #[must_use]
    pub fn udp_address(&self) -> SocketAddr {
        self.udp
    }

    /// A way to send quotes to the feed thread.
    #[must_use]
    pub fn feed(&self) -> FeedSender {
        self.feed.clone()
    }

    /// What each venue contributes to `asset` now, asked of the feed thread; `None` when it does not answer within
    /// `wait`. Blocks the caller meanwhile.
    #[must_use]
    pub fn inspect(&self, asset: AssetId, wait: Duration) -> Option<Vec<VenueDetail>> {
        self.feed.inspect(asset, wait)
    }

    /// The feed shard's counters, as of its last sweep.
    #[must_use]
    pub fn feed_counters(&self) -> FeedCounters {
        feed_thread::read(&self.feed_counters)
    }

    /// Sockets handed over. One thread should receive.
    #[must_use]
    pub fn hand_overs(&self) -> Receiver<HandedOver> {
        self.hand_overs.clone()
    }

    /// The control plane's own ring of ticks; can be taken once. Nobody is woken for it: look by yourself.
    #[must_use]
    pub fn take_ticks(&self) -> Option<Consumer<Tick>> {
        lock(&self.ticks).take()
    }

    /// Each shard's ring of usage records; can be taken once.
    #[must_use]
    pub fn take_usage(&self) -> Vec<Consumer<UsageRecord>> {
        std::mem::take(&mut *lock(&self.usage))
    }

    /// What the shards ask of the control plane; can be taken once. One thread should wait on it.
    #[must_use]
    pub fn take_asks(&self) -> Option<AskReceiver> {
        lock(&self.asks).take()
    }

    /// Gives an instruction to one shard and wakes it; waits for room in its channel. Nothing happens when there is no such
    /// shard. A key directory is for all shards: that is what [`DataPlane::command`] keeps until each has let go of it.
    pub fn command_one(&self, shard: u16, command: ShardCommand) {
        if let Some(shard) = self.shards.get(usize::from(shard)) {
            // It can only fail when the shard has ended, which `failed_thread` tells.
            let _ = shard.commands.send(command);
            shard.wake.tell();
        }
    }

    /// Gives an instruction to every shard and wakes them; waits for room in a shard's channel. A key directory that is
    /// replaced is kept here until every shard has let go of it, and is freed by a later call of this or of
    /// [`DataPlane::stats`].
    pub fn command(&self, command: &ShardCommand) {
        if let ShardCommand::Keys(next) = command {
            lock(&self.keys).replace(Arc::clone(next));
        }
        self.free_unused_keys();
        for shard in &self.shards {
            // It can only fail when the shard has ended, which `failed_thread` tells.
            let _ = shard.commands.send(command.clone());
            shard.wake.tell();
        }
    }

    fn free_unused_keys(&self) {
        let unused = lock(&self.keys).take_unused();
        drop(unused);
    }

    /// What every shard published last.
    #[must_use]
    pub fn stats(&self) -> Vec<ShardStats> {
        self.free_unused_keys();
        self.shards.iter().map(|shard| shard.stats.read()).collect()
    }

    /// The name of a data plane thread that ended though it was not told to: a bug, the process must stop.
    #[must_use]
    pub fn failed_thread(&self) -> Option<String> {
        // Held while `stop` joins, but then the answer is `None` without waiting for it.
        if self.stopping.load(Ordering::Acquire) {
            return None;
        }
        let threads = lock(&self.threads);
        threads.iter().find(|thread| thread.handle.is_finished()).map(|thread| thread.name.clone())
    }

    /// Stops every thread and waits for them. Shards first: they serve until the end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.command(&ShardCommand::Stop);
        self.feed.stop();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A thread that panicked has said so on stderr.
            let _ = thread.handle.join();
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Nothing behind these locks can be left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
