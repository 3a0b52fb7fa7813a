//! What one venue's price of one asset was over the last half minute: one sample a second, and their median.
//!
//! A price holds until the next one, so silent seconds repeat the last sample. Only believed prices get in: a venue
//! in quarantine must not vote itself back. Knows no venue and no clock.

use super::amount::{Amount, Coarse};

/// Samples kept: one for each of the last 30 s.
const SAMPLES: usize = 30;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// One sample a second over 30 s in 144 bytes, whatever the rate of quotes.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// Completed seconds, a ring.
    samples: [Coarse; SAMPLES],
    /// How many of them are filled.
    filled: u8,
    /// Where the next one goes.
    next: u8,
    /// The last believed price: the sample of the present second. `Coarse::NONE` when there is none.
    present: Coarse,
    /// Median of the completed seconds, computed when a second ends.
    median: Coarse,
    /// Which second is present, in monotonic seconds.
    second: u64,
}

impl History {
    /// No past.
    pub(super) const EMPTY: Self = Self {
        samples: [Coarse::NONE; SAMPLES],
        filled: 0,
        next: 0,
        present: Coarse::NONE,
        median: Coarse::NONE,
        second: 0,
    };

    /// Forgets everything: what comes next is judged without a past.
    pub(super) const fn clear(&mut self) {
        self.filled = 0;
        self.next = 0;
        self.present = Coarse::NONE;
    }

    /// The median of the last 30 s; `None` when there is no past.
    pub(super) fn median(&mut self, mono_ns: u64) -> Option<Amount> {
        if self.present == Coarse::NONE {
            return None;
        }
        self.roll(mono_ns / NS_PER_SECOND);
        let median = if self.filled == 0 { self.present } else { self.median };
        Some(median.amount())
    }

    /// Takes a believed price.
    pub(super) fn record(&mut self, mono_ns: u64, price: Amount) {
        let second = mono_ns / NS_PER_SECOND;
        if self.present == Coarse::NONE {
            self.second = second;
        } else {
            self.roll(second);
        }
        self.present = price.coarse();
    }

    /// Starts anew from a price that has come to be believed.
    pub(super) fn restart(&mut self, mono_ns: u64, price: Amount) {
        self.clear();
        self.record(mono_ns, price);
    }

    /// Completes the seconds before `second`, each with the price that held.
    fn roll(&mut self, second: u64) {
        let passed = second.saturating_sub(self.second).min(SAMPLES as u64);
        if passed == 0 {
            return;
        }
        for _ in 0..passed {
            self.samples[usize::from(self.next)] = self.present;
            self.next = (self.next + 1) % SAMPLES as u8;
        }
        self.filled = (self.filled + passed as u8).min(SAMPLES as u8);
        self.second = second;
        let mut sorted = self.samples;
        // Until the ring is full only its first part is filled, and `next` stands behind it.
        let sorted = &mut sorted[..usize::from(self.filled)];
        sorted.sort_unstable();
        self.median = sorted[sorted.len() / 2];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::price::Price;

    /// Records prices at seconds and reads the median at `at`.
    #[track_caller]
    fn check(said: &[(u64, i64)], at: u64, expected: Option<i64>) {
        let amount = |whole: i64| Amount::of(Price::new(whole, 0)).expect("sane").coarse().amount();
        let mut history = History::EMPTY;
        for (second, price) in said {
            history.record(second * NS_PER_SECOND, amount(*price));
        }
        assert_eq!(history.median(at * NS_PER_SECOND), expected.map(amount));
    }

    #[test]
    fn median_of_the_last_half_minute() {
        check(&[], 5, None);
        check(&[(1, 100)], 1, Some(100));
        check(&[(1, 100), (1, 60)], 1, Some(60));
        check(&[(1, 100), (4, 60)], 4, Some(100));
        check(&[(1, 100), (10, 60)], 12, Some(100));
        check(&[(1, 100), (10, 60)], 26, Some(60));
        check(&[(1, 100)], 1_000_000, Some(100));
        check(&[(1, 100), (50, 60)], 50, Some(100));
        check(&[(1, 100), (50, 60)], 81, Some(60));
    }
}
