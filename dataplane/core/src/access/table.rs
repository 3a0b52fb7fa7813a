//! Key records with two indexes over them: by the hash of the text, and by number.
//!
//! A directory's large part and its small one are both such a table. It does not know which of the two it is.

use super::same_secret;
use alloc::vec::Vec;
use hashbrown::HashTable;
use shared::key::{KeyId, KeyRecord};

/// A key, and the place of what directories share of it: its allowance and its marks.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) record: KeyRecord,
    pub(super) home: u32,
}

/// No two entries that are found have one number or one hash. An entry that was forgotten keeps its index, so that an
/// index is never another entry's.
#[derive(Clone, Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    by_hash: HashTable<u32>,
    by_id: HashTable<u32>,
}

/// A SHA-256 is as good as random, so a part of it is the hash table's hash. Nobody can choose it without finding texts
/// by trial, and only keys that we issued are in the table.
const fn hash_of_hash(hash: &[u8; 32]) -> u64 {
    u64::from_le_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]])
}

/// Numbers of keys are ours and mostly consecutive: multiplying spreads them over both ends of the word.
const fn hash_of_id(id: KeyId) -> u64 {
    let spread = (id.0 as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    spread ^ spread >> 32
}

impl Table {
    pub(super) fn with_capacity(entries: usize) -> Self {
        Self {
            entries: Vec::with_capacity(entries),
            by_hash: HashTable::with_capacity(entries),
            by_id: HashTable::with_capacity(entries),
        }
    }

    /// Adds an entry, unless one has its number or its hash: the first counts. Whether it was added.
    pub(super) fn add(&mut self, entry: Entry) -> bool {
        let record = &entry.record;
        if self.index_of_id(record.id).is_some() || self.index_of_hash(&record.hash).is_some() {
            return false;
        }
        let index = self.entries.len() as u32;
        let (hash, id) = (hash_of_hash(&record.hash), hash_of_id(record.id));
        self.entries.push(entry);
        let entries = &self.entries;
        self.by_hash.insert_unique(hash, index, |index| hash_of_hash(&entries[*index as usize].record.hash));
        self.by_id.insert_unique(id, index, |index| hash_of_id(entries[*index as usize].record.id));
        true
    }

    /// Has the entry with this number be found no more. Answers its index.
    pub(super) fn forget(&mut self, id: KeyId) -> Option<u32> {
        let entries = &self.entries;
        let is_it = |index: &u32| entries[*index as usize].record.id == id;
        let (index, _) = self.by_id.find_entry(hash_of_id(id), is_it).ok()?.remove();
        let hash = hash_of_hash(&entries[index as usize].record.hash);
        if let Ok(found) = self.by_hash.find_entry(hash, |other| *other == index) {
            found.remove();
        }
        Some(index)
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Entry> {
        self.entries.get(index as usize)
    }

    /// Every entry that was ever added, by index.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Every entry that is found.
    pub(super) fn found(&self) -> impl Iterator<Item = &Entry> {
        (0..).zip(&self.entries).filter(|(index, _)| self.is_found(*index)).map(|(_, entry)| entry)
    }

    /// Whether the entry at this index is found.
    pub(super) fn is_found(&self, index: u32) -> bool {
        self.get(index).is_some_and(|entry| self.index_of_id(entry.record.id) == Some(index))
    }

    pub(super) fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }

    /// How many entries were ever added; indexes are below this.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many entries are found.
    pub(super) fn found_len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn index_of_hash(&self, hash: &[u8; 32]) -> Option<u32> {
        let is_it = |index: &u32| same_secret(&self.entries[*index as usize].record.hash, hash);
        self.by_hash.find(hash_of_hash(hash), is_it).copied()
    }

    pub(super) fn index_of_id(&self, id: KeyId) -> Option<u32> {
        self.by_id.find(hash_of_id(id), |index| self.entries[*index as usize].record.id == id).copied()
    }

    pub(super) fn of_id(&self, id: KeyId) -> Option<&Entry> {
        self.get(self.index_of_id(id)?)
    }
}
