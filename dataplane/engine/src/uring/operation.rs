//! What the ring is asked to do: each operation's entry, and the number by which its completion is known.
//!
//! `user_data` holds the kind in its top byte and the connection's token below it, generation included: a completion
//! that arrives after its connection is gone finds nobody.

use crate::connections::TOKEN_BITS;
use dataplane_core::shard::StreamToken;
use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, Fixed, Timespec};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;

/// A connection's socket, as the ring knows it.
#[derive(Debug)]
pub(super) enum File {
    /// A slot of the ring's own table.
    Direct(u32),
    /// A descriptor of the process.
    Ordinary(OwnedFd),
}

/// What a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Nothing that anybody waits for: cancellations, closings, the nudge.
    Other = 0,
    /// A connection came, multishot.
    Accept = 1,
    /// Bytes came, multishot.
    Receive = 2,
    /// A reply left.
    Send = 3,
    /// Our side of a connection was closed.
    Shutdown = 4,
    /// A direct descriptor became an ordinary one.
    Install = 5,
    /// The datagram socket is readable, multishot.
    Datagrams = 6,
    /// Another thread wrote the eventfd, multishot.
    Wake = 7,
    /// Housekeeping is due.
    Timer = 8,
    /// A connection whose client has closed its side is broken.
    HangUp = 9,
}

const KINDS: [Kind; 10] = [
    Kind::Other,
    Kind::Accept,
    Kind::Receive,
    Kind::Send,
    Kind::Shutdown,
    Kind::Install,
    Kind::Datagrams,
    Kind::Wake,
    Kind::Timer,
    Kind::HangUp,
];

/// No connection.
const NOBODY: StreamToken = StreamToken(0);

impl Kind {
    /// The number of this operation on this connection.
    #[inline]
    pub(super) const fn of(self, token: StreamToken) -> u64 {
        (self as u64) << TOKEN_BITS | token.0
    }

    /// The number of this operation of the shard's own.
    pub(super) const fn alone(self) -> u64 {
        self.of(NOBODY)
    }

    /// What a completion with this number is about.
    #[inline]
    pub(super) fn from_number(number: u64) -> (Self, StreamToken) {
        let kind = KINDS.get((number >> TOKEN_BITS) as usize).copied().unwrap_or(Self::Other);
        (kind, StreamToken(number & ((1 << TOKEN_BITS) - 1)))
    }
}

/// Builds an entry for either kind of descriptor.
macro_rules! on_file {
    ($file:expr, $fd:ident => $entry:expr) => {
        match $file {
            File::Direct(slot) => {
                let $fd = Fixed(*slot);
                $entry
            }
            File::Ordinary(descriptor) => {
                let $fd = Fd(descriptor.as_raw_fd());
                $entry
            }
        }
    };
}

/// Accepts connections until cancelled. Sockets are in blocking mode: the ring never blocks on them, and it is what the
/// control plane wants of those it is given.
pub(super) fn accept(listener: RawFd, direct: bool) -> Entry {
    let accept = opcode::AcceptMulti::new(Fd(listener));
    let accept = if direct { accept.allocate_file_index(true) } else { accept.flags(libc::SOCK_CLOEXEC) };
    accept.build().user_data(Kind::Accept.alone())
}

/// Receives into the ring's buffers until cancelled.
pub(super) fn receive(file: &File, token: StreamToken, group: u16) -> Entry {
    on_file!(file, fd => opcode::RecvMulti::new(fd, group).build()).user_data(Kind::Receive.of(token))
}

/// Receives into one of the ring's buffers, once.
pub(super) fn receive_once(file: &File, token: StreamToken, group: u16) -> Entry {
    on_file!(file, fd => opcode::Recv::new(fd, null_mut(), 0).buf_group(group).build())
        .flags(Flags::BUFFER_SELECT)
        .user_data(Kind::Receive.of(token))
}

/// Sends what it can of `bytes`, waiting for room for at least some. The bytes must stay until it completes.
pub(super) fn send(file: &File, token: StreamToken, bytes: &[u8]) -> Entry {
    // A reply buffer is 16 KiB.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let flags = libc::MSG_NOSIGNAL;
    on_file!(file, fd => opcode::Send::new(fd, bytes.as_ptr(), length).flags(flags).build())
        .user_data(Kind::Send.of(token))
}

/// Watches for nothing but the end of a connection, of one direction or both, which is always told; until cancelled.
pub(super) fn watch_end(file: &File, token: StreamToken) -> Entry {
    on_file!(file, fd => opcode::PollAdd::new(fd, 0).multi(true).build()).user_data(Kind::HangUp.of(token))
}

/// Closes our side.
pub(super) fn shutdown(file: &File, token: StreamToken) -> Entry {
    on_file!(file, fd => opcode::Shutdown::new(fd, libc::SHUT_WR).build()).user_data(Kind::Shutdown.of(token))
}

/// Makes an ordinary descriptor of the socket in `slot`, which stays.
pub(super) fn install(slot: u32, token: StreamToken) -> Entry {
    opcode::FixedFdInstall::new(Fixed(slot), 0).build().user_data(Kind::Install.of(token))
}

/// Frees a slot of the ring's table.
pub(super) fn close(slot: u32) -> Entry {
    opcode::Close::new(Fixed(slot)).build().user_data(Kind::Other.alone())
}

/// Watches a descriptor for input until cancelled.
pub(super) fn watch(descriptor: RawFd, kind: Kind) -> Entry {
    // The mask is the kernel's, a small positive number.
    let input = libc::POLLIN as u32;
    opcode::PollAdd::new(Fd(descriptor), input).multi(true).build().user_data(kind.alone())
}

/// Completes once, after `period`.
pub(super) fn timer(period: &'static Timespec) -> Entry {
    opcode::Timeout::new(period).build().user_data(Kind::Timer.alone())
}

/// Ends the operation with this number.
pub(super) fn cancel(number: u64) -> Entry {
    opcode::AsyncCancel::new(number).build().user_data(Kind::Other.alone())
}

/// Ends every operation of the ring.
pub(super) fn cancel_all() -> Entry {
    opcode::AsyncCancel2::new(CancelBuilder::any().all()).build().user_data(Kind::Other.alone())
}

/// Completes at once: a wait after it returns.
pub(super) fn nudge() -> Entry {
    opcode::Nop::new().build().user_data(Kind::Other.alone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_s_number_tells_kind_and_connection() {
        let highest = StreamToken((1 << TOKEN_BITS) - 1);
        for (index, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            for token in [NOBODY, StreamToken(1), highest] {
                assert_eq!(Kind::from_number(kind.of(token)), (kind, token));
            }
        }
        assert_eq!(Kind::from_number(u64::MAX).0, Kind::Other);
    }
}
