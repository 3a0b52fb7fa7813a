//! Reports, against what the rows themselves add up to.

mod checker;

use self::checker::{Model, asking, query};
use super::{Bench, on_every_store};
use crate::reports::query::{ReportQuery, Scope};
use crate::reports::source::{ReportSource, page};
use crate::reports::summary;
use crate::store::{ReportLog, ReportMark, Store, UsageLine};
use std::sync::Arc;

on_every_store!(
    any_report_is_what_its_rows_say,
    days_are_as_long_as_clocks_make_them,
    pages_are_whole_while_rows_come_in,
    a_stream_has_every_page,
    sums_outlive_their_rows,
    a_summary_is_what_its_rows_say,
    years_without_usage_take_no_time,
    nothing_makes_an_empty_report,
    reports_are_noted_once,
);

/// Sunday, 2026-10-25 01:00 UTC: clocks in Berlin go back by an hour.
const BERLIN_BACK_MS: u64 = 1_792_890_000_000;

/// Sunday, 2026-03-29 01:00 UTC: they go forward.
const BERLIN_ON_MS: u64 = 1_774_746_000_000;

/// Saturday, 2026-04-04 15:00 UTC: clocks on Lord Howe Island go back by half an hour.
const HOWE_BACK_MS: u64 = 1_775_314_800_000;

/// Saturday, 2026-10-03 15:30 UTC: they go forward.
const HOWE_ON_MS: u64 = 1_791_041_400_000;

/// Half of the time over which rows lie, ms.
const AROUND_MS: u64 = 2 * 24 * 60 * 60 * 1_000;

/// Every line of a report, `limit` at a time.
async fn all(store: &dyn Store, query: &ReportQuery, limit: usize) -> Vec<UsageLine> {
    let (mut query, mut lines) = (query.clone(), Vec::new());
    loop {
        let page = page(store, &query, limit).await.expect("a page");
        assert!(page.lines.len() <= limit);
        assert!(page.next.is_none() || page.lines.len() == limit, "a page before the last is full");
        lines.extend(page.lines);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return lines,
        }
    }
}

async fn any_report_is_what_its_rows_say(bench: Bench) {
    let mut model = Model::new(1, BERLIN_BACK_MS, AROUND_MS);
    model.fill(&*bench.store, 700).await;
    for round in 0..30 {
        let (pairs, scope) = model.any_query();
        let query = query(&pairs, scope);
        let limit = [3, 50, 1_000][round % 3];
        assert_eq!(all(&*bench.store, &query, limit).await, model.expected(&query), "{pairs:?}");
    }
}

async fn days_are_as_long_as_clocks_make_them(bench: Bench) {
    for (zone, at_ms) in [
        ("Europe/Berlin", BERLIN_BACK_MS),
        ("Europe/Berlin", BERLIN_ON_MS),
        ("Australia/Lord_Howe", HOWE_BACK_MS),
        ("Australia/Lord_Howe", HOWE_ON_MS),
        ("Asia/Kolkata", BERLIN_ON_MS - 10 * AROUND_MS),
        ("-03:30", BERLIN_ON_MS - 20 * AROUND_MS),
    ] {
        let mut model = Model::new(at_ms, at_ms, AROUND_MS);
        model.fill(&*bench.store, 150).await;
        // Rows of the other rounds are far away.
        let range = (model.any_time() - AROUND_MS / 8, at_ms + AROUND_MS);
        for interval in ["minute", "hour", "day"] {
            let range = [("from", range.0.to_string()), ("to", range.1.to_string())];
            let mut pairs: Vec<(&str, String)> = range.to_vec();
            pairs.extend([("tz", zone.to_owned()), ("interval", interval.to_owned())]);
            let query = query(&pairs, Scope::Admin);
            let lines = all(&*bench.store, &query, 1_000).await;
            assert!(!lines.is_empty());
            assert_eq!(lines, model.expected(&query), "{pairs:?}");
        }
    }
}

async fn pages_are_whole_while_rows_come_in(bench: Bench) {
    let mut model = Model::new(3, BERLIN_BACK_MS, AROUND_MS);
    model.fill(&*bench.store, 200).await;
    let query = query(&model.whole(), Scope::Admin);
    let before = model.expected(&query);
    let (mut asked, mut lines) = (query.clone(), Vec::new());
    loop {
        let page = page(&*bench.store, &asked, 17).await.expect("a page");
        lines.extend(page.lines);
        let Some(next) = page.next else { break };
        // As it travels.
        asked.cursor = Some(crate::reports::cursor::Cursor::read(&next.to_string()).expect("a cursor"));
        model.fill(&*bench.store, 10).await;
    }
    let place = |line: &UsageLine| (line.time_ms, line.node.clone(), line.segment, line.offset);
    assert!(lines.windows(2).all(|pair| place(&pair[0]) < place(&pair[1])), "in order, none twice");
    assert!(before.iter().all(|line| lines.contains(line)), "none left out that was there");
}

async fn a_stream_has_every_page(bench: Bench) {
    let mut model = Model::new(4, BERLIN_BACK_MS, AROUND_MS);
    model.fill(&*bench.store, 10_500).await;
    for more in [vec![], vec![("group_by", "key,asset,status,node".to_owned()), ("interval", "minute".to_owned())]] {
        let query = Arc::new(query(&[model.whole(), more].concat(), Scope::Admin));
        let mut source = ReportSource::new(Arc::clone(&bench.store), Arc::clone(&query));
        let (mut lines, mut pages) = (Vec::new(), 0);
        while let Some(page) = source.next_page().await.expect("a page") {
            lines.extend(page.lines);
            pages += 1;
        }
        assert!(lines == model.expected(&query), "{query}");
        assert_eq!(pages, 2);
        assert_eq!(source.next_page().await, Ok(None), "nothing behind the end");
    }
}

async fn sums_outlive_their_rows(bench: Bench) {
    let mut model = Model::new(5, BERLIN_BACK_MS, AROUND_MS);
    model.fill(&*bench.store, 300).await;
    let now_ms = BERLIN_BACK_MS + AROUND_MS;
    let kept_ms = now_ms - 24 * 60 * 60 * 1_000;
    while bench.store.prune_usage(kept_ms).await.expect("pruned") > 0 {}
    let (from_ms, to_ms) = (now_ms - AROUND_MS - 12_345, now_ms - 777);
    let pairs = |more: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        let range = [("from", from_ms.to_string()), ("to", to_ms.to_string())];
        range.into_iter().chain(more.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect()
    };
    let grouped = checker::parse(&pairs(&[("group_by", "asset")]), &asking(Scope::Admin, now_ms, 1)).expect("good");
    assert_eq!(grouped.asked_ms, (from_ms, to_ms));
    assert_eq!((grouped.filter.from_ms, grouped.filter.to_ms), (from_ms - from_ms % 60_000, to_ms));
    let sums = all(&*bench.store, &grouped, 1_000).await;
    assert!(!sums.is_empty());
    assert_eq!(sums, model.expected(&grouped), "exact for the range it tells");
    let detail = checker::parse(&pairs(&[]), &asking(Scope::Admin, now_ms, 1)).expect("good");
    assert_eq!((detail.filter.from_ms, detail.filter.to_ms), (kept_ms, to_ms));
    assert_eq!(all(&*bench.store, &detail, 1_000).await, model.expected(&detail));
    let summary = checker::summary(&pairs(&[]), &asking(Scope::Admin, now_ms, 1));
    let told = summary::read(&*bench.store, &summary).await.expect("a summary");
    assert_eq!(told, model.summary(&summary, kept_ms));
}

/// Ten years of minutes with three requests in them: 5,000,000 intervals, which nobody can ask for one by one.
async fn years_without_usage_take_no_time(bench: Bench) {
    let mut model = Model::new(8, BERLIN_BACK_MS, AROUND_MS);
    model.fill(&*bench.store, 3).await;
    let now_ms = BERLIN_BACK_MS + 2 * AROUND_MS;
    let range = [("from", now_ms - 3_650 * 24 * 60 * 60 * 1_000), ("to", now_ms)];
    let range: Vec<_> = range.into_iter().map(|(name, time_ms)| (name, time_ms.to_string())).collect();
    for (interval, limit) in [("minute", 1), ("minute", 1_000), ("hour", 2), ("day", 1)] {
        let more = vec![("interval", interval.to_owned()), ("tz", "Asia/Kolkata".to_owned())];
        let query = checker::parse(&[range.clone(), more].concat(), &asking(Scope::Admin, now_ms, 93)).expect("good");
        let lines = tokio::time::timeout(harness::PATIENCE, all(&*bench.store, &query, limit)).await;
        assert_eq!(lines.expect("few questions"), model.expected(&query), "{interval}");
    }
}

async fn a_summary_is_what_its_rows_say(bench: Bench) {
    let mut model = Model::new(6, BERLIN_BACK_MS, AROUND_MS);
    model.fill(&*bench.store, 400).await;
    let now_ms = BERLIN_BACK_MS + AROUND_MS;
    for (more, scope) in [
        (vec![], Scope::Admin),
        (vec![], Scope::Own(2)),
        (vec![("asset", "ETH".to_owned()), ("status", "200".to_owned())], Scope::Admin),
        (vec![("from", (BERLIN_BACK_MS - 6 * AROUND_MS + 1).to_string())], Scope::Admin),
    ] {
        let mut pairs = if more.iter().any(|(name, _)| *name == "from") { Vec::new() } else { model.whole() };
        pairs.extend(more);
        let query = checker::summary(&pairs, &asking(scope, now_ms, 93));
        let told = summary::read(&*bench.store, &query).await.expect("a summary");
        assert_eq!(told, model.summary(&query, 0), "{pairs:?}");
        assert_eq!(told.top_keys.is_some(), scope == Scope::Admin);
    }
}

async fn nothing_makes_an_empty_report(bench: Bench) {
    for pairs in [vec![], vec![("group_by", "key".to_owned())], vec![("interval", "hour".to_owned())]] {
        let query = query(&pairs, Scope::Own(7));
        assert_eq!(all(&*bench.store, &query, 10).await, []);
        let mut source = ReportSource::new(Arc::clone(&bench.store), Arc::new(query));
        assert_eq!(source.next_page().await, Ok(None));
    }
    let query = checker::summary(&[], &asking(Scope::Admin, BERLIN_ON_MS, 93));
    let told = summary::read(&*bench.store, &query).await.expect("a summary");
    assert_eq!((told.requests, told.first_time_ms, told.last_time_ms), (0, None, None));
}

async fn reports_are_noted_once(bench: Bench) {
    let report = |number: u64| ReportLog {
        id: format!("0199{number:04}"),
        time_ms: 1_793_500_000_000 + number / 2,
        key: 3,
        report: "usage".to_owned(),
        protocol: "tcp".to_owned(),
        format: "csv".to_owned(),
        query: "from=1&to=2".to_owned(),
        status: 200,
        lines: 10 * number,
        bytes: 100 * number,
        took_ms: 7,
        complete: number != 2,
        node: "north".to_owned(),
    };
    for numbers in [vec![1, 2], vec![3, 2, 4], vec![1], vec![]] {
        let reports: Vec<ReportLog> = numbers.into_iter().map(report).collect();
        bench.store.log_reports(&reports).await.expect("noted");
    }
    let mut odd = report(6);
    odd.query = "x".repeat(5_000);
    bench.store.log_reports(&[report(5), odd]).await.expect_err("a query that is too long");
    let mut all = bench.store.report_page(None, 2).await.expect("a page");
    assert_eq!(all.len(), 2);
    let mark = ReportMark { time_ms: all[1].time_ms, id: all[1].id.clone() };
    all.extend(bench.store.report_page(Some(&mark), 10).await.expect("a page"));
    assert_eq!(all, [4, 3, 2, 1].map(report));
    // A file's answers are not told.
    let counted = "SELECT reports || '/' || lines || '/' || bytes FROM report_count WHERE key_id = 3";
    if let Some(told) = bench.sql(counted).await.filter(|told| !told.is_empty()) {
        assert_eq!(told, "4/100/1000");
    }
    // They go with detail; what was counted of them stays.
    while bench.store.prune_usage(1_793_500_000_002).await.expect("pruned") > 0 {}
    assert_eq!(bench.store.report_page(None, 10).await.expect("a page"), [report(4)]);
    assert_eq!(bench.ask("SELECT CAST(sum(reports) AS TEXT) FROM report_count").await, "4");
}
