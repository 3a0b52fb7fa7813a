//! The thread of one serving shard: pinned first, then everything it will use is allocated, then it turns.

use crate::choice::Engine;
use crate::handover::HandedOver;
use crate::lag::LagHistogram;
use crate::stats::PublishedStats;
use crate::wake::{ShardWake, ThreadWake};
use crate::wiring::ShardLoop;
use crate::{epoll, uring};
use crossbeam_channel::{Receiver, Sender};
use dataplane_core::command::ShardCommand;
use dataplane_core::shard::{Shard, ShardSetup};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;

/// Everything that moves into the thread.
pub(crate) struct ShardThread {
    pub(crate) engine: Engine,
    pub(crate) direct_descriptors: bool,
    /// Where it is to run; `None`: anywhere.
    pub(crate) cpu: Option<usize>,
    pub(crate) setup: ShardSetup,
    pub(crate) listener: TcpListener,
    pub(crate) datagrams: UdpSocket,
    pub(crate) commands: Receiver<ShardCommand>,
    pub(crate) hand_overs: Sender<HandedOver>,
    pub(crate) stats: Arc<PublishedStats>,
    pub(crate) wake: Arc<ShardWake>,
    pub(crate) asks: Arc<ThreadWake>,
    pub(crate) connections_max: usize,
    /// Told once: the loop turns, or why it never will.
    pub(crate) turning: Sender<Result<(), String>>,
    /// Told of what the operator should know. Has room for one line of each shard.
    pub(crate) warnings: Sender<String>,
}

/// Turns until told to stop.
pub(crate) fn run(thread: ShardThread) {
    if let Some(cpu) = thread.cpu {
        match tuning::pin::pin_current_thread(cpu) {
            Ok(()) => thread.stats.pinned_to(cpu),
            Err(refused) => drop(thread.warnings.try_send(format!("shard {}: {refused}", thread.setup.index))),
        }
    }
    let turning = thread.turning.clone();
    let context = ShardLoop {
        shard: Shard::new(thread.setup),
        feed_lag: LagHistogram::default(),
        listener: thread.listener,
        datagrams: thread.datagrams,
        commands: thread.commands,
        hand_overs: thread.hand_overs,
        stats: thread.stats,
        wake: thread.wake,
        asks: thread.asks,
        connections_max: thread.connections_max,
        direct_descriptors: thread.direct_descriptors,
        turning: thread.turning,
    };
    let ended = match thread.engine {
        Engine::IoUring => uring::run(context),
        Engine::Epoll => epoll::run(context),
        #[cfg(feature = "monoio")]
        Engine::Monoio => crate::monoio::run(context),
        #[cfg(feature = "glommio")]
        Engine::Glommio => crate::glommio::run(context),
    };
    if let Err(reason) = ended {
        // Once it has turned nobody listens any more: a panic is how a thread says its last word, on stderr.
        if turning.try_send(Err(reason.clone())).is_err() {
            panic!("{reason}");
        }
    }
}
