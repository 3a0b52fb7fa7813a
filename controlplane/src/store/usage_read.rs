//! What a store tells of usage: detail by time, sums by group, and the trail of reports.

use super::{StoreError, Stored};
use async_trait::async_trait;
use serde::Serialize;
use std::sync::Arc;

/// Which rows a report is about. Every part that is set must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// From this time on, Unix ms.
    pub from_ms: u64,
    /// Up to and without this time, Unix ms.
    pub to_ms: u64,
    /// Whose.
    pub key: Option<u32>,
    /// About which asset, in upper case.
    pub asset: Option<String>,
    /// `tcp` or `udp`.
    pub protocol: Option<String>,
    /// HTTP status.
    pub status: Option<u16>,
    /// Tier of the answer: `local`, `valkey`, `rest`.
    pub tier: Option<String>,
    /// The node.
    pub node: Option<String>,
}

/// One row of detail. Its texts are few different ones: shared, not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageLine {
    /// When its window began, Unix ms.
    pub time_ms: u64,
    /// Whose; 0 for nobody.
    pub key: u32,
    /// Asset; empty for none.
    pub asset: Arc<str>,
    /// `tcp` or `udp`.
    pub protocol: Arc<str>,
    /// Which interface.
    pub endpoint: Arc<str>,
    /// HTTP status.
    pub status: u16,
    /// Tier of the answer.
    pub tier: Arc<str>,
    /// The node.
    pub node: Arc<str>,
    /// Requests, at least 1.
    pub requests: u64,
    /// Segment of the node's journal.
    pub segment: u64,
    /// Place in it.
    pub offset: u64,
}

/// Where a page of detail ended: lines are in the order of time, node, segment, offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageMark {
    /// Of the last line.
    pub time_ms: u64,
    /// Of the last line.
    pub node: String,
    /// Of the last line.
    pub segment: u64,
    /// Of the last line.
    pub offset: u64,
}

/// A report that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportLog {
    /// Its own number: a UUID, version 7.
    pub id: String,
    /// When it was asked for, Unix ms.
    pub time_ms: u64,
    /// Who asked: the key's number; 0 for the administrator.
    pub key: u32,
    /// `usage` or `summary`.
    pub report: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Its format.
    pub format: String,
    /// What it was about, as the query's text, without any key.
    pub query: String,
    /// HTTP status.
    pub status: u16,
    /// Lines sent.
    pub lines: u64,
    /// Bytes of the body, before any encoding.
    pub bytes: u64,
    /// How long it took, ms.
    pub took_ms: u64,
    /// Whether it was sent to its end.
    pub complete: bool,
    /// The node.
    pub node: String,
}

/// The reading side of usage in a store. Calls take longer than others: each says how long at most.
#[async_trait]
pub trait UsageRead: Send + Sync {
    /// Up to `limit` lines behind `after` (`None`: from the beginning), oldest first.
    async fn usage_page(
        &self,
        filter: &UsageFilter,
        after: Option<&UsageMark>,
        limit: usize,
    ) -> Stored<Vec<UsageLine>> {
        let _ = (filter, after, limit);
        Err(StoreError::Broken("not there yet".to_owned()))
    }

    /// Notes a report, once by its number.
    async fn log_report(&self, report: &ReportLog) -> Stored<()> {
        let _ = report;
        Err(StoreError::Broken("not there yet".to_owned()))
    }
}
