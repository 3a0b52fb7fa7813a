//! Symbols for which nothing was found lately, each for a time of its own.
//!
//! A table of fixed size: who floods it with made-up symbols pushes out what would be forgotten first, and the worst of it
//! is that something is looked up again. Its hash is seeded, so nobody can choose whom to push out.

use crate::limits::NOTHING_SETS;
use alloc::vec;
use alloc::vec::Vec;
use bytemuck::Zeroable as _;
use core::hash::BuildHasher as _;
use foldhash::fast::FixedState;
use shared::asset::Symbol;
use shared::code::Code;
use shared::key::KeyId;

/// Places in which one symbol can be.
const WAYS: usize = 4;

#[derive(Clone, Copy)]
struct Remembered {
    symbol: Symbol,
    until_mono_ms: u64,
    /// Whom it is about; nobody where it is true for all.
    key: KeyId,
    code: Code,
}

const _: () = assert!(size_of::<Remembered>() == 32);

/// What one shard remembers.
pub(super) struct Nothing {
    sets: Vec<[Remembered; WAYS]>,
    hasher: FixedState,
}

impl Nothing {
    /// Nothing yet.
    pub(super) fn new(hash_seed: u64) -> Self {
        let free =
            Remembered { symbol: Symbol::zeroed(), until_mono_ms: 0, key: KeyId::NOBODY, code: Code::AssetUnknown };
        Self { sets: vec![[free; WAYS]; NOTHING_SETS], hasher: FixedState::with_seed(hash_seed) }
    }

    fn set(&self, symbol: &Symbol) -> usize {
        self.hasher.hash_one(symbol) as usize % NOTHING_SETS
    }

    /// Remembers `code` for `symbol` until then, for `key` alone or for all (nobody); it takes the place of what was
    /// remembered for the same, or of what will be forgotten first.
    pub(super) fn remember(&mut self, symbol: Symbol, key: KeyId, code: Code, until_mono_ms: u64, mono_ms: u64) {
        let set = self.set(&symbol);
        let rank = |place: &&mut Remembered| match place.until_mono_ms {
            _ if place.symbol == symbol && place.key == key => 0,
            until if until <= mono_ms => 1,
            until => until,
        };
        if let Some(place) = self.sets[set].iter_mut().min_by_key(rank) {
            *place = Remembered { symbol, until_mono_ms, key, code };
        }
    }

    /// What is remembered for `symbol` when `key` asks for it.
    pub(super) fn recall(&self, symbol: &Symbol, key: KeyId, mono_ms: u64) -> Option<Code> {
        let places = self.sets[self.set(symbol)].iter();
        let mut of_it = places.filter(|place| place.symbol == *symbol && mono_ms < place.until_mono_ms);
        of_it.find(|place| place.key == KeyId::NOBODY || place.key == key).map(|place| place.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn symbol(number: usize) -> Symbol {
        Symbol::new(format!("A{number}").as_bytes()).expect("a symbol")
    }

    #[test]
    fn what_was_said_last_is_remembered_for_its_time() {
        let mut nothing = Nothing::new(7);
        assert_eq!(nothing.recall(&symbol(1), KeyId(1), 0), None);
        nothing.remember(symbol(1), KeyId::NOBODY, Code::AssetUnknown, 100, 10);
        nothing.remember(symbol(1), KeyId::NOBODY, Code::PriceUnavailable, 50, 10);
        for (mono_ms, expected) in
            [(10, Some(Code::PriceUnavailable)), (49, Some(Code::PriceUnavailable)), (50, None), (99, None)]
        {
            assert_eq!(nothing.recall(&symbol(1), KeyId(1), mono_ms), expected, "at {mono_ms}");
        }
        assert_eq!(nothing.recall(&symbol(2), KeyId(1), 10), None);
    }

    #[test]
    fn a_flood_pushes_out_what_is_forgotten_first() {
        let mut nothing = Nothing::new(7);
        nothing.remember(symbol(0), KeyId::NOBODY, Code::AssetUnknown, 1_000_000, 1);
        for number in 1..NOTHING_SETS * WAYS * 4 {
            nothing.remember(symbol(number), KeyId::NOBODY, Code::AssetUnknown, 5_000 + number as u64, 1);
        }
        assert_eq!(nothing.recall(&symbol(0), KeyId(1), 1), Some(Code::AssetUnknown));
        let kept = (0..NOTHING_SETS * WAYS * 4)
            .filter(|number| nothing.recall(&symbol(*number), KeyId(1), 1).is_some())
            .count();
        assert!(kept <= NOTHING_SETS * WAYS && kept > NOTHING_SETS * WAYS / 2, "{kept}");
    }
}
