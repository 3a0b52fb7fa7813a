//! What a shard asks of the control plane when its table cannot answer, and what it is told.
//!
//! A price that is found comes back as an ordinary tick; only that none was found is told in words. Whoever looks, and
//! where, is not known here, nor who waits: that is `lookups`.

use shared::asset::Symbol;
use shared::code::Code;
use shared::key::KeyId;

/// A word from a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The asset, aliases resolved, whether it is in the directory or not.
    pub symbol: Symbol,
    /// Which shard.
    pub shard: u16,
    /// What it wants.
    pub kind: AskKind,
}

const _: () = assert!(size_of::<Ask>() == 48);

/// What a shard wants of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskKind {
    /// A fresh price: requests wait for it. Asked once for each asset of a shard until it is answered or
    /// [`crate::limits::LOOKUP_WAIT_MS`] have passed.
    Find {
        /// Whose request it was that asked first.
        key: KeyId,
        /// Which of the shard's lookups this is: what comes of it is told with the same number. Each is one more than the
        /// one before, and after the highest comes 0.
        number: u32,
        /// The newest tick of the asset that the shard has, which is a stale one; 0: none. A fresh price with a higher
        /// sequence is on its way to the shard; one without is not, whatever else may be thought fresh.
        sequence: u64,
    },
    /// Nothing: the asset is not of the prewarmed set and was answered for within the last second, so it should stay
    /// subscribed. Said at most once a second for each asset.
    InUse,
}

/// Nothing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// The asset, as asked.
    pub symbol: Symbol,
    /// Which lookup of the shard came to nothing, as [`AskKind::Find`] had it: told of one that is over already, it changes
    /// nothing, even if the same asset is being looked up again.
    pub number: u32,
    /// What to answer: `asset_unknown` (nobody knows it), `price_unavailable` (no tier has a fresh price now) or
    /// `overloaded` (there was no time to look). A stale price that the shard has is still given to whoever takes one, and
    /// whoever does not is told `price_stale` in place of `price_unavailable`.
    pub code: Code,
}
