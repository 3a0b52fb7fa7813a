//! One core's whole serving state, and the seam that the engines drive.
//!
//! Orchestration only: what a request means is known to `http` and `datagram`, who may ask to `access`, what a price is
//! to `table`, and the bytes of answers to `render`. Nothing here knows a socket or a clock.

use crate::access::{Gate, KeyDirectory};
use crate::command::{ShardCommand, ShardParameters};
use crate::counters::ShardCounters;
use crate::datagram::{KnownKeys, WaitingDatagrams};
use crate::governor::Governor;
use crate::http::long::LongBodies;
use crate::limits::{DATAGRAMS_WAITING_MAX, TICKS_PER_DRAIN_MAX, WAITERS_MAX};
use crate::lookup::Ask;
use crate::lookups::Lookups;
use crate::render::date::DateText;
use crate::render::problem::Problem;
use crate::render::ready::CommonHead;
use crate::reply::ReplyBuffer;
use crate::table::PriceTable;
use crate::usage::{Outcome, UsageMeter};
use crate::waiters::Waiters;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use rtrb::{Consumer, Producer};
use shared::asset::{AssetDirectory, AssetId, Symbol};
use shared::code::Code;
use shared::key::KeyId;
use shared::moment::Moment;
use shared::tick::{Tick, Tier};
use shared::usage::{ASSET_NONE, Endpoint, UsageRecord};

pub use crate::http::connection::HttpConnection;

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
    /// What the table cannot answer is asked here.
    pub asks: Producer<Ask>,
    /// Whether there is any: `false` is for measuring what it costs.
    pub counts_usage: bool,
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
    /// Send what the buffer holds, then call again with the unconsumed input (there always is some): the next reply, or
    /// the rest of a long one, did not fit.
    Write,
    /// Send what the buffer holds, then close (half-close first, so that the last reply is not lost to a reset).
    WriteAndClose,
    /// Send what the buffer holds; the next request waits for a tick or a lookup. Keep unconsumed input, read no more
    /// than a buffer of it, and call again when `ReadyList` names the connection.
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
    /// Nothing yet: the request waits for a lookup. Remember whom to answer under this ticket, and call
    /// [`Shard::serve_waiting`] when [`ReadyList::datagrams`] names it.
    Wait(DatagramTicket),
}

/// Place of a datagram that waits: below [`crate::limits::DATAGRAMS_WAITING_MAX`]. It is used again once it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatagramTicket(pub u16);

/// Waiting requests that can be taken up again: most are answered then, some wait on.
#[derive(Debug)]
pub struct ReadyList {
    /// Connections; those that waited for the same are in the order in which they began to wait. The engine takes them out.
    pub streams: Vec<StreamToken>,
    /// Datagrams, in the same order, each at most once until it is served.
    pub datagrams: Vec<DatagramTicket>,
}

impl ReadyList {
    /// An empty list with room for every request that can wait (160 KiB), so that it never grows.
    #[must_use]
    pub fn new() -> Self {
        Self { streams: Vec::with_capacity(WAITERS_MAX), datagrams: Vec::with_capacity(DATAGRAMS_WAITING_MAX) }
    }
}

impl Default for ReadyList {
    fn default() -> Self {
        Self::new()
    }
}

/// One core's serving state: table, access, waiters, usage.
pub struct Shard {
    pub(crate) index: u16,
    /// How many shards there are.
    shards: u16,
    pub(crate) assets: Arc<AssetDirectory>,
    pub(crate) gate: Gate,
    pub(crate) governor: Governor,
    pub(crate) known_keys: KnownKeys,
    pub(crate) table: PriceTable,
    pub(crate) waiters: Waiters,
    pub(crate) lookups: Lookups,
    pub(crate) waiting_datagrams: WaitingDatagrams,
    pub(crate) long: LongBodies,
    pub(crate) parameters: ShardParameters,
    pub(crate) is_draining: bool,
    /// Nobody waits any longer: the node will be gone before anything comes.
    pub(crate) is_waiting_over: bool,
    pub(crate) counters: ShardCounters,
    meter: UsageMeter,
    pub(crate) head: CommonHead,
    ticks: Consumer<Tick>,
    /// See [`Shard::frames_taken`].
    frames_taken: Vec<u64>,
    usage: Producer<UsageRecord>,
    pub(crate) asks: Producer<Ask>,
    /// Something was put into `asks` since the engine looked.
    pub(crate) has_asked: bool,
    counts_usage: bool,
}

/// One answered request, for the books.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) key: KeyId,
    /// The one asset it was about, if it was about one that is known.
    pub(crate) asset: Option<AssetId>,
    pub(crate) status: u16,
    /// `None` when it was answered as asked.
    pub(crate) code: Option<Code>,
    pub(crate) tier: u8,
    pub(crate) protocol: u8,
    pub(crate) endpoint: Endpoint,
}

impl Shard {
    /// Builds the shard; allocates everything that serving will need.
    #[must_use]
    pub fn new(setup: ShardSetup) -> Self {
        Self {
            index: setup.index,
            shards: setup.shards,
            governor: Governor::new(),
            gate: Gate::new(setup.keys, setup.shards),
            known_keys: KnownKeys::new(),
            table: PriceTable::new(),
            waiters: Waiters::new(),
            lookups: Lookups::new(setup.hash_seed),
            waiting_datagrams: WaitingDatagrams::new(setup.parameters.datagrams_waiting, setup.shards),
            long: LongBodies::new(count_prewarmed(&setup.assets)),
            assets: setup.assets,
            parameters: setup.parameters,
            is_draining: false,
            is_waiting_over: false,
            counters: ShardCounters::default(),
            meter: UsageMeter::new(setup.index, setup.shards, setup.hash_seed),
            head: CommonHead::new(),
            ticks: setup.ticks,
            frames_taken: Vec::with_capacity(TICKS_PER_DRAIN_MAX),
            usage: setup.usage,
            asks: setup.asks,
            has_asked: false,
            counts_usage: setup.counts_usage,
        }
    }

    /// Consumes request bytes of one connection and appends reply bytes: every complete pipelined request, in order.
    /// `output` is empty when a turn begins.
    pub fn serve_stream(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        input: &[u8],
        output: &mut ReplyBuffer,
    ) -> StreamStep {
        self.serve_requests(now, connection, input, output)
    }

    /// Appends the error reply of `code`, with which the connection closes, and counts it: for the engine, when it
    /// cannot do what a step asked for.
    pub fn refuse_stream(&mut self, now: Moment, code: Code, output: &mut ReplyBuffer) {
        let _closing = self.refuse_framing(now, Problem::of(code), output);
    }

    /// Forgets a connection that is gone (a request of it may still be waiting).
    pub fn close_stream(&mut self, connection: &mut HttpConnection) {
        self.abandon(connection);
        self.governor.leave(&mut connection.counted_in);
    }

    /// Answers one datagram, or stays silent. `reply` has at least `DATAGRAM_OUT_MAX` bytes.
    pub fn serve_datagram(&mut self, now: Moment, from: SocketAddr, request: &[u8], reply: &mut [u8]) -> DatagramStep {
        self.counters.datagrams += 1;
        let step = self.answer_datagram(now, from, request, reply);
        self.count_datagram(step);
        step
    }

    /// Answers a datagram that waited and was named in a ready list; its ticket is free then, unless it has to wait on.
    /// `reply` has at least `DATAGRAM_OUT_MAX` bytes.
    pub fn serve_waiting(&mut self, now: Moment, ticket: DatagramTicket, reply: &mut [u8]) -> DatagramStep {
        let step = self.answer_waiting(now, ticket, reply);
        self.count_datagram(step);
        step
    }

    #[inline]
    fn count_datagram(&mut self, step: DatagramStep) {
        match step {
            DatagramStep::Silent => self.counters.datagrams_silent += 1,
            DatagramStep::Reply(_) => self.counters.datagram_replies += 1,
            DatagramStep::Wait(_) => {}
        }
    }

    /// Whether anything was asked of the control plane since the last call: then it is to be woken.
    #[inline]
    pub fn take_asked(&mut self) -> bool {
        core::mem::take(&mut self.has_asked)
    }

    /// Takes ticks from the ring (bounded) and names who can now be answered, those whose lookups came to nothing among
    /// them. Answers how many ticks were taken; when the bound was hit, call again before parking.
    pub fn drain_feed(&mut self, now: Moment, ready: &mut ReadyList) -> usize {
        self.lookups.tell_time(now.mono_ms());
        let mut taken = 0;
        self.frames_taken.clear();
        while taken < TICKS_PER_DRAIN_MAX
            && let Ok(tick) = self.ticks.pop()
        {
            taken += 1;
            if tick.is_prompt() {
                self.frames_taken.push(tick.received_mono_ns);
            }
            if let Some(asset) = self.table.take(&tick) {
                self.waiters.release(asset, tick.sequence, ready);
                if tick.is_stale() {
                    if let Some(lookup) = self.lookups.of_asset(asset) {
                        self.waiters.release_stale(lookup, ready);
                    }
                } else if self.lookups.found(asset) {
                    self.counters.lookups_found += 1;
                }
            }
        }
        self.name_sought(ready);
        if taken > 0 {
            self.counters.ticks += taken as u64;
            self.counters.generation = self.table.generation();
        }
        self.gauge_waiting();
        taken
    }

    /// When the frames behind the ticks of the last `drain_feed` were received, monotonic ns; without the ticks that
    /// housekeeping made. What has passed since then, now that they can be had, is how far this shard lags.
    #[must_use]
    pub fn frames_taken(&self) -> &[u64] {
        &self.frames_taken
    }

    /// Whether `drain_feed` has nothing to do, neither ticks nor lookups that came to nothing: asked after the parked flag
    /// is set, so that none is slept through.
    #[must_use]
    pub fn feed_is_empty(&self) -> bool {
        self.ticks.is_empty() && !self.lookups.has_settled()
    }

    /// What a turn of the engine ends with, whatever it did: usage that was counted leaves now unless much left lately.
    #[inline]
    pub fn end_turn(&mut self, now: Moment) {
        if self.meter.is_due(now.mono_ns) {
            self.flush_usage(now);
        }
    }

    /// Housekeeping, on a long-period timer (50 ms), and once more before the loop is left for good: waiting requests
    /// past their time, usage that turns left behind, the governor's window, which assets are in use.
    pub fn idle_tick(&mut self, now: Moment, ready: &mut ReadyList) {
        self.keep_lookups(now);
        self.name_sought(ready);
        let until_ms = if self.is_waiting_over { u64::MAX } else { now.mono_ms() };
        self.waiters.expire(until_ms, ready);
        self.gauge_waiting();
        self.governor.turn(now.mono_ms());
        self.governor.publish(&mut self.counters);
        self.flush_usage(now);
    }

    /// How long a client may take nothing of what is being sent to it, ms.
    #[inline]
    #[must_use]
    pub const fn write_stall_ms(&self) -> u64 {
        self.parameters.write_stall_ms
    }

    /// Carries out an instruction of the control plane.
    pub fn apply(&mut self, command: ShardCommand) {
        match command {
            ShardCommand::Keys(keys) => self.gate.replace(keys),
            ShardCommand::Assets(assets) => {
                self.long.resize(count_prewarmed(&assets));
                self.assets = assets;
                self.bind_lookups();
            }
            ShardCommand::Parameters(parameters) => {
                self.waiting_datagrams.set_most(parameters.datagrams_waiting, self.shards);
                self.parameters = parameters;
            }
            ShardCommand::Governor(bounds) => self.governor.set(self.index, &bounds),
            ShardCommand::Drain => self.is_draining = true,
            ShardCommand::StopAccepting => self.is_waiting_over = true,
            ShardCommand::NotFound(not_found) => self.take_not_found(&not_found),
            // What is left in the meter leaves at the idle tick behind the loop.
            ShardCommand::Stop => {}
        }
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &ShardCounters {
        &self.counters
    }

    /// Shows how many wait, and for how many lookups.
    pub(crate) fn gauge_waiting(&mut self) {
        self.counters.waiting = self.waiters.waiting() as u64;
        self.counters.datagrams_waiting = self.waiting_datagrams.held() as u64;
        self.counters.lookups_under_way = self.lookups.under_way() as u64;
    }

    /// The `Date` field's text.
    pub(crate) fn date(&mut self, now: Moment) -> DateText {
        self.head.keep_current(now.wall_ms);
        self.head.date()
    }

    /// See [`find_price`].
    #[inline]
    pub(crate) fn find_price(&self, symbol: &Symbol, allow_stale: bool) -> Result<AssetId, Missing> {
        find_price(&self.assets, &self.table, symbol, allow_stale)
    }

    /// Enters one answered request into counters and meter.
    #[inline]
    pub(crate) fn book(&mut self, now: Moment, answered: Answered) {
        match answered.code {
            Some(code) => self.counters.refuse(code),
            None => self.counters.answered += 1,
        }
        if self.counts_usage {
            self.meter_answer(now, &answered);
        }
    }

    #[inline]
    fn meter_answer(&mut self, now: Moment, answered: &Answered) {
        let outcome = Outcome {
            key: answered.key,
            asset: answered.asset.map_or(ASSET_NONE, AssetId::number),
            status: answered.status,
            protocol: answered.protocol,
            code: answered.code.map_or(0, Code::number),
            tier: if answered.code.is_none() { answered.tier } else { Tier::Local as u8 },
            endpoint: answered.endpoint as u8,
        };
        let mut nowhere = u16::MAX;
        let hint = answered.asset.and_then(|asset| self.table.note_use(asset)).unwrap_or(&mut nowhere);
        if !self.meter.count_hinted(outcome, now.wall_ms, *hint) {
            if self.meter.is_pressed(&self.usage) {
                self.meter.flush(now, &mut self.usage, &self.assets);
            }
            *hint = self.meter.count(outcome, now.wall_ms);
        }
    }

    fn flush_usage(&mut self, now: Moment) {
        self.counters.usage_ring_full += self.meter.flush(now, &mut self.usage, &self.assets) as u64;
        self.counters.usage_coarser += self.meter.take_coarser();
    }
}

/// Why there is no price to give, and the asset where it is known.
pub(crate) type Missing = (Code, Option<AssetId>);

/// The asset called `symbol`, if it has a price that may be given out.
///
/// # Errors
/// `asset_unknown`, `price_unavailable`, `price_stale`; with the asset where it is known.
#[inline]
pub(crate) fn find_price(
    assets: &AssetDirectory,
    table: &PriceTable,
    symbol: &Symbol,
    allow_stale: bool,
) -> Result<AssetId, Missing> {
    let asset = assets.find(symbol).ok_or((Code::AssetUnknown, None))?;
    let row = table.row(asset).ok_or((Code::PriceUnavailable, Some(asset)))?;
    let is_refused = row.tick().is_stale() && !allow_stale;
    if is_refused { Err((Code::PriceStale, Some(asset))) } else { Ok(asset) }
}

fn count_prewarmed(assets: &AssetDirectory) -> usize {
    assets.prewarmed().count()
}
