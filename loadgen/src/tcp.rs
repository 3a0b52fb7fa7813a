//! Load over TCP: connections that keep `pipeline` requests in flight each.
//!
//! A closed loop on the calling thread, whichever CPU that is, for comparing servers: an answer is right when it has the
//! right status and contains what was expected. Prices are not looked at more closely here; a level does that.

use crate::connection::{Broken, Connection, Flight, READ_SIZE};
use crate::framing::{Framing, Splitter, Verdict};
use crate::report::{LoadReport, Outcome};
use memchr::memmem::Finder;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tuning::clock::mono_ns;

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
    /// Requests in flight on each, 1 to 64.
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

/// A connection and its place in the list.
struct Client {
    connection: Connection,
    /// Position of the next request.
    next: usize,
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
    splitter: Splitter,
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
            splitter: Splitter::new(load.framing),
            buffer: vec![0; READ_SIZE],
        })
    }

    /// Asks for `duration`, `at_once` connections at a time, all of them in turn; then waits for what is in flight, so
    /// that everything sent is counted and the connections are at rest again. The warm-up of the load plays no part.
    ///
    /// # Errors
    /// When a connection breaks, or no answer comes for ten seconds.
    pub fn run(&mut self, at_once: usize, duration: Duration) -> io::Result<LoadReport> {
        let Self { load, finders, poll, events, clients, resting, splitter, buffer } = self;
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
            match poll.poll(events, Some(STALL)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            let now = Instant::now();
            if events.is_empty() {
                return Err(io::Error::new(ErrorKind::TimedOut, "no answer for ten seconds"));
            }
            for event in &*events {
                let index = event.token().0;
                let client = &mut clients[index];
                let was_asking = !client.connection.flying().is_empty();
                client.turn(event, finders, splitter, buffer, &mut report).map_err(io::Error::other)?;
                if !was_asking || !client.connection.flying().is_empty() {
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
        let connection = Connection::new(stream, load.pipeline);
        clients.push(Client { connection, next: index % load.requests.len() });
    }
    Ok(clients)
}

impl Client {
    /// Does what an event asks for: sends what waited for room, and takes answers.
    fn turn(
        &mut self,
        event: &Event,
        finders: &[Finder<'_>],
        splitter: &mut Splitter,
        buffer: &mut [u8],
        report: &mut LoadReport,
    ) -> Result<(), Broken> {
        self.connection.flush()?;
        if !event.is_readable() {
            return Ok(());
        }
        let mut now = None;
        self.connection.read(buffer, splitter, event.is_read_closed(), |answer, flight| {
            let outcome = match answer.verdict {
                Verdict::Good if finders[flight.asked as usize].find(answer.body).is_some() => Outcome::Right,
                Verdict::Refused => Outcome::Refused,
                _ => Outcome::Wrong,
            };
            report.count(outcome, now.get_or_insert_with(mono_ns).saturating_sub(flight.due_ns));
        })?;
        Ok(())
    }

    /// Sends until `pipeline` requests are in flight; how many that took. Refills only when the last batch is answered,
    /// as a client that pipelines does.
    fn fill(&mut self, load: &TcpLoad) -> io::Result<u64> {
        if !self.connection.flying().is_empty() {
            return Ok(0);
        }
        let now_ns = mono_ns();
        let count = self.connection.room();
        for _ in 0..count {
            let asked = u32::try_from(self.next).unwrap_or(0);
            self.connection.queue(&load.requests[self.next].bytes, Flight { asked, due_ns: now_ns, sent_ns: now_ns });
            self.next = (self.next + load.connections) % load.requests.len();
        }
        self.connection.flush().map_err(io::Error::other)?;
        Ok(count as u64)
    }
}
