//! What a shard's thread is given, and the parts of a loop turn that both engines share.
//!
//! The loops themselves are `uring::run` and `epoll::run`, chosen by one `match` at thread start.

use crate::handover::HandedOver;
use crate::lag::LagHistogram;
use crate::limits::FEED_ROUNDS_MAX;
use crate::stats::PublishedStats;
use crate::wake::{ShardWake, ThreadWake};
use crossbeam_channel::{Receiver, Sender};
use dataplane_core::command::ShardCommand;
use dataplane_core::shard::{ReadyList, Shard};
use shared::moment::Moment;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;

/// Everything one shard's loop works with. Made on the shard's own thread, after it was pinned.
pub(crate) struct ShardLoop {
    /// The logic.
    pub(crate) shard: Shard,
    /// How long the prices took that the shard has.
    pub(crate) feed_lag: LagHistogram,
    /// Non-blocking, bound, listening. Accepted sockets inherit TCP_NODELAY and the send buffer.
    pub(crate) listener: TcpListener,
    /// Non-blocking, bound.
    pub(crate) datagrams: UdpSocket,
    /// Bound: `COMMANDS_WAITING_MAX`. The sender tells `wake` of each.
    pub(crate) commands: Receiver<ShardCommand>,
    /// Bound: `HAND_OVERS_WAITING_MAX`.
    pub(crate) hand_overs: Sender<HandedOver>,
    /// Where the loop publishes at its idle tick.
    pub(crate) stats: Arc<PublishedStats>,
    /// Parked flag and eventfd.
    pub(crate) wake: Arc<ShardWake>,
    /// Whom to wake when the shard has asked for something.
    pub(crate) asks: Arc<ThreadWake>,
    /// Slots of the slab.
    pub(crate) connections_max: usize,
    /// Whether io_uring is to accept into direct descriptors. Nothing to epoll.
    pub(crate) direct_descriptors: bool,
    /// Told once, when the loop is about to turn for the first time.
    pub(crate) turning: Sender<Result<(), String>>,
}

/// What the commands of one turn ask of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Accept no more connections.
    pub(crate) stop_accepting: bool,
    /// Leave the loop.
    pub(crate) stop: bool,
}

impl ShardLoop {
    /// Tells whoever started the thread that the loop turns now.
    pub(crate) fn announce(&self) {
        // It can only fail when the starter has given up, and then a stop is on its way.
        let _ = self.turning.try_send(Ok(()));
    }

    /// Carries out the commands that are waiting.
    #[inline]
    pub(crate) fn take_commands(&mut self) -> Orders {
        let mut orders = Orders::default();
        if !self.wake.take_told() {
            return orders;
        }
        while let Ok(command) = self.commands.try_recv() {
            orders.stop_accepting |= matches!(command, ShardCommand::StopAccepting);
            orders.stop |= matches!(command, ShardCommand::Stop);
            self.shard.apply(command);
        }
        orders
    }

    /// Takes every tick that is in the ring (bounded); a busy turn calls it before each request it parses.
    #[inline]
    pub(crate) fn drain_feed(&mut self, now: Moment, ready: &mut ReadyList) {
        if !self.shard.feed_is_empty() {
            drain(&mut self.shard, &mut self.feed_lag, now, ready);
        }
    }

    /// What every turn ends with.
    #[inline]
    pub(crate) fn end_turn(&mut self, now: Moment) {
        self.shard.end_turn(now);
        if self.shard.take_asked() {
            self.asks.notify();
        }
    }

    /// Sets the parked flag, then looks once more: `true` when the loop may sleep. Call `wake.unpark()` afterwards,
    /// whatever the answer.
    #[inline]
    pub(crate) fn park(&self) -> bool {
        self.wake.park();
        self.shard.feed_is_empty() && !self.wake.is_told()
    }
}

/// Takes what is in the ring, one whole ring at most, and counts how long it took to get here. The clock is read once
/// for all ticks of a round, after the last of them can be had.
pub(crate) fn drain(shard: &mut Shard, feed_lag: &mut LagHistogram, now: Moment, ready: &mut ReadyList) {
    for _ in 0..FEED_ROUNDS_MAX {
        if shard.drain_feed(now, ready) == 0 {
            break;
        }
        let had_mono_ns = tuning::clock::mono_ns();
        for received_mono_ns in shard.frames_taken() {
            feed_lag.add(had_mono_ns.saturating_sub(*received_mono_ns));
        }
    }
}
