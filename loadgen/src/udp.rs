//! Binary UDP load: sockets that keep a window of signed requests in flight each.

use crate::report::{LoadReport, Outcome};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use shared::wire::{
    FRAME_SIZE, KIND_PRICE, REPLY_MAC_COVERS, REPLY_MAGIC, REQUEST_MAC_COVERS, REQUEST_MAGIC, ReplyFrame, RequestFrame,
    VERSION,
};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::fmt;
use std::hash::Hasher;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// Datagrams of one system call.
const BATCH: usize = 64;
/// Silence after which what is in flight counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(200);
/// Silent rounds after which the run is given up.
const SILENT_ROUNDS_MAX: u32 = 25;

/// A key that signs requests. Shows no secret.
#[derive(Clone, Copy)]
pub struct UdpKey {
    /// Its number.
    pub id: u32,
    /// Its UDP secret.
    pub secret: [u8; 16],
}

impl fmt::Debug for UdpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpKey").field("id", &self.id).finish_non_exhaustive()
    }
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
    /// Asked with in turn; at least 1. Of n sockets the one numbered i takes the keys i, i + n, i + 2 n and so on, round
    /// and round, so that of a longer list each is used once before any comes again.
    pub keys: Vec<UdpKey>,
    /// Asked for in turn, in the same way; at least 1.
    pub assets: Vec<[u8; 16]>,
    /// Whether replies are checked (id, status, MAC) or, for a server that answers anything, only counted.
    pub check: bool,
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
    in_flight: usize,
    /// Turn of the first request of the window, and of the first one after it: what it is about and who signs it.
    first_turn: usize,
    next_turn: usize,
}

/// Runs the load on the calling thread.
///
/// # Errors
/// When a socket cannot be made or fails, or nothing is answered for five seconds.
pub fn run(load: &UdpLoad) -> io::Result<LoadReport> {
    let window = load.window.clamp(1, BATCH);
    let mut poll = Poll::new()?;
    let mut clients = open(load, &poll)?;
    let mut events = Events::with_capacity(load.sockets.max(1));
    let mut exchange = Exchange::new();
    let mut report = LoadReport::new();
    let begin = Instant::now();
    let (count_from, end) = (begin + load.warm_up, begin + load.warm_up + load.duration);
    let (mut counting, mut silent_rounds) = (false, 0);
    for client in &mut clients {
        exchange.send(client, load, window)?;
    }
    loop {
        poll.poll(&mut events, Some(LOST_AFTER))?;
        let now = Instant::now();
        if !counting && now >= count_from {
            counting = true;
            report = LoadReport::new();
        }
        if now >= end {
            report.elapsed = now - count_from;
            return Ok(report);
        }
        silent_rounds = if events.is_empty() { silent_rounds + 1 } else { 0 };
        if silent_rounds > SILENT_ROUNDS_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no reply for five seconds"));
        }
        for event in &events {
            let client = &mut clients[event.token().0];
            exchange.receive(client, load, &mut report)?;
            if client.in_flight == 0 {
                report.sent += exchange.send(client, load, window)?;
            }
        }
        for client in clients.iter_mut().filter(|client| now - client.sent_at > LOST_AFTER) {
            report.lost += client.in_flight as u64;
            report.sent += exchange.send(client, load, window)?;
        }
    }
}

fn open(load: &UdpLoad, poll: &Poll) -> io::Result<Vec<Client>> {
    let any: SocketAddr = if load.target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let mut clients = Vec::with_capacity(load.sockets);
    for index in 0..load.sockets.max(1) {
        let mut socket = UdpSocket::bind(any)?;
        socket.connect(load.target)?;
        poll.registry().register(&mut socket, Token(index), Interest::READABLE)?;
        let sent_at = Instant::now();
        clients.push(Client { socket, first_id: 0, sent_at, in_flight: 0, first_turn: index, next_turn: index });
    }
    Ok(clients)
}

/// Buffers of one system call, used for every socket in turn.
struct Exchange {
    requests: Vec<[u8; FRAME_SIZE]>,
    replies: Vec<[u8; FRAME_SIZE + 1]>,
    send_headers: MultiHeaders<SockaddrIn>,
    receive_headers: MultiHeaders<SockaddrIn>,
}

impl Exchange {
    fn new() -> Self {
        Self {
            requests: vec![[0; FRAME_SIZE]; BATCH],
            replies: vec![[0; FRAME_SIZE + 1]; BATCH],
            send_headers: MultiHeaders::preallocate(BATCH, None),
            receive_headers: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Sends a new window; how many datagrams that were. What the kernel does not take counts as lost later.
    fn send(&mut self, client: &mut Client, load: &UdpLoad, window: usize) -> io::Result<u64> {
        client.first_id += BATCH as u64;
        client.sent_at = Instant::now();
        client.in_flight = window;
        client.first_turn = client.next_turn;
        let wall_ms = tuning::clock::now().wall_ms;
        for (index, bytes) in self.requests[..window].iter_mut().enumerate() {
            *bytes = request(load, client.next_turn, client.first_id + index as u64, wall_ms);
            client.next_turn += load.sockets.max(1);
        }
        let slices: Vec<[IoSlice<'_>; 1]> = self.requests[..window].iter().map(|bytes| [IoSlice::new(bytes)]).collect();
        let addresses: Vec<Option<SockaddrIn>> = vec![None; window];
        let fd = client.socket.as_raw_fd();
        match sendmmsg(fd, &mut self.send_headers, &slices, addresses, [], MsgFlags::MSG_DONTWAIT) {
            Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ECONNREFUSED) => Ok(window as u64),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Lengths of the replies of one system call; `None` when there are none.
    fn receive_batch(&mut self, fd: RawFd) -> io::Result<Option<Vec<usize>>> {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.replies.iter_mut().map(|bytes| [IoSliceMut::new(bytes)]).collect();
        match recvmmsg(fd, &mut self.receive_headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
            Ok(results) => Ok(Some(results.map(|result| result.bytes).collect())),
            Err(Errno::EAGAIN | Errno::ECONNREFUSED) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes every reply that has come.
    fn receive(&mut self, client: &mut Client, load: &UdpLoad, report: &mut LoadReport) -> io::Result<()> {
        loop {
            let Some(lengths) = self.receive_batch(client.socket.as_raw_fd())? else { return Ok(()) };
            let latency_ns = u64::try_from(client.sent_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
            for (bytes, length) in self.replies.iter().zip(&lengths) {
                match judge(load, client, &bytes[..(*length).min(bytes.len())]) {
                    Some(outcome) => {
                        client.in_flight -= 1;
                        report.count(outcome, latency_ns);
                    }
                    // A reply to a window that was given up already: counted as lost then.
                    None => continue,
                }
            }
            if lengths.len() < BATCH {
                return Ok(());
            }
        }
    }
}

/// The key whose turn it is.
fn key_of(load: &UdpLoad, turn: usize) -> &UdpKey {
    &load.keys[turn % load.keys.len()]
}

/// The signed request of that turn.
fn request(load: &UdpLoad, turn: usize, request_id: u64, wall_ms: u64) -> [u8; FRAME_SIZE] {
    let key = key_of(load, turn);
    let mut frame = RequestFrame {
        magic: REQUEST_MAGIC.to_le_bytes(),
        version: VERSION,
        kind: KIND_PRICE,
        key_id: key.id.to_le_bytes(),
        request_id: request_id.to_le_bytes(),
        client_time_ms: wall_ms.to_le_bytes(),
        asset: load.assets[turn % load.assets.len()],
        mac: [0; 16],
        zero: [0; 8],
    };
    frame.mac = mac(&key.secret, &bytemuck::bytes_of(&frame)[..REQUEST_MAC_COVERS]);
    bytemuck::cast(frame)
}

/// What a reply is worth; `None` when it does not belong to the window in flight.
fn judge(load: &UdpLoad, client: &Client, bytes: &[u8]) -> Option<Outcome> {
    if client.in_flight == 0 {
        return None;
    }
    if !load.check {
        return Some(Outcome::Right);
    }
    let Ok(frame) = bytemuck::try_pod_read_unaligned::<ReplyFrame>(bytes) else { return Some(Outcome::Wrong) };
    let id = u64::from_le_bytes(frame.request_id);
    if !(client.first_id..client.first_id + BATCH as u64).contains(&id) {
        return None;
    }
    let place = usize::try_from(id - client.first_id).unwrap_or(0);
    let key = key_of(load, client.first_turn + place * load.sockets.max(1));
    let genuine =
        frame.magic == REPLY_MAGIC.to_le_bytes() && frame.mac[..] == mac(&key.secret, &bytes[..REPLY_MAC_COVERS])[..8];
    Some(match frame.status {
        0 if genuine && i64::from_le_bytes(frame.mantissa) > 0 => Outcome::Right,
        5..=8 if genuine => Outcome::Refused,
        _ => Outcome::Wrong,
    })
}

fn mac(secret: &[u8; 16], bytes: &[u8]) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(bytes);
    hasher.finish128().as_bytes()
}
