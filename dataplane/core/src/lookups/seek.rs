//! What a shard does about a price that it cannot give: have it looked up, or say why not.
//!
//! Entered only where the table had no answer. Whether a request then waits, and how, is known to `http` and `datagram`.

use crate::limits::{ASKS_WAITING_MAX, LOOKUP_WAIT_MS};
use crate::lookup::{Ask, AskKind, NotFound};
use crate::lookups::LookupPlace;
use crate::lookups::budget::Bound;
use crate::shard::{Missing, ReadyList, Shard};
use shared::asset::{AssetId, Symbol, resolve_alias};
use shared::code::Code;
use shared::key::KeyId;
use shared::moment::Moment;

/// A request that has something looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeker {
    /// Whose it is.
    pub(crate) key: KeyId,
    /// When it began to wait, if it has waited.
    pub(crate) since_mono_ms: Option<u64>,
    /// Whether there is room for it to wait: nothing is looked up for who could not be told.
    pub(crate) may_wait: bool,
}

/// What can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sought {
    /// It is being looked up: wait for the end of that.
    UnderWay(LookupPlace),
    /// Nothing: this is the answer.
    Over(Code),
}

impl Shard {
    /// Has `symbol` looked up, which is missing for that reason, unless it is already or that is of no use.
    #[cold]
    pub(crate) fn seek(&mut self, now: Moment, seeker: Seeker, symbol: &Symbol, (code, asset): Missing) -> Sought {
        let Seeker { key, since_mono_ms, may_wait } = seeker;
        let mono_ms = now.mono_ms();
        self.lookups.tell_time(mono_ms);
        let entry = asset.and_then(|asset| self.assets.entry(asset));
        let symbol = entry.map_or_else(|| resolve_alias(*symbol), |entry| entry.symbol);
        // An asset that is known by now is not unknown any longer.
        let is_outdated = |nothing: &Code| *nothing == Code::AssetUnknown && asset.is_some();
        if let Some(nothing) =
            self.lookups.nothing.recall(&symbol, key, mono_ms).filter(|nothing| !is_outdated(nothing))
        {
            return Sought::Over(told(code, nothing));
        }
        if self.is_waiting_over {
            return Sought::Over(Code::Draining);
        }
        if since_mono_ms.is_some_and(|since_mono_ms| since_mono_ms + LOOKUP_WAIT_MS <= mono_ms) {
            return Sought::Over(told(code, Code::PriceUnavailable));
        }
        if !may_wait {
            return Sought::Over(Code::Overloaded);
        }
        if let Some(place) = self.lookups.find(&symbol) {
            return Sought::UnderWay(place);
        }
        // Only this shard fills the ring, so what has room now will be in it.
        let is_full = self.asks.is_full();
        let begun = if is_full { Err(Bound::AtATime) } else { self.lookups.begin(symbol, asset, key) };
        let place = match begun {
            Ok(place) => place,
            Err(bound) => {
                self.counters.lookups_refused += 1;
                // Of an asset that is known it is true, and no more than that, that there is no fresh price.
                let is_told = bound == Bound::Fruitless && code != Code::AssetUnknown;
                return Sought::Over(if is_told { code } else { Code::Overloaded });
            }
        };
        let sequence = asset.and_then(|asset| self.table.row(asset)).map_or(0, |row| row.tick().sequence);
        self.tell(symbol, AskKind::Find { key, number: self.lookups.number(place), sequence });
        self.counters.lookups_begun += 1;
        self.counters.lookups_under_way = self.lookups.under_way() as u64;
        Sought::UnderWay(place)
    }

    /// Has each of these looked up that has no price to give: when one of them is under way, that is to be waited for.
    /// `is_strict`: the first for which nothing can be done is an objection to all. Otherwise only one is that could not be
    /// looked up, for want of room or time: nobody knows whether it is missing.
    ///
    /// # Errors
    /// That one, and why.
    pub(crate) fn seek_each(
        &mut self,
        now: Moment,
        seeker: Seeker,
        symbols: impl Iterator<Item = Symbol>,
        allow_stale: bool,
        is_strict: bool,
    ) -> Result<Option<LookupPlace>, (Symbol, Missing)> {
        let mut awaited = None;
        for symbol in symbols {
            let Err(missing) = self.find_price(&symbol, allow_stale) else { continue };
            match self.seek(now, seeker, &symbol, missing) {
                // The one asked for last is the likeliest to be the last to come.
                Sought::UnderWay(place) => awaited = Some(place),
                Sought::Over(code) if is_strict || matches!(code, Code::Overloaded | Code::Draining) => {
                    return Err((symbol, (code, missing.1)));
                }
                Sought::Over(_) => {}
            }
        }
        Ok(awaited)
    }

    /// Takes what was not found.
    pub(crate) fn take_not_found(&mut self, not_found: &[NotFound]) {
        for nothing in not_found {
            self.counters.lookups_fruitless += u64::from(self.lookups.came_to_nothing(nothing));
        }
    }

    /// There is another directory.
    pub(crate) fn bind_lookups(&mut self) {
        let table = &self.table;
        let is_fresh = |asset: AssetId| table.row(asset).is_some_and(|row| !row.tick().is_stale());
        self.counters.lookups_found += self.lookups.bind(&self.assets, is_fresh) as u64;
    }

    /// Names those whose lookups are over.
    #[inline]
    pub(crate) fn name_sought(&mut self, ready: &mut ReadyList) {
        while let Some(place) = self.lookups.next_settled() {
            self.waiters.release_lookup(place, ready);
        }
    }

    /// Ends lookups that nobody answered, and tells which assets outside the prewarmed set are in use.
    pub(crate) fn keep_lookups(&mut self, now: Moment) {
        self.lookups.tell_time(now.mono_ms());
        self.counters.lookups_expired += self.lookups.expire() as u64;
        for index in self.lookups.next_looked_at(self.table.len()) {
            // Half of the ring is for those who wait; who is passed over is in use still in a second.
            if self.asks.slots() <= ASKS_WAITING_MAX / 2 {
                break;
            }
            let entry = self.table.take_in_use(index).and_then(|asset| self.assets.entry(asset));
            if let Some(symbol) = entry.filter(|entry| !entry.prewarmed).map(|entry| entry.symbol) {
                self.tell(symbol, AskKind::InUse);
            }
        }
    }

    fn tell(&mut self, symbol: Symbol, kind: AskKind) {
        let is_told = self.asks.push(Ask { symbol, shard: self.index, kind }).is_ok();
        debug_assert!(is_told, "whoever tells has seen that there is room");
        self.has_asked = true;
    }
}

/// What to answer when the shard's own reason is `code`, and the outcome of looking was `nothing`.
const fn told(code: Code, nothing: Code) -> Code {
    match (code, nothing) {
        (_, Code::Overloaded) => nothing,
        (Code::AssetUnknown, _) => nothing,
        _ => code,
    }
}
