//! What this node asks the cache for, and what it makes of the answers: arithmetic on given times, without any call.
//!
//! The rule and its bound are told in `dataplane_core::access::sharing`, the cache's side in `cache::window`. Here:
//! * A key that asks (a shard found less than half of its grant left, or none) is asked for as much as its demand needs
//!   for [`HORIZON_MS`] and four round trips; what the node admitted without a grant is told as debt.
//! * Near a window's end ([`AHEAD_MS`]) every key with demand asks for the next one, so that it begins with a grant.
//! * Windows are the cache's: where one began is reckoned from the answer's age and half the round trip. One that is off
//!   by more than [`QUIET_MS`] is followed by 1 ms a window, one that is off by more than [`FOLLOW_MS`] at once.
//! * A question that fails changes nothing: the key keeps to what it was granted, and to the advance in each window, until
//!   none of its questions was answered for [`AWAY_AFTER_MS`]. Only then does this node's part of the limit stand in.

use crate::cache::{Lease, LeaseWish};
use dataplane_core::access::{KeyDirectory, KeySecond, SecondState};
use serde::Serialize;
use shared::key::KeyId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Length of a window, ms.
const WINDOW_MS: u64 = 1_000;

/// What is asked for at a time lasts so long at the pace of the present demand, and four round trips longer: longer than
/// this task is kept from its CPU on a busy machine. Never longer than the window, so that nothing is left over at its end.
const HORIZON_MS: u64 = 100;

/// The least that is asked for is this part of the limit, so that a key far below its limit is not refused for a burst.
/// Left over on every one of five nodes it is below 1 % of the limit.
const LEAST_PART: u32 = 512;

/// A demand is not taken to be faster than its first so many ms tell.
const PACE_AGE_MS: u64 = 20;

/// Age of a window at which the next one is asked for; keys are spread over [`AHEAD_SPREAD_MS`] from there, which leaves
/// four slow round trips of 20 ms.
const AHEAD_MS: u64 = 860;

/// See [`AHEAD_MS`].
const AHEAD_SPREAD_MS: u64 = 50;

/// Windows that differ by less than this are the same one.
const SAME_MS: i64 = 500;

/// By how much a window's start may be off without being corrected: an answer tells it no better, and a load in step with
/// the windows would meet their edges now on this side and now on that.
const QUIET_MS: i64 = 5;

/// By how much a window's start may be off before it is corrected at once: more than half a slow round trip.
const FOLLOW_MS: i64 = 20;

/// Largest correction at once: what the data plane allows for.
const CORRECTION_MS: i64 = 50;

/// A window that has only just begun here may not have begun at the cache.
const EDGE_MS: u64 = 3;

/// So long after the first of questions none of which was answered nobody has a grant any more that he could still use: a
/// window, and what is left of the one before it when it is asked for. A node's part then adds to nothing.
pub const AWAY_AFTER_MS: u64 = WINDOW_MS + (WINDOW_MS - AHEAD_MS);

/// A key whose question failed is not asked for again before that: a cache that refuses at once is asked 40 times a second.
const RETRY_MS: u64 = 25;

/// Keys asked for at a time. With a question ahead and one or two on demand in each second, and 20,000 to 100,000 lease
/// calls a second of one server, 10,000 to 50,000 keys can be active in a second on all nodes together; 16,384 of one
/// node cost about 100 bytes each. Keys beyond that get the node's part.
pub const KEYS_ASKED_MAX: usize = 16_384;

/// A question to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// For which key.
    pub key: KeyId,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// What.
    pub wish: LeaseWish,
    /// The window that it was asked in, ms since boot.
    start_ms: u64,
    /// When, ms since boot.
    asked_ms: u64,
}

/// What has been counted since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Questions to the cache.
    pub asks: u64,
    /// Answers that granted something.
    pub grants: u64,
    /// Requests granted.
    pub granted: u64,
    /// Questions without an answer.
    pub failures: u64,
    /// Answers for windows gone by, whose grants are lost.
    pub late: u64,
    /// Windows of keys in which this node's part of the limit stood in for a grant.
    pub local_windows: u64,
}

/// Whether the cache is held to be away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absence {
    /// When the first question failed since the last answer.
    failing_ms: Option<u64>,
    is_away: bool,
}

impl Absence {
    /// Whether it is.
    #[must_use]
    pub const fn is_away(self) -> bool {
        self.is_away
    }

    /// A question has failed; whether the cache is away by that.
    pub fn failed(&mut self, now_ms: u64) -> bool {
        let failing_ms = *self.failing_ms.get_or_insert(now_ms);
        let was_away = self.is_away;
        self.is_away |= now_ms.saturating_sub(failing_ms) >= AWAY_AFTER_MS;
        self.is_away && !was_away
    }

    /// A question was answered: one that was sent before it was away proves nothing any more.
    pub fn answered(&mut self) {
        self.failing_ms = None;
    }

    /// It is there.
    pub fn back(&mut self) {
        *self = Self::default();
    }
}

#[derive(Clone, Copy, Default)]
struct Entry {
    /// The window that the rest is about.
    start_ms: u64,
    /// Demand told of it.
    told: u32,
    /// The data plane's count of refusals when it began.
    refused_before: u32,
    /// Demand of the window before it, and of this one when last looked at.
    demand_before: u32,
    demand: u32,
    /// Nothing was left of it for anybody.
    is_empty: bool,
    /// The window in which this node's part stood in for a grant, if any: the cache has not said where it began.
    part_ms: u64,
    /// When the first question failed since the last answer; 0: none has.
    failing_ms: u64,
    /// When the last one failed.
    failed_ms: u64,
    /// A question is under way.
    is_asking: bool,
    /// The next one was asked for.
    is_ahead: bool,
    /// When to ask for the next one.
    due_ms: u64,
    /// When to look again, because it was too early.
    again_ms: u64,
    /// What was granted for the next one: its start, and how much.
    next: (u64, u32),
}

/// One node's questions.
#[derive(Default)]
pub struct Book {
    entries: HashMap<KeyId, Entry>,
    due: BinaryHeap<Reverse<(u64, u32)>>,
    nodes: u32,
    round_trip_ms: u64,
    counts: Counts,
}

fn distance(to_ms: u64, from_ms: u64) -> i64 {
    to_ms.cast_signed().wrapping_sub(from_ms.cast_signed())
}

impl Entry {
    /// Takes over what the data plane counts.
    fn look(&mut self, state: SecondState) {
        let away = distance(state.start_ms, self.start_ms);
        if away.abs() >= SAME_MS {
            let follows = away.unsigned_abs() < 2 * WINDOW_MS - SAME_MS.unsigned_abs();
            let demand_before = if follows { self.demand } else { 0 };
            *self = Self {
                demand_before,
                refused_before: state.refused,
                part_ms: self.part_ms,
                failing_ms: self.failing_ms,
                failed_ms: self.failed_ms,
                is_asking: self.is_asking,
                again_ms: self.again_ms,
                ..Self::default()
            };
        }
        self.start_ms = state.start_ms;
        self.demand = state.used.saturating_add(state.refused.wrapping_sub(self.refused_before));
    }

    /// What this node may take in the present window by word of the cache, which then has said where it began.
    fn covered(&self, state: SecondState) -> Option<u32> {
        state.granted.filter(|_| self.part_ms != state.start_ms)
    }

    /// Demand of a whole window at the present pace. A single request may come as late as the one before it.
    fn whole(&self, now_ms: u64) -> u32 {
        let age_ms = now_ms.saturating_sub(self.start_ms).clamp(1, WINDOW_MS);
        let whole = u64::from(self.demand) * WINDOW_MS / age_ms;
        u32::try_from(whole).unwrap_or(u32::MAX).max(self.demand_before.min(1))
    }
}

impl Book {
    /// So many nodes share from now on.
    pub fn set_nodes(&mut self, nodes: usize) {
        self.nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    }

    /// Forgets every key.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.due.clear();
    }

    /// Keys that are asked for now.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.entries.len()
    }

    /// What has been counted since start.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Looks at the keys that ask and at those whose next window is near, and adds what to ask for them.
    pub fn look(&mut self, keys: &KeyDirectory, now_ms: u64, asks: &mut Vec<Ask>) {
        keys.take_asking(|key| self.consider(keys, key, now_ms, asks));
        while let Some(Reverse((due_ms, key))) = self.due.peek().copied()
            && due_ms <= now_ms
        {
            self.due.pop();
            let key = KeyId(key);
            if self.entries.get(&key).is_some_and(|entry| entry.due_ms == due_ms || entry.again_ms == due_ms) {
                self.consider(keys, key, now_ms, asks);
            }
        }
    }

    fn consider(&mut self, keys: &KeyDirectory, key: KeyId, now_ms: u64, asks: &mut Vec<Ask>) {
        let Some(second) = keys.second(key) else {
            self.entries.remove(&key);
            return;
        };
        if self.entries.len() >= KEYS_ASKED_MAX && !self.entries.contains_key(&key) {
            self.give_part(second, now_ms);
            return;
        }
        let state = second.state(now_ms);
        let entry = self.entries.entry(key).or_default();
        entry.look(state);
        if entry.due_ms == 0 {
            entry.due_ms = due_in(state.start_ms, key).max(now_ms);
            self.due.push(Reverse((entry.due_ms, key.0)));
        }
        if entry.is_asking || entry.failing_ms > 0 && now_ms < entry.failed_ms + RETRY_MS {
            return;
        }
        let is_due = now_ms >= entry.due_ms && !entry.is_ahead;
        if is_due && entry.demand == 0 && entry.demand_before == 0 {
            self.entries.remove(&key);
            return;
        }
        let edge_ms = state.start_ms + EDGE_MS;
        let wish = if now_ms < edge_ms && entry.covered(state).is_some_and(|covered| covered > 0) {
            if entry.again_ms != edge_ms {
                entry.again_ms = edge_ms;
                self.due.push(Reverse((edge_ms, key.0)));
            }
            None
        } else if is_due {
            entry.is_ahead = true;
            Some(ahead(entry, state, second.limit(), now_ms))
        } else {
            present(entry, state, second.limit(), now_ms, self.round_trip_ms)
        };
        if let Some(wish) = wish {
            entry.is_asking = true;
            entry.told = entry.told.saturating_add(wish.demand);
            self.counts.asks += 1;
            asks.push(Ask { key, hash: *second.hash(), wish, start_ms: state.start_ms, asked_ms: now_ms });
        }
    }

    /// Takes an answer in, and adds what to ask next for the key.
    pub fn answered(&mut self, keys: &KeyDirectory, ask: &Ask, lease: Lease, now_ms: u64, asks: &mut Vec<Ask>) {
        let round_trip_ms = now_ms.saturating_sub(ask.asked_ms);
        self.round_trip_ms = (3 * self.round_trip_ms + round_trip_ms).div_ceil(4);
        self.counts.grants += u64::from(lease.granted > 0);
        self.counts.granted += u64::from(lease.granted);
        if let (Some(second), Some(entry)) = (keys.second(ask.key), self.entries.get_mut(&ask.key)) {
            (entry.is_asking, entry.failing_ms) = (false, 0);
            let began_ms = now_ms.saturating_sub(round_trip_ms / 2 + u64::from(lease.window_age_ms));
            if !take_in(entry, second, ask, lease, began_ms, now_ms) {
                self.counts.late += 1;
            }
            if ask.wish.next && entry.next.0 > now_ms {
                // Nothing else may make anybody look at the key in that window.
                entry.again_ms = due_in(entry.next.0, ask.key);
                self.due.push(Reverse((entry.again_ms, ask.key.0)));
            }
        }
        self.consider(keys, ask.key, now_ms, asks);
    }

    /// A question that has no answer: this node's part stands in once that has been so for [`AWAY_AFTER_MS`].
    pub fn failed(&mut self, keys: &KeyDirectory, ask: &Ask, now_ms: u64) {
        self.counts.failures += 1;
        let Some(entry) = self.entries.get_mut(&ask.key) else { return };
        (entry.is_asking, entry.failed_ms) = (false, now_ms);
        if entry.failing_ms == 0 {
            entry.failing_ms = now_ms;
        }
        if ask.wish.next {
            entry.is_ahead = false;
        }
        let is_away = now_ms.saturating_sub(entry.failing_ms) >= AWAY_AFTER_MS;
        if is_away
            && let Some(second) = keys.second(ask.key)
            && let Some(part_ms) = self.give_part(second, now_ms)
            && let Some(entry) = self.entries.get_mut(&ask.key)
        {
            entry.part_ms = part_ms;
        }
    }

    /// Lets this node's part stand in, unless more was granted; answers in which window.
    fn give_part(&mut self, second: KeySecond<'_>, now_ms: u64) -> Option<u64> {
        let state = second.state(now_ms);
        let part = (second.limit() / self.nodes.max(1)).max(1);
        let is_more = state.granted.is_none_or(|granted| granted < part);
        is_more.then(|| {
            self.counts.local_windows += 1;
            second.grant(state.start_ms, part, 0);
            state.start_ms
        })
    }
}

/// When to ask for the window after the one that begins at `start_ms`.
fn due_in(start_ms: u64, key: KeyId) -> u64 {
    start_ms + AHEAD_MS + u64::from(key.0.wrapping_mul(0x9E37_79B1) >> 16) % AHEAD_SPREAD_MS
}

/// What to ask for the window to come.
fn ahead(entry: &Entry, state: SecondState, limit: u32, now_ms: u64) -> LeaseWish {
    let whole = entry.whole(now_ms);
    let debt = state.used.saturating_sub(entry.covered(state).unwrap_or(0));
    LeaseWish { limit, want: whole, demand: whole.saturating_sub(entry.told), next: true, debt }
}

/// What to ask for the present window, if anything.
fn present(entry: &Entry, state: SecondState, limit: u32, now_ms: u64, round_trip_ms: u64) -> Option<LeaseWish> {
    let age_ms = now_ms.saturating_sub(state.start_ms);
    let covered = entry.covered(state).unwrap_or(0);
    if entry.is_empty {
        return None;
    }
    let (debt, here) = (state.used.saturating_sub(covered), covered.saturating_sub(state.used));
    let span_ms = (HORIZON_MS + 4 * round_trip_ms).min(WINDOW_MS.saturating_sub(age_ms).max(1));
    let now_pace = u64::from(entry.demand) * span_ms / age_ms.max(PACE_AGE_MS);
    let pace = now_pace.max(u64::from(entry.demand_before) * span_ms / WINDOW_MS);
    let need = u32::try_from(pace).unwrap_or(u32::MAX).max(limit / LEAST_PART).max(1);
    let has_enough = here > need / 2 && debt == 0;
    let wish = LeaseWish {
        limit,
        want: need.saturating_sub(here).min(limit),
        demand: entry.demand.saturating_sub(entry.told),
        next: false,
        debt,
    };
    (!has_enough && (wish.want > 0 || debt > 0)).then_some(wish)
}

/// By how much the next window's start is corrected when this one's is off by so much.
const fn correction_ms(off_ms: i64) -> i64 {
    let by_ms = off_ms.abs();
    if by_ms <= QUIET_MS {
        0
    } else if by_ms <= FOLLOW_MS {
        off_ms.signum()
    } else if by_ms <= CORRECTION_MS {
        off_ms
    } else {
        CORRECTION_MS * off_ms.signum()
    }
}

/// Stores what was granted; whether it still was of use.
fn take_in(entry: &mut Entry, second: KeySecond<'_>, ask: &Ask, lease: Lease, began_ms: u64, now_ms: u64) -> bool {
    let state = second.state(now_ms);
    entry.look(state);
    let is_same_window = distance(state.start_ms, ask.start_ms).abs() < SAME_MS;
    let debt = if is_same_window { ask.wish.debt } else { 0 };
    let (start_ms, covered) = match entry.covered(state) {
        Some(covered) => (state.start_ms, covered),
        None => {
            second.shift(state.start_ms, began_ms);
            (entry.start_ms, entry.part_ms, entry.due_ms) = (began_ms, 0, 0);
            (began_ms, 0)
        }
    };
    let off_ms = distance(began_ms, start_ms);
    let next_ms = (start_ms + WINDOW_MS).saturating_add_signed(correction_ms(off_ms));
    let is_this = off_ms.abs() < SAME_MS;
    let windows_on = i64::from(!is_this) * off_ms.signum() + i64::from(ask.wish.next);
    match windows_on {
        0 => {
            second.grant(start_ms, covered.saturating_add(debt).saturating_add(lease.granted), lease.left);
            entry.is_empty = lease.left == 0;
        }
        1 => {
            let (start, before) = if entry.next.0 > start_ms { entry.next } else { (next_ms, 0) };
            entry.next = (start, before.saturating_add(lease.granted));
            if debt > 0 && is_this {
                second.grant(start_ms, covered.saturating_add(debt), lease.left);
            }
            second.grant(start, entry.next.1, lease.left);
        }
        _ => return lease.granted == 0,
    }
    true
}
