//! One shard's door: which key a text is, and whether one more request of it is admitted.

use super::KeyDirectory;
use super::leases::{Leases, Purse};
use super::marks;
use crate::limits::LEASE_SHARE;
use alloc::sync::Arc;
use shared::code::Code;
use shared::key::{KeyId, KeyRecord, Permissions};
use shared::moment::Moment;

/// Which key it was, by its place in the directory of one epoch, and where its lease was found last. It is brought up to
/// date for as long as nothing about that key has changed and the large part of the directory is the same.
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
    /// The epoch of the first directory with the present one's large part.
    base_epoch: u32,
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
        Self { keys, leases: Leases::new(), epoch: 1, base_epoch: 1, shards, share }
    }

    /// Uses another directory from now on, in a time that goes with nothing.
    pub(crate) fn replace(&mut self, keys: Arc<KeyDirectory>) {
        if !keys.is_of_the_line_of(&self.keys) {
            self.leases.forget_all();
        }
        self.share = LEASE_SHARE * self.shards.max(keys.shards());
        let next = self.epoch.checked_add(1);
        if next.is_none() || !keys.is_amended_from(&self.keys) {
            self.base_epoch = next.unwrap_or(1);
        }
        self.epoch = next.unwrap_or(1);
        self.keys = keys;
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

    /// Whether the memo is of the present directory; one that is not is made so, if its key is still where it was.
    #[inline]
    pub(crate) fn is_current(&self, memo: &mut KeyMemo) -> bool {
        memo.epoch == self.epoch || self.renew(memo)
    }

    /// Whether an old memo's key has not changed since; then the memo is of the present directory from now on.
    #[cold]
    fn renew(&self, memo: &mut KeyMemo) -> bool {
        let stands = (self.base_epoch..self.epoch).contains(&memo.epoch) && self.keys.stands(memo.slot);
        if stands {
            memo.epoch = self.epoch;
        }
        stands
    }

    /// The record behind a current memo with its home and marks, unless it has expired or is refused.
    #[inline]
    fn record(&self, memo: &KeyMemo, now: Moment) -> Option<(&KeyRecord, u32, u8)> {
        let (record, home) = self.keys.record_and_home(memo.slot)?;
        let marks = self.keys.marks(home);
        let expired = record.expires_at_ms != 0 && now.wall_ms >= record.expires_at_ms;
        (!expired && marks & marks::REFUSED == 0).then_some((record, home, marks))
    }

    /// The rank of the key behind a current memo.
    pub(crate) fn rank(&self, memo: &KeyMemo) -> u8 {
        self.keys.record(memo.slot).map_or(0, |record| record.rank)
    }

    /// Whether the key still works; takes nothing.
    #[inline]
    pub(crate) fn check(&self, memo: &KeyMemo, now: Moment) -> Admitted {
        self.judge(memo, now).0
    }

    /// Whether a request that was charged before may still be answered, `left` being what the key had left then. Only a key
    /// that no longer works, or no longer may read prices, is refused: its month was used up by this request at the latest.
    pub(crate) fn check_charged(&self, memo: &KeyMemo, now: Moment, left: u32) -> Admitted {
        let Admitted { caller, refused } = self.judge(memo, now).0;
        let refused = refused.filter(|code| *code != Code::RateLimitedMonth);
        Admitted { caller: Caller { left, ..caller }, refused }
    }

    /// Whether the key still works, and its home.
    #[inline]
    fn judge(&self, memo: &KeyMemo, now: Moment) -> (Admitted, u32) {
        match self.record(memo, now) {
            Some((record, home, marks)) => {
                let caller = Caller { key: record.id, limit: record.limit_per_second, left: record.limit_per_second };
                (Admitted { caller, refused: refused_by(record, marks) }, home)
            }
            None => (Admitted { caller: Caller::NOBODY, refused: Some(Code::KeyInvalid) }, 0),
        }
    }

    /// Asks for one request of the key behind a current memo. Charges it unless it is refused.
    #[inline]
    pub fn admit(&mut self, memo: &mut KeyMemo, now: Moment) -> Admitted {
        let (checked, home) = self.judge(memo, now);
        if checked.refused.is_some() {
            return checked;
        }
        let mut caller = checked.caller;
        let purse = Purse { home, limit: caller.limit, share: self.share, key: caller.key };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Amendment, hash_text};
    use alloc::vec;

    fn key(id: u32, text: &str) -> KeyRecord {
        KeyRecord {
            id: KeyId(id),
            hash: hash_text(text.as_bytes()),
            limit_per_second: 9,
            expires_at_ms: 0,
            permissions: Permissions(Permissions::PRICES),
            udp_secret: [0; 16],
            rank: 0,
        }
    }

    /// A key of the large part and one of the overlay, each remembered; whether the two are known without being looked
    /// up when such directories have followed.
    #[track_caller]
    fn check(follow: &[&dyn Fn(&KeyDirectory) -> KeyDirectory], expected: [bool; 2]) {
        let base = KeyDirectory::build(vec![key(1, "one"), key(3, "three")], None, 1);
        let mut keys = Arc::new(base.amend([Amendment::Put(key(2, "two"))]));
        let mut gate = Gate::new(Arc::clone(&keys), 1);
        let mut memos = [b"one", b"two"].map(|text| gate.identify(text).expect("a key"));
        for next in follow {
            keys = Arc::new(next(&keys));
            gate.replace(Arc::clone(&keys));
        }
        let found = memos.each_mut().map(|memo| gate.is_current(memo));
        assert_eq!(found, expected);
        for (memo, id) in memos.iter().zip([1, 2]).filter(|(memo, _)| memo.epoch == gate.epoch) {
            assert_eq!(gate.keys.record(memo.slot), keys.find_id(KeyId(id)));
        }
    }

    #[test]
    fn whoever_has_not_changed_is_not_looked_up_again() {
        let put = |record: KeyRecord| move |keys: &KeyDirectory| keys.amend([Amendment::Put(record.clone())]);
        let remove = |id| move |keys: &KeyDirectory| keys.amend([Amendment::Remove(KeyId(id))]);
        let same = |keys: &KeyDirectory| keys.amend([]);
        let merge = |keys: &KeyDirectory| KeyDirectory::build(keys.records().cloned().collect(), Some(keys), 1);
        let (before, after) = (put(key(0, "before")), put(key(9, "after")));
        check(&[], [true, true]);
        check(&[&same], [true, true]);
        check(&[&before, &after, &remove(3), &remove(9)], [true, true]);
        check(&[&put(key(1, "one"))], [false, true]);
        check(&[&put(key(2, "two"))], [true, false]);
        check(&[&put(key(2, "other")), &put(key(2, "two"))], [true, false]);
        check(&[&remove(1), &put(key(1, "one")), &after], [false, true]);
        check(&[&remove(2), &put(key(2, "two")), &before], [true, false]);
        check(&[&remove(1), &remove(2)], [false, false]);
        check(&[&merge], [false, false]);
        check(&[&before, &merge, &after], [false, false]);
    }

    #[test]
    fn epochs_that_begin_anew_know_nobody() {
        let keys = Arc::new(KeyDirectory::build(vec![key(1, "one")], None, 1));
        let mut gate = Gate::new(Arc::clone(&keys), 1);
        (gate.epoch, gate.base_epoch) = (u32::MAX, 7);
        let mut memo = gate.identify(b"one").expect("a key");
        for _ in 0..3 {
            gate.replace(Arc::new(keys.amend([])));
            assert!(!gate.is_current(&mut memo) && !gate.is_current(&mut KeyMemo::NONE.clone()));
        }
    }
}
