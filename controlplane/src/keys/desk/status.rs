//! How one key stands, for an administrator: as it is stored, and as this node's shards see it. No secret is in it.

use super::super::issue::document;
use super::super::rules::permission_names;
use super::KeyDesk;
use crate::store::Stored;
use dataplane_core::render::month_of;
use serde_json::{Value, json};
use shared::key::KeyId;
use std::sync::Arc;
use tuning::clock;

impl KeyDesk {
    /// How a key stands; `None`: neither this node nor the store knows it. What the store has is `null` while it is away.
    ///
    /// # Errors
    /// Those of the store, for a key that this node does not know.
    pub async fn status(self: &Arc<Self>, id: u32) -> Stored<Option<Value>> {
        let now = clock::now();
        let known = self.in_force(id);
        let (stored, away) = match self.store.key(id).await {
            Ok(row) => (row, None),
            Err(why) if known.is_none() => return Err(why),
            Err(why) => (None, Some(why.to_string())),
        };
        if stored.is_none() && known.is_none() {
            return Ok(None);
        }
        let month = month_of(now.wall_ms);
        let used = match self.store.month_use(month, &[id]).await {
            Ok(rows) => Some(rows.first().map_or(0, |row| row.requests)),
            Err(_) => None,
        };
        Ok(Some(json!({
            "key_id": id,
            "source": if self.fixed.contains_key(&id) { "settings" } else { "store" },
            "stored": stored.map(|row| document(&row, now.wall_ms)),
            "store_error": away,
            "in_force": known,
            "month": { "limit": self.limit_per_month(KeyId(id)), "used": used },
        })))
    }

    /// The key as shards see it.
    fn in_force(&self, id: u32) -> Option<Value> {
        let keys = self.current();
        let record = keys.find_id(KeyId(id))?;
        let is_held = self.standing.held().contains(&id);
        let rules = self.rules();
        Some(json!({
            "tier": rules.get(id).and_then(|rule| rules.tier_name(rule)),
            "rank": record.rank,
            "limit_per_second": record.limit_per_second,
            "remaining": keys.remaining(record.id, clock::now().mono_ms()),
            "permissions": permission_names(record.permissions.0),
            "expires_time_ms": Some(record.expires_at_ms).filter(|time| *time != 0),
            "month_used_up": keys.is_month_used_up(record.id),
            "refused": keys.is_refused(record.id),
            "held": is_held,
            "place": if keys.is_changed(record.id) { "overlay" } else { "large part" },
        }))
    }
}
