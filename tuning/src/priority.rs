//! Letting a thread step back: what others wait for gets the CPU first.
//!
//! Raising a thread's nice value needs no privilege, and cannot be taken back without one: it is for threads that do
//! nothing else. A refusal is a warning, never a reason not to work.

use std::fmt;
use std::io;

/// Highest nice value: the lowest priority there is.
pub const NICE_MAX: i32 = 19;

/// The thread keeps the priority it had.
#[derive(Debug)]
pub struct PriorityKept {
    nice: i32,
    reason: io::Error,
}

impl fmt::Display for PriorityKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the priority was not lowered to nice {}: {}; the thread competes with the others. Allow setpriority",
            self.nice, self.reason
        )
    }
}

impl std::error::Error for PriorityKept {}

/// Gives the calling thread, and threads that it starts from now on, the nice value `nice`, 0 ..= [`NICE_MAX`]: with 10
/// it gets about a tenth of the time of a thread with 0 that wants the same CPU, and all that nobody else wants.
///
/// # Errors
/// The warning to show; the thread is as it was.
pub fn lower_current_thread(nice: i32) -> Result<(), PriorityKept> {
    if !(0..=NICE_MAX).contains(&nice) {
        return Err(PriorityKept { nice, reason: io::Error::from_raw_os_error(libc::EINVAL) });
    }
    // SAFETY: takes numbers and touches no memory of ours; on Linux 0 with PRIO_PROCESS means the calling thread alone.
    let outcome = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if outcome == 0 { Ok(()) } else { Err(PriorityKept { nice, reason: io::Error::last_os_error() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nice value of the calling thread, as the kernel tells it.
    fn nice() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("procfs");
        // The name before it may hold anything but stands in brackets; the value is the 19th field, 16th behind them.
        let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
        fields.split(' ').nth(16).and_then(|field| field.parse().ok()).expect("a number")
    }

    #[test]
    fn only_the_thread_that_asks_steps_back() {
        let before = nice();
        let lowered = std::thread::spawn(|| {
            lower_current_thread(NICE_MAX).expect("raising it is always allowed");
            (nice(), std::thread::spawn(nice).join().expect("a thread"))
        });
        assert_eq!(lowered.join().expect("the thread ends"), (NICE_MAX, NICE_MAX), "it and what it starts");
        assert_eq!(nice(), before, "nobody else");
    }

    #[test]
    fn values_that_are_none_are_a_warning() {
        for bad in [-1, NICE_MAX + 1, i32::MIN, i32::MAX] {
            let warning = lower_current_thread(bad).expect_err("no such value").to_string();
            assert!(warning.contains("competes with the others"), "{warning}");
        }
    }
}
