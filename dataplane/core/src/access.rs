//! Who asks, and how much they may ask: the key directory, allowances, leases.

use alloc::sync::Arc;
use alloc::vec::Vec;
use shared::key::{KeyId, KeyRecord};

/// Every key of the node: one immutable copy for all shards, published by pointer swap.
#[derive(Debug, Default)]
pub struct KeyDirectory {}

impl KeyDirectory {
    /// Builds the directory. An allowance of a key that `before` already had lives on, so that a reload does not
    /// give anybody a fresh second.
    #[must_use]
    pub fn build(_records: Vec<KeyRecord>, _before: Option<&KeyDirectory>, _shards: usize) -> Self {
        unimplemented!()
    }

    /// The record of the key with this text, if it is known (expired ones included: the caller compares times).
    #[must_use]
    pub fn find_text(&self, _text: &[u8]) -> Option<&KeyRecord> {
        unimplemented!()
    }

    /// The record of the key with this number.
    #[must_use]
    pub fn find_id(&self, _id: KeyId) -> Option<&KeyRecord> {
        unimplemented!()
    }

    /// Takes one request from the key's allowance directly, without a lease: for the control plane, whose few
    /// requests must count like any shard's. Answers the requests left this second, or `None` when used up.
    pub fn take_one(&self, _id: KeyId, _mono_ms: u64) -> Option<u32> {
        unimplemented!()
    }
}

/// Shared by everyone.
pub type Keys = Arc<KeyDirectory>;
