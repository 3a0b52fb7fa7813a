//! The pulse: one small query every 400 ms that tells this node what has changed in the store, by whichever node.
//!
//! What the numbers mean is known to those who watch them; that the store is away or back is told by the store.

use crate::store::{Pulse, Store, StoreError};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Time between two queries. A change is in force everywhere within 1 s: 400 ms until it is seen, and the rest to read
/// and publish it.
pub const PULSE: Duration = Duration::from_millis(400);

/// Told of every pulse's `reloads`, unless it is still busy with those before: it is told again with the next.
pub type OnReloads = Arc<dyn Fn(i64) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What the last query said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The numbers when the store answered last; `None`: it has not answered yet.
    pub pulse: Option<Pulse>,
    /// Why it did not answer the last time; `None`: it did.
    pub away: Option<StoreError>,
    /// Queries that failed since start.
    pub failures: u64,
    /// Queries so far: watchers are told of each.
    pub count: u64,
}

impl Beat {
    /// Whether the store answered the last time.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.pulse.is_some() && self.away.is_none()
    }
}

/// Asks until it is aborted, whether anybody watches or not.
pub async fn run(store: Arc<dyn Store>, on_reloads: OnReloads, beats: watch::Sender<Beat>) {
    let mut turns = interval(PULSE);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = JoinSet::new();
    loop {
        turns.tick().await;
        let answer = store.pulse().await;
        // Whoever reloads may wait for others: keys must not.
        let _ = told.try_join_next();
        if let Ok(pulse) = &answer
            && told.is_empty()
        {
            told.spawn(on_reloads(pulse.reloads));
        }
        beats.send_modify(|beat| {
            beat.count += 1;
            match answer {
                Ok(pulse) => (beat.pulse, beat.away) = (Some(pulse), None),
                Err(why) => {
                    beat.failures += 1;
                    beat.away = Some(why);
                }
            }
        });
    }
}
