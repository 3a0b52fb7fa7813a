//! One shard's part of the bound on active connections: who is counted, and who is shed when there are too many.
//!
//! A connection is active when it has sent a request of a working key in the present window or in the one before it, so
//! within the last 200 to 400 ms. Ten thousand idle ones cost nothing here, nor do as many that ask every few seconds. A
//! connection that is in stays in for its window; at its first request of the next one it is judged again, with itself
//! counted, so that a bound that holds sheds the same connections and not others each time. Where the bounds come from is
//! not known here.

use crate::counters::ShardCounters;
use crate::render::problem::Problem;
use alloc::sync::Arc;
use shared::code::Code;
use shared::key::RANK_MAX;

/// Ranks of keys: 0 is shed first.
pub const RANKS: usize = RANK_MAX as usize + 1;

/// Length of a window, ms: four housekeeping turns of a shard. The bound is on how many ask at the same time; in a longer
/// window everybody who merely asks once in it would count, and 10,000 polls a second, one from each client, would be
/// too many for the bound of 6,000 that the replaced system had for requests in progress.
pub const GOVERNOR_WINDOW_MS: u64 = 200;

/// Hundredths of the bound that connections of each rank may fill, all ranks counted. What lies above a rank's share is
/// there for the ranks above it: demo keys, which anybody has, can never hold more than three fifths of a node; the
/// paying tiers above them keep 10, 15 and 15 of a hundred that those below cannot take, and the highest has all.
pub const RANK_SHARE_PERCENT: [u32; RANKS] = [60, 70, 85, 100];

/// The first window: neither it nor the one before it is 0, which is the mark of a connection that is not counted.
const FIRST_WINDOW: u32 = 2;

/// What a shard is told: every shard's part of the bound, and how long those that are shed are told to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GovernorBounds {
    /// Active connections that each shard may have, by its number. A shard beyond the end has no bound.
    pub active_max: Arc<[u32]>,
    /// Least `Retry-After` of a shed answer, s.
    pub retry_after_s: u32,
}

/// One shard's count of active connections.
pub(crate) struct Governor {
    /// The present window.
    window: u32,
    /// When it began, monotonic ms.
    began_mono_ms: u64,
    /// Connections counted in the present window.
    active: u32,
    /// Connections counted in the window before it that have not asked again yet.
    carried: u32,
    /// Active connections beyond which a newcomer of each rank is shed.
    max: [u32; RANKS],
    retry_after_s: u32,
    /// Requests shed, by rank.
    shed: [u64; RANKS],
}

impl Governor {
    /// Without a bound.
    pub(crate) const fn new() -> Self {
        Self {
            window: FIRST_WINDOW,
            began_mono_ms: 0,
            active: 0,
            carried: 0,
            max: [u32::MAX; RANKS],
            retry_after_s: 0,
            shed: [0; RANKS],
        }
    }

    /// Whether a connection with this mark is counted in the present window.
    #[inline]
    pub(crate) const fn is_counted(&self, mark: u32) -> bool {
        mark == self.window
    }

    /// Counts a connection at its first request of this window, and marks it; `false` when it is shed.
    pub(crate) fn enter(&mut self, mark: &mut u32, rank: u8) -> bool {
        self.leave(mark);
        let rank = usize::from(rank).min(RANKS - 1);
        if self.active() >= self.max[rank] {
            self.shed[rank] += 1;
            return false;
        }
        self.active += 1;
        *mark = self.window;
        true
    }

    /// Counts a connection no longer.
    pub(crate) const fn leave(&mut self, mark: &mut u32) {
        if *mark == self.window {
            self.active = self.active.saturating_sub(1);
        } else if *mark == self.window - 1 {
            self.carried = self.carried.saturating_sub(1);
        }
        *mark = 0;
    }

    /// Begins a new window if it is time: to be called several times a window.
    pub(crate) const fn turn(&mut self, mono_ms: u64) {
        let passed = mono_ms.saturating_sub(self.began_mono_ms) / GOVERNOR_WINDOW_MS;
        if passed == 0 {
            return;
        }
        self.carried = if passed == 1 { self.active } else { 0 };
        self.active = 0;
        // Two steps at the most: that is what it takes for no mark to be of this window or of the one before it.
        self.window = match self.window.checked_add(if passed == 1 { 1 } else { 2 }) {
            Some(window) => window,
            None => FIRST_WINDOW,
        };
        self.began_mono_ms = mono_ms;
    }

    /// Uses these bounds from now on; those that are in stay in until their next window.
    pub(crate) fn set(&mut self, shard: u16, bounds: &GovernorBounds) {
        let bound = bounds.active_max.get(usize::from(shard)).copied().unwrap_or(u32::MAX);
        self.max = RANK_SHARE_PERCENT.map(|percent| rank_max(bound, percent));
        self.retry_after_s = bounds.retry_after_s;
    }

    /// Active connections.
    pub(crate) const fn active(&self) -> u32 {
        self.active + self.carried
    }

    /// Enters what is counted here into the shard's counters.
    pub(crate) fn publish(&self, counters: &mut ShardCounters) {
        counters.active = u64::from(self.active());
        counters.active_max = u64::from(self.max[RANKS - 1]);
        counters.shed = self.shed;
    }

    /// The problem with which a request is refused; when it is shed, in words of its own and with the wait in force.
    pub(crate) fn problem(&self, code: Code) -> Problem {
        match code {
            Code::Overloaded => {
                Problem::saying(code, "Too many connections are active. Wait as long as Retry-After says.")
                    .after(self.retry_after_s)
            }
            _ => Problem::of(code),
        }
    }
}

/// A rank's part of the bound, rounded down, and 1 at least: however small the bound, nobody is shut out for good.
fn rank_max(bound: u32, percent: u32) -> u32 {
    let part = u64::from(bound) * u64::from(percent) / 100;
    u32::try_from(part).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A governor of one shard with this bound, and marks of so many connections.
    fn bounded(bound: u32) -> Governor {
        let mut governor = Governor::new();
        governor.set(0, &GovernorBounds { active_max: Arc::from([bound]), retry_after_s: 0 });
        governor
    }

    /// Has each connection ask once, in order; answers how many of each rank were served.
    fn ask(governor: &mut Governor, connections: &mut [(u32, u8)]) -> [usize; RANKS] {
        let mut served = [0; RANKS];
        for (mark, rank) in connections {
            if governor.is_counted(*mark) || governor.enter(mark, *rank) {
                served[usize::from(*rank)] += 1;
            }
        }
        served
    }

    /// Newcomers of these ranks, so many of each, in this order.
    #[track_caller]
    fn check(bound: u32, groups: &[(u8, usize)], expected: [usize; RANKS]) {
        let mut governor = bounded(bound);
        let mut all: alloc::vec::Vec<(u32, u8)> =
            groups.iter().flat_map(|(rank, count)| core::iter::repeat_n((0, *rank), *count)).collect();
        assert_eq!(ask(&mut governor, &mut all), expected, "bound {bound}: {groups:?}");
    }

    #[test]
    fn a_rank_fills_its_share_and_leaves_the_rest() {
        check(100, &[(0, 100)], [60, 0, 0, 0]);
        check(100, &[(1, 100)], [0, 70, 0, 0]);
        check(100, &[(2, 100)], [0, 0, 85, 0]);
        check(100, &[(3, 101)], [0, 0, 0, 100]);
        check(100, &[(0, 100), (1, 100), (2, 100), (3, 100)], [60, 10, 15, 15]);
        check(100, &[(3, 65), (0, 1), (1, 100)], [0, 5, 0, 65]);
        check(1, &[(0, 2)], [1, 0, 0, 0]);
        check(3, &[(0, 3), (3, 3)], [1, 0, 0, 2]);
        check(u32::MAX, &[(0, 10_000)], [10_000, 0, 0, 0]);
        check(10, &[(9, 11)].map(|(rank, count): (u8, usize)| (rank.min(3), count)), [0, 0, 0, 10]);
    }

    #[test]
    fn those_who_are_in_stay_in_and_no_others_take_their_place() {
        let mut governor = bounded(10);
        let mut all = [(0, 0); 20];
        assert_eq!(ask(&mut governor, &mut all), [6, 0, 0, 0]);
        for second in 1..=5 {
            governor.turn(second * GOVERNOR_WINDOW_MS);
            // Those who were shed come first now.
            let mut backwards = all;
            backwards.reverse();
            assert_eq!(ask(&mut governor, &mut backwards), [6, 0, 0, 0], "second {second}");
            backwards.reverse();
            all = backwards;
            assert!(all[..6].iter().all(|(mark, _)| governor.is_counted(*mark)), "second {second}: {all:?}");
            assert_eq!(governor.active(), 6);
        }
        let mut counters = ShardCounters::default();
        governor.publish(&mut counters);
        assert_eq!((counters.shed, counters.active, counters.active_max), ([14 * 6, 0, 0, 0], 6, 10));
    }

    #[test]
    fn higher_ranks_push_lower_ones_out_within_a_window() {
        let mut governor = bounded(10);
        let mut low = [(0, 0); 6];
        let mut high = [(0, 3); 10];
        assert_eq!(ask(&mut governor, &mut low), [6, 0, 0, 0]);
        assert_eq!(ask(&mut governor, &mut high), [0, 0, 0, 4], "what is left");
        assert_eq!(ask(&mut governor, &mut low), [6, 0, 0, 0], "those who are in are served to the window's end");
        governor.turn(GOVERNOR_WINDOW_MS);
        assert_eq!(ask(&mut governor, &mut low), [2, 0, 0, 0], "ten are counted: four go until six are left");
        assert_eq!(ask(&mut governor, &mut high), [0, 0, 0, 8]);
        governor.turn(2 * GOVERNOR_WINDOW_MS);
        assert_eq!(ask(&mut governor, &mut low), [0; RANKS]);
        assert_eq!(ask(&mut governor, &mut high), [0, 0, 0, 10]);
    }

    #[test]
    fn a_lower_bound_holds_from_the_next_window_and_a_higher_one_at_once() {
        let mut governor = bounded(100);
        let mut all = [(0, 3); 100];
        assert_eq!(ask(&mut governor, &mut all), [0, 0, 0, 100]);
        governor.set(0, &GovernorBounds { active_max: Arc::from([40]), retry_after_s: 7 });
        assert_eq!(ask(&mut governor, &mut all), [0, 0, 0, 100]);
        governor.turn(GOVERNOR_WINDOW_MS);
        assert_eq!(ask(&mut governor, &mut all), [0, 0, 0, 40]);
        governor.set(0, &GovernorBounds { active_max: Arc::from([90]), retry_after_s: 0 });
        assert_eq!(ask(&mut governor, &mut all), [0, 0, 0, 90]);
        governor.set(1, &GovernorBounds { active_max: Arc::from([90]), retry_after_s: 0 });
        assert_eq!(ask(&mut governor, &mut all), [0, 0, 0, 100], "a shard that no part was named for");
    }

    #[test]
    fn the_idle_and_the_gone_are_not_counted() {
        let mut governor = bounded(10);
        let mut all = [(0, 3); 10];
        ask(&mut governor, &mut all);
        for (mark, _) in &mut all[..4] {
            governor.leave(mark);
        }
        assert_eq!(governor.active(), 6);
        governor.turn(GOVERNOR_WINDOW_MS);
        governor.leave(&mut all[4].0);
        assert_eq!(governor.active(), 5, "counted in the window before this one");
        governor.turn(GOVERNOR_WINDOW_MS + 100);
        assert_eq!(governor.active(), 5, "not yet the next window");
        governor.turn(2 * GOVERNOR_WINDOW_MS);
        assert_eq!(governor.active(), 0, "idle for a whole window");
        governor.leave(&mut all[5].0);
        ask(&mut governor, &mut all[6..]);
        governor.turn(9 * GOVERNOR_WINDOW_MS);
        assert_eq!(governor.active(), 0, "nobody turned for long");
        governor.leave(&mut all[6].0);
        assert_eq!(governor.active(), 0);
    }
}
