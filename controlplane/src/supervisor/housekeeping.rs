//! One thread that empties the rings nobody wakes us for, and notices a data plane thread that has ended.
//!
//! It is no task of the runtime, so that a busy runtime delays neither.

use crate::api::ApiState;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use dataplane_engine::DataPlane;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Time between two rounds. A tick ring of 4,096 then takes 80,000 ticks a second before any is conflated. Usage is the
/// journal's thread's to drain; it is drained here too, so that totals and months go on while a disk hangs.
const ROUND: Duration = Duration::from_millis(50);

/// The running thread.
pub struct Housekeeping {
    stop: Sender<()>,
    thread: JoinHandle<()>,
    failed: Option<oneshot::Receiver<String>>,
}

impl Housekeeping {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn start(plane: Arc<DataPlane>, state: Arc<ApiState>) -> io::Result<Self> {
        let (stop, stopped) = bounded(1);
        let (fail, failed) = oneshot::channel();
        let mut fail = Some(fail);
        let thread = std::thread::Builder::new().name("housekeeping".to_owned()).spawn(move || {
            while stopped.recv_timeout(ROUND) == Err(RecvTimeoutError::Timeout) {
                state.prices.drain();
                state.usage.drain();
                let Some(name) = plane.failed_thread() else { continue };
                if let Some(fail) = fail.take() {
                    // Nobody listens any more when the process is ending anyway.
                    let _ = fail.send(name);
                }
            }
        })?;
        Ok(Self { stop, thread, failed: Some(failed) })
    }

    /// Waits until a thread of the data plane has ended by itself; its name. To be waited for once.
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
