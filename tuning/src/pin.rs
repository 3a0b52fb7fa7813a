//! Binding the calling thread to one CPU.
//!
//! A refusal is a warning, never a reason not to serve: the thread goes on wherever the scheduler puts it.

use core_affinity::CoreId;
use std::fmt;
use std::io;

/// Highest CPU number that can be pinned to, plus one: what the C library's fixed mask holds.
const CPUS_MAX: usize = libc::CPU_SETSIZE as usize;

/// The thread was not pinned and floats.
#[derive(Debug)]
pub struct PinRefused {
    cpu: usize,
    reason: io::Error,
}

impl fmt::Display for PinRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not pinned to CPU {}: {}; it runs unpinned. Allow sched_setaffinity and this CPU in the cpuset",
            self.cpu, self.reason
        )
    }
}

impl std::error::Error for PinRefused {}

/// Pins the calling thread to `cpu`. Call it before the thread allocates, so that its memory lies near.
///
/// # Errors
/// The warning to show; the thread is as it was.
pub fn pin_current_thread(cpu: usize) -> Result<(), PinRefused> {
    if cpu >= CPUS_MAX {
        return Err(PinRefused { cpu, reason: io::Error::from_raw_os_error(libc::EINVAL) });
    }
    if core_affinity::set_for_current(CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(PinRefused { cpu, reason: io::Error::last_os_error() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpus::AllowedCpus;

    /// Pins a thread of its own, so that the test runner's is left alone.
    fn pinned(cpu: usize) -> Result<usize, PinRefused> {
        let thread = std::thread::spawn(move || {
            pin_current_thread(cpu)?;
            // SAFETY: takes nothing and touches no memory of ours.
            let runs_on = unsafe { libc::sched_getcpu() };
            Ok(usize::try_from(runs_on).expect("a CPU number"))
        });
        thread.join().expect("the thread ends")
    }

    #[test]
    fn a_pinned_thread_runs_where_it_was_told() {
        for cpu in AllowedCpus::read().expect("a mask").cpus {
            assert_eq!(pinned(cpu).expect("allowed"), cpu);
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_is_a_warning() {
        for cpu in [CPUS_MAX - 1, CPUS_MAX, usize::MAX] {
            let warning = pinned(cpu).expect_err("no such CPU").to_string();
            assert!(warning.contains("runs unpinned"), "{warning}");
        }
    }
}
