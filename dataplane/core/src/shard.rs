//! One core's whole serving state, and the seam that the engines drive.

use crate::access::KeyDirectory;
use crate::command::{ShardCommand, ShardParameters};
use crate::counters::ShardCounters;
use crate::reply::ReplyBuffer;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use rtrb::{Consumer, Producer};
use shared::asset::AssetDirectory;
use shared::moment::Moment;
use shared::tick::Tick;
use shared::usage::UsageRecord;

/// What a shard is made of.
pub struct ShardSetup {
    /// Its number, from 0.
    pub index: u16,
    /// How many serving shards the process has: allowances are leased in shares of it.
    pub shards: u16,
    /// Every asset.
    pub assets: Arc<AssetDirectory>,
    /// Every key.
    pub keys: Arc<KeyDirectory>,
    /// Tunables.
    pub parameters: ShardParameters,
    /// Prices arrive here.
    pub ticks: Consumer<Tick>,
    /// Usage leaves here.
    pub usage: Producer<UsageRecord>,
    /// Random; seeds every hash map whose keys a client can choose.
    pub hash_seed: u64,
}

/// Number that the engine gives a connection: its slot and the slot's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamToken(pub u64);

/// What the engine does with a connection after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Send what the buffer holds (perhaps nothing), then wait for more bytes.
    Read,
    /// Send what the buffer holds, then call again with the unconsumed input: the next reply did not fit.
    Write,
    /// Send what the buffer holds, then close (half-close first, so that the last reply is not lost to a reset).
    WriteAndClose,
    /// Send what the buffer holds; the next request waits for a tick. Keep unconsumed input, read no more than a
    /// buffer of it, and call again when `ReadyList` names the connection.
    Wait,
    /// Send what the buffer holds, then give the socket with the unconsumed input to the control plane.
    HandOver,
}

/// Outcome of one `serve_stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStep {
    /// Input bytes that are dealt with; the engine keeps the rest and presents it again, in front of newer bytes.
    pub consumed: usize,
    /// What to do next.
    pub then: Then,
    /// When to close the connection if nothing more happens on it, monotonic ms: head time-out or keep-alive.
    pub deadline_mono_ms: u64,
}

/// Outcome of one `serve_datagram`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramStep {
    /// Send nothing.
    Silent,
    /// Send this many bytes of the reply buffer back.
    Reply(usize),
}

/// Connections whose waiting request can be answered now.
#[derive(Debug, Default)]
pub struct ReadyList {
    /// In the order in which they began to wait.
    pub streams: Vec<StreamToken>,
}

/// One connection's protocol state. The engine owns it, hands it to `serve_stream`, and drops it after `close_stream`.
pub struct HttpConnection {
    token: StreamToken,
}

impl HttpConnection {
    /// A fresh connection.
    #[must_use]
    pub fn new(token: StreamToken) -> Self {
        Self { token }
    }

    /// The number the engine gave it.
    #[must_use]
    pub const fn token(&self) -> StreamToken {
        self.token
    }
}

/// One core's serving state: table, access, waiters, usage.
pub struct Shard {}

impl Shard {
    /// Builds the shard; allocates everything that serving will need.
    #[must_use]
    pub fn new(_setup: ShardSetup) -> Self {
        unimplemented!()
    }

    /// Consumes request bytes of one connection and appends reply bytes: every complete pipelined request, in order.
    pub fn serve_stream(
        &mut self,
        _now: Moment,
        _connection: &mut HttpConnection,
        _input: &[u8],
        _output: &mut ReplyBuffer,
    ) -> StreamStep {
        unimplemented!()
    }

    /// Forgets a connection that is gone (a request of it may still be waiting).
    pub fn close_stream(&mut self, _connection: &mut HttpConnection) {
        unimplemented!()
    }

    /// Answers one datagram, or stays silent. `reply` has at least `DATAGRAM_OUT_MAX` bytes.
    pub fn serve_datagram(
        &mut self,
        _now: Moment,
        _from: SocketAddr,
        _request: &[u8],
        _reply: &mut [u8],
    ) -> DatagramStep {
        unimplemented!()
    }

    /// Takes ticks from the ring (bounded) and names the connections that can now be answered. Answers how many
    /// ticks were taken; when the bound was hit, call again before parking.
    pub fn drain_feed(&mut self, _now: Moment, _ready: &mut ReadyList) -> usize {
        unimplemented!()
    }

    /// Whether ticks are waiting: asked after the parked flag is set, so that none is slept through.
    #[must_use]
    pub fn feed_is_empty(&self) -> bool {
        unimplemented!()
    }

    /// Housekeeping, on a long-period timer (100 ms): waiting requests past their time, usage windows.
    pub fn idle_tick(&mut self, _now: Moment, _ready: &mut ReadyList) {
        unimplemented!()
    }

    /// Carries out an instruction of the control plane.
    pub fn apply(&mut self, _command: ShardCommand) {
        unimplemented!()
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &ShardCounters {
        unimplemented!()
    }
}
