//! A key's second, shared by nodes: the arithmetic alone, on numbers.
//!
//! The server's script computes the same (`valkey/lease.lua`); one table of cases holds both to it. Who keeps the state
//! between two calls, and whose clock it is, is not known here.

use super::{Lease, LeaseWish};

/// Every number of a wish, and every sum, counts as this at most: products of two then stay exact in the doubles that a
/// server's script computes with (2^52 of 2^53). No node answers 67 million requests of one key in a second.
pub const REQUESTS_MAX: u64 = 1 << 26;

/// Length of a window, ms: limits are per second.
const WINDOW_MS: u64 = 1_000;

/// Latest time that a double tells to the millisecond.
const TIME_MS_MAX: u64 = 1 << 53;

/// Of a second that has not begun, all but this part is given ahead, rounded down: a tenth is for those whom the demand
/// so far does not know.
const KEPT_BACK: u64 = 10;

/// A key's present second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// When it began, by the cache's clock, Unix ms.
    pub start_ms: u64,
    /// Requests taken of it, debts included.
    pub taken: u64,
    /// Requests asked for in it.
    pub demand: u64,
    /// Requests asked for in the one before it.
    pub prev_demand: u64,
    /// Requests taken of the one after it.
    pub next_taken: u64,
}

impl Window {
    /// The window as of `now_ms`: itself, the one after it, or a new one that begins now. A clock that has gone back by
    /// up to a window's length stands still until it is there again.
    #[must_use]
    pub fn at(kept: Option<Self>, now_ms: u64) -> Self {
        let new = Self { start_ms: now_ms, ..Self::default() };
        let Some(kept) = kept else { return new };
        if kept.start_ms.saturating_sub(now_ms) > WINDOW_MS {
            return new;
        }
        match now_ms.saturating_sub(kept.start_ms) / WINDOW_MS {
            0 => kept,
            1 => Self {
                start_ms: kept.start_ms + WINDOW_MS,
                taken: kept.next_taken,
                demand: 0,
                prev_demand: kept.demand,
                next_taken: 0,
            },
            _ => new,
        }
    }

    /// Books a wish and says what it gets.
    pub fn grant(&mut self, wish: LeaseWish, now_ms: u64) -> Lease {
        let bounded = |number: u32| u64::from(number).min(REQUESTS_MAX);
        let (limit, want) = (bounded(wish.limit), bounded(wish.want));
        self.demand = (self.demand + bounded(wish.demand)).min(REQUESTS_MAX);
        self.taken = (self.taken + bounded(wish.debt)).min(REQUESTS_MAX);
        let (granted, left) = if wish.next {
            let granted = self.ahead(limit, want);
            self.next_taken += granted;
            (granted, limit.saturating_sub(self.next_taken))
        } else {
            // The more is left, the more one call gets; who comes late still finds something.
            let pool = limit.saturating_sub(self.taken);
            let granted = want.min(pool).min(pool.div_ceil(4).max(1));
            self.taken += granted;
            (granted, pool - granted)
        };
        Lease {
            granted: count(granted),
            window_age_ms: count(now_ms.saturating_sub(self.start_ms)),
            left: count(left),
            demand: count(self.demand),
        }
    }

    /// Of the second to come: the wisher's share of the demand, as far as that is known, within what is given ahead.
    fn ahead(&self, limit: u64, want: u64) -> u64 {
        let pool = (limit - limit / KEPT_BACK).saturating_sub(self.next_taken);
        // Towards a second's end some nodes have not told their demand yet: the second before it tells it whole.
        let demand = self.demand.max(self.prev_demand).max(1);
        let fair = if demand <= limit { want } else { (limit * want / demand).max(1) };
        want.min(pool).min(fair)
    }

    /// As it is kept under `ratelimit:<key>`: five numbers in the order of the fields, but for the two demands, which
    /// stand in the middle.
    #[must_use]
    pub fn to_text(self) -> String {
        let Self { start_ms, taken, demand, prev_demand, next_taken } = self;
        format!("{start_ms} {taken} {demand} {prev_demand} {next_taken}")
    }

    /// Reads what [`to_text`](Self::to_text) wrote; `None` for anything else.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let digits = |number: &&str| number.bytes().all(|byte| byte.is_ascii_digit());
        let mut numbers = text.split(' ').map(|number| Some(number).filter(digits)?.parse::<u64>().ok());
        let mut next = |max| numbers.next().flatten().filter(|number| *number <= max);
        let start_ms = next(TIME_MS_MAX)?;
        let [taken, demand, prev_demand, next_taken] = [(); 4].map(|()| next(REQUESTS_MAX));
        let window =
            Self { start_ms, taken: taken?, demand: demand?, prev_demand: prev_demand?, next_taken: next_taken? };
        numbers.next().is_none().then_some(window)
    }
}

/// Numbers here are at most [`REQUESTS_MAX`] or a window's age.
fn count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(super) mod cases {
    //! What the arithmetic is held to, here and on the server.

    use super::*;

    /// One call: the state before it, the time, the wish, and what it gets.
    pub struct Case {
        pub kept: Option<&'static str>,
        pub now_ms: u64,
        pub wish: LeaseWish,
        pub lease: Lease,
        pub kept_then: &'static str,
    }

    const fn wish(limit: u32, want: u32, demand: u32, debt: u32) -> LeaseWish {
        LeaseWish { limit, want, demand, next: false, debt }
    }

    const fn ahead(limit: u32, want: u32, demand: u32) -> LeaseWish {
        LeaseWish { limit, want, demand, next: true, debt: 0 }
    }

    const fn case(
        kept: Option<&'static str>,
        now_ms: u64,
        wish: LeaseWish,
        [granted, window_age_ms, left, demand]: [u32; 4],
        kept_then: &'static str,
    ) -> Case {
        Case { kept, now_ms, wish, lease: Lease { granted, window_age_ms, left, demand }, kept_then }
    }

    const BIG: u32 = REQUESTS_MAX as u32;

    /// The table.
    pub const CASES: [Case; 27] = [
        // A key's first request begins its second.
        case(None, 7_000, wish(1_000, 100, 5, 0), [100, 0, 900, 5], "7000 100 5 0 0"),
        case(None, 7_000, wish(1_000, 1_000, 0, 0), [250, 0, 750, 0], "7000 250 0 0 0"),
        // A quarter of what is left, rounded up; one at least; nothing when nothing is left.
        case(Some("7000 250 0 0 0"), 7_100, wish(1_000, 1_000, 0, 0), [188, 100, 562, 0], "7000 438 0 0 0"),
        case(Some("7000 998 9 0 0"), 7_100, wish(1_000, 1_000, 1, 0), [1, 100, 1, 10], "7000 999 10 0 0"),
        case(Some("7000 1000 0 0 0"), 7_999, wish(1_000, 5, 5, 0), [0, 999, 0, 5], "7000 1000 5 0 0"),
        case(None, 7_000, wish(3, 3, 1, 0), [1, 0, 2, 1], "7000 1 1 0 0"),
        case(Some("7000 1 1 0 0"), 7_000, wish(3, 1, 1, 0), [1, 0, 1, 2], "7000 2 2 0 0"),
        // A wish of nothing only books.
        case(None, 7_000, wish(1_000, 0, 8, 7), [0, 0, 993, 8], "7000 7 8 0 0"),
        // What was admitted without a lease is taken first, even beyond the limit.
        case(Some("7000 990 0 0 0"), 7_001, wish(1_000, 10, 0, 8), [1, 1, 1, 0], "7000 999 0 0 0"),
        case(Some("7000 990 0 0 0"), 7_001, wish(1_000, 10, 0, 50), [0, 1, 0, 0], "7000 1040 0 0 0"),
        // A lowered limit.
        case(Some("7000 990 0 0 0"), 7_001, wish(100, 10, 0, 0), [0, 1, 0, 0], "7000 990 0 0 0"),
        // The window after: it begins where this one ends, with what was given ahead.
        case(Some("7000 990 40 3 600"), 8_000, wish(1_000, 100, 5, 0), [100, 0, 300, 5], "8000 700 5 40 0"),
        case(Some("7000 990 40 3 600"), 8_999, wish(1_000, 100, 5, 0), [100, 999, 300, 5], "8000 700 5 40 0"),
        // Two windows on, everything begins anew.
        case(Some("7000 990 40 3 600"), 9_000, wish(1_000, 100, 5, 0), [100, 0, 900, 5], "9000 100 5 0 0"),
        // A clock that has gone back a little stands still; far back, everything begins anew.
        case(Some("7000 990 40 3 0"), 6_000, wish(1_000, 1, 5, 0), [1, 0, 9, 45], "7000 991 45 3 0"),
        case(Some("7000 990 40 3 0"), 5_999, wish(1_000, 1, 5, 0), [1, 0, 999, 5], "5999 1 5 0 0"),
        // Ahead: all that is wanted while the demand is below the limit, within all but a tenth.
        case(Some("7000 500 300 0 0"), 7_950, ahead(1_000, 300, 100), [300, 950, 700, 400], "7000 500 400 0 300"),
        case(Some("7000 500 0 0 0"), 7_950, ahead(1_000, 1_000, 1_000), [900, 950, 100, 1_000], "7000 500 1000 0 900"),
        case(Some("7000 500 0 0 800"), 7_950, ahead(1_000, 300, 300), [100, 950, 100, 300], "7000 500 300 0 900"),
        // Above it, the share of the demand, rounded down, but one at least; of this second or the one before, whichever is more.
        case(Some("7000 9 2700 0 0"), 7_950, ahead(1_000, 300, 300), [100, 950, 900, 3_000], "7000 9 3000 0 100"),
        case(Some("7000 9 0 4000 0"), 7_950, ahead(1_000, 301, 301), [75, 950, 925, 301], "7000 9 301 4000 75"),
        case(Some("7000 9 60000 0 0"), 7_950, ahead(1_000, 5, 0), [1, 950, 999, 60_000], "7000 9 60000 0 1"),
        case(None, 7_000, ahead(3, 3, 3), [3, 0, 0, 3], "7000 0 3 0 3"),
        // What is kept is no window of ours: as if there were none.
        case(Some("nonsense"), 7_000, wish(8, 8, 0, 0), [2, 0, 6, 0], "7000 2 0 0 0"),
        case(Some("7000 2 0 0 67108865"), 7_000, wish(8, 8, 0, 0), [2, 0, 6, 0], "7000 2 0 0 0"),
        // The largest numbers, exactly.
        case(
            Some("7000 0 67108864 0 0"),
            7_000,
            ahead(50_000_001, 50_000_003, 0),
            [37_252_905, 0, 12_747_096, BIG],
            "7000 0 67108864 0 37252905",
        ),
        case(
            Some("7000 0 67108864 67108863 0"),
            7_000,
            ahead(u32::MAX, BIG - 1, u32::MAX),
            [60_397_978, 0, 6_710_886, BIG],
            "7000 0 67108864 67108863 60397978",
        ),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds() {
        for (index, case) in cases::CASES.iter().enumerate() {
            let mut window = Window::at(case.kept.and_then(Window::from_text), case.now_ms);
            assert_eq!(window.grant(case.wish, case.now_ms), case.lease, "case {index}");
            assert_eq!(window.to_text(), case.kept_then, "case {index}");
        }
    }

    #[test]
    fn no_second_gives_more_than_its_limit_whoever_asks_whenever() {
        let mut kept = None;
        let (mut given, mut ahead, mut second) = (0_u64, 0_u64, 0_u64);
        for step in 0..20_000_u64 {
            let now_ms = 5_000 + step * 7;
            let mut window = Window::at(kept, now_ms);
            if window.start_ms != second {
                (given, ahead, second) = (if second == 0 { 0 } else { ahead }, 0, window.start_ms);
            }
            let want = u32::try_from(step * 2_654_435_761 % 700).expect("small");
            let wish = LeaseWish { limit: 1_000, want, demand: want, next: step % 5 == 0, debt: 0 };
            let granted = u64::from(window.grant(wish, now_ms).granted);
            *(if wish.next { &mut ahead } else { &mut given }) += granted;
            assert!(given <= 1_000 && ahead <= 900, "{given} and {ahead} ahead at {now_ms}");
            kept = Some(window);
        }
    }
}
