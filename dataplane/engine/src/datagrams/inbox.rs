//! What one `recvmmsg` brought: messages of one datagram each, or of a train of them.
//!
//! A sender that uses `UDP_SEGMENT`, or a card that merges what belongs together, makes one message of many datagrams of
//! one length, and the kernel hands it out whole because the socket asked for that (`UDP_GRO`). It costs hardly more
//! than a single one. This file knows how messages arrive and where; nothing of what they say.

use super::control::{Beside, CONTROL_BYTES, CONTROL_WORDS, Control, Origin};
use super::peer::{Addresses, PEER_BYTES, Peer};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

/// Messages taken by one system call at most. At 64 the call itself is under 2 % of the work for single datagrams; more
/// only adds waiting for the first of the batch, about 30 µs as it is.
pub(super) const MESSAGES_MAX: usize = 64;

/// Bytes of one slot: the longest message there is (65,507 bytes over IPv4, 65,527 over IPv6) and one cache line, lest all
/// slots begin in the same few lines of the cache. 64 × 65,600 bytes = 4 MiB a shard; of a slot only those pages are
/// resident that a message has ever reached, which is one while all datagrams come alone or in trains of 64 prices.
const SLOT_BYTES: usize = 65_536 + 64;

/// Receive slots and the headers that point at them. No vector is ever resized, so what is pointed at stays.
pub(super) struct Inbox {
    slots: Vec<u8>,
    peers: Vec<Peer>,
    controls: Vec<Control>,
    origins: Vec<Origin>,
    headers: Vec<libc::mmsghdr>,
    /// Only pointed at.
    _vectors: Vec<libc::iovec>,
}

/// One message: where it stands, and how it is made up.
#[derive(Clone, Copy)]
pub(super) struct Message {
    pub(super) slot: usize,
    /// Bytes of all its datagrams.
    length: usize,
    /// Bytes of each of them but the last, which may be shorter; 0 when it is a single one.
    cut: usize,
}

impl Inbox {
    /// Allocates the slots and links their headers.
    pub(super) fn new() -> Self {
        let mut slots = vec![0; MESSAGES_MAX * SLOT_BYTES];
        let mut peers = vec![Peer::NOBODY; MESSAGES_MAX];
        let mut controls = vec![[0; CONTROL_WORDS]; MESSAGES_MAX];
        let mut vectors: Vec<libc::iovec> = slots
            .chunks_exact_mut(SLOT_BYTES)
            .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() })
            .collect();
        let headers = (0..MESSAGES_MAX).map(|slot| {
            // SAFETY: plain integers and pointers, for which zero is a value.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = (&raw mut peers[slot]).cast();
            header.msg_hdr.msg_namelen = PEER_BYTES;
            header.msg_hdr.msg_iov = &raw mut vectors[slot];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = (&raw mut controls[slot]).cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES;
            header
        });
        let headers = headers.collect();
        let origins = vec![Origin::ANY; MESSAGES_MAX];
        Self { slots, peers, controls, origins, headers, _vectors: vectors }
    }

    /// One `recvmmsg` for up to `count` messages; how many there were, 0 when nothing waits.
    ///
    /// # Errors
    /// The socket is none, or the headers are wrong: a bug.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        let count = count.min(MESSAGES_MAX);
        loop {
            // SAFETY: `count` headers are there, and they and all they point at live in `self`, which nothing else
            // accesses during the call; lengths were set to the true sizes. A null time-out is allowed and unused.
            let result = unsafe {
                let (headers, count) = (self.headers.as_mut_ptr(), count as libc::c_uint);
                libc::recvmmsg(socket.as_raw_fd(), headers, count, libc::MSG_DONTWAIT, null_mut())
            };
            if let Ok(received) = usize::try_from(result) {
                return Ok(received.min(count));
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // An ICMP message about an earlier reply: a peer that is gone is not our fault.
                Some(libc::EINTR | libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH) => {}
                Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL) => return Err(error),
                // Nothing there, or no memory just now.
                _ => return Ok(0),
            }
        }
    }

    /// The message in `slot`, which is below what was received; once. Makes the slot's header ready for the next.
    #[inline]
    pub(super) fn take(&mut self, slot: usize) -> Message {
        let header = &mut self.headers[slot];
        let length = (header.msg_len as usize).min(SLOT_BYTES);
        // The kernel has put true lengths here and wants the room's the next time.
        header.msg_hdr.msg_namelen = PEER_BYTES;
        let cut = match std::mem::replace(&mut header.msg_hdr.msg_controllen, CONTROL_BYTES) {
            // A socket that does not tell which address was asked never does: the origin stays what it was at first.
            0 => 0,
            bytes => {
                let beside = Beside::read(&self.controls[slot], bytes);
                self.origins[slot] = beside.origin;
                beside.cut
            }
        };
        Message { slot, length, cut }
    }

    /// The datagrams of a message, in the order in which they were sent: at least one, which may be empty.
    #[inline]
    pub(super) fn datagrams(&self, message: Message) -> impl Iterator<Item = &[u8]> {
        let start = message.slot * SLOT_BYTES;
        let all = &self.slots[start..start + message.length];
        let cut = if message.cut == 0 { message.length.max(1) } else { message.cut };
        let (first, rest) = all.split_at(cut.min(message.length));
        std::iter::once(first).chain(rest.chunks(cut))
    }
}

impl Addresses for Inbox {
    /// Who sent what is in this slot. It stays until the next receive.
    #[inline]
    fn peer(&self, place: usize) -> &Peer {
        &self.peers[place]
    }

    /// Where replies to it leave from.
    #[inline]
    fn origin(&self, place: usize) -> &Origin {
        &self.origins[place]
    }
}
