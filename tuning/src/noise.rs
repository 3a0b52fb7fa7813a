//! The machine's own noise: how long it takes a CPU away from a loop that does nothing but read the clock.
//!
//! What a measurement calls late is the program's doing only beyond this. A loop that finds the CPU gone for a while
//! (another thread's turn, an interrupt, the hypervisor) is what a request finds that arrives in that while, so the
//! gaps between two reads say what tail no program could have avoided. What takes the CPU away is not known here.
//!
//! Listening keeps a CPU busy: do it before or after a load, never beside it.

use crate::{clock, pin};
use std::fmt;
use std::io;
use std::thread;
use std::time::Duration;

/// Shortest and longest time to listen: under 100 ms the rates mean nothing, over a minute a CPU is held for nothing.
pub const LISTENED_MIN: Duration = Duration::from_millis(100);
/// See [`LISTENED_MIN`].
pub const LISTENED_MAX: Duration = Duration::from_secs(60);

/// Gaps longer than this are not the loop's own doing (a clock read is 20 to 50 ns, a cache miss far below 1 µs): the
/// CPU was somewhere else.
const LOST_FROM_NS: u64 = 50_000;

/// Parts of a doubling that gaps are counted in: a quantile is off by at most an eighth.
const PARTS: usize = 8;

/// Gaps are told apart up to 2^40 ns, 18 minutes, which is beyond [`LISTENED_MAX`].
const BUCKETS: usize = 40 * PARTS;

/// What was heard on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Noise {
    /// The CPU, where the listener was pinned to one.
    pub cpu: Option<usize>,
    /// How long was listened, ms.
    pub listened_ms: u64,
    /// Share of the time lost in gaps over 50 µs, parts per million.
    pub lost_ppm: u64,
    /// Gaps a second over 200 µs.
    pub gaps_over_200us_per_s: u64,
    /// Gaps a second over 1 ms.
    pub gaps_over_1ms_per_s: u64,
    /// The longest gap, ns.
    pub longest_ns: u64,
    /// How long what arrives at any moment waits for the CPU.
    pub wait: Wait,
}

/// How long what arrives at any moment waits until an otherwise idle CPU is there, ns: of all moments, half wait at
/// most `p50_ns`, and so on. This is what to set beside the same quantile of a latency. (Quantiles over the gaps
/// themselves would say nothing: of 40 million gaps a second nearly all are one clock read long.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Wait {
    /// Half of all moments.
    pub p50_ns: u64,
    /// 99 % of them.
    pub p99_ns: u64,
    /// 99.9 %.
    pub p999_ns: u64,
    /// 99.99 %.
    pub p9999_ns: u64,
}

impl fmt::Display for Noise {
    /// One line, without an end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cpu {
            Some(cpu) => write!(f, "CPU {cpu}'s own noise: ")?,
            None => f.write_str("this CPU's own noise: ")?,
        }
        let tenths = |ns: u64| format!("{}.{}", ns / 1_000, ns % 1_000 / 100);
        let Self { lost_ppm, gaps_over_200us_per_s, gaps_over_1ms_per_s, longest_ns, wait, .. } = self;
        write!(
            f,
            "{}.{:02} % of an idle loop's time lost in gaps over 50 µs; {gaps_over_200us_per_s}/s over 200 µs, \
             {gaps_over_1ms_per_s}/s over 1 ms, the longest {} µs; any moment waits p50 {} p99 {} p99.9 {} p99.99 {} µs",
            lost_ppm / 10_000,
            lost_ppm % 10_000 / 100,
            tenths(*longest_ns),
            tenths(wait.p50_ns),
            tenths(wait.p99_ns),
            tenths(wait.p999_ns),
            tenths(wait.p9999_ns),
        )
    }
}

/// Listens to all of `cpus` at once, for `duration` (bounded by [`LISTENED_MIN`] and [`LISTENED_MAX`]) each, from
/// threads pinned to them.
///
/// # Errors
/// When a thread cannot be started or pinned; the text says what to do.
pub fn listen(cpus: &[usize], duration: Duration) -> io::Result<Vec<Noise>> {
    let listener = |cpu| {
        thread::Builder::new().name("noise".to_owned()).spawn(move || {
            pin::pin_current_thread(cpu).map_err(io::Error::other)?;
            Ok(Noise { cpu: Some(cpu), ..listen_here(duration) })
        })
    };
    let threads: Vec<_> = cpus.iter().map(|&cpu| listener(cpu)).collect::<io::Result<_>>()?;
    let join = |thread: thread::JoinHandle<_>| thread.join().map_err(|_| io::Error::other("a listener ended"))?;
    threads.into_iter().map(join).collect()
}

/// Listens on the calling thread, wherever it runs, for `duration` within the same bounds.
#[must_use]
pub fn listen_here(duration: Duration) -> Noise {
    let duration = duration.clamp(LISTENED_MIN, LISTENED_MAX);
    let until_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut gaps = Gaps::default();
    let began_ns = clock::mono_ns();
    let mut before_ns = began_ns;
    while before_ns - began_ns < until_ns {
        let now_ns = clock::mono_ns();
        gaps.count(now_ns - before_ns);
        before_ns = now_ns;
    }
    gaps.noise()
}

/// The gaps, by length: how many, and how long together.
struct Gaps {
    buckets: Box<[(u64, u64); BUCKETS]>,
    lost_ns: u64,
    over_200us: u64,
    over_1ms: u64,
    longest_ns: u64,
}

impl Default for Gaps {
    fn default() -> Self {
        Self { buckets: Box::new([(0, 0); BUCKETS]), lost_ns: 0, over_200us: 0, over_1ms: 0, longest_ns: 0 }
    }
}

impl Gaps {
    fn count(&mut self, gap_ns: u64) {
        let (number, total_ns) = &mut self.buckets[bucket_of(gap_ns)];
        *number += 1;
        *total_ns += gap_ns;
        if gap_ns > LOST_FROM_NS {
            self.lost_ns += gap_ns;
            self.over_200us += u64::from(gap_ns > 200_000);
            self.over_1ms += u64::from(gap_ns > 1_000_000);
            self.longest_ns = self.longest_ns.max(gap_ns);
        }
    }

    fn noise(&self) -> Noise {
        let listened_ns = self.buckets.iter().map(|(_, total_ns)| total_ns).sum::<u64>().max(1);
        let share = |part: u64, whole: u64| {
            let scaled = u128::from(part) * u128::from(whole) / u128::from(listened_ns);
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        let wait = |ppm| self.wait_ns(listened_ns, ppm);
        Noise {
            cpu: None,
            listened_ms: listened_ns / 1_000_000,
            lost_ppm: share(self.lost_ns, 1_000_000),
            gaps_over_200us_per_s: share(self.over_200us, 1_000_000_000),
            gaps_over_1ms_per_s: share(self.over_1ms, 1_000_000_000),
            longest_ns: self.longest_ns,
            wait: Wait { p50_ns: wait(500_000), p99_ns: wait(10_000), p999_ns: wait(1_000), p9999_ns: wait(100) },
        }
    }

    /// The wait that `ppm` millionths of all moments exceed. Of a gap of length `g`, the moments that wait longer than
    /// `w` are the first `g - w` of it.
    fn wait_ns(&self, listened_ns: u64, ppm: u64) -> u64 {
        let allowed = u128::from(listened_ns) * u128::from(ppm) / 1_000_000;
        let (mut number, mut total_ns, mut above) = (0, 0, 0);
        for index in (0..BUCKETS).rev() {
            let (in_bucket, bucket_ns) = self.buckets[index];
            number += in_bucket;
            total_ns += bucket_ns;
            let from_ns = first_of(index);
            // Moments that wait longer than the bucket's first length: exact, since all gaps counted so far are longer.
            let longer = u128::from(total_ns - number * from_ns);
            if longer > allowed {
                // Between the two ends of the bucket the number of moments falls nearly on a line.
                let (width, part) = (u128::from(first_of(index + 1) - from_ns), longer - allowed);
                let into = width * part / (longer - above).max(1);
                return from_ns + u64::try_from(into).unwrap_or(0);
            }
            above = longer;
        }
        0
    }
}

/// Lengths below `PARTS` have a bucket each; above, each doubling has `PARTS`.
fn bucket_of(gap_ns: u64) -> usize {
    let doubling = gap_ns.max(1).ilog2() as usize;
    let shift = doubling.saturating_sub(PARTS.ilog2() as usize);
    let within = usize::try_from(gap_ns >> shift).unwrap_or(0);
    (shift * PARTS + within).min(BUCKETS - 1)
}

/// Shortest length that falls into this bucket, or into one beyond the last.
fn first_of(index: usize) -> u64 {
    let shift = (index / PARTS).saturating_sub(1);
    let within = index - shift * PARTS;
    u64::try_from(within).unwrap_or(0) << shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpus::AllowedCpus;

    #[test]
    fn buckets_tile_the_lengths() {
        for index in 0..BUCKETS - 1 {
            let (from, next) = (first_of(index), first_of(index + 1));
            assert!(from < next, "{index}: {from} {next}");
            assert_eq!((bucket_of(from), bucket_of(next - 1)), (index, index), "{from} to {next}");
            assert!(index < PARTS || (next - from) * PARTS as u64 <= from, "{index}: an eighth at most");
        }
        assert!(u128::from(first_of(BUCKETS - 1)) > LISTENED_MAX.as_nanos());
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    /// One clock read of the loop of these tests, ns.
    const READ_NS: u64 = 500;

    /// A second of clock reads and some gaps; answers what they make.
    fn noise(gaps_ns: &[u64]) -> Noise {
        let mut gaps = Gaps::default();
        let reads = (1_000_000_000 - gaps_ns.iter().sum::<u64>()) / READ_NS;
        for gap_ns in std::iter::repeat_n(READ_NS, usize::try_from(reads).expect("fits")).chain(gaps_ns.iter().copied())
        {
            gaps.count(gap_ns);
        }
        gaps.noise()
    }

    #[track_caller]
    fn check_near(found_ns: u64, expected_ns: u64) {
        assert!(found_ns.abs_diff(expected_ns) <= expected_ns / PARTS as u64 + 1, "{found_ns} for {expected_ns}");
    }

    #[test]
    fn a_quiet_cpu_makes_nobody_wait() {
        let quiet = noise(&[]);
        assert_eq!((quiet.lost_ppm, quiet.gaps_over_200us_per_s, quiet.longest_ns), (0, 0, 0));
        check_near(quiet.wait.p50_ns, READ_NS / 2);
        check_near(quiet.wait.p9999_ns, READ_NS);
    }

    #[test]
    fn who_arrives_in_a_gap_waits_for_the_rest_of_it() {
        // One gap of 20 ms in a second: 2 % of all moments fall into it, and 1 % wait longer than half of it.
        let one = noise(&[20_000_000]);
        assert_eq!((one.listened_ms, one.lost_ppm), (1_000, 20_000));
        assert_eq!((one.gaps_over_200us_per_s, one.gaps_over_1ms_per_s, one.longest_ns), (1, 1, 20_000_000));
        check_near(one.wait.p99_ns, 10_000_000);
        check_near(one.wait.p999_ns, 19_000_000);
        check_near(one.wait.p9999_ns, 19_900_000);
        // The same time lost in a hundred pieces is waited for in pieces.
        let many = noise(&[200_001; 100]);
        assert_eq!((many.gaps_over_200us_per_s, many.gaps_over_1ms_per_s), (100, 0));
        check_near(many.wait.p99_ns, 100_000);
        check_near(many.wait.p9999_ns, 199_000);
    }

    #[test]
    fn this_machine_is_heard_on_every_cpu() {
        let cpus = AllowedCpus::read().expect("a mask").cpus;
        let heard = listen(&cpus, Duration::ZERO).expect("pinned to allowed CPUs");
        assert_eq!(
            heard.iter().map(|noise| noise.cpu).collect::<Vec<_>>(),
            cpus.into_iter().map(Some).collect::<Vec<_>>()
        );
        for noise in heard {
            assert!(noise.listened_ms >= 100 && noise.lost_ppm <= 1_000_000, "{noise:?}");
            assert!(noise.wait.p50_ns <= noise.wait.p99_ns && noise.wait.p999_ns <= noise.wait.p9999_ns, "{noise:?}");
            assert!(noise.to_string().contains("% of an idle loop's time"), "{noise}");
        }
        assert!(listen(&[usize::MAX], Duration::ZERO).is_err(), "there is no such CPU");
    }
}
