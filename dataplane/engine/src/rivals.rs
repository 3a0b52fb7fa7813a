//! What the rival engines share: one shard's loop with everything in it that does not wait.
//!
//! A rival runs a task for each connection, and one each for newcomers, datagrams, housekeeping and news. A task calls
//! in here for one step at a time and is told what to wait for next; the loop is borrowed for the call, never while a
//! task waits. This file knows no runtime and starts no task. What only two engines of our own need (a wait without a
//! producer's write while the shard is busy) is not to be had through a runtime: here the parked flag is up for as long
//! as the task that awaits the eventfd sleeps, whatever the others do.

mod streams;

use crate::connections::{Buffers, Connections};
use crate::datagrams::Datagrams;
use crate::epoll::watch;
use crate::limits::{HOUSEKEEPING_MS, SWEEP_MS};
use crate::stats::LoopCounters;
use crate::wiring::ShardLoop;
use dataplane_core::shard::{ReadyList, StreamToken};
use shared::moment::Moment;
use socket2::SockRef;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll, Waker};
use streams::Seat;
use tuning::clock;
use tuning::sockets::LISTEN_BACKLOG;

pub(crate) use streams::{Next, Outgoing};

/// Bytes of one receive at most: 16 KiB hold a hundred pipelined requests, whose replies fill the reply buffer three times
/// over; more would only be copied aside.
pub(crate) const READ_BYTES: usize = 16 * 1_024;

/// Whether connections are being accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// No descriptors or memory: tried again at the next housekeeping.
    Paused,
    Stopped,
}

/// What the news of one waking ask of the engine.
pub(crate) struct News {
    /// Those that waited in the listener's queue when accepting was stopped.
    pub(crate) newcomers: Vec<TcpStream>,
    /// Whether the loop goes on.
    pub(crate) goes_on: bool,
}

/// One shard's loop.
pub(crate) struct RivalLoop {
    setup: ShardLoop,
    timer: OwnedFd,
    connections: Connections<Seat>,
    buffers: Buffers,
    datagrams: Datagrams,
    counters: LoopCounters,
    accepting: Accepting,
    /// The task that accepts, while that is paused.
    accepts_later: Option<Waker>,
    /// Connections and datagrams whose waiting request can be answered.
    ready: ReadyList,
    /// Tokens of a sweep; kept for its memory.
    overdue: Vec<StreamToken>,
    /// Waiting connections that nothing is read from, each once: only a look at the socket tells that one was reset.
    unheard: Vec<StreamToken>,
    swept_mono_ms: u64,
    /// Tasks that have not ended.
    tasks: usize,
    /// The task that waits for their end.
    ending: Option<Waker>,
    stopping: bool,
    failed: Option<io::Error>,
}

impl RivalLoop {
    /// Readies everything but the tasks.
    ///
    /// # Errors
    /// No descriptor for the timer.
    pub(crate) fn new(setup: ShardLoop) -> io::Result<Self> {
        let timer = watch::timer(HOUSEKEEPING_MS)?;
        // A ring waits by itself on a file that blocks; on kernels before 6.10 it would not on this one.
        SockRef::from(&timer).set_nonblocking(false)?;
        Ok(Self {
            timer,
            connections: Connections::new(setup.connections_max),
            buffers: Buffers::new(),
            datagrams: Datagrams::new(),
            counters: LoopCounters::default(),
            accepting: Accepting::Yes,
            accepts_later: None,
            ready: ReadyList::new(),
            overdue: Vec::new(),
            unheard: Vec::new(),
            swept_mono_ms: 0,
            tasks: 0,
            ending: None,
            stopping: false,
            failed: None,
            setup,
        })
    }

    /// A second descriptor of the listener, for the runtime to own.
    pub(crate) fn listener(&self) -> io::Result<TcpListener> {
        self.setup.listener.try_clone()
    }

    /// A second descriptor of the datagram socket, for the runtime to await.
    pub(crate) fn datagram_socket(&self) -> io::Result<OwnedFd> {
        self.setup.datagrams.as_fd().try_clone_to_owned()
    }

    /// A second descriptor of the eventfd: eight bytes can be read when there is news.
    pub(crate) fn eventfd(&self) -> io::Result<OwnedFd> {
        // SAFETY: the eventfd lives as long as the loop, which outlives this call.
        unsafe { BorrowedFd::borrow_raw(self.setup.wake.descriptor()) }.try_clone_to_owned()
    }

    /// A second descriptor of the timer: eight bytes can be read when housekeeping is due.
    pub(crate) fn timer(&self) -> io::Result<OwnedFd> {
        self.timer.try_clone()
    }

    /// Tells whoever started the thread that the loop turns.
    pub(crate) fn announce(&self) {
        self.setup.announce();
    }

    /// A task other than a connection's begins.
    pub(crate) fn task_begins(&mut self) {
        self.tasks += 1;
    }

    /// It ends; it must touch nothing of the loop afterwards.
    pub(crate) fn task_ends(&mut self) {
        self.tasks -= 1;
        if self.tasks == 0
            && let Some(waker) = self.ending.take()
        {
            waker.wake();
        }
    }

    /// Takes in a connection, whose task begins with [`Next::Receive`]; `None`: there is no room, close it.
    pub(crate) fn admit(&mut self, socket: RawFd) -> Option<StreamToken> {
        if self.stopping {
            return None;
        }
        self.counters.accepted += 1;
        let admitted = self.connections.insert(clock::now(), Seat::of(socket)).ok();
        match admitted {
            Some(_) => self.tasks += 1,
            None => self.counters.closed_by_us += 1,
        }
        admitted
    }

    /// An accept failed: whether that is a lack of resources is for [`RivalLoop::accepts_again`] to say.
    pub(crate) fn accept_failed(&mut self, error: &io::Error) {
        let short = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM));
        if short && self.accepting == Accepting::Yes {
            self.accepting = Accepting::Paused;
        }
    }

    /// Whether to accept on; pending while resources are short.
    pub(crate) fn accepts_again(&mut self, context: &Context<'_>) -> Poll<bool> {
        match self.accepting {
            Accepting::Yes => Poll::Ready(true),
            Accepting::Stopped => Poll::Ready(false),
            Accepting::Paused => {
                self.accepts_later = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn set_accepting(&mut self, accepting: Accepting) {
        self.accepting = accepting;
        if let Some(waker) = self.accepts_later.take() {
            waker.wake();
        }
    }

    /// Takes those who wait already, then refuses newcomers at once, so that they can turn elsewhere.
    fn stop_accepting(&mut self) -> Vec<TcpStream> {
        if self.accepting == Accepting::Stopped {
            return Vec::new();
        }
        self.set_accepting(Accepting::Stopped);
        let waiting = (0..LISTEN_BACKLOG).map_while(|_| match self.setup.listener.accept() {
            Ok((stream, _)) => Some(Some(stream)),
            // That client has gone again; others wait behind it.
            Err(error) => (error.kind() == ErrorKind::ConnectionAborted).then_some(None),
        });
        let newcomers = waiting.flatten().collect();
        // It ends an accept that is under way. The port itself stays ours until the loop ends.
        let _ = SockRef::from(&self.setup.listener).shutdown(Shutdown::Both);
        newcomers
    }

    /// Sets the parked flag and looks once more: whether the eventfd may be awaited.
    pub(crate) fn park(&mut self) -> bool {
        let idle = self.setup.park();
        if self.ready.datagrams.is_empty() {
            self.counters.parks += u64::from(idle);
        } else {
            // Work that is left over. It is come back to through the kernel, so that other tasks run in between.
            self.setup.wake.notify();
        }
        idle
    }

    /// The eventfd was written, or there was work already: ticks and commands.
    pub(crate) fn awake(&mut self) -> News {
        self.setup.wake.unpark();
        let now = clock::now();
        let orders = self.setup.take_commands();
        self.setup.drain_feed(now, &mut self.ready);
        self.serve_waiting_datagrams(now);
        self.settle(now);
        let newcomers = if orders.stop_accepting { self.stop_accepting() } else { Vec::new() };
        if orders.stop {
            self.stop();
        }
        News { newcomers, goes_on: !self.stopping }
    }

    /// Makes every task end.
    fn stop(&mut self) {
        self.stopping = true;
        drop(self.stop_accepting());
        let mut tokens = Vec::new();
        self.connections.all(&mut tokens);
        tokens.into_iter().for_each(|token| self.doom(token));
        // An unconnected socket says that it is none, and wakes whoever awaits it.
        let _ = SockRef::from(&self.setup.datagrams).shutdown(Shutdown::Both);
    }

    /// Stops for a reason that only a bug can be.
    fn fail(&mut self, error: io::Error) {
        self.failed = Some(error);
        self.stop();
        self.setup.wake.notify();
    }

    /// Ready when no other task is left.
    pub(crate) fn ended(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.tasks == 0 {
            return Poll::Ready(());
        }
        self.ending = Some(context.waker().clone());
        Poll::Pending
    }

    /// Hands out the last usage records, publishes for the last time, and says how it ended.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        let now = clock::now();
        self.setup.shard.idle_tick(now, &mut self.ready);
        self.publish(now);
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Whether datagrams were received that the socket tells nothing of any more: served before any is awaited.
    pub(crate) const fn holds_datagrams(&self) -> bool {
        self.datagrams.holds()
    }

    /// Serves a turn's worth of datagrams; whether to go on.
    pub(crate) fn serve_datagrams(&mut self) -> bool {
        if self.stopping {
            return false;
        }
        let now = clock::now();
        let ShardLoop { datagrams, shard, feed_lag, .. } = &mut self.setup;
        if let Err(error) = self.datagrams.serve(datagrams.as_fd(), shard, feed_lag, &mut self.ready, now) {
            self.fail(error);
        }
        self.settle(now);
        !self.stopping
    }

    /// Answers a turn's worth of datagrams that waited. Called by the task that waits for news alone: see `settle`.
    fn serve_waiting_datagrams(&mut self, now: Moment) {
        let ShardLoop { datagrams, shard, feed_lag, .. } = &mut self.setup;
        self.datagrams.serve_waiting(datagrams.as_fd(), shard, feed_lag, &mut self.ready, now);
    }

    /// Twenty times a second: what is due in the shard, connections past their deadline, counters for others to see.
    /// Answers whether there is to be a next time. `due`: how waiting for it ended.
    pub(crate) fn keep_house(&mut self, due: io::Result<()>) -> bool {
        if let Err(error) = due {
            self.fail(error);
        }
        let now = clock::now();
        self.setup.shard.idle_tick(now, &mut self.ready);
        if self.accepting == Accepting::Paused {
            self.set_accepting(Accepting::Yes);
        }
        if now.mono_ms() >= self.swept_mono_ms + SWEEP_MS {
            self.swept_mono_ms = now.mono_ms();
            let mut overdue = std::mem::take(&mut self.overdue);
            self.connections.sweep(now, &mut overdue);
            self.counters.closed_by_us += overdue.len() as u64;
            overdue.drain(..).for_each(|token| self.doom(token));
            self.overdue = overdue;
            self.look_at_unheard();
        }
        self.settle(now);
        self.publish(now);
        !self.stopping
    }

    fn publish(&mut self, now: Moment) {
        self.counters.connections = self.connections.open() as u64;
        self.datagrams.count_into(&mut self.counters);
        self.setup.stats.publish(now, &self.counters, &self.setup.feed_lag, self.setup.shard.counters());
    }
}
