//! Ctrl-C and SIGTERM: the first asks the run to end with what it has, the second ends the process.

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a shell calls a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Whether someone wants the run to end.
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system does not let a signal be caught.
    pub fn listen() -> anyhow::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let remedy = "cannot catch signals: run it outside of a sandbox that denies sigaction";
            // In this order: the first signal finds the flag down, passes, and raises it; the second finds it up.
            flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&asked)).context(remedy)?;
            flag::register(signal, Arc::clone(&asked)).context(remedy)?;
        }
        Ok(Self(asked))
    }

    /// Whether it was asked.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
