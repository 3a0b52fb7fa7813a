//! The io_uring engine: one shard's loop over one ring.
//!
//! A turn takes every completion, drains the price ring, runs the protocol, keeps at most one send of each connection
//! on its way, and goes back into the kernel with a single call that submits and waits. The wait has no time-out: ticks
//! and commands come through an eventfd, housekeeping through a timer of the ring. What happens to one connection is in
//! `streams`; what the bytes say is the shard's business.

mod intake;
mod operation;
mod ring;
mod streams;

use crate::connections::{Buffers, Connections};
use crate::datagrams::Datagrams;
use crate::limits::{ACCEPTS_PER_TURN, HOUSEKEEPING_MS, SWEEP_MS};
use crate::stats::LoopCounters;
use crate::wiring::ShardLoop;
use dataplane_core::shard::{ReadyList, StreamToken};
use io_uring::types::Timespec;
use operation::{File, Kind};
use ring::{Completion, Ring};
use shared::moment::Moment;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use streams::Io;
use tuning::buffer_ring::BufferRing;
use tuning::clock;
use tuning::ring_probe::{
    COMPLETION_ENTRIES, FILE_TABLE_ENTRIES, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS, RECEIVE_GROUP, RING_ENTRIES,
    RingRefused, ring_builder,
};
use tuning::sockets::LISTEN_BACKLOG;

/// Period of housekeeping, as the kernel wants it. Static: the entry that points at it may outlive a turn.
static PERIOD: Timespec = Timespec::new().nsec(HOUSEKEEPING_MS as u32 * 1_000_000);

/// Whether connections are being accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    /// The multishot accept is armed.
    Armed,
    /// It ended for want of descriptors or memory: armed again at the next housekeeping.
    Paused,
    /// It was told to stop and has not ended yet.
    Stopping,
    /// It ended; what waits in the listener's queue is taken in, so many at most.
    Draining { left: usize },
    /// It ended for good.
    Stopped,
}

/// One shard's loop.
struct UringLoop<'ring> {
    ring: Ring<'ring>,
    receive_buffers: &'ring mut BufferRing,
    setup: ShardLoop,
    connections: Connections<Io>,
    buffers: Buffers,
    datagrams: Datagrams,
    /// Whether the datagram socket may hold more than the last batch.
    datagrams_waiting: bool,
    counters: LoopCounters,
    accepting: Accepting,
    /// Connections to look at before this turn ends.
    dirty: Vec<StreamToken>,
    /// Whether receives are held to one buffer each: see `Buffers::is_pressed`.
    pressed: bool,
    /// Connections and datagrams whose waiting request can be answered.
    ready: ReadyList,
    /// The list of connections while it is worked off; kept for its memory.
    serving: Vec<StreamToken>,
    swept_mono_ms: u64,
    now: Moment,
    stop: bool,
}

/// Runs the shard until it is told to stop.
///
/// # Errors
/// One line: what the kernel refuses; before `announce` for want of resources, afterwards only through a bug.
pub(crate) fn run(setup: ShardLoop) -> Result<(), String> {
    turn_until_stopped(setup, RECEIVE_BUFFERS).map_err(|error| {
        let refused = RingRefused::from_errno(error.raw_os_error().unwrap_or(libc::EIO));
        format!("io_uring: {refused}: {}", refused.remedy())
    })
}

fn turn_until_stopped(setup: ShardLoop, receive_buffers: u16) -> io::Result<()> {
    let mut ring = ring_builder().build(RING_ENTRIES)?;
    let (mut submitter, entries, completions) = ring.split();
    submitter.register_ring_fd()?;
    if setup.direct_descriptors {
        submitter.register_files_sparse(FILE_TABLE_ENTRIES)?;
    }
    let mut buffers = BufferRing::register(&submitter, RECEIVE_GROUP, receive_buffers, RECEIVE_BUFFER_BYTES)?;
    let mut engine = UringLoop::new(Ring::new(submitter, entries, completions), &mut buffers, setup);
    engine.arm();
    engine.setup.announce();
    while !engine.stop {
        engine.turn();
        engine.sleep()?;
    }
    let quiet = engine.close_all();
    drop(engine);
    if quiet {
        buffers.unregister(&ring.submitter())?;
    }
    Ok(())
}

impl<'ring> UringLoop<'ring> {
    fn new(ring: Ring<'ring>, receive_buffers: &'ring mut BufferRing, setup: ShardLoop) -> Self {
        Self {
            ring,
            receive_buffers,
            connections: Connections::new(setup.connections_max),
            buffers: Buffers::new(),
            datagrams: Datagrams::new(),
            datagrams_waiting: false,
            counters: LoopCounters::default(),
            accepting: Accepting::Paused,
            dirty: Vec::with_capacity(COMPLETION_ENTRIES as usize),
            pressed: false,
            serving: ReadyList::new().streams,
            ready: ReadyList::new(),
            swept_mono_ms: 0,
            now: clock::now(),
            stop: false,
            setup,
        }
    }

    /// Starts what goes on for as long as the loop does.
    fn arm(&mut self) {
        self.arm_accept();
        self.arm_watch(Kind::Wake);
        self.arm_watch(Kind::Datagrams);
        self.arm_timer();
    }

    fn arm_accept(&mut self) {
        let entry = operation::accept(self.setup.listener.as_raw_fd(), self.setup.direct_descriptors);
        // SAFETY: it points at nothing; the listener lives as long as the loop.
        unsafe { self.ring.push(&entry) };
        self.accepting = Accepting::Armed;
    }

    fn arm_watch(&mut self, kind: Kind) {
        let datagrams = self.setup.datagrams.as_raw_fd();
        let descriptor = if kind == Kind::Datagrams { datagrams } else { self.setup.wake.descriptor() };
        // SAFETY: it points at nothing; both descriptors live as long as the loop.
        unsafe { self.ring.push(&operation::watch(descriptor, kind)) };
    }

    fn arm_timer(&mut self) {
        // SAFETY: the period is static.
        unsafe { self.ring.push(&operation::timer(&PERIOD)) };
    }

    /// One turn, up to the point where everything to be submitted is queued.
    fn turn(&mut self) {
        self.ring.take();
        self.now = clock::now();
        let orders = self.setup.take_commands();
        self.setup.drain_feed(self.now, &mut self.ready);
        self.serve_ready();
        // What is taken meanwhile is for the next turn: it reads the clock again.
        let count = self.ring.taken();
        for place in 0..count {
            let completion = self.ring.at(place);
            // What a client sent in one go comes in one stretch, and is answered as a whole.
            let is_last = place + 1 == count || self.ring.at(place + 1).number != completion.number;
            self.completed(completion, is_last);
        }
        self.ring.forget(count);
        if self.datagrams_waiting {
            self.serve_datagrams();
        }
        self.serve_ready();
        self.serve_waiting_datagrams();
        if orders.stop_accepting {
            self.stop_accepting();
        }
        if let Accepting::Draining { left } = self.accepting {
            self.drain_listener(left);
        }
        self.settle_dirty();
        self.settle_pressure();
        self.receive_buffers.publish();
        self.setup.end_turn(self.now);
        self.stop |= orders.stop;
    }

    /// Submits, and sleeps until something completes. Without sleeping when there is work left.
    fn sleep(&mut self) -> io::Result<()> {
        let work = self.datagrams_waiting
            || !self.ready.streams.is_empty()
            || !self.ready.datagrams.is_empty()
            || self.ring.taken() > 0
            || matches!(self.accepting, Accepting::Draining { .. })
            || self.stop;
        if work || !self.setup.park() {
            // SAFETY: it points at nothing.
            unsafe { self.ring.push(&operation::nudge()) };
        } else {
            self.counters.parks += 1;
        }
        let woken = self.ring.wait();
        self.setup.wake.unpark();
        woken
    }

    fn completed(&mut self, completion: Completion, is_last: bool) {
        let (kind, token) = Kind::from_number(completion.number);
        match kind {
            Kind::Receive => self.received(token, completion, is_last),
            Kind::Send => self.sent(token, completion),
            Kind::Accept => self.accepted(completion),
            Kind::Shutdown => self.shut_down(token),
            Kind::Install => self.installed(token, completion),
            Kind::Datagrams => {
                self.datagrams_waiting = true;
                if !completion.goes_on() {
                    self.arm_watch(Kind::Datagrams);
                }
            }
            // The count in the eventfd is never read: each write completes the watch once more, whatever it stands at.
            Kind::Wake if completion.goes_on() => {}
            Kind::Wake => self.arm_watch(Kind::Wake),
            Kind::Timer => {
                self.keep_house();
                self.arm_timer();
            }
            Kind::HangUp => self.hung_up(token, completion),
            Kind::Other => {}
        }
    }

    fn serve_datagrams(&mut self) {
        let ShardLoop { datagrams, shard, feed_lag, .. } = &mut self.setup;
        let socket = datagrams.as_fd();
        let more = self.datagrams.serve(socket, shard, feed_lag, &mut self.ready, self.now);
        // What the kernel says about the socket itself passes or comes again with the next datagram.
        self.datagrams_waiting = more.unwrap_or(false);
    }

    /// Answers datagrams that waited; what is left of them after a turn's worth is for the next.
    fn serve_waiting_datagrams(&mut self) {
        let ShardLoop { datagrams, shard, feed_lag, .. } = &mut self.setup;
        self.datagrams.serve_waiting(datagrams.as_fd(), shard, feed_lag, &mut self.ready, self.now);
    }

    fn accepted(&mut self, completion: Completion) {
        let accepted = u32::try_from(completion.result).ok().map(|number| {
            if self.setup.direct_descriptors {
                File::Direct(number)
            } else {
                // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
                File::Ordinary(unsafe { OwnedFd::from_raw_fd(completion.result) })
            }
        });
        if let Some(file) = accepted {
            self.admit(file);
        }
        if completion.goes_on() {
            return;
        }
        match completion.errno() {
            _ if self.accepting == Accepting::Stopping => self.stopped_accepting(),
            // Tried again at once, the same error would come at once.
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EINVAL => {
                self.accepting = Accepting::Paused;
            }
            _ => self.arm_accept(),
        }
    }

    fn admit(&mut self, file: File) {
        self.counters.accepted += 1;
        match self.connections.insert(self.now, Io::new(file)) {
            Ok(token) => self.mark(token),
            Err(refused) => {
                self.counters.closed_by_us += 1;
                self.close_file(refused.file);
            }
        }
    }

    /// Ends the accept; what waits in the listener's queue by then is still taken in.
    fn stop_accepting(&mut self) {
        match self.accepting {
            Accepting::Armed => {
                self.accepting = Accepting::Stopping;
                // SAFETY: it points at nothing.
                unsafe { self.ring.push(&operation::cancel(Kind::Accept.alone())) };
            }
            Accepting::Paused => self.stopped_accepting(),
            Accepting::Stopping | Accepting::Draining { .. } | Accepting::Stopped => {}
        }
    }

    fn stopped_accepting(&mut self) {
        // Bounded, since a crowd of newcomers could refill the queue without end.
        self.accepting = Accepting::Draining { left: LISTEN_BACKLOG.unsigned_abs() as usize };
    }

    /// Takes in some of those who wait; after the last of them newcomers are refused.
    fn drain_listener(&mut self, left: usize) {
        for _ in 0..ACCEPTS_PER_TURN.min(left) {
            match self.setup.listener.accept() {
                Ok((stream, _)) => self.admit(File::Ordinary(stream.into())),
                // That client has gone again; others wait behind it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // The listener is non-blocking: nobody waits.
                Err(_) => return self.refuse_newcomers(),
            }
        }
        match left.saturating_sub(ACCEPTS_PER_TURN) {
            0 => self.refuse_newcomers(),
            left => self.accepting = Accepting::Draining { left },
        }
    }

    fn refuse_newcomers(&mut self) {
        self.accepting = Accepting::Stopped;
        // It can only fail when the listener listens no more. The port itself stays ours until the loop ends.
        let _ = socket2::SockRef::from(&self.setup.listener).shutdown(Shutdown::Both);
    }

    /// Twenty times a second: what is due in the shard, connections past their deadline, counters for others to see.
    fn keep_house(&mut self) {
        self.setup.shard.idle_tick(self.now, &mut self.ready);
        // The poll tells of arrivals, not of what lies there: what a passing error left behind would wait for the next one.
        self.datagrams_waiting = true;
        if self.accepting == Accepting::Paused {
            self.arm_accept();
        }
        if self.now.mono_ms() >= self.swept_mono_ms + SWEEP_MS {
            self.swept_mono_ms = self.now.mono_ms();
            let mut overdue = std::mem::take(&mut self.serving);
            self.connections.sweep(self.now, &mut overdue);
            overdue.drain(..).for_each(|token| self.close_early(token));
            self.serving = overdue;
        }
        self.publish();
    }

    fn publish(&mut self) {
        self.counters.connections = self.connections.open() as u64;
        self.counters.completion_overflows = self.ring.overflows();
        self.datagrams.count_into(&mut self.counters);
        let setup = &self.setup;
        setup.stats.publish(self.now, &self.counters, &setup.feed_lag, setup.shard.counters());
    }

    /// Gives every connection back and publishes for the last time; `false` when the kernel does not let go.
    fn close_all(&mut self) -> bool {
        let quiet = self.quiesce();
        let mut tokens = Vec::new();
        self.connections.all(&mut tokens);
        for token in tokens {
            if let Some(mut connection) = self.connections.remove(token) {
                connection.release(&mut self.setup.shard, &mut self.buffers);
            }
        }
        self.now = clock::now();
        // Usage that is still in the meter leaves now or never.
        self.setup.shard.idle_tick(self.now, &mut self.ready);
        self.publish();
        quiet
    }

    /// Makes the kernel let go of our memory. Where it does not, the memory is given up instead: `false`.
    fn quiesce(&mut self) -> bool {
        let quiet = self.ring.quiesce();
        if !quiet {
            std::mem::forget(std::mem::replace(&mut self.connections, Connections::new(0)));
        }
        quiet
    }
}

impl Drop for UringLoop<'_> {
    /// Also on the way out of a panic: replies must not be freed while the kernel sends them. The receive buffers free
    /// nothing when dropped.
    fn drop(&mut self) {
        self.quiesce();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{COMMANDS_WAITING_MAX, HAND_OVERS_WAITING_MAX};
    use crate::sockets;
    use crate::stats::PublishedStats;
    use crate::wake::ShardWake;
    use crossbeam_channel::bounded;
    use dataplane_core::command::{ShardCommand, ShardParameters};
    use dataplane_core::shard::{Shard, ShardSetup};
    use rtrb::RingBuffer;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};
    use std::sync::Arc;
    use std::time::Duration;

    /// Receives end with `ENOBUFS` all the time when 100 clients share two buffers; nobody may notice.
    #[test]
    fn two_receive_buffers_serve_a_hundred_clients() {
        let direct_descriptors = match tuning::ring_probe::probe() {
            Ok(verdict) => verdict.direct_descriptors,
            Err(refused) => return eprintln!("skipped: {refused}"),
        };
        let mut bound = sockets::bind(Ipv4Addr::LOCALHOST.into(), 0, 0, 1).expect("free ports");
        let (listener, datagrams) = bound.of_shards.remove(0);
        let (commands, command_queue) = bounded(COMMANDS_WAITING_MAX);
        let (hand_overs, _handed_over) = bounded(HAND_OVERS_WAITING_MAX);
        let (turning, turns) = bounded(1);
        let (stats, wake) = (Arc::new(PublishedStats::new(0)), Arc::new(ShardWake::new().expect("an eventfd")));
        let (published, waker) = (Arc::clone(&stats), Arc::clone(&wake));
        let (_tick_producer, ticks) = RingBuffer::new(1);
        let (usage, _usage_consumer) = RingBuffer::new(1);
        let (asks, _ask_consumer) = RingBuffer::new(1);
        let thread = std::thread::spawn(move || {
            let parameters = ShardParameters::default();
            let (assets, keys) = (Arc::default(), Arc::default());
            let (index, shards, counts_usage, hash_seed) = (0, 1, true, 1);
            let setup =
                ShardSetup { index, shards, assets, keys, parameters, ticks, usage, asks, counts_usage, hash_seed };
            let shard = Shard::new(setup);
            let connections_max = 200;
            let context = ShardLoop {
                shard,
                feed_lag: crate::lag::LagHistogram::default(),
                listener,
                datagrams,
                commands: command_queue,
                hand_overs,
                stats,
                wake,
                asks: Arc::default(),
                connections_max,
                direct_descriptors,
                turning,
            };
            turn_until_stopped(context, 2)
        });
        turns.recv().expect("it starts").expect("it turns");
        let mut clients: Vec<TcpStream> =
            (0..100).map(|_| TcpStream::connect(bound.tcp).expect("a connection")).collect();
        let request = "GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\n\r\n".repeat(300);
        for client in &mut clients {
            client.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
            client.write_all(request.as_bytes()).expect("sent");
        }
        for client in &mut clients {
            let mut answers = 0;
            let mut bytes = [0; 16_384];
            // Each answer is a problem document: one closing brace.
            while answers < 300 {
                let length = client.read(&mut bytes).expect("an answer");
                assert!(length > 0, "closed after {answers} answers");
                answers += bytes[..length].iter().filter(|byte| **byte == b'}').count();
            }
        }
        commands.send(ShardCommand::Stop).expect("room");
        waker.tell();
        thread.join().expect("no panic").expect("no error");
        let stats = published.read();
        assert!(stats.receive_buffers_short > 0, "the buffers were never short");
        assert_eq!((stats.accepted, stats.closed_by_us, stats.connections), (100, 0, 0));
    }
}
