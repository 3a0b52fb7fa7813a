//! Which of a venue's connections carries which market.
//!
//! A market stays on its connection for as long as it is wanted: what comes and goes on demand moves nobody else. How
//! often it may come and go is bounded where the venue counts subscriptions: who finds no turn waits, and is meanwhile
//! asked for over REST like anything that is not subscribed. This file opens no connection and sends nothing.

use super::plan::Market;
use super::timing::{CONNECTIONS_MAX, RESUBSCRIBES_PER_HOUR_MAX};
use shared::asset::AssetId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use venues::protocol::VenueLimits;

const HOUR_NS: u64 = 3_600_000_000_000;

/// What one connection is to carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Its markets, in asset order.
    pub markets: Vec<Market>,
    /// The plan's: when it grows, what the venue refused is asked for again.
    pub edition: u64,
}

/// One connection's place.
#[derive(Debug, Default)]
struct Place {
    markets: BTreeMap<AssetId, Market>,
    /// Most markets it had in the last hour: as many operations as a new connection may have cost.
    most: usize,
    /// When markets came and went on demand in the last hour, monotonic ns; at most `Shares::operations` of them.
    changes_mono_ns: VecDeque<u64>,
}

/// A venue's markets, dealt out over its connections.
#[derive(Debug)]
pub struct Shares {
    capacity: usize,
    /// Operations of one connection in an hour that are not kept back for what must be asked for anew; `None`: any number.
    operations: Option<usize>,
    places: Vec<Place>,
    waiting: usize,
}

impl Shares {
    /// Nothing dealt yet. Of a venue's operations in an hour, two for each resubscription that a connection may make are
    /// kept back; the names of a new connection are another part, and the rest is for changes.
    #[must_use]
    pub fn new(limits: &VenueLimits) -> Self {
        let kept_back = 2 * RESUBSCRIBES_PER_HOUR_MAX as usize;
        let operations = limits.operations_per_hour.map(|operations| operations.saturating_sub(kept_back));
        Self { capacity: limits.names_per_connection.max(1), operations, places: Vec::new(), waiting: 0 }
    }

    /// Deals out `markets`. Those in `lasting` are taken in at once; the others when there is a turn for them.
    pub fn deal(&mut self, markets: &[Market], lasting: &BTreeSet<AssetId>, mono_ns: u64) {
        let mut wanted: BTreeMap<AssetId, &Market> = markets.iter().map(|market| (market.asset, market)).collect();
        for place in &mut self.places {
            while place.changes_mono_ns.front().is_some_and(|then| mono_ns.saturating_sub(*then) >= HOUR_NS) {
                place.changes_mono_ns.pop_front();
            }
            if place.changes_mono_ns.is_empty() {
                place.most = place.markets.len();
            }
            let gone = |market: &&Market| wanted.get(&market.asset).is_none_or(|wanted| **wanted != **market);
            let gone: Vec<AssetId> = place.markets.values().filter(gone).map(|market| market.asset).collect();
            for asset in gone {
                // What is quoted another way now must change; what nobody wants may wait for its turn to leave.
                if wanted.contains_key(&asset) || place.take_turn(self.operations, mono_ns) {
                    place.markets.remove(&asset);
                }
            }
            place.markets.keys().for_each(|asset| _ = wanted.remove(asset));
        }
        let (first, then): (Vec<&Market>, Vec<&Market>) =
            wanted.into_values().partition(|market| lasting.contains(&market.asset));
        self.waiting = 0;
        for market in first {
            self.waiting += usize::from(!self.admit(market, None));
        }
        for market in then {
            self.waiting += usize::from(!self.admit(market, Some(mono_ns)));
        }
    }

    /// Takes a market in where there is room, and a turn if it came on demand.
    fn admit(&mut self, market: &Market, on_demand_mono_ns: Option<u64>) -> bool {
        let (capacity, operations) = (self.capacity, self.operations);
        let mut takes = |place: &mut Place| {
            let has_room = place.markets.len() < capacity;
            has_room && on_demand_mono_ns.is_none_or(|mono_ns| place.take_turn(operations, mono_ns))
        };
        let at = self.places.iter_mut().position(&mut takes);
        let is_full = self.places.iter().all(|place| place.markets.len() >= capacity);
        let place = match at {
            Some(at) => &mut self.places[at],
            // Another connection is for names, not for turns.
            None if is_full && self.places.len() < CONNECTIONS_MAX => {
                self.places.push(Place::default());
                let Some(place) = self.places.last_mut() else { return false };
                place
            }
            None => return false,
        };
        place.markets.insert(market.asset, market.clone());
        place.most = place.most.max(place.markets.len());
        true
    }

    /// The markets of each connection, in the order in which connections were first needed; an empty one is needed no
    /// more.
    pub fn each(&self) -> impl Iterator<Item = Vec<Market>> {
        self.places.iter().map(|place| place.markets.values().cloned().collect())
    }

    /// Markets that wait for a turn, or for room.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }
}

impl Place {
    /// Counts a change on demand, if one is left in this hour.
    fn take_turn(&mut self, operations: Option<usize>, mono_ns: u64) -> bool {
        let Some(operations) = operations else { return true };
        // One more name is one more operation of the next connection as well.
        let has_turn = self.changes_mono_ns.len() + self.most.max(self.markets.len() + 1) < operations;
        if has_turn {
            self.changes_mono_ns.push_back(mono_ns);
        }
        has_turn
    }
}

#[cfg(test)]
mod tests;
