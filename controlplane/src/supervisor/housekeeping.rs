//! One thread that empties the rings nobody wakes us for, and notices a thread that has ended by itself, of the data
//! plane or of the lookup desk.
//!
//! It is no task of the runtime, so that a busy runtime delays neither.

use crate::api::ApiState;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Time between two rounds. A tick ring of 4,096 then takes 80,000 ticks a second before any is conflated. Usage is the
/// journal's thread's to drain; it is drained here too, so that totals and months go on while a disk hangs.
const ROUND: Duration = Duration::from_millis(50);

/// What empties the rings of ticks and of usage.
pub fn rings(state: &Arc<ApiState>) -> impl Fn() + Send + 'static {
    let state = Arc::clone(state);
    move || {
        state.prices.drain();
        state.usage.drain();
    }
}

/// The running thread.
pub struct Housekeeping {
    stop: Sender<()>,
    thread: JoinHandle<()>,
    failed: Option<oneshot::Receiver<String>>,
}

impl Housekeeping {
    /// Starts the thread, which does `drain` and asks `failed_thread` for the name of one that has ended by itself.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn start(
        drain: impl Fn() + Send + 'static,
        failed_thread: impl Fn() -> Option<String> + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded(1);
        let (fail, failed) = oneshot::channel();
        let mut fail = Some(fail);
        let thread = std::thread::Builder::new().name("housekeeping".to_owned()).spawn(move || {
            while stopped.recv_timeout(ROUND) == Err(RecvTimeoutError::Timeout) {
                drain();
                let Some(name) = failed_thread() else { continue };
                if let Some(fail) = fail.take() {
                    // Nobody listens any more when the process is ending anyway.
                    let _ = fail.send(name);
                }
            }
        })?;
        Ok(Self { stop, thread, failed: Some(failed) })
    }

    /// Waits until a thread has ended by itself; its name. To be waited for once.
    pub async fn failure(&mut self) -> String {
        match self.failed.take() {
            Some(failed) => failed.await.unwrap_or_else(|_| "the housekeeping thread".to_owned()),
            None => std::future::pending().await,
        }
    }

    /// Ends the thread.
    pub fn stop(self) {
        drop(self.stop);
        // A thread that panicked has said so on stderr.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[tokio::test]
    async fn the_thread_that_failed_is_named_and_draining_goes_on() {
        let rounds = Arc::new(AtomicU64::new(0));
        let (drained, asked) = (Arc::clone(&rounds), Arc::clone(&rounds));
        let drain = move || {
            drained.fetch_add(1, Ordering::Relaxed);
        };
        let failed = move || (asked.load(Ordering::Relaxed) >= 2).then(|| "lookups".to_owned());
        let mut housekeeping = Housekeeping::start(drain, failed).expect("a thread");
        assert_eq!(housekeeping.failure().await, "lookups");
        let then = rounds.load(Ordering::Relaxed);
        let deadline = tokio::time::Instant::now() + harness::PATIENCE;
        while rounds.load(Ordering::Relaxed) < then + 2 {
            assert!(tokio::time::Instant::now() < deadline, "draining ended");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        housekeeping.stop();
    }
}
