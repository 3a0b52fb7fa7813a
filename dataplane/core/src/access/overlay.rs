//! What has changed since a directory's large part was built: a small table that is looked into first.
//!
//! Each amendment makes a new one of the one before, in a time that goes with its own size and not with the number of
//! keys. A record keeps its place in the table for as long as it stands, and no other is ever put there, so that whoever
//! remembers a place need only ask whether it still stands.

use super::table::{Entry, Table};
use alloc::collections::{BTreeMap, BTreeSet};
use shared::key::{KeyId, KeyRecord};

/// One change to a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amendment {
    /// The key is as this record says: a new one, or in place of what was there under its number.
    Put(KeyRecord),
    /// There is no such key any more.
    Remove(KeyId),
}

/// Keys that are not as the large part says.
#[derive(Clone, Default)]
pub(super) struct Overlay {
    /// Changed and new ones.
    pub(super) table: Table,
    /// Those that are there no more, with their homes: nobody may be given one while a shard may still count in it.
    pub(super) removed: BTreeMap<KeyId, u32>,
    /// Indexes in the large part that do not hold.
    hidden: BTreeSet<u32>,
}

/// What is to be entered into an overlay: each changed key's home, and its record if there is one.
pub(super) type Changes = BTreeMap<KeyId, (u32, Option<KeyRecord>)>;

impl Overlay {
    /// This overlay over `base` with these changes. A record whose hash another key has is left out, and so is one
    /// beyond `keys_max` keys: those that do not change count first, then those that were there, then new ones.
    pub(super) fn amend(&self, base: &Table, changes: Changes, keys_max: usize) -> Self {
        let mut next = self.clone();
        let mut newcomers = Changes::new();
        let mut known = changes;
        // All give up what they had before any is entered, so that two may exchange their texts.
        known.retain(|id, change| {
            let was_there = next.take_out(base, *id);
            if !was_there {
                newcomers.insert(*id, (change.0, change.1.take()));
            }
            was_there
        });
        for (id, (home, record)) in known.into_iter().chain(newcomers) {
            if !record.is_some_and(|record| next.enter(base, Entry { record, home }, keys_max)) {
                next.removed.insert(id, home);
            }
        }
        next
    }

    /// Makes the key be unknown. Whether it was known.
    fn take_out(&mut self, base: &Table, id: KeyId) -> bool {
        self.removed.remove(&id);
        let was_changed = self.table.forget(id).is_some();
        let was_there = base.index_of_id(id).is_some_and(|index| self.hidden.insert(index));
        was_changed || was_there
    }

    fn enter(&mut self, base: &Table, entry: Entry, keys_max: usize) -> bool {
        let twin = base.index_of_hash(&entry.record.hash).filter(|index| !self.hides(*index));
        twin.is_none() && self.len_over(base) < keys_max && self.table.add(entry)
    }

    /// What an overlay of the same keys is made of.
    pub(super) fn changes(&self) -> Changes {
        let put = self.table.found().map(|entry| (entry.record.id, (entry.home, Some(entry.record.clone()))));
        let removed = self.removed.iter().map(|(id, home)| (*id, (*home, None)));
        put.chain(removed).collect()
    }

    /// How many keys there are, those of `base` included.
    pub(super) fn len_over(&self, base: &Table) -> usize {
        base.len() - self.hidden.len() + self.table.found_len()
    }

    /// How many changes it remembers: a key that is changed twice counts twice.
    pub(super) fn len(&self) -> usize {
        self.table.len() + self.removed.len()
    }

    /// Whether what the large part has at this index does not hold.
    #[inline]
    pub(super) fn hides(&self, index: u32) -> bool {
        !self.hidden.is_empty() && self.hidden.contains(&index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use shared::key::Permissions;

    /// Key `id`, whose text is number `text`.
    fn key(id: u32, text: u8) -> KeyRecord {
        KeyRecord {
            id: KeyId(id),
            hash: [text; 32],
            limit_per_second: 1,
            expires_at_ms: 0,
            permissions: Permissions(Permissions::PRICES),
            udp_secret: [0; 16],
            rank: 0,
        }
    }

    fn base(keys: &[(u32, u8)]) -> Table {
        let mut base = Table::with_capacity(keys.len());
        for (id, text) in keys {
            assert!(base.add(Entry { record: key(*id, *text), home: *id }));
        }
        base
    }

    /// Numbers and texts of the keys of an overlay, after these changes, one amendment each.
    fn after(base: &Table, keys_max: usize, amendments: &[&[(u32, Option<u8>)]]) -> Vec<(u32, u8)> {
        let changes = |changes: &[(u32, Option<u8>)]| -> Changes {
            changes.iter().map(|(id, text)| (KeyId(*id), (*id, text.map(|text| key(*id, text))))).collect()
        };
        let amend =
            |overlay: Overlay, amendment: &&[(u32, Option<u8>)]| overlay.amend(base, changes(amendment), keys_max);
        let overlay = amendments.iter().fold(Overlay::default(), amend);
        let mut found: Vec<_> = overlay.table.found().map(|entry| (entry.record.id.0, entry.record.hash[0])).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn those_that_were_there_count_before_new_ones() {
        let full = base(&[(1, 1), (900, 90)]);
        let check = |amendments: &[&[(u32, Option<u8>)]], expected: &[(u32, u8)]| {
            assert_eq!(after(&full, 2, amendments), expected, "{amendments:?}");
        };
        check(&[&[(5, Some(5))]], &[]);
        check(&[&[(5, Some(5)), (900, Some(91))]], &[(900, 91)]);
        check(&[&[(5, Some(5)), (900, None)]], &[(5, 5)]);
        // Of two for one text, the one that was there, whatever its number.
        check(&[&[(1, None)], &[(9, Some(9))], &[(4, Some(9)), (900, None)]], &[(9, 9)]);
        check(&[&[(1, None)], &[(9, Some(9))], &[(4, Some(8)), (9, Some(8)), (900, None)]], &[(9, 8)]);
        // Two exchange their texts.
        check(&[&[(1, Some(90)), (900, Some(1))]], &[(1, 90), (900, 1)]);
    }

    #[test]
    fn a_place_is_one_records_for_good() {
        let base = base(&[(1, 1)]);
        let change = |id, text| Changes::from([(KeyId(id), (id, Some(key(id, text))))]);
        let first = Overlay::default().amend(&base, change(2, 2), 9).amend(&base, change(3, 3), 9);
        let second = first.amend(&base, change(2, 20), 9);
        let places = |overlay: &Overlay| [2, 3].map(|id| overlay.table.index_of_id(KeyId(id)));
        assert_eq!((places(&first), places(&second)), ([Some(0), Some(1)], [Some(2), Some(1)]));
        assert_eq!([0, 1, 2].map(|index| second.table.is_found(index)), [false, true, true]);
        assert_eq!((second.len(), second.len_over(&base)), (3, 3));
    }
}
