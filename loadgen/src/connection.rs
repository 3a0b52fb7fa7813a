//! One TCP connection of a client: requests go out in order, answers come back in that order.
//!
//! It makes one system call for what is written and one for what is read. It has answers cut apart but does not know
//! what they should say, and reads no clock: each request carries the time that its owner gave it.

use crate::framing::{Answer, Garbled, Splitter};
use mio::net::TcpStream;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use thiserror::Error;

/// Most requests in flight on one connection: twice the pipelining depth that the price service promises.
pub const PIPELINE_MAX: usize = 64;
/// Bytes read at once: 64 pipelined answers of about 450 bytes.
pub(crate) const READ_SIZE: usize = 32 * 1_024;

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flight {
    /// What was asked: a position in the owner's list.
    pub(crate) asked: u32,
    /// The time it was meant for: its latency counts from then.
    pub(crate) due_ns: u64,
    /// When it was sent: it is lost when its answer takes too long from then.
    pub(crate) sent_ns: u64,
}

/// Why a connection is of no more use.
#[derive(Debug, Error)]
pub(crate) enum Broken {
    #[error("the server closed a connection")]
    Closed,
    #[error("a connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Garbled(#[from] Garbled),
    #[error("an answer that nobody asked for")]
    Unasked,
}

/// A connection, what it has in flight, and what it read of an unfinished answer.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    pipeline: usize,
    /// The server said that it answers no more requests on it.
    is_closing: bool,
    flying: VecDeque<Flight>,
    /// Begins with an answer that is not whole; empty most of the time.
    unread: Vec<u8>,
    /// What the socket has not taken, from `written` on.
    unsent: Vec<u8>,
    written: usize,
}

impl Connection {
    /// A connection of at most `pipeline` requests in flight over a stream that is connected and does not block.
    pub(crate) fn new(stream: TcpStream, pipeline: usize) -> Self {
        let pipeline = pipeline.clamp(1, PIPELINE_MAX);
        let flying = VecDeque::with_capacity(pipeline);
        Self { stream, pipeline, is_closing: false, flying, unread: Vec::new(), unsent: Vec::new(), written: 0 }
    }

    /// How many more requests may be in flight.
    pub(crate) fn room(&self) -> usize {
        if self.is_closing { 0 } else { self.pipeline - self.flying.len().min(self.pipeline) }
    }

    /// Whether the server said that it answers no more, and owes nothing: the orderly end of a connection.
    pub(crate) fn is_over(&self) -> bool {
        self.is_closing && self.flying.is_empty()
    }

    /// What is in flight, the oldest first.
    pub(crate) fn flying(&self) -> &VecDeque<Flight> {
        &self.flying
    }

    /// Adds a request to what the next [`Self::flush`] sends. The caller keeps to [`Self::room`].
    pub(crate) fn queue(&mut self, request: &[u8], flight: Flight) {
        self.unsent.extend_from_slice(request);
        self.flying.push_back(flight);
    }

    /// Sends what is queued, with one system call; what the socket does not take waits for it to be writable.
    pub(crate) fn flush(&mut self) -> Result<(), Broken> {
        if self.written == self.unsent.len() {
            return Ok(());
        }
        match self.stream.write(&self.unsent[self.written..]) {
            Ok(written) => self.written += written,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        if self.written == self.unsent.len() {
            self.unsent.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// Takes every whole answer that has come; how many bytes have. A short read means that the socket is empty: the
    /// next byte is a new event. The end of the stream is not, where it came with the last bytes: so if the event says that
    /// the stream `ends`, it is read to its end.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        splitter: &mut Splitter,
        ends: bool,
        mut take: impl FnMut(&Answer<'_>, Flight),
    ) -> Result<usize, Broken> {
        let mut total = 0;
        loop {
            let length = match self.stream.read(buffer) {
                Ok(0) => return Err(Broken::Closed),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(total),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            total += length;
            if self.unread.is_empty() {
                let taken = split(splitter, &mut self.flying, &buffer[..length], &mut take)?;
                self.unread.extend_from_slice(&buffer[taken..length]);
            } else {
                self.unread.extend_from_slice(&buffer[..length]);
                let taken = split(splitter, &mut self.flying, &self.unread, &mut take)?;
                self.unread.drain(..taken);
            }
            self.is_closing |= splitter.closed();
            if length < buffer.len() && !ends {
                return Ok(total);
            }
        }
    }
}

/// Takes every whole answer in `bytes`; how many bytes that were.
fn split(
    splitter: &mut Splitter,
    flying: &mut VecDeque<Flight>,
    bytes: &[u8],
    take: &mut impl FnMut(&Answer<'_>, Flight),
) -> Result<usize, Broken> {
    let mut taken = 0;
    while taken < bytes.len() {
        let Some(answer) = splitter.split(&bytes[taken..])? else { break };
        let flight = flying.pop_front().ok_or(Broken::Unasked)?;
        take(&answer, flight);
        taken += answer.length;
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Framing;
    use std::net::TcpListener;

    /// What comes of an answer and the stream's end that are there at once.
    #[track_caller]
    fn check(ends: bool, head: &str, (is_closed, is_over): (bool, bool)) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let stream = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        let (mut server, _) = listener.accept().expect("the connection");
        write!(server, "HTTP/1.1 200 OK\r\n{head}Content-Length: 2\r\n\r\nok").expect("sent");
        drop(server);
        // It is all there: nothing else was sent, and this waits for the first byte.
        stream.peek(&mut [0]).expect("an answer");
        stream.set_nonblocking(true).expect("set");
        let mut connection = Connection::new(TcpStream::from_std(stream), 1);
        connection.queue(b"", Flight { asked: 0, due_ns: 0, sent_ns: 0 });
        let (mut answers, mut splitter) = (0, Splitter::new(Framing::Http));
        let outcome = connection.read(&mut [0; 1_024], &mut splitter, ends, |_, _| answers += 1);
        assert_eq!((answers, matches!(outcome, Err(Broken::Closed))), (1, is_closed), "{head}");
        assert_eq!((connection.is_over(), connection.room()), (is_over, usize::from(!is_over)), "{head}");
    }

    #[test]
    fn an_end_that_comes_with_an_answer_is_read_after_it() {
        check(true, "", (true, false));
        check(false, "", (false, false));
        check(false, "Connection: close\r\n", (false, true));
        check(true, "connection: Keep-Alive, Close\r\n", (true, true));
        check(true, "X-Connection: close\r\nConnection: closer\r\n", (true, false));
    }
}
