//! The store: what outlives every process. API keys, tiers, parameters, asset lists, months' totals, the audit trail.
//!
//! PostgreSQL and SQLite stand behind one trait and pass one conformance suite. A price never waits for a store:
//! whoever calls it is in the background or answers an administrator. Every call ends within [`CALL_MAX`], whatever the
//! database does; a change and its audit row are one transaction. Nothing here knows what a parameter means.

mod arrivals;
#[cfg(test)]
mod conformance;
mod credentials;
mod fault;
mod health;
mod keys;
mod open;
mod parameters;
pub mod postgres;
mod schema;
mod session;
#[cfg(test)]
pub mod shaky;
mod sql;
pub mod sqlite;
mod supply;
mod usage;
mod usage_batch;
mod usage_days;
mod usage_read;
mod usage_rows;
mod usage_write;
mod value;

pub use self::credentials::Place;
pub use self::health::StoreHealth;
pub use self::open::{open, sqlite_file};
pub use self::usage_read::{
    ArrivalMark, ArrivedSpan, PIECES_MAX, REPORT_CALL_MAX, REPORT_CALLS_MAX, REPORT_TURN_MAX, ReportLog, ReportMark,
    SyncMarks, SyncRead, UsageField, UsageFilter, UsageLine, UsageMark, UsageOrder, UsagePiece, UsageRead, UsageSource,
    UsageSums, Witness, WitnessMarks, report_calls_max,
};
pub use self::usage_write::{Committed, UsageRow, UsageSpan, UsageWrite};

use async_trait::async_trait;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Longest that any call may take, waiting for a connection included, before it fails as [`StoreError::Unreachable`].
/// A connection that let a call run out is closed, never used again: a half-open one is so gone within 5 s.
pub const CALL_MAX: Duration = Duration::from_secs(3);

/// Rows in one page of any list.
pub const PAGE_MAX: usize = 1_000;

/// Bytes in any name that is stored: a key's, a tier's, a node's.
pub const NAME_BYTES_MAX: usize = 128;

/// Bytes in a parameter's value: a list of a thousand symbols of 16 characters is 17,000.
pub const PARAMETER_BYTES_MAX: usize = 32 * 1024;

/// Bytes in each text of an audit entry: a parameter's value as JSON, every character of it escaped.
pub const AUDIT_BYTES_MAX: usize = 6 * PARAMETER_BYTES_MAX;

/// Rows in one batch of months' use, and keys in one question for it: half a megabyte of text, well within `CALL_MAX`.
pub const USE_ROWS_MAX: usize = 10_000;

/// Why a call failed. No text holds a credential or a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No connection, or no answer in time. Nothing may be concluded about what was asked: it may have been done.
    Unreachable(String),
    /// It is there, and has too much to do. Nothing was done.
    Busy(String),
    /// The schema is missing or of another version; the text says what to do.
    NotMigrated(String),
    /// What was to be changed is not there.
    NotFound,
    /// It would clash with what is there (a name taken, a row changed in between).
    Conflict(String),
    /// What was given cannot be stored: too long, out of bounds. Nothing was changed.
    Invalid(String),
    /// The database refused or answered what it should not: a bug, or somebody else's schema.
    Broken(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the database cannot be reached: {why}"),
            Self::Busy(why) | Self::NotMigrated(why) | Self::Conflict(why) => f.write_str(why),
            Self::Invalid(why) => write!(f, "this cannot be stored: {why}"),
            Self::NotFound => f.write_str("there is no such row"),
            Self::Broken(why) => write!(f, "the database refused: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// What any call gives.
pub type Stored<T> = Result<T, StoreError>;

/// Numbers that grow with every change, so that one small query tells a node whether to look further.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Highest `KeyRow::change`, and the tiers' changes too.
    pub keys: i64,
    /// How often parameters were told to be taken over (`reload`), by any node.
    pub reloads: i64,
}

/// An API key as stored. Its text is nowhere, only its SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Its number, from 1.
    pub id: u32,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// First characters of its text, to recognise it by: the prefix and 4 more.
    pub hint: String,
    /// What the operator calls it, up to 128 bytes; not unique.
    pub name: String,
    /// Name of its tier.
    pub tier: String,
    /// Requests per second in place of its tier's.
    pub limit_per_second: Option<u32>,
    /// Requests per calendar month (UTC) in place of its tier's; 0: no bound.
    pub limit_per_month: Option<u64>,
    /// Permission bits in place of its tier's.
    pub permissions: Option<u16>,
    /// Secret of the binary UDP form.
    pub udp_secret: [u8; 16],
    /// When it was made, Unix ms.
    pub created_time_ms: u64,
    /// From when on it does not work any more, Unix ms.
    pub expires_time_ms: Option<u64>,
    /// Since when it is revoked, Unix ms.
    pub revoked_time_ms: Option<u64>,
    /// The key that took its place when it was rotated.
    pub rotated_to: Option<u32>,
    /// Number of its last change; every change of any key takes the next one.
    pub change: i64,
}

impl fmt::Debug for KeyRow {
    /// Shows neither the hash nor the UDP secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRow")
            .field("id", &self.id)
            .field("hint", &self.hint)
            .field("tier", &self.tier)
            .field("revoked_time_ms", &self.revoked_time_ms)
            .field("change", &self.change)
            .finish_non_exhaustive()
    }
}

/// A key to be stored: as [`KeyRow`], but for what the store gives it (number, change).
#[derive(Clone)]
pub struct NewKey {
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// See [`KeyRow::hint`].
    pub hint: String,
    /// See [`KeyRow::name`].
    pub name: String,
    /// See [`KeyRow::tier`].
    pub tier: String,
    /// See [`KeyRow::limit_per_second`].
    pub limit_per_second: Option<u32>,
    /// See [`KeyRow::limit_per_month`].
    pub limit_per_month: Option<u64>,
    /// See [`KeyRow::permissions`].
    pub permissions: Option<u16>,
    /// See [`KeyRow::udp_secret`].
    pub udp_secret: [u8; 16],
    /// See [`KeyRow::expires_time_ms`].
    pub expires_time_ms: Option<u64>,
}

/// A change to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// It does not work from this time on, Unix ms.
    Revoke {
        /// When.
        time_ms: u64,
    },
    /// It works until this time at the longest, Unix ms.
    Expire {
        /// When.
        time_ms: u64,
    },
}

/// A row of `rate_limit_template`: what a tier allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TierRow {
    /// Its name: `demo`, `basic`, `pro`, `enterprise`, `stress`, or the operator's own.
    pub name: String,
    /// 0 is shed first, 3 last; 0 ..= 3.
    pub rank: u8,
    /// Requests per second.
    pub limit_per_second: u32,
    /// Requests per second in performance mode, where that differs.
    pub limit_per_second_performance: Option<u32>,
    /// Requests per calendar month (UTC); 0: no bound.
    pub limit_per_month: u64,
    /// Permission bits.
    pub permissions: u16,
}

/// A row of `exchange_asset_map`: an asset that a venue shall be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetRow {
    /// The venue's name, as in `Venue::name`.
    pub exchange: String,
    /// The asset's symbol.
    pub asset: String,
    /// Rows that are not enabled are kept and do nothing.
    pub enabled: bool,
}

/// Who did what, when: one row of the audit trail. Values of secrets are masked by whoever makes the entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// When, Unix ms.
    pub time_ms: u64,
    /// On which node.
    pub node: String,
    /// Who: `admin`, `command line`, …
    pub caller: String,
    /// What, such as `key.create`, `params.put`, `params.reload`, `mode.set`, `cache.write`.
    pub action: String,
    /// On what, such as a key's number or a parameter's name.
    pub target: String,
    /// What stood before, as JSON text; `null` for nothing.
    pub before: String,
    /// What stands after, as JSON text; `null` for nothing.
    pub after: String,
}

/// Requests of one key in one month, to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonthUse {
    /// Whose.
    pub key: u32,
    /// Calendar month, UTC: year × 12 + month − 1.
    pub month: u32,
    /// How many.
    pub requests: u64,
}

/// What a migration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Version before; `None`: there was no schema.
    pub from: Option<i64>,
    /// Version now.
    pub to: i64,
}

/// A database. Calls may run at the same time; each is one transaction.
#[async_trait]
pub trait Store: UsageRead + UsageWrite + SyncRead + Send + Sync {
    /// `postgres` or `sqlite`.
    fn kind(&self) -> &'static str;

    /// How it is: for metrics. Costs nothing.
    fn health(&self) -> StoreHealth {
        StoreHealth::default()
    }

    /// Bounds of the connection pool from now on: open ones, and how many of them are kept when idle. Connections in
    /// use are not cut. Without effect where the bound is another (SQLite).
    async fn set_pool(&self, open_max: u32, idle_max: u32);

    /// Brings the schema to this program's version. It alone may take longer than [`CALL_MAX`]: up to 300 s. Safe to
    /// run twice, and at once on two nodes.
    async fn migrate(&self) -> Stored<Migrated>;

    /// Whether anything has changed.
    async fn pulse(&self) -> Stored<Pulse>;

    /// Up to `limit` keys whose last change is above `after`, by change: revoked and expired ones too.
    async fn keys_changed(&self, after: i64, limit: usize) -> Stored<Vec<KeyRow>>;

    /// Up to `limit` keys whose number is above `after`, by number.
    async fn keys(&self, after: u32, limit: usize) -> Stored<Vec<KeyRow>>;

    /// One key.
    async fn key(&self, id: u32) -> Stored<Option<KeyRow>>;

    /// Stores a new key. `replaces`: the key it takes the place of, which expires at the given time (Unix ms) at the
    /// latest and must be neither revoked nor rotated already (`Conflict`).
    async fn create_key(&self, key: &NewKey, replaces: Option<(u32, u64)>, audit: &AuditEntry) -> Stored<KeyRow>;

    /// Changes one key; the row as it then stands.
    async fn change_key(&self, id: u32, change: KeyChange, audit: &AuditEntry) -> Stored<KeyRow>;

    /// Every tier, by rank and name.
    async fn tiers(&self) -> Stored<Vec<TierRow>>;

    /// Adds or replaces a tier.
    async fn put_tier(&self, tier: &TierRow, audit: &AuditEntry) -> Stored<()>;

    /// Every parameter that is set, by name.
    async fn parameters(&self) -> Stored<BTreeMap<String, String>>;

    /// Sets (or, with `None`, unsets) parameters, all or none. `expected` is what the caller saw of every named
    /// parameter; when it is no longer so the answer is `Conflict`.
    async fn put_parameters(
        &self,
        changes: &BTreeMap<String, Option<String>>,
        expected: &BTreeMap<String, Option<String>>,
        audit: &[AuditEntry],
    ) -> Stored<()>;

    /// Notes that parameters are to be taken over by every node: `Pulse::reloads` grows by one; its new value.
    async fn note_reload(&self, audit: &AuditEntry) -> Stored<i64>;

    /// Every row of `exchange_asset_map`, by exchange and asset.
    async fn asset_map(&self) -> Stored<Vec<AssetRow>>;

    /// Replaces the whole asset list of one exchange.
    async fn put_asset_map(&self, exchange: &str, rows: &[AssetRow], audit: &AuditEntry) -> Stored<()>;

    /// Adds what keys have used, once: `writer` names a process since its start, and `batch` grows by one with each of
    /// its batches, from 1; a batch that was added already changes nothing. Answers the new totals of the named keys.
    async fn add_month_use(&self, writer: &str, batch: i64, rows: &[MonthUse]) -> Stored<Vec<MonthUse>>;

    /// Totals of the given keys in one month; keys without a row are left out.
    async fn month_use(&self, month: u32, keys: &[u32]) -> Stored<Vec<MonthUse>>;

    /// Adds an entry that belongs to no other change.
    async fn audit(&self, entry: &AuditEntry) -> Stored<()>;

    /// Up to `limit` entries, newest first, that are older than entry `before` (`None`: from the newest), with their
    /// numbers.
    async fn audit_page(&self, before: Option<i64>, limit: usize) -> Stored<Vec<(i64, AuditEntry)>>;

    /// Closes every connection.
    async fn close(&self);
}
