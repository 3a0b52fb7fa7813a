//! Bounds that more than one crate relies on. Each has its arithmetic beside it.

/// Assets a node can know: all that seven venues list against USD and USDT (some 4,000 bases), and room for those that only
/// other nodes know. A table row is 512 bytes, so a shard's table stays under 4 MiB; the old system priced 150.
pub const ASSETS_MAX: usize = 8_192;

/// Assets of the prewarmed set, all lists together: what `all` in `/prices` gives.
pub const PREWARMED_MAX: usize = 4_096;

/// Longest asset symbol, in bytes: what the binary UDP frame holds.
pub const SYMBOL_MAX: usize = 16;

/// Assets in one `/prices` request: 64 bodies of about 230 bytes fit the 16 KiB output buffer.
pub const ASSETS_PER_REQUEST_MAX: usize = 64;

/// Assets in one UDP request. A short form is 140 to 180 bytes, so 6 usually fit the 1,200-byte reply; what does not fit is
/// `reply_too_long`.
pub const ASSETS_PER_DATAGRAM_MAX: usize = 8;

/// Ticks a shard may lag before the feed conflates for it. 4,096 × 64 bytes = 256 KiB a shard; at 100,000
/// ticks a second it holds 40 ms, so a healthy shard never fills it.
pub const TICK_RING_CAPACITY: usize = 4_096;

/// Usage records a shard may have waiting. 8,192 × 64 bytes = 512 KiB a shard; when full the meter merges on.
pub const USAGE_RING_CAPACITY: usize = 8_192;

/// Quotes waiting for the feed thread. 16,384 × ~160 bytes = 2.5 MiB; at 20,000 quotes a second it holds 0.8 s.
pub const QUOTE_CHANNEL_CAPACITY: usize = 16_384;

/// Largest datagram we read; a longer one is malformed.
pub const DATAGRAM_IN_MAX: usize = 512;

/// Largest datagram we send: below every common path MTU, so never fragmented.
pub const DATAGRAM_OUT_MAX: usize = 1_200;

/// API keys one node can know.
pub const KEYS_MAX: usize = 1_000_000;

/// Longest API key text, in bytes. Ours are 40; longer ones of other issuers still fit.
pub const KEY_TEXT_MAX: usize = 128;

/// Highest per-second limit a key can have; it must fit the 24 bits that an allowance counts in.
pub const KEY_LIMIT_PER_SECOND_MAX: u32 = 16_000_000;

/// Longest a request may wait for a newer price, in milliseconds.
pub const WAIT_MS_MAX: u64 = 30_000;

/// Shards in one process: a set of them and of the control plane's own reader must fit one `u64`.
pub const SHARDS_MAX: usize = 63;

const _: () = assert!(TICK_RING_CAPACITY.is_power_of_two());
const _: () = assert!(KEY_LIMIT_PER_SECOND_MAX < 1 << 24);
const _: () = assert!(ASSETS_MAX <= u16::MAX as usize);
