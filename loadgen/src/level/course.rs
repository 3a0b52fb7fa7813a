//! What the connections of one protocol on one thread have in common: which they are, what is due, and what is counted.
//!
//! Arithmetic and counters: no socket and no clock is touched here.

use super::count::{Counter, Seen, Window};
use crate::job::{Job, Pace};
use crate::outcome::behind_histogram;
use crate::schedule::Schedule;
use hdrhistogram::Histogram;

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

/// See the top of the file.
pub(crate) struct Course<'a> {
    pub(crate) job: &'a Job,
    pub(crate) share: Share,
    pub(crate) window: Window,
    schedule: Option<Schedule>,
    pub(crate) turns: Turns,
    /// One for each target that is driven, in their order.
    pub(crate) counters: Vec<Counter>,
    pub(crate) behind_ns: Histogram<u64>,
}

impl<'a> Course<'a> {
    /// Of a protocol that `targets` of the job's targets are driven over.
    pub(crate) fn new(job: &'a Job, window: Window, share: Share, targets: usize) -> Self {
        let counters = (0..targets).map(|_| Counter::new(window)).collect();
        let (turns, behind_ns) = (Turns::new(share), behind_histogram());
        Self { job, share, window, schedule: None, turns, counters, behind_ns }
    }

    /// The schedule begins.
    pub(crate) fn begin(&mut self, schedule: Schedule, counted_from_ns: u64, end_ns: u64) {
        self.schedule = Some(schedule);
        self.window.from_ns = counted_from_ns;
        self.turns.begin(schedule, end_ns, self.job.pace);
        self.end_at(end_ns);
    }

    /// The time of the level is over then: earlier than it was to be, where it is told a second time.
    pub(crate) fn end_at(&mut self, end_ns: u64) {
        self.window.end_ns = end_ns;
        self.turns.end_at(end_ns);
        self.counters.iter_mut().for_each(|counter| counter.window = self.window);
    }

    /// The time that request number `request` of connection number `number` is meant for, if it may be sent now. A closed
    /// loop means every request for now.
    #[inline]
    pub(crate) fn due(&self, number: u64, request: u64, now_ns: u64) -> Option<u64> {
        let schedule = self.schedule?;
        let due_ns = if self.job.pace == Pace::Open { schedule.due_ns(number, request) } else { now_ns };
        (due_ns <= now_ns && due_ns < self.window.end_ns).then_some(due_ns)
    }

    /// The first request of a connection, from number `request` on, that is worth sending: what would be lost by now if it
    /// had been sent in its time is not sent any more, so that a server that comes back is not asked for the past.
    #[inline]
    pub(crate) fn worth_sending(&self, number: u64, request: u64, now_ns: u64) -> u64 {
        let Some(schedule) = self.schedule.filter(|_| self.job.pace == Pace::Open) else { return request };
        let oldest_ns = now_ns.saturating_sub(self.window.lost_ns);
        if schedule.due_ns(number, request) >= oldest_ns {
            return request;
        }
        schedule.due_before(number, oldest_ns).max(request)
    }

    /// Position of what a request asks for: of n connections the one numbered i asks for i, i + n, i + 2 n and so on, round
    /// and round, so that each asset is asked for before any comes again.
    #[inline]
    pub(crate) fn asset_of(&self, number: u64, request: u64) -> usize {
        let turn = number.wrapping_add(request.wrapping_mul(self.share.connections as u64));
        (turn % self.job.assets.len() as u64) as usize
    }

    /// A request was sent to a target; its connection had room for it since `room_since_ns`.
    #[inline]
    pub(crate) fn sent(&mut self, target: usize, due_ns: u64, room_since_ns: u64, now_ns: u64) {
        self.counters[target].sent(due_ns);
        if self.job.pace == Pace::Open {
            let behind_ns = now_ns.saturating_sub(due_ns.max(room_since_ns));
            self.behind_ns.saturating_record(behind_ns.max(1));
        }
    }

    /// Everything until now, over all targets.
    pub(crate) fn seen(&self) -> Seen {
        self.counters.iter().fold(Seen::default(), |sum, counter| sum.plus(counter.seen))
    }

    /// Counts what was due and is not sent. `connections` are (target, number) of each.
    pub(crate) fn count_unsent(&mut self, connections: impl Iterator<Item = (usize, u64)>) {
        let Some(schedule) = self.schedule.filter(|_| self.job.pace == Pace::Open) else { return };
        for (target, number) in connections {
            let counter = &mut self.counters[target];
            let before = schedule.due_before(number, counter.window.from_ns);
            counter.tally.unsent += schedule.due_before(number, counter.window.end_ns).saturating_sub(before);
        }
        for counter in &mut self.counters {
            debug_assert!(counter.tally.sent <= counter.tally.unsent, "more was sent than was due");
            counter.tally.unsent = counter.tally.unsent.saturating_sub(counter.tally.sent);
        }
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
