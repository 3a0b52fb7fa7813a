//! How much one key has looked up: lookups under way, and those of this second that came to nothing.
//!
//! A table of fixed size. A key with a lookup under way is never forgotten; of the others the one is that has the least
//! against it, so who floods stays known.

use crate::limits::{FRUITLESS_PER_KEY_MAX, LOOKING_KEY_SETS, LOOKUPS_PER_KEY_MAX};
use alloc::vec;
use alloc::vec::Vec;
use shared::key::KeyId;

/// Places in which one key can be. Numbers of keys are ours and mostly consecutive, so sets fill evenly.
const WAYS: usize = 8;

#[derive(Clone, Copy)]
struct Account {
    key: KeyId,
    /// Of the monotonic clock, in which `fruitless` was counted.
    second: u32,
    fruitless: u16,
    under_way: u16,
}

const _: () = assert!(size_of::<Account>() == 12 && LOOKUPS_PER_KEY_MAX < FRUITLESS_PER_KEY_MAX);

/// Why a lookup may not be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Too many are under way.
    AtATime,
    /// Too many of this key came to nothing in this second, or may.
    Fruitless,
}

/// What one shard counts.
pub(super) struct Budget {
    sets: Vec<[Account; WAYS]>,
}

impl Budget {
    /// Nobody has looked anything up.
    pub(super) fn new() -> Self {
        let free = Account { key: KeyId::NOBODY, second: 0, fruitless: 0, under_way: 0 };
        Self { sets: vec![[free; WAYS]; LOOKING_KEY_SETS] }
    }

    /// The key's account, with what it did in this second; `None` when there is none, and `is_new` is not said or every
    /// place is another key's that has lookups under way.
    fn account(&mut self, key: KeyId, mono_ms: u64, is_new: bool) -> Option<&mut Account> {
        let second = (mono_ms / 1_000) as u32;
        let set = &mut self.sets[key.0 as usize % LOOKING_KEY_SETS];
        let found = set.iter().position(|account| account.key == key);
        let against = |account: &Account| if account.second == second { account.fruitless } else { 0 };
        let place = match found {
            None if is_new => {
                let idle = (0..WAYS).filter(|place| set[*place].under_way == 0);
                idle.min_by_key(|place| against(&set[*place]))?
            }
            found => found?,
        };
        let account = &mut set[place];
        if account.key != key || account.second != second {
            let under_way = if account.key == key { account.under_way } else { 0 };
            *account = Account { key, second, fruitless: 0, under_way };
        }
        Some(account)
    }

    /// Counts one more under way, if the key may. Those under way count as if they came to nothing, so that the bound
    /// holds whatever becomes of them.
    ///
    /// # Errors
    /// Which bound is reached.
    pub(super) fn begin(&mut self, key: KeyId, mono_ms: u64) -> Result<(), Bound> {
        let account = self.account(key, mono_ms, true).ok_or(Bound::AtATime)?;
        if account.under_way >= LOOKUPS_PER_KEY_MAX {
            return Err(Bound::AtATime);
        }
        if account.under_way + account.fruitless >= FRUITLESS_PER_KEY_MAX {
            return Err(Bound::Fruitless);
        }
        account.under_way += 1;
        Ok(())
    }

    /// One is over.
    pub(super) fn end(&mut self, key: KeyId, mono_ms: u64, is_fruitless: bool) {
        if let Some(account) = self.account(key, mono_ms, false) {
            account.under_way = account.under_way.saturating_sub(1);
            account.fruitless += u16::from(is_fruitless);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyId = KeyId(7);

    /// Begins and ends `count` lookups of `key`, one after the other; how many could be begun.
    fn look(budget: &mut Budget, key: KeyId, mono_ms: u64, count: usize, is_fruitless: bool) -> usize {
        let begun = (0..count).filter(|_| {
            let may = budget.begin(key, mono_ms).is_ok();
            if may {
                budget.end(key, mono_ms, is_fruitless);
            }
            may
        });
        begun.count()
    }

    #[test]
    fn a_key_has_so_many_under_way() {
        let mut budget = Budget::new();
        let begun = (0..200).filter(|_| budget.begin(KEY, 5).is_ok()).count();
        assert_eq!(begun, usize::from(LOOKUPS_PER_KEY_MAX));
        assert!(budget.begin(KeyId(8), 5).is_ok(), "another key's are its own");
        budget.end(KEY, 2_000, false);
        assert_eq!([budget.begin(KEY, 2_000), budget.begin(KEY, 2_000)], [Ok(()), Err(Bound::AtATime)]);
    }

    #[test]
    fn what_comes_to_nothing_is_bounded_in_each_second() {
        let mut budget = Budget::new();
        assert_eq!(look(&mut budget, KEY, 1_000, 10_000, false), 10_000);
        assert_eq!(look(&mut budget, KEY, 1_000, 10_000, true), usize::from(FRUITLESS_PER_KEY_MAX));
        assert_eq!(budget.begin(KEY, 1_999), Err(Bound::Fruitless));
        assert_eq!(look(&mut budget, KeyId(8), 1_999, 1, false), 1);
        assert_eq!(look(&mut budget, KEY, 2_000, 10_000, true), usize::from(FRUITLESS_PER_KEY_MAX));
    }

    #[test]
    fn who_floods_stays_known_and_who_waits_is_never_forgotten() {
        let mut budget = Budget::new();
        let key = |number: usize| KeyId((number * LOOKING_KEY_SETS) as u32 + 7);
        look(&mut budget, key(0), 1_000, 10_000, true);
        assert!(budget.begin(key(1), 1_000).is_ok());
        for number in 2..50 {
            assert_eq!(look(&mut budget, key(number), 1_000, 1, true), 1);
        }
        assert_eq!(look(&mut budget, key(0), 1_000, 1, true), 0);
        (0..LOOKUPS_PER_KEY_MAX - 1).for_each(|_| assert!(budget.begin(key(1), 1_000).is_ok()));
        assert!(budget.begin(key(1), 1_000).is_err());
        (2..9).for_each(|number| assert!(budget.begin(key(number), 3_000).is_ok()));
        assert!(budget.begin(key(9), 3_000).is_err(), "every place is held");
        budget.end(key(5), 3_000, false);
        assert!(budget.begin(key(9), 3_000).is_ok());
    }
}
