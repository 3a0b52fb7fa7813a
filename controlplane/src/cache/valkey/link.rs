//! The connection to a server: made, watched, given up and made again, for as long as the process lives.
//!
//! A session is one client without a reconnection of its own. When its connection ends, or a look at it is not
//! answered in time, it is dropped whole and another is made: so nothing queues for a server that is away, nothing is
//! tried twice behind a caller's back, and a name that now means another machine is looked up again. Between sessions
//! every call fails at once. A server that lets itself be connected to and then says that it cannot serve is told of
//! once, and said to be back when it has served for a while. What calls say is not known here.

use super::super::{CacheError, CacheTimeouts, Cached};
use super::fault::Fault;
use super::health::Health;
use super::script::Script;
use crate::resolver::Resolver;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::config::{Config, UnresponsiveConfig};
use fred::types::{Builder, CustomCommand, Value};
use rand::RngExt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Calls that may be under way at once; further ones fail at once. At 100,000 leases a second and 1 ms each it is 100;
/// each holds about a KiB.
pub const CALLS_MAX: usize = 4_096;

/// Time between two looks at a connection that nobody has complained of. With a look's own bound a server that is gone
/// without a word is known within 1.5 s by the usual time-outs, and within 1 s when it is being called.
const LOOK_EVERY: Duration = Duration::from_millis(1_000);

/// Pause before the first new session, and the longest: each is drawn between half of the present one and the whole,
/// so that nodes do not come back in step; then it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A session of this length was a good one: the pauses begin anew.
const SESSION_GOOD: Duration = Duration::from_secs(10);

/// The connection, as callers and its own task share it.
pub struct Link {
    config: Config,
    /// Host and port, for people.
    host: String,
    client: Mutex<Option<Client>>,
    health: Health,
    dial_ms: AtomicU64,
    read_ms: AtomicU64,
    write_ms: AtomicU64,
    calls: Semaphore,
    /// A call was not answered: look.
    doubt: Notify,
    /// A server said that it is of no use: leave it.
    leave: Notify,
    why_away: Mutex<String>,
    resolver: Resolver,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Read,
    Write,
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// A connection to what `config` names, kept by a task of the present runtime.
    pub fn start(config: Config, timeouts: CacheTimeouts) -> (Arc<Self>, JoinHandle<()>) {
        let hosts: Vec<String> = config.server.hosts().iter().map(|server| server.to_string()).collect();
        let link = Arc::new(Self {
            config,
            host: hosts.join(", "),
            client: Mutex::default(),
            health: Health::new(),
            dial_ms: AtomicU64::new(timeouts.dial_ms),
            read_ms: AtomicU64::new(timeouts.read_ms),
            write_ms: AtomicU64::new(timeouts.write_ms),
            calls: Semaphore::new(CALLS_MAX),
            doubt: Notify::new(),
            leave: Notify::new(),
            why_away: Mutex::new("not connected yet".to_owned()),
            resolver: Resolver::default(),
        });
        let task = tokio::spawn(keep(Arc::clone(&link)));
        (link, task)
    }

    pub fn set_timeouts(&self, timeouts: CacheTimeouts) {
        self.dial_ms.store(timeouts.dial_ms, Ordering::Relaxed);
        self.read_ms.store(timeouts.read_ms, Ordering::Relaxed);
        self.write_ms.store(timeouts.write_ms, Ordering::Relaxed);
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    fn bound(&self, bound: Bound) -> Duration {
        Duration::from_millis(match bound {
            Bound::Read => self.read_ms.load(Ordering::Relaxed),
            Bound::Write => self.write_ms.load(Ordering::Relaxed),
        })
    }

    /// One call, within its bound whatever the server does. Counted.
    pub async fn call<T, F>(&self, bound: Bound, work: impl FnOnce(Client) -> F + Send) -> Cached<T>
    where
        F: Future<Output = Result<T, Fault>> + Send,
    {
        let began = Instant::now();
        let outcome = self.attempt(bound, work).await;
        self.health.count(&outcome, began.elapsed());
        outcome
    }

    async fn attempt<T, F>(&self, bound: Bound, work: impl FnOnce(Client) -> F + Send) -> Cached<T>
    where
        F: Future<Output = Result<T, Fault>> + Send,
    {
        let unreachable = |why: String| Err(CacheError::Unreachable(why));
        let Some(client) = locked(&self.client).clone() else {
            return unreachable(locked(&self.why_away).clone());
        };
        let Ok(_place) = self.calls.try_acquire() else {
            return unreachable(format!("{CALLS_MAX} calls are under way already"));
        };
        let limit = self.bound(bound);
        match timeout(limit, work(client)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(fault)) => {
                match fault {
                    Fault::Useless(_) => self.leave.notify_one(),
                    Fault::Unreachable(_) => self.doubt.notify_one(),
                    Fault::NoScript | Fault::Refused(_) => {}
                }
                Err(fault.into_error())
            }
            Err(_) => {
                self.doubt.notify_one();
                unreachable(format!("no answer within {} ms", limit.as_millis()))
            }
        }
    }

    /// A client for one session: one attempt for a command, no reconnection, and bounds on everything.
    fn client(&self) -> Result<Client, Error> {
        let dial = Duration::from_millis(self.dial_ms.load(Ordering::Relaxed));
        let (read, write) = (self.bound(Bound::Read), self.bound(Bound::Write));
        let clustered = self.config.server.is_clustered();
        Builder::from_config(self.config.clone())
            .with_performance_config(|performance| performance.default_command_timeout = read.max(write))
            .with_connection_config(|connection| {
                connection.connection_timeout = dial;
                connection.internal_command_timeout = read;
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = CALLS_MAX;
                connection.tcp.nodelay = Some(true);
                // A look at a cluster reaches one of its servers; the client itself must notice the others. It looks
                // at the age of what is unanswered, four times a second.
                connection.unresponsive = UnresponsiveConfig {
                    max_timeout: clustered.then_some(read.max(write) * 2),
                    interval: Duration::from_millis(250),
                };
            })
            .build()
    }

    /// Waits until one of the names in the settings is found.
    async fn found(&self) -> io::Result<()> {
        let mut last = Ok(());
        for server in self.config.server.hosts() {
            last = self.resolver.found(&server.host, server.port).await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// No more calls. The task must have been ended.
    pub fn close(&self) {
        self.withdraw("closed");
    }

    /// Takes the client out of use.
    fn withdraw(&self, why: &str) {
        *locked(&self.client) = None;
        why.clone_into(&mut locked(&self.why_away));
        self.health.away();
    }
}

/// Ends a client's own task with the session, and with it the connection.
struct Running(JoinHandle<Result<(), Error>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a session ended at a server's word.
const CANNOT_SERVE: &str = "it says that it cannot serve now";

/// What the log was told.
#[derive(Default)]
struct Told {
    is_away: bool,
    /// Whether a session begun says little of the server: the last ones ended soon, at its own word.
    is_doubtful: bool,
}

impl Told {
    fn is_there(&mut self, host: &str) {
        tracing::info!(cache = host, "the cache {}", if self.is_away { "is back" } else { "answers" });
        *self = Self::default();
    }
}

/// Session after session.
async fn keep(link: Arc<Link>) {
    let mut pause = PAUSE_FIRST;
    let mut told = Told::default();
    loop {
        let began = Instant::now();
        let why = session(&link, &mut told).await;
        link.withdraw(&why);
        told.is_doubtful = told.is_doubtful || why == CANNOT_SERVE;
        if !told.is_away {
            told.is_away = true;
            tracing::warn!(
                cache = link.host,
                "the cache is away ({why}); prices do not need it, and it is tried again"
            );
        }
        if began.elapsed() >= SESSION_GOOD {
            pause = PAUSE_FIRST;
            told.is_doubtful = false;
        }
        let longest_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let drawn_ms = rand::rng().random_range(longest_ms / 2..=longest_ms);
        sleep(Duration::from_millis(drawn_ms)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Connects, gives the client out, and watches it until it is of no use; why.
async fn session(link: &Link, told: &mut Told) -> String {
    let limit = Duration::from_millis(link.dial_ms.load(Ordering::Relaxed)) + link.bound(Bound::Read) * 3;
    match timeout(limit, link.found()).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => return why.to_string(),
        Err(_) => return "its name is still being looked up".to_owned(),
    }
    let client = match link.client() {
        Ok(client) => client,
        Err(error) => return Fault::from(error).into_text(),
    };
    let mut running = Running(client.connect());
    // A connection, credentials, a look and the scripts: each is bounded by itself too.
    let greeted = tokio::select! {
        ended = &mut running.0 => Err(end(ended)),
        greeted = timeout(limit, greet(&client)) => {
            greeted.unwrap_or_else(|_| Err(format!("no connection within {} ms", limit.as_millis())))
        }
    };
    if let Err(why) = greeted {
        return why;
    }
    // What calls of a session before this one said is not about this one.
    let _ = timeout(Duration::ZERO, link.leave.notified()).await;
    *locked(&link.client) = Some(client.clone());
    link.health.connected();
    let mut untold = true;
    let good = Instant::now() + SESSION_GOOD;
    loop {
        if untold && (!told.is_doubtful || Instant::now() >= good) {
            untold = false;
            told.is_there(&link.host);
        }
        tokio::select! {
            ended = &mut running.0 => return end(ended),
            () = link.leave.notified() => return CANNOT_SERVE.to_owned(),
            () = link.doubt.notified() => {}
            () = sleep(LOOK_EVERY) => {}
        }
        let limit = link.bound(Bound::Read);
        match timeout(limit, client.ping::<Value>(None)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Fault::from(error).into_text(),
            Err(_) => return format!("no answer within {} ms", limit.as_millis()),
        }
    }
}

/// Whether this server is one to work with; it gets the scripts, so that the first calls need not bring them.
async fn greet(client: &Client) -> Result<(), String> {
    let told = |error: Error| Fault::from(error).into_text();
    client.wait_for_connect().await.map_err(told)?;
    client.ping::<Value>(None).await.map_err(told)?;
    let role: Result<Value, Error> =
        client.custom(CustomCommand::new_static("ROLE", None::<u16>, false), Vec::<String>::new()).await;
    // A server that does not tell its role to this user is taken for what the settings say it is.
    if let Ok(Value::Array(role)) = role
        && role.first().and_then(|role| role.as_str().map(|role| role == "slave")) == Some(true)
    {
        return Err("it is a replica, which cannot be written to: CACHE_URL must name the primary".to_owned());
    }
    for script in Script::ALL {
        script.load(client).await.map_err(told)?;
    }
    Ok(())
}

fn end(ended: Result<Result<(), Error>, tokio::task::JoinError>) -> String {
    match ended {
        Ok(Ok(())) => "the connection has ended".to_owned(),
        Ok(Err(error)) => Fault::from(error).into_text(),
        Err(_) => "the client's task has ended".to_owned(),
    }
}
