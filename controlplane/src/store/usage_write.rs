//! What a store takes of usage: rows, each exactly once, and the totals that are kept of them.

use super::Stored;
use async_trait::async_trait;
use shared::tick::Tier;
use shared::usage::{Endpoint, PROTOCOL_TCP, PROTOCOL_UDP, UsageRecord};
use std::sync::Arc;

/// A usage record with its place in its node's journal, which is unique for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The node that counted it.
    pub node: Arc<str>,
    /// The segment of its journal, below 2^63.
    pub segment: u64,
    /// Place in the segment, counted in records from 0.
    pub offset: u64,
    /// The record.
    pub record: UsageRecord,
}

impl UsageRow {
    /// The asset as in reports; empty where none is named.
    #[must_use]
    pub fn asset(&self) -> &str {
        let bytes = &self.record.asset;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).unwrap_or_default()
    }

    /// The protocol as in reports.
    #[must_use]
    pub const fn protocol(&self) -> &'static str {
        match self.record.protocol {
            PROTOCOL_TCP => "tcp",
            PROTOCOL_UDP => "udp",
            _ => "other",
        }
    }

    /// The interface as in reports.
    #[must_use]
    pub fn endpoint(&self) -> &'static str {
        Endpoint::from_number(self.record.endpoint).name()
    }

    /// The tier as in reports.
    #[must_use]
    pub fn tier(&self) -> &'static str {
        Tier::from_number(self.record.tier).unwrap_or(Tier::Local).name()
    }
}

/// Places of one segment, from `from` up to and without `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageSpan<'a> {
    /// The node.
    pub node: &'a str,
    /// The segment.
    pub segment: u64,
    /// The first place.
    pub from: u64,
    /// The place behind the last.
    pub to: u64,
}

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Its rows and the segment's new position stand.
    Done,
    /// Nothing was changed: the segment's position is not where the span begins but here. A lost answer's second try
    /// finds it behind its span.
    Elsewhere(u64),
}

/// The writing side of usage in a store. Every row counts in the rollups exactly once.
#[async_trait]
pub trait UsageWrite: Send + Sync {
    /// From which place on a segment's records are not committed; 0 when none is.
    async fn usage_position(&self, node: &str, segment: u64) -> Stored<u64>;

    /// Commits the rows of a span, their totals and the segment's new position in one transaction, if the segment
    /// stands where the span begins. Rows that came another way (through the queue) are not counted twice. At most
    /// [`crate::usage::outlet::BATCH_ROWS_MAX`] rows.
    async fn commit_usage(&self, span: UsageSpan<'_>, rows: &[UsageRow]) -> Stored<Committed>;

    /// Commits rows of any nodes in any order, of which some may be there already; how many were not. At most
    /// [`crate::usage::outlet::BATCH_ROWS_MAX`] rows. A row that was there and has been pruned since is not known any
    /// more: a queue must not tell again what is older than the retention, and does not, because where there is one the
    /// settings refuse a retention below SQS's longest, 14 days.
    async fn add_usage(&self, rows: &[UsageRow]) -> Stored<u64>;

    /// Removes detail older than `before_ms` (Unix ms), which the caller made from this machine's clock, a bounded part of
    /// it: a whole day's partition on PostgreSQL, whose rows are then an estimate, or 10,000 rows. How many went; 0 when
    /// none is left, or another process is at it, or a report reads it at the moment. Rollups stay. A server whose clock
    /// is more than a minute behind goes by its own. `Invalid` where the database's user may not.
    async fn prune_usage(&self, before_ms: u64) -> Stored<u64>;
}
