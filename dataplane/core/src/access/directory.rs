//! The key directory: every key of the node, for all shards, published by pointer swap.
//!
//! A large part that is built once and shared by the directories after it, and a small overlay of what has changed
//! since. A change so takes a time that goes with the overlay, however many keys there are; whoever publishes
//! directories merges the overlay in the background when it has grown. Nothing here is ever changed in place, but for
//! allowances and marks, which all directories of one line share.

use super::allowance::{Allowances, Second};
use super::hash_text;
use super::marks::{self, Marks};
use super::overlay::{Amendment, Changes, Overlay};
use super::sharing::SharedByNodes;
use super::table::{Entry, Table};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use shared::key::{KeyId, KeyRecord};
use shared::limits::{KEY_LIMIT_PER_SECOND_MAX, KEY_TEXT_MAX, KEYS_MAX};

/// Homes kept ready for keys that amendments add. More of them than one overlay should grow to; when they are used up,
/// the next home is one that nobody ever had.
const FREE_MAX: usize = 8_192;

/// Every key of the node.
///
/// A key costs 80 bytes for its record and home, 33 for its allowance and marks, and 5 to 10 in each of two indexes:
/// about 135 MB for `KEYS_MAX` keys, and 100 MB more while a new large part replaces an old one. A directory that was made
/// by an amendment shares all of that with the one before, but for its overlay.
#[derive(Default)]
pub struct KeyDirectory {
    base: Arc<Table>,
    overlay: Overlay,
    allowances: Allowances,
    marks: Marks,
    /// Homes from here on were never anybody's.
    next_home: u32,
    /// Homes that nobody has had since before the large part was built.
    free: Arc<[u32]>,
    /// How many of `free` have been given away since.
    free_given: usize,
    shards: u32,
}

/// Shared by everyone.
pub type Keys = Arc<KeyDirectory>;

impl fmt::Debug for KeyDirectory {
    /// Says how many keys there are, and nothing about any of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyDirectory").field("keys", &self.len()).finish_non_exhaustive()
    }
}

/// Limits are such that they can be counted.
fn bounded(mut record: KeyRecord) -> KeyRecord {
    record.limit_per_second = record.limit_per_second.clamp(1, KEY_LIMIT_PER_SECOND_MAX);
    record
}

impl KeyDirectory {
    /// Builds a directory without an overlay: over a second for a million keys. Allowances and marks of a key that
    /// `before` already had live on, so that a reload does not give anybody a fresh second.
    ///
    /// Of two records with one number or one hash the first counts; records beyond `KEYS_MAX` are left out; limits are
    /// brought into 1 ..= `KEY_LIMIT_PER_SECOND_MAX`. `shards` is how many shards will take leases.
    #[must_use]
    pub fn build(records: Vec<KeyRecord>, before: Option<&KeyDirectory>, shards: usize) -> Self {
        let mut base = Table::with_capacity(records.len().min(KEYS_MAX));
        for record in records {
            if base.len() < KEYS_MAX {
                base.add(Entry { record: bounded(record), home: 0 });
            }
        }
        let mut directory = Self {
            allowances: before.map(|before| before.allowances.clone()).unwrap_or_default(),
            marks: before.map(|before| before.marks.clone()).unwrap_or_default(),
            shards: u32::try_from(shards).unwrap_or(u32::MAX).max(1),
            ..Self::default()
        };
        directory.find_homes(&mut base, before);
        directory.base = Arc::new(base);
        directory
    }

    /// Gives each key its home: its old one, or one that no key of `before` had and none that was removed since the large
    /// part of `before` was built. So two large parts are built between a key's removal and the day its home is another's.
    ///
    /// Nothing here waits for shards: one that has taken no command while two large parts were built and published may
    /// still have the removed key. The two keys then have one second between them, so that neither gets more than its
    /// limit, and the removed one's marks are gone. A shard takes its commands each turn, and a turn is milliseconds.
    fn find_homes(&mut self, base: &mut Table, before: Option<&KeyDirectory>) {
        let none = Self::default();
        let before = before.unwrap_or(&none);
        let mut is_taken = vec![false; before.next_home as usize];
        let entries = before.base.entries().iter().chain(before.overlay.table.found());
        for home in entries.map(|entry| entry.home).chain(before.overlay.removed.values().copied()) {
            is_taken[home as usize] = true;
        }
        let mut free = (0..before.next_home).filter(|home| !is_taken[*home as usize]);
        self.next_home = before.next_home;
        for entry in base.entries_mut() {
            entry.home = before.home_of(entry.record.id).unwrap_or_else(|| {
                let home = free.next().unwrap_or_else(|| {
                    self.next_home += 1;
                    self.next_home - 1
                });
                self.marks.set(home, u8::MAX, false);
                home
            });
        }
        self.free = free.take(FREE_MAX).collect();
        self.grow();
    }

    fn grow(&mut self) {
        self.allowances.grow(self.next_home as usize);
        self.marks.grow(self.next_home as usize);
    }

    /// The home of a key that is there, or was until lately.
    fn home_of(&self, id: KeyId) -> Option<u32> {
        let changed = self.overlay.table.of_id(id).map(|entry| entry.home);
        let home = changed.or_else(|| self.overlay.removed.get(&id).copied());
        home.or_else(|| self.base.of_id(id).map(|entry| entry.home))
    }

    /// The directory as it is with these changes, of which the last counts for each key, in a time that goes with the
    /// number of changes since the large part was built ([`KeyDirectory::changed`]). Two directories must not both be made
    /// of this one and both be used.
    ///
    /// What [`KeyDirectory::build`] says of limits holds here too. A record with a hash that another key has, or one beyond
    /// `KEYS_MAX`, is left out, and then there is no key of its number: keys that do not change come first, then those that
    /// were there, then new ones.
    #[must_use]
    pub fn amend(&self, amendments: impl IntoIterator<Item = Amendment>) -> Self {
        let mut changes = Changes::new();
        let mut next = Self {
            base: Arc::clone(&self.base),
            overlay: Overlay::default(),
            allowances: self.allowances.clone(),
            marks: self.marks.clone(),
            next_home: self.next_home,
            free: Arc::clone(&self.free),
            free_given: self.free_given,
            shards: self.shards,
        };
        for amendment in amendments {
            let (id, record) = match amendment {
                Amendment::Put(record) => (record.id, Some(bounded(record))),
                Amendment::Remove(id) => (id, None),
            };
            match changes.get(&id).map(|(home, _)| *home).or_else(|| self.home_of(id)) {
                Some(home) => drop(changes.insert(id, (home, record))),
                // Who was never there need not be removed.
                None => drop(record.map(|record| changes.insert(id, (next.new_home(), Some(record))))),
            }
        }
        next.grow();
        next.overlay = self.overlay.amend(&next.base, changes, KEYS_MAX);
        next
    }

    fn new_home(&mut self) -> u32 {
        if let Some(home) = self.free.get(self.free_given) {
            self.free_given += 1;
            self.marks.set(*home, u8::MAX, false);
            return *home;
        }
        self.next_home += 1;
        self.next_home - 1
    }

    /// This directory, which was built of the keys of `snapshot` (the same numbers, changed or not), with what changed
    /// between `snapshot` and `present` meanwhile: so a large part is built anew without holding up any amendment.
    ///
    /// `None` where `present` has another large part than `snapshot`: what has changed is then known to nobody, and this
    /// directory must not be used.
    #[must_use]
    pub fn catch_up(self, snapshot: &KeyDirectory, present: &KeyDirectory) -> Option<Self> {
        if !present.is_amended_from(snapshot) {
            return None;
        }
        let mut changes = present.overlay.changes();
        let given: BTreeSet<u32> = changes.values().map(|(home, _)| *home).collect();
        changes.retain(|id, (_, record)| record.as_ref() != snapshot.find_id(*id));
        let overlay = Overlay::default().amend(&self.base, changes, KEYS_MAX);
        Some(Self {
            overlay,
            allowances: present.allowances.clone(),
            marks: present.marks.clone(),
            next_home: present.next_home,
            free: self.free.iter().copied().filter(|home| !given.contains(home)).collect(),
            ..self
        })
    }

    /// Whether the two have one large part.
    pub(super) fn is_amended_from(&self, before: &KeyDirectory) -> bool {
        Arc::ptr_eq(&self.base, &before.base)
    }

    /// Whether the two share homes: both come of the same first directory.
    pub(super) fn is_of_the_line_of(&self, other: &KeyDirectory) -> bool {
        self.nodes().is_the_same_as(other.nodes())
    }

    /// Whether the key that was at this slot in a directory with this large part is there still, its record unchanged.
    pub(super) fn stands(&self, slot: u32) -> bool {
        match slot.checked_sub(self.base.len() as u32) {
            Some(index) => self.overlay.table.is_found(index),
            None => !self.overlay.hides(slot),
        }
    }

    /// Every key, in no order.
    pub fn records(&self) -> impl Iterator<Item = &KeyRecord> {
        let unchanged = (0..).zip(self.base.entries()).filter(|(index, _)| !self.overlay.hides(*index));
        unchanged.map(|(_, entry)| entry).chain(self.overlay.table.found()).map(|entry| &entry.record)
    }

    /// The record of the key with this text, if it is known (expired ones included: the caller compares times).
    #[must_use]
    pub fn find_text(&self, text: &[u8]) -> Option<&KeyRecord> {
        self.record(self.slot_of_text(text)?)
    }

    /// The record of the key with this number.
    #[must_use]
    pub fn find_id(&self, id: KeyId) -> Option<&KeyRecord> {
        self.record(self.slot_of_id(id)?)
    }

    /// Sets whether this month's quota of the key is used up: in force on every shard at once, in this directory and in
    /// those before and after it. Answers whether the key is known.
    pub fn set_month_used_up(&self, id: KeyId, on: bool) -> bool {
        self.mark(id, marks::MONTH_USED_UP, on)
    }

    /// Refuses every request of the key from now on, on every shard, as if it were unknown: for a key that was revoked,
    /// until a directory without it is in force. Answers whether the key is known.
    pub fn refuse(&self, id: KeyId) -> bool {
        self.mark(id, marks::REFUSED, true)
    }

    /// Takes back what [`KeyDirectory::refuse`] did.
    pub fn admit_again(&self, id: KeyId) -> bool {
        self.mark(id, marks::REFUSED, false)
    }

    /// Whether this month's quota of the key is used up.
    #[must_use]
    pub fn is_month_used_up(&self, id: KeyId) -> bool {
        self.marks_of(id) & marks::MONTH_USED_UP != 0
    }

    /// Whether the key is refused though it is known.
    #[must_use]
    pub fn is_refused(&self, id: KeyId) -> bool {
        self.marks_of(id) & marks::REFUSED != 0
    }

    /// The marks of a key that is known.
    fn marks_of(&self, id: KeyId) -> u8 {
        self.slot_of_id(id).and_then(|slot| self.entry(slot)).map_or(0, |entry| self.marks.at(entry.home))
    }

    /// Keys that were revoked lately are marked too: a shard may still use a directory that has them.
    fn mark(&self, id: KeyId, mark: u8, on: bool) -> bool {
        self.home_of(id).inspect(|home| self.marks.set(*home, mark, on)).is_some()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.overlay.len_over(&self.base)
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many changes there were since the large part was built: each costs the next amendment some time, and its
    /// record stays in memory, until a large part is built anew.
    #[must_use]
    pub fn changed(&self) -> usize {
        self.overlay.len()
    }

    /// Whether the key has changed since the large part was built.
    #[must_use]
    pub fn is_changed(&self, id: KeyId) -> bool {
        self.overlay.table.of_id(id).is_some() || self.overlay.removed.contains_key(&id)
    }

    /// A slot is an index of the large part, or, beyond its end, one of the overlay.
    #[inline]
    fn entry(&self, slot: u32) -> Option<&Entry> {
        self.base.get(slot).or_else(|| self.overlay.table.get(slot.checked_sub(self.base.len() as u32)?))
    }

    #[inline]
    pub(super) fn record(&self, slot: u32) -> Option<&KeyRecord> {
        self.entry(slot).map(|entry| &entry.record)
    }

    /// The record at a slot, and the key's home.
    #[inline]
    pub(super) fn record_and_home(&self, slot: u32) -> Option<(&KeyRecord, u32)> {
        self.entry(slot).map(|entry| (&entry.record, entry.home))
    }

    #[inline]
    pub(super) fn word(&self, home: u32) -> Option<&Second> {
        self.allowances.at(home)
    }

    #[inline]
    pub(super) const fn nodes(&self) -> &SharedByNodes {
        self.allowances.nodes()
    }

    #[inline]
    pub(super) fn marks(&self, home: u32) -> u8 {
        self.marks.at(home)
    }

    pub(super) const fn shards(&self) -> u32 {
        self.shards
    }

    pub(super) fn slot_of_text(&self, text: &[u8]) -> Option<u32> {
        // Empty or over-long text cannot be a key, and is not worth hashing.
        let plausible = (1..=KEY_TEXT_MAX).contains(&text.len());
        plausible.then(|| self.slot_of(|table, hash| table.index_of_hash(hash), &hash_text(text))).flatten()
    }

    pub(super) fn slot_of_id(&self, id: KeyId) -> Option<u32> {
        self.slot_of(|table, id| table.index_of_id(*id), &id)
    }

    #[inline]
    fn slot_of<T>(&self, find: impl Fn(&Table, &T) -> Option<u32>, what: &T) -> Option<u32> {
        match find(&self.overlay.table, what) {
            Some(index) => Some(self.base.len() as u32 + index),
            None => find(&self.base, what).filter(|index| !self.overlay.hides(*index)),
        }
    }
}
