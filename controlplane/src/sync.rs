//! The database's copy in the cache, for programs beside this one: made whole, or brought up to date with what has come
//! since the last time.
//!
//! Everything is written so that writing it twice is as good as once, whoever else writes the same meanwhile, and ends by
//! its own time. Up to where the copy is whole is noted in the cache itself once everything is written, and only if the
//! cache is still the one that it was written to. So a copy that was begun and not ended is begun again, one that was lost
//! is made anew, and what came while one was made is found by the next. Who asks for it when is not known here.

mod cursor;
mod keys;
mod logs;
mod rows;
pub mod schedule;
mod settings;

use self::cursor::{Cursor, Standing};
use crate::cache::{Cache, CacheError};
use crate::params::check::Base;
use crate::store::{Store, StoreError};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinError;
use tuning::clock;

/// A day, ms.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// How far back usage goes in the cache, ms: as long as its names live.
const KEPT_MS: u64 = 93 * DAY_MS;

/// Times that a copy is begun again because the cache was emptied under it.
const TRIES: usize = 3;

/// Why a copy is not made.
#[derive(Debug)]
pub enum SyncError {
    /// The database failed.
    Store(StoreError),
    /// The cache failed.
    Cache(CacheError),
    /// The cache was emptied each time.
    Emptied,
    /// The cache holds a copy of another database.
    OtherDatabase,
    /// A part of it has ended before its end.
    Ended(String),
}

impl SyncError {
    fn of_task(why: JoinError) -> Self {
        Self::Ended(why.to_string())
    }
}

impl fmt::Display for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(why) => why.fmt(f),
            Self::Cache(why) => write!(f, "{why}: {}", remedy(why)),
            Self::Emptied => write!(f, "the cache was emptied {TRIES} times while it was written to: run it again"),
            Self::OtherDatabase => f.write_str(
                "the cache holds a copy of another database, which is left as it is: give each database a cache of its own \
                 (CACHE_URL), or run sync --full once where this one is to take its place",
            ),
            Self::Ended(why) => {
                write!(f, "a part of the sync has ended before its end: {why}: please report it, and run it again")
            }
        }
    }
}

impl std::error::Error for SyncError {}

impl From<StoreError> for SyncError {
    fn from(why: StoreError) -> Self {
        Self::Store(why)
    }
}

impl From<CacheError> for SyncError {
    fn from(why: CacheError) -> Self {
        Self::Cache(why)
    }
}

/// What to do where a cache fails.
const fn remedy(why: &CacheError) -> &'static str {
    match why {
        CacheError::Unreachable(_) => "see that the server of CACHE_URL runs, takes its user and is not overloaded",
        CacheError::Refused(_) => "see the server's maxmemory, its disk and the rights of CACHE_URL's user",
    }
}

/// What one part came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Entries written.
    pub written: u64,
    /// Entries deleted.
    pub deleted: u64,
    /// How long it took, ms; parts are made at the same time.
    pub took_ms: u64,
}

/// What a round came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Why everything was written; `None`: only what has come since the last time.
    pub full: Option<&'static str>,
    /// Parameters, as fields of `app:config`.
    pub parameters: Part,
    /// Exchanges in `exchange_asset_map`.
    pub assets: Part,
    /// API keys.
    pub keys: Part,
    /// Usage rows.
    pub usage: Part,
    /// Reports that were asked for.
    pub reports: Part,
    /// Why `app:config` was left as it stands, if it was.
    pub refused: Option<String>,
    /// How long all of it took, ms.
    pub took_ms: u64,
}

impl Summary {
    /// For people: a line for each part.
    #[must_use]
    pub fn text(&self) -> String {
        let kind = self.full.map_or_else(|| "incremental".to_owned(), |why| format!("full ({why})"));
        let mut text = format!("sync: {kind}, {} ms\n", self.took_ms);
        for (name, part) in [
            ("parameters", self.parameters),
            ("assets", self.assets),
            ("keys", self.keys),
            ("usage", self.usage),
            ("reports", self.reports),
        ] {
            let Part { written, deleted, took_ms } = part;
            text.push_str(&format!("  {name}: {written} written, {deleted} deleted, {took_ms} ms\n"));
        }
        if let Some(why) = &self.refused {
            text.push_str(&format!("  app:config was left as it stands: {why}\n"));
        }
        text
    }
}

/// Since a moment, ms.
fn since_ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What a round writes with.
struct Round {
    store: Arc<dyn Store>,
    cache: Arc<dyn Cache>,
    /// Behind what it goes on; `None`: everything.
    since: Option<Cursor>,
    /// When it began, Unix ms.
    now_ms: u64,
}

/// Brings a cache up to date with a database.
pub struct Syncer {
    store: Arc<dyn Store>,
    cache: Arc<dyn Cache>,
    base: Base,
}

impl Syncer {
    /// From `store` to `cache`; `base` are the settings that stand where the store has no parameter.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, cache: Arc<dyn Cache>, base: Base) -> Self {
        Self { store, cache, base }
    }

    /// Brings it up to date, or writes everything where `full` is said or nothing else will do. Only `full` takes the place
    /// of another database's copy.
    ///
    /// # Errors
    /// What failed. What was written stays, and the next round begins where this one did.
    pub async fn run(&self, full: bool) -> Result<Summary, SyncError> {
        for _ in 0..TRIES {
            if let Some(summary) = self.round(full).await? {
                return Ok(summary);
            }
            tracing::warn!(
                "the cache was emptied or given to another copy, or the last sync is too long ago: once more"
            );
        }
        Err(SyncError::Emptied)
    }

    /// One attempt; `None`: the cache is no longer the one that was written to, or the database tells no longer what came.
    async fn round(&self, full: bool) -> Result<Option<Summary>, SyncError> {
        let began = Instant::now();
        // The marks are older than everything that is read after them.
        let (standing, marks) = cursor::begin(&*self.cache, &*self.store, full).await?;
        let Standing { epoch, cursor, why } = standing;
        let why = why.or(full.then_some("asked for"));
        let since = if why.is_some() { None } else { cursor };
        let round = Round {
            store: Arc::clone(&self.store),
            cache: Arc::clone(&self.cache),
            since,
            now_ms: clock::now().wall_ms,
        };
        let settings = settings::write(&round, &self.base).await?;
        let (keys, usage, reports) = tokio::try_join!(
            keys::write(&round, &marks, settings.mode),
            rows::write(&round, &marks),
            logs::write(&round, &marks)
        )?;
        // Newer entries of the audit trail than the marks are there as well: one that goes is noticed all the sooner.
        let witness = cursor::witness(&*self.store, marks.usage, marks.reports, i64::MAX).await?;
        let done = Cursor {
            usage: marks.usage,
            reports: marks.reports,
            keys: keys.keys,
            tiers: keys.tiers,
            keys_time_ms: keys.time_ms,
            witness,
        };
        // Rows whose arrivals went while they were read were not found: everything is read then.
        if let Some(since) = &round.since
            && since.usage < marks.usage
            && self.store.sync_marks().await?.pruned >= since.usage
        {
            return Ok(None);
        }
        if !cursor::end(&*self.cache, &epoch, &done, round.now_ms).await? {
            return Ok(None);
        }
        Ok(Some(Summary {
            full: why,
            parameters: settings.parameters,
            assets: settings.assets,
            keys: keys.part,
            usage,
            reports,
            refused: settings.refused,
            took_ms: since_ms(began),
        }))
    }
}
