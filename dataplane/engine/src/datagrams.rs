//! Datagrams in and out of one shard's socket, in batches: shared by all engines.
//!
//! One `recvmmsg`, one pass through the shard, one `sendmmsg`. A batch is the unit of a loop turn, so that the price
//! ring is drained between batches and TCP is not starved by a flood. Datagrams that come together in a train are taken
//! apart in `inbox`, replies to one peer are put together in `outbox`; in between each is served by itself, and what a
//! datagram says is the shard's business. Nothing here waits: what the kernel will not take at once is dropped and
//! counted, as a network would.
//!
//! A socket that is bound to one address answers from it. One that is bound to all of them answers from the address
//! that was asked, which the kernel tells beside each datagram; see `crate::sockets`.

mod control;
mod inbox;
mod outbox;
mod peer;

use crate::lag::LagHistogram;
use crate::stats::LoopCounters;
use crate::wiring;
use dataplane_core::shard::{DatagramStep, ReadyList, Shard};
use inbox::{Inbox, MESSAGES_MAX, Message};
use outbox::{Outbox, Recipient, SendCounts};
use shared::moment::Moment;
use std::io;
use std::os::fd::BorrowedFd;

/// Datagrams that a turn should serve at most, trains taken apart: at some 100 ns each, 512 take as long as 64 that come
/// alone, whose way through the kernel is the work. Trains are taken fewer at a time the longer the last ones were.
const TURN_DATAGRAMS: usize = 512;

/// Trains taken at a time at least: four of the longest are as many datagrams as above.
const TRAINS_MIN: usize = 4;

/// The buffers of one shard's datagram socket.
pub(crate) struct Datagrams {
    inbox: Inbox,
    outbox: Outbox,
    /// Messages to take at the next turn. Only the first turn after a quiet time can thus be long: 64 trains of 128, 1 ms.
    take: usize,
}

impl Datagrams {
    /// Allocates all that serving will need: 4 MiB for what comes in, most of it never touched, and 110 KiB for replies.
    pub(crate) fn new() -> Self {
        Self { inbox: Inbox::new(), outbox: Outbox::new(), take: MESSAGES_MAX }
    }

    /// Tells what became of replies since start.
    pub(crate) const fn count_into(&self, counters: &mut LoopCounters) {
        let SendCounts { unsent, grouped, groups_refused } = self.outbox.counts;
        counters.datagrams_unsent = unsent;
        counters.datagrams_grouped = grouped;
        counters.datagram_groups_refused = groups_refused;
    }

    /// Takes one batch from the socket, lets the shard answer it, sends the replies. Connections that a tick has made
    /// ready meanwhile are added to `ready`. Answers whether more datagrams may be waiting: a level-triggered watch
    /// tells by itself, any other must come back.
    ///
    /// # Errors
    /// The socket is none, or the headers are wrong: a bug. Nothing of a peer's doing.
    pub(crate) fn serve(
        &mut self,
        socket: BorrowedFd<'_>,
        shard: &mut Shard,
        feed_lag: &mut LagHistogram,
        ready: &mut ReadyList,
        now: Moment,
    ) -> io::Result<bool> {
        let asked = self.take;
        let received = self.inbox.receive(socket, asked)?;
        let mut served = 0;
        for slot in 0..received {
            let message = self.inbox.take(slot);
            let mut turn = Turn { socket, shard, feed_lag, ready, now };
            served += answer(&self.inbox, message, &mut self.outbox, &mut turn);
        }
        self.outbox.send(&self.inbox, socket, now);
        self.take = if served > received {
            (TURN_DATAGRAMS * received / served).clamp(TRAINS_MIN, MESSAGES_MAX)
        } else {
            MESSAGES_MAX
        };
        Ok(received == asked)
    }
}

/// What a batch is served with.
struct Turn<'a> {
    socket: BorrowedFd<'a>,
    shard: &'a mut Shard,
    feed_lag: &'a mut LagHistogram,
    ready: &'a mut ReadyList,
    now: Moment,
}

/// Lets the shard answer each datagram of a message; how many there were.
#[inline]
fn answer(inbox: &Inbox, message: Message, outbox: &mut Outbox, turn: &mut Turn<'_>) -> usize {
    let Some(from) = inbox.peer(message.slot).address() else { return 0 };
    let mut recipient = Recipient::new(inbox, message.slot);
    let mut served = 0;
    for datagram in inbox.datagrams(message) {
        // A tick that came during the batch shows in the answers after it.
        if !turn.shard.feed_is_empty() {
            wiring::drain(turn.shard, turn.feed_lag, turn.now, turn.ready);
        }
        if outbox.is_full() {
            outbox.send(inbox, turn.socket, turn.now);
            recipient.forget_group();
        }
        if let DatagramStep::Reply(length) = turn.shard.serve_datagram(turn.now, from, datagram, outbox.room()) {
            outbox.add(&mut recipient, length, turn.now);
        }
        served += 1;
    }
    served
}

#[cfg(test)]
mod tests;
