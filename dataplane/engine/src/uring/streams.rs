//! What happens to one connection of the io_uring engine: received, served, sent, and what the shard then wants.
//!
//! Completions only note what happened and serve what can be served at once. `settle`, before a turn ends for each
//! connection that was touched, compares what is with what should be and queues the difference.

use super::UringLoop;
use super::operation::{self, File, Kind};
use super::ring::Completion;
use crate::connections::{Buffers, Connection, Phase};
use crate::handover::hand_over;
use crate::limits::{LINGER_BYTES_MAX, LINGER_MS};
use dataplane_core::shard::{Shard, StreamToken};
use shared::code::Code;
use shared::moment::Moment;
use std::os::fd::{FromRawFd, OwnedFd};

/// State of a connection's multishot receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    Off,
    /// Multishot.
    On,
    /// One buffer.
    Once,
    /// Cancelled, not ended yet.
    Ending,
}

/// State of a connection's send: while there is one, the output must not be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Off,
    On,
    /// Cancelled, not ended yet.
    Ending,
}

/// State of the watch for a broken connection, from which nothing is received any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watching {
    Off,
    On,
    /// Cancelled, not ended yet.
    Ending,
}

/// What the engine knows of a connection.
pub(super) struct Io {
    pub(super) file: File,
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,
    pub(super) watching: Watching,
    /// Whether a shutdown or an install is in flight: the file must not be closed.
    changing: bool,
    /// Whether it stands in the loop's list of connections to settle.
    dirty: bool,
    /// Whether it is to be closed as soon as the kernel holds nothing of it.
    pub(super) doomed: bool,
}

impl Io {
    pub(super) const fn new(file: File) -> Self {
        Self {
            file,
            receiving: Receiving::Off,
            sending: Sending::Off,
            watching: Watching::Off,
            changing: false,
            dirty: false,
            doomed: false,
        }
    }

    const fn is_idle(&self) -> bool {
        matches!((self.receiving, self.sending, self.watching), (Receiving::Off, Sending::Off, Watching::Off))
            && !self.changing
    }
}

/// What `settle` does next.
enum Next {
    /// Look again: something changed.
    Again,
    /// Nothing more this turn but to see to the receive.
    Done,
    /// The connection is out of our hands.
    Gone,
}

impl UringLoop<'_> {
    /// Puts the connection on the list of those to settle in this turn.
    #[inline]
    pub(super) fn mark(&mut self, token: StreamToken) {
        if let Some(connection) = self.connections.get(token)
            && !connection.io.dirty
        {
            connection.io.dirty = true;
            self.dirty.push(token);
        }
    }

    /// Bytes came, or the receive ended.
    #[inline]
    pub(super) fn received(&mut self, token: StreamToken, completion: Completion, is_last: bool) {
        let length = usize::try_from(completion.result).unwrap_or(0);
        let served = match (completion.buffer(), self.connections.get(token)) {
            (Some(buffer), Some(connection)) => {
                self.setup.drain_feed(self.now, &mut self.ready);
                // SAFETY: this completion named the buffer, and it is given back below, after its last use.
                let fresh = unsafe { self.receive_buffers.filled(buffer, length) };
                take_in(connection, &mut self.setup.shard, self.now, fresh, &mut self.buffers)
            }
            _ => true,
        };
        if let Some(buffer) = completion.buffer() {
            // SAFETY: this completion named it; whatever is left of its bytes has been copied.
            unsafe { self.receive_buffers.give_back(buffer) };
        }
        let Some(connection) = self.connections.get(token) else { return };
        if !completion.goes_on() {
            connection.io.receiving = Receiving::Off;
        }
        match completion.errno() {
            // Buffers are back by the end of the turn: `settle` arms it again.
            libc::ENOBUFS => self.counters.receive_buffers_short += 1,
            0 if length == 0 => connection.input_ended = true,
            0 | libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            _ => connection.io.doomed = true,
        }
        match served {
            false => self.close_early(token),
            true if is_last => self.settle(token),
            true => self.mark(token),
        }
    }

    /// A send ended.
    #[inline]
    pub(super) fn sent(&mut self, token: StreamToken, completion: Completion) {
        let Some(connection) = self.connections.get(token) else { return };
        connection.io.sending = Sending::Off;
        let whole = match (usize::try_from(completion.result), completion.errno()) {
            (Ok(bytes), _) if bytes > 0 => connection.sent(bytes, &mut self.buffers),
            (Err(_), libc::EINTR | libc::EAGAIN) => false,
            // No byte of a reply that has some, or an error: it would be the same again.
            _ => {
                connection.io.doomed = true;
                false
            }
        };
        // The common case: nothing to do but to wait for the next request, which is being received already.
        let resting = whole && connection.phase == Phase::Reading && !connection.unserved && !connection.input_ended;
        if resting && connection.io.receiving == Receiving::On && !connection.io.doomed {
            let deadline = connection.deadline_mono_ms;
            self.connections.set_deadline(token, deadline);
        } else {
            self.mark(token);
        }
    }

    /// Our side is closed: the client's last bytes are awaited.
    pub(super) fn shut_down(&mut self, token: StreamToken) {
        if let Some(connection) = self.connections.get(token) {
            connection.io.changing = false;
            self.mark(token);
        }
    }

    /// The direct descriptor of a connection to be handed over became an ordinary one, or could not.
    pub(super) fn installed(&mut self, token: StreamToken, completion: Completion) {
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        let installed = (completion.result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(completion.result) });
        let Some(connection) = self.connections.get(token) else { return };
        connection.io.changing = false;
        self.mark(token);
        match installed {
            Some(descriptor) => self.give_away(token, descriptor),
            None => self.refuse(token),
        }
    }

    /// Serves the connections that a tick or the clock has made ready; what becomes ready meanwhile comes next.
    pub(super) fn serve_ready(&mut self) {
        if self.ready.streams.is_empty() {
            return;
        }
        let mut serving = std::mem::take(&mut self.serving);
        std::mem::swap(&mut serving, &mut self.ready.streams);
        for token in serving.drain(..) {
            if let Some(connection) = self.connections.get(token)
                && connection.phase == Phase::Waiting
            {
                connection.phase = Phase::Again;
                self.mark(token);
            }
        }
        self.serving = serving;
    }

    /// Settles every connection that was touched in this turn, and those in line for which a reply buffer came back.
    pub(super) fn settle_dirty(&mut self) {
        while let Some(token) = self.buffers.call_next().or_else(|| self.dirty.pop()) {
            self.settle(token);
        }
    }

    /// Closes a connection for our own reasons.
    pub(super) fn close_early(&mut self, token: StreamToken) {
        if let Some(connection) = self.connections.get(token)
            && !connection.io.doomed
        {
            connection.io.doomed = true;
            self.counters.closed_by_us += 1;
        }
        self.mark(token);
    }

    /// Queues whatever brings the connection to where it should be.
    fn settle(&mut self, token: StreamToken) {
        loop {
            let Some(connection) = self.connections.get(token) else { return };
            connection.io.dirty = false;
            if connection.io.doomed {
                return self.bury(token);
            }
            if connection.io.sending != Sending::Off {
                break;
            }
            if !connection.unsent().is_empty() {
                self.send(token);
                break;
            }
            match self.advance(token) {
                Next::Again => {}
                Next::Done => break,
                Next::Gone => return,
            }
        }
        self.settle_receive(token);
    }

    fn send(&mut self, token: StreamToken) {
        let Some(connection) = self.connections.get(token) else { return };
        let entry = operation::send(&connection.io.file, token, connection.unsent());
        connection.io.sending = Sending::On;
        // SAFETY: the output is neither touched nor freed while `sending` is set, which only its completion clears; at
        // the end of the loop nothing is freed before the kernel holds no operation.
        unsafe { self.ring.push(&entry) };
        self.connections.set_deadline(token, self.now.mono_ms() + self.setup.shard.write_stall_ms());
    }

    /// One step of a connection that has nothing to send.
    fn advance(&mut self, token: StreamToken) -> Next {
        let Some(connection) = self.connections.get(token) else { return Next::Gone };
        match connection.phase {
            Phase::Again => self.serve(token),
            Phase::Reading if connection.unserved => self.serve(token),
            Phase::Reading if connection.input_ended => self.end(token),
            Phase::Reading | Phase::Waiting => {
                let deadline = connection.deadline_mono_ms;
                self.connections.set_deadline(token, deadline);
                Next::Done
            }
            Phase::Closing if connection.input_ended => self.end(token),
            Phase::Closing => self.linger(token),
            Phase::Lingering if connection.input_ended || connection.discarded > LINGER_BYTES_MAX => self.end(token),
            Phase::Lingering => Next::Done,
            Phase::HandingOver => self.start_hand_over(token),
        }
    }

    /// Serves what was kept.
    fn serve(&mut self, token: StreamToken) -> Next {
        self.setup.drain_feed(self.now, &mut self.ready);
        let Some(connection) = self.connections.get(token) else { return Next::Gone };
        if !connection.can_reply(&self.buffers) {
            return self.stand_in_line(token);
        }
        if connection.serve(&mut self.setup.shard, self.now, &[], &mut self.buffers).is_err() {
            self.close_early(token);
        }
        Next::Again
    }

    /// Every reply buffer is on its way to a client: waits for one, no longer than one may stall.
    fn stand_in_line(&mut self, token: StreamToken) -> Next {
        let Some(connection) = self.connections.get(token) else { return Next::Gone };
        match connection.stand_in_line(&mut self.buffers) {
            Ok(true) => self.connections.set_deadline(token, self.now.mono_ms() + self.setup.shard.write_stall_ms()),
            Ok(false) => {}
            Err(_exhausted) => {
                self.close_early(token);
                return Next::Again;
            }
        }
        Next::Done
    }

    fn end(&mut self, token: StreamToken) -> Next {
        if let Some(connection) = self.connections.get(token) {
            connection.io.doomed = true;
        }
        Next::Again
    }

    /// The last reply has left: closes our side, and waits for the client to close its own. Closing at once would make
    /// the kernel reset a connection with unread bytes, and a reset destroys replies that are on their way.
    fn linger(&mut self, token: StreamToken) -> Next {
        let Some(connection) = self.connections.get(token) else { return Next::Gone };
        connection.phase = Phase::Lingering;
        connection.input.clear(&mut self.buffers);
        connection.io.changing = true;
        let entry = operation::shutdown(&connection.io.file, token);
        // SAFETY: it points at nothing.
        unsafe { self.ring.push(&entry) };
        self.connections.set_deadline(token, self.now.mono_ms() + LINGER_MS);
        Next::Done
    }

    /// The socket goes to the control plane, once nothing is received on it any more.
    fn start_hand_over(&mut self, token: StreamToken) -> Next {
        let Some(connection) = self.connections.get(token) else { return Next::Gone };
        if !connection.io.is_idle() {
            return Next::Done;
        }
        if self.setup.hand_overs.is_full() {
            self.refuse(token);
            return Next::Again;
        }
        match &connection.io.file {
            File::Direct(slot) => {
                let entry = operation::install(*slot, token);
                connection.io.changing = true;
                // SAFETY: it points at nothing.
                unsafe { self.ring.push(&entry) };
                Next::Done
            }
            File::Ordinary(descriptor) => match descriptor.try_clone() {
                Ok(descriptor) => {
                    self.give_away(token, descriptor);
                    Next::Again
                }
                Err(_no_descriptors) => {
                    self.refuse(token);
                    Next::Again
                }
            },
        }
    }

    /// Hands the descriptor over with the bytes that were not dealt with; ours is then closed.
    fn give_away(&mut self, token: StreamToken, descriptor: OwnedFd) {
        let Some(connection) = self.connections.get(token) else { return };
        match hand_over(&self.setup.hand_overs, descriptor, connection.input.bytes()) {
            Ok(()) => connection.io.doomed = true,
            Err(_ours_again) => self.refuse(token),
        }
    }

    /// The control plane cannot take the connection now: says so and closes it.
    fn refuse(&mut self, token: StreamToken) {
        let Some(connection) = self.connections.get(token) else { return };
        let refused = connection.refuse(&mut self.setup.shard, self.now, Code::Overloaded, &mut self.buffers);
        connection.io.doomed |= refused.is_err();
    }

    /// Takes a doomed connection from the kernel, then out of the slab.
    fn bury(&mut self, token: StreamToken) {
        let Some(connection) = self.connections.get(token) else { return };
        if connection.io.is_idle() {
            let Some(mut connection) = self.connections.remove(token) else { return };
            connection.release(&mut self.setup.shard, &mut self.buffers);
            return self.close_file(connection.io.file);
        }
        let io = &mut connection.io;
        let (receives, watches) =
            (matches!(io.receiving, Receiving::On | Receiving::Once), io.watching == Watching::On);
        if io.sending == Sending::On {
            io.sending = Sending::Ending;
            // SAFETY: it points at nothing.
            unsafe { self.ring.push(&operation::cancel(Kind::Send.of(token))) };
        }
        if receives {
            self.cancel_receive(token);
        }
        if watches {
            self.cancel_watch(token);
        }
    }

    /// Closes a socket that the kernel holds no operation on.
    pub(super) fn close_file(&mut self, file: File) {
        match file {
            // SAFETY: it points at nothing.
            File::Direct(slot) => unsafe { self.ring.push(&operation::close(slot)) },
            File::Ordinary(descriptor) => drop(descriptor),
        }
    }
}

/// Serves fresh bytes where the kernel put them, or keeps them for when the shard can go on; `false` when a bound on
/// what may be kept is reached.
#[inline]
fn take_in(
    connection: &mut Connection<Io>,
    shard: &mut Shard,
    now: Moment,
    fresh: &[u8],
    buffers: &mut Buffers,
) -> bool {
    if connection.io.doomed {
        return true;
    }
    match connection.phase {
        Phase::Closing | Phase::Lingering => {
            connection.discarded += fresh.len();
            true
        }
        Phase::Reading if connection.io.sending == Sending::Off && connection.can_reply(buffers) => {
            connection.serve(shard, now, fresh, buffers).is_ok()
        }
        _ => connection.keep(fresh, buffers).is_ok(),
    }
}
