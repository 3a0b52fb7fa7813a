//! How far a shard lags behind the venues: the time from receiving a frame until the shard has the price made of it.
//!
//! Kept as counts by size: eight steps to each doubling, so a quantile is told at most an eighth too high, in 1.3 KiB
//! a shard. Counting costs one subtraction, one `leading_zeros` and two additions a tick. This file reads no clock.

use std::fmt;

/// Doublings told apart: from 2^10 ns (1 µs) to 2^30 ns (1.07 s). Below and above there is one step each.
const DOUBLINGS: usize = 20;
const FIRST_BIT: u32 = 10;
/// Steps of one doubling, as bits.
const STEP_BITS: u32 = 3;
const STEPS: usize = 1 << STEP_BITS;

/// Counts in a histogram: the steps, one for all that is less and one for all that is more.
pub(crate) const LAG_COUNTS: usize = DOUBLINGS * STEPS + 2;

/// Lags counted by size.
#[derive(Clone, PartialEq, Eq)]
pub struct LagHistogram {
    pub(crate) counts: [u64; LAG_COUNTS],
    pub(crate) sum_ns: u64,
}

impl Default for LagHistogram {
    fn default() -> Self {
        Self { counts: [0; LAG_COUNTS], sum_ns: 0 }
    }
}

impl fmt::Debug for LagHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [(1, 2), (99, 100)].map(|(part, of)| self.quantile_ns(part, of));
        write!(f, "LagHistogram {{ count: {}, p50_ns: {p50:?}, p99_ns: {p99:?} }}", self.count())
    }
}

impl LagHistogram {
    /// Counts one lag.
    #[inline]
    pub(crate) fn add(&mut self, lag_ns: u64) {
        self.counts[step_of(lag_ns)] += 1;
        self.sum_ns += lag_ns;
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All lags counted, added up, ns.
    #[must_use]
    pub const fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// What `part` of `of` lags (99 of 100) are below, ns: exact or up to an eighth too high; `u64::MAX` beyond 1.07 s.
    /// `None` when nothing was counted or `of` is 0.
    #[must_use]
    pub fn quantile_ns(&self, part: u64, of: u64) -> Option<u64> {
        let count = self.count();
        let wanted = (u128::from(count) * u128::from(part.min(of))).div_ceil(u128::from(of).max(1)).max(1);
        let mut sum = 0;
        let step = self.counts.iter().position(|counted| {
            sum += u128::from(*counted);
            sum >= wanted
        });
        step.filter(|_| of > 0).map(end_of)
    }

    /// What was counted since `earlier`, which must be an earlier reading of the same shard.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = std::array::from_fn(|step| self.counts[step].saturating_sub(earlier.counts[step]));
        Self { counts, sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns) }
    }

    /// Both together.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let counts = std::array::from_fn(|step| self.counts[step] + other.counts[step]);
        Self { counts, sum_ns: self.sum_ns + other.sum_ns }
    }

    /// How many lags were below each power of two from 2^10 to 2^30 ns, and that bound, ns.
    pub fn below_powers(&self) -> impl Iterator<Item = (u64, u64)> {
        let below = |doubling: usize| self.counts[..=doubling * STEPS].iter().sum();
        (0..=DOUBLINGS).map(move |doubling| (end_of(doubling * STEPS), below(doubling)))
    }
}

/// Which count a lag belongs to.
#[inline]
const fn step_of(lag_ns: u64) -> usize {
    if lag_ns >> FIRST_BIT == 0 {
        return 0;
    }
    let bit = 63 - lag_ns.leading_zeros();
    let step = (lag_ns >> (bit - STEP_BITS)) as usize % STEPS;
    let index = 1 + (bit - FIRST_BIT) as usize * STEPS + step;
    if index < LAG_COUNTS { index } else { LAG_COUNTS - 1 }
}

/// The lag just above all that belong to a count, ns.
const fn end_of(index: usize) -> u64 {
    if index + 1 == LAG_COUNTS {
        return u64::MAX;
    }
    ((STEPS + index % STEPS) as u64) << (FIRST_BIT - STEP_BITS + (index / STEPS) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lags: impl IntoIterator<Item = u64>) -> LagHistogram {
        let mut histogram = LagHistogram::default();
        lags.into_iter().for_each(|lag_ns| histogram.add(lag_ns));
        histogram
    }

    #[test]
    fn a_lag_is_told_at_most_an_eighth_too_high() {
        let mut lag_ns = 1_000;
        while lag_ns < 1 << 30 {
            let told = of([lag_ns]).quantile_ns(1, 1).expect("one was counted");
            assert!(told > lag_ns && (told - lag_ns) * 8 <= lag_ns.max(1_024), "{lag_ns} told as {told}");
            lag_ns += 1 + lag_ns / 1_000;
        }
    }

    #[test]
    fn what_is_out_of_range_is_counted_at_its_ends() {
        let table: [(u64, u64); 5] =
            [(0, 1_024), (1_023, 1_024), ((1 << 30) - 1, 1 << 30), (1 << 30, u64::MAX), (u64::MAX >> 1, u64::MAX)];
        for (lag_ns, told) in table {
            assert_eq!(of([lag_ns]).quantile_ns(1, 1), Some(told), "{lag_ns}");
        }
    }

    #[track_caller]
    fn check(part: u64, denominator: u64, expected: Option<u64>) {
        // 98 of 10 µs, one each of 100 µs and 1 ms.
        let histogram = of((0..98).map(|_| 10_000).chain([100_000, 1_000_000]));
        assert_eq!(histogram.quantile_ns(part, denominator), expected);
        assert_eq!(LagHistogram::default().quantile_ns(part, denominator), None);
    }

    #[test]
    fn quantiles_count_from_below() {
        check(0, 1, Some(10_240));
        check(1, 2, Some(10_240));
        check(98, 100, Some(10_240));
        check(981, 1_000, Some(106_496));
        check(99, 100, Some(106_496));
        check(999, 1_000, Some(1_048_576));
        check(1, 1, Some(1_048_576));
        check(2, 1, Some(1_048_576));
        check(1, 0, None);
    }

    #[test]
    fn sums_and_differences() {
        let (first, second) = (of([5_000, 7_000]), of([9_000]));
        let both = first.with(&second);
        assert_eq!((both.count(), both.sum_ns()), (3, 21_000));
        assert_eq!(both.since(&first), second);
    }

    #[test]
    fn powers_of_two_are_cumulative() {
        let rows: Vec<_> = of([500, 1_500, 1_600, 3_000, 2_000_000_000]).below_powers().collect();
        assert_eq!(rows[..3], [(1_024, 1), (2_048, 3), (4_096, 4)]);
        assert_eq!((rows.len(), rows[20]), (21, (1 << 30, 4)));
    }
}
