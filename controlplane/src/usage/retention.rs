//! The end of usage detail: what is older than the retention goes, hour by hour, in small steps. Sums stay for ever.
//!
//! Every node does it; where one is at it the others find nothing left. Which rows a step takes is the store's to know,
//! and a server goes by its own clock where the node's is ahead of it. A file has no clock but this machine's: where
//! that was set by more than an hour since the last look, nothing is removed until it has stood for a round. One that
//! is wrong from the start on, and stays so, is believed.

use crate::store::{Store, StoreError, Stored};
use rand::RngExt;
use shared::moment::Moment;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tuning::clock;

/// One day, ms.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Time between two rounds, and as much again by chance, so that nodes started at once do not come at once.
const BETWEEN: Duration = Duration::from_secs(50 * 60);

/// The same before the first: a service that starts has better things to do.
const FIRST: Duration = Duration::from_secs(3 * 60);

/// The part of both that is left to chance.
const CHANCE: Duration = Duration::from_secs(20 * 60);

/// Pause between two steps: whoever writes usage comes first.
const STEP_PAUSE: Duration = Duration::from_millis(100);

/// Steps of one round: at 10,000 rows each, 5,000,000, or as many days' partitions as there are.
const STEPS_MAX: usize = 500;

/// The most by which the clock may be set between two rounds, ms: whoever sets a clock right by more than an hour may
/// have set it wrong as well.
const SET_MAX_MS: u64 = 60 * 60 * 1_000;

/// Removes detail that is older than so many days, again and again until the process ends.
pub async fn keep(store: Arc<dyn Store>, days: u64) {
    let (mut wait, mut before, mut is_refused) = (FIRST, clock::now(), false);
    loop {
        let chance = rand::rng().random_range(Duration::ZERO..CHANCE);
        sleep(wait + chance).await;
        let now = clock::now();
        if was_set(before, now) {
            tracing::warn!("the clock was set by more than an hour: usage detail is not removed before the next round");
        } else {
            let done = sweep(&*store, before_ms(now.wall_ms, days)).await;
            tell(done, &mut is_refused);
        }
        (wait, before) = (BETWEEN, now);
    }
}

/// Whether the wall clock went otherwise than the other clock between two readings.
const fn was_set(before: Moment, now: Moment) -> bool {
    let went_ms = now.mono_ns.saturating_sub(before.mono_ns) / 1_000_000;
    now.wall_ms.abs_diff(before.wall_ms.saturating_add(went_ms)) > SET_MAX_MS
}

/// Whole days alone, so that PostgreSQL drops their partitions: detail is kept for `days`, and less than one more.
const fn before_ms(now_ms: u64, days: u64) -> u64 {
    let kept_ms = now_ms.saturating_sub(days.saturating_mul(DAY_MS));
    kept_ms - kept_ms % DAY_MS
}

/// One round; how many rows went.
///
/// # Errors
/// That of the step that ended it; what went before it is told in the log.
async fn sweep(store: &dyn Store, before_ms: u64) -> Stored<u64> {
    let mut removed = 0_u64;
    let mut done = Ok(());
    for _ in 0..STEPS_MAX {
        match store.prune_usage(before_ms).await {
            Ok(0) => break,
            Ok(rows) => removed = removed.saturating_add(rows),
            Err(why) => {
                done = Err(why);
                break;
            }
        }
        sleep(STEP_PAUSE).await;
    }
    if removed > 0 {
        tracing::info!(rows = removed, before_ms, "usage detail is past its retention and removed; its sums stay");
    }
    done.map(|()| removed)
}

/// Tells the log when detail begins to stay, and when that ends. A store that is away has said so itself.
fn tell(done: Stored<u64>, is_refused: &mut bool) {
    match done {
        Ok(_) if *is_refused => {
            *is_refused = false;
            tracing::info!("usage detail that is past its retention is removed again");
        }
        Err(StoreError::Invalid(why)) if !*is_refused => {
            *is_refused = true;
            tracing::warn!("usage detail that is past its retention stays: {why}");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::shaky::Shaky;
    use crate::store::sqlite::SqliteStore;
    use crate::store::{UsageRow, UsageWrite};
    use shared::usage::UsageRecord;
    use std::sync::atomic::Ordering;

    #[track_caller]
    fn check(now_ms: u64, days: u64, expected_ms: u64) {
        assert_eq!(before_ms(now_ms, days), expected_ms, "{now_ms} {days}");
    }

    #[test]
    fn detail_is_kept_for_its_days_and_less_than_one_more() {
        check(100 * DAY_MS, 93, 7 * DAY_MS);
        check(101 * DAY_MS - 1, 93, 7 * DAY_MS);
        check(5 * DAY_MS, 93, 0);
        check(5 * DAY_MS, u64::MAX, 0);
    }

    #[track_caller]
    fn check_set(went_ms: u64, wall_ms: u64, expected: bool) {
        let before = Moment { mono_ns: 7_000_000, wall_ms: 100 * DAY_MS };
        let now = Moment { mono_ns: before.mono_ns + went_ms * 1_000_000, wall_ms };
        assert_eq!(was_set(before, now), expected, "{went_ms} {wall_ms}");
    }

    #[test]
    fn a_clock_that_was_set_is_not_believed_at_once() {
        let hour = SET_MAX_MS;
        check_set(hour, 100 * DAY_MS + hour, false);
        // A little, as clocks are kept right.
        check_set(hour, 100 * DAY_MS, false);
        check_set(hour, 100 * DAY_MS + 2 * hour, false);
        check_set(hour, 100 * DAY_MS + 2 * hour + 1, true);
        check_set(2 * hour, 100 * DAY_MS, true);
        check_set(hour, 400 * DAY_MS, true);
        check_set(hour, 0, true);
        // A machine that slept: both clocks went on.
        check_set(30 * DAY_MS, 130 * DAY_MS, false);
    }

    #[test]
    fn that_detail_stays_is_told_once_and_its_end_once() {
        let mut is_refused = false;
        let refused = || Err(StoreError::Invalid("no".to_owned()));
        for (done, expected) in [
            (Ok(3), false),
            (Err(StoreError::Unreachable("unplugged".to_owned())), false),
            (refused(), true),
            (refused(), true),
            (Err(StoreError::Unreachable("unplugged".to_owned())), true),
            (Ok(0), false),
        ] {
            tell(done, &mut is_refused);
            assert_eq!(is_refused, expected);
        }
    }

    #[tokio::test]
    async fn a_round_removes_all_that_is_old_and_an_absence_ends_it() {
        let store = Shaky::new(SqliteStore::in_memory().await.expect("memory"));
        let row = |offset: u64| {
            let record = UsageRecord { first_time_ms: offset, requests: 2, ..UsageRecord::default() };
            UsageRow { node: Arc::from("n1"), segment: 1, offset, record }
        };
        let rows: Vec<UsageRow> = (0..15_000).map(row).collect();
        assert_eq!(store.add_usage(&rows).await, Ok(15_000));
        store.away.store(true, Ordering::Relaxed);
        assert!(matches!(sweep(&store, 14_999).await, Err(StoreError::Unreachable(_))));
        store.away.store(false, Ordering::Relaxed);
        assert_eq!(sweep(&store, 14_999).await, Ok(14_999));
        assert_eq!(
            store.inner.ask("SELECT CAST(sum(requests) AS TEXT) FROM usage_hours").await.as_deref(),
            Ok("30000")
        );
        assert_eq!(sweep(&store, 14_999).await, Ok(0));
    }
}
