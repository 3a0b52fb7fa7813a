//! What has come: told in an order that nothing comes before, each row at least once, until it is too old to be told.

use super::usage_days::as_owner;
use super::usage_write::{now_ms, rows, span};
use super::{Bench, new_key, on_every_store};
use crate::store::SyncRead as _;
use crate::store::postgres::PgStore;
use crate::store::{ArrivalMark, ArrivedSpan, Committed, PAGE_MAX, ReportLog, SyncMarks, UsageLine, WitnessMarks};
use sqlx::Connection as _;
use sqlx::postgres::PgConnectOptions;
use std::collections::BTreeSet;
use std::str::FromStr as _;
use std::time::Duration;
use tokio::time::{Instant, sleep};

on_every_store!(
    rows_are_told_of_once_they_have_come,
    nothing_is_told_of_that_changes_nothing,
    reports_are_told_of_in_order,
    what_is_old_is_told_of_no_more,
    what_came_last_is_told_the_same_until_it_goes,
    keys_are_found_by_their_numbers,
);

/// Waits until everything that has come is below the bound: transactions of other tests may hold it back on a server.
async fn marks(bench: &Bench, is_past: impl Fn(&SyncMarks) -> bool) -> SyncMarks {
    let deadline = Instant::now() + harness::PATIENCE;
    loop {
        let marks = bench.store.sync_marks().await.expect("marks");
        if is_past(&marks) {
            return marks;
        }
        assert!(Instant::now() < deadline, "a bound that stays behind: {marks:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn last_arrival(bench: &Bench) -> i64 {
    let last = bench.ask("SELECT CAST(coalesce(max(change), 0) AS TEXT) FROM usage_arrivals").await;
    last.parse().expect("a number")
}

async fn all_arrivals(bench: &Bench) -> Vec<ArrivedSpan> {
    let last = last_arrival(bench).await;
    let marks = marks(bench, |marks| marks.usage > last).await;
    bench.store.usage_arrivals(&ArrivalMark::before(0), marks.usage, PAGE_MAX).await.expect("arrivals")
}

async fn arrived(bench: &Bench, after: &ArrivalMark, to: &ArrivalMark, from_ms: u64) -> BTreeSet<(String, u64, u64)> {
    let lines = bench.store.usage_arrived(after, to, from_ms).await.expect("rows");
    let place = |line: &UsageLine| (line.node.to_string(), line.segment, line.offset);
    lines.iter().map(place).collect()
}

fn places(node: &str, segment: u64, offsets: impl Iterator<Item = u64>) -> BTreeSet<(String, u64, u64)> {
    offsets.map(|offset| (node.to_owned(), segment, offset)).collect()
}

async fn rows_are_told_of_once_they_have_come(bench: Bench) {
    let store = &bench.store;
    assert_eq!(all_arrivals(&bench).await, []);
    assert_eq!(store.commit_usage(span("n1", 7, 0, 40), &rows("n1", 7, 0, 40)).await, Ok(Committed::Done));
    let first = all_arrivals(&bench).await;
    assert_eq!(first.iter().map(|span| span.rows).sum::<u64>(), 40);
    let (begin, last) = (ArrivalMark::before(0), &first[first.len() - 1].mark);
    assert_eq!(arrived(&bench, &begin, last, 0).await, places("n1", 7, 0..40));
    // Far apart in one batch: told of apart. Enough of them for the other way to write, and of another node.
    let mut batch = rows("n2", 8, 0, 1_500);
    batch.retain(|row| !(200..1_400).contains(&row.offset));
    batch.extend(rows("n3", 9, 5, 900));
    assert_eq!(store.add_usage(&batch).await, Ok(300 + 895));
    let spans = all_arrivals(&bench).await;
    assert!(spans[..first.len()] == first && spans.len() >= first.len() + 3, "{spans:?}");
    assert!(spans.windows(2).all(|pair| pair[0].mark < pair[1].mark), "{spans:?}");
    let (last, end) = (last.clone(), spans[spans.len() - 1].mark.clone());
    let mut expected = places("n2", 8, (0..200).chain(1_400..1_500));
    expected.extend(places("n3", 9, 5..900));
    assert_eq!(arrived(&bench, &last, &end, 0).await, expected);
    // Pages go on where the one before ended.
    let page = store.usage_arrivals(&last, i64::MAX, 1).await.expect("a page");
    assert_eq!(page, spans[first.len()..=first.len()]);
    assert_eq!(arrived(&bench, &end, &end, 0).await, BTreeSet::new());
    assert_eq!(arrived(&bench, &begin, &end, now_ms() + 3_600_000).await, BTreeSet::new(), "too old");
}

async fn nothing_is_told_of_that_changes_nothing(bench: Bench) {
    let store = &bench.store;
    let all = rows("n1", 7, 0, 30);
    let known = &all[..20];
    assert_eq!(store.add_usage(known).await, Ok(20));
    let before = all_arrivals(&bench).await;
    assert_eq!(store.add_usage(known).await, Ok(0));
    assert_eq!(store.commit_usage(span("n1", 7, 0, 20), known).await, Ok(Committed::Done));
    assert_eq!(store.commit_usage(span("n1", 7, 0, 20), known).await, Ok(Committed::Elsewhere(20)));
    assert_eq!(all_arrivals(&bench).await, before);
    // A part that is new brings the whole.
    assert_eq!(store.add_usage(&all[10..]).await, Ok(10));
    let spans = all_arrivals(&bench).await;
    let (after, to) = (&before[before.len() - 1].mark, &spans[spans.len() - 1].mark);
    assert_eq!(arrived(&bench, after, to, 0).await, places("n1", 7, 10..30));
}

fn report(number: u64) -> ReportLog {
    let text = |text: &str| text.to_owned();
    ReportLog {
        id: format!("id-{number:03}"),
        time_ms: now_ms(),
        key: 1,
        report: text("usage"),
        protocol: text("tcp"),
        format: text("csv"),
        query: text("asset=BTC"),
        status: 200,
        lines: 3,
        bytes: 99,
        took_ms: 7,
        complete: number.is_multiple_of(2),
        node: text("n1"),
    }
}

async fn reports_are_told_of_in_order(bench: Bench) {
    let store = &bench.store;
    // Numbers say nothing of when they come.
    for batch in [&[5, 6, 7][..], &[1], &[9, 2], &[5, 1]] {
        let reports: Vec<ReportLog> = batch.iter().map(|number| report(*number)).collect();
        store.log_reports(&reports).await.expect("noted");
    }
    let last = bench.ask("SELECT CAST(max(change) AS TEXT) FROM report_usage_logs").await;
    let last: i64 = last.parse().expect("a number");
    let bound = marks(&bench, |marks| marks.reports > last).await.reports;
    let (mut after, mut found) = ((0, String::new()), Vec::new());
    loop {
        let page = store.reports_arrived(&after, bound, 0, 2).await.expect("a page");
        let Some((change, report)) = page.last() else { break };
        after = (*change, report.id.clone());
        found.extend(page);
    }
    assert!(found.windows(2).all(|pair| (pair[0].0, &pair[0].1.id) < (pair[1].0, &pair[1].1.id)));
    let ids: BTreeSet<&str> = found.iter().map(|(_, report)| report.id.as_str()).collect();
    assert_eq!((found.len(), ids.len()), (6, 6), "each once");
    assert_eq!(found.iter().find(|(_, found)| found.id == "id-006").map(|(_, found)| found.complete), Some(true));
    assert_eq!(store.reports_arrived(&(last, "zzz".to_owned()), bound, 0, 2).await, Ok(Vec::new()));
    assert_eq!(store.reports_arrived(&(0, String::new()), bound, now_ms() + 3_600_000, 2).await, Ok(Vec::new()));
}

async fn what_is_old_is_told_of_no_more(bench: Bench) {
    let store = &bench.store;
    assert_eq!(store.add_usage(&rows("n1", 7, 0, 20)).await, Ok(20));
    store.prune_usage(1).await.expect("pruned");
    assert_eq!(all_arrivals(&bench).await.len(), 1, "it is not old");
    assert_eq!(store.sync_marks().await.expect("marks").pruned, 0);
    let last = last_arrival(&bench).await;
    let nine_days = "UPDATE usage_arrivals SET arrived_ms = arrived_ms - 777600000";
    if bench.sql(nine_days).await.is_none() {
        return;
    }
    assert_eq!(store.prune_usage(1).await, Ok(1));
    assert_eq!(store.prune_usage(1).await, Ok(0));
    assert_eq!(all_arrivals(&bench).await, []);
    assert_eq!(store.sync_marks().await.expect("marks").pruned, last);
}

async fn what_came_last_is_told_the_same_until_it_goes(bench: Bench) {
    let store = &bench.store;
    let none = WitnessMarks { usage: i64::MAX, reports: i64::MAX, audit: i64::MAX };
    let nothing = store.sync_witness(&none).await.expect("a witness");
    assert_eq!(nothing.audit, 0);
    let come = async |number: u8| {
        let from = 20 * u64::from(number);
        assert_eq!(store.add_usage(&rows("n1", 7, from, from + 20)).await, Ok(20));
        store.log_reports(&[report(number.into())]).await.expect("noted");
        store.create_key(&new_key(number), None, &super::audit("key.create")).await.expect("a key");
    };
    come(1).await;
    let last: i64 =
        bench.ask("SELECT CAST(max(change) AS TEXT) FROM report_usage_logs").await.parse().expect("a number");
    let arrival = last_arrival(&bench).await;
    let marks = marks(&bench, |marks| marks.usage > arrival && marks.reports > last).await;
    let first = store.sync_witness(&none).await.expect("a witness");
    assert!(first.text != nothing.text && first.audit > 0);
    let below = WitnessMarks { usage: marks.usage, reports: marks.reports, audit: first.audit };
    assert_eq!(store.sync_witness(&below).await.as_ref(), Ok(&first));
    come(2).await;
    assert_eq!(store.sync_witness(&below).await.as_ref(), Ok(&first), "what comes later does not matter");
    assert_ne!(store.sync_witness(&none).await.as_ref(), Ok(&first));
    if bench.sql("DELETE FROM usage_arrivals WHERE to_place < 40").await.is_some() {
        assert_ne!(store.sync_witness(&below).await.as_ref(), Ok(&first));
    }
}

async fn keys_are_found_by_their_numbers(bench: Bench) {
    let store = &bench.store;
    let before = store.sync_marks().await.expect("marks");
    for number in 1..=3 {
        store.create_key(&new_key(number), None, &super::audit("key.create")).await.expect("a key");
    }
    let mut found = store.key_hashes(&[3, 1, 99, 0]).await.expect("hashes");
    found.sort_unstable();
    assert_eq!(found, [(1, [1; 32]), (3, [3; 32])]);
    assert_eq!(store.key_hashes(&[]).await, Ok(Vec::new()));
    let after = store.sync_marks().await.expect("marks");
    assert_eq!((after.keys, &after.identity), (store.pulse().await.expect("a pulse").keys, &before.identity));
    assert!(after.keys > before.keys && before.identity.len() >= 32);
}

/// A server need not say which cluster it is; everything else is told all the same.
#[tokio::test]
async fn a_user_who_may_not_ask_for_the_cluster() {
    let bench = Bench::server().await;
    let url = bench.url().expect("an address");
    let name = format!("copier_{}", url.rsplit('/').next().expect("a name"));
    let rights = format!(
        "CREATE ROLE {name} LOGIN PASSWORD 'p'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}; REVOKE EXECUTE ON \
         FUNCTION pg_control_system() FROM PUBLIC"
    );
    as_owner(&bench, rights).await.close().await.expect("an end");
    let whole = bench.store.sync_marks().await.expect("marks").identity;
    let cluster = bench.ask("SELECT system_identifier::text FROM pg_control_system()").await;
    let of_the_user = PgStore::lazy(PgConnectOptions::from_str(url).expect("an address").username(&name).password("p"));
    let marks = of_the_user.sync_marks().await.expect("marks");
    assert_eq!(whole.strip_suffix(&cluster), Some(&*marks.identity));
}
