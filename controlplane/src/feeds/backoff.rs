//! When to try again: full-jitter back-off, one failure counted for each outage, and the gate that keeps attempts apart.
//!
//! None knows what is tried. Jitter matters because many nodes lose a venue at the same instant: without it they
//! would all return at the same instant too.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Doublings after which the ceiling no longer grows: 2^16 × 0.5 s is far above every maximum.
const DOUBLINGS_MAX: u32 = 16;

/// So many different things that come to nothing one after the other are an outage: an exchange may well have one that it
/// cannot tell of, or two, and everything else must not wait for that.
const REFUSED_MAX: usize = 3;

/// Waits between attempts that grow, each drawn evenly from the shortest to the present ceiling.
#[derive(Clone, Debug)]
pub struct Backoff {
    min_ms: u64,
    max_ms: u64,
    failures: u32,
}

impl Backoff {
    /// Waits of `min_ms` to `max_ms`.
    #[must_use]
    pub const fn new(min_ms: u64, max_ms: u64) -> Self {
        Self { min_ms, max_ms, failures: 0 }
    }

    /// Longest wait that the next failure can bring, ms: doubles with each failure.
    #[must_use]
    pub fn ceiling_ms(&self) -> u64 {
        let doubled = self.min_ms.saturating_mul(1 << (self.failures + 1).min(DOUBLINGS_MAX));
        doubled.clamp(self.min_ms, self.max_ms.max(self.min_ms))
    }

    /// Counts a failure and draws the wait that follows it.
    pub fn failed(&mut self) -> Duration {
        let wait_ms = rand::random_range(self.min_ms..=self.ceiling_ms());
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(wait_ms)
    }

    /// Forgets the failures: it worked.
    pub const fn worked(&mut self) {
        self.failures = 0;
    }
}

/// A back-off for attempts of which many are under way at once: those that were when one failed say nothing new, so an
/// outage counts once however many it meets, and again only when what was sent after it fails too.
#[derive(Clone, Debug)]
pub struct Outages {
    backoff: Backoff,
    counted: Option<Instant>,
    /// What was refused since anything worked or a failure was counted.
    refused: Vec<String>,
}

impl Outages {
    /// Waits of `min_ms` to `max_ms`.
    #[must_use]
    pub const fn new(min_ms: u64, max_ms: u64) -> Self {
        Self { backoff: Backoff::new(min_ms, max_ms), counted: None, refused: Vec::new() }
    }

    /// An attempt that was sent then has failed: how long to wait from now, if it is the first to tell.
    pub fn failed(&mut self, sent: Instant) -> Option<Duration> {
        if !self.is_news(sent) {
            return None;
        }
        self.refused.clear();
        self.counted = Some(Instant::now());
        Some(self.backoff.failed())
    }

    /// An attempt at `what` that was sent then came to nothing, which may be the fault of `what` alone: a failure once
    /// [`REFUSED_MAX`] different ones did and none worked in between. How long to wait from now, if it is one.
    pub fn refused(&mut self, sent: Instant, what: &str) -> Option<Duration> {
        if self.is_news(sent) && !self.refused.iter().any(|other| other == what) {
            self.refused.push(what.to_owned());
        }
        if self.refused.len() < REFUSED_MAX { None } else { self.failed(sent) }
    }

    /// An attempt that was sent then has worked: the failures before it are forgotten.
    pub fn worked(&mut self, sent: Instant) {
        if self.is_news(sent) {
            self.backoff.worked();
            self.refused.clear();
        }
    }

    fn is_news(&self, sent: Instant) -> bool {
        self.counted.is_none_or(|counted| sent > counted)
    }
}

/// Keeps attempts at least `gap` apart, over everyone who shares it.
#[derive(Debug)]
pub struct Gate {
    gap: Duration,
    next: Mutex<Instant>,
}

impl Gate {
    /// A gate that lets one through at once, then one every `gap_ms`.
    #[must_use]
    pub fn new(gap_ms: u64) -> Self {
        Self { gap: Duration::from_millis(gap_ms), next: Mutex::new(Instant::now()) }
    }

    /// Waits for a turn. Turns are given in the order of the calls; a caller that gives up loses its turn unused.
    pub async fn pass(&self) {
        let turn = self.turn();
        tokio::time::sleep_until(turn).await;
    }

    /// Takes the next turn: when it comes. Whoever may have to give up looks at [`Gate::wait`] first, and takes none that
    /// comes too late.
    #[must_use]
    pub fn turn(&self) -> Instant {
        let mut next = self.next();
        let turn = (*next).max(Instant::now());
        *next = turn + self.gap;
        turn
    }

    /// Lets nobody through for `wait` from now.
    pub fn hold(&self, wait: Duration) {
        let mut next = self.next();
        *next = (*next).max(Instant::now() + wait);
    }

    /// Whether a caller would be let through now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.next() <= Instant::now()
    }

    /// How long a caller would wait. Uses no turn.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.next().saturating_duration_since(Instant::now())
    }

    /// Least time between two turns.
    #[must_use]
    pub const fn gap(&self) -> Duration {
        self.gap
    }

    fn next(&self) -> MutexGuard<'_, Instant> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_and_ends_at_the_maximum() {
        let mut backoff = Backoff::new(500, 30_000);
        let expected = [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
        for ceiling_ms in expected {
            assert_eq!(backoff.ceiling_ms(), ceiling_ms);
            backoff.failed();
        }
        for _ in 0..1_000 {
            backoff.failed();
        }
        assert_eq!(backoff.ceiling_ms(), 30_000, "no overflow");
        backoff.worked();
        assert_eq!(backoff.ceiling_ms(), 1_000);
    }

    #[test]
    fn every_wait_lies_within_its_bounds_and_they_differ() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let mut backoff = Backoff::new(500, 30_000);
            for _ in 0..7 {
                let ceiling = Duration::from_millis(backoff.ceiling_ms());
                let wait = backoff.failed();
                assert!(wait >= Duration::from_millis(500) && wait <= ceiling, "{wait:?} of {ceiling:?}");
                seen.insert(wait);
            }
        }
        assert!(seen.len() > 100, "full jitter: {} different waits", seen.len());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_counts_once_however_many_it_meets() {
        let second = Duration::from_secs(1);
        let mut outages = Outages::new(500, 30_000);
        let sent = Instant::now();
        tokio::time::advance(second).await;
        let waits: Vec<bool> = (0..14).map(|_| outages.failed(sent).is_some()).collect();
        assert_eq!(waits.iter().filter(|waits| **waits).count(), 1, "fourteen were under way");
        assert_eq!((waits[0], outages.backoff.ceiling_ms()), (true, 2_000));
        outages.worked(sent);
        assert_eq!(outages.backoff.ceiling_ms(), 2_000, "what was sent before it is no sign that it is over");
        tokio::time::advance(second).await;
        let sent = Instant::now();
        tokio::time::advance(second).await;
        assert!(outages.failed(sent).is_some_and(|wait| wait <= 2 * second), "it goes on");
        assert_eq!(outages.backoff.ceiling_ms(), 4_000);
        tokio::time::advance(second).await;
        outages.worked(Instant::now());
        assert_eq!(outages.backoff.ceiling_ms(), 1_000, "over");
    }

    /// Whether a second after each attempt was sent ("ok" works, all others are refused) it counted as a failure.
    async fn check_refused(attempts: &[&str], expected: &[bool]) {
        let mut outages = Outages::new(500, 30_000);
        let mut counted = Vec::new();
        for what in attempts {
            let sent = Instant::now();
            tokio::time::advance(Duration::from_secs(1)).await;
            match *what {
                "ok" => outages.worked(sent),
                what => counted.push(outages.refused(sent, what).is_some()),
            }
        }
        assert_eq!(counted, expected, "{attempts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn several_that_are_refused_one_after_the_other_are_an_outage_and_one_is_none() {
        check_refused(&["a"; 9], &[false; 9]).await;
        check_refused(&["a", "b", "a", "b", "a"], &[false; 5]).await;
        check_refused(&["a", "b", "c"], &[false, false, true]).await;
        check_refused(&["a", "b", "ok", "c", "a"], &[false; 4]).await;
        // After one that counted it takes as many again, so that what is always refused makes no outage last.
        check_refused(&["a", "b", "c", "a", "a", "b", "c"], &[false, false, true, false, false, false, true]).await;
        let mut outages = Outages::new(500, 30_000);
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let counted = ["a", "b", "c", "d", "e", "f"].map(|what| outages.refused(sent, what).is_some());
        assert_eq!(counted, [false, false, true, false, false, false], "all were under way");
        assert!(outages.refused.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_a_gap_apart_whoever_asks() {
        let gate = std::sync::Arc::new(Gate::new(1_000));
        let start = Instant::now();
        let waiters: Vec<_> = (0..5)
            .map(|_| {
                let gate = std::sync::Arc::clone(&gate);
                tokio::spawn(async move {
                    gate.pass().await;
                    start.elapsed().as_millis()
                })
            })
            .collect();
        let mut turns = Vec::new();
        for waiter in waiters {
            turns.push(waiter.await.expect("no panic"));
        }
        turns.sort_unstable();
        for pair in turns.windows(2) {
            assert!(pair[1] - pair[0] >= 1_000, "{turns:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_gate_opens_after_the_hold() {
        let gate = Gate::new(10);
        gate.hold(Duration::from_secs(30));
        assert!(!gate.is_open());
        let start = Instant::now();
        gate.pass().await;
        assert!(start.elapsed() >= Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_how_long_it_takes_uses_no_turn() {
        let gate = Gate::new(100);
        assert_eq!((gate.wait(), gate.gap()), (Duration::ZERO, Duration::from_millis(100)));
        let first = gate.turn();
        for _ in 0..3 {
            assert_eq!(gate.wait(), Duration::from_millis(100));
        }
        assert_eq!(gate.turn() - first, Duration::from_millis(100), "nobody else has had a turn");
        gate.hold(Duration::from_secs(5));
        assert_eq!(gate.wait(), Duration::from_secs(5));
    }
}
