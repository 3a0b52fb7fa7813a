//! By how much the bound on active connections is lowered: from the share of answers that succeed, over all nodes.
//!
//! The share is taken over the last seconds and looked at once a second. Below the threshold the bound shrinks by a
//! quarter, so that a node that drowns is relieved within seconds; at or above it the bound grows by a twentieth of its
//! full height, so that what failed is not called back at once. This file knows no clock and no cache.

use std::collections::VecDeque;

/// The bound is never lowered below this part of its height, in thousandths: a tenth goes on being served, and is what
/// shows whether answers succeed again.
pub const FLOOR_PERMILLE: u16 = 100;

/// What of the bound is left after a second in which too few answers succeeded: three quarters. From full height to the
/// floor it takes nine of them.
const SHRINK: (u16, u16) = (3, 4);

/// What comes back in a second in which enough did, in thousandths of full height: from the floor it takes 18 s.
const GROWTH_PERMILLE: u16 = 50;

/// Over how long answers are judged, ms. Twice the time between decisions: one lost sample leaves something to judge by,
/// and a decision sees little of what the one before it has dealt with.
const JUDGED_MS: u64 = 2_000;

/// Time between decisions, ms.
const DECIDE_MS: u64 = 1_000;

/// Answers in [`JUDGED_MS`] below which nothing is decided from them: one failure among three says nothing.
const ANSWERS_MIN: u64 = 20;

/// Samples kept: one each 250 ms over the time judged, one at its edge, and as many again should they come closer.
const SAMPLES_MAX: usize = 20;

/// Answers since a beginning that does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Those that were not a 5xx. Shed ones are in neither number, or shedding would bring about more of it.
    pub successes: u64,
    /// All.
    pub total: u64,
}

/// Judges and decides.
#[derive(Debug, Default)]
pub struct Throttle {
    samples: VecDeque<(u64, Answers)>,
    withheld_permille: u16,
    decided_ms: u64,
}

impl Throttle {
    /// What part of the bound is withheld, in thousandths: 0 ..= 900.
    pub fn withheld_permille(&self) -> u16 {
        self.withheld_permille
    }

    /// Goes by what another has decided; what is beyond the floor counts as the floor.
    pub fn follow(&mut self, withheld_permille: u16) {
        self.withheld_permille = withheld_permille.min(1_000 - FLOOR_PERMILLE);
    }

    /// Takes a sample. Sums that went back are of another beginning: what was seen before them is forgotten.
    pub fn see(&mut self, now_ms: u64, answers: Answers) {
        let goes_back = |(_, last): &(u64, Answers)| last.total > answers.total || last.successes > answers.successes;
        if self.samples.back().is_some_and(goes_back) {
            self.forget();
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now_ms, answers));
        // The last one at or before the edge is kept: from there on answers are judged.
        while self.samples.get(1).is_some_and(|(at_ms, _)| at_ms + JUDGED_MS <= now_ms) {
            self.samples.pop_front();
        }
    }

    /// Forgets the samples: the next ones are counted by others.
    pub fn forget(&mut self) {
        self.samples.clear();
    }

    /// The share of answers that succeeded lately, in thousandths, rounded down; `None` when there were too few.
    pub fn success_permille(&self) -> Option<u16> {
        let (first, last) = (self.samples.front()?.1, self.samples.back()?.1);
        let total = last.total - first.total;
        // The two sums are read one after the other, so that for a moment there may be more successes than answers.
        let successes = (last.successes - first.successes).min(total);
        let permille = successes.saturating_mul(1_000).checked_div(total)?;
        u16::try_from(permille).ok().filter(|_| total >= ANSWERS_MIN)
    }

    /// Decides, if it is time; whether the throttle is another now.
    pub fn decide(&mut self, now_ms: u64, threshold_permille: u16) -> bool {
        if now_ms < self.decided_ms + DECIDE_MS {
            return false;
        }
        self.decided_ms = now_ms;
        let before = self.withheld_permille;
        let fails = self.success_permille().is_some_and(|share| share < threshold_permille);
        self.withheld_permille = if fails {
            1_000 - ((1_000 - before) * SHRINK.0 / SHRINK.1).max(FLOOR_PERMILLE)
        } else {
            before.saturating_sub(GROWTH_PERMILLE)
        };
        self.withheld_permille != before
    }

    /// What is left of a bound.
    pub fn apply(&self, bound: u32) -> u32 {
        let left = u64::from(bound) * u64::from(1_000 - self.withheld_permille) / 1_000;
        u32::try_from(left).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of answers: so many a second, so many of them successes. Answers what was withheld after each.
    fn run(throttle: &mut Throttle, from_s: u64, seconds: u64, total: u64, successes: u64) -> Vec<u16> {
        let start = throttle.samples.back().map(|(_, answers)| *answers).unwrap_or_default();
        let second = |s: u64| {
            let at_ms = (from_s + s) * 1_000;
            for quarter in 1..=4 {
                let done = |each: u64| each * s + each * quarter / 4;
                let answers =
                    Answers { successes: start.successes + done(successes), total: start.total + done(total) };
                throttle.see(at_ms + quarter * 250, answers);
                throttle.decide(at_ms + quarter * 250, 500);
            }
            throttle.withheld_permille()
        };
        (0..seconds).map(second).collect()
    }

    #[track_caller]
    fn check(total: u64, successes: u64, expected: &[u16]) {
        let mut throttle = Throttle::default();
        throttle.see(0, Answers::default());
        assert_eq!(run(&mut throttle, 0, expected.len() as u64, total, successes), expected, "{successes} of {total}");
    }

    #[test]
    fn it_goes_by_the_share_that_succeeds() {
        check(1_000, 1_000, &[0, 0, 0]);
        check(1_000, 500, &[0, 0, 0]);
        check(1_000, 499, &[250, 438, 579, 685, 764, 823, 868, 900, 900]);
        check(1_000, 0, &[250, 438]);
        check(0, 0, &[0, 0]);
        // Too few to judge by.
        check(8, 0, &[0, 0, 0]);
    }

    #[test]
    fn it_recovers_step_by_step() {
        let mut throttle = Throttle::default();
        throttle.see(0, Answers::default());
        assert_eq!(run(&mut throttle, 0, 3, 1_000, 0), [250, 438, 579]);
        // The first second is judged together with the last bad one, which leaves half: that is enough.
        assert_eq!(run(&mut throttle, 3, 4, 1_000, 1_000), [529, 479, 429, 379]);
        assert_eq!(run(&mut throttle, 7, 10, 0, 0)[9], 0, "silence is no failure");
    }

    #[test]
    fn sums_that_went_back_are_a_new_beginning() {
        let mut throttle = Throttle::default();
        throttle.see(0, Answers { successes: 1_000, total: 9_000 });
        throttle.see(1_000, Answers { successes: 1_000, total: 10_000 });
        assert_eq!(throttle.success_permille(), Some(0));
        throttle.see(1_250, Answers { successes: 3, total: 30 });
        assert_eq!(throttle.success_permille(), None);
        throttle.see(1_500, Answers { successes: 103, total: 130 });
        assert_eq!(throttle.success_permille(), Some(1_000));
    }

    #[test]
    fn samples_are_bounded_and_old_ones_do_not_count() {
        let mut throttle = Throttle::default();
        for ms in 0..10_000 {
            throttle.see(ms, Answers { successes: 0, total: ms * 10 });
        }
        assert!(throttle.samples.len() <= SAMPLES_MAX);
        throttle.see(20_000, Answers { successes: 100, total: 100_100 });
        throttle.see(22_000, Answers { successes: 200, total: 100_200 });
        assert_eq!(throttle.success_permille(), Some(1_000));
    }

    #[test]
    fn the_bound_left_is_one_at_least_and_a_tenth_at_the_floor() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.apply(6_000), 6_000);
        throttle.follow(250);
        assert_eq!(throttle.apply(6_000), 4_500);
        throttle.follow(1_000);
        assert_eq!((throttle.withheld_permille(), throttle.apply(6_000), throttle.apply(1)), (900, 600, 1));
    }
}
