//! Whom to answer later: who sent each datagram that waits, and which of our addresses was asked.
//!
//! A table by the shard's ticket, made once. It knows neither what was asked nor how long it may wait: the shard gives
//! tickets out, and takes each back when it has it answered.

use super::control::Origin;
use super::peer::{Addresses, Peer};
use dataplane_core::limits::DATAGRAMS_WAITING_MAX;
use dataplane_core::shard::DatagramTicket;

/// Who sent a datagram, and where the reply to it leaves from.
#[derive(Clone, Copy)]
struct Asker {
    peer: Peer,
    origin: Origin,
}

const _: () = assert!(size_of::<Asker>() <= 80);

/// The askers of one shard's waiting datagrams: 16,384 × 80 bytes = 1.3 MiB, of which only pages that a ticket has ever
/// reached are resident: one page for each 51 datagrams that have waited at a time.
pub(super) struct Waiting {
    askers: Box<[Asker]>,
}

impl Waiting {
    /// Allocates the table, untouched.
    pub(super) fn new() -> Self {
        let askers = Box::<[Asker]>::new_zeroed_slice(DATAGRAMS_WAITING_MAX);
        // SAFETY: plain integers, for which zero is a value: nobody, from anywhere.
        Self { askers: unsafe { askers.assume_init() } }
    }

    /// Remembers, under this ticket, who has that number among `addresses`.
    #[inline]
    pub(super) fn remember(&mut self, ticket: DatagramTicket, addresses: &impl Addresses, place: usize) {
        self.askers[usize::from(ticket.0)] = Asker { peer: *addresses.peer(place), origin: *addresses.origin(place) };
    }
}

impl Addresses for Waiting {
    #[inline]
    fn peer(&self, place: usize) -> &Peer {
        &self.askers[place].peer
    }

    #[inline]
    fn origin(&self, place: usize) -> &Origin {
        &self.askers[place].origin
    }
}
