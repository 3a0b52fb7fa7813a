//! The floor under every server of this kind: it moves bytes by the same recipe as the engines and does nothing else.
//!
//! It parses nothing. A request is so many bytes, a reply is always the same bytes, a datagram gets 64 zeros back. What the
//! real servers cost more than this is what the project adds; what this costs is the kernel's.

pub mod datagrams;
pub mod epoll;
pub mod uring;

use dataplane_engine::Engine;
use std::io;
use std::net::{TcpListener, UdpSocket};

/// Replies in one send at most; deeper pipelining than the loads here use.
const REPLIES_MAX: usize = 64;

/// What the floor is told.
pub struct FloorSetup {
    /// Takes connections.
    pub listener: TcpListener,
    /// Takes datagrams one by one.
    pub datagrams: UdpSocket,
    /// Takes them in trains.
    pub trains: UdpSocket,
    /// Bytes of every request.
    pub request_bytes: usize,
    /// The reply to each.
    pub reply: Vec<u8>,
}

/// Serves on the calling thread until the process ends. The rivals' runtimes stand on io_uring's floor.
pub fn serve(engine: Engine, setup: FloorSetup) -> io::Result<()> {
    match engine {
        Engine::Epoll => epoll::serve(setup),
        _ => uring::serve(setup),
    }
}

/// The one reply, as often as one send may hold it.
struct Replies {
    bytes: Vec<u8>,
    one: usize,
}

impl Replies {
    fn new(reply: &[u8]) -> Self {
        Self { bytes: reply.repeat(REPLIES_MAX), one: reply.len() }
    }

    /// `count` replies, or as many as one send may hold.
    fn take(&self, count: usize) -> &[u8] {
        &self.bytes[..self.one * count.min(REPLIES_MAX)]
    }
}

/// What one connection sent and is owed.
#[derive(Clone, Copy, Default)]
struct Account {
    /// Bytes of a request that is not whole yet.
    begun: usize,
    /// Replies not yet given to the kernel.
    owed: usize,
}

impl Account {
    fn receive(&mut self, bytes: usize, request_bytes: usize) {
        let all = self.begun + bytes;
        self.owed += all / request_bytes;
        self.begun = all % request_bytes;
    }
}
