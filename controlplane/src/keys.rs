//! API keys in the control plane: what they are made of, where they come from, and who is admitted on a socket that a
//! shard handed over.
//!
//! What a shard needs to know of a key is in the data plane's directory; the desk makes that directory.

pub mod admission;
mod copy;
pub mod demo;
pub mod desk;
pub mod entry;
pub mod issue;
pub mod pulse;
pub mod rules;
pub mod secret;
pub mod wish;

pub use self::admission::{admit, identify};
pub use self::demo::DemoKeys;
pub use self::rules::FixedKey;
pub use self::secret::{KEY_PREFIX, Secret, from_hex, new_key_text, random_bytes, to_hex};

use dataplane_core::access::{KeyDirectory, Keys};
use shared::key::KeyRecord;
use std::sync::Arc;

/// A directory of these keys alone.
#[must_use]
pub fn directory(records: Vec<KeyRecord>, shards: usize) -> Keys {
    Arc::new(KeyDirectory::build(records, None, shards))
}
