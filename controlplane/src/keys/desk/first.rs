//! What a start waits for: that the keys of the store are in force, or that the store is known to be away.
//!
//! Whoever is sent to a node that takes requests before that is refused with a good key, or admitted with one that was
//! revoked while the node was not there. A store that is away keeps no node from starting: the settings file's keys and
//! the last good copy stand in then. How keys are read is in `follow`.

use super::KeyDesk;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// A store that has answered nothing for so long is away, as soon as one more call has failed: at once where it refuses,
/// 3 s later (`CALL_MAX`) where it hangs. Long enough for three tries, so that one connection that breaks off, or a name
/// that is not found the first time, is no outage.
const AWAY_AFTER: Duration = Duration::from_secs(1);

/// Longest wait, for a store that answers slowly. A million keys are 1,000 pages, and take some ten seconds.
pub(super) const READ_MAX: Duration = Duration::from_secs(30);

/// How far the first reading has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    /// The store has not been asked, or has not answered.
    #[default]
    Asked,
    /// It was asked in vain.
    Failed,
    /// The keys are in force.
    Done,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct FirstRead(watch::Sender<Step>);

impl FirstRead {
    /// The store was asked for everything; whether all of it has come and is in force.
    pub(super) fn tried(&self, is_read: bool) {
        self.0.send_replace(if is_read { Step::Done } else { Step::Failed });
    }

    /// Whether the keys have been in force once.
    pub(super) fn is_done(&self) -> bool {
        *self.0.borrow() == Step::Done
    }

    /// Waits until it is done, or a try fails when the store counts as away.
    async fn ended(&self) {
        let (mut steps, away_at) = (self.0.subscribe(), Instant::now() + AWAY_AFTER);
        loop {
            match *steps.borrow_and_update() {
                Step::Done => return,
                Step::Failed if Instant::now() >= away_at => return,
                Step::Asked | Step::Failed => {}
            }
            if steps.changed().await.is_err() {
                // The sender lives as long as this.
                return;
            }
        }
    }
}

impl KeyDesk {
    /// Waits until the store's keys are in force or the store is known to be away, for half a minute at most. To be called
    /// once, when [`KeyDesk::run`] has been.
    pub async fn first_read(&self) {
        // Whether it takes too long or fails is the same to whoever starts.
        let _ = timeout(READ_MAX, self.first.ended()).await;
        if !self.first.is_done() {
            tracing::warn!(
                keys = self.current().len(),
                "the keys could not be read from the database: serving with those of the settings file and of the last \
                 good copy until they are; any other is refused, check DATABASE_URL"
            );
        }
    }
}
