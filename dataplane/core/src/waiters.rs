//! Requests that wait for a newer price: in a queue for each asset, until a tick comes or their time is over.
//!
//! A place is held from the moment a request begins to wait until its connection comes to fetch the outcome (or is
//! gone), so the number of places bounds everything here. What is answered then is not this file's business.

use crate::limits::WAITERS_MAX;
use crate::shard::{ReadyList, StreamToken};
use alloc::vec;
use alloc::vec::Vec;
use shared::asset::AssetId;
use shared::limits::ASSETS_MAX;

/// No place.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Waiting,
    /// Named in a ready list, not yet fetched.
    Over,
}

#[derive(Clone, Copy)]
struct Waiter {
    token: StreamToken,
    newer_than: u64,
    deadline_mono_ms: u64,
    /// Neighbours in the asset's queue while waiting; `next` is the next free place while free.
    next: u32,
    previous: u32,
    asset: u16,
    state: State,
}

#[derive(Clone, Copy)]
struct Queue {
    first: u32,
    last: u32,
}

impl Queue {
    const EMPTY: Self = Self { first: NONE, last: NONE };
}

/// Place of a waiting request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitPlace(u32);

/// All waiting requests of one shard.
pub(crate) struct Waiters {
    places: Vec<Waiter>,
    /// First of the places that were freed.
    free: u32,
    queues: Vec<Queue>,
    waiting: usize,
    held: usize,
}

impl Waiters {
    /// Nobody waits. Reserves all it will ever need; untouched, it is not resident.
    pub(crate) fn new() -> Self {
        Self {
            places: Vec::with_capacity(WAITERS_MAX),
            free: NONE,
            queues: vec![Queue::EMPTY; ASSETS_MAX],
            waiting: 0,
            held: 0,
        }
    }

    /// How many requests wait.
    pub(crate) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Begins to wait; `None` when every place is held.
    pub(crate) fn begin(
        &mut self,
        token: StreamToken,
        asset: AssetId,
        newer_than: u64,
        deadline_mono_ms: u64,
    ) -> Option<WaitPlace> {
        let queue = self.queues[asset.index()];
        let waiter = Waiter {
            token,
            newer_than,
            deadline_mono_ms,
            next: NONE,
            previous: queue.last,
            asset: asset.number(),
            state: State::Waiting,
        };
        let place = match self.free {
            NONE if self.places.len() == WAITERS_MAX => return None,
            NONE => {
                self.places.push(waiter);
                self.places.len() as u32 - 1
            }
            free => {
                self.free = self.places[free as usize].next;
                self.places[free as usize] = waiter;
                free
            }
        };
        match queue.last {
            NONE => self.queues[asset.index()].first = place,
            last => self.places[last as usize].next = place,
        }
        self.queues[asset.index()].last = place;
        self.waiting += 1;
        self.held += 1;
        Some(WaitPlace(place))
    }

    /// Whether the request still has to wait.
    pub(crate) fn is_waiting(&self, place: WaitPlace) -> bool {
        self.places.get(place.0 as usize).is_some_and(|waiter| waiter.state == State::Waiting)
    }

    /// The connection came for the outcome, or is gone: the place is free.
    pub(crate) fn end(&mut self, place: WaitPlace) {
        if self.is_waiting(place) {
            self.unlink(place.0);
        }
        let free = self.free;
        if let Some(waiter) = self.places.get_mut(place.0 as usize).filter(|waiter| waiter.state == State::Over) {
            waiter.state = State::Free;
            waiter.next = free;
            self.free = place.0;
            self.held -= 1;
        }
        // With nobody left the search for deadlines has nothing to look at.
        if self.held == 0 {
            self.places.clear();
            self.free = NONE;
        }
    }

    /// Takes a waiting request out of its queue.
    fn unlink(&mut self, place: u32) {
        let Waiter { previous, next, asset, .. } = self.places[place as usize];
        let queue = &mut self.queues[usize::from(asset)];
        if queue.first == place {
            queue.first = next;
        }
        if queue.last == place {
            queue.last = previous;
        }
        if let Some(before) = self.places.get_mut(previous as usize) {
            before.next = next;
        }
        if let Some(after) = self.places.get_mut(next as usize) {
            after.previous = previous;
        }
        self.places[place as usize].state = State::Over;
        self.waiting -= 1;
    }

    /// A tick with `sequence` came for `asset`: names those who waited for one like it.
    #[inline]
    pub(crate) fn release(&mut self, asset: AssetId, sequence: u64, ready: &mut ReadyList) {
        let mut place = self.queues[asset.index()].first;
        while let Some(waiter) = self.places.get(place as usize).copied() {
            if waiter.newer_than < sequence {
                self.unlink(place);
                ready.streams.push(waiter.token);
            }
            place = waiter.next;
        }
    }

    /// Names those whose time is over. Looks at every held place: 16,384 of them are about 20 µs, twenty times a second.
    pub(crate) fn expire(&mut self, mono_ms: u64, ready: &mut ReadyList) {
        if self.waiting == 0 {
            return;
        }
        for place in 0..self.places.len() as u32 {
            let waiter = &self.places[place as usize];
            if waiter.state == State::Waiting && waiter.deadline_mono_ms <= mono_ms {
                ready.streams.push(waiter.token);
                self.unlink(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asset(index: usize) -> AssetId {
        AssetId::new(index).expect("a small index")
    }

    fn tokens(ready: &mut ReadyList) -> Vec<u64> {
        ready.streams.drain(..).map(|token| token.0).collect()
    }

    #[test]
    fn ticks_release_those_who_waited_for_them_in_order() {
        let (mut waiters, mut ready) = (Waiters::new(), ReadyList::default());
        let places: Vec<_> = [(1, 0, 10), (2, 0, 20), (3, 1, 10), (4, 0, 10)]
            .into_iter()
            .map(|(token, of, newer_than)| waiters.begin(StreamToken(token), asset(of), newer_than, 1_000))
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
        assert_eq!((waiters.held, waiters.places.len()), (0, 0));
    }

    #[test]
    fn deadlines_end_waiting_and_places_run_out() {
        let (mut waiters, mut ready) = (Waiters::new(), ReadyList::default());
        let places: Vec<_> = (0..WAITERS_MAX as u64)
            .map(|token| waiters.begin(StreamToken(token), asset(0), 1, 100 + token % 2).expect("room"))
            .collect();
        assert_eq!(waiters.begin(StreamToken(0), asset(0), 1, 100), None);
        waiters.expire(99, &mut ready);
        assert_eq!(tokens(&mut ready).len(), 0);
        waiters.expire(100, &mut ready);
        assert_eq!(tokens(&mut ready).len(), WAITERS_MAX / 2);
        assert_eq!(waiters.begin(StreamToken(0), asset(0), 1, 100), None, "not yet fetched");
        waiters.end(places[0]);
        assert!(waiters.begin(StreamToken(7), asset(0), 1, 500).is_some());
        waiters.release(asset(0), 2, &mut ready);
        assert_eq!(tokens(&mut ready).last(), Some(&7));
    }
}
