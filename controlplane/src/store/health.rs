//! How the store is: what its calls gave, and since when it is away.
//!
//! It is told of in the log once when it goes away and once when it is back, however many calls fail in between. Calls
//! that only read and calls that change something go away and come back by themselves: a server that is read-only, or
//! whose disk is full, answers the ones for as long as it refuses the others.

use super::session::Access;
use super::{StoreError, Stored};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tuning::clock;

/// The counters of a store, since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreHealth {
    /// Calls that have ended.
    pub calls: u64,
    /// Of these: no connection, or no answer in time.
    pub unreachable: u64,
    /// The schema is missing or another.
    pub not_migrated: u64,
    /// Clashes and rows that are not there: faults of callers, the store being well.
    pub refused: u64,
    /// Answers that should not be.
    pub broken: u64,
    /// Since when calls have failed for the store's own sake, Unix ms, be it only those that change something; `None`:
    /// the last one of each kind did not.
    pub away_since_ms: Option<u64>,
    /// Connections open, idle ones included.
    pub connections: u32,
    /// Connections idle.
    pub connections_idle: u32,
    /// Times that credentials were fetched; 0 where they are in the address.
    pub secret_fetches: u64,
    /// Of these: failed.
    pub secret_failures: u64,
}

/// So long after the last change that failed an answer to a question counts for changes too: whoever has something to
/// change tries again within seconds, and when nobody does the failure is of the past.
const CHANGE_STANDS_MS: u64 = 60_000;

/// A change that fails so long before questions do fails for the same reason, ms: one call's time and a pulse.
const SAME_MS: u64 = 4_000;

/// A broken answer is told again when it has not been seen for so long, ms.
const BROKEN_AGAIN_MS: u64 = 10 * 60 * 1_000;

/// Broken answers that are remembered as told; the oldest gives way.
const BROKEN_MAX: usize = 16;

/// What is known of a kind of call.
#[derive(Clone, Copy, Default)]
struct Absence {
    /// Unix ms; `None`: it works.
    since_ms: Option<u64>,
    last_ms: u64,
    /// Whether it is for want of the schema.
    lacks_schema: bool,
}

/// What the log was told.
#[derive(Default)]
struct Told {
    reads: Absence,
    changes: Absence,
    /// Broken answers, with the time of the last one, Unix ms.
    broken: Vec<(String, u64)>,
}

impl Told {
    const fn of(&mut self, access: Access) -> &mut Absence {
        match access {
            Access::Read => &mut self.reads,
            Access::Write => &mut self.changes,
        }
    }

    fn since_ms(&self) -> Option<u64> {
        [self.reads, self.changes].iter().filter_map(|absence| absence.since_ms).min()
    }

    /// A call of this kind failed; whether that is news.
    fn away(&mut self, access: Access, lacks_schema: bool, now_ms: u64) -> bool {
        let was_away = self.since_ms().is_some();
        let lacked = self.reads.lacks_schema || self.changes.lacks_schema;
        let absence = self.of(access);
        absence.since_ms.get_or_insert(now_ms);
        (absence.last_ms, absence.lacks_schema) = (now_ms, lacks_schema);
        !was_away || (lacks_schema && !lacked)
    }

    /// A call of this kind was answered; since when the store was away, if it is back with that.
    fn back(&mut self, access: Access, now_ms: u64) -> Option<u64> {
        let since_ms = self.since_ms()?;
        // A change that failed while nothing was answered failed for the same reason, or will be told again.
        let together = self.reads.since_ms.is_some_and(|reads_ms| self.changes.last_ms + SAME_MS >= reads_ms);
        let is_old = now_ms.saturating_sub(self.changes.last_ms) >= CHANGE_STANDS_MS;
        *self.of(access) = Absence::default();
        if access == Access::Read && (together || is_old) {
            self.changes = Absence::default();
        }
        self.since_ms().is_none().then_some(since_ms)
    }

    /// An answer that should not be; whether that is news.
    fn broken(&mut self, why: &str, now_ms: u64) -> bool {
        let seen = self.broken.iter().position(|(told, _)| told == why).map(|place| self.broken.remove(place));
        if self.broken.len() == BROKEN_MAX {
            self.broken.remove(0);
        }
        self.broken.push((why.to_owned(), now_ms));
        seen.is_none_or(|(_, last_ms)| now_ms.saturating_sub(last_ms) >= BROKEN_AGAIN_MS)
    }
}

/// Counts what calls give.
#[derive(Default)]
pub struct Watch {
    calls: AtomicU64,
    unreachable: AtomicU64,
    not_migrated: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    told: Mutex<Told>,
}

impl Watch {
    /// Counts one call, and tells the log when the store goes away or is back.
    pub fn note<T>(&self, kind: &'static str, access: Access, done: &Stored<T>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let counter = match done {
            Ok(_) => None,
            Err(StoreError::Unreachable(_)) => Some(&self.unreachable),
            Err(StoreError::NotMigrated(_)) => Some(&self.not_migrated),
            Err(StoreError::Broken(_)) => Some(&self.broken),
            Err(StoreError::Busy(_) | StoreError::NotFound | StoreError::Conflict(_) | StoreError::Invalid(_)) => {
                Some(&self.refused)
            }
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let now_ms = clock::now().wall_ms;
        match done {
            Err(why @ (StoreError::Unreachable(_) | StoreError::NotMigrated(_))) => {
                let lacks_schema = matches!(why, StoreError::NotMigrated(_));
                if self.told().away(access, lacks_schema, now_ms) {
                    let what = if access == Access::Read { "is away" } else { "takes no changes" };
                    tracing::warn!(
                        database = kind,
                        "the store {what}: {why}; prices, known keys and limits go on without it"
                    );
                }
            }
            // One broken answer says nothing of the others.
            Err(StoreError::Broken(why)) => {
                if self.told().broken(why, now_ms) {
                    tracing::error!(database = kind, "the store: {why}");
                }
            }
            _ => {
                let back = self.told().back(access, now_ms);
                if let Some(since_ms) = back {
                    tracing::info!(database = kind, away_ms = now_ms.saturating_sub(since_ms), "the store is back");
                }
            }
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // It is sound after every line that changes it.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters now.
    pub fn health(&self, connections: (u32, u32), fetches: (u64, u64)) -> StoreHealth {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreHealth {
            calls: read(&self.calls),
            unreachable: read(&self.unreachable),
            not_migrated: read(&self.not_migrated),
            refused: read(&self.refused),
            broken: read(&self.broken),
            away_since_ms: self.told().since_ms(),
            connections: connections.0,
            connections_idle: connections.1,
            secret_fetches: fetches.0,
            secret_failures: fetches.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Access::{Read, Write};

    /// Calls one after the other, and which of them the log is told of: `+` away, `-` back.
    #[track_caller]
    fn check(calls: &[(u64, Access, Option<bool>)], expected: &str) {
        let mut told = Told::default();
        let line = |(now_ms, access, failed): &(u64, Access, Option<bool>)| match failed {
            Some(lacks_schema) if told.away(*access, *lacks_schema, *now_ms) => '+',
            None if told.back(*access, *now_ms).is_some() => '-',
            _ => '.',
        };
        assert_eq!(calls.iter().map(line).collect::<String>(), expected);
    }

    const OK: Option<bool> = None;
    const AWAY: Option<bool> = Some(false);
    const NO_SCHEMA: Option<bool> = Some(true);

    #[test]
    fn an_absence_is_told_once_and_its_end_once() {
        check(&[(1, Read, OK), (2, Read, AWAY), (3, Write, AWAY), (4, Read, AWAY), (5, Read, OK)], ".+..-");
        // Questions are answered, changes are not: for as long as it lasts.
        let mixed = [(1, Write, AWAY), (2, Read, OK), (3, Write, AWAY), (4, Read, OK), (5, Write, OK), (6, Read, OK)];
        check(&mixed, "+...-.");
        // It comes back whole, or only to be asked.
        let half =
            [(1, Read, AWAY), (2, Write, AWAY), (3, Read, OK), (4, Write, AWAY), (5, Read, OK), (6, Write, AWAY)];
        check(&half, "+.-+..");
        // A change that nobody tries again.
        check(&[(1, Write, AWAY), (2, Read, OK), (60_001, Read, OK), (60_002, Write, OK)], "+.-.");
        // It is there, and lacks the schema.
        check(&[(1, Read, AWAY), (2, Read, NO_SCHEMA), (3, Write, NO_SCHEMA), (4, Read, OK)], "++.-");
    }

    #[test]
    fn a_broken_answer_is_told_once() {
        let mut told = Told::default();
        assert!(told.broken("one", 1) && told.broken("other", 2));
        assert!(!told.broken("one", 3) && !told.broken("other", BROKEN_AGAIN_MS));
        assert!(told.broken("one", BROKEN_AGAIN_MS + 3), "after a long time it is another event");
        for number in 0..100 {
            told.broken(&number.to_string(), 1);
        }
        assert_eq!(told.broken.len(), BROKEN_MAX);
    }
}
