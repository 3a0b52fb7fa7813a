//! Counting: which column each request ends in.
//!
//! A request belongs to the time it was meant for, not to the time of its answer: what was due in the counted time counts,
//! whenever its answer comes. Everything here is told the time; nothing is read or sent.

use crate::connection::Flight;
use crate::outcome::{FAULTS_KEPT, Tally};
use crate::price::{Price, Wrong};
use shared::asset::Symbol;

/// The times and limits of a level, ns on the clock of the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Requests meant for this time and later ones are counted.
    pub(crate) from_ns: u64,
    /// Those meant for this time and later ones are not.
    pub(crate) end_ns: u64,
    /// An answer that took longer is late.
    pub(crate) late_ns: u64,
    /// An answer that came later after its request was sent has not come.
    pub(crate) lost_ns: u64,
    /// A price that says it is older is wrong.
    pub(crate) age_max_ms: u64,
}

impl Window {
    fn counts(&self, due_ns: u64) -> bool {
        (self.from_ns..self.end_ns).contains(&due_ns)
    }
}

/// What an answer is.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// A price; `before` is the sequence that it must not be below.
    Price {
        price: Price,
        before: u64,
    },
    /// Not now, or not to you.
    Refused(Wrong),
    Wrong(Wrong),
}

/// Everything sent and everything that ended, warm-up included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
}

impl Seen {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            answered: self.answered + other.answered,
            failed: self.failed + other.failed,
        }
    }
}

/// Counts of one protocol at one target by one thread.
#[derive(Debug)]
pub(crate) struct Counter {
    pub(crate) window: Window,
    pub(crate) tally: Tally,
    pub(crate) seen: Seen,
}

impl Counter {
    pub(crate) fn new(window: Window) -> Self {
        Self { window, tally: Tally::default(), seen: Seen::default() }
    }

    /// A request was sent that was meant for `due_ns`.
    #[inline]
    pub(crate) fn sent(&mut self, due_ns: u64) {
        self.seen.sent += 1;
        self.tally.sent += u64::from(self.window.counts(due_ns));
    }

    /// Its answer of `bytes` bytes came at `now_ns`; it is about `asset`.
    #[inline]
    pub(crate) fn answered(&mut self, flight: &Flight, now_ns: u64, bytes: usize, verdict: Verdict, asset: &Symbol) {
        if now_ns.saturating_sub(flight.sent_ns) > self.window.lost_ns {
            return self.lost(flight);
        }
        let latency_ns = now_ns.saturating_sub(flight.due_ns);
        let counts = self.window.counts(flight.due_ns);
        self.tally.bytes_in += if counts { bytes as u64 } else { 0 };
        let age_max_ms = self.window.age_max_ms;
        let wrong = match verdict {
            Verdict::Price { price: Price { sequence, .. }, before } if sequence < before => {
                Wrong::WentBack { sequence, before }
            }
            Verdict::Price { price: Price { age_ms, .. }, .. } if age_ms > age_max_ms => {
                Wrong::Old { age_ms, age_max_ms }
            }
            Verdict::Price { price, .. } => return self.right(counts, (now_ns, latency_ns), price.age_ms),
            Verdict::Refused(why) => {
                self.seen.failed += 1;
                self.tally.refused += u64::from(counts);
                return self.fault(|| format!("{asset}: {why}"));
            }
            Verdict::Wrong(wrong) => wrong,
        };
        self.seen.failed += 1;
        self.tally.wrong += u64::from(counts);
        self.fault(|| format!("{asset}: {wrong}"));
    }

    #[inline]
    fn right(&mut self, counts: bool, (now_ns, latency_ns): (u64, u64), age_ms: u64) {
        let is_late = latency_ns > self.window.late_ns;
        if is_late {
            self.seen.failed += 1;
        } else {
            self.seen.answered += 1;
            self.tally.answered_within += u64::from(self.window.counts(now_ns));
        }
        if counts {
            if is_late {
                self.tally.late += 1;
            } else {
                self.tally.answered += 1;
            }
            self.tally.latency_ns.saturating_record(latency_ns.max(1));
            self.tally.age_ms.saturating_record(age_ms);
        }
    }

    /// Its answer will not come, or comes too late to be one.
    pub(crate) fn lost(&mut self, flight: &Flight) {
        self.seen.failed += 1;
        self.tally.lost += u64::from(self.window.counts(flight.due_ns));
    }

    /// It is in flight when the count ends: lost, or, where it was meant for `left_out_from_ns` or later, neither sent nor
    /// lost.
    pub(crate) fn unanswered(&mut self, flight: &Flight, left_out_from_ns: u64) {
        if flight.due_ns >= left_out_from_ns {
            self.tally.sent -= u64::from(self.window.counts(flight.due_ns));
        } else {
            self.lost(flight);
        }
    }

    /// The server broke or refused a connection.
    pub(crate) fn broken(&mut self, why: impl FnOnce() -> String) {
        self.tally.broken += 1;
        self.fault(why);
    }

    /// Keeps a line on what went wrong, if there is room.
    pub(crate) fn fault(&mut self, line: impl FnOnce() -> String) {
        if self.tally.faults.len() < FAULTS_KEPT {
            self.tally.faults.push(line());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { from_ns: 1_000, end_ns: 2_000, late_ns: 100, lost_ns: 500, age_max_ms: 50 };

    fn price(age_ms: u64, before: u64) -> Verdict {
        Verdict::Price { price: Price { sequence: 7, age_ms }, before }
    }

    /// Where one request ends that was meant for `due_ns`, sent `waited_ns` later, and answered `answer_ns` after that.
    #[track_caller]
    fn check(due_ns: u64, (waited_ns, answer_ns): (u64, u64), verdict: Verdict, column: &str) {
        let mut counter = Counter::new(WINDOW);
        counter.sent(due_ns);
        let flight = Flight { asked: 0, due_ns, sent_ns: due_ns + waited_ns };
        let asset = Symbol::new(b"BTC").expect("a symbol");
        counter.answered(&flight, flight.sent_ns + answer_ns, 10, verdict, &asset);
        let tally = &counter.tally;
        let ended = tally.answered + tally.late + tally.wrong + tally.refused + tally.lost;
        assert_eq!(tally.sent, ended, "one column");
        let columns = [
            ("answered", tally.answered),
            ("late", tally.late),
            ("wrong", tally.wrong),
            ("refused", tally.refused),
            ("lost", tally.lost),
        ];
        let found = columns.iter().find(|(_, count)| *count == 1).map_or("none", |(name, _)| *name);
        assert_eq!(found, column);
        assert_eq!(tally.latency_ns.len(), tally.answered + tally.late, "the latency of every right answer");
        assert_eq!(tally.age_ms.len(), tally.answered + tally.late);
        assert_eq!((counter.seen.sent, counter.seen.answered + counter.seen.failed), (1, 1));
    }

    #[test]
    fn a_request_ends_in_one_column() {
        check(1_000, (0, 100), price(50, 7), "answered");
        check(1_000, (0, 101), price(50, 7), "late");
        check(1_000, (90, 11), price(50, 7), "late");
        check(1_000, (9_000, 11), price(50, 7), "late");
        check(1_000, (0, 501), price(50, 7), "lost");
        check(1_000, (0, 5), price(51, 7), "wrong");
        check(1_000, (0, 5), price(50, 8), "wrong");
        check(1_000, (0, 5), Verdict::Wrong(Wrong::Signature), "wrong");
        check(1_000, (0, 5), Verdict::Refused(Wrong::Status(429, String::new())), "refused");
    }

    #[test]
    fn what_was_meant_for_another_time_is_not_counted() {
        check(999, (0, 5), price(0, 0), "none");
        check(1_999, (500, 5), price(0, 0), "late");
        check(2_000, (0, 5), price(0, 0), "none");
    }

    #[test]
    fn a_rate_is_of_what_came_in_the_counted_time() {
        for (due_ns, answer_ns, within) in [(950, 49, 0), (950, 50, 1), (1_950, 49, 1), (1_950, 50, 0), (1_500, 101, 0)]
        {
            let mut counter = Counter::new(WINDOW);
            let flight = Flight { asked: 0, due_ns, sent_ns: due_ns };
            let asset = Symbol::new(b"BTC").expect("a symbol");
            counter.answered(&flight, due_ns + answer_ns, 10, price(0, 0), &asset);
            assert_eq!(counter.tally.answered_within, within, "{due_ns} {answer_ns}");
        }
    }

    #[test]
    fn only_the_first_faults_are_kept() {
        let mut counter = Counter::new(WINDOW);
        for number in 0..100 {
            counter.broken(|| format!("number {number}"));
        }
        assert_eq!(counter.tally.broken, 100);
        assert_eq!(counter.tally.faults.len(), FAULTS_KEPT);
        assert_eq!(counter.tally.faults[0], "number 0");
    }
}
