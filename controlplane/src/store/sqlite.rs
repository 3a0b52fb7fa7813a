//! Connections to SQLite: a file of this node's own, or memory.
//!
//! The file is made for this process's user alone, since it holds the keys' UDP secrets. It is written ahead to a log
//! beside it, so that readers do not wait for a writer; commits are on disk when they are answered.

use super::fault::meaning;
use super::schema;
use super::session::{Access, Link, in_time};
use super::sql::{Source, SqlStore};
use super::{Migrated, StoreError, Stored};
use anyhow::Context;
use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// Connections to a file, each a thread: one writes, the others read meanwhile.
const FILE_CONNECTIONS: u32 = 4;

/// How long a call waits for another process's change to end. Below `CALL_MAX`, so that the fault is told as what it
/// is.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// A store over SQLite.
pub type SqliteStore = SqlStore<SqliteSource>;

/// Where connections to SQLite come from.
pub struct SqliteSource {
    pool: SqlitePool,
    /// The file; `None`: memory.
    file: Option<PathBuf>,
    /// Set once it is there.
    made: OnceCell<()>,
}

impl SqliteStore {
    /// A store in the file at `path`, which is made when it is first used.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        Self::lazy(options.journal_mode(SqliteJournalMode::Wal), Some(path.to_owned()))
    }

    /// A store in memory, gone with the process; without a schema until it is migrated.
    ///
    /// # Panics
    /// Never: the address is a constant.
    #[must_use]
    pub fn memory() -> Self {
        let options = SqliteConnectOptions::from_str("sqlite::memory:").expect("a constant address");
        Self::lazy(options, None)
    }

    /// A store in memory with the schema.
    ///
    /// # Errors
    /// Of SQLite: no memory.
    pub async fn in_memory() -> anyhow::Result<Self> {
        let store = Self::memory();
        store.source().migrate().await.context("cannot make a database in memory")?;
        Ok(store)
    }

    fn lazy(options: SqliteConnectOptions, file: Option<PathBuf>) -> Self {
        let options = options.busy_timeout(BUSY_WAIT).foreign_keys(true).disable_statement_logging();
        // Memory is one connection's: a second would see another database, and the first's end would be its end.
        let connections = if file.is_some() { FILE_CONNECTIONS } else { 1 };
        let pool = SqlitePoolOptions::new()
            .max_connections(connections)
            .idle_timeout(None)
            .max_lifetime(None)
            // A thread of this process needs no question whether it is there; and where a call is given up while it is
            // asked, the connection would go, and with it all that is in memory.
            .test_before_acquire(false)
            // Its own time-out would only be another text for the call's.
            .acquire_timeout(super::CALL_MAX)
            .acquire_slow_threshold(super::CALL_MAX);
        SqlStore::new(SqliteSource { pool: pool.connect_lazy_with(options), file, made: OnceCell::new() })
    }
}

#[async_trait]
impl Source for SqliteSource {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    async fn link(&self, access: Access, deadline: Instant) -> Stored<Link> {
        in_time(deadline, async { Ok(self.made_file().await) }).await??;
        match access {
            Access::Read => Ok(Link::Sqlite(in_time(deadline, self.pool.acquire()).await?)),
            // The right to write is taken at once: a reader that comes to write later may be refused it.
            Access::Write => Ok(Link::SqliteWrite(in_time(deadline, self.pool.begin_with("BEGIN IMMEDIATE")).await?)),
        }
    }

    async fn set_pool(&self, _open_max: u32, _idle_max: u32) {}

    async fn migrate(&self) -> Stored<Migrated> {
        self.made_file().await?;
        let mut link = self.pool.acquire().await.map_err(|error| meaning(&error))?;
        // SQLite knows no lock for migrations: the right to write is one.
        let mut whole = link.begin_with("BEGIN IMMEDIATE").await.map_err(|error| meaning(&error))?;
        let mut versions = schema::for_sqlite();
        versions.set_locking(false);
        let done = schema::migrate(&mut *whole, &versions).await?;
        whole.commit().await.map_err(|error| meaning(&error))?;
        Ok(done)
    }

    fn connections(&self) -> (u32, u32) {
        (self.pool.size(), u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX))
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

impl SqliteSource {
    /// Waits until the file is there, which is looked at until it is.
    async fn made_file(&self) -> Stored<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let make = || async {
            let path = path.clone();
            // A disk that hangs stops this thread, and nobody else's.
            let made = spawn_blocking(move || make_file(&path)).await;
            made.unwrap_or_else(|_| Err(StoreError::Unreachable("the process ends".to_owned())))
        };
        self.made.get_or_try_init(make).await.copied()
    }
}

/// Makes the file, readable by this process's user alone; SQLite would let everybody read it.
fn make_file(path: &Path) -> Stored<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(why) => Err(StoreError::Unreachable(format!(
            "{}: {why}; set DATABASE_URL or TB_DATA_DIR to where a file can be made",
            path.display()
        ))),
    }
}
