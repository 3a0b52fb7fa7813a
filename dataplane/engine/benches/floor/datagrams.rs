//! Datagrams of the floor: `recvmmsg`, 64 zeros back for every 64 bytes, `sendmmsg`. One by one, or, on a socket of its
//! own, in trains: what `UDP_GRO` delivers in one piece goes back in one piece with `UDP_SEGMENT`.
//!
//! The two sockets are kept apart because a socket that takes trains pays for it on every single datagram.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::null_mut;

/// Datagrams, or trains, of one system call, as in the engines.
const BATCH: usize = 64;

/// Bytes of a receive slot for single datagrams, as in the engines.
const SLOT_SINGLE: usize = 513;

/// Bytes of every request and every reply.
const FRAME: usize = 64;

/// Longest train: as many as the kernel puts into one (`UDP_MAX_SEGMENTS` was 64 for long).
const TRAIN_MAX: usize = 64;

/// The reply to everything, as often as a train may hold it.
static REPLIES: [u8; FRAME * TRAIN_MAX] = [0; FRAME * TRAIN_MAX];

/// The control message that has a reply cut into frames.
#[repr(C, align(8))]
struct Segment {
    header: libc::cmsghdr,
    bytes: u16,
}

/// Buffers and headers of one batch. The vectors are never resized, so what the headers point at stays.
pub struct FloorDatagrams {
    /// Whether a datagram may be a train.
    trains: bool,
    _input: Vec<u8>,
    _peers: Vec<libc::sockaddr_storage>,
    _vectors: Vec<libc::iovec>,
    reply_vectors: Vec<libc::iovec>,
    segment: Box<Segment>,
    received: Vec<libc::mmsghdr>,
    replies: Vec<libc::mmsghdr>,
}

impl FloorDatagrams {
    /// Buffers for `socket`, which from now on hands out trains whole, or never.
    pub fn new(socket: &impl AsFd, trains: bool) -> io::Result<Self> {
        take_trains(socket.as_fd(), trains)?;
        // SAFETY: these are plain C structures of integers and pointers, for which zero is a value.
        let (peer, header) = unsafe { std::mem::zeroed::<(libc::sockaddr_storage, libc::mmsghdr)>() };
        let slot_bytes = if trains { FRAME * TRAIN_MAX } else { SLOT_SINGLE };
        let mut input = vec![0; slot_bytes * BATCH];
        let mut peers = vec![peer; BATCH];
        let slots = input.chunks_exact_mut(slot_bytes);
        let slots = slots.map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot_bytes });
        let mut vectors: Vec<libc::iovec> = slots.collect();
        let reply = libc::iovec { iov_base: REPLIES.as_ptr().cast_mut().cast(), iov_len: FRAME };
        let mut reply_vectors = vec![reply; BATCH];
        // SAFETY: arithmetic; it touches no memory.
        let length = unsafe { libc::CMSG_LEN(size_of::<u16>() as libc::c_uint) } as usize;
        let header_of = libc::cmsghdr { cmsg_len: length, cmsg_level: libc::SOL_UDP, cmsg_type: libc::UDP_SEGMENT };
        let segment = Box::new(Segment { header: header_of, bytes: FRAME as u16 });
        let (mut received, mut replies) = (vec![header; BATCH], vec![header; BATCH]);
        for slot in 0..BATCH {
            let name = (&raw mut peers[slot]).cast();
            received[slot].msg_hdr.msg_name = name;
            received[slot].msg_hdr.msg_iov = &raw mut vectors[slot];
            received[slot].msg_hdr.msg_iovlen = 1;
            replies[slot].msg_hdr.msg_name = name;
            replies[slot].msg_hdr.msg_iov = &raw mut reply_vectors[slot];
            replies[slot].msg_hdr.msg_iovlen = 1;
        }
        Ok(Self { trains, _input: input, _peers: peers, _vectors: vectors, reply_vectors, segment, received, replies })
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
            if self.trains {
                self.couple(slot);
            }
        }
        // SAFETY: as above; `count` is at most the batch. What the kernel does not take is lost, as on a network.
        unsafe { libc::sendmmsg(fd, self.replies.as_mut_ptr(), count as libc::c_uint, flags) };
        Ok(count == BATCH)
    }

    /// Makes the reply in `slot` as long as what was received. Every request is one frame long, so the length says how
    /// many there are, and the kernel's own word on it (a control message) is not asked for.
    fn couple(&mut self, slot: usize) {
        let frames = (self.received[slot].msg_len as usize / FRAME).clamp(1, TRAIN_MAX);
        self.reply_vectors[slot].iov_len = frames * FRAME;
        let header = &mut self.replies[slot].msg_hdr;
        if frames > 1 {
            header.msg_control = (&raw mut *self.segment).cast();
            header.msg_controllen = size_of::<Segment>();
        } else {
            header.msg_control = null_mut();
            header.msg_controllen = 0;
        }
    }
}

/// Has `socket` hand out trains whole, or one datagram at a time.
fn take_trains(socket: BorrowedFd<'_>, trains: bool) -> io::Result<()> {
    let value = libc::c_int::from(trains);
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` is live and as long as said; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, (&raw const value).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
