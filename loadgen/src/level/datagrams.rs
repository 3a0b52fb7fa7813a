//! The UDP lane: sockets that ask every target in turn, by signed frame or JSON object, one by one or in trains.
//!
//! Nothing limits what a socket has in flight but what can be remembered ([`SLOTS_MAX`]): an open schedule does not wait
//! for answers. A reply is known by its request id. One that answers nothing that is in flight (a duplicate, or one that
//! came after its request was given up) changes no count. Where the kernel was told that nobody listens at a target, what
//! was in flight there is lost in its time, and the socket goes on asking.

use super::count::{Counter, Verdict, Window};
use super::course::{Course, Share};
use super::lane::Lane;
use super::question::Question;
use crate::connection::Flight;
use crate::exchange::{BATCH, Exchange, Outbox};
use crate::job::{Job, Pace};
use crate::schedule::SECOND_NS;
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
    course: Course<'a>,
    train: usize,
    sockets: Vec<Socket>,
    question: Question<'a>,
    exchange: Exchange,
    outbox: Outbox,
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
        let mut course = Course::new(job, window, share, addresses.len());
        if let Some(refusal) = exchange.refusal() {
            course.counters.iter_mut().for_each(|counter| counter.fault(|| refusal.to_owned()));
        }
        let (outbox, wall_ms) = (Outbox::default(), clock::now().wall_ms);
        Ok(Self { course, train, sockets, question, exchange, outbox, wall_ms })
    }

    /// Puts the next request of a socket into the outbox if it is due and there is room; whether it did.
    fn queue(&mut self, index: usize, now_ns: u64) -> bool {
        let Self { course, sockets, question, outbox, .. } = self;
        let socket = &mut sockets[index];
        let number = socket.next + outbox.len() as u64;
        socket.forget();
        if number - socket.oldest >= socket.slots.len() as u64 {
            return false;
        }
        let Some(due_ns) = course.due(socket.number, number, now_ns) else { return false };
        let asked = course.asset_of(socket.number, number);
        let flight = Flight { asked: u32::try_from(asked).unwrap_or(0), due_ns, sent_ns: now_ns };
        let before = socket.sequences[asked];
        *socket.slot(number) = Slot { number: FREE, flight, before };
        outbox.push(question.ask(asked, number, self.wall_ms));
        true
    }

    /// Sends what is in the outbox; whether the kernel took it all.
    fn post(&mut self, index: usize, now_ns: u64) -> bool {
        let wanted = self.outbox.len();
        let Self { course, sockets, exchange, outbox, .. } = self;
        let socket = &mut sockets[index];
        let mut outcome = exchange.send(&socket.socket, outbox);
        // The error is about a datagram before this one; sending this one is not done yet.
        if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            socket.refused(&mut course.counters[socket.target]);
            outcome = exchange.send(&socket.socket, outbox);
        }
        outbox.clear();
        let sent = match outcome {
            Ok(sent) => sent,
            // No room in the kernel, or no way out for now: it stays due.
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => {
                course.counters[socket.target].fault(|| format!("a datagram was not sent: {error}"));
                0
            }
        };
        for _ in 0..sent {
            let number = socket.next;
            let slot = socket.slot(number);
            slot.number = number;
            let due_ns = slot.flight.due_ns;
            course.sent(socket.target, due_ns, socket.room_since_ns, now_ns);
            socket.next += 1;
            socket.flying += 1;
        }
        sent == wanted
    }
}

/// How many requests a socket remembers, a power of two: what is due in the time until one is lost, and half more.
fn slots(pace: Pace, rate: u64, lost_ns: u64, train: u64) -> usize {
    let in_flight = u128::from(rate) * u128::from(lost_ns) / u128::from(SECOND_NS);
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
            // Whoever answers next is another process: its sequences are its own.
            self.sequences.fill(0);
            self.slots.iter_mut().for_each(|slot| slot.before = 0);
        }
    }
}

impl<'a> Lane<'a> for Datagrams<'a> {
    fn course(&mut self) -> &mut Course<'a> {
        &mut self.course
    }

    fn len(&self) -> usize {
        self.sockets.len()
    }

    fn happened(&mut self, index: usize, _event: &Event) -> bool {
        let Self { course, sockets, question, exchange, .. } = self;
        let Socket { socket, target, next, oldest, flying, slots, sequences, room_since_ns, is_refused, .. } =
            &mut sockets[index];
        let (counter, assets) = (&mut course.counters[*target], &course.job.assets);
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
                counter.answered(&slot.flight, now.mono_ns, bytes.len(), verdict, &assets[asked]);
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
            socket.refused(&mut course.counters[socket.target]);
        }
        came_ns.is_some()
    }

    fn send(&mut self, index: usize, now_ns: u64) {
        let (socket, is_closed) = (&mut self.sockets[index], self.course.job.pace == Pace::Closed);
        if is_closed && socket.flying > 0 {
            return;
        }
        socket.next = self.course.worth_sending(socket.number, socket.next, now_ns);
        loop {
            while self.outbox.len() < self.train && self.queue(index, now_ns) {}
            if self.outbox.len() == 0 || !self.post(index, now_ns) || is_closed {
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
                    if now_ns.saturating_sub(slot.flight.sent_ns) <= self.course.window.lost_ns {
                        break;
                    }
                    socket.slot(socket.oldest).number = FREE;
                    socket.flying -= 1;
                    self.course.counters[socket.target].lost(&slot.flight);
                }
                socket.oldest += 1;
            }
            // What was due while there was no room, or while the kernel took nothing.
            self.send(index, now_ns);
        }
    }

    fn finish(mut self, left_out_from_ns: u64) -> Course<'a> {
        // Unless it was told when the sockets were opened.
        if let Some(refusal) = self.exchange.refusal() {
            let untold =
                self.course.counters.iter_mut().filter(|it| !it.tally.faults.iter().any(|line| line == refusal));
            untold.for_each(|counter| counter.fault(|| refusal.to_owned()));
        }
        self.course.count_unsent(self.sockets.iter().map(|socket| (socket.target, socket.number)));
        for socket in &self.sockets {
            let counter = &mut self.course.counters[socket.target];
            let flying = socket.slots.iter().filter(|slot| slot.number != FREE);
            flying.for_each(|slot| counter.unanswered(&slot.flight, left_out_from_ns));
        }
        self.course
    }
}
