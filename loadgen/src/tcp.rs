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
    let mut poll = Poll::new()?;
    let mut clients = connect(load, &poll)?;
    let finders: Vec<Finder<'_>> = load.requests.iter().map(|request| Finder::new(&request.expect)).collect();
    let mut events = Events::with_capacity(1_024);
    let mut buffer = vec![0; READ_SIZE];
    let mut report = LoadReport::new();
    let begin = Instant::now();
    let (count_from, end) = (begin + load.warm_up, begin + load.warm_up + load.duration);
    let mut counting = load.warm_up.is_zero();
    for client in &mut clients {
        client.fill(load)?;
    }
    loop {
        poll.poll(&mut events, Some(STALL))?;
        let now = Instant::now();
        if events.is_empty() {
            return Err(io::Error::new(ErrorKind::TimedOut, "no answer for ten seconds"));
        }
        if !counting && now >= count_from {
            counting = true;
            report = LoadReport::new();
        }
        if now >= end {
            report.elapsed = now - count_from;
            return Ok(report);
        }
        for event in &events {
            let client = &mut clients[event.token().0];
            if event.is_writable() && !client.unsent.is_empty() {
                client.flush()?;
            }
            if event.is_readable() {
                client.read(load.framing, &mut buffer, &finders, now, &mut report)?;
                report.sent += client.fill(load)?;
            }
        }
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
