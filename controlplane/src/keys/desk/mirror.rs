//! `apikey:<key>` in the cache: what programs beside this one may know of a key. Nothing here is ever read back.
//!
//! A key is written when it changes, and again while it is used, before its entry's 24 hours are over. A cache that is
//! away costs nothing but the entries; whoever keeps the connection says so in the log.

use super::super::entry;
use super::KeyDesk;
use crate::cache::{Cached, Value};
use crate::usage::UsageLedger;
use shared::key::KeyId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Time between two rounds over the keys that are used.
const ROUND: Duration = Duration::from_secs(60);

/// Keys written in a round: 17 a second. A million used keys are gone through in 17 hours, before the first entry ends.
const PER_ROUND: usize = 1_000;

impl KeyDesk {
    async fn write(&self, id: u32) -> Cached<()> {
        let keys = self.current();
        let Some(record) = keys.find_id(KeyId(id)) else { return Ok(()) };
        let Some(name) = entry::name(&record.hash) else { return Ok(()) };
        let shown = entry::text(record, &self.rules());
        self.cache.put(&name, &Value::Text(shown)).await
    }

    /// Writes keys that have changed; those whose time is over run out by themselves.
    pub(super) async fn mirror(&self, ids: &[u32]) {
        for id in ids {
            if self.write(*id).await.is_err() {
                return;
            }
        }
    }

    /// Deletes a key's entry.
    pub(super) async fn forget(&self, id: u32) {
        let hash = self.current().find_id(KeyId(id)).map(|record| record.hash);
        if let Some(name) = hash.as_ref().and_then(entry::name) {
            // Away: the entry runs out by itself, and no price read asks it.
            let _ = self.cache.delete(&name).await;
        }
    }

    /// Writes the keys that are used, round after round, until it is aborted.
    pub async fn mirror_used(self: Arc<Self>, usage: Arc<UsageLedger>) {
        let mut turns = interval(ROUND);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut after = 0;
        loop {
            turns.tick().await;
            let used: Vec<u32> = usage.page(after, PER_ROUND).into_iter().map(|(id, _)| id).collect();
            after = if used.len() < PER_ROUND { 0 } else { used.last().copied().unwrap_or(0) };
            self.mirror(&used).await;
        }
    }
}
