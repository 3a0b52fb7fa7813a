//! Bounds that only the core relies on; those that other crates share are in `shared::limits`. Each with its arithmetic.

use shared::limits::{ASSETS_PER_REQUEST_MAX, PREWARMED_MAX};

/// Longest request line, without its CRLF.
pub const REQUEST_LINE_MAX: usize = 4 * 1_024;

/// Longest request head, from its first byte to the empty line's end. An engine's read buffer must hold one whole.
pub const REQUEST_HEAD_MAX: usize = 8 * 1_024;

/// Most header fields in one head.
pub const REQUEST_FIELDS_MAX: usize = 64;

/// Largest reply but for `/prices`: a head is at most 420 bytes and a problem document at most 400. Less room than this
/// in the output means that the next request waits for the next turn, so nothing is ever charged and then not sent.
pub const SMALL_REPLY_MAX: usize = 1_024;

/// Longest JSON body of one price: 20 field names and punctuation are 196 bytes; the longest values are symbol 16,
/// price 34, currency 4, source 14, sources 2, spread 11, tier 6, two times and an age of 20 each, stale 5, sequence 20.
pub const PRICE_BODY_MAX: usize = 384;

/// Bytes of a price's ready-made reply that are its own and before its age: the end of a head, at most 37, and that part
/// of a body, at most 284. With the tick and what follows the age it makes a row of eight cache lines.
pub const PRICE_REPLY_MAX: usize = 370;

/// Bytes of a request's header block that a connection remembers. A program's block with a 40-byte key is 110 to 250
/// bytes; a browser's is longer and is parsed each time. With it, idle connections cost about 500 bytes each.
pub const HEADER_MEMORY_MAX: usize = 384;

/// HTTP requests of one shard that may wait, for a newer price or for a lookup, at a time. A connection has at most one,
/// and a shard at most 16,384 connections. With as many datagrams, 32,768 × 40 bytes = 1.3 MiB a shard, untouched until used.
pub const WAITERS_MAX: usize = 16_384;

/// Ticks taken from the ring in one go. 512 row writes are about 30 µs, so requests never wait longer for them.
pub const TICKS_PER_DRAIN_MAX: usize = 512;

/// Leases one shard holds at a time: 8,192 sets of 4, of 32 bytes each = 1 MiB. A lease dies within a second, so this is
/// 32,768 different keys a second on one shard before leases are given back early, which costs them nothing but time.
pub const LEASE_SETS: usize = 8_192;

/// A shard leases `limit / (LEASE_SHARE × shards)` of a key's second at a time, at least 1: all that can be left over in
/// shards when the second ends is 1/128 of the limit, so at least 0.99 of it is given to a steady load.
pub const LEASE_SHARE: u32 = 128;

/// Keys that may ask for a grant between two looks of the control plane, a millisecond apart, without one hiding another:
/// 4,096 × 4 bytes = 16 KiB for all shards together.
pub const ASKING_KEYS: usize = 4_096;

/// Keys whose binary datagrams a shard answers without looking them up: 64 × 48 bytes = 3 KiB, which stay in the core's
/// own cache. More clients than that at a time pay one look-up in each train.
pub const KNOWN_KEYS_MAX: usize = 64;

/// Different (key, asset, outcome) sums a shard's meter holds between two flushes. 4,096 × 40 bytes = 160 KiB; the
/// fastest shard fills it within a flush period only when nearly every request differs from all others.
pub const METER_ENTRIES_MAX: usize = 4_096;

/// How long a shard's meter waits for each record that it flushed, times the number of shards, ns: all shards together make
/// 300 records in 100 ms, which is what the database is given in one micro-batch, and merge what is more.
pub const METER_RECORD_NS: u64 = 100_000_000 / 300;

/// Longest that it waits, ns, however many records it flushed: a housekeeping turn, after which all leaves anyhow. What a
/// process that is killed takes with it is at most this and a turn of the journal, together well below 100 ms.
pub const METER_WINDOW_MAX_NS: u64 = 50_000_000;

/// The last entries of the meter are kept for sums without key and asset, so that a full ring never loses a count:
/// there are 2 protocols × 23 outcomes × 3 statuses of success × 5 endpoints at the very most that occur.
pub const METER_ENTRIES_RESERVED: usize = 512;

/// Longest body of `/prices`, for `prewarmed` assets: each is in the body once, as a price or as a missing symbol.
#[must_use]
pub const fn prices_body_max(prewarmed: usize) -> usize {
    let assets = if prewarmed > ASSETS_PER_REQUEST_MAX { prewarmed } else { ASSETS_PER_REQUEST_MAX };
    assets * PRICE_BODY_MAX + 128
}

/// Memory of one shard for `/prices` bodies that do not fit one turn's output. With 150 prewarmed assets a body is
/// 57 KiB at most, which gives 64 of them; untouched memory is not resident.
pub const LONG_BODY_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Most and fewest long bodies a shard holds at a time; with none free the answer is `overloaded`.
pub const LONG_BODIES_MAX: usize = 64;
/// See [`LONG_BODIES_MAX`].
pub const LONG_BODIES_MIN: usize = 4;

/// Longest `/prices` body there can be, for the record: 1.5 MiB.
const _: () = assert!(prices_body_max(PREWARMED_MAX) < 1_600 * 1_024);
const _: () = assert!(LEASE_SETS.is_power_of_two() && NOTHING_SETS.is_power_of_two());
const _: () = assert!(LOOKUPS_MAX <= DATAGRAMS_WAITING_MAX && DATAGRAMS_WAITING_MAX < u16::MAX as usize);
const _: () = assert!(METER_ENTRIES_RESERVED < METER_ENTRIES_MAX && METER_ENTRIES_MAX < u16::MAX as usize);
const _: () = assert!(SMALL_REPLY_MAX > PRICE_REPLY_MAX + 256 && crate::reply::OUTPUT_MAX > REQUEST_HEAD_MAX);

/// How long a request waits for lookups at the longest, ms, from when it began to wait; then it is answered 503
/// `price_unavailable`. A lookup is given up after the same time, so who joins one late is answered with it, sooner.
pub const LOOKUP_WAIT_MS: u64 = 1_500;

/// Assets one shard has looked up at a time: 1,024 × 40 bytes = 40 KiB. At 60 ms a lookup that is 17,000 a second; with one
/// more the answer is `overloaded`.
pub const LOOKUPS_MAX: usize = 1_024;

/// How many of them one key can have begun: it takes eight keys to fill the table, and one request of `/prices` with 64
/// assets nobody has asked for is half of one key's part.
pub const LOOKUPS_PER_KEY_MAX: u16 = 128;

/// Lookups of one key that may come to nothing in one second, on one shard. Beyond them the answer to a symbol that the
/// shard does not know is `overloaded`, and to an asset that it knows what it would be if nothing was found: so what a
/// flood of made-up symbols costs is bounded, whatever the key's limit is.
pub const FRUITLESS_PER_KEY_MAX: u16 = 256;

/// Keys whose lookups a shard counts: 256 sets of 8, of 12 bytes each = 24 KiB. Those with a lookup under way are at most
/// `LOOKUPS_MAX`, and are not forgotten for others.
pub const LOOKING_KEY_SETS: usize = 256;

/// Symbols for which nothing was found that a shard remembers: 4,096 sets of 4, of 32 bytes each = 512 KiB. It takes 12 keys
/// at `FRUITLESS_PER_KEY_MAX` to push a symbol out before its 5 s are over, and that costs no more than another lookup.
pub const NOTHING_SETS: usize = 4_096;

/// How long it is remembered that nobody knows an asset, ms.
pub const UNKNOWN_MS: u64 = 5_000;

/// How long it is remembered that no tier has a fresh price of an asset, ms: the shortest time in which a person would try
/// again, and what `Retry-After` tells.
pub const UNAVAILABLE_MS: u64 = 1_000;

/// How long it is remembered that there was no time to look, ms: long enough that all who wait are told so.
pub const NO_TIME_TO_LOOK_MS: u64 = 200;

/// How often each asset is looked at for whether it was answered for, ms.
pub const IN_USE_MS: u64 = 1_000;

/// Idle ticks, of 50 ms, over which that is spread: of 8,192 assets 410 at a time, each a line of memory that may be cold.
pub const IN_USE_TURNS: usize = 20;

/// Datagrams of one shard that may wait for a lookup at a time: 16,384 × (512 bytes of request and 64 beside it) = 9 MiB,
/// untouched until they are used.
pub const DATAGRAMS_WAITING_MAX: usize = 16_384;

/// Counts of waiting datagrams by key: 4,096 × 2 bytes = 8 KiB. Keys whose numbers are the same modulo this are counted as
/// one; numbers are given in order, so with fewer keys there are none.
pub const WAITING_KEY_COUNTS: usize = 4_096;

/// Words to the control plane that may wait in a shard's ring: 4,096 × 48 bytes = 192 KiB. It takes thousands in a
/// millisecond; when full, the request is answered `overloaded`.
pub const ASKS_WAITING_MAX: usize = 4_096;
