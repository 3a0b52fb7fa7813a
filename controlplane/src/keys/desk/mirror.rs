//! `apikey:<key>` in the cache: what programs beside this one may know of a key. Nothing here is ever read back.
//!
//! A key is written when it changes, and again while it is used, before its entry's 24 hours are over. A cache that is
//! away costs nothing but the entries; whoever keeps the connection says so in the log.

use super::super::rules::permission_names;
use super::super::secret::to_hex;
use super::KeyDesk;
use crate::cache::names::{API_KEY, CacheKey};
use crate::cache::{Cached, Value};
use crate::usage::UsageLedger;
use serde_json::json;
use shared::key::{KeyId, KeyRecord};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Time between two rounds over the keys that are used.
const ROUND: Duration = Duration::from_secs(60);

/// Keys written in a round: 17 a second. A million used keys are gone through in 17 hours, before the first entry ends.
const PER_ROUND: usize = 1_000;

fn name(hash: &[u8; 32]) -> Option<CacheKey> {
    CacheKey::new(API_KEY, &to_hex(hash)).ok()
}

impl KeyDesk {
    /// A key as the cache shows it: no secret.
    fn shown(&self, record: &KeyRecord) -> Value {
        let rules = self.rules();
        let tier = rules.get(record.id.0).and_then(|rule| rules.tier_name(rule));
        let entry = json!({
            "key_id": record.id.0,
            "tier": tier,
            "rank": record.rank,
            "limit_per_second": record.limit_per_second,
            "limit_per_month": rules.limit_per_month(record.id),
            "permissions": permission_names(record.permissions.0),
            "expires_time_ms": Some(record.expires_at_ms).filter(|time| *time != 0),
        });
        Value::Text(entry.to_string())
    }

    async fn write(&self, id: u32) -> Cached<()> {
        let keys = self.current();
        let Some(record) = keys.find_id(KeyId(id)) else { return Ok(()) };
        let Some(name) = name(&record.hash) else { return Ok(()) };
        self.cache.put(&name, &self.shown(record)).await
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
        if let Some(name) = hash.as_ref().and_then(name) {
            // Away: the entry runs out by itself, and no price read asks it.
            let _ = self.cache.delete(&name).await;
        }
    }

    /// Writes the keys that are used, round after round.
    pub(super) async fn mirror_used(self: Arc<Self>, usage: Arc<UsageLedger>) {
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
