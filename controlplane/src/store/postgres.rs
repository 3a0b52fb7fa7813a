//! Connections to PostgreSQL: a pool that forgets what hangs.
//!
//! A connection that let a call run out, or whose call was given up, is closed at once. From then on the whole pool is
//! in doubt, because what swallowed one connection has likely swallowed all: a new pool takes its place, and idle
//! connections of the old one are closed rather than asked. Reports have a few connections of their own, each of which
//! is closed alone: that one was slow or given up says nothing of the others. Where the server is, is known; what is
//! asked is not.

use super::fault::meaning;
use super::schema;
use super::session::{Access, Link, in_time};
use super::sql::{Source, SqlStore};
use super::supply::{FETCH_MAX, Supply};
use super::{CALL_MAX, Migrated, REPORT_CALLS_MAX, REPORT_TURN_MAX, StoreError, Stored};
use crate::resolver::Resolver;
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

/// What each connection for reports is told first. The server gives up a statement before the call does, and, from
/// version 14 on, soon after the connection was closed under it; one that cannot is not asked to. Compiling a statement
/// costs more than any of these takes; sums of many groups stay in memory, 32 MiB for each of the few turns.
const REPORT_WORDS: &str = "SET statement_timeout = 25000; SET idle_in_transaction_session_timeout = 10000; \
    SET default_transaction_read_only = on; SET jit = off; SET work_mem = '32MB'; \
    DO $$ BEGIN PERFORM set_config('client_connection_check_interval', '500', false); \
    EXCEPTION WHEN OTHERS THEN NULL; END $$";

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
    resolver: Resolver,
}

struct State {
    options: PgConnectOptions,
    bounds: (u32, u32),
    /// For everything but reports.
    pool: Pooled,
    /// For reports.
    reports: Pooled,
    closed: bool,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Calls that end within `CALL_MAX`.
    Calls,
    /// Reports.
    Reports,
}

/// A pool, and whether it is in doubt.
#[derive(Clone)]
struct Pooled {
    pool: PgPool,
    idle_max: u32,
    doubted: Arc<AtomicBool>,
    purpose: Purpose,
}

/// What a connection goes back to.
pub struct Hold(Pooled);

impl Hold {
    /// Gives a connection back, or closes it when it is not sound.
    pub fn release(self, mut link: PoolConnection<Postgres>, sound: bool) {
        let Self(pooled) = self;
        if !sound {
            if pooled.purpose == Purpose::Calls {
                pooled.doubted.store(true, Ordering::Relaxed);
            }
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

/// How a pool's bounds, of connections open and idle, are shared out: of those of all connections a quarter is for
/// reports, as many as there are turns at the most. Either has one at least, even of one in all.
fn share((open_max, idle_max): (u32, u32), purpose: Purpose) -> (u32, u32) {
    let turns = u32::try_from(REPORT_CALLS_MAX).unwrap_or(u32::MAX);
    let (open, idle) = ((open_max / 4).clamp(1, turns), (idle_max / 4).min(turns));
    match purpose {
        Purpose::Reports => (open, idle),
        Purpose::Calls => (open_max.saturating_sub(open).max(1), idle_max - idle),
    }
}

/// A pool without a connection yet, with its share of what `bounds` allow in all.
fn pooled(options: &PgConnectOptions, bounds: (u32, u32), purpose: Purpose) -> Pooled {
    let bounds = share(bounds, purpose);
    let (words, wait_max) = match purpose {
        Purpose::Calls => (FIRST_WORDS, ACQUIRE_MAX),
        // There may be more turns than connections.
        Purpose::Reports => (REPORT_WORDS, REPORT_TURN_MAX),
    };
    let doubted = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&doubted);
    let pool = PgPoolOptions::new()
        .max_connections(bounds.0)
        .acquire_timeout(wait_max)
        .acquire_slow_threshold(CALL_MAX)
        .max_lifetime(LIFETIME)
        .idle_timeout(IDLE_MAX)
        .test_before_acquire(false)
        .after_connect(move |link, _| Box::pin(async move { link.execute(sqlx::raw_sql(words)).await.map(drop) }))
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
    Pooled { pool, idle_max: bounds.1, doubted, purpose }
}

impl State {
    const fn of(&mut self, purpose: Purpose) -> &mut Pooled {
        match purpose {
            Purpose::Calls => &mut self.pool,
            Purpose::Reports => &mut self.reports,
        }
    }

    /// Puts a new pool in the place of the present one, whose connections in use are left until they come back.
    fn replace(&mut self, purpose: Purpose) {
        let new = pooled(&self.options, self.bounds, purpose);
        let old = std::mem::replace(self.of(purpose), new);
        // Ends when the last connection has come back, which is after one call at the most.
        tokio::spawn(async move { old.pool.close().await });
    }

    fn replace_all(&mut self) {
        self.replace(Purpose::Calls);
        self.replace(Purpose::Reports);
    }
}

impl PgSource {
    fn new(options: PgConnectOptions, supply: Option<Arc<Supply>>) -> Self {
        let options = options.disable_statement_logging();
        let of = |purpose| pooled(&options, BOUNDS, purpose);
        let (pool, reports) = (of(Purpose::Calls), of(Purpose::Reports));
        Self {
            state: Mutex::new(State { options, bounds: BOUNDS, pool, reports, closed: false }),
            supply,
            resolver: Resolver::default(),
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
        match timeout_at(deadline, self.resolver.found(&host, port)).await {
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
    fn pool(&self, purpose: Purpose) -> Stored<Pooled> {
        let mut state = self.state();
        if state.closed {
            return Err(StoreError::Unreachable("the store is closed".to_owned()));
        }
        if state.of(purpose).doubted.load(Ordering::Relaxed) {
            state.replace(purpose);
        }
        Ok(state.of(purpose).clone())
    }

    /// A connection, that must be had by `deadline`.
    async fn take(&self, purpose: Purpose, deadline: Instant) -> Stored<Link> {
        self.known(deadline).await?;
        loop {
            let pooled = self.pool(purpose)?;
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

    /// Connects otherwise from now on: with other credentials.
    pub fn set_options(&self, options: PgConnectOptions) {
        let mut state = self.state();
        state.options = options.disable_statement_logging();
        if !state.closed {
            state.replace_all();
        }
    }
}

#[async_trait]
impl Source for PgSource {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn link(&self, _access: Access, deadline: Instant) -> Stored<Link> {
        self.take(Purpose::Calls, deadline).await
    }

    async fn report_link(&self, deadline: Instant) -> Stored<Link> {
        self.take(Purpose::Reports, deadline).await
    }

    async fn set_pool(&self, open_max: u32, idle_max: u32) {
        let bounds = (open_max.max(1), idle_max.min(open_max));
        let mut state = self.state();
        if state.bounds != bounds && !state.closed {
            state.bounds = bounds;
            state.replace_all();
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
        let pools = [&state.pool.pool, &state.reports.pool];
        let idle = pools.iter().map(|pool| pool.num_idle()).sum::<usize>();
        (pools.iter().map(|pool| pool.size()).sum(), u32::try_from(idle).unwrap_or(u32::MAX))
    }

    fn fetches(&self) -> (u64, u64) {
        self.supply.as_ref().map_or((0, 0), |supply| supply.counts())
    }

    async fn close(&self) {
        if let Some(supply) = &self.supply {
            supply.stop();
        }
        let (pool, reports) = {
            let mut state = self.state();
            state.closed = true;
            (state.pool.pool.clone(), state.reports.pool.clone())
        };
        // Connections in use come back within a call; one that does not is closed with the process.
        drop(timeout(CALL_MAX, async { tokio::join!(pool.close(), reports.close()) }).await);
    }
}

impl Drop for PgSource {
    fn drop(&mut self) {
        if let Some(supply) = &self.supply {
            supply.stop();
        }
    }
}
