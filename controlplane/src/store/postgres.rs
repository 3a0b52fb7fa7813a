//! Connections to PostgreSQL: a pool that forgets what hangs.
//!
//! A connection that let a call run out, or whose call was given up, is closed at once. From then on the whole pool is
//! in doubt, because what swallowed one connection has likely swallowed all: a new pool takes its place, and idle
//! connections of the old one are closed rather than asked. Where the server is, is known; what is asked is not.

use super::fault::meaning;
use super::schema;
use super::session::{Access, Link, in_time};
use super::sql::{Source, SqlStore};
use super::supply::{FETCH_MAX, Supply};
use super::{CALL_MAX, Migrated, StoreError, Stored};
use crate::lookup::Lookup;
use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, Postgres};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Longest wait for a connection, new or idle; within it a call still has a second to be done.
const ACQUIRE_MAX: Duration = Duration::from_secs(2);

/// A connection that was idle for longer is asked whether it is there before a call relies on it.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

/// Longest that it may take to say so.
const PING_MAX: Duration = Duration::from_millis(500);

/// After this time a connection is replaced, so that a server behind a name that has moved is found.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// An idle connection is closed after this time.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);

/// What each connection is told first. The server gives up a statement before the call does, so that a slow one is told
/// from a server that is gone; a transaction whose client has vanished ends by itself.
const FIRST_WORDS: &str = "SET statement_timeout = 2500; SET idle_in_transaction_session_timeout = 10000";

/// Bounds of the pool until parameters say otherwise: `db_max_open_conns` and `db_max_idle_conns` of the replaced
/// system.
const BOUNDS: (u32, u32) = (150, 75);

/// A store over PostgreSQL.
pub type PgStore = SqlStore<PgSource>;

/// Where connections to PostgreSQL come from.
pub struct PgSource {
    state: Mutex<State>,
    /// Who brings the credentials, where they are not in the address.
    supply: Option<Arc<Supply>>,
    lookup: Lookup,
}

struct State {
    options: PgConnectOptions,
    bounds: (u32, u32),
    pool: Pooled,
    closed: bool,
}

/// A pool, and whether it is in doubt.
#[derive(Clone)]
struct Pooled {
    pool: PgPool,
    idle_max: u32,
    doubted: Arc<AtomicBool>,
}

/// What a connection goes back to.
pub struct Hold(Pooled);

impl Hold {
    /// Gives a connection back, or closes it when it is not sound.
    pub fn release(self, mut link: PoolConnection<Postgres>, sound: bool) {
        let Self(pooled) = self;
        if !sound {
            pooled.doubted.store(true, Ordering::Relaxed);
            // Out of the pool and dropped: the socket is closed without a word, which a peer that hangs would not hear.
            drop(link.detach());
        } else if pooled.pool.num_idle() >= usize::try_from(pooled.idle_max).unwrap_or(usize::MAX) {
            link.close_on_drop();
        }
    }
}

impl PgStore {
    /// A store on a server that is looked for when it is first used.
    #[must_use]
    pub fn lazy(options: PgConnectOptions) -> Self {
        SqlStore::new(PgSource::new(options, None))
    }
}

/// A pool without a connection yet.
fn pooled(options: &PgConnectOptions, bounds: (u32, u32)) -> Pooled {
    let doubted = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&doubted);
    let pool = PgPoolOptions::new()
        .max_connections(bounds.0)
        .acquire_timeout(ACQUIRE_MAX)
        .acquire_slow_threshold(CALL_MAX)
        .max_lifetime(LIFETIME)
        .idle_timeout(IDLE_MAX)
        .test_before_acquire(false)
        .after_connect(|link, _| Box::pin(async move { link.execute(sqlx::raw_sql(FIRST_WORDS)).await.map(drop) }))
        .before_acquire(move |link, meta| {
            let doubted = Arc::clone(&asked);
            Box::pin(async move {
                if doubted.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                if meta.idle_for < IDLE_TRUSTED || matches!(timeout(PING_MAX, link.ping()).await, Ok(Ok(()))) {
                    return Ok(true);
                }
                doubted.store(true, Ordering::Relaxed);
                Ok(false)
            })
        })
        .connect_lazy_with(options.clone());
    Pooled { pool, idle_max: bounds.1, doubted }
}

impl State {
    /// Puts a new pool in the place of the present one, whose connections in use are left until they come back.
    fn replace(&mut self) {
        let old = std::mem::replace(&mut self.pool, pooled(&self.options, self.bounds));
        // Ends when the last connection has come back, which is after one call at the most.
        tokio::spawn(async move { old.pool.close().await });
    }
}

impl PgSource {
    fn new(options: PgConnectOptions, supply: Option<Arc<Supply>>) -> Self {
        let options = options.disable_statement_logging();
        let pool = pooled(&options, BOUNDS);
        Self {
            state: Mutex::new(State { options, bounds: BOUNDS, pool, closed: false }),
            supply,
            lookup: Lookup::default(),
        }
    }

    /// A source that nobody gets a connection from before `supply` has [set](Self::set_options) how to connect.
    pub fn supplied(supply: Arc<Supply>) -> Self {
        Self::new(PgConnectOptions::new_without_pgpass(), Some(supply))
    }

    /// Waits until it is known how to connect, but no longer than until `deadline`.
    async fn known(&self, deadline: Instant) -> Stored<()> {
        match &self.supply {
            Some(supply) => supply.known(deadline).await,
            None => Ok(()),
        }
    }

    fn note<T>(&self, made: &Result<T, sqlx::Error>) {
        if let Some(supply) = &self.supply {
            supply.note(made);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // What it guards is sound after every line that changes it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the server's name is found, but no longer than until `deadline`: a connection is likely to be made.
    async fn found(&self, deadline: Instant) -> Stored<()> {
        let (host, port) = {
            let options = &self.state().options;
            if options.get_socket().is_some() || options.get_host().starts_with('/') {
                return Ok(());
            }
            (options.get_host().to_owned(), options.get_port())
        };
        match timeout_at(deadline, self.lookup.found(&host, port)).await {
            Ok(found) => {
                let found = found.map_err(sqlx::Error::Io);
                if found.is_err() {
                    self.note(&found);
                }
                found.map_err(|why| meaning(&why))
            }
            Err(_) => Err(StoreError::Unreachable("its name is still being looked up".to_owned())),
        }
    }

    /// The pool to use now.
    fn pool(&self) -> Stored<Pooled> {
        let mut state = self.state();
        if state.closed {
            return Err(StoreError::Unreachable("the store is closed".to_owned()));
        }
        if state.pool.doubted.load(Ordering::Relaxed) {
            state.replace();
        }
        Ok(state.pool.clone())
    }

    /// Connects otherwise from now on: with other credentials.
    pub fn set_options(&self, options: PgConnectOptions) {
        let mut state = self.state();
        state.options = options.disable_statement_logging();
        if !state.closed {
            state.replace();
        }
    }
}

#[async_trait]
impl Source for PgSource {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn link(&self, _access: Access, deadline: Instant) -> Stored<Link> {
        self.known(deadline).await?;
        loop {
            let pooled = self.pool()?;
            if pooled.pool.num_idle() == 0 {
                self.found(deadline).await?;
            }
            let made = timeout_at(deadline, pooled.pool.acquire()).await;
            if let Ok(made) = &made {
                self.note(made);
            }
            match made {
                Ok(Ok(link)) => return Ok(Link::Postgres(link, Hold(pooled))),
                // It was replaced in between.
                Ok(Err(sqlx::Error::PoolClosed)) if Instant::now() < deadline => {}
                Ok(Err(why)) => return Err(meaning(&why)),
                Err(_) => return in_time(deadline, std::future::pending()).await,
            }
        }
    }

    async fn set_pool(&self, open_max: u32, idle_max: u32) {
        let bounds = (open_max.max(1), idle_max.min(open_max));
        let mut state = self.state();
        if state.bounds != bounds && !state.closed {
            state.bounds = bounds;
            state.replace();
        }
    }

    async fn migrate(&self) -> Stored<Migrated> {
        self.known(Instant::now() + FETCH_MAX).await?;
        let options = self.state().options.clone();
        let mut link = match timeout(CALL_MAX, options.connect()).await {
            Ok(link) => {
                self.note(&link);
                link.map_err(|error| meaning(&error))?
            }
            Err(_) => return Err(StoreError::Unreachable(format!("no connection within {} s", CALL_MAX.as_secs()))),
        };
        let done = schema::migrate(&mut link, &schema::for_postgres()).await;
        drop(timeout(PING_MAX, link.close()).await);
        done
    }

    fn connections(&self) -> (u32, u32) {
        let state = self.state();
        (state.pool.pool.size(), u32::try_from(state.pool.pool.num_idle()).unwrap_or(u32::MAX))
    }

    fn fetches(&self) -> (u64, u64) {
        self.supply.as_ref().map_or((0, 0), |supply| supply.counts())
    }

    async fn close(&self) {
        if let Some(supply) = &self.supply {
            supply.stop();
        }
        let pool = {
            let mut state = self.state();
            state.closed = true;
            state.pool.pool.clone()
        };
        // Connections in use come back within a call; one that does not is closed with the process.
        drop(timeout(CALL_MAX, pool.close()).await);
    }
}

impl Drop for PgSource {
    fn drop(&mut self) {
        if let Some(supply) = &self.supply {
            supply.stop();
        }
    }
}
