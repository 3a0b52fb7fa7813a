//! What the loop of a thread asks of the connections of one protocol, and whose turn is next among them.
//!
//! TCP and UDP each are a lane: the loop knows when turns are due and when something came; a lane knows how to send, what
//! an answer is worth, and what is lost. Neither knows of other threads.

use super::count::{Counter, Seen};
use crate::job::Pace;
use crate::schedule::Schedule;
use hdrhistogram::Histogram;
use mio::event::Event;

/// Which connections of a level a thread drives: those whose number, divided by the threads, leaves its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) thread: usize,
    pub(crate) threads: usize,
    /// Connections of the level.
    pub(crate) connections: usize,
}

impl Share {
    /// Numbers of the connections, over the whole level, in the order of this thread's own indices.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        (self.thread..self.connections).step_by(self.threads)
    }
}

/// One protocol's connections on one thread.
pub(crate) trait Lane {
    /// How many connections there are.
    fn len(&self) -> usize;

    /// Whether every connection is open, or was tried in vain.
    fn is_connected(&self) -> bool;

    /// The schedule begins.
    fn begin(&mut self, schedule: Schedule, counted_from_ns: u64, end_ns: u64);

    /// The time of the level is over earlier than it was to be.
    fn end_at(&mut self, end_ns: u64);

    /// Something happened to the connection at `index`. True: it may have room for requests that are due.
    fn happened(&mut self, index: usize, event: &Event) -> bool;

    /// Sends what is due at the connection at `index`, as far as there is room; in a closed loop, what there is room for.
    fn send(&mut self, index: usize, now_ns: u64);

    /// Gives up what is lost, and mends what is broken. Called about twenty times a second.
    fn sweep(&mut self, now_ns: u64);

    /// Whose turn is next.
    fn turns(&mut self) -> &mut Turns;

    /// Everything until now, over all targets.
    fn seen(&self) -> Seen;

    /// Ends the count: what is in flight is lost, or left out where the level was `stopped` before its time.
    fn finish(self, stopped: bool) -> LaneOutcome
    where
        Self: Sized;
}

/// What a lane found.
pub(crate) struct LaneOutcome {
    /// One for each target that is driven, in their order.
    pub(crate) counters: Vec<Counter>,
    pub(crate) behind_ns: Histogram<u64>,
}

/// Sums over a lane's counters.
pub(crate) fn seen(counters: &[Counter]) -> Seen {
    counters.iter().fold(Seen::default(), |sum, counter| sum.plus(counter.seen))
}

/// Position of what request number `request` of connection number `number` asks for: of n connections the one numbered i
/// asks for i, i + n, i + 2 n and so on, round and round, so that each asset is asked for before any comes again.
#[inline]
pub(crate) fn asset_of(number: u64, request: u64, connections: usize, assets: usize) -> usize {
    (number.wrapping_add(request.wrapping_mul(connections as u64)) % assets as u64) as usize
}

/// Counts what was due and is not sent. `connections` are (target, number) of each.
pub(crate) fn count_unsent(
    counters: &mut [Counter],
    pace: Pace,
    schedule: Option<Schedule>,
    connections: impl Iterator<Item = (usize, u64)>,
) {
    let Some(schedule) = schedule.filter(|_| pace == Pace::Open) else { return };
    for (target, number) in connections {
        let counter = &mut counters[target];
        let before = schedule.due_before(number, counter.window.from_ns);
        counter.tally.unsent += schedule.due_before(number, counter.window.end_ns).saturating_sub(before);
    }
    for counter in counters {
        counter.tally.unsent = counter.tally.unsent.saturating_sub(counter.tally.sent);
    }
}

/// Walks a thread's share of an open schedule, turn by turn, in the order in which they are due.
#[derive(Debug)]
pub(crate) struct Turns {
    share: Share,
    own: usize,
    schedule: Option<Schedule>,
    end_ns: u64,
    round: u64,
    index: usize,
    due_ns: u64,
}

impl Turns {
    pub(crate) fn new(share: Share) -> Self {
        Self { share, own: share.numbers().count(), schedule: None, end_ns: 0, round: 0, index: 0, due_ns: u64::MAX }
    }

    /// The schedule begins. A closed loop has no turns.
    pub(crate) fn begin(&mut self, schedule: Schedule, end_ns: u64, pace: Pace) {
        if pace == Pace::Open && self.own > 0 {
            self.schedule = Some(schedule);
            self.end_ns = end_ns;
            self.look();
        }
    }

    pub(crate) fn end_at(&mut self, end_ns: u64) {
        self.end_ns = end_ns;
        self.look();
    }

    /// When the next turn is due; `u64::MAX` when there is none any more.
    #[inline]
    pub(crate) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Takes the next turn: the index of the connection whose it is.
    #[inline]
    pub(crate) fn take(&mut self) -> usize {
        let index = self.index;
        self.index += 1;
        if self.index == self.own {
            self.index = 0;
            self.round += 1;
        }
        self.look();
        index
    }

    fn look(&mut self) {
        let Some(schedule) = self.schedule else { return };
        let number = (self.share.thread + self.index * self.share.threads) as u64;
        let due_ns = schedule.turn_ns(self.round.saturating_mul(schedule.connections).saturating_add(number));
        self.due_ns = if due_ns < self.end_ns { due_ns } else { u64::MAX };
    }

    /// Turns a second of this thread.
    pub(crate) fn rate(&self) -> u64 {
        let share = |schedule: Schedule| schedule.rate / schedule.train * self.own as u64 / schedule.connections;
        self.schedule.map_or(0, share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_the_turns_between_them() {
        let schedule = Schedule { start_ns: 0, rate: 1_000, connections: 5, train: 1 };
        let mut all = Vec::new();
        for thread in 0..3 {
            let share = Share { thread, threads: 3, connections: 5 };
            let numbers: Vec<usize> = share.numbers().collect();
            let mut turns = Turns::new(share);
            turns.begin(schedule, 20_000_000, Pace::Open);
            let mut before_ns = 0;
            while turns.due_ns() != u64::MAX {
                let due_ns = turns.due_ns();
                assert!(due_ns >= before_ns, "in order");
                before_ns = due_ns;
                all.push((due_ns, numbers[turns.take()]));
            }
        }
        all.sort_unstable();
        let expected: Vec<(u64, usize)> = (0..20).map(|turn| (turn * 1_000_000, turn as usize % 5)).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn a_closed_loop_and_an_idle_thread_have_no_turns() {
        let schedule = Schedule { start_ns: 0, rate: 1_000, connections: 1, train: 1 };
        for (thread, pace) in [(0, Pace::Closed), (1, Pace::Open)] {
            let mut turns = Turns::new(Share { thread, threads: 2, connections: 1 });
            turns.begin(schedule, 1_000_000_000, pace);
            assert_eq!((turns.due_ns(), turns.rate()), (u64::MAX, 0));
        }
    }
}
