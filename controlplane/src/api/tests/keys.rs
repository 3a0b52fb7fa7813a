//! Keys, made and changed by an administrator.

use super::{EXPIRED, KEY};
use crate::cache::Cache;
use crate::keys::FixedKey;
use crate::keys::desk::{DeskSetup, KeyDesk};
use crate::params::SystemMode;
use crate::store::Store;
use dataplane_core::access::hash_text;
use shared::key::{KeyId, KeyRecord, Permissions};
use std::sync::Arc;

/// A desk with a key that works and one whose time is over, neither of the store.
pub fn desk(store: &Arc<dyn Store>, cache: &Arc<dyn Cache>) -> Arc<KeyDesk> {
    let key = |id, text: &str, expires_at_ms| FixedKey {
        record: KeyRecord {
            id: KeyId(id),
            hash: hash_text(text.as_bytes()),
            limit_per_second: 1,
            expires_at_ms,
            permissions: Permissions::default(),
            udp_secret: [0; 16],
            rank: 0,
        },
        tier: None,
        limit_per_second: Some(2),
        permissions: Some(Permissions::PRICES),
    };
    KeyDesk::new(DeskSetup {
        store: Arc::clone(store),
        cache: Arc::clone(cache),
        node: "n1".to_owned(),
        shards: 1,
        fixed: vec![key(1, KEY, 0), key(2, EXPIRED, 1)],
        mode: SystemMode::Standard,
        data_dir: None,
    })
}
