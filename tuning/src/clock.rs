//! The one place that reads the clocks.
//!
//! Both reads go through the vDSO: about 25 ns each, no system call. An engine reads them once a loop turn.

use shared::moment::Moment;

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

/// CPU time the calling thread has used, ns.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    let cpu = read(libc::CLOCK_THREAD_CPUTIME_ID);
    seconds(&cpu) * 1_000_000_000 + nanoseconds(&cpu)
}

#[inline]
fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live, writable `timespec`, the only memory the call touches.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    // Every Linux that can run this has the three clocks used here (the newest is from 2.6.39).
    debug_assert_eq!(result, 0);
    time
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
    fn work_uses_cpu_time() {
        let before = thread_cpu_ns();
        let mut sum = 0_u64;
        for number in 0..1_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        assert!(thread_cpu_ns() > before);
    }
}
