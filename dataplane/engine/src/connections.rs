//! The connections of one shard: a slab of slots, their deadlines, and the step that both engines take with one.
//!
//! `E` is what the engine needs to know of a connection (its descriptor, what is in flight). Nothing here does I/O.
//! A slot's generation is part of the connection's token, so whatever arrives late for a closed connection finds nobody.

use crate::limits::{FIRST_BYTE_MS, SLAB_CHUNK};
use dataplane_core::reply::ReplyBuffer;
use dataplane_core::shard::{HttpConnection, Shard, StreamToken, Then};
use shared::code::Code;
use shared::moment::Moment;

mod buffers;

pub(crate) use buffers::{Buffers, Exhausted, Input};

/// Bits of a token that hold the slot's index.
pub(crate) const INDEX_BITS: u32 = 24;

/// Bits of a token in use: 24 of the index and 32 of the generation; an engine may use the 8 above for itself.
pub(crate) const TOKEN_BITS: u32 = INDEX_BITS + 32;

/// What a connection waits for when nothing is left to be sent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// For bytes from the client.
    Reading,
    /// For the reply buffer to be empty: then the shard goes on with the input that is there.
    Again,
    /// For a tick: the shard's ready list names the connection.
    Waiting,
    /// For the last reply to leave; then our side is closed.
    Closing,
    /// For the last reply to leave; then the socket goes to the control plane.
    HandingOver,
    /// For the client to close its side.
    Lingering,
}

/// One connection. In this order, what a request touches lies together: three cache lines and the remembered head.
#[repr(C)]
pub(crate) struct Connection<E> {
    /// What it waits for.
    pub(crate) phase: Phase,
    /// Whether the client has closed its side.
    pub(crate) input_ended: bool,
    /// Whether bytes were kept that the shard has not seen yet.
    pub(crate) unserved: bool,
    /// Whether it stands in line for a reply buffer.
    in_line: bool,
    /// Bytes that are not dealt with.
    pub(crate) input: Input,
    output: Option<ReplyBuffer>,
    sent: usize,
    /// Bytes thrown away while lingering.
    pub(crate) discarded: usize,
    /// When to close it if nothing more happens, as the last step said; in force while no send is in flight.
    pub(crate) deadline_mono_ms: u64,
    /// What the engine knows of it.
    pub(crate) io: E,
    /// The protocol's state.
    http: HttpConnection,
}

impl<E> Connection<E> {
    /// Bytes still to be sent. They stay where they are until [`Connection::sent`] or [`Connection::release`].
    pub(crate) fn unsent(&self) -> &[u8] {
        self.output.as_ref().and_then(|output| output.bytes().get(self.sent..)).unwrap_or_default()
    }

    /// Counts `bytes` of the output as sent; answers whether all of it is. A buffer that is done goes to the pool.
    pub(crate) fn sent(&mut self, bytes: usize, buffers: &mut Buffers) -> bool {
        self.sent += bytes;
        let done = self.unsent().is_empty();
        if done {
            self.release_output(buffers);
        }
        done
    }

    /// Lends the output to a runtime that wants to own what it sends, with the number of its bytes that are sent. Until
    /// [`Connection::give_back`] nothing may be served or sent on the connection, nor may it be released.
    #[cfg(any(feature = "monoio", feature = "glommio"))]
    pub(crate) fn lend(&mut self) -> Option<(ReplyBuffer, usize)> {
        self.output.take().map(|output| (output, self.sent))
    }

    /// Takes back what was lent.
    #[cfg(any(feature = "monoio", feature = "glommio"))]
    pub(crate) fn give_back(&mut self, output: ReplyBuffer) {
        self.output = Some(output);
    }

    /// Keeps `fresh` for later: the shard cannot go on with it now.
    pub(crate) fn keep(&mut self, fresh: &[u8], buffers: &mut Buffers) -> Result<(), Exhausted> {
        self.unserved = true;
        self.input.append(fresh, buffers)
    }

    /// Whether the connection has a reply buffer or can have one; else [`Connection::stand_in_line`].
    #[inline]
    pub(crate) fn can_reply(&self, buffers: &Buffers) -> bool {
        self.output.is_some() || buffers.has_output()
    }

    /// Waits for a reply buffer to come back: then [`Buffers::call_next`] names the connection. Answers whether the
    /// waiting begins with this.
    ///
    /// # Errors
    /// The line is as long as it may be: the connection must be closed.
    pub(crate) fn stand_in_line(&mut self, buffers: &mut Buffers) -> Result<bool, Exhausted> {
        if self.in_line {
            return Ok(false);
        }
        buffers.stand_in_line(self.http.token())?;
        self.in_line = true;
        Ok(true)
    }

    /// Presents what was kept and then `fresh` to the shard, and keeps what it leaves. Nothing may be in flight from
    /// the output. Afterwards `phase` says what is next, once [`Connection::unsent`] has left.
    ///
    /// # Errors
    /// A bound on buffers is reached, or the shard can make no headway: the connection must be closed.
    #[inline]
    pub(crate) fn serve(
        &mut self,
        shard: &mut Shard,
        now: Moment,
        fresh: &[u8],
        buffers: &mut Buffers,
    ) -> Result<(), Exhausted> {
        if self.output.is_none() {
            self.output = Some(buffers.take_output()?);
        }
        let output = self.output.as_mut().ok_or(Exhausted)?;
        self.unserved = false;
        self.in_line = false;
        let step = if self.input.is_empty() {
            // The common case: served where the kernel put it; only the start of an incomplete request is copied.
            let step = shard.serve_stream(now, &mut self.http, fresh, output);
            let left = fresh.get(step.consumed..).unwrap_or_default();
            if !left.is_empty() {
                self.input.append(left, buffers)?;
            }
            step
        } else {
            self.input.append(fresh, buffers)?;
            let step = shard.serve_stream(now, &mut self.http, self.input.bytes(), output);
            self.input.consume(step.consumed, buffers);
            step
        };
        let silent = output.is_empty();
        if silent {
            self.release_output(buffers);
        }
        self.deadline_mono_ms = step.deadline_mono_ms;
        self.phase = match step.then {
            Then::Read => Phase::Reading,
            // A reply that does not fit an empty buffer never will.
            Then::Write if silent => return Err(Exhausted),
            Then::Write => Phase::Again,
            Then::WriteAndClose => Phase::Closing,
            Then::Wait => Phase::Waiting,
            Then::HandOver => Phase::HandingOver,
        };
        Ok(())
    }

    /// Puts the error reply of `code` in place of whatever was to be sent; the connection closes after it. Nothing may
    /// be in flight from the output.
    ///
    /// # Errors
    /// A bound on buffers is reached: the connection must be closed without a word.
    pub(crate) fn refuse(
        &mut self,
        shard: &mut Shard,
        now: Moment,
        code: Code,
        buffers: &mut Buffers,
    ) -> Result<(), Exhausted> {
        self.release_output(buffers);
        shard.refuse_stream(now, code, self.output.insert(buffers.take_output()?));
        self.phase = Phase::Closing;
        Ok(())
    }

    /// Forgets the connection in the shard and gives its buffers back. Nothing may be in flight from the output.
    pub(crate) fn release(&mut self, shard: &mut Shard, buffers: &mut Buffers) {
        shard.close_stream(&mut self.http);
        self.release_output(buffers);
        self.input.clear(buffers);
    }

    fn release_output(&mut self, buffers: &mut Buffers) {
        self.sent = 0;
        if let Some(output) = self.output.take() {
            buffers.put_output(output);
        }
    }
}

#[repr(C, align(64))]
struct Slot<E> {
    generation: u32,
    connection: Option<Connection<E>>,
}

/// The slab.
pub(crate) struct Connections<E> {
    /// Chunks never move, so growing does not stall a shard that has many connections.
    chunks: Vec<Box<[Slot<E>]>>,
    /// By slot: when to close; `u64::MAX` for never and for free slots.
    deadlines: Vec<u64>,
    /// Free slots, the last used on top: it is the one still in the cache.
    free: Vec<u32>,
    open: usize,
    max: usize,
}

impl<E> Connections<E> {
    /// An empty slab for at most `max` connections.
    pub(crate) fn new(max: usize) -> Self {
        Self { chunks: Vec::new(), deadlines: Vec::new(), free: Vec::new(), open: 0, max }
    }

    /// Open connections.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Takes in a fresh connection; gives `io` back when there is no room.
    pub(crate) fn insert(&mut self, now: Moment, io: E) -> Result<StreamToken, E> {
        if self.open >= self.max {
            return Err(io);
        }
        if self.free.is_empty() {
            self.grow();
        }
        let Some(index) = self.free.pop() else { return Err(io) };
        let slot = &mut self.chunks[index as usize / SLAB_CHUNK][index as usize % SLAB_CHUNK];
        slot.generation = slot.generation.wrapping_add(1);
        let token = StreamToken(u64::from(slot.generation) << INDEX_BITS | u64::from(index));
        let deadline_mono_ms = now.mono_ms() + FIRST_BYTE_MS;
        slot.connection = Some(Connection {
            http: HttpConnection::new(token),
            phase: Phase::Reading,
            input_ended: false,
            unserved: false,
            in_line: false,
            input: Input::default(),
            output: None,
            sent: 0,
            discarded: 0,
            deadline_mono_ms,
            io,
        });
        self.deadlines[index as usize] = deadline_mono_ms;
        self.open += 1;
        Ok(token)
    }

    /// The connection with this token, if it is still there.
    #[inline]
    pub(crate) fn get(&mut self, token: StreamToken) -> Option<&mut Connection<E>> {
        let index = index_of(token);
        let slot = self.chunks.get_mut(index / SLAB_CHUNK)?.get_mut(index % SLAB_CHUNK)?;
        if slot.generation == generation_of(token) { slot.connection.as_mut() } else { None }
    }

    /// Takes the connection out and frees its slot.
    pub(crate) fn remove(&mut self, token: StreamToken) -> Option<Connection<E>> {
        self.get(token)?;
        let index = index_of(token);
        self.deadlines[index] = u64::MAX;
        self.free.push(u32::try_from(index).ok()?);
        self.open -= 1;
        self.chunks[index / SLAB_CHUNK][index % SLAB_CHUNK].connection.take()
    }

    /// Closes the connection at `mono_ms` unless another deadline is set before.
    #[inline]
    pub(crate) fn set_deadline(&mut self, token: StreamToken, mono_ms: u64) {
        if let Some(deadline) = self.deadlines.get_mut(index_of(token)) {
            *deadline = mono_ms;
        }
    }

    /// Adds the connections past their deadline to `overdue`.
    pub(crate) fn sweep(&self, now: Moment, overdue: &mut Vec<StreamToken>) {
        let now = now.mono_ms();
        let late = self.deadlines.iter().enumerate().filter(|(_, deadline)| **deadline <= now);
        overdue.extend(late.map(|(index, _)| self.token_at(index)));
    }

    /// Adds every open connection to `tokens`.
    pub(crate) fn all(&self, tokens: &mut Vec<StreamToken>) {
        let taken = |index: &usize| self.chunks[index / SLAB_CHUNK][index % SLAB_CHUNK].connection.is_some();
        tokens.extend((0..self.deadlines.len()).filter(taken).map(|index| self.token_at(index)));
    }

    fn token_at(&self, index: usize) -> StreamToken {
        let generation = self.chunks[index / SLAB_CHUNK][index % SLAB_CHUNK].generation;
        StreamToken(u64::from(generation) << INDEX_BITS | index as u64)
    }

    fn grow(&mut self) {
        let first = self.deadlines.len();
        let end = (first + SLAB_CHUNK).min(self.max.next_multiple_of(SLAB_CHUNK));
        let chunk: Vec<Slot<E>> = (first..end).map(|_| Slot { generation: 0, connection: None }).collect();
        self.chunks.push(chunk.into_boxed_slice());
        self.deadlines.resize(end, u64::MAX);
        self.free.extend((first..end).rev().filter_map(|index| u32::try_from(index).ok()));
    }
}

fn index_of(token: StreamToken) -> usize {
    (token.0 & ((1 << INDEX_BITS) - 1)) as usize
}

fn generation_of(token: StreamToken) -> u32 {
    // Cut to 32 bits on purpose: what stands above is the engine's own.
    (token.0 >> INDEX_BITS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment { mono_ns: 5_000_000_000, wall_ms: 0 };

    #[test]
    fn a_full_slab_refuses_and_a_freed_slot_has_a_new_token() {
        let mut slab = Connections::new(SLAB_CHUNK + 1);
        let tokens: Vec<_> = (0..=SLAB_CHUNK).map(|io| slab.insert(NOW, io).expect("room")).collect();
        assert_eq!(slab.insert(NOW, 99), Err(99));
        assert_eq!(slab.open(), SLAB_CHUNK + 1);
        for (io, token) in tokens.iter().enumerate() {
            assert_eq!(slab.get(*token).map(|connection| connection.io), Some(io));
        }
        assert!(slab.remove(tokens[7]).is_some());
        assert!(slab.get(tokens[7]).is_none());
        assert!(slab.remove(tokens[7]).is_none(), "removed once");
        let again = slab.insert(NOW, 99).expect("room again");
        assert_eq!(index_of(again), index_of(tokens[7]));
        assert!(slab.get(tokens[7]).is_none(), "the old token names nobody");
        assert!(again.0 >> TOKEN_BITS == 0, "the upper bits are the engine's");
    }

    #[test]
    fn an_idle_connection_is_small() {
        // With its deadline and its place in the free list. An engine's own part is some 32 bytes.
        let bytes = size_of::<Slot<[u64; 4]>>() + size_of::<u64>() + size_of::<u32>();
        assert!(bytes <= 1_024, "{bytes} bytes");
    }

    #[test]
    fn the_sweep_names_those_past_their_deadline() {
        let mut slab = Connections::new(10);
        let [early, late, gone] = [1, 2, 3].map(|io| slab.insert(NOW, io).expect("room"));
        slab.set_deadline(early, NOW.mono_ms() + 10);
        slab.set_deadline(late, NOW.mono_ms() + 20);
        slab.set_deadline(gone, NOW.mono_ms());
        slab.remove(gone);
        let swept = |ms| {
            let mut overdue = Vec::new();
            slab.sweep(NOW.plus_ms(ms), &mut overdue);
            overdue
        };
        assert_eq!(swept(9), []);
        assert_eq!(swept(10), [early]);
        assert_eq!(swept(20), [early, late]);
        let mut all = Vec::new();
        slab.all(&mut all);
        assert_eq!(all, [early, late]);
    }
}
