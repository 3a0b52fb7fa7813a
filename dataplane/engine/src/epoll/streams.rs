//! What happens to one connection of the epoll engine: read, serve, write, and what the shard then wants.

use super::watch::{Event, NOTHING, READABLE, WRITABLE};
use super::{EpollLoop, Peer};
use crate::connections::{Connection, Phase};
use crate::handover::hand_over;
use crate::limits::{INPUT_PAUSE_BYTES, LINGER_BYTES_MAX, LINGER_MS};
use dataplane_core::shard::StreamToken;
use shared::code::Code;
use shared::moment::Moment;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

/// Times a connection's reply buffer is filled and sent in one turn: 4 × 16 KiB, some 150 replies. One that pipelines
/// more than that goes on next turn, after the others.
const ROUNDS_PER_TURN: usize = 4;

/// How far the output got.
enum Flushed {
    /// All of it.
    Whole,
    /// The socket is full.
    Blocked,
    /// The connection is broken.
    Broken,
}

impl EpollLoop {
    /// Something happened on a connection; late news of one that is closed finds nobody.
    pub(super) fn on_stream(&mut self, now: Moment, token: StreamToken, event: Event) {
        let Some(connection) = self.connections.get(token) else { return };
        match (connection.io.interest, connection.phase) {
            // Not watched, so only its end can have been told.
            (NOTHING, _) if event.is_hang_up() => self.close(token),
            (NOTHING, _) => {}
            (WRITABLE, _) => self.go_on(now, token),
            (_, Phase::Lingering) => self.discard(token),
            _ => self.read(now, token),
        }
    }

    /// One read, straight into the shard unless a request of the connection waits.
    fn read(&mut self, now: Moment, token: StreamToken) {
        let Some(connection) = self.connections.get(token) else { return };
        let length = match (&connection.io.stream).read(&mut self.input) {
            Ok(0) => return self.on_input_end(now, token),
            Ok(length) => length,
            Err(error) if is_for_now(error.kind()) => return,
            Err(_) => return self.close(token),
        };
        let fresh = &self.input[..length];
        let must_wait = connection.phase == Phase::Waiting;
        if must_wait || !connection.can_reply(&self.buffers) {
            if !must_wait {
                connection.phase = Phase::Again;
            }
            match connection.keep(fresh, &mut self.buffers) {
                Ok(()) => self.go_on(now, token),
                Err(_exhausted) => self.close_early(token),
            }
            return;
        }
        self.setup.drain_feed(now, &mut self.ready);
        match connection.serve(&mut self.setup.shard, now, fresh, &mut self.buffers) {
            Ok(()) => self.served.push(token),
            Err(_exhausted) => self.close_early(token),
        }
    }

    /// Goes on with those whose replies are written.
    pub(super) fn send_served(&mut self, now: Moment) {
        for place in 0..self.served.len() {
            self.go_on(now, self.served[place]);
        }
        self.served.clear();
    }

    /// The client has closed its side. Requests that came before are still answered.
    fn on_input_end(&mut self, now: Moment, token: StreamToken) {
        let Some(connection) = self.connections.get(token) else { return };
        connection.input_ended = true;
        self.go_on(now, token);
    }

    /// Sends what there is and does what comes after it, until the connection has to wait for something.
    fn go_on(&mut self, now: Moment, token: StreamToken) {
        let mut progress = false;
        for _ in 0..ROUNDS_PER_TURN {
            let Some(connection) = self.connections.get(token) else { return };
            let before = connection.unsent().len();
            let flushed = flush(connection, &mut self.buffers);
            progress |= connection.unsent().len() < before;
            match flushed {
                Flushed::Whole => {}
                Flushed::Blocked => return self.wait_for_room(now, token, progress),
                Flushed::Broken => return self.close(token),
            }
            match connection.phase {
                Phase::Reading if connection.input_ended => return self.close(token),
                Phase::Reading | Phase::Waiting => return self.settle(token),
                Phase::Again if !connection.can_reply(&self.buffers) => return self.stand_in_line(now, token),
                Phase::Again => {
                    self.setup.drain_feed(now, &mut self.ready);
                    if connection.serve(&mut self.setup.shard, now, &[], &mut self.buffers).is_err() {
                        return self.close_early(token);
                    }
                }
                Phase::Closing => return self.linger(now, token),
                Phase::HandingOver => return self.give_away(now, token),
                Phase::Lingering => return,
            }
        }
        // Writable as it is, the connection is named again by the next wait: its turn comes after the others'.
        self.wait_for_room(now, token, true);
    }

    /// Every reply buffer is on its way to a client: waits for one, no longer than one may stall.
    fn stand_in_line(&mut self, now: Moment, token: StreamToken) {
        let Some(connection) = self.connections.get(token) else { return };
        match connection.stand_in_line(&mut self.buffers) {
            Ok(true) => {
                self.connections.set_deadline(token, now.mono_ms() + self.setup.shard.write_stall_ms());
                self.watch_for(token, NOTHING);
            }
            Ok(false) => {}
            Err(_exhausted) => self.close_early(token),
        }
    }

    /// Goes on with those in line for which a reply buffer came back.
    pub(super) fn call_line(&mut self, now: Moment) {
        while let Some(token) = self.buffers.call_next() {
            self.go_on(now, token);
        }
    }

    /// Goes on when the socket has room. Only `progress` renews the deadline: a client that takes nothing is cut off.
    fn wait_for_room(&mut self, now: Moment, token: StreamToken, progress: bool) {
        let Some(connection) = self.connections.get(token) else { return };
        if progress || connection.io.interest != WRITABLE {
            self.connections.set_deadline(token, now.mono_ms() + self.setup.shard.write_stall_ms());
        }
        self.watch_for(token, WRITABLE);
    }

    /// Nothing is left to send: waits for the client, under the deadline of the last step.
    fn settle(&mut self, token: StreamToken) {
        let Some(connection) = self.connections.get(token) else { return };
        let deadline = connection.deadline_mono_ms;
        // Behind a waiting request no more is read than the next one needs.
        let full = connection.phase == Phase::Waiting && connection.input.len() >= INPUT_PAUSE_BYTES;
        let what = if full || connection.input_ended { NOTHING } else { READABLE };
        let changed = connection.io.interest != what;
        self.connections.set_deadline(token, deadline);
        if changed {
            self.watch_for(token, what);
        }
    }

    /// Serves the connections that a tick or the clock has made ready; what becomes ready meanwhile comes next turn.
    pub(super) fn serve_ready(&mut self, now: Moment) {
        if self.ready.streams.is_empty() {
            return;
        }
        let mut serving = std::mem::take(&mut self.serving);
        std::mem::swap(&mut serving, &mut self.ready.streams);
        for token in serving.drain(..) {
            let Some(connection) = self.connections.get(token) else { continue };
            if connection.phase != Phase::Waiting {
                continue;
            }
            connection.phase = Phase::Again;
            // With replies before it still unsent it is served when they have left.
            if connection.unsent().is_empty() {
                self.go_on(now, token);
            }
        }
        self.serving = serving;
    }

    /// The last reply has left: closes our side, and waits for the client to close its own. Closing at once would make
    /// the kernel reset a connection with unread bytes, and a reset destroys replies that are on their way.
    fn linger(&mut self, now: Moment, token: StreamToken) {
        let Some(connection) = self.connections.get(token) else { return };
        if connection.input_ended || connection.io.stream.shutdown(Shutdown::Write).is_err() {
            return self.close(token);
        }
        connection.phase = Phase::Lingering;
        connection.input.clear(&mut self.buffers);
        self.connections.set_deadline(token, now.mono_ms() + LINGER_MS);
        self.watch_for(token, READABLE);
    }

    /// Throws away what a client still sends after the last reply, up to a bound.
    fn discard(&mut self, token: StreamToken) {
        let Some(connection) = self.connections.get(token) else { return };
        match (&connection.io.stream).read(&mut self.input) {
            Ok(0) => self.close(token),
            Ok(length) => {
                connection.discarded += length;
                if connection.discarded > LINGER_BYTES_MAX {
                    self.close(token);
                }
            }
            Err(error) if is_for_now(error.kind()) => {}
            Err(_) => self.close(token),
        }
    }

    /// Gives the socket and the unconsumed bytes to the control plane, or says that it is overloaded.
    fn give_away(&mut self, now: Moment, token: StreamToken) {
        let Some(mut connection) = self.connections.remove(token) else { return };
        let bytes = connection.input.bytes().to_vec();
        connection.release(&mut self.setup.shard, &mut self.buffers);
        let stream = connection.io.stream;
        // It shares the watched socket with its next owner, so closing our descriptor would not end the watch.
        let _ = self.watch.remove(stream.as_raw_fd());
        if let Err(refused) = hand_over(&self.setup.hand_overs, OwnedFd::from(stream), &bytes) {
            self.refuse(now, TcpStream::from(refused));
        }
    }

    /// Answers `overloaded` on a socket that came back, and closes it.
    fn refuse(&mut self, now: Moment, stream: TcpStream) {
        let descriptor = stream.as_raw_fd();
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        // The slot that was just freed is there to be taken again.
        let Ok(token) = self.connections.insert(now, Peer { stream, interest: NOTHING }) else { return };
        let Some(connection) = self.connections.get(token) else { return };
        let refused = connection.refuse(&mut self.setup.shard, now, Code::Overloaded, &mut self.buffers);
        if refused.is_err() || self.watch.add(descriptor, token.0, NOTHING).is_err() {
            return self.close_early(token);
        }
        self.go_on(now, token);
    }

    fn watch_for(&mut self, token: StreamToken, what: u32) {
        let Some(connection) = self.connections.get(token) else { return };
        let changed = connection.io.interest != what;
        connection.io.interest = what;
        if changed && self.watch.change(connection.io.stream.as_raw_fd(), token.0, what).is_err() {
            self.close_early(token);
        }
    }

    /// Closes a connection for a reason of ours.
    pub(super) fn close_early(&mut self, token: StreamToken) {
        self.counters.closed_by_us += 1;
        self.close(token);
    }

    /// Forgets the connection; the descriptor closes with it.
    pub(super) fn close(&mut self, token: StreamToken) {
        if let Some(mut connection) = self.connections.remove(token) {
            connection.release(&mut self.setup.shard, &mut self.buffers);
        }
    }
}

/// One write of what is unsent.
fn flush(connection: &mut Connection<Peer>, buffers: &mut crate::connections::Buffers) -> Flushed {
    if connection.unsent().is_empty() {
        return Flushed::Whole;
    }
    match (&connection.io.stream).write(connection.unsent()) {
        // A short write means a full socket.
        Ok(written) if connection.sent(written, buffers) => Flushed::Whole,
        Ok(_) => Flushed::Blocked,
        Err(error) if is_for_now(error.kind()) => Flushed::Blocked,
        Err(_) => Flushed::Broken,
    }
}

/// Errors that the next wait will put right.
fn is_for_now(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
