//! Usage: every row exactly once and in the sums exactly once, whichever way it comes and however often.

use super::{Bench, on_every_store};
use crate::store::{CALL_MAX, Committed, Store, StoreError, UsageRow, UsageSpan};
use crate::usage::outlet::BATCH_ROWS_MAX;
use shared::usage::{PROTOCOL_TCP, PROTOCOL_UDP, UsageRecord};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tuning::clock;

on_every_store!(
    spans_move_a_segment_on_and_count_once,
    rows_that_came_another_way_are_not_counted_twice,
    what_no_column_holds_is_brought_to_the_nearest,
    what_is_no_span_changes_nothing,
    the_largest_batch_is_written_or_half_of_it,
    sums_that_would_overflow_stay_at_the_most,
    writers_at_once_on_the_same_sums,
    answers_that_are_lost,
    detail_goes_and_sums_stay,
);

/// Now, in the middle of a minute, Unix ms.
pub fn now_ms() -> u64 {
    let now = clock::now().wall_ms;
    now - now % 60_000 + 30_000
}

/// Row `offset` of a segment, of one of a few dozen groups; the same whenever it is made.
pub fn row(node: &str, segment: u64, offset: u64, time_ms: u64) -> UsageRow {
    let asset = match offset % 5 {
        0 => [0; 16],
        number => {
            let mut asset = *b"BTC\0\0\0\0\0\0\0\0\0\0\0\0\0";
            asset[3] = b'0' + u8::try_from(number).expect("a digit");
            asset
        }
    };
    UsageRow {
        node: Arc::from(node),
        segment,
        offset,
        record: UsageRecord {
            number: offset,
            first_time_ms: time_ms,
            last_time_ms: time_ms.saturating_add(1),
            requests: 1 + offset % 3,
            asset,
            key: u32::try_from(offset % 7).expect("a number"),
            status: if offset.is_multiple_of(11) { 429 } else { 200 },
            protocol: if offset.is_multiple_of(2) { PROTOCOL_TCP } else { PROTOCOL_UDP },
            endpoint: u8::try_from(offset % 4).expect("a number"),
            tier: u8::try_from(offset % 3).expect("a number"),
            ..UsageRecord::default()
        },
    }
}

/// Rows `from..to` of a segment, 10 ms after each other.
pub fn rows(node: &str, segment: u64, from: u64, to: u64) -> Vec<UsageRow> {
    let began_ms = now_ms();
    (from..to).map(|offset| row(node, segment, offset, began_ms + (offset - from) * 10)).collect()
}

pub const fn span(node: &str, segment: u64, from: u64, to: u64) -> UsageSpan<'_> {
    UsageSpan { node, segment, from, to }
}

/// How many sums are not what the rows give, in either table, either way.
const WRONG_SUMS: &str = "WITH \
    minutes AS (SELECT time_ms - time_ms % 60000 AS bucket_ms, key_id, asset, protocol, endpoint, status, tier, node, \
        CAST(sum(requests) AS BIGINT) AS requests FROM usage_logs GROUP BY 1, 2, 3, 4, 5, 6, 7, 8), \
    hours AS (SELECT time_ms - time_ms % 3600000 AS bucket_ms, key_id, asset, protocol, endpoint, status, tier, node, \
        CAST(sum(requests) AS BIGINT) AS requests FROM usage_logs GROUP BY 1, 2, 3, 4, 5, 6, 7, 8), \
    kept_minutes AS (SELECT bucket_ms, key_id, asset, protocol, endpoint, status, tier, node, requests FROM \
        usage_minutes), \
    kept_hours AS (SELECT bucket_ms, key_id, asset, protocol, endpoint, status, tier, node, requests FROM usage_hours) \
    SELECT CAST((SELECT count(*) FROM (SELECT * FROM minutes EXCEPT SELECT * FROM kept_minutes) AS a) \
        + (SELECT count(*) FROM (SELECT * FROM kept_minutes EXCEPT SELECT * FROM minutes) AS b) \
        + (SELECT count(*) FROM (SELECT * FROM hours EXCEPT SELECT * FROM kept_hours) AS c) \
        + (SELECT count(*) FROM (SELECT * FROM kept_hours EXCEPT SELECT * FROM hours) AS d) AS TEXT)";

/// Rows and requests there are; the sums are what they give.
#[track_caller]
pub fn check_sums(bench: &Bench) -> impl Future<Output = (u64, u64)> {
    let caller = std::panic::Location::caller();
    async move {
        assert_eq!(bench.ask(WRONG_SUMS).await, "0", "sums that are not what the rows give, at {caller}");
        let rows = bench.ask("SELECT CAST(count(*) AS TEXT) FROM usage_logs").await;
        let requests = bench.ask("SELECT CAST(coalesce(sum(requests), 0) AS TEXT) FROM usage_hours").await;
        (rows.parse().expect("a number"), requests.parse().expect("a number"))
    }
}

pub fn requests(rows: &[UsageRow]) -> u64 {
    rows.iter().map(|row| row.record.requests).sum()
}

async fn spans_move_a_segment_on_and_count_once(bench: Bench) {
    let store = &bench.store;
    assert_eq!(store.usage_position("n1", 7).await, Ok(0));
    let all = rows("n1", 7, 0, 4_000);
    let damaged: Vec<UsageRow> = all.iter().filter(|row| row.offset % 10 != 3).cloned().collect();
    let part = |from: u64, to: u64| -> Vec<UsageRow> {
        damaged.iter().filter(|row| (from..to).contains(&row.offset)).cloned().collect()
    };
    use Committed::{Done, Elsewhere};
    // Span, what becomes of it, and the rows there are then.
    for (from, to, wanted, count) in [
        (5, 9, Elsewhere(0), 0),
        (0, 0, Done, 0),
        (0, 40, Done, 36),
        (0, 40, Elsewhere(40), 36),
        (0, 90, Elsewhere(40), 36),
        (39, 90, Elsewhere(40), 36),
        (41, 90, Elsewhere(40), 36),
        // A record that is damaged alone.
        (40, 43, Done, 39),
        (43, 44, Done, 39),
        (44, 1_044, Done, 939),
        // Large enough for the other way to write.
        (1_044, 3_900, Done, 3_510),
        (1_044, 3_900, Elsewhere(3_900), 3_510),
        (3_900, 4_000, Done, 3_600),
        // Nothing but damage.
        (4_000, 5_000, Done, 3_600),
        (5_000, 5_000, Done, 3_600),
    ] {
        assert_eq!(store.commit_usage(span("n1", 7, from, to), &part(from, to)).await, Ok(wanted), "{from}..{to}");
        assert_eq!(check_sums(&bench).await.0, count, "{from}..{to}");
    }
    assert_eq!(store.usage_position("n1", 7).await, Ok(5_000));
    // Another segment, another node of the same segment: other rows.
    for (node, segment) in [("n1", 8), ("n2", 7)] {
        assert_eq!(store.usage_position(node, segment).await, Ok(0));
        let others = rows(node, segment, 0, 50);
        assert_eq!(store.commit_usage(span(node, segment, 0, 50), &others).await, Ok(Done));
    }
    let wanted = requests(&damaged) + 2 * requests(&all[..50]);
    assert_eq!(check_sums(&bench).await, (3_700, wanted));
}

async fn rows_that_came_another_way_are_not_counted_twice(bench: Bench) {
    let store = &bench.store;
    let mut total = 0;
    for (segment, count) in [(1_u64, 60_u64), (2, 3_000)] {
        let all = rows("n1", segment, 0, count);
        let half = usize::try_from(count / 2).expect("a count");
        // Twice in one call, in the wrong order.
        let mut twice: Vec<UsageRow> = all[..half].iter().rev().chain(&all[..half]).cloned().collect();
        twice.truncate(BATCH_ROWS_MAX);
        assert_eq!(store.add_usage(&twice).await, Ok(half as u64));
        assert_eq!(store.add_usage(&twice).await, Ok(0));
        check_sums(&bench).await;
        // Some there and some not, by a span; which may not be told from a first one by its answer.
        let done = store.commit_usage(span("n1", segment, 0, count - 10), &all[..all.len() - 10]).await;
        assert_eq!(done, Ok(Committed::Done));
        check_sums(&bench).await;
        assert_eq!(store.add_usage(&all).await, Ok(10));
        assert_eq!(store.add_usage(&all).await, Ok(0));
        let done = store.commit_usage(span("n1", segment, count - 10, count), &all[all.len() - 10..]).await;
        assert_eq!(done, Ok(Committed::Done));
        total += count;
        assert_eq!(check_sums(&bench).await.0, total);
    }
    assert_eq!(store.add_usage(&[]).await, Ok(0));
    let mixed: Vec<UsageRow> =
        rows("a", 1, 0, 9).into_iter().chain(rows("b", 1, 0, 9)).chain(rows("a", 2, 3, 9)).collect();
    assert_eq!(store.add_usage(&mixed).await, Ok(24));
    assert_eq!(store.usage_position("a", 1).await, Ok(0), "rows without a span move nothing");
    check_sums(&bench).await;
}

async fn what_no_column_holds_is_brought_to_the_nearest(bench: Bench) {
    let store = &bench.store;
    let change = |offset: u64, change: fn(&mut UsageRecord)| {
        let mut row = row("n1", 1, offset, now_ms());
        change(&mut row.record);
        row
    };
    let odd = [
        change(0, |record| record.first_time_ms = 0),
        change(1, |record| record.first_time_ms = u64::MAX),
        change(2, |record| record.first_time_ms = u64::MAX - 1),
        change(3, |record| record.first_time_ms = 4_102_444_800_000),
        change(4, |record| record.requests = 0),
        change(5, |record| record.asset = [0xff; 16]),
        change(6, |record| record.asset = *b"A\0B\0CCCCCCCCCCCC"),
        // Three that are the same to a report, and so one sum.
        change(7, |record| (record.protocol, record.endpoint, record.tier) = (200, 200, 200)),
        change(7 + 4_620, |record| (record.protocol, record.endpoint, record.tier) = (201, 201, 201)),
        change(7 + 9_240, |record| (record.protocol, record.endpoint, record.tier) = (u8::MAX, u8::MAX, u8::MAX)),
        change(8, |record| record.key = u32::MAX),
        change(9, |record| record.status = u16::MAX),
        change(i64::MAX.cast_unsigned() - 1, |_| {}),
    ];
    let to = i64::MAX.cast_unsigned();
    assert_eq!(store.commit_usage(span("n1", 1, 0, to), &odd).await, Ok(Committed::Done));
    assert_eq!(store.usage_position("n1", 1).await, Ok(to));
    assert_eq!(check_sums(&bench).await.0, 12);
    assert_eq!(store.add_usage(&odd).await, Ok(0));
    let longest = i64::MAX.cast_unsigned();
    let other = [row("n2", longest, 5, now_ms())];
    assert_eq!(store.commit_usage(span("n2", longest, 0, 6), &other).await, Ok(Committed::Done));
    // The first and last ms there are, and the largest number of requests.
    let times = "SELECT CAST(count(*) AS TEXT) FROM usage_logs WHERE time_ms IN (0, 9223372036854775807)";
    assert_eq!(bench.ask(times).await, "3");
    let mut most = row("n3", 1, 0, now_ms());
    most.record.requests = u64::MAX;
    assert_eq!(store.add_usage(&[most]).await, Ok(1));
    let most = "SELECT CAST(max(requests) AS TEXT) FROM usage_hours";
    assert_eq!(bench.ask(most).await, i64::MAX.to_string());
}

async fn what_is_no_span_changes_nothing(bench: Bench) {
    let store = &bench.store;
    let good = rows("n1", 1, 0, 10);
    let above = 1_u64 << 63;
    let long = "n".repeat(129);
    for (span, rows) in [
        (span("n1", 1, 5, 4), &good[..0]),
        (span("n1", 1, 0, 9), &good[..]),
        (span("n1", 1, 1, 10), &good[..]),
        (span("n2", 1, 0, 10), &good[..]),
        (span("n1", 2, 0, 10), &good[..]),
        (span("n1", above, 0, 10), &good[..0]),
        (span("n1", 1, 0, above), &good[..]),
        (span(&long, 1, 0, 10), &good[..0]),
        (span("n\0", 1, 0, 10), &good[..0]),
    ] {
        let refused = store.commit_usage(span, rows).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{span:?}: {refused:?}");
    }
    for rows in [rows(&long, 1, 0, 1), rows("n\0", 1, 0, 1), rows("n1", above, 0, 1), rows("n1", 1, above, above + 1)] {
        let refused = store.add_usage(&rows).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
    let many = vec![good[0].clone(); BATCH_ROWS_MAX + 1];
    let refused = store.commit_usage(span("n1", 1, 0, 10), &many).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    assert!(store.usage_position(&long, 1).await.is_err());
    assert_eq!(store.usage_position("n1", 1).await, Ok(0));
    assert_eq!(check_sums(&bench).await, (0, 0));
}

async fn the_largest_batch_is_written_or_half_of_it(bench: Bench) {
    let count = BATCH_ROWS_MAX as u64;
    let mut all = rows("n1", 1, 0, count);
    // As many sums as rows: the most that there can be.
    for (number, row) in (0_u32..).zip(&mut all) {
        row.record.key = number;
    }
    // A machine that is busy with other things may be too slow for it: then, as the shipper does, half of it.
    let (mut from, mut size) = (0, count);
    while from < count {
        let until = count.min(from + size);
        let rows = &all[usize::try_from(from).expect("a place")..usize::try_from(until).expect("a place")];
        match bench.store.commit_usage(span("n1", 1, from, until), rows).await {
            Ok(Committed::Done) => from = until,
            Ok(Committed::Elsewhere(place)) => from = place,
            Err(StoreError::Unreachable(why)) => {
                assert!(size > 300, "{why}");
                size /= 2;
            }
            Err(why) => panic!("{why}"),
        }
    }
    assert_eq!(bench.store.usage_position("n1", 1).await, Ok(count));
    assert_eq!(check_sums(&bench).await, (count, requests(&all)));
}

async fn sums_that_would_overflow_stay_at_the_most(bench: Bench) {
    let (most, now_ms) = (i64::MAX.cast_unsigned(), now_ms());
    for offset in 0..4 {
        // Two of one group in one call: the sum overflows in the program first, in the database after it.
        let mut pair = [0, 9_240_000].map(|more| row("n1", 1, offset * 4_620 + more, now_ms));
        pair.iter_mut().for_each(|row| row.record.requests = most - 1);
        assert_eq!(bench.store.add_usage(&pair).await, Ok(2));
        let both = "SELECT CAST((SELECT max(requests) FROM usage_minutes) AS TEXT) || ' ' || CAST((SELECT max(requests) \
                    FROM usage_hours) AS TEXT)";
        assert_eq!(bench.ask(both).await, format!("{most} {most}"));
    }
    assert_eq!(bench.ask("SELECT CAST(count(*) AS TEXT) FROM usage_hours").await, "1");
}

/// Eight writers, each adding rows of the same few sums, some rows of which others add too, each in an order of its own.
async fn writers_at_once_on_the_same_sums(bench: Bench) {
    let other = bench.other().unwrap_or_else(|| Arc::clone(&bench.store));
    let all = Arc::new(rows("n1", 1, 0, 8 * 1_500));
    let mut writers = JoinSet::new();
    for writer in 0..8_usize {
        let (store, all) = (Arc::clone(if writer % 2 == 0 { &bench.store } else { &other }), Arc::clone(&all));
        writers.spawn(async move {
            let mut added = 0;
            for round in 0..6 {
                // 250 of its own, and as many of its neighbour's; large ones every third time.
                let count = if round % 3 == 2 { 1_500 } else { 500 };
                let from = (writer * 1_500 + round * 250) % (all.len() - count);
                let mut part = all[from..from + count].to_vec();
                part.rotate_left((writer * 97) % count);
                loop {
                    match store.add_usage(&part).await {
                        Ok(new) => break added += new,
                        // On one file all wait for one writer: the last may wait too long.
                        Err(StoreError::Unreachable(_)) => {}
                        Err(why) => panic!("{why}"),
                    }
                }
            }
            added
        });
    }
    let added: u64 = writers.join_all().await.into_iter().sum();
    assert_eq!(check_sums(&bench).await.0, added);
    assert_eq!(bench.store.add_usage(&all).await, Ok(all.len() as u64 - added));
    assert_eq!(check_sums(&bench).await, (all.len() as u64, requests(&all)));
}

/// What a shipper does: asks where the segment stands, and goes on from there until all is there.
pub async fn deliver(store: &Arc<dyn Store>, node: &str, segment: u64, all: &[UsageRow], patience: Duration) -> u32 {
    let (deadline, to) = (Instant::now() + harness::PATIENCE, all.len() as u64);
    let (mut lost, mut size) = (0, 1_500);
    loop {
        assert!(Instant::now() < deadline, "not delivered");
        let from = match store.usage_position(node, segment).await {
            Ok(from) => from,
            Err(StoreError::Unreachable(_)) => continue,
            Err(why) => panic!("{why}"),
        };
        if from == to {
            return lost;
        }
        // Small and large ones in turn, smaller ones where they take too long.
        let until = to.min(from + if from % 3 == 0 { size } else { size.min(200) });
        let rows = &all[usize::try_from(from).expect("a place")..usize::try_from(until).expect("a place")];
        let answer = timeout(patience, store.commit_usage(span(node, segment, from, until), rows)).await;
        let is_lost = !matches!(answer, Ok(Ok(_)));
        lost += u32::from(is_lost);
        size = if is_lost && patience == CALL_MAX { (size / 2).max(60) } else { 1_500 };
    }
}

/// Calls that are given up at any moment, as when a process is told to end, or an answer is lost.
async fn answers_that_are_lost(bench: Bench) {
    let all = rows("n1", 1, 0, 4_500);
    let mut given_up = 0;
    for micros in [100_u64, 300, 700, 1_500, 3_000, 6_000, 12_000] {
        let (store, all) = (Arc::clone(&bench.store), all.clone());
        let one = tokio::spawn(async move { deliver(&store, "n1", 1, &all, Duration::from_micros(micros)).await });
        sleep(Duration::from_micros(micros * 4)).await;
        one.abort();
        given_up += u32::from(one.await.is_err());
    }
    deliver(&bench.store, "n1", 1, &all, CALL_MAX).await;
    assert!(given_up > 0, "no call was given up");
    assert_eq!(check_sums(&bench).await, (all.len() as u64, requests(&all)));
}

async fn detail_goes_and_sums_stay(bench: Bench) {
    let store = &bench.store;
    let day_ms = 86_400_000;
    let now_ms = now_ms();
    let mut all = Vec::new();
    for (number, days_ago) in (0_u64..).zip([0, 1, 3, 5, 200, 400]) {
        let time_ms = now_ms - days_ago * day_ms;
        all.extend((0..2_500).map(|offset| row("n1", number, offset, time_ms)));
    }
    for part in all.chunks(1_000) {
        assert_eq!(store.add_usage(part).await, Ok(1_000));
    }
    let (_, requests) = check_sums(&bench).await;
    let count = "SELECT CAST(count(*) AS TEXT) FROM usage_logs";
    let sums = "SELECT CAST(sum(requests) AS TEXT) FROM usage_minutes";
    for (before_ms, left) in [
        (0, "15000"),
        (now_ms - 300 * day_ms, "12500"),
        // Exactly at the edge: what is of that ms stays.
        (now_ms - 5 * day_ms, "10000"),
        (now_ms - 5 * day_ms + 1, "7500"),
        (now_ms - 2 * day_ms, "5000"),
        (now_ms + day_ms, "0"),
    ] {
        let mut steps = 0;
        while store.prune_usage(before_ms).await.expect("pruned") > 0 {
            steps += 1;
            assert!(steps < 50, "no end");
        }
        assert_eq!(bench.ask(count).await, left, "{before_ms}");
        assert_eq!(bench.ask(sums).await, requests.to_string());
    }
    // Afterwards as before: rows come, and go where they belong.
    let new = rows("n9", 1, 0, 1_200);
    assert_eq!(store.commit_usage(span("n9", 1, 0, 1_200), &new).await, Ok(Committed::Done));
    assert_eq!(bench.ask(count).await, "1200");
    // A position goes when nobody touched it for long, but not that of a node's newest segment.
    let other = rows("n9", 2, 0, 10);
    assert_eq!(store.commit_usage(span("n9", 2, 0, 10), &other).await, Ok(Committed::Done));
    if bench.sql("UPDATE usage_cursors SET last_time_ms = 5").await.is_some() {
        assert_eq!(store.prune_usage(0).await, Ok(0));
        assert_eq!(store.usage_position("n9", 1).await, Ok(0));
        assert_eq!(store.usage_position("n9", 2).await, Ok(10));
        assert_eq!(store.commit_usage(span("n9", 2, 0, 10), &other).await, Ok(Committed::Elsewhere(10)));
    }
}
