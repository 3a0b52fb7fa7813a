//! Which days of usage have a partition of their own on PostgreSQL, as far as this process knows.
//!
//! Whoever writes makes them ahead: today's, tomorrow's, and those its rows need within a month. What cannot be made is
//! no reason not to write: such rows go to the partition of all the rest. Making has a time of its own, so that the
//! rows behind it have all of theirs.

use super::session::Session;
use super::value::Value;
use super::{StoreError, Stored};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One day, ms.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Days before today that get a partition: a database that was away for a month is caught up with. Older rows come from
/// clocks that are far off, and a partition for each of them would be one too many.
const DAYS_BACK: i64 = 31;

/// Days after today that do.
const DAYS_AHEAD: i64 = 1;

/// A day that could not be made is tried again after this time: a try may have others wait for a fifth of a second.
const AGAIN: Duration = Duration::from_secs(60);

/// A day that was there is asked for again after this time: somebody may have removed it.
const TRUSTED: Duration = Duration::from_secs(60 * 60);

/// For how long one writer begins with further days before it goes on to its rows.
const BEGIN_MAX: Duration = Duration::from_secs(1);

/// What a server is told before it makes a day: it ends the statement by itself before the call's time is over, however
/// long it has to look, and the function answers that as it answers any other reason.
const WORDS: &str = "SET LOCAL statement_timeout = 1500";

/// See the module. Bounded by the days around today.
#[derive(Default)]
pub struct Days(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// When each was last known to be there.
    made: BTreeMap<i64, Instant>,
    /// When each was last tried in vain.
    failed: BTreeMap<i64, Instant>,
}

impl Days {
    /// Which days to make now, for rows of these times.
    pub fn missing(&self, now_ms: u64, times_ms: impl Iterator<Item = i64>) -> Vec<i64> {
        let today = i64::try_from(now_ms).unwrap_or(i64::MAX) / DAY_MS;
        let (first, last) = (today - DAYS_BACK, today + DAYS_AHEAD);
        let mut known = self.known();
        known.made.retain(|day, seen| (first..=last).contains(day) && seen.elapsed() < TRUSTED);
        known.failed.retain(|day, _| (first..=last).contains(day));
        let is_put_off = |day: &i64| known.failed.get(day).is_some_and(|tried| tried.elapsed() < AGAIN);
        let mut days = BTreeSet::from([today, last]);
        days.extend(times_ms.map(|time_ms| time_ms / DAY_MS).filter(|day| (first..=last).contains(day)));
        days.retain(|day| *day >= 0 && !known.made.contains_key(day) && !is_put_off(day));
        days.into_iter().collect()
    }

    /// Notes what became of a day, and tells the log when that begins or ends.
    fn note(&self, day: i64, why_not: &str) {
        let mut known = self.known();
        if why_not.is_empty() {
            known.made.insert(day, Instant::now());
            if known.failed.remove(&day).is_some() {
                tracing::info!(day, "a day of usage has its partition now");
            }
        } else if known.failed.insert(day, Instant::now()).is_none() {
            tracing::warn!(
                day,
                "no partition for a day of usage: {why_not}; its rows are kept in usage_logs_rest, and it is tried again"
            );
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // It is sound after every line that changes it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes those of the days that there is time for, each by a call that `begin` begins.
///
/// # Errors
/// Those of `begin` alone: there is no connection. That a day cannot be made is noted, and nothing else.
pub async fn make<B: Future<Output = Stored<Session>>>(
    known: &Days,
    days: &[i64],
    begin: impl Fn() -> B,
) -> Stored<()> {
    let began = Instant::now();
    for day in days {
        if began.elapsed() >= BEGIN_MAX {
            break;
        }
        let mut session = begin().await?;
        let made = one(&mut session, *day).await;
        match session.end(made).await {
            Ok(why_not) => known.note(*day, &why_not),
            Err(why) => {
                known.note(*day, &why.to_string());
                break;
            }
        }
    }
    Ok(())
}

/// Makes a day's partition; why not, or nothing.
async fn one(session: &mut Session, day: i64) -> Stored<String> {
    session.tell(WORDS).await?;
    let sql = "SELECT coalesce(usage_logs_make_day($1), '')";
    let row = session.row(sql, &[Value::Int(day)]).await?;
    row.ok_or_else(|| StoreError::Broken("a function answered nothing".to_owned()))?.text(0)
}
