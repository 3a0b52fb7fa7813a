//! Bounds of the engines, each with its arithmetic. What one connection or one shard may hold is decided here.

use dataplane_core::limits::{METER_WINDOW_MAX_NS, REQUEST_HEAD_MAX, TICKS_PER_DRAIN_MAX};
use shared::limits::TICK_RING_CAPACITY;
use tuning::ring_probe::{FILE_TABLE_ENTRIES, RECEIVE_BUFFER_BYTES};

/// TCP connections of one shard. An idle one holds its slab slot and nothing else, below 1 KiB: 16 MiB a shard.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Slots by which the slab grows. 64 slots are below 64 KiB, so a quiet shard stays small and growth is rare.
pub(crate) const SLAB_CHUNK: usize = 64;

/// Unconsumed input at which a connection is no longer read from, unless the shard asks for more of it: above a request
/// head, so that the next request can always become whole.
pub(crate) const INPUT_PAUSE_BYTES: usize = 2 * REQUEST_HEAD_MAX;

/// Unconsumed input at which a connection is closed. Stopping a multishot receive takes effect at the next submission,
/// and until then one turn brings all that waits in the kernel: what `RECEIVE_SOCKET_BYTES` allows, 128 KiB, and
/// what the client refills meanwhile. Eight times that is never reached by a client that means well.
pub(crate) const INPUT_MAX_BYTES: usize = 1_024 * 1_024;

/// Input buffers larger than `INPUT_POOLED_BYTES` of all connections of one shard together: some 250 bursts as above at
/// once. Past it the connection whose burst asks for more is closed. Smaller buffers are not counted: a slab full of
/// half heads of 8 KiB is 128 MiB, and no burst can take that from them.
pub(crate) const INPUT_BURSTS_BYTES: usize = 64 * 1_024 * 1_024;

/// Input in such buffers at which a shard is pressed: io_uring then receives one buffer at a time, and nothing for a
/// client that does not take its replies. The rest of the bound is for what is on its way by then: a turn's receive
/// buffers, 4 MiB, in input buffers of at most twice their content.
pub(crate) const INPUT_PRESSURE_BYTES: usize = INPUT_BURSTS_BYTES / 4;

/// First capacity of an input buffer: a head of a browser with its cookies fits.
pub(crate) const INPUT_FIRST_BYTES: usize = 2 * 1_024;

/// Input buffers kept for reuse: with the next bound 16 MiB at most.
pub(crate) const INPUTS_POOLED_MAX: usize = 512;

/// Largest input buffer kept for reuse; larger ones, left by a burst, go back to the allocator.
pub(crate) const INPUT_POOLED_BYTES: usize = 32 * 1_024;

/// Reply buffers of one shard in use at once: connections whose last reply is still being sent. 4,096 × 16 KiB = 64 MiB;
/// past it connections stand in line for one that comes back, for `ShardParameters::write_stall_ms` at most. A tick that
/// releases a slab full of waiting requests is thus answered in four turns.
pub(crate) const OUTPUTS_MAX: usize = 4_096;

/// Reply buffers kept for reuse: 512 × 16 KiB = 8 MiB. More than that in one turn come from the allocator.
pub(crate) const OUTPUTS_POOLED_MAX: usize = 512;

/// Connections accepted by one system call each in one turn: 64 at some 10 µs hold up the connected for less than a
/// millisecond.
pub(crate) const ACCEPTS_PER_TURN: usize = 64;

/// Send buffer of a connection in the kernel (which doubles it), bytes. Some 500 replies; and because the kernel
/// reports room when a third is free, a client has to read 17 KiB a second not to be called stalled.
pub(crate) const SEND_SOCKET_BYTES: usize = 128 * 1_024;

/// Receive buffer of a connection in the kernel (which doubles it), bytes: 300 requests. It bounds what a client can have
/// waiting that nobody has read.
pub(crate) const RECEIVE_SOCKET_BYTES: usize = 64 * 1_024;

/// Instructions of the control plane waiting for one shard. They are few; the sender waits for room.
pub(crate) const COMMANDS_WAITING_MAX: usize = 64;

/// Sockets waiting for the control plane, over all shards. It takes thousands a second; beyond it the answer is
/// `overloaded`.
pub(crate) const HAND_OVERS_WAITING_MAX: usize = 1_024;

/// Open files that connections may not use up: venues, handed-over sockets, the database, files. Half the limit where
/// that is less.
pub(crate) const FILES_RESERVED: usize = 1_024;

/// Period of housekeeping: waiting requests past their time, usage windows, counters. What a process that is killed takes
/// with it of the usage is at most this and a turn of the journal, 25 ms, and may be 100 ms.
pub(crate) const HOUSEKEEPING_MS: u64 = 50;

/// Period of the feed's sweep, in which staleness is noticed: see `FeedShard::sweep`.
pub(crate) const FEED_SWEEP_MS: u64 = 100;

/// Period in which connections past their deadline are looked for: 16,384 × 8 bytes read twice a second. A head
/// time-out of 5 s is thus carried out within 5.6 s.
pub(crate) const SWEEP_MS: u64 = 500;

/// How long a fresh connection may stay silent.
pub(crate) const FIRST_BYTE_MS: u64 = 10_000;

/// How long, after our last reply and half-close, the client may take to close its side.
pub(crate) const LINGER_MS: u64 = 2_000;

/// How much of what the client still sends in that time is read and thrown away before it is cut off.
pub(crate) const LINGER_BYTES_MAX: usize = 256 * 1_024;

/// Inputs the feed thread takes before it wakes the shards: at 1 µs each, 64 delay the first by 64 µs at most.
pub(crate) const FEED_BATCH: usize = 64;

/// Rounds of draining the tick ring at a time: one whole ring. A feed that outruns even this is taken up again before
/// the next request.
pub(crate) const FEED_ROUNDS_MAX: usize = TICK_RING_CAPACITY / TICKS_PER_DRAIN_MAX;

const _: () = assert!(HOUSEKEEPING_MS * 1_000_000 == METER_WINDOW_MAX_NS);
const _: () = assert!(CONNECTIONS_MAX <= FILE_TABLE_ENTRIES as usize);
const _: () = assert!(CONNECTIONS_MAX <= 1 << crate::connections::INDEX_BITS);
const _: () = assert!(INPUT_PAUSE_BYTES + RECEIVE_BUFFER_BYTES <= INPUT_POOLED_BYTES);
const _: () = assert!(INPUT_PAUSE_BYTES + 4 * RECEIVE_SOCKET_BYTES < INPUT_MAX_BYTES);
