//! The end of usage detail: what is older than the retention goes, hour by hour, in small steps. Sums stay for ever.
//!
//! Every node does it; where one is at it the others find nothing left. Which rows a step takes is the store's to know.

use crate::store::Store;
use rand::RngExt;
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

/// Removes detail that is older than so many days, again and again until the process ends.
pub async fn keep(store: Arc<dyn Store>, days: u64) {
    let mut wait = FIRST;
    loop {
        let chance = rand::rng().random_range(Duration::ZERO..CHANCE);
        sleep(wait + chance).await;
        sweep(&*store, before_ms(clock::now().wall_ms, days)).await;
        wait = BETWEEN;
    }
}

/// Whole days alone, so that PostgreSQL drops their partitions: detail is kept for `days`, and less than one more.
const fn before_ms(now_ms: u64, days: u64) -> u64 {
    let kept_ms = now_ms.saturating_sub(days.saturating_mul(DAY_MS));
    kept_ms - kept_ms % DAY_MS
}

/// One round; how many rows went. A store that is away has said so itself, and is asked again in the next.
async fn sweep(store: &dyn Store, before_ms: u64) -> u64 {
    let mut removed = 0_u64;
    for _ in 0..STEPS_MAX {
        match store.prune_usage(before_ms).await {
            Ok(rows) if rows > 0 => removed = removed.saturating_add(rows),
            _ => break,
        }
        sleep(STEP_PAUSE).await;
    }
    if removed > 0 {
        tracing::info!(rows = removed, before_ms, "usage detail is past its retention and removed; its sums stay");
    }
    removed
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
        assert_eq!(sweep(&store, 14_999).await, 0);
        store.away.store(false, Ordering::Relaxed);
        assert_eq!(sweep(&store, 14_999).await, 14_999);
        assert_eq!(
            store.inner.ask("SELECT CAST(sum(requests) AS TEXT) FROM usage_hours").await.as_deref(),
            Ok("30000")
        );
        assert_eq!(sweep(&store, 14_999).await, 0);
    }
}
