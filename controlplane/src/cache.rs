//! The cache that nodes share: Valkey, or a table in this process where there is only one node.
//!
//! Losing it costs no price: whoever calls has an answer of its own. Every call ends within the bounds of
//! [`CacheTimeouts`]. Names, types and lifetimes of what may stand in it are in `names`, and nothing else is written.

pub mod in_process;
pub mod load;
pub mod names;
pub mod valkey;
pub mod window;

use self::in_process::InProcessCache;
use self::load::Loads;
use self::names::{CacheKey, Kind, Pattern};
use self::valkey::Valkey;
use crate::feeds::connect::Trust;
use crate::keys::Secret;
use anyhow::anyhow;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Largest value, bytes of all its texts together: a day's report as text is some hundred KiB.
pub const VALUE_BYTES_MAX: usize = 4 << 20;

/// Most fields of a hash, or members of a sorted set, in one value.
pub const VALUE_PARTS_MAX: usize = 10_000;

/// Most things written in one call of [`Cache::write_all`]: 100 usage records with the indexes that each may be in, or the
/// prices that a node keeps fresh, 662 as a rule.
pub const WRITES_MAX: usize = 1_024;

/// Scores are whole numbers that a double tells exactly.
pub const SCORE_MAX: i64 = 1 << 53;

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

impl Value {
    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::Hash(_) => Kind::Hash,
            Self::Sorted(_) => Kind::Sorted,
        }
    }

    /// Bytes of its texts, 8 for each score.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Hash(fields) => fields.iter().map(|(name, value)| name.len() + value.len()).sum(),
            Self::Sorted(members) => bytes_of(members),
        }
    }

    /// Whether it may stand under `key`: of the pattern's type, within the bounds, and not empty where the server knows
    /// no empty value.
    ///
    /// # Errors
    /// [`CacheError::Refused`] says what is wrong.
    pub fn check(&self, key: &CacheKey) -> Cached<()> {
        let kind = key.pattern().kind;
        if self.kind() != kind {
            return Err(CacheError::Refused(format!("{key} holds {}, not {}", kind.name(), self.kind().name())));
        }
        match self {
            Self::Text(_) => check_size(kind, 1, self.bytes()),
            Self::Hash(fields) => check_size(kind, fields.len(), self.bytes()),
            Self::Sorted(members) => check_members(key, members),
        }
    }
}

/// Whether these members may be those of a sorted set under `key`.
fn check_members(key: &CacheKey, members: &[(String, i64)]) -> Cached<()> {
    let kind = key.pattern().kind;
    if kind != Kind::Sorted {
        return Err(CacheError::Refused(format!("{key} holds {}, not {}", kind.name(), Kind::Sorted.name())));
    }
    if members.iter().any(|(_, score)| score.abs() > SCORE_MAX) {
        return Err(CacheError::Refused(format!("a score is beyond {SCORE_MAX}, exact no more")));
    }
    check_size(kind, members.len(), bytes_of(members))
}

fn check_size(kind: Kind, parts: usize, bytes: usize) -> Cached<()> {
    let why = match parts {
        0 => format!("{} without a member cannot stand in the cache: delete it", kind.name()),
        _ if parts > VALUE_PARTS_MAX => format!("{parts} members are too many: at most {VALUE_PARTS_MAX}"),
        _ if bytes > VALUE_BYTES_MAX => format!("{bytes} bytes are too many: at most {VALUE_BYTES_MAX}"),
        _ => return Ok(()),
    };
    Err(CacheError::Refused(why))
}

fn bytes_of(members: &[(String, i64)]) -> usize {
    members.iter().map(|(member, _)| member.len() + 8).sum()
}

/// Whether a call may bring so many.
fn check_writes(writes: &[Write]) -> Cached<()> {
    if writes.len() > WRITES_MAX {
        return Err(CacheError::Refused(format!("{} writes are too many: at most {WRITES_MAX}", writes.len())));
    }
    writes.iter().try_for_each(Write::check)
}

/// The whole number behind a member of a JSON text, if there is one.
fn number_behind(value: &Value, member: &str) -> Option<u64> {
    let Value::Text(text) = value else { return None };
    let (_, behind) = text.split_once(&format!("\"{member}\":"))?;
    let digits = behind.find(|each: char| !each.is_ascii_digit()).unwrap_or(behind.len());
    behind[..digits].parse().ok()
}

/// One of several things that are written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// As [`Cache::put`] writes it.
    Put(CacheKey, Value),
    /// As [`Cache::put`] writes it, unless what stands there is later.
    PutLatest {
        /// The name.
        key: CacheKey,
        /// A text: a JSON object.
        value: Value,
        /// The member of it that says how late it is: letters and `_`, and a whole number behind it.
        by: &'static str,
        /// What stands there with a higher number than this is not later, but wrong.
        most: u64,
    },
    /// Members that are added to a sorted set, whose lifetime begins anew.
    Append {
        /// The set.
        key: CacheKey,
        /// Members with their scores: 1 ..= [`VALUE_PARTS_MAX`].
        members: Vec<(String, i64)>,
        /// Members with a lower score go.
        since: i64,
        /// So many with the highest scores stay, at least 1.
        keep: usize,
    },
}

impl Write {
    /// Whether it may be done: see [`Value::check`].
    ///
    /// # Errors
    /// [`CacheError::Refused`] says what is wrong.
    pub fn check(&self) -> Cached<()> {
        match self {
            Self::Put(key, value) => value.check(key),
            Self::PutLatest { key, value, .. } => {
                check_text(key)?;
                value.check(key)
            }
            Self::Append { key, members, keep, .. } => {
                if *keep == 0 {
                    return Err(CacheError::Refused(format!("{key} keeps at least one member")));
                }
                check_members(key, members)
            }
        }
    }
}

/// How the cache does, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheHealth {
    /// Calls since start.
    pub calls: u64,
    /// Calls that failed because the cache could not be reached.
    pub unreachable: u64,
    /// Calls that the cache refused.
    pub refused: u64,
    /// Connections made since start: every one after the first is one that was lost before.
    pub connections: u64,
    /// Since when it is away, Unix ms; `None`: it answers.
    pub away_since_ms: Option<u64>,
    /// How long the last call took that was answered, µs.
    pub round_trip_us: u64,
    /// Values that stand in it, and their bytes, where that is known without asking (in-process).
    pub held: Option<(u64, u64)>,
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

/// Who is noted as alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roll {
    /// Names of all nodes alive, the one that asked included, in order.
    pub nodes: Vec<String>,
    /// Whether the one that asked was noted before. When it should have been, everything noted was lost.
    pub was_noted: bool,
}

/// How long a node that is not heard of any more stays noted, ms: an hour, so that whoever looks sees that it was there.
const FORGET_AFTER_MS: u64 = 60 * 60 * 1_000;

/// Most nodes noted; those heard of longest ago are forgotten first.
const NODES_MAX: usize = 1_000;

/// The name of a node's own value.
fn node_key(pattern: Pattern, node: &str) -> Cached<CacheKey> {
    CacheKey::new(pattern, node).map_err(CacheError::Refused)
}

/// What a field becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// This number, unless a larger one stands there; below [`SCORE_MAX`].
    Number(i64),
    /// This text.
    Text(String),
}

/// Only a hash can be brought forward.
fn check_hash(key: &CacheKey) -> Cached<()> {
    match key.pattern().kind {
        Kind::Hash => Ok(()),
        kind => Err(CacheError::Refused(format!("{key} holds {}, not hash", kind.name()))),
    }
}

/// Only a text can be added to or leased from.
fn check_text(key: &CacheKey) -> Cached<()> {
    match key.pattern().kind {
        Kind::Text => Ok(()),
        kind => Err(CacheError::Refused(format!("{key} holds {}, not string", kind.name()))),
    }
}

/// The cache that the settings name: the server at `url`, or a table in this process. Reaches for nothing: a server that
/// is away is connected to in the background, for as long as the process lives, and calls fail until then. To be called
/// on a runtime.
///
/// # Errors
/// When the URL is none, or TLS cannot be set up: what to mend. The URL is not shown.
pub fn open(url: Option<&Secret>, timeouts: CacheTimeouts) -> anyhow::Result<Arc<dyn Cache>> {
    match url {
        None => Ok(Arc::new(InProcessCache::new())),
        Some(url) => {
            let tls = || Trust::platform().map(|trust| trust.config());
            Ok(Arc::new(Valkey::open(url.reveal(), timeouts, tls).map_err(|why| anyhow!(why))?))
        }
    }
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

    /// Writes up to [`WRITES_MAX`] things, sent together, within the bound of one call. In no order, and not as one: after
    /// an error some may have been written.
    async fn write_all(&self, writes: &[Write]) -> Cached<()>;

    /// Loads much, in no order and not as one: after an error some may have been written, and to load the same again is as
    /// good as once. On connections of its own, so that other calls do not wait behind it; it takes as long as it takes,
    /// and ends by itself when nothing moves on.
    async fn load(&self, loads: Loads) -> Cached<()>;

    /// Brings fields of a hash forward, as one, if its field `guard` has the value that is given with it; whether it had.
    async fn advance(&self, key: &CacheKey, guard: (&str, &str), news: &[(&str, News)]) -> Cached<bool>;

    /// Takes a part of a key's second: see [`LeaseWish`]. One round trip, atomic over all nodes.
    async fn lease(&self, key: &CacheKey, wish: LeaseWish) -> Cached<Lease>;

    /// Writes a node's counters and notes it as alive; answers who was noted within `alive_ms`, by the cache's own clock.
    async fn heartbeat(&self, node: &str, counters: &BTreeMap<String, String>, alive_ms: u64) -> Cached<Roll>;

    /// Forgets a node that leaves.
    async fn leave(&self, node: &str) -> Cached<()>;

    /// How it does. Asks nobody.
    fn health(&self) -> CacheHealth;

    /// Closes every connection.
    async fn close(&self);
}

#[cfg(test)]
mod tests;
