//! What the tests over the whole system share: the real process on free ports, raw HTTP and UDP clients, and waiting
//! for a condition with a deadline.
//!
//! Nothing here knows how the service is built; it sees what a user sees.

pub mod exchanges;
pub mod history;
pub mod http;
pub mod moto;
pub mod planted;
pub mod postgres;
pub mod proxy;
pub mod redis;
pub mod secrets;
pub mod service;
pub mod udp;

use std::time::{Duration, Instant};

/// Longest that [`eventually`] waits. Generous: the machine may be busy, and a test that passes never waits it out.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `probe` until it yields a value.
///
/// # Panics
/// When it has not within [`PATIENCE`]; `what` says what was waited for.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
