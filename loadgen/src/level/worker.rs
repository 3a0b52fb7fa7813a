//! One thread of a level: waits until something comes or is due, and lets its lanes do it.
//!
//! A wait of whole milliseconds would be the latency at low rates, so the next turn is waited for with a timer of the
//! kernel's finest kind, and where turns are rare its last stretch by looking again and again. The loop knows no protocol.

use super::count::Seen;
use super::course::Course;
use super::datagrams::Datagrams;
use super::lane::Lane;
use super::nanoseconds;
use super::streams::Streams;
use crate::job::{Job, Pace, Progress};
use crate::plan::Level;
use crate::schedule::{SECOND_NS, Schedule};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tuning::clock::{mono_ns, thread_cpu_ns};

/// Time between sweeps: what is lost is found, what is broken is mended, and whoever watches is told this often.
const SWEEP_NS: u64 = 50_000_000;
/// Turns that are taken before what has come is looked at: 64 sends are about half a millisecond.
const TURNS_MAX: usize = 64;
/// How long before a turn the timer wakes, and looking again and again begins: a woken thread is late by 50 to 100 µs on a
/// virtual machine. Where turns are near each other it is a part of their distance, so that most of the CPU stays free.
const LEAD_NS: u64 = 60_000;
const LEAD_PART: u64 = 4;
/// Longest time to open all connections before the schedule begins without those that are not open.
const CONNECT_NS_MAX: u64 = 5_000_000_000;
/// Time after the end in which answers are waited for when the level was stopped.
const STOPPED_NS: u64 = 20_000_000;
/// Events of one wait.
const EVENTS: usize = 1_024;
const TIMER: Token = Token(usize::MAX - 1);

/// Events of the TCP lane bear even numbers, those of the UDP lane odd ones.
pub(super) fn stream_token(index: usize) -> Token {
    Token(index * 2)
}

/// See [`stream_token`].
pub(super) fn socket_token(index: usize) -> Token {
    Token(index * 2 + 1)
}

/// Waits until a time, or until something happens before it.
struct Alarm {
    timer: TimerFd,
    set_ns: u64,
}

impl Alarm {
    fn new(poll: &Poll) -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
        let descriptor = timer.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), TIMER, Interest::READABLE)?;
        Ok(Self { timer, set_ns: 0 })
    }

    /// Wakes the next wait at `at_ns`. Edge-triggered: the timer need not be read.
    fn set(&mut self, at_ns: u64) -> io::Result<()> {
        if self.set_ns != at_ns {
            let at = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(at_ns)));
            self.timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            self.set_ns = at_ns;
        }
        Ok(())
    }
}

/// When a level begins, counts and ends, on the clock that all threads share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start_ns: u64,
    pub(super) count_from_ns: u64,
    pub(super) end_ns: u64,
}

/// What a thread has had of the CPUs, and waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub(super) cpu_ns: u64,
    /// Ready to run, but not running: someone else had the CPU. 0 where the kernel does not count it.
    pub(super) delay_ns: u64,
}

impl Used {
    /// By the calling thread, until now.
    fn read() -> Self {
        // Time on the CPU, time waiting for one, and turns.
        let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let delay_ns = counted.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
        Self { cpu_ns: thread_cpu_ns(), delay_ns }
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            delay_ns: self.delay_ns.saturating_sub(earlier.delay_ns),
        }
    }
}

/// What one thread found.
pub(super) struct ThreadOutcome<'a> {
    pub(super) tcp: Option<Course<'a>>,
    pub(super) udp: Option<Course<'a>>,
    pub(super) used: Used,
    pub(super) counted_ns: u64,
    pub(super) stopped: bool,
}

/// See the top of the file.
pub(super) struct Worker<'a> {
    pub(super) job: &'a Job,
    pub(super) level: Level,
    pub(super) progress: &'a Progress,
    pub(super) poll: Poll,
    pub(super) tcp: Option<Streams<'a>>,
    pub(super) udp: Option<Datagrams<'a>>,
    alarm: Alarm,
    events: Events,
    /// Of those connections that may have room since the last wait: at most as many as there are events.
    ready: Vec<Token>,
    shown: Seen,
    next_sweep_ns: u64,
}

impl<'a> Worker<'a> {
    /// Of the lanes that `open` makes over the new thread's poll.
    ///
    /// # Errors
    /// When the kernel has no more descriptors to give.
    pub(super) fn new(
        job: &'a Job,
        level: Level,
        progress: &'a Progress,
        open: impl FnOnce(&Poll) -> io::Result<(Option<Streams<'a>>, Option<Datagrams<'a>>)>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let (tcp, udp) = open(&poll)?;
        let (alarm, events, ready) = (Alarm::new(&poll)?, Events::with_capacity(EVENTS), Vec::with_capacity(EVENTS));
        let shown = Seen::default();
        Ok(Self { job, level, progress, poll, tcp, udp, alarm, events, ready, shown, next_sweep_ns: 0 })
    }

    fn each(&mut self, mut act: impl FnMut(&mut dyn Lane<'a>)) {
        self.tcp.iter_mut().for_each(|lane| act(lane));
        self.udp.iter_mut().for_each(|lane| act(lane));
    }

    /// Waits until every connection is open or was refused, or for as long as that may take.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub(super) fn connect(&mut self) -> io::Result<()> {
        let give_up_ns = mono_ns() + CONNECT_NS_MAX;
        while self.tcp.as_ref().is_some_and(|lane| !lane.is_connected()) {
            let now_ns = mono_ns();
            if now_ns > give_up_ns || self.progress.stopped() {
                break;
            }
            self.sweep(now_ns);
            self.wait(Duration::from_nanos(SWEEP_NS), false)?;
        }
        Ok(())
    }

    /// Drives the level to its end.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub(super) fn run(mut self, times: Times) -> io::Result<ThreadOutcome<'a>> {
        self.begin(times);
        let (mut end_ns, mut drain_until_ns) = (times.end_ns, times.end_ns.saturating_add(self.lost_ns()));
        let (mut cpu_from, mut cpu_end, mut stopped) = (None, None, false);
        loop {
            let now_ns = mono_ns();
            if now_ns >= times.count_from_ns && cpu_from.is_none() {
                cpu_from = Some(Used::read());
            }
            if now_ns >= self.next_sweep_ns {
                self.sweep(now_ns);
                let (is_asked, is_gone) = (self.progress.stopped(), self.progress.is_target_gone());
                if (is_asked || is_gone) && now_ns < end_ns {
                    // What is due at this very moment may be sent already, and counts.
                    (stopped, end_ns) = (true, now_ns + 1);
                    drain_until_ns = end_ns.saturating_add(self.lost_ns());
                    self.each(|lane| lane.course().end_at(end_ns));
                }
                if is_asked {
                    stopped = true;
                    drain_until_ns = drain_until_ns.min(now_ns + STOPPED_NS);
                }
            }
            if now_ns >= end_ns {
                cpu_end.get_or_insert_with(Used::read);
                if now_ns >= drain_until_ns || self.is_done() {
                    break;
                }
            }
            self.take_turns();
            let timeout = self.timeout()?;
            self.wait(timeout, true)?;
        }
        let used = cpu_from.zip(cpu_end).map_or(Used::default(), |(from, end)| end.since(from));
        let counted_ns = end_ns.saturating_sub(times.count_from_ns);
        self.show();
        // Whoever stops a level owes no more patience than what would have been in time; a target that is gone does.
        let is_cut = self.progress.stopped() && !self.progress.is_target_gone();
        let left_out_from_ns =
            if is_cut { mono_ns().saturating_sub(nanoseconds(self.job.late_after)) } else { u64::MAX };
        let (tcp, udp) =
            (self.tcp.map(|lane| lane.finish(left_out_from_ns)), self.udp.map(|lane| lane.finish(left_out_from_ns)));
        Ok(ThreadOutcome { tcp, udp, used, counted_ns, stopped })
    }

    fn lost_ns(&self) -> u64 {
        nanoseconds(self.job.lost_after)
    }

    fn begin(&mut self, times: Times) {
        let (rate, connections) = (self.level.rate.max(1), self.level.connections.max(1) as u64);
        let start_ns = times.start_ns;
        let train = self.job.train.max(1) as u64;
        if let Some(lane) = &mut self.tcp {
            let schedule = Schedule { start_ns, rate, connections, train: 1 };
            lane.course().begin(schedule, times.count_from_ns, times.end_ns);
        }
        if let Some(lane) = &mut self.udp {
            let schedule = Schedule { start_ns, rate, connections, train };
            lane.course().begin(schedule, times.count_from_ns, times.end_ns);
        }
        if self.job.pace == Pace::Closed {
            self.each(|lane| (0..lane.len()).for_each(|index| lane.send(index, mono_ns())));
        }
    }

    /// Sends what is due, but no more than may be sent before looking at what has come.
    fn take_turns(&mut self) {
        let take = |lane: &mut dyn Lane<'a>| {
            for _ in 0..TURNS_MAX {
                let now_ns = mono_ns();
                if lane.course().turns.due_ns() > now_ns {
                    break;
                }
                let index = lane.course().turns.take();
                lane.send(index, now_ns);
            }
        };
        self.each(take);
    }

    /// How long to wait: not at all if a turn is due (almost), else until the alarm, and never longer than to the next sweep.
    fn timeout(&mut self) -> io::Result<Duration> {
        let (mut due_ns, mut rate) = (u64::MAX, 0);
        self.each(|lane| {
            due_ns = due_ns.min(lane.course().turns.due_ns());
            rate += lane.course().turns.rate();
        });
        let now_ns = mono_ns();
        let lead_ns = LEAD_NS.min(SECOND_NS / LEAD_PART / rate.max(1));
        if due_ns <= now_ns.saturating_add(lead_ns) {
            return Ok(Duration::ZERO);
        }
        if due_ns < self.next_sweep_ns {
            self.alarm.set(due_ns - lead_ns)?;
        }
        Ok(Duration::from_nanos(self.next_sweep_ns.saturating_sub(now_ns)))
    }

    /// Waits, and lets the lanes take what has come; then, where there is room now, they send. All is read before anything
    /// is sent: the code and the data of one kind of system call stay near, which costs a tenth less than turn by turn.
    fn wait(&mut self, timeout: Duration, sends: bool) -> io::Result<()> {
        let Self { poll, events, tcp, udp, ready, .. } = self;
        match poll.poll(events, Some(timeout)) {
            // A signal: whoever it is for has set what is looked at in the next sweep.
            Err(error) if error.kind() == ErrorKind::Interrupted => events.clear(),
            outcome => outcome?,
        }
        for event in events.iter().filter(|event| event.token() != TIMER) {
            if let Some((lane, index)) = lane_of(tcp, udp, event.token())
                && lane.happened(index, event)
            {
                ready.push(event.token());
            }
        }
        for token in ready.drain(..).filter(|_| sends) {
            if let Some((lane, index)) = lane_of(tcp, udp, token) {
                lane.send(index, mono_ns());
            }
        }
        Ok(())
    }

    fn sweep(&mut self, now_ns: u64) {
        self.each(|lane| lane.sweep(now_ns));
        self.show();
        self.next_sweep_ns = now_ns + SWEEP_NS;
    }

    fn seen(&mut self) -> Seen {
        let mut seen = Seen::default();
        self.each(|lane| seen = seen.plus(lane.course().seen()));
        seen
    }

    /// Whether every turn is taken and nothing is in flight.
    fn is_done(&mut self) -> bool {
        let seen = self.seen();
        let mut is_done = seen.sent == seen.answered + seen.failed;
        self.each(|lane| is_done &= lane.course().turns.due_ns() == u64::MAX);
        is_done
    }

    /// Tells whoever watches what is new.
    fn show(&mut self) {
        let seen = self.seen();
        self.progress.sent.fetch_add(seen.sent - self.shown.sent, Ordering::Relaxed);
        self.progress.answered.fetch_add(seen.answered - self.shown.answered, Ordering::Relaxed);
        self.progress.failed.fetch_add(seen.failed - self.shown.failed, Ordering::Relaxed);
        self.shown = seen;
    }
}

/// The lane that a token belongs to, and the connection's index in it.
fn lane_of<'b, 'a>(
    tcp: &'b mut Option<Streams<'a>>,
    udp: &'b mut Option<Datagrams<'a>>,
    token: Token,
) -> Option<(&'b mut dyn Lane<'a>, usize)> {
    let lane = match token.0 % 2 {
        0 => tcp.as_mut().map(|lane| lane as &mut dyn Lane<'a>),
        _ => udp.as_mut().map(|lane| lane as &mut dyn Lane<'a>),
    };
    Some((lane?, token.0 / 2))
}
