//! The machine's own noise: how long it takes the CPU away from a loop that does nothing but read the clock.
//!
//! What a bench calls late is only the program's doing beyond this.

use std::io;
use std::thread;
use std::time::{Duration, Instant};
use tuning::{clock, pin};

/// How long each CPU is listened to.
const LISTENED: Duration = Duration::from_secs(2);

/// What was heard on one CPU.
pub struct Noise {
    pub cpu: usize,
    /// Share of the time lost in gaps over 50 µs, thousandths.
    pub lost_permille: u64,
    /// Gaps a second longer than 200 µs, and the longest, µs.
    pub long_gaps: u64,
    pub longest_us: u64,
}

/// Listens to all of `cpus` at once, as a bench uses them.
///
/// # Errors
/// When a thread cannot be started or pinned.
pub fn listen(cpus: &[usize]) -> io::Result<Vec<Noise>> {
    let threads: Vec<_> = cpus.iter().map(|&cpu| thread::spawn(move || listen_on(cpu))).collect();
    threads.into_iter().map(|thread| thread.join().map_err(|_| io::Error::other("a listener ended"))?).collect()
}

fn listen_on(cpu: usize) -> io::Result<Noise> {
    pin::pin_current_thread(cpu).map_err(io::Error::other)?;
    let (began, mut before_ns) = (Instant::now(), clock::mono_ns());
    let (mut lost_ns, mut long_gaps, mut longest_ns) = (0, 0, 0);
    while began.elapsed() < LISTENED {
        let now_ns = clock::mono_ns();
        let gap_ns = now_ns - before_ns;
        before_ns = now_ns;
        if gap_ns > 50_000 {
            lost_ns += gap_ns;
            long_gaps += u64::from(gap_ns > 200_000);
            longest_ns = gap_ns.max(longest_ns);
        }
    }
    let seconds = LISTENED.as_secs();
    Ok(Noise {
        cpu,
        lost_permille: lost_ns / (seconds * 1_000_000),
        long_gaps: long_gaps / seconds,
        longest_us: longest_ns / 1_000,
    })
}
