//! A report's totals: how much, of what kind, how it is spread over time, and about what most.

use super::groups;
use super::query::{Interval, Report, ReportQuery};
use super::source;
use super::zone::{DAY_MS, HOUR_MS, MINUTE_MS, Zone};
use crate::store::{Store, Stored, UsageField, UsageFilter, UsageLine, UsageOrder, UsageSource, UsageSums};
use serde::Serialize;
use std::collections::BTreeMap;

/// Assets, and keys, that a summary names.
pub const TOP_MAX: usize = 10;

/// Totals of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// `summary`.
    pub report: &'static str,
    /// The range that is covered, Unix ms.
    pub from_ms: u64,
    /// The same.
    pub to_ms: u64,
    /// Requests in all.
    pub requests: u64,
    /// When the first was, Unix ms: to the minute where records are not kept any more. `None` without any.
    pub first_time_ms: Option<u64>,
    /// When the last was, in the same way.
    pub last_time_ms: Option<u64>,
    /// Requests by protocol.
    pub by_protocol: BTreeMap<String, u64>,
    /// By HTTP status.
    pub by_status: BTreeMap<String, u64>,
    /// By tier.
    pub by_tier: BTreeMap<String, u64>,
    /// Requests per minute, those without any counted as 0.
    pub per_minute: Percentiles,
    /// The assets most asked for, the most first.
    pub top_assets: Vec<TopAsset>,
    /// The keys that asked most; for the administrator alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_keys: Option<Vec<TopKey>>,
}

/// Requests per minute: so many or fewer in that part of the minutes of the range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Half.
    pub p50: u64,
    /// Nine of ten.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// All.
    pub max: u64,
    /// Minutes that the sums behind these stand for: 1, or 60 in long ranges, where they are averages of hours.
    pub minutes: u64,
}

/// An asset and how often it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopAsset {
    /// The asset; empty for requests about none or several.
    pub asset: String,
    /// How many.
    pub requests: u64,
}

/// A key and how often it asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopKey {
    /// Its number.
    pub key_id: u32,
    /// How many.
    pub requests: u64,
}

/// Longest range of which requests per minute are taken minute by minute, ms: 7 days are 10,080 minutes.
const MINUTES_RANGE_MS_MAX: u64 = 7 * DAY_MS;

/// Lines of the kinds of requests: protocols × statuses × tiers there are.
const KINDS_MAX: usize = 10_000;

/// The summary that `query` asks for. Its parts are read one after the other: requests that are counted meanwhile may
/// stand in some of them.
///
/// # Errors
/// Of the store.
pub async fn read(store: &dyn Store, query: &ReportQuery) -> Stored<Summary> {
    use UsageField::{Asset, Key, Protocol, Status, Tier};
    let (from_ms, to_ms) = (query.filter.from_ms, query.filter.to_ms);
    let mut summary = Summary { report: Report::Summary.name(), from_ms, to_ms, ..Summary::default() };
    for line in sums(store, query, &[Protocol, Status, Tier], UsageOrder::Fields, KINDS_MAX).await? {
        summary.requests = summary.requests.saturating_add(line.requests);
        let names = [line.protocol.to_string(), line.status.to_string(), line.tier.to_string()];
        let totals = [&mut summary.by_protocol, &mut summary.by_status, &mut summary.by_tier];
        for (total, name) in totals.into_iter().zip(names) {
            let total = total.entry(name).or_default();
            *total = total.saturating_add(line.requests);
        }
    }
    let assets = sums(store, query, &[Asset], UsageOrder::Requests, TOP_MAX).await?;
    let top = |line: UsageLine| TopAsset { asset: line.asset.to_string(), requests: line.requests };
    summary.top_assets = assets.into_iter().map(top).collect();
    // Whoever sees one key's usage alone needs no list of it.
    if query.filter.key.is_none() {
        let keys = sums(store, query, &[Key], UsageOrder::Requests, TOP_MAX).await?;
        let top = |line: UsageLine| TopKey { key_id: line.key, requests: line.requests };
        summary.top_keys = Some(keys.into_iter().map(top).collect());
    }
    spread(store, query, &mut summary).await?;
    Ok(summary)
}

/// Sums over the whole range.
async fn sums(
    store: &dyn Store,
    query: &ReportQuery,
    fields: &[UsageField],
    order: UsageOrder,
    limit: usize,
) -> Stored<Vec<UsageLine>> {
    let (from_ms, to_ms) = (query.filter.from_ms, query.filter.to_ms);
    let pieces = groups::slice(None, &query.zone, from_ms, to_ms, 1).pieces;
    let (filter, pieces) = (&query.filter, pieces.as_slice());
    store.usage_sums(&UsageSums { filter, pieces, timed: false, fields, order, after: None, limit }).await
}

/// How requests are spread over time: by the minute, in long ranges by the hour.
async fn spread(store: &dyn Store, query: &ReportQuery, summary: &mut Summary) -> Stored<()> {
    let UsageFilter { from_ms, to_ms, .. } = query.filter;
    let (interval, minutes) = match to_ms - from_ms {
        0..=MINUTES_RANGE_MS_MAX => (Interval::Minute, 1),
        _ => (Interval::Hour, HOUR_MS / MINUTE_MS),
    };
    let step_ms = minutes * MINUTE_MS;
    // Hours are those of UTC here: which ones makes no difference to how many requests there were in a minute.
    let mut timed =
        ReportQuery { interval: Some(interval), groups: Vec::new(), cursor: None, zone: Zone::utc(), ..query.clone() };
    let mut counts = Vec::new();
    let mut ends: Option<(u64, u64)> = None;
    loop {
        let page = source::page(store, &timed, source::PAGE_LINES).await?;
        for line in &page.lines {
            counts.push(line.requests / minutes);
            ends = Some((ends.map_or(line.time_ms, |(first, _)| first), line.time_ms));
        }
        timed.cursor = page.next;
        if timed.cursor.is_none() {
            break;
        }
    }
    let all = to_ms.next_multiple_of(step_ms).saturating_sub(from_ms - from_ms % step_ms) / step_ms;
    summary.per_minute = percentiles(counts, all, minutes);
    if let Some((first_ms, last_ms)) = ends {
        let exact = |begin_ms: u64| UsageFilter {
            from_ms: begin_ms.max(from_ms),
            to_ms: (begin_ms + step_ms).min(to_ms),
            ..query.filter.clone()
        };
        let first = store.usage_ends(UsageSource::Rows, &exact(first_ms)).await?;
        let last = store.usage_ends(UsageSource::Rows, &exact(last_ms)).await?;
        summary.first_time_ms = Some(first.map_or(first_ms, |(first, _)| first));
        summary.last_time_ms = Some(last.map_or(last_ms, |(_, last)| last));
    }
    Ok(())
}

/// Percentiles of `counts`, and of as many zeros as are missing to `all`.
fn percentiles(mut counts: Vec<u64>, all: u64, minutes: u64) -> Percentiles {
    counts.sort_unstable();
    let zeros = all.saturating_sub(counts.len() as u64);
    let all = zeros + counts.len() as u64;
    let at = |percent: u64| {
        let rank = (all * percent).div_ceil(100).saturating_sub(1);
        let place = rank.checked_sub(zeros).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| counts.get(place)).copied().unwrap_or_default()
    };
    Percentiles { p50: at(50), p90: at(90), p99: at(99), max: at(100), minutes }
}
