//! Datagrams in and out of one shard's socket, in batches: shared by all engines.
//!
//! One `recvmmsg`, one pass through the shard, one `sendmmsg`. A loop turn serves so many datagrams and no more, so that
//! TCP is not starved by a flood: what was received beyond that stays where it is until the next turn. Datagrams that come together in a train are taken
//! apart in `inbox`, replies to one peer are put together in `outbox`; in between each is served by itself, and what a
//! datagram says is the shard's business. Nothing here waits: what the kernel will not take at once is dropped and
//! counted, as a network would. A datagram that has to wait for a lookup leaves nothing here but whom to answer; when the
//! shard names it again it is answered like one that has just come, in a turn's worth of its own.
//!
//! A socket that is bound to one address answers from it. One that is bound to all of them answers from the address
//! that was asked, which the kernel tells beside each datagram; see `crate::sockets`.

mod control;
mod inbox;
mod outbox;
mod peer;
mod waiting;

use crate::lag::LagHistogram;
use crate::stats::LoopCounters;
use crate::wiring;
use dataplane_core::shard::{DatagramStep, DatagramTicket, ReadyList, Shard};
use inbox::{Inbox, MESSAGES_MAX, Message};
use outbox::{Outbox, Recipient, SendCounts};
use peer::Addresses;
use shared::moment::Moment;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use waiting::Waiting;

/// Datagrams after which a turn ends; of the message that reaches it the rest is served, 127 more at most. At 100 ns for a
/// binary one and 1 µs for JSON a turn is 50 to 600 µs long; 512 datagrams in trains are as much work as the 64 that come
/// alone in one receive, whose way through the kernel is the most of it.
const TURN_DATAGRAMS: usize = 512;

/// Trains received at a time at least: four of the longest are as many datagrams as above.
const TRAINS_MIN: usize = 4;

/// The buffers of one shard's datagram socket.
pub(crate) struct Datagrams {
    inbox: Inbox,
    outbox: Outbox,
    waiting: Waiting,
    /// Messages to receive at a time: as many as a turn serves, going by the last one's, so that few wait for the next and
    /// what is read is still in the cache.
    take: usize,
    /// The slots of messages that were received and not yet served. They stay until the next receive.
    held: Range<usize>,
    /// Whether more may be waiting in the socket than was told of: the last receive was given all it asked for, or was
    /// long ago, before a turn that ended with some held.
    more_waits: bool,
}

impl Datagrams {
    /// Allocates all that serving will need: 4 MiB for what comes in and 1.3 MiB for who waits, most of it never touched,
    /// and 110 KiB for replies.
    pub(crate) fn new() -> Self {
        Self {
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            waiting: Waiting::new(),
            take: MESSAGES_MAX,
            held: 0..0,
            more_waits: false,
        }
    }

    /// Tells what became of replies since start.
    pub(crate) const fn count_into(&self, counters: &mut LoopCounters) {
        let SendCounts { unsent, grouped, groups_refused } = self.outbox.counts;
        counters.datagrams_unsent = unsent;
        counters.datagrams_grouped = grouped;
        counters.datagram_groups_refused = groups_refused;
    }

    /// Whether messages were received that are not served yet: no watch of the socket tells of those.
    pub(crate) const fn holds(&self) -> bool {
        self.held.start < self.held.end
    }

    /// Takes a turn's worth from the socket, or of what is held from the last turn, lets the shard answer it, sends the
    /// replies. Connections that a tick has made ready meanwhile are added to `ready`. Answers whether there may be more:
    /// whoever is not told so by a level-triggered watch, or [`Self::holds`] some, must come back without sleeping.
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
        if !self.holds() {
            let received = self.inbox.receive(socket, self.take)?;
            self.held = 0..received;
            self.more_waits = received == self.take;
        }
        let (first, mut served) = (self.held.start, 0);
        while served < TURN_DATAGRAMS
            && let Some(slot) = self.held.next()
        {
            let message = self.inbox.take(slot);
            let mut turn = Turn { socket, shard, feed_lag, ready, now };
            served += answer(&self.inbox, message, &mut self.waiting, &mut self.outbox, &mut turn);
        }
        self.outbox.send(&self.inbox, socket);
        let messages = self.held.start - first;
        if let Some(fitting) = (TURN_DATAGRAMS * messages).checked_div(served) {
            self.take = fitting.clamp(TRAINS_MIN, MESSAGES_MAX);
        }
        self.more_waits |= self.holds();
        Ok(self.more_waits)
    }

    /// Answers a turn's worth of those that `ready` names, if any, in that order. Nothing tells of what is left there:
    /// whoever finds any must come back without sleeping.
    pub(crate) fn serve_waiting(
        &mut self,
        socket: BorrowedFd<'_>,
        shard: &mut Shard,
        feed_lag: &mut LagHistogram,
        ready: &mut ReadyList,
        now: Moment,
    ) {
        if ready.datagrams.is_empty() {
            return;
        }
        // Taken out first: one that has to wait on may be named again meanwhile, and the list must not outgrow its room.
        let mut tickets = [DatagramTicket(0); TURN_DATAGRAMS];
        let count = ready.datagrams.len().min(TURN_DATAGRAMS);
        for (place, ticket) in tickets.iter_mut().zip(ready.datagrams.drain(..count)) {
            *place = ticket;
        }
        let mut turn = Turn { socket, shard, feed_lag, ready, now };
        for ticket in &tickets[..count] {
            turn.make_way(&self.waiting, &mut self.outbox);
            let mut recipient = Recipient::new(&self.waiting, usize::from(ticket.0));
            match turn.shard.serve_waiting(now, *ticket, self.outbox.room()) {
                DatagramStep::Reply(length) => self.outbox.add(&mut recipient, length),
                // One that waits on keeps its ticket, so whom to answer stands there already.
                DatagramStep::Silent | DatagramStep::Wait(_) => {}
            }
        }
        // Before any other datagram comes: that one may be given a ticket of these.
        self.outbox.send(&self.waiting, socket);
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

impl Turn<'_> {
    /// What goes before each datagram: prices that came during the batch show in the answers after them, and there is
    /// room for a reply. Answers whether replies had to be sent for that.
    #[inline]
    fn make_way(&mut self, addresses: &impl Addresses, outbox: &mut Outbox) -> bool {
        if !self.shard.feed_is_empty() {
            wiring::drain(self.shard, self.feed_lag, self.now, self.ready);
        }
        let is_full = outbox.is_full();
        if is_full {
            outbox.send(addresses, self.socket);
        }
        is_full
    }
}

/// Lets the shard answer each datagram of a message; how many there were.
#[inline]
fn answer(inbox: &Inbox, message: Message, waiting: &mut Waiting, outbox: &mut Outbox, turn: &mut Turn<'_>) -> usize {
    let Some(from) = inbox.peer(message.slot).address() else { return 0 };
    let mut recipient = Recipient::new(inbox, message.slot);
    let mut served = 0;
    for datagram in inbox.datagrams(message) {
        if turn.make_way(inbox, outbox) {
            recipient.forget_group();
        }
        match turn.shard.serve_datagram(turn.now, from, datagram, outbox.room()) {
            DatagramStep::Reply(length) => outbox.add(&mut recipient, length),
            DatagramStep::Wait(ticket) => waiting.remember(ticket, inbox, message.slot),
            DatagramStep::Silent => {}
        }
        served += 1;
    }
    served
}

#[cfg(test)]
mod tests;
