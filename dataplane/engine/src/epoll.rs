//! The epoll engine: one shard's loop over plain system calls.
//!
//! Level-triggered: one read and one write per connection and turn, some reads first and then their writes; room to
//! write is only watched for while a client does not read. The wait has no time-out: an eventfd tells of ticks and
//! commands, a timer of housekeeping. This file knows what a loop turn is; what happens to one connection is in
//! `streams`, and what the bytes say is the shard's business.

mod streams;
pub(crate) mod watch;

use crate::connections::{Buffers, Connections, TOKEN_BITS};
use crate::datagrams::Datagrams;
use crate::limits::{ACCEPTS_PER_TURN, HOUSEKEEPING_MS, SWEEP_MS};
use crate::stats::LoopCounters;
use crate::wiring::ShardLoop;
use dataplane_core::shard::{ReadyList, StreamToken};
use shared::moment::Moment;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use tuning::clock;
use tuning::sockets::LISTEN_BACKLOG;
use watch::{Event, NOTHING, READABLE, Watch};

/// Tokens of what is not a connection stand above all connections' tokens.
const LISTENER: u64 = 1 << TOKEN_BITS;
const DATAGRAMS: u64 = 2 << TOKEN_BITS;
const WAKE: u64 = 3 << TOKEN_BITS;
const TIMER: u64 = 4 << TOKEN_BITS;

/// Bytes of one read. 16 KiB hold a hundred pipelined requests, whose replies fill the reply buffer three times over;
/// more would only be copied aside.
const READ_BYTES: usize = 16 * 1_024;

/// Replies sent in one go: for the second and those after it the kernel's way of sending lies in the cache, and what they
/// wait for each other is a few microseconds.
const SENDS_TOGETHER: usize = 16;

/// What the engine knows of a connection.
struct Peer {
    stream: TcpStream,
    /// What is being watched for on it.
    interest: u32,
}

/// Whether connections are being accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// No descriptors or memory: tried again at the next housekeeping.
    Paused,
    /// Told to stop: those who wait already are taken in, so many at most.
    Draining {
        left: usize,
    },
    /// Newcomers are refused.
    Stopped,
}

/// One shard's loop.
struct EpollLoop {
    setup: ShardLoop,
    watch: Watch,
    timer: OwnedFd,
    connections: Connections<Peer>,
    buffers: Buffers,
    datagrams: Datagrams,
    counters: LoopCounters,
    accepting: Accepting,
    /// Connections whose replies are written and not yet sent.
    served: Vec<StreamToken>,
    /// Connections and datagrams whose waiting request can be answered.
    ready: ReadyList,
    /// The list of connections while it is worked off; kept for its memory.
    serving: Vec<StreamToken>,
    /// Tokens of a sweep; kept for its memory.
    overdue: Vec<StreamToken>,
    swept_mono_ms: u64,
    /// Every read goes here; only what is left of it is copied.
    input: Box<[u8]>,
}

/// Runs the shard until it is told to stop.
///
/// # Errors
/// One line: what the kernel refuses; before `announce` for want of resources, afterwards only through a bug.
pub(crate) fn run(setup: ShardLoop) -> Result<(), String> {
    turn_until_stopped(setup).map_err(|error| match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => format!("epoll: {error}: raise the nofile limit"),
        _ => format!("epoll: {error}"),
    })
}

fn turn_until_stopped(setup: ShardLoop) -> io::Result<()> {
    let mut engine = EpollLoop::new(setup)?;
    engine.setup.announce();
    while engine.turn()? {}
    engine.close_all();
    Ok(())
}

impl EpollLoop {
    fn new(setup: ShardLoop) -> io::Result<Self> {
        let watch = Watch::new()?;
        let timer = watch::timer(HOUSEKEEPING_MS)?;
        watch.add(setup.listener.as_raw_fd(), LISTENER, READABLE)?;
        watch.add(setup.datagrams.as_raw_fd(), DATAGRAMS, READABLE)?;
        watch.add(setup.wake.descriptor(), WAKE, READABLE)?;
        watch.add(timer.as_raw_fd(), TIMER, READABLE)?;
        Ok(Self {
            watch,
            timer,
            connections: Connections::new(setup.connections_max),
            buffers: Buffers::new(),
            datagrams: Datagrams::new(),
            counters: LoopCounters::default(),
            accepting: Accepting::Yes,
            served: Vec::with_capacity(SENDS_TOGETHER),
            ready: ReadyList::new(),
            // It changes places with the one above.
            serving: ReadyList::new().streams,
            overdue: Vec::new(),
            swept_mono_ms: 0,
            input: vec![0; READ_BYTES].into_boxed_slice(),
            setup,
        })
    }

    /// One turn; whether there is to be another.
    fn turn(&mut self) -> io::Result<bool> {
        // Work that is left over from the last turn must not be slept on.
        let idle = self.ready.streams.is_empty()
            && self.ready.datagrams.is_empty()
            && !self.datagrams.holds()
            && !matches!(self.accepting, Accepting::Draining { .. });
        let sleep = idle && self.setup.park();
        self.counters.parks += u64::from(sleep);
        let happened = self.watch.wait(sleep);
        self.setup.wake.unpark();
        let happened = happened?;
        let now = clock::now();
        let orders = self.setup.take_commands();
        self.setup.drain_feed(now, &mut self.ready);
        self.serve_ready(now);
        // Of these the watch does not tell: the socket may be empty.
        let mut datagrams_wait = self.datagrams.holds();
        for index in 0..happened {
            match self.watch.event(index) {
                Event { token: DATAGRAMS, .. } => datagrams_wait = true,
                event => self.happened(now, event),
            }
            if self.served.len() == SENDS_TOGETHER {
                self.send_served(now);
            }
        }
        self.send_served(now);
        if datagrams_wait {
            self.serve_datagrams(now)?;
        }
        self.serve_ready(now);
        self.serve_waiting_datagrams(now);
        self.call_line(now);
        if orders.stop_accepting {
            self.stop_accepting();
        }
        if let Accepting::Draining { left } = self.accepting {
            self.drain_listener(now, left);
        }
        self.setup.end_turn(now);
        Ok(!orders.stop)
    }

    fn happened(&mut self, now: Moment, event: Event) {
        match event.token {
            // Level-triggered: what is left over is told again.
            LISTENER if self.accepting == Accepting::Yes => {
                let _more = self.accept(now);
            }
            LISTENER => {}
            WAKE => self.setup.wake.clear(),
            TIMER => self.keep_house(now),
            token => self.on_stream(now, StreamToken(token), event),
        }
    }

    fn serve_datagrams(&mut self, now: Moment) -> io::Result<()> {
        let ShardLoop { datagrams, shard, feed_lag, .. } = &mut self.setup;
        // What is left in the socket is told again.
        let _more = self.datagrams.serve(datagrams.as_fd(), shard, feed_lag, &mut self.ready, now)?;
        Ok(())
    }

    /// Answers datagrams that waited; what is left of them after a turn's worth is for the next.
    fn serve_waiting_datagrams(&mut self, now: Moment) {
        let ShardLoop { datagrams, shard, feed_lag, .. } = &mut self.setup;
        self.datagrams.serve_waiting(datagrams.as_fd(), shard, feed_lag, &mut self.ready, now);
    }

    /// Accepts what waits, up to the turn's bound; whether more may wait.
    fn accept(&mut self, now: Moment) -> bool {
        for _ in 0..ACCEPTS_PER_TURN {
            match watch::accept(self.setup.listener.as_fd()) {
                Ok(stream) => self.admit(now, stream),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINVAL) => return false,
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        // The waiting client stays readable: watching on would turn the loop without end.
                        self.accepting = Accepting::Paused;
                        self.watch_listener(NOTHING);
                        return false;
                    }
                    // The client's own trouble: it went away, or a packet filter came between.
                    _ => {}
                },
            }
        }
        true
    }

    fn admit(&mut self, now: Moment, stream: TcpStream) {
        self.counters.accepted += 1;
        let descriptor = stream.as_raw_fd();
        match self.connections.insert(now, Peer { stream, interest: READABLE }) {
            Ok(token) => {
                if self.watch.add(descriptor, token.0, READABLE).is_err() {
                    self.close_early(token);
                }
            }
            // Closed by being dropped: the slab is full.
            Err(_full) => self.counters.closed_by_us += 1,
        }
    }

    fn watch_listener(&self, what: u32) {
        // It can only fail for a descriptor that is not in the set, and the listener is from start to end.
        let _ = self.watch.change(self.setup.listener.as_raw_fd(), LISTENER, what);
    }

    /// Takes in those who wait already, a turn's worth at a time; then refuses newcomers, so that they turn elsewhere.
    fn stop_accepting(&mut self) {
        if matches!(self.accepting, Accepting::Yes | Accepting::Paused) {
            // Its queue is emptied unasked, and turns do not end with it.
            self.watch_listener(NOTHING);
            // Bounded by the backlog, which a crowd of newcomers could refill without end.
            self.accepting = Accepting::Draining { left: LISTEN_BACKLOG.unsigned_abs() as usize };
        }
    }

    fn drain_listener(&mut self, now: Moment, left: usize) {
        let more = self.accept(now);
        match left.saturating_sub(ACCEPTS_PER_TURN) {
            left if left > 0 && more => self.accepting = Accepting::Draining { left },
            _ => {
                self.accepting = Accepting::Stopped;
                let _ = self.watch.remove(self.setup.listener.as_raw_fd());
                // A listener that is shut down answers with a reset; the port itself stays ours until the loop ends.
                let _ = socket2::SockRef::from(&self.setup.listener).shutdown(Shutdown::Both);
            }
        }
    }

    /// Twenty times a second: what is due in the shard, connections past their deadline, counters for others to see.
    fn keep_house(&mut self, now: Moment) {
        watch::clear_timer(&self.timer);
        self.setup.shard.idle_tick(now, &mut self.ready);
        if self.accepting == Accepting::Paused {
            self.accepting = Accepting::Yes;
            self.watch_listener(READABLE);
        }
        if now.mono_ms() >= self.swept_mono_ms + SWEEP_MS {
            self.swept_mono_ms = now.mono_ms();
            let mut overdue = std::mem::take(&mut self.overdue);
            self.connections.sweep(now, &mut overdue);
            overdue.drain(..).for_each(|token| self.close_early(token));
            self.overdue = overdue;
        }
        self.publish(now);
    }

    fn publish(&mut self, now: Moment) {
        self.counters.connections = self.connections.open() as u64;
        self.datagrams.count_into(&mut self.counters);
        let setup = &self.setup;
        setup.stats.publish(now, &self.counters, &setup.feed_lag, setup.shard.counters());
    }

    /// Gives every connection back, hands out the last usage records, and publishes for the last time.
    fn close_all(&mut self) {
        let mut tokens = Vec::new();
        self.connections.all(&mut tokens);
        tokens.into_iter().for_each(|token| self.close(token));
        let now = clock::now();
        self.setup.shard.idle_tick(now, &mut self.ready);
        self.publish(now);
    }
}
