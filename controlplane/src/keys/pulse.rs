//! The pulse: one small query every 400 ms that tells this node what has changed in the store, by whichever node.
//!
//! It is also how the process knows whether the store answers: the one place that says so in the log, once when it goes
//! and once when it is back. What the numbers mean is known to those who watch them.

use crate::store::{Pulse, Store, StoreError};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Time between two queries. A change is in force everywhere within 1 s: 400 ms until it is seen, and the rest to read
/// and publish it.
pub const PULSE: Duration = Duration::from_millis(400);

/// Told of every pulse's `reloads`, before the next one is asked for.
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
    loop {
        turns.tick().await;
        let answer = store.pulse().await;
        tell(&beats.borrow(), &answer);
        if let Ok(pulse) = &answer {
            on_reloads(pulse.reloads).await;
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

/// Says what is new.
fn tell(before: &Beat, answer: &Result<Pulse, StoreError>) {
    match (answer, &before.away) {
        (Err(why), None) => tracing::warn!("{why}; prices are served, and nothing can be changed until it is there"),
        // It was away in another way.
        (Err(why @ StoreError::NotMigrated(_)), Some(StoreError::Unreachable(_))) => tracing::warn!("{why}"),
        (Ok(_), Some(_)) => tracing::info!("the database answers again"),
        _ => {}
    }
}
