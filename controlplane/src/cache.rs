//! The cache that nodes share: Valkey, or a table in this process where there is only one node.
//!
//! Losing it costs no price: whoever calls has an answer of its own. Every call ends within the bounds of
//! [`CacheTimeouts`]. Names, types and lifetimes of what may stand in it are in `names`, and nothing else is written.

pub mod names;

use self::names::CacheKey;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fmt;

/// Longest that a connection, a read and a write may take, ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheTimeouts {
    /// `cache_dial_timeout_ms`.
    pub dial_ms: u64,
    /// `cache_read_timeout_ms`.
    pub read_ms: u64,
    /// `cache_write_timeout_ms`.
    pub write_ms: u64,
}

impl Default for CacheTimeouts {
    /// 500 ms each.
    fn default() -> Self {
        Self { dial_ms: 500, read_ms: 500, write_ms: 500 }
    }
}

/// Why a call failed. No text holds a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheError {
    /// No connection, or no answer in time. A write may have been done.
    Unreachable(String),
    /// What stands under the name is of another type than it should be, or the server refused.
    Refused(String),
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the cache cannot be reached: {why}"),
            Self::Refused(why) => write!(f, "the cache refused: {why}"),
        }
    }
}

impl std::error::Error for CacheError {}

/// What any call gives.
pub type Cached<T> = Result<T, CacheError>;

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A hash.
    Hash(BTreeMap<String, String>),
    /// The members of a sorted set with their scores, lowest first.
    Sorted(Vec<(String, i64)>),
}

/// A node's wish for a part of a key's second: see `crate::limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseWish {
    /// The key's limit per second, all nodes together.
    pub limit: u32,
    /// Requests wanted.
    pub want: u32,
    /// Requests this node was asked for in the present second and has not told yet, admitted or not.
    pub demand: u32,
    /// For the second after the present one, which is about to end.
    pub next: bool,
    /// Requests admitted without a lease in the present second (before one came, or while the cache was away): they are
    /// booked as taken even beyond the limit.
    pub debt: u32,
}

/// What a node got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Requests granted, 0 ..= `want`.
    pub granted: u32,
    /// How long ago the key's present second began, ms, by the cache's own clock: 0 ..= 999.
    pub window_age_ms: u32,
    /// Requests of that second (or, with `next`, of the one after it) that nobody has taken.
    pub left: u32,
    /// Requests that all nodes together were asked for in the present second so far.
    pub demand: u32,
}

/// A cache. Calls may run at the same time.
#[async_trait]
pub trait Cache: Send + Sync {
    /// `valkey` or `in-process`.
    fn kind(&self) -> &'static str;

    /// Other time-outs from now on.
    async fn set_timeouts(&self, timeouts: CacheTimeouts);

    /// Whether it answers.
    async fn ping(&self) -> Cached<()>;

    /// What stands under the name, and its remaining lifetime in ms (`None`: no end).
    async fn get(&self, key: &CacheKey) -> Cached<Option<(Value, Option<u64>)>>;

    /// Writes with the lifetime that the name's pattern has, replacing what stands there whatever its type.
    async fn put(&self, key: &CacheKey, value: &Value) -> Cached<()>;

    /// Deletes; whether something stood there.
    async fn delete(&self, key: &CacheKey) -> Cached<bool>;

    /// Adds to a number (0 where there is none) and answers the sum; a lifetime begins when the number does.
    async fn add(&self, key: &CacheKey, amount: i64) -> Cached<i64>;

    /// Takes a part of a key's second: see [`LeaseWish`]. One round trip, atomic over all nodes.
    async fn lease(&self, key: &CacheKey, wish: LeaseWish) -> Cached<Lease>;

    /// Writes a node's counters and notes it as alive; answers the names of all nodes noted within `alive_ms`, by the
    /// cache's own clock, this one included.
    async fn heartbeat(&self, node: &str, counters: &BTreeMap<String, String>, alive_ms: u64) -> Cached<Vec<String>>;

    /// Closes every connection.
    async fn close(&self);
}
