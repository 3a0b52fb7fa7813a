//! The floor on epoll: level-triggered, one read and one write per connection and turn.

use super::datagrams::FloorDatagrams;
use super::{Account, FloorSetup, Replies};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Events of one wait, as in the engine.
const EVENTS: usize = 256;

/// Bytes of one read, as in the engine.
const READ_BYTES: usize = 64 * 1_024;

/// Event tokens of the floor's own sockets; connections use their descriptor.
const LISTENER: u64 = u64::MAX;
const DATAGRAMS: u64 = u64::MAX - 1;
const TRAINS: u64 = u64::MAX - 2;

pub fn serve(setup: FloorSetup) -> io::Result<()> {
    // SAFETY: takes a number and touches no memory of ours.
    let poll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if poll < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    let poll = unsafe { OwnedFd::from_raw_fd(poll) };
    watch(&poll, setup.listener.as_raw_fd(), LISTENER)?;
    watch(&poll, setup.datagrams.as_raw_fd(), DATAGRAMS)?;
    watch(&poll, setup.trains.as_raw_fd(), TRAINS)?;
    let replies = Replies::new(&setup.reply);
    let mut datagrams = FloorDatagrams::new(&setup.datagrams, false)?;
    let mut trains = FloorDatagrams::new(&setup.trains, true)?;
    let mut buffer = vec![0; READ_BYTES];
    // Indexed by descriptor: the kernel gives out the lowest free one, so this stays small.
    let mut connections: Vec<Option<(TcpStream, Account)>> = Vec::new();
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    loop {
        // SAFETY: `events` is live and has `EVENTS` entries.
        let count = unsafe { libc::epoll_wait(poll.as_raw_fd(), events.as_mut_ptr(), EVENTS as libc::c_int, -1) };
        for event in &events[..usize::try_from(count).unwrap_or(0)] {
            match event.u64 {
                LISTENER => {
                    while let Ok((stream, _)) = setup.listener.accept() {
                        stream.set_nonblocking(true)?;
                        let fd = stream.as_raw_fd();
                        watch(&poll, fd, fd as u64)?;
                        let index = usize::try_from(fd).unwrap_or(0);
                        connections.resize_with(connections.len().max(index + 1), || None);
                        connections[index] = Some((stream, Account::default()));
                    }
                }
                DATAGRAMS => drop(datagrams.serve(setup.datagrams.as_fd())?),
                TRAINS => drop(trains.serve(setup.trains.as_fd())?),
                fd => {
                    let place = &mut connections[usize::try_from(fd).unwrap_or(0)];
                    let Some((stream, account)) = place else { continue };
                    if !turn(stream, account, &mut buffer, setup.request_bytes, &replies) {
                        *place = None;
                    }
                }
            }
        }
    }
}

/// One read and one write; whether the connection lives on. A reply that does not fit the socket ends it: the loads
/// here read what they ask for.
fn turn(stream: &mut TcpStream, account: &mut Account, buffer: &mut [u8], request: usize, replies: &Replies) -> bool {
    match stream.read(buffer) {
        Ok(0) => return false,
        Ok(bytes) => account.receive(bytes, request),
        Err(error) => return error.kind() == ErrorKind::WouldBlock,
    }
    while account.owed > 0 {
        let bytes = replies.take(account.owed);
        if !stream.write(bytes).is_ok_and(|written| written == bytes.len()) {
            return false;
        }
        account.owed -= bytes.len() / replies.one;
    }
    true
}

fn watch(poll: &OwnedFd, fd: RawFd, token: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
    // SAFETY: `event` is live; the kernel copies it.
    let result = unsafe { libc::epoll_ctl(poll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
