//! The UDP lane: sockets that ask every target in turn, by signed frame or JSON object, one by one or in trains.
//!
//! Nothing limits what a socket has in flight but what can be remembered ([`SLOTS_MAX`]): an open schedule does not wait
//! for answers. A reply is known by its request id. One that answers nothing that is in flight (a duplicate, or one that
//! came after its request was given up) changes no count. Where the kernel was told that nobody listens at a target, what
//! was in flight there is lost in its time, and the socket goes on asking.

use super::count::{Counter, Seen, Verdict, Window};
use super::lane::{self, Lane, LaneOutcome, Share, Turns};
use super::question::Question;
use crate::connection::Flight;
use crate::exchange::{BATCH, Exchange, Outbox};
use crate::job::{Job, Pace};
use crate::outcome::behind_histogram;
use crate::schedule::Schedule;
use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind};
use tuning::clock;

/// Most requests that one socket remembers: 65,536 of 40 bytes are 2.5 MiB, and 65,536 requests a second of one socket with
/// answers that take a second. Beyond that a request waits for room as on a full pipeline.
const SLOTS_MAX: u64 = 65_536;

/// The number in a slot whose request is not in flight.
const FREE: u64 = u64::MAX;

/// A request that may be in flight.
#[derive(Clone, Copy)]
struct Slot {
    /// Its number, or [`FREE`].
    number: u64,
    flight: Flight,
    /// The sequence that its answer must not be below: the highest that was known when it was sent.
    before: u64,
}

/// One socket and its part of the schedule.
struct Socket {
    socket: UdpSocket,
    target: usize,
    /// Over the whole level.
    number: u64,
    /// Its next request, and the oldest that may be in flight.
    next: u64,
    oldest: u64,
    flying: usize,
    /// A ring: request number n is at n modulo its length, which is a power of two.
    slots: Vec<Slot>,
    /// By asset: the highest sequence that this socket was told.
    sequences: Vec<u64>,
    room_since_ns: u64,
    /// The kernel was told that nobody listens, and no answer has come since.
    is_refused: bool,
}

/// See the top of the file.
pub(crate) struct Datagrams<'a> {
    job: &'a Job,
    window: Window,
    share: Share,
    schedule: Option<Schedule>,
    turns: Turns,
    train: usize,
    sockets: Vec<Socket>,
    counters: Vec<Counter>,
    question: Question<'a>,
    exchange: Exchange,
    outbox: Outbox,
    behind_ns: Histogram<u64>,
    /// The time that requests say; read at every sweep, because half a minute's difference is allowed.
    wall_ms: u64,
}

impl<'a> Datagrams<'a> {
    /// Opens the sockets that are this thread's; `rate` is that of the level.
    ///
    /// # Errors
    /// When the kernel has not as many to give, or there is no way to a target.
    pub(crate) fn open(
        job: &'a Job,
        window: Window,
        share: Share,
        rate: u64,
        registry: &Registry,
        token: fn(usize) -> Token,
    ) -> io::Result<Self> {
        let addresses: Vec<_> = job.targets.iter().filter_map(|target| target.udp).collect();
        let train = job.train.clamp(1, BATCH);
        let question = Question::new(job, train > 1, clock::mono_ns());
        let mut exchange = Exchange::new(if train > 1 { question.length() } else { 0 });
        let slots = slots(job.pace, rate.div_ceil(share.connections.max(1) as u64), window.lost_ns, train as u64);
        let mut sockets = Vec::new();
        for (index, number) in share.numbers().enumerate() {
            let target = number % addresses.len();
            let mut socket = exchange.open(addresses[target])?;
            registry.register(&mut socket, token(index), Interest::READABLE)?;
            let flight = Flight { asked: 0, due_ns: 0, sent_ns: 0 };
            sockets.push(Socket {
                socket,
                target,
                number: number as u64,
                next: 0,
                oldest: 0,
                flying: 0,
                slots: vec![Slot { number: FREE, flight, before: 0 }; slots],
                sequences: vec![0; job.assets.len()],
                room_since_ns: 0,
                is_refused: false,
            });
        }
        let counters = addresses.iter().map(|_| Counter::new(window)).collect();
        let (turns, behind_ns) = (Turns::new(share), behind_histogram());
        let outbox = Outbox::default();
        Ok(Self {
            job,
            window,
            share,
            schedule: None,
            turns,
            train,
            sockets,
            counters,
            question,
            exchange,
            outbox,
            behind_ns,
            wall_ms: clock::now().wall_ms,
        })
    }

    /// Puts the next request of a socket into the outbox if it is due and there is room; whether it did.
    fn queue(&mut self, index: usize, now_ns: u64) -> bool {
        let (Some(schedule), pace) = (self.schedule, self.job.pace) else { return false };
        let socket = &mut self.sockets[index];
        let number = socket.next + self.outbox.len() as u64;
        socket.forget();
        if number - socket.oldest >= socket.slots.len() as u64 {
            return false;
        }
        let due_ns = if pace == Pace::Open { schedule.due_ns(socket.number, number) } else { now_ns };
        if due_ns > now_ns || due_ns >= self.window.end_ns {
            return false;
        }
        let asked = lane::asset_of(socket.number, number, self.share.connections, self.job.assets.len());
        let flight = Flight { asked: u32::try_from(asked).unwrap_or(0), due_ns, sent_ns: now_ns };
        let before = socket.sequences[asked];
        *socket.slot(number) = Slot { number: FREE, flight, before };
        self.outbox.push(self.question.ask(asked, number, self.wall_ms));
        true
    }

    /// Sends what is in the outbox; whether the kernel took it all.
    fn post(&mut self, index: usize, now_ns: u64) -> bool {
        let wanted = self.outbox.len();
        let Self { job, sockets, counters, exchange, outbox, behind_ns, .. } = self;
        let socket = &mut sockets[index];
        let mut outcome = exchange.send(&socket.socket, outbox);
        // The error is about a datagram before this one; sending this one is not done yet.
        if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            socket.refused(&mut counters[socket.target]);
            outcome = exchange.send(&socket.socket, outbox);
        }
        outbox.clear();
        let counter = &mut counters[socket.target];
        let sent = match outcome {
            Ok(sent) => sent,
            // No room in the kernel, or no way out for now: it stays due.
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => {
                counter.fault(|| format!("a datagram was not sent: {error}"));
                0
            }
        };
        for _ in 0..sent {
            let number = socket.next;
            let room_since_ns = socket.room_since_ns;
            let slot = socket.slot(number);
            slot.number = number;
            let due_ns = slot.flight.due_ns;
            counter.sent(due_ns);
            if job.pace == Pace::Open {
                behind_ns.saturating_record((now_ns - due_ns.max(room_since_ns).min(now_ns)).max(1));
            }
            socket.next += 1;
            socket.flying += 1;
        }
        sent == wanted
    }
}

/// How many requests a socket remembers, a power of two: what is due in the time until one is lost, and half more.
fn slots(pace: Pace, rate: u64, lost_ns: u64, train: u64) -> usize {
    let in_flight = u128::from(rate) * u128::from(lost_ns) / u128::from(crate::schedule::SECOND_NS);
    let wanted = match pace {
        Pace::Open => u64::try_from(in_flight * 3 / 2).unwrap_or(u64::MAX).saturating_add(2 * train),
        Pace::Closed => train,
    };
    usize::try_from(wanted.clamp(1, SLOTS_MAX).next_power_of_two()).unwrap_or(1)
}

impl Socket {
    fn slot(&mut self, number: u64) -> &mut Slot {
        let mask = self.slots.len() - 1;
        &mut self.slots[number as usize & mask]
    }

    /// Moves past the oldest requests that are answered or lost.
    fn forget(&mut self) {
        while self.oldest < self.next && self.slot(self.oldest).number != self.oldest {
            self.oldest += 1;
        }
    }

    fn refused(&mut self, counter: &mut Counter) {
        if !self.is_refused {
            self.is_refused = true;
            counter.broken(|| "the target says that nobody listens for datagrams there".to_owned());
        }
        // Whoever answers next is another process: its sequences are its own.
        self.sequences.fill(0);
        self.slots.iter_mut().for_each(|slot| slot.before = 0);
    }
}

impl Lane for Datagrams<'_> {
    fn len(&self) -> usize {
        self.sockets.len()
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn begin(&mut self, schedule: Schedule, counted_from_ns: u64, end_ns: u64) {
        self.schedule = Some(schedule);
        self.window.from_ns = counted_from_ns;
        self.turns.begin(schedule, end_ns, self.job.pace);
        self.end_at(end_ns);
        if let Some(refusal) = self.exchange.refusal() {
            self.counters.iter_mut().for_each(|counter| counter.fault(|| refusal.to_owned()));
        }
    }

    fn end_at(&mut self, end_ns: u64) {
        self.window.end_ns = end_ns;
        self.turns.end_at(end_ns);
        self.counters.iter_mut().for_each(|counter| counter.window = self.window);
    }

    fn happened(&mut self, index: usize, _event: &Event) -> bool {
        let Self { job, sockets, counters, question, exchange, .. } = self;
        let Socket { socket, target, next, oldest, flying, slots, sequences, room_since_ns, is_refused, .. } =
            &mut sockets[index];
        let counter = &mut counters[*target];
        let was_full = *next - *oldest >= slots.len() as u64;
        let mask = slots.len() - 1;
        let (mut refused, mut came_ns) = (false, None);
        // Until all is answered, or the socket has no more: an event comes for what arrives later.
        while *flying > 0 {
            let mut came = None;
            let outcome = exchange.receive(socket, *flying, |bytes| {
                let now = *came.get_or_insert_with(clock::now);
                let Some(number) = question.answered(bytes).filter(|number| (*oldest..*next).contains(number)) else {
                    return;
                };
                let slot = &mut slots[number as usize & mask];
                if slot.number != number {
                    return;
                }
                slot.number = FREE;
                *flying -= 1;
                *is_refused = false;
                let asked = slot.flight.asked as usize;
                let verdict = question.judge(bytes, asked, slot.before, now.wall_ms);
                if let Verdict::Price { price, .. } = &verdict {
                    sequences[asked] = sequences[asked].max(price.sequence);
                }
                counter.answered(&slot.flight, now.mono_ns, bytes.len(), verdict, &job.assets[asked]);
            });
            came_ns = came.map(|now| now.mono_ns).or(came_ns);
            match outcome {
                Ok(Some(true)) => {}
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused = true,
                Err(error) => {
                    counter.fault(|| format!("datagrams cannot be received: {error}"));
                    break;
                }
            }
        }
        if was_full && let Some(now_ns) = came_ns {
            *room_since_ns = now_ns;
        }
        if refused {
            let socket = &mut sockets[index];
            socket.refused(&mut counters[socket.target]);
        }
        came_ns.is_some()
    }

    fn send(&mut self, index: usize, now_ns: u64) {
        let Some(schedule) = self.schedule else { return };
        if self.job.pace == Pace::Closed && self.sockets[index].flying > 0 {
            return;
        }
        let socket = &mut self.sockets[index];
        let lost_ns = self.window.lost_ns;
        if self.job.pace == Pace::Open && schedule.due_ns(socket.number, socket.next).saturating_add(lost_ns) < now_ns {
            socket.next = socket.next.max(schedule.due_before(socket.number, now_ns - lost_ns));
        }
        loop {
            while self.outbox.len() < self.train && self.queue(index, now_ns) {}
            if self.outbox.len() == 0 || !self.post(index, now_ns) || self.job.pace == Pace::Closed {
                return;
            }
        }
    }

    fn sweep(&mut self, now_ns: u64) {
        self.wall_ms = clock::now().wall_ms;
        for index in 0..self.sockets.len() {
            let socket = &mut self.sockets[index];
            socket.forget();
            while socket.oldest < socket.next {
                let slot = *socket.slot(socket.oldest);
                if slot.number == socket.oldest {
                    if now_ns.saturating_sub(slot.flight.sent_ns) <= self.window.lost_ns {
                        break;
                    }
                    socket.slot(socket.oldest).number = FREE;
                    socket.flying -= 1;
                    self.counters[socket.target].lost(&slot.flight);
                }
                socket.oldest += 1;
            }
            // What was due while there was no room, or while the kernel took nothing.
            self.send(index, now_ns);
        }
    }

    fn turns(&mut self) -> &mut Turns {
        &mut self.turns
    }

    fn seen(&self) -> Seen {
        lane::seen(&self.counters)
    }

    fn finish(mut self, stopped: bool) -> LaneOutcome {
        let due = self.sockets.iter().map(|socket| (socket.target, socket.number));
        lane::count_unsent(&mut self.counters, self.job.pace, self.schedule, due);
        for socket in &self.sockets {
            for slot in socket.slots.iter().filter(|slot| slot.number != FREE) {
                self.counters[socket.target].unanswered(&slot.flight, stopped);
            }
        }
        LaneOutcome { counters: self.counters, behind_ns: self.behind_ns }
    }
}
