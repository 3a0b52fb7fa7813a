//! Datagrams that wait for a lookup: their bytes, from the first look at them until they are answered.
//!
//! Whom to answer is known to the engine, under the ticket; what is waited for, to `waiters`. No key has more of them than
//! it leaves room for others: alone it may hold half of the places, beside another that does so a third, and so on. So
//! there always is room for a key that has none, whatever the others do.

use crate::limits::{DATAGRAMS_WAITING_MAX, WAITING_KEY_COUNTS};
use crate::places::Places;
use crate::shard::DatagramTicket;
use crate::waiters::WaitPlace;
use alloc::vec;
use alloc::vec::Vec;
use shared::key::KeyId;
use shared::limits::DATAGRAM_IN_MAX;

/// A datagram as it came.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    bytes: [u8; DATAGRAM_IN_MAX],
    length: u16,
}

impl Kept {
    /// A request of at most `DATAGRAM_IN_MAX` bytes; what is longer is cut.
    fn new(request: &[u8]) -> Self {
        let mut bytes = [0; DATAGRAM_IN_MAX];
        let length = request.len().min(DATAGRAM_IN_MAX);
        bytes[..length].copy_from_slice(&request[..length]);
        Self { bytes, length: length as u16 }
    }

    /// The request.
    pub(crate) fn request(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// A datagram that has waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waited {
    pub(crate) ticket: DatagramTicket,
    pub(crate) since_mono_ms: u64,
}

struct Place {
    kept: Kept,
    key: KeyId,
    since_mono_ms: u64,
    /// `None` while it is free.
    wait: Option<WaitPlace>,
}

/// All waiting datagrams of one shard.
pub(crate) struct WaitingDatagrams {
    places: Places<Place>,
    /// How many may be held.
    most: usize,
    /// How many are held of the keys that are counted there.
    of_keys: Vec<u16>,
}

impl WaitingDatagrams {
    /// Nothing waits. Reserves all it will ever need; untouched, it is not resident.
    pub(crate) fn new(most_of_node: u32, shards: u16) -> Self {
        let mut waiting =
            Self { places: Places::new(DATAGRAMS_WAITING_MAX), most: 0, of_keys: vec![0; WAITING_KEY_COUNTS] };
        waiting.set_most(most_of_node, shards);
        waiting
    }

    /// Lets this shard's even part of so many wait.
    pub(crate) fn set_most(&mut self, most_of_node: u32, shards: u16) {
        self.most = (most_of_node.div_ceil(u32::from(shards).max(1)) as usize).min(DATAGRAMS_WAITING_MAX);
    }

    /// How many wait, or are about to be answered.
    pub(crate) const fn held(&self) -> usize {
        self.places.held()
    }

    /// Whether one more datagram of `key` may wait.
    pub(crate) fn have_room_for(&self, key: KeyId) -> bool {
        usize::from(self.of_keys[count_of(key)]) < self.most.saturating_sub(self.places.held())
    }

    /// Keeps a datagram of `key`; `None` when so many are held that no more may be.
    pub(crate) fn keep(&mut self, key: KeyId, request: &[u8], since_mono_ms: u64) -> Option<DatagramTicket> {
        if !self.have_room_for(key) {
            return None;
        }
        let place = self.places.take(Place { kept: Kept::new(request), key, since_mono_ms, wait: None })?;
        self.of_keys[count_of(key)] += 1;
        Some(DatagramTicket(place))
    }

    /// It waits at this place from now on.
    pub(crate) fn set_wait(&mut self, ticket: DatagramTicket, wait: WaitPlace) {
        if let Some(place) = self.places.get_mut(ticket.0) {
            place.wait = Some(wait);
        }
    }

    /// A datagram that waits: its bytes, since when, and where. `None` when nothing is held under this ticket.
    pub(crate) fn find(&self, ticket: DatagramTicket) -> Option<(Kept, Waited, WaitPlace)> {
        let place = self.places.get(ticket.0)?;
        Some((place.kept, Waited { ticket, since_mono_ms: place.since_mono_ms }, place.wait?))
    }

    /// It was dealt with: the ticket is free.
    pub(crate) fn release(&mut self, ticket: DatagramTicket) {
        if let Some(place) = self.places.get_mut(ticket.0) {
            place.wait = None;
            let of_key = &mut self.of_keys[count_of(place.key)];
            *of_key = of_key.saturating_sub(1);
            self.places.give_back(ticket.0);
        }
    }
}

/// Where a key's datagrams are counted.
const fn count_of(key: KeyId) -> usize {
    key.0 as usize % WAITING_KEY_COUNTS
}
