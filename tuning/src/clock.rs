//! The one place that reads the clocks.
//!
//! Both reads go through the vDSO: about 25 ns each, no system call. An engine reads them once a loop turn.

use shared::moment::Moment;
use std::io;

/// Reads both clocks now: `CLOCK_BOOTTIME`, so that suspended time counts as age, and `CLOCK_REALTIME`.
#[inline]
#[must_use]
pub fn now() -> Moment {
    let wall = read(libc::CLOCK_REALTIME);
    Moment { mono_ns: mono_ns(), wall_ms: seconds(&wall) * 1_000 + nanoseconds(&wall) / 1_000_000 }
}

/// Nanoseconds since boot, suspended time included: the clock that ages and deadlines are taken from.
#[inline]
#[must_use]
pub fn mono_ns() -> u64 {
    let mono = read(libc::CLOCK_BOOTTIME);
    seconds(&mono) * 1_000_000_000 + nanoseconds(&mono)
}

/// What one read of [`mono_ns`] costs here, ns: the best of some batches, in about 2 ms. Where the kernel's clock source
/// cannot be read without a system call it is ten times as much, or more.
#[must_use]
pub fn read_cost_ns() -> u64 {
    const READS: u64 = 10_000;
    let batch = || {
        let began_ns = mono_ns();
        let ended_ns = (0..READS).fold(began_ns, |_, _| std::hint::black_box(mono_ns()));
        (ended_ns - began_ns) / READS
    };
    (0..5).map(|_| batch()).min().unwrap_or(0)
}

/// CPU time the calling thread has used, ns.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    let cpu = read(libc::CLOCK_THREAD_CPUTIME_ID);
    seconds(&cpu) * 1_000_000_000 + nanoseconds(&cpu)
}

/// CPU time that another thread of this process has used, ns; `thread` is its number as `/proc/self/task` has it.
/// Exact where `/proc` itself counts in hundredths of a second.
///
/// # Errors
/// When there is no such thread in this process.
pub fn thread_cpu_ns_of(thread: i32) -> io::Result<u64> {
    // The kernel's rule for the clock of a thread: its inverted number, then "per thread" (4) and "run time" (2).
    let cpu = try_read(!thread << 3 | 4 | 2)?;
    Ok(seconds(&cpu) * 1_000_000_000 + nanoseconds(&cpu))
}

/// CPU time that all threads of a process have used, those that have ended included, ns; it may be a process of someone
/// else's program.
///
/// # Errors
/// When there is no such process.
pub fn process_cpu_ns_of(process: u32) -> io::Result<u64> {
    let process = i32::try_from(process).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // As for a thread, without "per thread".
    let cpu = try_read(!process << 3 | 2)?;
    Ok(seconds(&cpu) * 1_000_000_000 + nanoseconds(&cpu))
}

/// Every Linux that can run this has the clocks read through here; the newest is from 2.6.39.
#[inline]
fn read(clock: libc::clockid_t) -> libc::timespec {
    try_read(clock).unwrap_or(libc::timespec { tv_sec: 0, tv_nsec: 0 })
}

#[inline]
fn try_read(clock: libc::clockid_t) -> io::Result<libc::timespec> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live, writable `timespec`, the only memory the call touches.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if result == 0 { Ok(time) } else { Err(io::Error::last_os_error()) }
}

/// Negative seconds would be a clock before 1970: shown as the epoch.
#[inline]
fn seconds(time: &libc::timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0)
}

#[inline]
fn nanoseconds(time: &libc::timespec) -> u64 {
    u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn the_monotonic_clock_never_goes_back() {
        let mut before = mono_ns();
        for _ in 0..10_000 {
            let now = mono_ns();
            assert!(now >= before);
            before = now;
        }
    }

    #[test]
    fn the_wall_clock_lies_between_two_reads_of_the_standard_library() {
        let wall = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        let (before, ours, after) = (wall(), u128::from(now().wall_ms), wall());
        assert!(before <= ours && ours <= after, "{before} {ours} {after}");
    }

    #[test]
    fn a_read_costs_something() {
        assert!((1..1_000_000).contains(&read_cost_ns()), "{}", read_cost_ns());
    }

    #[test]
    fn work_uses_cpu_time() {
        let before = thread_cpu_ns();
        let mut sum = 0_u64;
        for number in 0..1_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        assert!(thread_cpu_ns() > before);
    }

    #[test]
    fn a_thread_s_cpu_time_can_be_read_by_another() {
        let this = std::fs::read_link("/proc/thread-self").expect("proc is mounted");
        let number = this.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let number: i32 = number.expect("a number");
        let own = thread_cpu_ns();
        let seen = std::thread::spawn(move || thread_cpu_ns_of(number)).join().expect("ended").expect("our thread");
        assert!(seen >= own);
        // Above the highest number the kernel gives out.
        assert!(thread_cpu_ns_of(1 << 22 | 1).is_err());
    }

    #[test]
    fn a_process_s_cpu_time_counts_all_its_threads() {
        std::thread::spawn(|| while thread_cpu_ns() < 2_000_000 {}).join().expect("ended");
        assert!(process_cpu_ns_of(std::process::id()).expect("this process") >= 2_000_000);
        // Above the highest number the kernel gives out.
        assert!(process_cpu_ns_of(1 << 22 | 1).is_err());
        assert!(process_cpu_ns_of(u32::MAX).is_err());
    }
}
