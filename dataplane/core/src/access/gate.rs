//! One shard's door: which key a text is, and whether one more request of it is admitted.

use super::KeyDirectory;
use super::leases::{Leases, Purse};
use super::marks;
use crate::limits::LEASE_SHARE;
use alloc::sync::Arc;
use shared::code::Code;
use shared::key::{KeyId, KeyRecord, Permissions};
use shared::moment::Moment;

/// Which key it was, by its place in the directory of one epoch, and where its lease was found last.
#[derive(Clone, Copy, Debug)]
pub struct KeyMemo {
    slot: u32,
    /// 0 never is an epoch, so a memo of zeros is nobody's.
    epoch: u32,
    lease_hint: u32,
}

impl KeyMemo {
    /// Nobody's.
    pub(crate) const NONE: Self = Self { slot: 0, epoch: 0, lease_hint: u32::MAX };
}

/// A known key that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its number.
    pub key: KeyId,
    /// Its limit per second.
    pub limit: u32,
    /// Requests it has left this second, after this one.
    pub left: u32,
}

impl Caller {
    /// Nobody: a request refused before a key was known.
    pub(crate) const NOBODY: Self = Self { key: KeyId::NOBODY, limit: 0, left: 0 };
}

/// The outcome of asking for one request: the caller, and why it was refused if it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Who asked; nobody when the key does not work.
    pub caller: Caller,
    /// Why not.
    pub refused: Option<Code>,
}

/// One shard's view of keys.
pub struct Gate {
    keys: Arc<KeyDirectory>,
    leases: Leases,
    /// Grows with each directory, so that memos of an older one are seen to be old.
    epoch: u32,
    shards: u32,
    /// By what part of a key's limit leases are taken.
    share: u32,
}

impl Gate {
    /// A shard's door to these keys; so many shards share each key's second.
    #[must_use]
    pub fn new(keys: Arc<KeyDirectory>, shards: u16) -> Self {
        let shards = u32::from(shards).max(1);
        let share = LEASE_SHARE * shards.max(keys.shards());
        Self { keys, leases: Leases::new(), epoch: 1, shards, share }
    }

    /// Uses another directory from now on.
    pub(crate) fn replace(&mut self, keys: Arc<KeyDirectory>) {
        self.leases.give_all_back(&self.keys);
        self.share = LEASE_SHARE * self.shards.max(keys.shards());
        self.keys = keys;
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
    }

    /// The key with this text.
    #[must_use]
    pub fn identify(&self, text: &[u8]) -> Option<KeyMemo> {
        self.keys.slot_of_text(text).map(|slot| self.memo(slot))
    }

    /// The key with this number, and its record.
    #[inline]
    pub(crate) fn identify_id(&self, id: KeyId) -> Option<(KeyMemo, &KeyRecord)> {
        let slot = self.keys.slot_of_id(id)?;
        Some((self.memo(slot), self.keys.record(slot)?))
    }

    const fn memo(&self, slot: u32) -> KeyMemo {
        KeyMemo { slot, epoch: self.epoch, lease_hint: u32::MAX }
    }

    /// Whether the memo is of the present directory.
    #[inline]
    pub(crate) const fn is_current(&self, memo: &KeyMemo) -> bool {
        memo.epoch == self.epoch
    }

    /// The record behind a current memo with its marks, unless it has expired or is refused.
    #[inline]
    fn record(&self, memo: &KeyMemo, now: Moment) -> Option<(&KeyRecord, u8)> {
        let record = self.keys.record(memo.slot)?;
        let marks = self.keys.marks(memo.slot);
        let expired = record.expires_at_ms != 0 && now.wall_ms > record.expires_at_ms;
        (!expired && marks & marks::REFUSED == 0).then_some((record, marks))
    }

    /// The rank of the key behind a current memo.
    pub(crate) fn rank(&self, memo: &KeyMemo) -> u8 {
        self.keys.record(memo.slot).map_or(0, |record| record.rank)
    }

    /// Whether the key still works; takes nothing.
    #[inline]
    pub(crate) fn check(&self, memo: &KeyMemo, now: Moment) -> Admitted {
        match self.record(memo, now) {
            Some((record, marks)) => {
                let caller = Caller { key: record.id, limit: record.limit_per_second, left: record.limit_per_second };
                Admitted { caller, refused: refused_by(record, marks) }
            }
            None => Admitted { caller: Caller::NOBODY, refused: Some(Code::KeyInvalid) },
        }
    }

    /// Asks for one request of the key behind a current memo. Charges it unless it is refused.
    #[inline]
    pub fn admit(&mut self, memo: &mut KeyMemo, now: Moment) -> Admitted {
        let checked = self.check(memo, now);
        if checked.refused.is_some() {
            return checked;
        }
        let mut caller = checked.caller;
        let purse = Purse { slot: memo.slot, limit: caller.limit, share: self.share };
        let left = self.leases.take(&self.keys, purse, now.mono_ms(), &mut memo.lease_hint);
        caller.left = left.unwrap_or(0);
        Admitted { caller, refused: left.is_none().then_some(Code::RateLimitedSecond) }
    }
}

/// Why a request of this key is refused whatever it has left this second.
#[inline]
fn refused_by(record: &KeyRecord, marks: u8) -> Option<Code> {
    if !record.permissions.allow(Permissions::PRICES) {
        return Some(Code::NotPermitted);
    }
    (marks & marks::MONTH_USED_UP != 0).then_some(Code::RateLimitedMonth)
}
