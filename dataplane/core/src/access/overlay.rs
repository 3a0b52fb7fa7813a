//! What has changed since a directory's large part was built: a small table that is looked into first.
//!
//! It is made anew with each amendment, in a time that goes with its own size and not with the number of keys.

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

/// What an overlay is made of: each changed key's home, and its record if there is one.
pub(super) type Changes = BTreeMap<KeyId, (u32, Option<KeyRecord>)>;

impl Overlay {
    /// An overlay of these changes over `base`. A record whose hash another key has is left out, and so is one beyond
    /// `keys_max` keys: those that were there before count.
    pub(super) fn new(base: &Table, changes: Changes, keys_max: usize) -> Self {
        let hidden: BTreeSet<u32> = changes.keys().filter_map(|id| base.index_of_id(*id)).collect();
        let mut overlay = Self { table: Table::with_capacity(changes.len()), removed: BTreeMap::new(), hidden };
        for (id, (home, record)) in changes {
            let added = record.is_some_and(|record| {
                let twin = base.index_of_hash(&record.hash).filter(|index| !overlay.hides(*index));
                twin.is_none() && overlay.len_over(base) < keys_max && overlay.table.add(Entry { record, home })
            });
            if !added {
                overlay.removed.insert(id, home);
            }
        }
        overlay
    }

    /// As [`Overlay::new`] takes it.
    pub(super) fn changes(&self) -> Changes {
        let put = self.table.entries().iter().map(|entry| (entry.record.id, (entry.home, Some(entry.record.clone()))));
        let removed = self.removed.iter().map(|(id, home)| (*id, (*home, None)));
        put.chain(removed).collect()
    }

    /// How many keys there are, those of `base` included.
    pub(super) fn len_over(&self, base: &Table) -> usize {
        base.len() - self.hidden.len() + self.table.len()
    }

    /// How many keys are not as the large part says.
    pub(super) fn len(&self) -> usize {
        self.table.len() + self.removed.len()
    }

    /// Whether what the large part has at this index does not hold.
    #[inline]
    pub(super) fn hides(&self, index: u32) -> bool {
        !self.hidden.is_empty() && self.hidden.contains(&index)
    }
}
