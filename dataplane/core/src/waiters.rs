//! Requests that wait for a newer price or for a lookup: in a queue for each asset and for each lookup, until a tick
//! comes, the lookup is over, or their time is.
//!
//! A place is held from the moment a request begins to wait until its outcome is fetched (or its connection is gone), so
//! the number of places bounds everything here. What is answered then is not this file's business.

use crate::limits::{DATAGRAMS_WAITING_MAX, LOOKUPS_MAX, WAITERS_MAX};
use crate::lookups::LookupPlace;
use crate::places::Places;
use crate::shard::{DatagramTicket, ReadyList, StreamToken};
use alloc::vec;
use alloc::vec::Vec;
use shared::asset::AssetId;
use shared::limits::ASSETS_MAX;

/// No place.
const NONE: u16 = u16::MAX;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Waiting,
    /// Named in a ready list, not yet fetched.
    Over,
}

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The foremost request of a connection.
    Stream(StreamToken),
    /// A datagram; there are never more than `DATAGRAMS_WAITING_MAX`.
    Datagram(DatagramTicket),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// A tick of the asset with a higher sequence.
    Newer(AssetId, u64),
    /// The end of the lookup; with `true` also a stale tick of its asset, where there was none at all.
    Lookup(LookupPlace, bool),
}

/// What a stale tick counts as to those who wait for a lookup: more than what they wait for who take one, and not more
/// than what the others do.
const STALE_FOUND: u64 = 1;

impl Awaited {
    /// Its queue, and the sequence that the tick, or what counts as such, must be above.
    const fn queue(self) -> (usize, u64) {
        match self {
            Self::Newer(asset, newer_than) => (asset.index(), newer_than),
            Self::Lookup(place, takes_stale) => (ASSETS_MAX + place.index(), if takes_stale { 0 } else { STALE_FOUND }),
        }
    }
}

#[derive(Clone, Copy)]
struct Waiter {
    who: Who,
    newer_than: u64,
    deadline_mono_ms: u64,
    /// Neighbours in the queue while waiting.
    next: u16,
    previous: u16,
    queue: u16,
    state: State,
}

const _: () = assert!(size_of::<Waiter>() == 40 && ASSETS_MAX + LOOKUPS_MAX < u16::MAX as usize);

#[derive(Clone, Copy)]
struct Queue {
    first: u16,
    last: u16,
}

impl Queue {
    const EMPTY: Self = Self { first: NONE, last: NONE };
}

/// Place of a waiting request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitPlace(u16);

/// All waiting requests of one shard.
pub(crate) struct Waiters {
    places: Places<Waiter>,
    queues: Vec<Queue>,
    waiting: usize,
    streams_held: usize,
}

impl Waiters {
    /// Nobody waits. Reserves all it will ever need; untouched, it is not resident.
    pub(crate) fn new() -> Self {
        Self {
            places: Places::new(WAITERS_MAX + DATAGRAMS_WAITING_MAX),
            queues: vec![Queue::EMPTY; ASSETS_MAX + LOOKUPS_MAX],
            waiting: 0,
            streams_held: 0,
        }
    }

    /// How many requests wait.
    pub(crate) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether one more request of a connection may wait.
    pub(crate) const fn have_room_for_a_stream(&self) -> bool {
        self.streams_held < WAITERS_MAX
    }

    /// Begins to wait; `None` when every place is held.
    pub(crate) fn begin(&mut self, who: Who, awaited: Awaited, deadline_mono_ms: u64) -> Option<WaitPlace> {
        let is_stream = matches!(who, Who::Stream(_));
        let has_room = match is_stream {
            true => self.have_room_for_a_stream(),
            false => self.places.held() - self.streams_held < DATAGRAMS_WAITING_MAX,
        };
        if !has_room {
            return None;
        }
        let (index, newer_than) = awaited.queue();
        let (queue, state) = (index as u16, State::Waiting);
        let previous = self.queues[index].last;
        let place =
            self.places.take(Waiter { who, newer_than, deadline_mono_ms, next: NONE, previous, queue, state })?;
        match previous {
            NONE => self.queues[index].first = place,
            last => self.places[last].next = place,
        }
        self.queues[index].last = place;
        self.waiting += 1;
        self.streams_held += usize::from(is_stream);
        Some(WaitPlace(place))
    }

    /// Whether the request still has to wait.
    pub(crate) fn is_waiting(&self, place: WaitPlace) -> bool {
        self.places.get(place.0).is_some_and(|waiter| waiter.state == State::Waiting)
    }

    /// The outcome is fetched, or nobody wants it any more: the place is free.
    pub(crate) fn end(&mut self, place: WaitPlace) {
        if self.is_waiting(place) {
            self.unlink(place.0);
        }
        if let Some(waiter) = self.places.get_mut(place.0).filter(|waiter| waiter.state == State::Over) {
            waiter.state = State::Free;
            self.streams_held -= usize::from(matches!(waiter.who, Who::Stream(_)));
            self.places.give_back(place.0);
        }
    }

    /// Takes a waiting request out of its queue.
    fn unlink(&mut self, place: u16) {
        let Waiter { previous, next, queue, .. } = self.places[place];
        let queue = &mut self.queues[usize::from(queue)];
        if queue.first == place {
            queue.first = next;
        }
        if queue.last == place {
            queue.last = previous;
        }
        if let Some(before) = self.places.get_mut(previous) {
            before.next = next;
        }
        if let Some(after) = self.places.get_mut(next) {
            after.previous = previous;
        }
        self.places[place].state = State::Over;
        self.waiting -= 1;
    }

    /// A tick with `sequence` came for `asset`: names those who waited for one like it.
    #[inline]
    pub(crate) fn release(&mut self, asset: AssetId, sequence: u64, ready: &mut ReadyList) {
        self.release_queue(asset.index(), sequence, ready);
    }

    /// A lookup is over: names all who waited for it.
    pub(crate) fn release_lookup(&mut self, lookup: LookupPlace, ready: &mut ReadyList) {
        self.release_queue(Awaited::Lookup(lookup, false).queue().0, u64::MAX, ready);
    }

    /// A stale tick came, and the lookup goes on: names those who waited for it and take a stale price.
    #[cold]
    pub(crate) fn release_stale(&mut self, lookup: LookupPlace, ready: &mut ReadyList) {
        self.release_queue(Awaited::Lookup(lookup, true).queue().0, STALE_FOUND, ready);
    }

    #[inline]
    fn release_queue(&mut self, queue: usize, sequence: u64, ready: &mut ReadyList) {
        let mut place = self.queues[queue].first;
        while let Some(waiter) = self.places.get(place).copied() {
            if waiter.newer_than < sequence {
                self.unlink(place);
                waiter.who.name_in(ready);
            }
            place = waiter.next;
        }
    }

    /// Names those whose time is over. Looks at every held place: 32,768 of them are about 40 µs, twenty times a second.
    pub(crate) fn expire(&mut self, mono_ms: u64, ready: &mut ReadyList) {
        if self.waiting == 0 {
            return;
        }
        for place in self.places.reach() {
            let waiter = self.places[place];
            if waiter.state == State::Waiting && waiter.deadline_mono_ms <= mono_ms {
                waiter.who.name_in(ready);
                self.unlink(place);
            }
        }
    }
}

impl Who {
    fn name_in(self, ready: &mut ReadyList) {
        match self {
            Self::Stream(token) => ready.streams.push(token),
            Self::Datagram(ticket) => ready.datagrams.push(ticket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asset(index: usize) -> AssetId {
        AssetId::new(index).expect("a small index")
    }

    fn begin(waiters: &mut Waiters, token: u64, of: usize, newer_than: u64, deadline: u64) -> Option<WaitPlace> {
        waiters.begin(Who::Stream(StreamToken(token)), Awaited::Newer(asset(of), newer_than), deadline)
    }

    fn tokens(ready: &mut ReadyList) -> Vec<u64> {
        ready.streams.drain(..).map(|token| token.0).collect()
    }

    #[test]
    fn ticks_release_those_who_waited_for_them_in_order() {
        let (mut waiters, mut ready) = (Waiters::new(), ReadyList::default());
        let places: Vec<_> = [(1, 0, 10), (2, 0, 20), (3, 1, 10), (4, 0, 10)]
            .into_iter()
            .map(|(token, of, newer_than)| begin(&mut waiters, token, of, newer_than, 1_000))
            .map(|place| place.expect("room"))
            .collect();
        waiters.release(asset(0), 10, &mut ready);
        assert_eq!(tokens(&mut ready), [0_u64; 0]);
        waiters.release(asset(0), 11, &mut ready);
        assert_eq!(tokens(&mut ready), [1, 4]);
        assert!(!waiters.is_waiting(places[0]) && waiters.is_waiting(places[1]));
        waiters.end(places[1]);
        waiters.release(asset(0), 99, &mut ready);
        assert_eq!(tokens(&mut ready), [0_u64; 0]);
        waiters.release(asset(1), 99, &mut ready);
        assert_eq!(tokens(&mut ready), [3]);
        assert_eq!(waiters.waiting(), 0);
        [0, 2, 3].into_iter().for_each(|place| waiters.end(places[place]));
        assert_eq!((waiters.places.held(), waiters.streams_held), (0, 0));
    }

    #[test]
    fn deadlines_end_waiting_and_places_run_out() {
        let (mut waiters, mut ready) = (Waiters::new(), ReadyList::default());
        let places: Vec<_> = (0..WAITERS_MAX as u64)
            .map(|token| begin(&mut waiters, token, 0, 1, 100 + token % 2).expect("room"))
            .collect();
        assert_eq!(begin(&mut waiters, 0, 0, 1, 100), None);
        waiters.expire(99, &mut ready);
        assert_eq!(tokens(&mut ready).len(), 0);
        waiters.expire(100, &mut ready);
        assert_eq!(tokens(&mut ready).len(), WAITERS_MAX / 2);
        assert_eq!(begin(&mut waiters, 0, 0, 1, 100), None, "not yet fetched");
        waiters.end(places[0]);
        assert!(begin(&mut waiters, 7, 0, 1, 500).is_some());
        waiters.release(asset(0), 2, &mut ready);
        assert_eq!(tokens(&mut ready).last(), Some(&7));
    }
}
