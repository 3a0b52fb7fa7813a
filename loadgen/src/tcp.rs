//! Load over TCP: connections that keep `pipeline` requests in flight each.

use crate::framing::{Framing, Verdict};
use crate::report::{LoadReport, Outcome};
use memchr::memmem::Finder;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Bytes read at once: 64 pipelined answers of about 450 bytes.
const READ_SIZE: usize = 32 * 1_024;
/// Longest wait for an answer before the run is given up.
const STALL: Duration = Duration::from_secs(10);

/// A request and how its answer is known to be right.
#[derive(Clone, Debug)]
pub struct Request {
    /// The bytes to send.
    pub bytes: Vec<u8>,
    /// What the body of the right answer contains (a cached value for redis and memcached), as `"asset":"BTC"`; empty: any body.
    pub expect: Vec<u8>,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct TcpLoad {
    /// The server.
    pub target: SocketAddr,
    /// Open connections, at least 1.
    pub connections: usize,
    /// Requests in flight on each, at least 1.
    pub pipeline: usize,
    /// How answers are cut apart.
    pub framing: Framing,
    /// At least 1. Of n connections the one numbered i asks for i, i + n, i + 2 n and so on, round and round: as many
    /// requests as connections are one for each, and of a longer list each is asked once before any comes again.
    pub requests: Vec<Request>,
    /// Time before counting starts.
    pub warm_up: Duration,
    /// Time counted.
    pub duration: Duration,
}

/// A connection, the requests it has in flight, and what it read of an unfinished answer.
struct Client {
    stream: TcpStream,
    /// Position of the next request in the list.
    next: usize,
    /// (position in the list, when sent) of each request in flight.
    flying: VecDeque<(usize, Instant)>,
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

/// Runs the load on the calling thread.
///
/// # Errors
/// When a connection cannot be made or breaks, or no answer comes for ten seconds.
pub fn run(load: &TcpLoad) -> io::Result<LoadReport> {
    let mut clients = Clients::open(load)?;
    if !load.warm_up.is_zero() {
        clients.run(load.connections, load.warm_up)?;
    }
    clients.run(load.connections, load.duration)
}

/// The connections of a load, open and at rest between runs.
pub struct Clients<'a> {
    load: &'a TcpLoad,
    finders: Vec<Finder<'a>>,
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    /// Those with nothing in flight, in the order in which their turns come.
    resting: VecDeque<usize>,
    buffer: Vec<u8>,
}

impl<'a> Clients<'a> {
    /// Opens every connection.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn open(load: &'a TcpLoad) -> io::Result<Self> {
        let poll = Poll::new()?;
        let clients = connect(load, &poll)?;
        Ok(Self {
            load,
            finders: load.requests.iter().map(|request| Finder::new(&request.expect)).collect(),
            poll,
            events: Events::with_capacity(1_024),
            resting: (0..clients.len()).collect(),
            clients,
            buffer: vec![0; READ_SIZE],
        })
    }

    /// Asks for `duration`, `at_once` connections at a time, all of them in turn; then waits for what is in flight, so
    /// that everything sent is counted and the connections are at rest again. The warm-up of the load plays no part.
    ///
    /// # Errors
    /// When a connection breaks, or no answer comes for ten seconds.
    pub fn run(&mut self, at_once: usize, duration: Duration) -> io::Result<LoadReport> {
        let Self { load, finders, poll, events, clients, resting, buffer } = self;
        let mut report = LoadReport::new();
        let begin = Instant::now();
        let mut busy = 0;
        while busy < at_once.max(1)
            && let Some(index) = resting.pop_front()
        {
            report.sent += clients[index].fill(load)?;
            busy += 1;
        }
        while busy > 0 {
            poll.poll(events, Some(STALL))?;
            let now = Instant::now();
            if events.is_empty() {
                return Err(io::Error::new(ErrorKind::TimedOut, "no answer for ten seconds"));
            }
            for event in &*events {
                let index = event.token().0;
                let client = &mut clients[index];
                if event.is_writable() && !client.unsent.is_empty() {
                    client.flush()?;
                }
                let was_asking = !client.flying.is_empty();
                if event.is_readable() {
                    client.read(load.framing, buffer, finders, now, &mut report)?;
                }
                if !was_asking || !client.flying.is_empty() {
                    continue;
                }
                resting.push_back(index);
                let next = if now - begin < duration { resting.pop_front() } else { None };
                match next {
                    Some(next) => report.sent += clients[next].fill(load)?,
                    None => busy -= 1,
                }
            }
        }
        report.elapsed = begin.elapsed();
        Ok(report)
    }
}

fn connect(load: &TcpLoad, poll: &Poll) -> io::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(load.connections);
    for index in 0..load.connections {
        // Blocking connect first: a refused connection is an error of the run, not an event to interpret.
        let stream = std::net::TcpStream::connect(load.target)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let next = index % load.requests.len();
        let flying = VecDeque::with_capacity(load.pipeline);
        clients.push(Client { stream, next, flying, unread: Vec::new(), unsent: Vec::new() });
    }
    Ok(clients)
}

impl Client {
    /// Sends until `pipeline` requests are in flight; how many that took. Refills only when the last batch is answered,
    /// as a client that pipelines does.
    fn fill(&mut self, load: &TcpLoad) -> io::Result<u64> {
        if !self.flying.is_empty() || !self.unsent.is_empty() {
            return Ok(0);
        }
        let now = Instant::now();
        for _ in 0..load.pipeline {
            self.unsent.extend_from_slice(&load.requests[self.next].bytes);
            self.flying.push_back((self.next, now));
            self.next = (self.next + load.connections) % load.requests.len();
        }
        self.flush()?;
        Ok(load.pipeline as u64)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.stream.write(&self.unsent) {
            Ok(written) if written == self.unsent.len() => self.unsent.clear(),
            Ok(written) => drop(self.unsent.drain(..written)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes what has come. Edge-triggered: a short read means that the socket is empty.
    fn read(
        &mut self,
        framing: Framing,
        buffer: &mut [u8],
        finders: &[Finder<'_>],
        now: Instant,
        report: &mut LoadReport,
    ) -> io::Result<()> {
        loop {
            let length = match self.stream.read(buffer) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed a connection")),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if self.unread.is_empty() {
                let taken = self.take_answers(framing, &buffer[..length], finders, now, report)?;
                self.unread.extend_from_slice(&buffer[taken..length]);
            } else {
                let mut unread = std::mem::take(&mut self.unread);
                unread.extend_from_slice(&buffer[..length]);
                let taken = self.take_answers(framing, &unread, finders, now, report)?;
                unread.drain(..taken);
                self.unread = unread;
            }
            if length < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Takes every whole answer in `bytes`; how many bytes that were.
    fn take_answers(
        &mut self,
        framing: Framing,
        bytes: &[u8],
        finders: &[Finder<'_>],
        now: Instant,
        report: &mut LoadReport,
    ) -> io::Result<usize> {
        let mut taken = 0;
        while let Some(answer) = framing.split(&bytes[taken..]).map_err(io::Error::other)? {
            let Some((position, sent)) = self.flying.pop_front() else {
                return Err(io::Error::new(ErrorKind::InvalidData, "an answer that nobody asked for"));
            };
            let outcome = match answer.verdict {
                Verdict::Good if finders[position].find(answer.body).is_some() => Outcome::Right,
                Verdict::Refused => Outcome::Refused,
                _ => Outcome::Wrong,
            };
            report.count(outcome, u64::try_from((now - sent).as_nanos()).unwrap_or(u64::MAX));
            taken += answer.length;
        }
        Ok(taken)
    }
}
