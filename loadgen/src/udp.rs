//! Load over UDP: sockets that keep a window of requests in flight each.
//!
//! A closed loop on the calling thread. It speaks the price service's signed frames, and memcached's `get` for
//! comparison. What is not answered within [`LOST_AFTER`] is lost and its window begins anew.

use crate::exchange::{BATCH, Exchange, Outbox};
use crate::frame::UdpKey;
use crate::framing::{Framing, Verdict};
use crate::report::{LoadReport, Outcome};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use shared::wire::{FRAME_SIZE, ReplyFrame};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Silence after which what is in flight counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(200);
/// Silent rounds after which the run is given up.
const SILENT_ROUNDS_MAX: u32 = 25;
/// Bytes of the header before memcached's text in a datagram: request id, sequence, count (each u16, big-endian), zero.
const MEMCACHED_HEADER: usize = 8;

/// What is asked, and in which words.
///
/// Of n sockets the one numbered i takes the entries i, i + n, i + 2 n and so on of each list, round and round, so that of
/// a longer list each is used once before any comes again. Each list has at least 1.
#[derive(Clone, Debug)]
pub enum Dialect {
    /// The price service's signed frames.
    Frames {
        /// Asked with.
        keys: Vec<UdpKey>,
        /// Asked for: upper case, NUL padded.
        assets: Vec<[u8; 16]>,
        /// Whether replies are checked (id, status, MAC) or, for a server that answers anything, only counted.
        check: bool,
    },
    /// memcached's `get` of one key, answered in one datagram.
    Memcached {
        /// Asked for; they must have values, or every answer is wrong.
        keys: Vec<String>,
    },
}

/// What to do.
#[derive(Clone, Debug)]
pub struct UdpLoad {
    /// The server.
    pub target: SocketAddr,
    /// Sockets, each with a port of its own, at least 1.
    pub sockets: usize,
    /// Requests in flight on each, 1 to 64.
    pub window: usize,
    /// Requests of a window that leave as one train (`UDP_SEGMENT`), 1 to 64; 1: no trains. Needs requests of one length.
    pub train: usize,
    /// What is asked.
    pub dialect: Dialect,
    /// Time before counting starts.
    pub warm_up: Duration,
    /// Time counted.
    pub duration: Duration,
}

/// A socket and its window.
struct Client {
    socket: UdpSocket,
    /// Id of the first request of the window in flight, and when it was sent.
    first_id: u64,
    sent_at: Instant,
    /// A bit for each request of the window that is not answered.
    flying: u64,
    /// Turn of the first request of the window, and of the first one after it: what it is about and who signs it.
    first_turn: usize,
    next_turn: usize,
}

/// Runs the load on the calling thread.
///
/// # Errors
/// When a socket cannot be made or fails, nobody listens at the target, or nothing is answered for five seconds.
pub fn run(load: &UdpLoad) -> io::Result<LoadReport> {
    let mut clients = Clients::open(load)?;
    if !load.warm_up.is_zero() {
        clients.run(load.sockets, load.warm_up)?;
    }
    clients.run(load.sockets, load.duration)
}

/// The sockets of a load, open and at rest between runs.
pub struct Clients<'a> {
    sender: Sender<'a>,
    poll: Poll,
    clients: Vec<Client>,
    /// Those with nothing in flight, in the order in which their turns come.
    resting: VecDeque<usize>,
}

impl<'a> Clients<'a> {
    /// Opens every socket.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn open(load: &'a UdpLoad) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut sender = Sender::new(load);
        let clients = open(load, &mut sender.exchange, &poll)?;
        let resting = (0..clients.len()).collect();
        Ok(Self { sender, poll, clients, resting })
    }

    /// Asks for `duration`, `at_once` sockets at a time, all of them in turn; then waits for what is in flight, so that
    /// everything sent is counted and the sockets are at rest again. The warm-up of the load plays no part.
    ///
    /// # Errors
    /// When a socket fails, nobody listens at the target, or nothing is answered for five seconds.
    pub fn run(&mut self, at_once: usize, duration: Duration) -> io::Result<LoadReport> {
        let mut events = Events::with_capacity(1_024);
        let mut report = LoadReport::new();
        let begin = Instant::now();
        let (mut silent_rounds, mut looked) = (0, begin);
        let mut busy = self.start(at_once.max(1), &mut report)?;
        while busy > 0 {
            self.poll.poll(&mut events, Some(LOST_AFTER))?;
            let now = Instant::now();
            silent_rounds = if events.is_empty() { silent_rounds + 1 } else { 0 };
            if silent_rounds > SILENT_ROUNDS_MAX {
                return Err(io::Error::new(ErrorKind::TimedOut, "no reply for five seconds"));
            }
            let goes_on = now - begin < duration;
            for event in &events {
                let client = &mut self.clients[event.token().0];
                if client.flying == 0 {
                    continue;
                }
                self.sender.receive(client, &mut report)?;
                if client.flying == 0 {
                    self.resting.push_back(event.token().0);
                    busy -= 1;
                    busy += self.start(usize::from(goes_on), &mut report)?;
                }
            }
            if now > looked + LOST_AFTER / 4 {
                looked = now;
                let lost = self.give_up_lost(now, &mut report);
                busy -= lost;
                busy += self.start(if goes_on { lost } else { 0 }, &mut report)?;
            }
        }
        report.elapsed = begin.elapsed();
        report.note = self.sender.exchange.refusal().map(str::to_owned);
        Ok(report)
    }

    /// Sends the windows of the next `wanted` sockets, or of as many as are at rest; how many that were.
    fn start(&mut self, wanted: usize, report: &mut LoadReport) -> io::Result<usize> {
        let wanted = wanted.min(self.resting.len());
        for index in self.resting.drain(..wanted) {
            report.sent += self.sender.send(&mut self.clients[index])?;
        }
        Ok(wanted)
    }

    /// Counts as lost what has been in flight for too long; how many sockets are at rest now because of that.
    fn give_up_lost(&mut self, now: Instant, report: &mut LoadReport) -> usize {
        let before = self.resting.len();
        for (index, client) in self.clients.iter_mut().enumerate() {
            if client.flying != 0 && now > client.sent_at + LOST_AFTER {
                report.lost += u64::from(client.flying.count_ones());
                client.flying = 0;
                self.resting.push_back(index);
            }
        }
        self.resting.len() - before
    }
}

fn open(load: &UdpLoad, exchange: &mut Exchange, poll: &Poll) -> io::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(load.sockets);
    for index in 0..load.sockets.max(1) {
        let mut socket = exchange.open(load.target)?;
        poll.registry().register(&mut socket, Token(index), Interest::READABLE)?;
        let sent_at = Instant::now();
        clients.push(Client { socket, first_id: 0, sent_at, flying: 0, first_turn: index, next_turn: index });
    }
    Ok(clients)
}

/// What all sockets share.
struct Sender<'a> {
    load: &'a UdpLoad,
    window: usize,
    train: usize,
    exchange: Exchange,
    outbox: Outbox,
}

impl<'a> Sender<'a> {
    fn new(load: &'a UdpLoad) -> Self {
        let window = load.window.clamp(1, BATCH);
        let train = load.train.clamp(1, window);
        let segment = if train > 1 { load.dialect.request_length().unwrap_or(0) } else { 0 };
        let batch = if train > 1 { train } else { window };
        Self { load, window, train: batch, exchange: Exchange::new(segment), outbox: Outbox::default() }
    }

    /// Sends a new window; how many datagrams that were. What the kernel does not take counts as lost later.
    fn send(&mut self, client: &mut Client) -> io::Result<u64> {
        client.first_id += BATCH as u64;
        client.sent_at = Instant::now();
        client.flying = u64::MAX >> (BATCH - self.window);
        client.first_turn = client.next_turn;
        let wall_ms = tuning::clock::now().wall_ms;
        for place in 0..self.window {
            self.load.dialect.request(client.next_turn, client.first_id + place as u64, wall_ms, &mut self.outbox);
            client.next_turn += self.load.sockets.max(1);
            if self.outbox.len() < self.train && place + 1 < self.window {
                continue;
            }
            let sent = self.exchange.send(&client.socket, &self.outbox);
            self.outbox.clear();
            match sent {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.window as u64)
    }

    /// Takes every reply that has come.
    fn receive(&mut self, client: &mut Client, report: &mut LoadReport) -> io::Result<()> {
        let Self { load, exchange, .. } = self;
        while client.flying != 0 {
            let wanted = client.flying.count_ones() as usize;
            let (first_id, first_turn, sent_at) = (client.first_id, client.first_turn, client.sent_at);
            let mut latency_ns = None;
            let flying = &mut client.flying;
            let outcome = exchange.receive(&client.socket, wanted, |bytes| {
                let turn_of = |place: u64| first_turn + place as usize * load.sockets.max(1);
                // A reply to a window that was given up already is counted as lost then.
                let Some((place, outcome)) = load.dialect.judge(bytes, first_id, turn_of) else { return };
                let bit = if load.dialect.tells_apart() { 1 << place } else { *flying & flying.wrapping_neg() };
                if *flying & bit != 0 {
                    *flying &= !bit;
                    let elapsed = || u64::try_from(sent_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    report.count(outcome, *latency_ns.get_or_insert_with(elapsed));
                }
            })?;
            if outcome != Some(true) {
                break;
            }
        }
        Ok(())
    }
}

impl Dialect {
    /// Bytes of every request, if all are of one length.
    fn request_length(&self) -> Option<u16> {
        let length = match self {
            Self::Frames { .. } => FRAME_SIZE,
            Self::Memcached { keys } => {
                let first = keys.first()?.len();
                keys.iter().all(|key| key.len() == first).then(|| MEMCACHED_HEADER + "get \r\n".len() + first)?
            }
        };
        u16::try_from(length).ok()
    }

    /// Whether replies say which request they answer.
    fn tells_apart(&self) -> bool {
        !matches!(self, Self::Frames { check: false, .. })
    }

    /// Writes the request of that turn.
    fn request(&self, turn: usize, request_id: u64, wall_ms: u64, outbox: &mut Outbox) {
        match self {
            Self::Frames { keys, assets, .. } => {
                let key = &keys[turn % keys.len()];
                outbox.push(&key.request(assets[turn % assets.len()], request_id, wall_ms));
            }
            Self::Memcached { keys } => {
                // The low 16 bits tell a window's requests apart; a window is 64.
                let id = (request_id as u16).to_be_bytes();
                let header = [id[0], id[1], 0, 0, 0, 1, 0, 0];
                let key = keys[turn % keys.len()].as_bytes();
                outbox.push_parts(&[&header, b"get ", key, b"\r\n"]);
            }
        }
    }

    /// Place in the window of the request that a reply answers, and what it is worth; `None` when it answers none of it.
    fn judge(&self, bytes: &[u8], first_id: u64, turn_of: impl Fn(u64) -> usize) -> Option<(u64, Outcome)> {
        match self {
            Self::Frames { check: false, .. } => Some((0, Outcome::Right)),
            Self::Frames { keys, .. } => {
                let frame = bytemuck::try_pod_read_unaligned::<ReplyFrame>(bytes).ok()?;
                let place = u64::from_le_bytes(frame.request_id).checked_sub(first_id)?;
                if place >= BATCH as u64 {
                    return None;
                }
                let signed = keys[turn_of(place) % keys.len()].signed(&frame);
                Some((
                    place,
                    match frame.status {
                        0 if signed && i64::from_le_bytes(frame.mantissa) > 0 => Outcome::Right,
                        5..=8 if signed => Outcome::Refused,
                        _ => Outcome::Wrong,
                    },
                ))
            }
            Self::Memcached { keys } => {
                let (header, text) = bytes.split_at_checked(MEMCACHED_HEADER)?;
                let place = u64::from(u16::from_be_bytes([header[0], header[1]]).wrapping_sub(first_id as u16));
                if place >= BATCH as u64 {
                    return None;
                }
                let key = &keys[turn_of(place) % keys.len()];
                let named = text.strip_prefix(b"VALUE ").and_then(|rest| rest.strip_prefix(key.as_bytes()));
                let whole =
                    matches!(Framing::Memcached.split(text), Ok(Some(answer)) if answer.verdict == Verdict::Good);
                let right = whole && named.is_some_and(|rest| rest.starts_with(b" "));
                Some((place, if right { Outcome::Right } else { Outcome::Wrong }))
            }
        }
    }
}
