//! What is received of whom: receives armed and cancelled, held back when clients send more than they take, and the
//! watch for the end of those from whom nothing more will come. What the bytes mean is not known here.

use super::UringLoop;
use super::operation::{self, Kind};
use super::ring::Completion;
use super::streams::{Io, Receiving, Sending, Watching};
use crate::connections::{Connection, Phase};
use crate::limits::INPUT_PAUSE_BYTES;
use dataplane_core::shard::StreamToken;
use tuning::ring_probe::RECEIVE_GROUP;

impl UringLoop<'_> {
    /// A client that had closed its side is gone altogether, or is watched no longer.
    pub(super) fn hung_up(&mut self, token: StreamToken, completion: Completion) {
        let Some(connection) = self.connections.get(token) else { return };
        // It tells at once that the client's side is closed, which we know.
        let broken = completion.result > 0 && completion.result & i32::from(libc::POLLERR | libc::POLLHUP) != 0;
        connection.io.doomed |= broken;
        if !completion.goes_on() {
            connection.io.watching = Watching::Off;
        }
        // Whoever waits for the watch to end, or wants it armed anew, has to be told that it ended.
        if broken || !completion.goes_on() {
            self.mark(token);
        }
    }

    /// Arms or cancels the receive, and the watch that takes its place for a waiting client that has closed its side.
    pub(super) fn settle_receive(&mut self, token: StreamToken) {
        let pressed = self.pressed;
        let Some(connection) = self.connections.get(token).filter(|connection| !connection.io.doomed) else { return };
        let wanted = wants_input(connection, pressed);
        match connection.io.receiving {
            Receiving::Off if wanted => {
                let build = if pressed { operation::receive_once } else { operation::receive };
                connection.io.receiving = if pressed { Receiving::Once } else { Receiving::On };
                let entry = build(&connection.io.file, token, RECEIVE_GROUP);
                // SAFETY: it points at nothing; the buffers of the group outlive every operation of the ring.
                unsafe { self.ring.push(&entry) };
            }
            Receiving::On if !wanted || pressed => self.cancel_receive(token),
            Receiving::Once if !wanted => self.cancel_receive(token),
            _ => {}
        }
        self.settle_watch(token);
    }

    fn settle_watch(&mut self, token: StreamToken) {
        let Some(connection) = self.connections.get(token) else { return };
        if !connection.input_ended {
            return;
        }
        match (connection.io.watching, connection.phase) {
            (Watching::Off, Phase::Waiting) => {
                connection.io.watching = Watching::On;
                let entry = operation::watch_end(&connection.io.file, token);
                // SAFETY: it points at nothing.
                unsafe { self.ring.push(&entry) };
            }
            (Watching::On, phase) if phase != Phase::Waiting => self.cancel_watch(token),
            _ => {}
        }
    }

    pub(super) fn cancel_watch(&mut self, token: StreamToken) {
        if let Some(connection) = self.connections.get(token) {
            connection.io.watching = Watching::Ending;
            // SAFETY: it points at nothing.
            unsafe { self.ring.push(&operation::cancel(Kind::HangUp.of(token))) };
        }
    }

    /// Holds every receive to one buffer when large inputs have become too many, and lets them go on as before when they
    /// have become few. A multishot receive brings what a client has sent in one go, however little of it can be served.
    pub(super) fn settle_pressure(&mut self) {
        let pressed = self.buffers.is_pressed(self.pressed);
        if pressed == self.pressed {
            return;
        }
        self.pressed = pressed;
        let mut tokens = std::mem::take(&mut self.serving);
        self.connections.all(&mut tokens);
        // When it ends, too: there are those from whom nothing is received because of it.
        tokens.drain(..).for_each(|token| self.settle_receive(token));
        self.serving = tokens;
    }

    pub(super) fn cancel_receive(&mut self, token: StreamToken) {
        if let Some(connection) = self.connections.get(token) {
            connection.io.receiving = Receiving::Ending;
            // SAFETY: it points at nothing.
            unsafe { self.ring.push(&operation::cancel(Kind::Receive.of(token))) };
        }
    }
}

/// Whether bytes should be received now.
fn wants_input(connection: &Connection<Io>, pressed: bool) -> bool {
    let is_stuck = connection.phase == Phase::Again || connection.io.sending != Sending::Off;
    let room = if pressed && is_stuck { 1 } else { INPUT_PAUSE_BYTES };
    let has_room = connection.input.len() < room;
    !connection.input_ended
        && match connection.phase {
            Phase::Reading | Phase::Waiting | Phase::Again | Phase::Closing => has_room,
            Phase::Lingering => true,
            Phase::HandingOver => false,
        }
}
