//! How nodes share a key's second, as shards see it: which part of a limit is this node's, and whom to ask for more.
//!
//! # The rule
//! A node alone admits the whole limit. Where several nodes are alive the control plane sets [`Sharing::Granted`]: in each
//! window a node admits what was granted to it for that window, out of one pool of N for all nodes, and, in a window for
//! which nothing was granted yet, one lease: max(1, N / `LEASE_SHARE`); also where less than that was granted though the
//! pool was not empty. Such an advance is told as debt with the next question and comes out of the pool. A question that
//! fails gives nothing: a node keeps to its grants and advances. When none was answered for so long that all grants have
//! run out, a node admits its part: max(1, N / nodes). A window that has begun as a part, or as the whole, ends so, unless
//! something is granted for it: what was used of it is debt, and no key is refused for that alone.
//!
//! # The bound
//! Grants of a window sum up to N at most, so all nodes together admit at most N and one advance per node that had no
//! grant or a smaller one: N + nodes × max(1, N / 128), which is within N + one lease per shard, and only while a key's
//! traffic begins, grows or moves to other nodes. With a steady load of N or more every window is granted ahead. What can be
//! left over is what shards hold as leases at a window's end, 1 / 128 of what was granted altogether, so 0.99 N is admitted.
//!
//! More than that can be admitted where nodes do not know the same of the cache:
//! * A node that alone is cut off from it admits its part besides what the others share: N + max(1, N / nodes) for each such.
//! * When it comes back nodes notice within a quarter of a second of each other: in those windows a node that still admits
//!   its part adds as much, so they are at most N + nodes × max(1, N / nodes).
//! * A node that was alone admits N in the window in which it notices that it is not, besides what the newcomer is granted:
//!   2 N at most, once. It may have admitted them before it noticed, so ending the window as it began adds nothing to that.
//! * A cache that forgets everything has lost what was granted of the present window: one limit more, once.
//! * Beyond as many keys in one second as the control plane asks for (16,384 a node), a key gets the node's part.
//!
//! Less is admitted, down to the advances, in the second or so until a cache that has gone is known to be away; and when a
//! node turns to grants: the cache counts a second from when it is first asked, and what was used before is debt in it, so
//! that a key which uses more than half of its limit may be refused for a part of that second.
//! With N below 256 the advance is 1: of two requests at once to a node that the key has not asked for a second, one is refused.
//!
//! # Asking
//! A price never waits for a grant. A shard that takes a lease and finds less than half of the grant left, or none, or
//! that refuses, writes the key's number into a table of [`ASKING_KEYS`] places that the control plane reads every
//! millisecond. Two keys may meet in one place: the later one stays, and the other comes again with its next request
//! there. That costs nobody a queue, and no request more than a read while its number is still there. Refusals are part of
//! a key's demand: a shard adds them to the key's second some at a time (see `leases`), not one by one.

use super::KeyDirectory;
use super::allowance::{Second, SecondState, pack, unpack};
use crate::limits::ASKING_KEYS;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use shared::key::{KeyId, KeyRecord};

/// Which part of every key's limit this node admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One of so many equal parts, and one request at least; `Part(1)` is the whole.
    Part(u32),
    /// What was granted for the window: see [`KeySecond::grant`].
    Granted,
}

/// Parts that can be told from each other: more than there can be nodes.
const PARTS_MAX: u32 = 1 << 20;

/// [`Sharing`] as shards read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// 1 / n of the limit.
    One(u32),
    /// What was granted; in a window that began before `since_ms` (ms since boot) and for which nothing was granted, 1 /
    /// `before` of the limit, as until then.
    Granted { since_ms: u64, before: u32 },
}

impl Part {
    /// What was granted, whatever was before.
    pub(crate) const GRANTED: Self = Self::Granted { since_ms: 0, before: 1 };

    pub(crate) const fn is_granted(self) -> bool {
        matches!(self, Self::Granted { .. })
    }
}

/// What all directories of one lineage have in common.
pub(crate) struct Common {
    /// Since when what was granted counts, ms since boot, 0: not; and the number of parts, now or until then.
    mode: AtomicU64,
    /// Numbers of keys that ask; 0 is nobody.
    asking: Vec<AtomicU32>,
}

/// Shared by a directory, the one before, and the one after.
#[derive(Clone)]
pub(crate) struct SharedByNodes(Arc<Common>);

impl Default for SharedByNodes {
    fn default() -> Self {
        let asking = (0..ASKING_KEYS).map(|_| AtomicU32::new(KeyId::NOBODY.0)).collect();
        Self(Arc::new(Common { mode: AtomicU64::new(1), asking }))
    }
}

impl SharedByNodes {
    pub(crate) fn is_the_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    #[inline]
    pub(crate) fn part(&self) -> Part {
        match unpack(self.0.mode.load(Ordering::Relaxed)) {
            (0, nodes) => Part::One(nodes),
            (since_ms, before) => Part::Granted { since_ms, before },
        }
    }

    fn tell(&self, key: KeyId) {
        let place = key.0.wrapping_mul(0x9E37_79B1) >> 16;
        if let Some(place) = self.0.asking.get(place as usize % ASKING_KEYS)
            && place.load(Ordering::Relaxed) != key.0
        {
            place.store(key.0, Ordering::Relaxed);
        }
    }
}

/// One key's second, for whoever grants.
#[derive(Clone, Copy)]
pub struct KeySecond<'a> {
    record: &'a KeyRecord,
    second: &'a Second,
}

impl KeySecond<'_> {
    /// Its limit per second, all nodes together.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.record.limit_per_second
    }

    /// SHA-256 of the key's text.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.record.hash
    }

    /// How it stands now.
    #[must_use]
    pub fn state(&self, mono_ms: u64) -> SecondState {
        self.second.state(mono_ms)
    }

    /// From now on this node may admit `granted` requests, all in all, in the window that begins at `start_ms` (ms since
    /// boot), of which all nodes together then have `pool_left` more. One caller at a time for one key.
    pub fn grant(&self, start_ms: u64, granted: u32, pool_left: u32) {
        self.second.grant(start_ms, granted, pool_left);
    }

    /// Says that the window that was taken to begin at `from_ms` begins at `to_ms`; what was used in it stays used.
    pub fn shift(&self, from_ms: u64, to_ms: u64) {
        self.second.shift(from_ms, to_ms);
    }
}

impl KeyDirectory {
    /// Sets which part of every key's limit this node admits: in force at each shard's next lease, in this directory and
    /// in those before and after it. `mono_ms` is the time, ms since boot. One caller at a time.
    pub fn set_sharing(&self, sharing: Sharing, mono_ms: u64) {
        let mode = match (sharing, self.nodes().part()) {
            (Sharing::Part(nodes), _) => pack(0, nodes.clamp(1, PARTS_MAX)),
            (Sharing::Granted, Part::One(nodes)) => pack(mono_ms.max(1), nodes),
            (Sharing::Granted, Part::Granted { .. }) => return,
        };
        self.nodes().0.mode.store(mode, Ordering::Relaxed);
    }

    /// Which part of every key's limit this node admits.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        match self.nodes().part() {
            Part::One(nodes) => Sharing::Part(nodes),
            Part::Granted { .. } => Sharing::Granted,
        }
    }

    /// Takes out the keys that ask for a grant: at most [`ASKING_KEYS`], each at least once.
    pub fn take_asking(&self, mut found: impl FnMut(KeyId)) {
        for place in &self.nodes().0.asking {
            if place.load(Ordering::Relaxed) != KeyId::NOBODY.0 {
                found(KeyId(place.swap(KeyId::NOBODY.0, Ordering::Relaxed)));
            }
        }
    }

    /// One key's second; `None` for an unknown key.
    #[must_use]
    pub fn second(&self, id: KeyId) -> Option<KeySecond<'_>> {
        let (record, home) = self.record_and_home(self.slot_of_id(id)?)?;
        Some(KeySecond { record, second: self.word(home)? })
    }

    /// Takes one request from the key's allowance directly, without a lease: for the control plane, whose few
    /// requests must count like any shard's. Answers the requests left this second, or `None` when used up.
    pub fn take_one(&self, id: KeyId, mono_ms: u64) -> Option<u32> {
        let second = self.second(id)?;
        let taken = second.second.take_one(self.nodes().part(), second.limit(), mono_ms);
        if taken.tell {
            self.tell(id);
        }
        (taken.granted > 0).then_some(taken.left)
    }

    /// Requests the key's shared allowance still has this second, taking none; `None` for an unknown key. What shards
    /// hold as leases counts as used; while nodes share, what other nodes have taken since the last grant does not.
    #[must_use]
    pub fn remaining(&self, id: KeyId, mono_ms: u64) -> Option<u32> {
        let second = self.second(id)?;
        Some(second.second.left(self.nodes().part(), second.limit(), mono_ms))
    }

    /// Says that a key needs a grant.
    #[inline]
    pub(crate) fn tell(&self, key: KeyId) {
        self.nodes().tell(key);
    }
}
