//! How long the machine itself stood still: a thread that wants to wake every few milliseconds, and did not.
//!
//! A promise in milliseconds is one of the program's; where the machine gives nobody a turn (a host that is busy, a
//! build beside the test), the program cannot keep it, and a test must not say that it broke it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it wants to wake.
const BEAT: Duration = Duration::from_millis(2);

/// What is no standstill yet: a turn of the scheduler.
const USUAL: Duration = Duration::from_millis(6);

/// The thread.
pub struct Pulse {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, Duration)>>,
}

impl Pulse {
    /// Begins to listen.
    #[must_use]
    pub fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let (mut stalls, mut last) = (Vec::new(), Instant::now());
            while !told.load(Ordering::Relaxed) {
                std::thread::sleep(BEAT);
                let late = last.elapsed().saturating_sub(BEAT);
                last = Instant::now();
                if late > USUAL {
                    stalls.push((last, late));
                }
            }
            stalls
        });
        Self { over, thread }
    }

    /// How long the machine stood still in `window` before `end`, in all.
    ///
    /// # Panics
    /// Never: the thread does not.
    #[must_use]
    pub fn end(self, end: Instant, window: Duration) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        let stalls = self.thread.join().expect("a thread that only sleeps");
        let from = end.checked_sub(window).unwrap_or(end);
        stalls.iter().filter(|(at, late)| *at > from && *at - *late < end).map(|(_, late)| *late).sum()
    }
}
