//! What every store must do, asked of each: SQLite in memory, SQLite in a file, PostgreSQL 15.
//!
//! A test takes a store and knows no database; where it must write behind the store's back it has SQL run as an
//! operator would.

mod faults;
mod keys;
mod others;
mod reports;
mod schema;
mod secret;
mod sync;
mod usage_days;
mod usage_write;

use super::postgres::PgStore;
use super::sqlite::SqliteStore;
use super::{AuditEntry, NewKey, Store};
use crate::config::DatabaseChoice;
use crate::keys::Secret;
use harness::postgres::Postgres;
use sqlx::postgres::PgConnectOptions;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// A database under test.
pub struct Bench {
    pub store: Arc<dyn Store>,
    place: Place,
}

enum Place {
    Memory(Arc<SqliteStore>),
    File { _directory: tempfile::TempDir, path: PathBuf },
    Server { server: Arc<Postgres>, url: String },
}

impl Bench {
    async fn memory() -> Self {
        let store = Arc::new(SqliteStore::memory());
        Self::of(Arc::clone(&store) as Arc<dyn Store>, Place::Memory(store)).await
    }

    async fn file() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store \"of\" tests.sqlite");
        Self::of(Arc::new(SqliteStore::file(&path)), Place::File { _directory: directory, path }).await
    }

    async fn server() -> Self {
        let (server, url) = new_database().await;
        let store = super::open(&choice(&url), None).expect("an address");
        Self::of(store, Place::Server { server, url }).await
    }

    async fn of(store: Arc<dyn Store>, place: Place) -> Self {
        let done = store.migrate().await.expect("a schema");
        assert_eq!(done.from, None);
        Self { store, place }
    }

    /// A second store on the same database, as another node has; `None` where a database is one process's.
    pub fn other(&self) -> Option<Arc<dyn Store>> {
        match &self.place {
            Place::Memory(_) => None,
            Place::File { path, .. } => Some(Arc::new(SqliteStore::file(path))),
            Place::Server { url, .. } => {
                Some(Arc::new(PgStore::lazy(PgConnectOptions::from_str(url).expect("an address"))))
            }
        }
    }

    /// Asks for one text, past what a store tells.
    pub async fn ask(&self, sql: &'static str) -> String {
        let answer = match &self.place {
            Place::Memory(store) => store.ask(sql).await,
            Place::File { path, .. } => SqliteStore::file(path).ask(sql).await,
            Place::Server { url, .. } => {
                PgStore::lazy(PgConnectOptions::from_str(url).expect("an address")).ask(sql).await
            }
        };
        answer.expect("an answer")
    }

    /// Where it is, for a database on a server.
    pub fn url(&self) -> Option<&str> {
        if let Place::Server { url, .. } = &self.place { Some(url) } else { None }
    }

    /// Runs SQL as an operator would; `None` where nobody else gets in.
    pub async fn sql(&self, sql: &'static str) -> Option<String> {
        match &self.place {
            Place::Memory(_) => None,
            Place::File { path, .. } => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let mut link = sqlx::ConnectOptions::connect(&options).await.expect("the file");
                let done = sqlx::raw_sql(sql).execute(&mut link).await;
                sqlx::Connection::close(link).await.expect("an end");
                Some(done.err().map(|error| error.to_string()).unwrap_or_default())
            }
            Place::Server { server, url } => {
                let (server, url) = (Arc::clone(server), url.clone());
                Some(spawn_blocking(move || server.sql(&url, sql)).await.unwrap_or_else(|_| "refused".to_owned()))
            }
        }
    }
}

/// A database of a test's own on the server that tests share.
pub async fn new_database() -> (Arc<Postgres>, String) {
    let made = spawn_blocking(|| {
        let server = Postgres::shared();
        let url = server.new_url_at(server.address());
        (server, url)
    });
    made.await.expect("a server")
}

pub fn choice(url: &str) -> DatabaseChoice {
    DatabaseChoice { url: Some(Secret::new(url.to_owned())), ..DatabaseChoice::default() }
}

/// An audit entry that says `action`.
pub fn audit(action: &str) -> AuditEntry {
    AuditEntry {
        time_ms: 1_793_500_000_000,
        node: "north".to_owned(),
        caller: "admin".to_owned(),
        action: action.to_owned(),
        target: "it".to_owned(),
        before: "null".to_owned(),
        after: "{\"a\":\"b\"}".to_owned(),
    }
}

/// A new key whose hash is `number` over and over.
pub fn new_key(number: u8) -> NewKey {
    NewKey {
        hash: [number; 32],
        hint: "tb_live_abcd".to_owned(),
        name: format!("key {number}"),
        tier: "pro".to_owned(),
        limit_per_second: None,
        limit_per_month: None,
        permissions: None,
        udp_secret: [number; 16],
        expires_time_ms: None,
    }
}

/// Makes a test of each function for each database.
macro_rules! on_every_store {
    ($($test:ident),+ $(,)?) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::store::conformance::Bench::memory().await).await
            })+
        }
        mod in_a_file {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::store::conformance::Bench::file().await).await
            })+
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::store::conformance::Bench::server().await).await
            })+
        }
    };
}
use on_every_store;
