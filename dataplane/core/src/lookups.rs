//! What a shard is having looked up: which assets, begun for whom, and what came to nothing lately.
//!
//! A lookup is under way from the moment it is asked for until a fresh tick of its asset comes, it is told that there is
//! nothing, or its time is over; it is settled until those who wait for it have been named. Everything is bounded, and
//! reserved at the start. Who waits is known to `waiters`, who looks and where to nobody here; which requests need a
//! lookup is decided in `seek`.

mod budget;
mod nothing;
mod seek;

pub(crate) use seek::{Seeker, Sought};

use crate::limits::{
    IN_USE_MS, IN_USE_TURNS, LOOKUP_WAIT_MS, LOOKUPS_MAX, NO_TIME_TO_LOOK_MS, UNAVAILABLE_MS, UNKNOWN_MS,
};
use crate::lookup::NotFound;
use crate::places::Places;
use alloc::vec;
use alloc::vec::Vec;
use budget::{Bound, Budget};
use core::ops::Range;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use nothing::Nothing;
use shared::asset::{AssetDirectory, AssetId, Symbol};
use shared::code::Code;
use shared::key::KeyId;
use shared::limits::ASSETS_MAX;

/// No place, no asset.
const NONE: u16 = u16::MAX;

/// Place of a lookup in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LookupPlace(u16);

impl LookupPlace {
    /// Below `LOOKUPS_MAX`.
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A lookup that is under way, or was.
#[derive(Clone, Copy)]
struct Lookup {
    symbol: Symbol,
    deadline_mono_ms: u64,
    /// Tells it from those of the same symbol before and after it.
    number: u32,
    /// Who asked first.
    key: KeyId,
    /// The asset's number, if it is in the directory.
    asset: u16,
}

/// How a lookup ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Found,
    Nothing,
    NotLooked,
}

/// All lookups of one shard.
pub(crate) struct Lookups {
    places: Places<Lookup>,
    /// Those under way.
    by_symbol: HashMap<Symbol, u16, FixedState>,
    /// The same, by the number of their asset where it has one.
    by_asset: Vec<u16>,
    /// Those that are over, whose waiting requests are still to be named.
    settled: Vec<u16>,
    nothing: Nothing,
    budget: Budget,
    /// The number of the next one. It comes round again after 2^32: who is told of a lookup that many before is told nothing
    /// wrong unless it was of the same symbol.
    next_number: u32,
    /// The time as it was told last.
    mono_ms: u64,
    /// The next asset to be looked at for whether it is in use, and when the first was, monotonic ms.
    next_looked_at: usize,
    looks_began_mono_ms: u64,
}

impl Lookups {
    /// No lookups. Allocates all it will ever need: with room for twice as many, the index never grows.
    pub(crate) fn new(hash_seed: u64) -> Self {
        Self {
            places: Places::new(LOOKUPS_MAX),
            by_symbol: HashMap::with_capacity_and_hasher(2 * LOOKUPS_MAX, FixedState::with_seed(hash_seed)),
            by_asset: vec![NONE; ASSETS_MAX],
            settled: Vec::with_capacity(LOOKUPS_MAX),
            nothing: Nothing::new(hash_seed),
            budget: Budget::new(),
            next_number: 0,
            mono_ms: 0,
            next_looked_at: usize::MAX,
            looks_began_mono_ms: 0,
        }
    }

    /// Tells the time, which never goes back.
    #[inline]
    pub(crate) const fn tell_time(&mut self, mono_ms: u64) {
        self.mono_ms = mono_ms;
    }

    /// How many are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.by_symbol.len()
    }

    /// The lookup of this asset that is under way.
    fn find(&self, symbol: &Symbol) -> Option<LookupPlace> {
        self.by_symbol.get(symbol).copied().map(LookupPlace)
    }

    /// Whether the lookup in this place is not over.
    fn is_under_way(&self, place: u16) -> bool {
        self.find(&self.places[place].symbol) == Some(LookupPlace(place))
    }

    /// Begins one for `key`. There must be none of this symbol.
    ///
    /// # Errors
    /// The table is full, or this key's part of it, or too many of its lookups came to nothing in this second.
    fn begin(&mut self, symbol: Symbol, asset: Option<AssetId>, key: KeyId) -> Result<LookupPlace, Bound> {
        if self.places.is_full() {
            return Err(Bound::AtATime);
        }
        self.budget.begin(key, self.mono_ms)?;
        let deadline_mono_ms = self.mono_ms + LOOKUP_WAIT_MS;
        let asset_number = asset.map_or(NONE, AssetId::number);
        let lookup = Lookup { symbol, deadline_mono_ms, number: self.next_number, key, asset: asset_number };
        let place = self.places.take(lookup).ok_or(Bound::AtATime)?;
        self.next_number = self.next_number.wrapping_add(1);
        self.by_symbol.insert(symbol, place);
        if let Some(asset) = asset {
            self.by_asset[asset.index()] = place;
        }
        Ok(LookupPlace(place))
    }

    /// The number of the lookup in this place.
    fn number(&self, place: LookupPlace) -> u32 {
        self.places[place.0].number
    }

    /// The lookup of this asset that is under way.
    pub(crate) fn of_asset(&self, asset: AssetId) -> Option<LookupPlace> {
        Some(self.by_asset[asset.index()]).filter(|place| *place != NONE).map(LookupPlace)
    }

    /// A tick of this asset came that is not stale. Whether it was being looked up.
    #[inline]
    pub(crate) fn found(&mut self, asset: AssetId) -> bool {
        let place = self.by_asset[asset.index()];
        if place != NONE {
            self.settle(place, End::Found);
        }
        place != NONE
    }

    /// Nothing was found. Whether that lookup was under way: if not, the answer came too late, and something is known that
    /// is newer, or another lookup of the same symbol will tell.
    pub(crate) fn came_to_nothing(&mut self, NotFound { symbol, number, code }: &NotFound) -> bool {
        let place = self.find(symbol).filter(|place| self.number(*place) == *number);
        if let Some(LookupPlace(place)) = place {
            self.fail(place, *code);
        }
        place.is_some()
    }

    /// Ends a lookup that is under way: nothing was found.
    fn fail(&mut self, place: u16, code: Code) {
        // An asset of the directory is known to somebody, even if not to whoever looked.
        let Lookup { symbol, key, asset, .. } = self.places[place];
        // That there was no time is between whoever asked and the control plane: others who wait ask for themselves.
        let (whose, code, ms, end) = match code {
            Code::Overloaded => (key, code, NO_TIME_TO_LOOK_MS, End::NotLooked),
            Code::AssetUnknown if asset == NONE => (KeyId::NOBODY, code, UNKNOWN_MS, End::Nothing),
            _ => (KeyId::NOBODY, Code::PriceUnavailable, UNAVAILABLE_MS, End::Nothing),
        };
        self.nothing.remember(symbol, whose, code, self.mono_ms + ms, self.mono_ms);
        self.settle(place, end);
    }

    /// Ends those whose time is over, as if no tier had a price: answers how many. Looks at every place, 20 times a second.
    pub(crate) fn expire(&mut self) -> usize {
        let mut expired = 0;
        if self.by_symbol.is_empty() {
            return expired;
        }
        for place in self.places.reach() {
            if self.places[place].deadline_mono_ms <= self.mono_ms && self.is_under_way(place) {
                self.fail(place, Code::PriceUnavailable);
                expired += 1;
            }
        }
        expired
    }

    /// There is another directory: lookups whose symbols it has are of its assets from now on. Those of which a fresh
    /// price is there already are over; answers how many.
    pub(crate) fn bind(&mut self, assets: &AssetDirectory, is_fresh: impl Fn(AssetId) -> bool) -> usize {
        let mut found = 0;
        for place in self.places.reach() {
            let Lookup { symbol, asset, .. } = self.places[place];
            if asset == NONE
                && self.is_under_way(place)
                && let Some(asset) = assets.find(&symbol)
            {
                self.places[place].asset = asset.number();
                self.by_asset[asset.index()] = place;
                if is_fresh(asset) {
                    self.settle(place, End::Found);
                    found += 1;
                }
            }
        }
        found
    }

    fn settle(&mut self, place: u16, end: End) {
        let Lookup { symbol, key, asset, .. } = self.places[place];
        self.by_symbol.remove(&symbol);
        if let Some(number) = self.by_asset.get_mut(usize::from(asset)) {
            *number = NONE;
        }
        self.budget.end(key, self.mono_ms, end == End::Nothing);
        self.settled.push(place);
    }

    /// Which of so many assets are now to be looked at for whether they are in use: each once a second at most, a part of
    /// them in each idle tick.
    fn next_looked_at(&mut self, assets: usize) -> Range<usize> {
        if self.next_looked_at >= assets && self.looks_began_mono_ms + IN_USE_MS <= self.mono_ms {
            self.next_looked_at = 0;
            self.looks_began_mono_ms = self.mono_ms;
        }
        let begin = self.next_looked_at.min(assets);
        self.next_looked_at = (begin + assets.div_ceil(IN_USE_TURNS)).min(assets);
        begin..self.next_looked_at
    }

    /// Whether there are any whose waiting requests are still to be named.
    #[inline]
    pub(crate) const fn has_settled(&self) -> bool {
        !self.settled.is_empty()
    }

    /// One of these; its place is free from now on.
    #[inline]
    pub(crate) fn next_settled(&mut self) -> Option<LookupPlace> {
        let place = self.settled.pop()?;
        self.places.give_back(place);
        Some(LookupPlace(place))
    }
}
