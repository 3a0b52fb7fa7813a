//! The queue before the database: where rows go when `SQS_USAGE_LOG_QUEUE_URL` is set, and come from for `usage-writer`.
//!
//! [`outlet::QueueOutlet`] sends what the journal holds as messages; [`writer::QueueWriter`] takes them from the queue
//! and commits their rows. A message may come twice, late, or in any order: rows are unique by their place in a journal,
//! so that each counts once. The one queue there is lies behind the feature `aws`, because its SDK would double what is
//! built; everything that uses a queue is built and tested without it.

#[cfg(test)]
pub mod double;
pub mod message;
pub mod outlet;
#[cfg(feature = "aws")]
mod sqs;
pub mod writer;

use super::outlet::OutletError;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// Most messages in one request, as SQS has it.
pub const ENTRIES_MAX: usize = 10;

/// Most bytes of one message, and of one request's messages together: SQS's bound for both.
pub const REQUEST_BYTES_MAX: usize = 256 << 10;

/// Longest that a receiver may wait for a message, as SQS has it.
pub const WAIT_MAX: Duration = Duration::from_secs(20);

/// What became of one entry of a request.
pub type Outcome = Result<(), OutletError>;

/// A message as received. It is not gone before it is deleted: until then others do not see it for a while, and then
/// somebody gets it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number, for people.
    pub id: String,
    /// What deletes it.
    pub receipt: String,
    /// What it says.
    pub body: String,
}

/// A queue. No call has a bound of its own: the caller sets one and may give the call up, not knowing then what came of
/// it.
#[async_trait]
pub trait UsageQueue: Send + Sync {
    /// Sends up to [`ENTRIES_MAX`] messages of up to [`REQUEST_BYTES_MAX`] together; the outcome of each, in order.
    async fn send(&self, bodies: &[String]) -> Result<Vec<Outcome>, OutletError>;

    /// Up to `most` messages (at most [`ENTRIES_MAX`]), as soon as there is one; none when `wait` (whole seconds, at most
    /// [`WAIT_MAX`]) is over.
    async fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Received>, OutletError>;

    /// Deletes up to [`ENTRIES_MAX`] messages by their receipts; the outcome of each, in order.
    async fn delete(&self, receipts: &[String]) -> Result<Vec<Outcome>, OutletError>;
}

/// The queue at `url`, in SQS; `region` counts where the address names none. Nothing is asked yet.
///
/// # Errors
/// When this program was built without the feature `aws`.
#[cfg(feature = "aws")]
pub fn open(url: &str, region: &str) -> anyhow::Result<Arc<dyn UsageQueue>> {
    Ok(Arc::new(aws::Queue::new(url, region)))
}

/// As with the feature; without it, what to do instead.
///
/// # Errors
/// Always.
#[cfg(not(feature = "aws"))]
pub fn open(_url: &str, _region: &str) -> anyhow::Result<Arc<dyn UsageQueue>> {
    anyhow::bail!(
        "this program is built without the feature aws and cannot speak to a queue: \
         cargo build --release --features aws, or let nodes write to the database themselves"
    )
}

#[cfg(test)]
mod tests;
