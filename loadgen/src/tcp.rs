//! HTTP load: connections that keep `pipeline` requests in flight each.

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
    /// What the body of the right answer contains, as `"asset":"BTC"`; empty: any body.
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
    /// Asked in turn, each connection starting at its own place; at least 1.
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
                client.read(&mut buffer, &finders, now, &mut report)?;
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
        let next = index * 7 % load.requests.len();
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
            self.next = (self.next + 1) % load.requests.len();
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
                let taken = self.take_answers(&buffer[..length], finders, now, report)?;
                self.unread.extend_from_slice(&buffer[taken..length]);
            } else {
                let mut unread = std::mem::take(&mut self.unread);
                unread.extend_from_slice(&buffer[..length]);
                let taken = self.take_answers(&unread, finders, now, report)?;
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
        bytes: &[u8],
        finders: &[Finder<'_>],
        now: Instant,
        report: &mut LoadReport,
    ) -> io::Result<usize> {
        let mut taken = 0;
        while let Some((status, body, length)) = split_answer(&bytes[taken..])? {
            let Some((position, sent)) = self.flying.pop_front() else {
                return Err(io::Error::new(ErrorKind::InvalidData, "an answer that nobody asked for"));
            };
            let outcome = match status {
                200 if finders[position].find(body).is_some() => Outcome::Right,
                429 | 503 => Outcome::Refused,
                _ => Outcome::Wrong,
            };
            report.count(outcome, u64::try_from((now - sent).as_nanos()).unwrap_or(u64::MAX));
            taken += length;
        }
        Ok(taken)
    }
}

/// The first whole answer in `bytes`: status, body, length of it all; `None` when it is not whole yet.
fn split_answer(bytes: &[u8]) -> io::Result<Option<(u16, &[u8], usize)>> {
    let broken = || io::Error::new(ErrorKind::InvalidData, "an answer that is not HTTP with a length");
    let Some(head_end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = &bytes[..head_end];
    let status = head.get(9..12).and_then(number).ok_or_else(broken)?;
    let field =
        memchr::memmem::find(head, b"ontent-Length: ").or_else(|| memchr::memmem::find(head, b"ontent-length: "));
    let digits = &head[field.ok_or_else(broken)? + 15..];
    let digits = &digits[..memchr::memchr(b'\r', digits).unwrap_or(digits.len())];
    let length = number(digits).ok_or_else(broken)?;
    let whole = head_end + 4 + length;
    Ok((bytes.len() >= whole).then(|| (u16::try_from(status).unwrap_or(0), &bytes[head_end + 4..whole], whole)))
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
