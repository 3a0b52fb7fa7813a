//! What stands above the table of a report that is a page to read: what it is about, its sums, and the chart.

use crate::reports::format::{BARS_MAX, Bar, Opening};
use crate::reports::query::{Interval, ReportQuery};
use crate::reports::source::page;
use crate::reports::summary::{self, Summary};
use crate::store::{Store, Stored};

/// Intervals, with their usual lengths, ms.
const INTERVALS: [(Interval, u64); 3] =
    [(Interval::Minute, 60_000), (Interval::Hour, 3_600_000), (Interval::Day, 86_400_000)];

/// Intervals that the chart reads at most: the days of ten years, and some.
const INTERVALS_MAX: usize = 4_000;

/// Statuses that are named among the sums; the report itself has all of them.
const STATUSES_MAX: usize = 8;

/// Above the lines that `query` asks for.
pub(super) async fn of_lines(store: &dyn Store, query: &ReportQuery) -> Stored<Opening> {
    let summary = summary::read(store, query).await?;
    of_summary(store, query, &summary).await
}

/// Above a summary.
pub(super) async fn of_summary(store: &dyn Store, query: &ReportQuery, summary: &Summary) -> Stored<Opening> {
    let filter = &query.filter;
    let (from_ms, to_ms) = (filter.from_ms, filter.to_ms);
    let shown = |time_ms| query.zone.rfc3339(time_ms);
    let range = format!("{} to {} ({})", shown(from_ms), shown(to_ms), query.zone);
    let whose = filter.key.map_or_else(|| "every key".to_owned(), |key| format!("key {key}"));
    let mut facts = vec![("range".to_owned(), range), ("whose".to_owned(), whose)];
    let chosen =
        [("asset", &filter.asset), ("protocol", &filter.protocol), ("tier", &filter.tier), ("node", &filter.node)];
    facts.extend(chosen.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))));
    facts.extend(filter.status.map(|status| ("status".to_owned(), status.to_string())));
    let mut sums = vec![("requests".to_owned(), summary.requests)];
    sums.extend(summary.by_protocol.iter().map(|(name, sum)| (format!("over {name}"), *sum)));
    sums.extend(summary.by_status.iter().take(STATUSES_MAX).map(|(name, sum)| (format!("status {name}"), *sum)));
    sums.push(("a minute, at most".to_owned(), summary.per_minute.max));
    let bars = bars(store, query).await?;
    let title = format!("Trinity Beast: {} report", query.report.name());
    Ok(Opening { title, facts, sums, range_ms: (from_ms, to_ms), bars, zone: query.zone.clone() })
}

/// The requests of the range in bars: of the shortest interval that gives few enough, or of several days each.
async fn bars(store: &dyn Store, query: &ReportQuery) -> Stored<Vec<Bar>> {
    let (from_ms, to_ms) = (query.filter.from_ms, query.filter.to_ms);
    let length_ms = to_ms.saturating_sub(from_ms);
    let few = INTERVALS.iter().find(|(_, interval_ms)| length_ms <= interval_ms * BARS_MAX);
    let (interval, interval_ms) = *few.unwrap_or(&INTERVALS[2]);
    let asked = ReportQuery {
        groups: Vec::new(),
        interval: Some(interval),
        limit: None,
        cursor: None,
        format: None,
        ..query.clone()
    };
    let lines = page(store, &asked, INTERVALS_MAX).await?.lines;
    let bar_ms = interval_ms * length_ms.div_ceil(interval_ms * BARS_MAX).max(1);
    let mut bars: Vec<Bar> = Vec::new();
    for line in lines {
        let end_ms = line.time_ms + interval_ms;
        match bars.last_mut() {
            Some(bar) if end_ms <= bar.from_ms + bar_ms => {
                bar.requests = bar.requests.saturating_add(line.requests);
                bar.to_ms = end_ms;
            }
            _ => bars.push(Bar { from_ms: line.time_ms, to_ms: end_ms, requests: line.requests }),
        }
    }
    Ok(bars)
}
