//! Limits beyond one node and one second: a key's second shared by nodes, and its month.
//!
//! What a shard admits is decided in the data plane; here the numbers that it decides by are kept right. Both tasks
//! run in the background: no price waits for them, and without cache or store each node goes on by itself.

mod book;
mod leaser;
mod quota;
#[cfg(test)]
mod simulation;

pub use self::book::Counts;
pub use self::leaser::{LeaserStatus, SharingName};
pub use self::quota::{MonthLimits, QuotaStatus};

use self::leaser::Leaser;
use self::quota::{Months, Quota};
use crate::cache::Cache;
use crate::cluster::ClusterView;
use crate::keys::desk::KeyDesk;
use crate::keys::{random_bytes, to_hex};
use crate::store::Store;
use crate::usage::UsageLedger;
use dataplane_core::access::Keys;
use shared::key::KeyId;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

impl MonthLimits for KeyDesk {
    fn month_limit(&self, key: KeyId) -> Option<u64> {
        Some(self.limit_per_month(key)).filter(|limit| *limit != 0)
    }
}

/// What limits are made of.
pub struct LimitsSetup {
    /// This node's name.
    pub node: String,
    /// The keys in force.
    pub keys: watch::Receiver<Keys>,
    /// Their bounds per month.
    pub bounds: Arc<dyn MonthLimits>,
    /// The nodes alive.
    pub cluster: watch::Receiver<ClusterView>,
    /// What keys ask.
    pub usage: Arc<UsageLedger>,
    /// Where months are added up.
    pub store: Arc<dyn Store>,
    /// What nodes share.
    pub cache: Arc<dyn Cache>,
}

/// What the end of the count of months may take beyond its time: for what is in memory.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The running tasks.
pub struct Limits {
    bounds: Arc<dyn MonthLimits>,
    leaser_status: Arc<Mutex<LeaserStatus>>,
    months: Months,
    stop: watch::Sender<Option<Instant>>,
    tasks: Mutex<Option<(JoinHandle<()>, JoinHandle<()>)>>,
}

/// How a key's month stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyMonth {
    /// Requests that it may make; `None`: no bound.
    pub limit: Option<u64>,
    /// Requests that it has made, on all nodes, as far as this one knows.
    pub used: u64,
}

impl Limits {
    /// Starts the tasks on the present runtime.
    #[must_use]
    pub fn start(setup: LimitsSetup) -> Self {
        let LimitsSetup { node, keys, bounds, cluster, usage, store, cache } = setup;
        let (stop, stopped) = watch::channel(None);
        let leaser_status = Arc::<Mutex<LeaserStatus>>::default();
        let status = Arc::clone(&leaser_status);
        let leaser = Leaser { keys: keys.clone(), cluster, cache: Arc::clone(&cache), status };
        // A process counts its batches from 1: what it is called must never have been another's name.
        let writer = format!("{node}-{}", to_hex(&random_bytes::<8>()));
        let months = Months::default();
        let quota = Quota { keys, bounds: Arc::clone(&bounds), usage, store, cache, writer };
        let tasks = (tokio::spawn(leaser.run()), tokio::spawn(quota.run(months.clone(), stopped)));
        Self { bounds, leaser_status, months, stop, tasks: Mutex::new(Some(tasks)) }
    }

    /// How the sharing of seconds stands.
    #[must_use]
    pub fn leaser(&self) -> LeaserStatus {
        *self.leaser_status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the counting of months stands.
    #[must_use]
    pub fn quota(&self) -> QuotaStatus {
        self.months.status()
    }

    /// How one key's month stands.
    #[must_use]
    pub fn month(&self, key: KeyId) -> KeyMonth {
        KeyMonth { limit: self.bounds.month_limit(key), used: self.months.used(key) }
    }

    /// Ends both tasks; what was counted and is not stored is sent, for at most so long. Ends a second later at the
    /// most, whatever the store does.
    pub async fn stop(&self, wait: Duration) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((leaser, quota)) = tasks else { return };
        leaser.abort();
        // It can only fail when the task has ended.
        let _ = self.stop.send(Some(Instant::now() + wait));
        match timeout(wait + STOP_GRACE, quota).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                tracing::error!("the counting of months had ended by itself, which is a bug: report it with the log");
            }
            Err(_) => tracing::warn!("the counting of months did not end in time"),
        }
    }
}
