//! What happens to one connection of a rival engine: received, served, sent, and what its task then waits for.

use super::RivalLoop;
use crate::connections::Phase;
use crate::handover::hand_over;
use crate::limits::{INPUT_PAUSE_BYTES, LINGER_BYTES_MAX, LINGER_MS};
use dataplane_core::reply::ReplyBuffer;
use dataplane_core::shard::StreamToken;
use shared::code::Code;
use shared::moment::Moment;
use socket2::SockRef;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::task::{Context, Poll, Waker};
use tuning::clock;

/// What a connection's task does next.
pub(crate) enum Next {
    /// Waits for bytes; then [`RivalLoop::received`].
    Receive,
    /// The same, or [`RivalLoop::told`], whichever comes first. The bytes must stay in the socket when it is the latter.
    ReceiveUnlessTold,
    /// Waits for [`RivalLoop::told`] alone.
    BeTold,
    /// Sends as many of the bytes as go at once; then [`RivalLoop::sent`].
    Send(Outgoing),
    /// Closes the socket; the loop has forgotten it.
    Close,
}

/// A reply buffer on its way, of which some bytes may be sent.
pub(crate) struct Outgoing {
    reply: ReplyBuffer,
    sent: usize,
}

impl Outgoing {
    /// What is left to be sent. It does not move in memory when this value does.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.reply.bytes().get(self.sent..).unwrap_or_default()
    }
}

/// What the loop knows of a connection's socket and task.
pub(super) struct Seat {
    /// Open until `Next::Close` is answered: the task holds the socket.
    socket: RawFd,
    /// Something changed that the task does not know of.
    told: bool,
    /// To be closed at the task's next step.
    doomed: bool,
    /// Whether it stands in the list of those that nothing is read from.
    unheard: bool,
    /// The task, where it waits to be told.
    waker: Option<Waker>,
}

impl Seat {
    pub(super) const fn of(socket: RawFd) -> Self {
        Self { socket, told: false, doomed: false, unheard: false, waker: None }
    }

    fn tell(&mut self) {
        self.told = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn shut(&self, how: Shutdown) -> io::Result<()> {
        SockRef::from(&self.borrowed()).shutdown(how)
    }

    fn borrowed(&self) -> BorrowedFd<'_> {
        // SAFETY: the task closes the socket only after the loop has forgotten this seat.
        unsafe { BorrowedFd::borrow_raw(self.socket) }
    }
}

impl RivalLoop {
    /// Bytes came, none (the client has closed its side), or an error.
    pub(crate) fn received(&mut self, token: StreamToken, bytes: io::Result<&[u8]>) -> Next {
        let now = clock::now();
        self.setup.drain_feed(now, &mut self.ready);
        let next = match bytes {
            Ok(fresh) => self.take_in(now, token, fresh),
            Err(error) if is_for_now(&error) => self.next(now, token),
            Err(_) => self.close(token),
        };
        self.settle(now);
        next
    }

    fn take_in(&mut self, now: Moment, token: StreamToken, fresh: &[u8]) -> Next {
        let Some(connection) = self.connections.get(token) else { return Next::Close };
        connection.input_ended |= fresh.is_empty();
        let kept = match connection.phase {
            _ if fresh.is_empty() || connection.io.doomed => Ok(()),
            Phase::Lingering => {
                connection.discarded += fresh.len();
                connection.io.doomed |= connection.discarded > LINGER_BYTES_MAX;
                Ok(())
            }
            Phase::Reading if connection.can_reply(&self.buffers) => {
                connection.serve(&mut self.setup.shard, now, fresh, &mut self.buffers)
            }
            phase => {
                if phase == Phase::Reading {
                    connection.phase = Phase::Again;
                }
                connection.keep(fresh, &mut self.buffers)
            }
        };
        if kept.is_err() { self.close_early(token) } else { self.next(now, token) }
    }

    /// A send ended; `outgoing` comes back.
    pub(crate) fn sent(&mut self, token: StreamToken, outgoing: Outgoing, result: &io::Result<usize>) -> Next {
        let now = clock::now();
        let Some(connection) = self.connections.get(token) else { return Next::Close };
        connection.give_back(outgoing.reply);
        let next = match result {
            Ok(bytes) if *bytes > 0 => {
                connection.sent(*bytes, &mut self.buffers);
                self.next(now, token)
            }
            Err(error) if is_for_now(error) => self.next(now, token),
            // No byte of a reply that has some, or an error: it would be the same again.
            _ => self.close(token),
        };
        self.settle(now);
        next
    }

    /// What a task that waits to be told does next, once it is.
    pub(crate) fn told(&mut self, token: StreamToken, context: &Context<'_>) -> Poll<Next> {
        let Some(connection) = self.connections.get(token) else { return Poll::Ready(Next::Close) };
        if !connection.io.told {
            connection.io.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        connection.io.waker = None;
        let now = clock::now();
        let next = self.next(now, token);
        self.settle(now);
        Poll::Ready(next)
    }

    /// Does whatever can be done at once for a connection with nothing in flight; then says what it waits for.
    fn next(&mut self, now: Moment, token: StreamToken) -> Next {
        loop {
            let Some(connection) = self.connections.get(token) else { return Next::Close };
            connection.io.told = false;
            if connection.io.doomed {
                return self.close(token);
            }
            if let Some((reply, sent)) = connection.lend() {
                // Renewed by every send: a client that takes nothing is cut off.
                self.connections.set_deadline(token, now.mono_ms() + self.setup.shard.write_stall_ms());
                return Next::Send(Outgoing { reply, sent });
            }
            match connection.phase {
                Phase::Reading | Phase::Closing | Phase::Lingering if connection.input_ended => {
                    return self.close(token);
                }
                Phase::Reading | Phase::Waiting => return self.rest(token),
                Phase::Again if !connection.can_reply(&self.buffers) => return self.stand_in_line(now, token),
                Phase::Again => {
                    self.setup.drain_feed(now, &mut self.ready);
                    if connection.serve(&mut self.setup.shard, now, &[], &mut self.buffers).is_err() {
                        return self.close_early(token);
                    }
                }
                Phase::Closing => {
                    // Closing at once would make the kernel reset a connection with unread bytes, and a reset destroys
                    // replies that are on their way.
                    if connection.io.shut(Shutdown::Write).is_err() {
                        return self.close(token);
                    }
                    connection.phase = Phase::Lingering;
                    connection.input.clear(&mut self.buffers);
                    self.connections.set_deadline(token, now.mono_ms() + LINGER_MS);
                }
                Phase::Lingering => return Next::Receive,
                Phase::HandingOver => {
                    if self.give_away(now, token) {
                        return self.close(token);
                    }
                }
            }
        }
    }

    /// Nothing is left to be sent: waits for the client or a tick, under the deadline of the last step.
    fn rest(&mut self, token: StreamToken) -> Next {
        let Some(connection) = self.connections.get(token) else { return Next::Close };
        // Behind a waiting request no more is read than the next one needs.
        let full = connection.input_ended || connection.input.len() >= INPUT_PAUSE_BYTES;
        let next = match connection.phase {
            Phase::Waiting if full => {
                if !connection.io.unheard {
                    connection.io.unheard = true;
                    self.unheard.push(token);
                }
                Next::BeTold
            }
            Phase::Waiting => Next::ReceiveUnlessTold,
            _ => Next::Receive,
        };
        let deadline = connection.deadline_mono_ms;
        self.connections.set_deadline(token, deadline);
        next
    }

    /// Closes the connections that were reset while a request of theirs waits and nothing is read from them.
    pub(super) fn look_at_unheard(&mut self) {
        let mut unheard = std::mem::take(&mut self.unheard);
        unheard.retain(|token| {
            let Some(connection) = self.connections.get(*token) else { return false };
            connection.io.unheard = connection.phase == Phase::Waiting;
            if connection.io.unheard && !matches!(SockRef::from(&connection.io.borrowed()).take_error(), Ok(None)) {
                self.doom(*token);
                return false;
            }
            connection.io.unheard
        });
        self.unheard = unheard;
    }

    /// Every reply buffer is on its way to a client: waits for one, no longer than one may stall.
    fn stand_in_line(&mut self, now: Moment, token: StreamToken) -> Next {
        let Some(connection) = self.connections.get(token) else { return Next::Close };
        match connection.stand_in_line(&mut self.buffers) {
            Ok(true) => self.connections.set_deadline(token, now.mono_ms() + self.setup.shard.write_stall_ms()),
            Ok(false) => {}
            Err(_exhausted) => return self.close_early(token),
        }
        Next::BeTold
    }

    /// Gives a copy of the descriptor and the unconsumed bytes to the control plane; whether it takes them. If not, the
    /// client is told.
    fn give_away(&mut self, now: Moment, token: StreamToken) -> bool {
        let Some(connection) = self.connections.get(token) else { return true };
        let given = connection
            .io
            .borrowed()
            .try_clone_to_owned()
            .is_ok_and(|copy| hand_over(&self.setup.hand_overs, copy, connection.input.bytes()).is_ok());
        if !given {
            let refused = connection.refuse(&mut self.setup.shard, now, Code::Overloaded, &mut self.buffers);
            connection.io.doomed = refused.is_err();
        }
        given
    }

    /// After each step, which is a turn: whoever the step made able to go on is told so.
    pub(super) fn settle(&mut self, now: Moment) {
        // Served here and now: whoever was only told could find the buffer gone again, and would have lost its place.
        while let Some(token) = self.buffers.call_next() {
            let Some(connection) = self.connections.get(token) else { continue };
            if connection.phase == Phase::Again && !connection.io.doomed {
                self.setup.drain_feed(now, &mut self.ready);
                let served = connection.serve(&mut self.setup.shard, now, &[], &mut self.buffers);
                connection.io.doomed = served.is_err();
                self.counters.closed_by_us += u64::from(served.is_err());
            }
            connection.io.tell();
        }
        for token in self.ready.streams.drain(..) {
            if let Some(connection) = self.connections.get(token)
                && connection.phase == Phase::Waiting
            {
                connection.phase = Phase::Again;
                connection.io.tell();
            }
        }
        if !self.ready.datagrams.is_empty() {
            // Whoever waits for news sleeps, or looks before it does.
            self.setup.wake.notify();
        }
        self.setup.end_turn(now);
    }

    /// Has a connection closed by its task, whatever that waits for: what is in flight on the socket ends with this.
    pub(super) fn doom(&mut self, token: StreamToken) {
        self.connections.set_deadline(token, u64::MAX);
        if let Some(connection) = self.connections.get(token) {
            connection.io.doomed = true;
            // It can only fail on a connection that is gone, and then nothing is in flight on it.
            let _ = connection.io.shut(Shutdown::Both);
            connection.io.tell();
        }
    }

    /// Closes a connection for a reason of ours.
    fn close_early(&mut self, token: StreamToken) -> Next {
        self.counters.closed_by_us += 1;
        self.close(token)
    }

    /// Forgets the connection; its task closes the socket and ends.
    fn close(&mut self, token: StreamToken) -> Next {
        if let Some(mut connection) = self.connections.remove(token) {
            connection.release(&mut self.setup.shard, &mut self.buffers);
            self.task_ends();
        }
        Next::Close
    }
}

/// Errors after which the same is tried again.
fn is_for_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
