//! The TCP lane: HTTP connections to every target in turn, opened, asked, checked and mended.
//!
//! A connection that the server breaks costs the requests that were in flight on it, and is opened again after a pause
//! that grows to [`PAUSE_NS_MAX`]. One whose oldest request is lost is given up and opened again too: over HTTP nothing
//! else can be asked on it.

use super::count::{Verdict, Window};
use super::course::{Course, Share};
use super::lane::Lane;
use crate::connection::{Broken, Connection, Flight, READ_SIZE};
use crate::framing::{self, Answer, Framing, Splitter};
use crate::job::{Job, Pace};
use crate::price::{PriceReader, Wrong};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use tuning::clock::mono_ns;

/// Pause before a broken connection is opened again, and the most that it grows to: a target that is gone costs each
/// connection one attempt a second.
const PAUSE_NS: u64 = 50_000_000;
const PAUSE_NS_MAX: u64 = 1_000_000_000;
/// Longest time to open a connection: two lost SYNs, which the kernel sends again after 1 s and 3 s.
const CONNECT_NS_MAX: u64 = 5_000_000_000;

/// How a connection stands.
enum Link {
    Waiting { until_ns: u64 },
    Connecting { stream: TcpStream, since_ns: u64 },
    Open(Connection),
}

/// One connection and its part of the schedule.
struct Stream {
    link: Link,
    /// Position among the targets that are driven over TCP.
    target: usize,
    /// Over the whole level.
    number: u64,
    /// Its next request.
    next: u64,
    /// Since when there is room for it, if there was none before.
    room_since_ns: u64,
    /// By asset: the highest sequence that this connection was told. 8 bytes for each asset and connection.
    sequences: Vec<u64>,
    failures: u32,
}

/// See the top of the file.
pub(crate) struct Streams<'a> {
    course: Course<'a>,
    registry: Registry,
    token: fn(usize) -> Token,
    addresses: Vec<SocketAddr>,
    /// By target and asset: the bytes to send.
    requests: Vec<Vec<Vec<u8>>>,
    streams: Vec<Stream>,
    splitter: Splitter,
    reader: PriceReader,
    buffer: Vec<u8>,
}

/// The request for one price.
pub(crate) fn price_request(asset: &str, host: SocketAddr, key: &str) -> Vec<u8> {
    format!("GET /price?asset={asset} HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {key}\r\n\r\n").into_bytes()
}

impl<'a> Streams<'a> {
    /// Begins to open the connections that are this thread's.
    ///
    /// # Errors
    /// When the kernel has not as many to give.
    pub(crate) fn open(
        job: &'a Job,
        window: Window,
        share: Share,
        registry: Registry,
        token: fn(usize) -> Token,
    ) -> io::Result<Self> {
        let addresses: Vec<SocketAddr> = job.targets.iter().filter_map(|target| target.tcp).collect();
        let key = &job.credentials.key;
        let ask = |host: &SocketAddr| -> Vec<Vec<u8>> {
            job.assets.iter().map(|asset| price_request(asset.as_str(), *host, key)).collect()
        };
        let stream = |number: usize| Stream {
            link: Link::Waiting { until_ns: 0 },
            target: number % addresses.len(),
            number: number as u64,
            next: 0,
            room_since_ns: 0,
            sequences: vec![0; job.assets.len()],
            failures: 0,
        };
        let mut lane = Self {
            course: Course::new(job, window, share, addresses.len()),
            requests: addresses.iter().map(ask).collect(),
            streams: share.numbers().map(stream).collect(),
            splitter: Splitter::new(Framing::Http),
            reader: PriceReader::new(&job.assets, &job.credentials),
            buffer: vec![0; READ_SIZE],
            registry,
            token,
            addresses,
        };
        for index in 0..lane.streams.len() {
            lane.connect(index, mono_ns())?;
        }
        Ok(lane)
    }

    /// Whether every connection is open, or was tried in vain.
    pub(crate) fn is_connected(&self) -> bool {
        self.streams.iter().all(|stream| matches!(stream.link, Link::Open(_)) || stream.failures > 0)
    }

    fn connect(&mut self, index: usize, now_ns: u64) -> io::Result<()> {
        let stream = &mut self.streams[index];
        let opened = TcpStream::connect(self.addresses[stream.target]).and_then(|mut socket| {
            socket.set_nodelay(true)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.registry.register(&mut socket, (self.token)(index), interest)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => stream.link = Link::Connecting { stream: socket, since_ns: now_ns },
            Err(error) if is_ours(&error) => return Err(error),
            Err(error) => self.refused(index, now_ns, &error),
        }
        Ok(())
    }

    /// A connection that is being opened: is it open, or refused, or neither yet?
    fn connected(&mut self, index: usize) -> bool {
        let stream = &mut self.streams[index];
        let Link::Connecting { stream: socket, .. } = &stream.link else { return false };
        let outcome = match socket.take_error() {
            Ok(None) => socket.peer_addr().map(|_| ()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match outcome {
            Err(error) if error.kind() == ErrorKind::NotConnected => false,
            Err(error) => {
                self.refused(index, mono_ns(), &error);
                false
            }
            Ok(()) => {
                let link = std::mem::replace(&mut stream.link, Link::Waiting { until_ns: 0 });
                if let Link::Connecting { stream: socket, .. } = link {
                    stream.link = Link::Open(Connection::new(socket, self.course.job.pipeline));
                }
                stream.room_since_ns = mono_ns();
                true
            }
        }
    }

    fn refused(&mut self, index: usize, now_ns: u64, error: &io::Error) {
        let counter = &mut self.course.counters[self.streams[index].target];
        counter.broken(|| format!("no connection: {error}"));
        self.pause(index, now_ns);
    }

    /// Drops the connection: what was in flight on it is lost. It is opened again after a pause.
    fn pause(&mut self, index: usize, now_ns: u64) {
        let stream = &mut self.streams[index];
        if let Link::Open(connection) = &stream.link {
            let counter = &mut self.course.counters[stream.target];
            connection.flying().iter().for_each(|flight| counter.lost(flight));
        }
        let pause_ns = (PAUSE_NS << stream.failures.min(8)).min(PAUSE_NS_MAX);
        stream.failures = stream.failures.saturating_add(1);
        stream.link = Link::Waiting { until_ns: now_ns.saturating_add(pause_ns) };
        // A new connection may meet another node: only on one connection must a sequence not go back.
        stream.sequences.fill(0);
    }

    fn broke(&mut self, index: usize, why: &Broken) {
        self.course.counters[self.streams[index].target].broken(|| why.to_string());
        self.pause(index, mono_ns());
    }

    /// Takes what has come on an open connection; whether there may be room now.
    fn read(&mut self, index: usize, ends: bool) -> bool {
        let Self { course, streams, splitter, reader, buffer, .. } = self;
        let Stream { link, target, room_since_ns, sequences, failures, .. } = &mut streams[index];
        let Link::Open(connection) = link else { return false };
        let was_full = connection.room() == 0;
        let (counter, assets) = (&mut course.counters[*target], &course.job.assets);
        let mut came_ns = None;
        let outcome = connection.read(buffer, splitter, ends, |answer, flight| {
            let now_ns = *came_ns.get_or_insert_with(mono_ns);
            let asked = flight.asked as usize;
            let verdict = judge(reader, answer, asked, &mut sequences[asked]);
            counter.answered(&flight, now_ns, answer.length, verdict, &assets[asked]);
        });
        if let Some(now_ns) = came_ns {
            *failures = 0;
            if was_full {
                *room_since_ns = now_ns;
            }
        }
        if connection.is_over() {
            self.reopen(index);
            return false;
        }
        if let Err(why) = outcome {
            self.broke(index, &why);
            return false;
        }
        came_ns.is_some()
    }

    /// Opens a connection again that the server ended as it said it would, owing nothing.
    fn reopen(&mut self, index: usize) {
        let now_ns = mono_ns();
        let stream = &mut self.streams[index];
        stream.link = Link::Waiting { until_ns: now_ns };
        // As after a pause.
        stream.sequences.fill(0);
        if let Err(error) = self.connect(index, now_ns) {
            self.refused(index, now_ns, &error);
        }
    }
}

/// Whether it is this process that has no more to give, not the target that refuses.
fn is_ours(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE | nix::libc::ENOMEM))
}

/// What an HTTP answer is worth.
#[inline]
fn judge(reader: &mut PriceReader, answer: &Answer<'_>, asked: usize, sequence: &mut u64) -> Verdict {
    match answer.verdict {
        framing::Verdict::Good => match reader.read(answer.body, asked) {
            Ok(price) => {
                let before = *sequence;
                *sequence = before.max(price.sequence);
                Verdict::Price { price, before }
            }
            Err(wrong) => Verdict::Wrong(wrong),
        },
        framing::Verdict::Refused => Verdict::Refused(Wrong::Status(answer.status, reader.excerpt(answer.body))),
        framing::Verdict::Failed => Verdict::Wrong(Wrong::Status(answer.status, reader.excerpt(answer.body))),
    }
}

impl<'a> Lane<'a> for Streams<'a> {
    fn course(&mut self) -> &mut Course<'a> {
        &mut self.course
    }

    fn len(&self) -> usize {
        self.streams.len()
    }

    fn happened(&mut self, index: usize, event: &Event) -> bool {
        match &mut self.streams[index].link {
            Link::Waiting { .. } => false,
            Link::Connecting { .. } => self.connected(index),
            Link::Open(connection) => {
                if let Err(why) = connection.flush() {
                    self.broke(index, &why);
                    return false;
                }
                let is_readable = event.is_readable() || event.is_read_closed() || event.is_error();
                is_readable && self.read(index, event.is_read_closed())
            }
        }
    }

    fn send(&mut self, index: usize, now_ns: u64) {
        let Self { course, streams, requests, .. } = self;
        let Stream { link, target, number, next, room_since_ns, .. } = &mut streams[index];
        let Link::Open(connection) = link else { return };
        // A closed loop refills when the last batch is answered, as a client that pipelines does.
        if course.job.pace == Pace::Closed && !connection.flying().is_empty() {
            return;
        }
        *next = course.worth_sending(*number, *next, now_ns);
        for _ in 0..connection.room() {
            let Some(due_ns) = course.due(*number, *next, now_ns) else { break };
            let asked = course.asset_of(*number, *next);
            let flight = Flight { asked: u32::try_from(asked).unwrap_or(0), due_ns, sent_ns: now_ns };
            connection.queue(&requests[*target][asked], flight);
            course.sent(*target, due_ns, *room_since_ns, now_ns);
            *next += 1;
        }
        if let Err(why) = connection.flush() {
            self.broke(index, &why);
        }
    }

    fn sweep(&mut self, now_ns: u64) {
        for index in 0..self.streams.len() {
            let Stream { link, target, .. } = &self.streams[index];
            match link {
                Link::Waiting { until_ns } if *until_ns <= now_ns => {
                    if let Err(error) = self.connect(index, now_ns) {
                        self.refused(index, now_ns, &error);
                    }
                }
                Link::Connecting { since_ns, .. } if now_ns.saturating_sub(*since_ns) > CONNECT_NS_MAX => {
                    self.refused(index, now_ns, &ErrorKind::TimedOut.into());
                }
                Link::Open(connection) => {
                    let oldest = connection.flying().front();
                    if oldest.is_some_and(|flight| now_ns.saturating_sub(flight.sent_ns) > self.course.window.lost_ns) {
                        let lost_ms = self.course.window.lost_ns / 1_000_000;
                        let line = || format!("no answer within {lost_ms} ms: the connection was given up");
                        self.course.counters[*target].fault(line);
                        self.pause(index, now_ns);
                    }
                }
                Link::Waiting { .. } | Link::Connecting { .. } => {}
            }
        }
    }

    fn finish(mut self, left_out_from_ns: u64) -> Course<'a> {
        self.course.count_unsent(self.streams.iter().map(|stream| (stream.target, stream.number)));
        for stream in &self.streams {
            let Link::Open(connection) = &stream.link else { continue };
            let counter = &mut self.course.counters[stream.target];
            connection.flying().iter().for_each(|flight| counter.unanswered(flight, left_out_from_ns));
        }
        self.course
    }
}
