//! What a store tells of usage: detail by time, sums by group, and the trail of reports.

mod answer;
pub(super) mod report_log;
mod sql;
mod statement;
mod sync;

pub use self::sync::{ArrivalMark, ArrivedSpan, SyncMarks, SyncRead, Witness, WitnessMarks};

use super::Stored;
use async_trait::async_trait;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Whether it was made to its end, and all of it handed to the connection: how much of that arrived nobody knows.
    pub complete: bool,
    /// The node.
    pub node: String,
}

/// What lines of sums are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UsageField {
    /// The key.
    Key,
    /// The asset.
    Asset,
    /// `tcp` or `udp`.
    Protocol,
    /// HTTP status.
    Status,
    /// Tier of the answer.
    Tier,
    /// The node.
    Node,
}

/// Where sums are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageSource {
    /// Records.
    Rows,
    /// Sums per minute.
    Minutes,
    /// Sums per hour.
    Hours,
}

/// A part of a report's range, and which source its sums are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsagePiece {
    /// The source.
    pub source: UsageSource,
    /// From this time on, Unix ms: a bound of the source's own steps.
    pub from_ms: u64,
    /// Up to and without this time, Unix ms: a bound of the source's own steps.
    pub to_ms: u64,
    /// Where the first interval begins, Unix ms.
    pub base_ms: u64,
    /// Length of an interval, ms: what lies at `t` belongs to the one that begins at
    /// `base_ms + (t - base_ms) / step_ms * step_ms`.
    pub step_ms: u64,
    /// Whether it is taken away from the sums rather than added: another piece counted it.
    pub minus: bool,
}

/// In which order lines of sums come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageOrder {
    /// By time, if they have one, and then by their fields.
    Fields,
    /// Most requests first, then by their fields.
    Requests,
}

/// Which sums to make.
#[derive(Clone, Copy, Debug)]
pub struct UsageSums<'a> {
    /// Of which rows; its range is the pieces' affair.
    pub filter: &'a UsageFilter,
    /// Of which parts of time, [`PIECES_MAX`] at the most. All of them are read at one instant.
    pub pieces: &'a [UsagePiece],
    /// Whether each interval has lines of its own.
    pub timed: bool,
    /// What else lines are told apart by, in order, each once.
    pub fields: &'a [UsageField],
    /// The order.
    pub order: UsageOrder,
    /// Lines behind this one alone, in the order of fields.
    pub after: Option<&'a UsageLine>,
    /// Lines at the most.
    pub limit: usize,
}

/// Pieces of one question for sums: each is a part of the statement.
pub const PIECES_MAX: usize = 64;

/// Longest that a call of a report may take, waiting for its turn and a connection included.
pub const REPORT_CALL_MAX: Duration = Duration::from_secs(40);

/// Longest that it waits for its turn. The rest is more than a server works at a statement before it gives up, so that a
/// slow report is not taken for a server that hangs.
pub const REPORT_TURN_MAX: Duration = Duration::from_secs(10);

/// Reports that read at the same time on one node, half as many from a file: further ones wait for their turn and are
/// [`super::StoreError::Busy`] after [`REPORT_TURN_MAX`], so that keys and usage always find a connection.
pub const REPORT_CALLS_MAX: usize = 4;

/// The same for a store of this [`super::Store::kind`]. A file has four connections, one of which must be left to whoever
/// writes, and one to keys.
#[must_use]
pub fn report_calls_max(kind: &str) -> usize {
    if kind == "postgres" { REPORT_CALLS_MAX } else { REPORT_CALLS_MAX / 2 }
}

/// The reading side of usage in a store. Its calls end within [`REPORT_CALL_MAX`], longer than others, and at most
/// [`REPORT_CALLS_MAX`] of them are at work at a time. One that is given up is stopped soon, and has its turn until then.
#[async_trait]
pub trait UsageRead: Send + Sync {
    /// Up to `limit` rows behind `after` (`None`: from the beginning), by time, node, segment and place.
    async fn usage_page(&self, filter: &UsageFilter, after: Option<&UsageMark>, limit: usize)
    -> Stored<Vec<UsageLine>>;

    /// Sums of requests, each above 0. Of a line what is not asked for is empty or 0: its time too.
    async fn usage_sums(&self, sums: &UsageSums<'_>) -> Stored<Vec<UsageLine>>;

    /// Times of the first and the last that fit of a source, Unix ms: of rows, or begins of minutes or hours that have
    /// any. `None` without any.
    async fn usage_ends(&self, source: UsageSource, filter: &UsageFilter) -> Stored<Option<(u64, u64)>>;

    /// Notes reports, each once by its number, all or none. Within [`super::CALL_MAX`].
    async fn log_reports(&self, reports: &[ReportLog]) -> Stored<()>;

    /// Up to `limit` reports of the log that came before `before` (`None`: the newest), newest first. Within
    /// [`super::CALL_MAX`].
    async fn report_page(&self, before: Option<&ReportMark>, limit: usize) -> Stored<Vec<ReportLog>>;
}

/// Where a page of the log of reports ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportMark {
    /// Of the last entry.
    pub time_ms: u64,
    /// Of the last entry.
    pub id: String,
}
