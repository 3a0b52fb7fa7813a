//! Which days of usage have a partition of their own on PostgreSQL, as far as this process knows.
//!
//! Whoever writes makes them ahead: today's, tomorrow's, and those its rows need within a week. What cannot be made is
//! no reason not to write: such rows go to the partition of all the rest.

use super::session::Session;
use super::value::Value;
use super::{StoreError, Stored};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One day, ms.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Days before today that get a partition: a database that was away for a week is caught up with. Older rows come from
/// clocks that are far off, and a partition for each of them would be one too many.
const DAYS_BACK: i64 = 7;

/// Days after today that do.
const DAYS_AHEAD: i64 = 1;

/// A day that could not be made is tried again after this time.
const AGAIN: Duration = Duration::from_secs(60);

/// See the module. Bounded by the days around today.
#[derive(Default)]
pub struct Days(Mutex<Known>);

#[derive(Default)]
struct Known {
    made: BTreeSet<i64>,
    /// When each was last tried in vain.
    failed: BTreeMap<i64, Instant>,
}

impl Days {
    /// Which days to make now, for rows of these times.
    pub fn missing(&self, now_ms: u64, times_ms: impl Iterator<Item = i64>) -> Vec<i64> {
        let today = i64::try_from(now_ms).unwrap_or(i64::MAX) / DAY_MS;
        let (first, last) = (today - DAYS_BACK, today + DAYS_AHEAD);
        let mut known = self.known();
        known.made.retain(|day| (first..=last).contains(day));
        known.failed.retain(|day, tried| (first..=last).contains(day) && tried.elapsed() < AGAIN);
        let mut days = BTreeSet::from([today, last]);
        days.extend(times_ms.map(|time_ms| time_ms / DAY_MS).filter(|day| (first..=last).contains(day)));
        days.retain(|day| *day >= 0 && !known.made.contains(day) && !known.failed.contains_key(day));
        days.into_iter().collect()
    }

    /// Notes what became of a day, and tells the log when it is news.
    pub fn note(&self, day: i64, why_not: &str) {
        let mut known = self.known();
        if why_not.is_empty() {
            known.made.insert(day);
            return;
        }
        known.failed.insert(day, Instant::now());
        tracing::warn!(
            day,
            "no partition for a day of usage: {why_not}; its rows are kept in usage_logs_rest, and it is tried again"
        );
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // It is sound after every line that changes it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a day's partition; why not, or nothing.
pub async fn make(session: &mut Session, day: i64) -> Stored<String> {
    let sql = "SELECT coalesce(usage_logs_make_day($1), '')";
    let row = session.row(sql, &[Value::Int(day)]).await?;
    row.ok_or_else(|| StoreError::Broken("a function answered nothing".to_owned()))?.text(0)
}
