//! API keys: their ids, tiers and what a shard must know to admit a request.

use core::fmt;

/// Number of an API key, unique in the deployment; 0 is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u32);

impl KeyId {
    /// Nobody: requests that were refused before a key was known.
    pub const NOBODY: Self = Self(0);
}

/// Highest rank of a tier: the last to be refused under overload.
pub const RANK_MAX: u8 = 3;

/// What a key may do besides reading prices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(pub u16);

impl Permissions {
    /// Read prices.
    pub const PRICES: u16 = 1;
    /// Read own usage reports.
    pub const REPORTS: u16 = 2;
    /// Receive streams.
    pub const STREAM: u16 = 4;

    /// Whether every bit of `wanted` is there.
    #[inline]
    #[must_use]
    pub const fn allow(self, wanted: u16) -> bool {
        self.0 & wanted == wanted
    }
}

/// A key as the data plane knows it. The key's text is not here: only its SHA-256, in the directory's index.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its number.
    pub id: KeyId,
    /// SHA-256 of the key's text.
    pub hash: [u8; 32],
    /// Requests admitted per second, 1 ..= `KEY_LIMIT_PER_SECOND_MAX`.
    pub limit_per_second: u32,
    /// Unix ms after which it no longer works; 0 for never.
    pub expires_at_ms: u64,
    /// What it may do.
    pub permissions: Permissions,
    /// Secret of the binary UDP form.
    pub udp_secret: [u8; 16],
    /// Rank of its tier, 0 ..= `RANK_MAX`: under overload lower ranks are refused first.
    pub rank: u8,
}

impl fmt::Debug for KeyRecord {
    /// Shows no secret: neither the hash (it admits offline guessing) nor the UDP secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRecord")
            .field("id", &self.id)
            .field("limit_per_second", &self.limit_per_second)
            .field("expires_at_ms", &self.expires_at_ms)
            .field("permissions", &self.permissions)
            .field("rank", &self.rank)
            .finish_non_exhaustive()
    }
}
