//! What is to be driven, and how: everything a level needs besides its number of connections and its rate.

use shared::asset::Symbol;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As the user wrote it.
    pub name: String,
    /// Where it answers HTTP; `None`: TCP is not driven.
    pub tcp: Option<SocketAddr>,
    /// Where it answers datagrams; `None`: UDP is not driven.
    pub udp: Option<SocketAddr>,
}

/// When the next request is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// At its time in a schedule that does not wait for answers; latency counts from the intended time.
    #[default]
    Open,
    /// When the one before is answered: the highest rate, not an honest latency.
    Closed,
}

/// What a datagram says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DatagramFormat {
    /// The 64-byte signed frame.
    #[default]
    Binary,
    /// The JSON object with the key in it.
    Json,
}

/// Who asks. Shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Text of the API key, for HTTP and JSON datagrams.
    pub key: String,
    /// Number of the key, for binary datagrams.
    pub udp_key_id: u32,
    /// Secret of the key, for binary datagrams.
    pub udp_secret: [u8; 16],
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("udp_key_id", &self.udp_key_id).finish_non_exhaustive()
    }
}

/// What every level of a run has in common.
#[derive(Clone, Debug)]
pub struct Job {
    /// Driven in turn; at least one.
    pub targets: Vec<Target>,
    /// Who asks.
    pub credentials: Credentials,
    /// Open schedule or closed loop.
    pub pace: Pace,
    /// Requests that may be in flight on one TCP connection, 1 to 64. A closed loop keeps that many in flight.
    pub pipeline: usize,
    /// Datagrams sent as one train (`UDP_SEGMENT`) by one socket, 1 to 64; 1: one by one.
    pub train: usize,
    /// What a datagram says.
    pub format: DatagramFormat,
    /// Asked for in turn; at least one.
    pub assets: Vec<Symbol>,
    /// Time before counting starts.
    pub warm_up: Duration,
    /// Time counted.
    pub duration: Duration,
    /// An answer that took longer is late.
    pub late_after: Duration,
    /// An answer that has not come by then is lost.
    pub lost_after: Duration,
    /// A price that says it is older is a wrong answer.
    pub age_max: Duration,
    /// CPUs the generator's threads are pinned to, one thread each; empty: `threads` unpinned threads.
    pub cpus: Vec<usize>,
    /// Threads where no CPUs are named; at least 1.
    pub threads: usize,
}

/// What others may see of a level while it runs. Plain counters: written by the generator's threads about ten times a second.
#[derive(Debug, Default)]
pub struct Progress {
    /// Requests sent, warm-up included.
    pub sent: AtomicU64,
    /// Right answers in time, warm-up included.
    pub answered: AtomicU64,
    /// Answers late, wrong, refused, and requests lost, warm-up included.
    pub failed: AtomicU64,
    /// Set by whoever wants the level to end early; what is counted until then is kept.
    stop: AtomicBool,
    /// Set by whoever finds that a target is gone.
    gone: AtomicBool,
}

impl Progress {
    /// Asks the running level, and those after it, to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether to end.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells the running level, and those after it, that a target is gone: nothing more is sent, but what is in flight is
    /// waited for as at a level's end, and is lost where no answer comes.
    pub fn target_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Whether a target is gone.
    #[must_use]
    pub fn is_target_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}
