//! Keys that datagrams came under lately: where the key stands in the directory, and its MAC's beginning.
//!
//! A train of datagrams comes under one key, and most clients send nothing but trains; finding the key by its number,
//! its lease and its secret anew for each would cost as much again as the answer. A key gets in with a datagram that its
//! secret has signed, so who only knows a key's number pushes nobody out. This file does not decide whether a key still works.

use super::mac::MacKey;
use crate::access::KeyMemo;
use crate::limits::KNOWN_KEYS_MAX;
use alloc::boxed::Box;
use alloc::vec;
use shared::key::KeyId;

/// One key.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    id: KeyId,
    /// Its place in the directory of one epoch, and in the leases.
    pub(crate) memo: KeyMemo,
    /// Makes and proves its MACs.
    pub(crate) mac: MacKey,
}

impl Known {
    const NOBODY: Self = Self { id: KeyId::NOBODY, memo: KeyMemo::NONE, mac: MacKey::NONE };

    /// What is to be remembered of a key.
    pub(crate) const fn new(id: KeyId, memo: KeyMemo, secret: &[u8; 16]) -> Self {
        Self { id, memo, mac: MacKey::new(secret) }
    }

    /// Whether this is the key with this number. Its memo may be of an older directory.
    #[inline]
    pub(crate) fn is(&self, id: KeyId) -> bool {
        self.id == id
    }
}

/// The keys one shard remembers, each at the only place it can have.
pub(crate) struct KnownKeys {
    places: Box<[Known; KNOWN_KEYS_MAX]>,
}

impl KnownKeys {
    /// Remembers nobody. Allocates all it will ever need.
    pub(crate) fn new() -> Self {
        let places = vec![Known::NOBODY; KNOWN_KEYS_MAX].into_boxed_slice();
        match places.try_into() {
            Ok(places) => Self { places },
            Err(_) => unreachable!("made of that length"),
        }
    }

    /// Where the key with this number is, or would be. Numbers are ours and mostly consecutive: neighbours do not meet.
    #[inline]
    pub(crate) const fn place(id: KeyId) -> usize {
        id.0 as usize % KNOWN_KEYS_MAX
    }

    /// What is remembered at a place.
    #[inline]
    pub(crate) fn at(&mut self, place: usize) -> &mut Known {
        &mut self.places[place % KNOWN_KEYS_MAX]
    }
}
