//! Who asks, and how much they may ask: the key directory, allowances, leases.
//!
//! A key's text is never kept here, only its SHA-256. This module does not know how a key travels in a request.

mod allowance;
mod gate;
mod leases;
mod marks;

pub(crate) use gate::{Admitted, Caller, Gate, KeyMemo};

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use allowance::Allowances;
use core::fmt;
use core::hint::black_box;
use core::sync::atomic::AtomicU64;
use hashbrown::HashTable;
use marks::Marks;
use sha2::{Digest, Sha256};
use shared::key::{KeyId, KeyRecord};
use shared::limits::{KEY_LIMIT_PER_SECOND_MAX, KEY_TEXT_MAX, KEYS_MAX};

/// SHA-256 of a key's text: how a key is stored everywhere.
#[must_use]
pub fn hash_text(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Whether two secrets of one length are the same, in a time that does not depend on where they differ.
#[must_use]
pub(crate) fn same_secret<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
    let difference = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    black_box(difference) == 0
}

/// Every key of the node: one immutable copy for all shards, published by pointer swap.
///
/// A key costs 72 bytes for its record, 12 for its allowance and its home, and 5 to 10 in each of two indexes: about
/// 105 MB for `KEYS_MAX` keys, twice that while a new directory replaces an old one.
#[derive(Default)]
pub struct KeyDirectory {
    records: Vec<KeyRecord>,
    /// Where each record's allowance is.
    homes: Vec<u32>,
    by_hash: HashTable<u32>,
    by_id: HashTable<u32>,
    allowances: Allowances,
    marks: Marks,
    shards: u32,
}

impl fmt::Debug for KeyDirectory {
    /// Says how many keys there are, and nothing about any of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyDirectory").field("keys", &self.records.len()).finish_non_exhaustive()
    }
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

impl KeyDirectory {
    /// Builds the directory. An allowance of a key that `before` already had lives on, so that a reload does not
    /// give anybody a fresh second.
    ///
    /// Of two records with one number or one hash the first counts; records beyond `KEYS_MAX` are left out; limits are
    /// brought into 1 ..= `KEY_LIMIT_PER_SECOND_MAX`. `shards` is how many shards will take leases.
    #[must_use]
    pub fn build(records: Vec<KeyRecord>, before: Option<&KeyDirectory>, shards: usize) -> Self {
        let wanted = records.len().min(KEYS_MAX);
        let mut directory = Self {
            records: Vec::with_capacity(wanted),
            homes: Vec::with_capacity(wanted),
            by_hash: HashTable::with_capacity(wanted),
            by_id: HashTable::with_capacity(wanted),
            allowances: before.map(|before| before.allowances.clone()).unwrap_or_default(),
            marks: before.map(|before| before.marks.clone()).unwrap_or_default(),
            shards: u32::try_from(shards).unwrap_or(u32::MAX).max(1),
        };
        for mut record in records {
            let is_new = directory.slot_of_id(record.id).is_none() && directory.slot_of_hash(&record.hash).is_none();
            if is_new && directory.records.len() < KEYS_MAX {
                record.limit_per_second = record.limit_per_second.clamp(1, KEY_LIMIT_PER_SECOND_MAX);
                directory.insert(record);
            }
        }
        directory.find_homes(before);
        directory
    }

    fn insert(&mut self, record: KeyRecord) {
        let slot = self.records.len() as u32;
        let (hash, id) = (hash_of_hash(&record.hash), hash_of_id(record.id));
        self.records.push(record);
        let records = &self.records;
        self.by_hash.insert_unique(hash, slot, |slot| hash_of_hash(&records[*slot as usize].hash));
        self.by_id.insert_unique(id, slot, |slot| hash_of_id(records[*slot as usize].id));
    }

    /// Gives each record its allowance: its old one, or one that no key of `before` had, since shards that still use
    /// `before` may be counting in those.
    fn find_homes(&mut self, before: Option<&KeyDirectory>) {
        let mut is_taken = vec![false; self.allowances.len()];
        for home in before.iter().flat_map(|before| &before.homes) {
            is_taken[*home as usize] = true;
        }
        let mut free = (0..is_taken.len() as u32).filter(|home| !is_taken[*home as usize]);
        let mut beyond = self.allowances.len() as u32;
        for record in &self.records {
            let old = before.and_then(|before| Some(before.homes[before.slot_of_id(record.id)? as usize]));
            let home = old.unwrap_or_else(|| {
                let home = free.next().unwrap_or_else(|| {
                    beyond += 1;
                    beyond - 1
                });
                self.marks.set(home, u8::MAX, false);
                home
            });
            self.homes.push(home);
        }
        self.allowances.grow(beyond as usize);
        self.marks.grow(beyond as usize);
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

    /// Takes one request from the key's allowance directly, without a lease: for the control plane, whose few
    /// requests must count like any shard's. Answers the requests left this second, or `None` when used up.
    pub fn take_one(&self, id: KeyId, mono_ms: u64) -> Option<u32> {
        let slot = self.slot_of_id(id)?;
        let limit = self.record(slot)?.limit_per_second;
        allowance::take(self.word(slot)?, limit, 1, mono_ms).map(|grant| grant.left)
    }

    /// Requests the key's shared allowance still has this second, taking none; `None` for an unknown key. What shards
    /// hold as leases counts as used.
    #[must_use]
    pub fn remaining(&self, id: KeyId, mono_ms: u64) -> Option<u32> {
        let slot = self.slot_of_id(id)?;
        let limit = self.record(slot)?.limit_per_second;
        Some(allowance::left(self.word(slot)?, limit, mono_ms))
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
        self.slot_of_id(id).is_some_and(|slot| self.marks(slot) & marks::MONTH_USED_UP != 0)
    }

    /// Whether the key is refused though it is known.
    #[must_use]
    pub fn is_refused(&self, id: KeyId) -> bool {
        self.slot_of_id(id).is_some_and(|slot| self.marks(slot) & marks::REFUSED != 0)
    }

    fn mark(&self, id: KeyId, mark: u8, on: bool) -> bool {
        let home = self.slot_of_id(id).and_then(|slot| self.homes.get(slot as usize));
        home.inspect(|home| self.marks.set(**home, mark, on)).is_some()
    }

    #[inline]
    pub(crate) fn marks(&self, slot: u32) -> u8 {
        self.homes.get(slot as usize).map_or(0, |home| self.marks.at(*home))
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    #[inline]
    pub(crate) fn record(&self, slot: u32) -> Option<&KeyRecord> {
        self.records.get(slot as usize)
    }

    #[inline]
    pub(crate) fn word(&self, slot: u32) -> Option<&AtomicU64> {
        self.allowances.word(*self.homes.get(slot as usize)?)
    }

    pub(crate) const fn shards(&self) -> u32 {
        self.shards
    }

    pub(crate) fn slot_of_text(&self, text: &[u8]) -> Option<u32> {
        // Empty or over-long text cannot be a key, and is not worth hashing.
        let plausible = (1..=KEY_TEXT_MAX).contains(&text.len());
        plausible.then(|| self.slot_of_hash(&hash_text(text))).flatten()
    }

    fn slot_of_hash(&self, hash: &[u8; 32]) -> Option<u32> {
        let is_it = |slot: &u32| same_secret(&self.records[*slot as usize].hash, hash);
        self.by_hash.find(hash_of_hash(hash), is_it).copied()
    }

    pub(crate) fn slot_of_id(&self, id: KeyId) -> Option<u32> {
        self.by_id.find(hash_of_id(id), |slot| self.records[*slot as usize].id == id).copied()
    }
}

/// Shared by everyone.
pub type Keys = Arc<KeyDirectory>;
