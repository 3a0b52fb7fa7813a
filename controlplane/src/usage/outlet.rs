//! Where journaled records go: the database, or the queue before it.

use crate::store::UsageRow;
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Rows in one delivery of a quiet node: the micro-batch of the replaced system, at most every 100 ms. A node with more
/// waiting sends larger ones.
pub const BATCH_ROWS: usize = 300;

/// Rows in one delivery at most: 20,000 × about 100 bytes are 2 MB, and well within one call's time.
pub const BATCH_ROWS_MAX: usize = 20_000;

/// Time between two deliveries of a quiet node: the replaced system's.
pub const PACE: Duration = Duration::from_millis(100);

/// Records of one segment of a node's journal, from `from` up to and without `to`; places are counted in records.
///
/// Between them places may be missing: records that were found damaged.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The node that counted them, as the segment's head names it.
    pub node: Arc<str>,
    /// The segment.
    pub segment: u64,
    /// Place of the first record, counted from 0.
    pub from: u64,
    /// Place behind the last.
    pub to: u64,
    /// The records, by place. May be empty where all are damaged.
    pub rows: Vec<UsageRow>,
}

/// Why a delivery was not taken. No text holds a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutletError {
    /// It is away, or did not answer in time: what was sent may have arrived. The same delivery is tried again.
    Away(String),
    /// It answered, and will not take this as it is; tried again all the same, more seldom, because nothing is thrown
    /// away.
    Refused(String),
}

impl fmt::Display for OutletError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(why) | Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for OutletError {}

/// Where records are delivered to.
#[async_trait]
pub trait Outlet: Send + Sync {
    /// `database` or `queue`.
    fn kind(&self) -> &'static str;

    /// Time between two deliveries while little waits.
    fn pace(&self) -> Duration {
        PACE
    }

    /// Rows in one delivery at most, 1 ..= [`BATCH_ROWS_MAX`].
    fn rows_max(&self) -> usize {
        BATCH_ROWS_MAX
    }

    /// From which place of the segment on it wants records; 0 when it has none of it. `None`: it does not know, and
    /// this node's own mark counts.
    async fn position(&self, node: &str, segment: u64) -> Result<Option<u64>, OutletError>;

    /// Takes the records, all or none; from which place on it wants the next, which is beyond `delivery.to` when
    /// somebody has delivered in between.
    async fn deliver(&self, delivery: &Delivery) -> Result<u64, OutletError>;
}
