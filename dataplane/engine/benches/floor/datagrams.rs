//! Datagrams of the floor: `recvmmsg`, the same 64 bytes to everyone, `sendmmsg`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

/// Datagrams of one system call, as in the engines.
const BATCH: usize = 64;

/// Bytes of a receive slot, as in the engines.
const SLOT: usize = 513;

/// The reply to everything.
static REPLY: [u8; 64] = [0; 64];

/// Buffers and headers of one batch. The vectors are never resized, so what the headers point at stays.
pub struct FloorDatagrams {
    _input: Vec<[u8; SLOT]>,
    _peers: Vec<libc::sockaddr_storage>,
    _vectors: Vec<libc::iovec>,
    _reply: Box<libc::iovec>,
    received: Vec<libc::mmsghdr>,
    replies: Vec<libc::mmsghdr>,
}

impl FloorDatagrams {
    pub fn new() -> Self {
        // SAFETY: these are plain C structures of integers and pointers, for which zero is a value.
        let (peer, header) = unsafe { std::mem::zeroed::<(libc::sockaddr_storage, libc::mmsghdr)>() };
        let mut input = vec![[0; SLOT]; BATCH];
        let mut peers = vec![peer; BATCH];
        let slots = input.iter_mut().map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT });
        let mut vectors: Vec<libc::iovec> = slots.collect();
        let mut reply = Box::new(libc::iovec { iov_base: REPLY.as_ptr().cast_mut().cast(), iov_len: REPLY.len() });
        let (mut received, mut replies) = (vec![header; BATCH], vec![header; BATCH]);
        for slot in 0..BATCH {
            let name = (&raw mut peers[slot]).cast();
            received[slot].msg_hdr.msg_name = name;
            received[slot].msg_hdr.msg_iov = &raw mut vectors[slot];
            received[slot].msg_hdr.msg_iovlen = 1;
            replies[slot].msg_hdr.msg_name = name;
            replies[slot].msg_hdr.msg_iov = &raw mut *reply;
            replies[slot].msg_hdr.msg_iovlen = 1;
        }
        Self { _input: input, _peers: peers, _vectors: vectors, _reply: reply, received, replies }
    }

    /// Answers one batch; whether more may be waiting.
    pub fn serve(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        for header in &mut self.received {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        }
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: the headers and all they point at live in `self` for the whole call.
        let received =
            unsafe { libc::recvmmsg(fd, self.received.as_mut_ptr(), BATCH as libc::c_uint, flags, null_mut()) };
        let Ok(count) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) };
        };
        for slot in 0..count {
            self.replies[slot].msg_hdr.msg_namelen = self.received[slot].msg_hdr.msg_namelen;
        }
        // SAFETY: as above; `count` is at most the batch. What the kernel does not take is lost, as on a network.
        unsafe { libc::sendmmsg(fd, self.replies.as_mut_ptr(), count as libc::c_uint, flags) };
        Ok(count == BATCH)
    }
}
