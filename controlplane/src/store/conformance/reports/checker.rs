//! Random rows, and what a report over them must say: made from the rows one by one, without sums, pieces or pages.

use crate::reports::lines::Column;
use crate::reports::query::{Asking, Fault, Interval, Report, ReportQuery, Scope};
use crate::reports::summary::{Percentiles, Summary, TopAsset, TopKey};
use crate::store::{Store, UsageFilter, UsageLine, UsageRow};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use shared::usage::UsageRecord;
use std::collections::BTreeMap;

/// Parameters, as a test writes them.
pub type Pairs = Vec<(&'static str, String)>;

pub const fn asking(scope: Scope, now_ms: u64, retention_days: u64) -> Asking {
    Asking { scope, now_ms, retention_days }
}

pub fn parse(pairs: &[(&str, String)], asking: &Asking) -> Result<ReportQuery, Vec<Fault>> {
    let pairs: Vec<(String, String)> = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    ReportQuery::parse(Report::Usage, &pairs, asking)
}

/// A query of lines that is good, at a time when all is kept.
pub fn query(pairs: &[(&str, String)], scope: Scope) -> ReportQuery {
    parse(pairs, &asking(scope, super::HOWE_BACK_MS + 10, 3_650)).expect("a good query")
}

pub fn summary(pairs: &[(&str, String)], asking: &Asking) -> ReportQuery {
    let pairs: Vec<(String, String)> = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    ReportQuery::parse(Report::Summary, &pairs, asking).expect("a good query")
}

/// Rows that are in a store, as a report shows them.
pub struct Model {
    random: StdRng,
    middle_ms: u64,
    around_ms: u64,
    lines: Vec<UsageLine>,
    rows: u64,
}

impl Model {
    /// Rows will lie less than `around_ms` from `middle_ms`, many of them near it.
    pub fn new(seed: u64, middle_ms: u64, around_ms: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), middle_ms, around_ms, lines: Vec::new(), rows: 0 }
    }

    pub fn any_time(&mut self) -> u64 {
        // Some near the middle, some on the full minute or hour.
        let around_ms = if self.random.random_bool(0.3) { 3 * 60 * 60 * 1_000 } else { self.around_ms };
        let time_ms = self.middle_ms - around_ms + self.random.random_range(0..2 * around_ms);
        let step_ms = [1, 1, 1, 60_000, 3_600_000][self.random.random_range(0..5)];
        (time_ms - time_ms % step_ms).max(self.middle_ms - self.around_ms)
    }

    fn any<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.random_range(0..of.len())]
    }

    /// Adds rows to a store and to this.
    pub async fn fill(&mut self, store: &dyn Store, count: usize) {
        let rows: Vec<UsageRow> = (0..count).map(|_| self.any_row()).collect();
        for rows in rows.chunks(1_000) {
            assert_eq!(store.add_usage(rows).await, Ok(rows.len() as u64));
        }
        self.lines.extend(rows.iter().map(|row| UsageLine {
            time_ms: row.record.first_time_ms,
            key: row.record.key,
            asset: row.asset().into(),
            protocol: row.protocol().into(),
            endpoint: row.endpoint().into(),
            status: row.record.status,
            tier: row.tier().into(),
            node: row.node.as_ref().into(),
            requests: row.record.requests,
            segment: row.segment,
            offset: row.offset,
        }));
    }

    fn any_row(&mut self) -> UsageRow {
        let mut asset = [0; 16];
        let name = self.any(&["BTC", "ETH", "SOL", "A234567890123456", ""]);
        asset[..name.len()].copy_from_slice(name.as_bytes());
        let time_ms = self.any_time();
        self.rows += 1;
        let record = UsageRecord {
            first_time_ms: time_ms,
            last_time_ms: time_ms,
            requests: self.any(&[1, 1, 1, 2, 300]),
            asset,
            key: self.any(&[0, 1, 2, u32::MAX]),
            status: self.any(&[200, 200, 404, 429]),
            protocol: self.any(&[0, 1]),
            endpoint: self.any(&[0, 1, 2, 3]),
            tier: self.any(&[0, 1, 2]),
            ..UsageRecord::default()
        };
        let node = self.any(&["north", "Süd", "south"]);
        UsageRow { node: node.into(), segment: self.middle_ms, offset: self.rows, record }
    }

    /// The range of all rows.
    pub fn whole(&self) -> Pairs {
        let bounds = [self.middle_ms - self.around_ms, self.middle_ms + self.around_ms];
        ["from", "to"].into_iter().zip(bounds.map(|bound| bound.to_string())).collect()
    }

    /// Any query of lines, and who asks it.
    pub fn any_query(&mut self) -> (Pairs, Scope) {
        let (one, two) = (self.any_time(), self.any_time());
        let mut pairs = vec![("from", one.min(two).to_string()), ("to", (one.max(two) + 1).to_string())];
        for (name, values) in [
            ("asset", &["BTC", "xbt", "NOPE", "", "", "", "", ""][..]),
            ("protocol", &["tcp", "udp", "", "", "", ""]),
            ("status", &["200", "404", "", "", "", ""]),
            ("tier", &["local", "rest", "", "", "", ""]),
            ("node", &["Süd", "", "", "", ""]),
            ("group_by", &["key", "node,asset", "status,protocol,tier", "asset,key,node,tier,status,protocol", "", ""]),
            ("interval", &["minute", "hour", "day", "", "", ""]),
            ("tz", &["Europe/Berlin", "Asia/Kolkata", "-03:30", "+14:00", "", ""]),
        ] {
            let value = self.any(values);
            if !value.is_empty() {
                pairs.push((name, value.to_owned()));
            }
        }
        let scope = self.any(&[Scope::Admin, Scope::Admin, Scope::Own(1)]);
        if scope == Scope::Admin && self.random.random_bool(0.2) {
            pairs.push(("key_id", "2".to_owned()));
        }
        (pairs, scope)
    }

    fn fitting<'a>(&'a self, filter: &'a UsageFilter) -> impl Iterator<Item = &'a UsageLine> {
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
        self.lines.iter().filter(move |line| {
            (filter.from_ms..filter.to_ms).contains(&line.time_ms)
                && filter.key.is_none_or(|key| key == line.key)
                && filter.status.is_none_or(|status| status == line.status)
                && is(&filter.asset, &line.asset)
                && is(&filter.protocol, &line.protocol)
                && is(&filter.tier, &line.tier)
                && is(&filter.node, &line.node)
        })
    }

    /// The lines of a report.
    pub fn expected(&self, query: &ReportQuery) -> Vec<UsageLine> {
        let mut lines: BTreeMap<_, UsageLine> = BTreeMap::new();
        for row in self.fitting(&query.filter) {
            let line = if query.is_grouped() { group(row, query) } else { row.clone() };
            let UsageLine { asset, protocol, tier, node, .. } = line.clone();
            let group = (line.key, asset, protocol, line.status, tier, node.clone());
            let place = (line.time_ms, query.is_grouped().then_some(group), node, line.segment, line.offset);
            let sum = lines.entry(place).or_insert_with(|| UsageLine { requests: 0, ..line });
            sum.requests += row.requests;
        }
        lines.into_values().collect()
    }

    /// The summary of a report, with detail from `kept_ms` on.
    pub fn summary(&self, query: &ReportQuery, kept_ms: u64) -> Summary {
        let rows: Vec<&UsageLine> = self.fitting(&query.filter).collect();
        let (from_ms, to_ms) = (query.filter.from_ms, query.filter.to_ms);
        let minutes = if to_ms - from_ms > 7 * 24 * 60 * 60 * 1_000 { 60 } else { 1 };
        let told_ms = |time_ms: u64| if time_ms < kept_ms { time_ms - time_ms % 60_000 } else { time_ms };
        let times = || rows.iter().map(|row| row.time_ms);
        let total = |name: fn(&UsageLine) -> String| {
            let mut totals = BTreeMap::new();
            for row in &rows {
                *totals.entry(name(row)).or_insert(0) += row.requests;
            }
            totals
        };
        let top = |name: fn(&UsageLine) -> String| {
            let mut top: Vec<(String, u64)> = total(name).into_iter().collect();
            top.sort_by_key(|(_, requests)| u64::MAX - requests);
            top
        };
        let assets = top(|row| row.asset.to_string()).into_iter();
        // By number, where two asked as often: ten digits sort as numbers do.
        let keys = top(|row| format!("{:010}", row.key)).into_iter();
        Summary {
            report: "summary",
            from_ms,
            to_ms,
            requests: rows.iter().map(|row| row.requests).sum(),
            first_time_ms: times().min().map(told_ms),
            last_time_ms: times().max().map(told_ms),
            by_protocol: total(|row| row.protocol.to_string()),
            by_status: total(|row| row.status.to_string()),
            by_tier: total(|row| row.tier.to_string()),
            per_minute: percentiles(&rows, (from_ms, to_ms), minutes),
            top_assets: assets.map(|(asset, requests)| TopAsset { asset, requests }).collect(),
            top_keys: query.filter.key.is_none().then(|| {
                let key = |name: String| name.parse().expect("a number");
                keys.map(|(name, requests)| TopKey { key_id: key(name), requests }).collect()
            }),
        }
    }
}

/// The line of sums that a row is part of.
fn group(row: &UsageLine, query: &ReportQuery) -> UsageLine {
    let mut line = UsageLine { time_ms: interval_begin(row.time_ms, query), ..UsageLine::default() };
    for column in &query.groups {
        match column {
            Column::Key => line.key = row.key,
            Column::Asset => line.asset = row.asset.clone(),
            Column::Protocol => line.protocol = row.protocol.clone(),
            Column::Status => line.status = row.status,
            Column::Tier => line.tier = row.tier.clone(),
            Column::Node => line.node = row.node.clone(),
            Column::Time | Column::Endpoint | Column::Requests => unreachable!("no group"),
        }
    }
    line
}

/// When a row's interval begins, by asking the clock on the wall.
fn interval_begin(time_ms: u64, query: &ReportQuery) -> u64 {
    let name = query.zone.name();
    let zone = TimeZone::get(name).unwrap_or_else(|_| {
        let (sign, digits) = name.split_at(1);
        let (hours, minutes) = digits.split_once(':').expect("an offset");
        let seconds = hours.parse::<i32>().expect("hours") * 3_600 + minutes.parse::<i32>().expect("minutes") * 60;
        TimeZone::fixed(
            jiff::tz::Offset::from_seconds(if sign == "-" { -seconds } else { seconds }).expect("an offset"),
        )
    });
    let ms = |time: Timestamp| u64::try_from(time.as_millisecond()).expect("after 1970");
    let time = Timestamp::from_millisecond(i64::try_from(time_ms).expect("before 9999")).expect("a time");
    let wall = time.to_zoned(zone.clone());
    match query.interval {
        None => 0,
        Some(Interval::Minute) => time_ms - time_ms % 60_000,
        Some(Interval::Day) => ms(wall.start_of_day().expect("a day").timestamp()),
        // Back in time minute by minute, for as long as the clock goes back too and shows the same hour.
        Some(Interval::Hour) => {
            let mut begin_ms = time_ms - time_ms % 60_000;
            let mut shown = wall.datetime();
            loop {
                let before = Timestamp::from_millisecond(i64::try_from(begin_ms - 1).expect("a time")).expect("a time");
                let before = before.to_zoned(zone.clone()).datetime();
                if before.hour() != shown.hour() || before > shown {
                    return begin_ms;
                }
                shown = before;
                begin_ms -= 60_000;
            }
        }
    }
}

/// Requests per minute, counted minute by minute or hour by hour.
fn percentiles(rows: &[&UsageLine], (from_ms, to_ms): (u64, u64), minutes: u64) -> Percentiles {
    let step_ms = minutes * 60_000;
    let mut counts: BTreeMap<u64, u64> = (from_ms / step_ms..to_ms.div_ceil(step_ms)).map(|step| (step, 0)).collect();
    for row in rows {
        *counts.get_mut(&(row.time_ms / step_ms)).expect("within the range") += row.requests;
    }
    let mut counts: Vec<u64> = counts.into_values().map(|count| count / minutes).collect();
    counts.sort_unstable();
    let at = |percent: usize| counts[(counts.len() * percent).div_ceil(100) - 1];
    Percentiles { p50: at(50), p90: at(90), p99: at(99), max: at(100), minutes }
}
