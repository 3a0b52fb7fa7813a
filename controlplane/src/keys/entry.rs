//! What programs beside this one may know of a key: the text of `apikey:<key>` in the cache, and its name. No secret.
//!
//! Who writes it when is not known here.

use super::issue::KeyState;
use super::rules::{Rules, permission_names};
use super::secret::to_hex;
use crate::cache::names::{API_KEY, CacheKey};
use crate::params::SystemMode;
use crate::store::{KeyRow, TierRow};
use serde_json::json;
use shared::key::{KeyId, KeyRecord, Permissions};

/// The name under which a key's entry stands.
#[must_use]
pub fn name(hash: &[u8; 32]) -> Option<CacheKey> {
    CacheKey::new(API_KEY, &to_hex(hash)).ok()
}

/// The entry of a key as it is in force.
pub(super) fn text(record: &KeyRecord, rules: &Rules) -> String {
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
    entry.to_string()
}

/// Makes entries of stored keys.
pub struct Entries(Rules);

impl Entries {
    /// With these tiers, in this mode.
    #[must_use]
    pub fn new(tiers: Vec<TierRow>, mode: SystemMode) -> Self {
        Self(Rules::new(tiers, mode))
    }

    /// The entry of a stored key; `None` for one that does not work at this time, Unix ms.
    pub fn of(&mut self, row: &KeyRow, now_ms: u64) -> Option<String> {
        if KeyState::of(row, now_ms) != KeyState::Active {
            return None;
        }
        let record = KeyRecord {
            id: KeyId(row.id),
            hash: row.hash,
            limit_per_second: 1,
            expires_at_ms: row.expires_time_ms.unwrap_or(0),
            permissions: Permissions::default(),
            udp_secret: row.udp_secret,
            rank: 0,
        };
        let rule = self.0.of_row(row);
        let record = self.0.resolve(&record, &rule)?;
        self.0.set(row.id, Some(rule));
        let entry = text(&record, &self.0);
        self.0.set(row.id, None);
        Some(entry)
    }
}
