//! The system calls by which datagrams leave and arrive: one by one, in batches, or as trains.
//!
//! A train is many datagrams of one length that go down to the kernel as one (`UDP_SEGMENT`) and come up as one
//! (`UDP_GRO`). Where the kernel or the network card refuses that, batches of `sendmmsg` and `recvmmsg` take its place and
//! [`Exchange::refusal`] says so. Nothing here knows what a datagram says, when it is due, or who asked.

use mio::net::UdpSocket;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{UdpGroSegment, UdpGsoSegment};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, recvmsg, sendmmsg, setsockopt,
};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::iter;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

/// Datagrams of one system call: what the kernel takes as one train on every version that knows trains.
pub(crate) const BATCH: usize = 64;
/// Room for one datagram of a batch. What the service sends is at most 1,200 bytes; a longer one is cut and so is wrong.
const SLOT: usize = 1_536;
/// Room for a received train: the most that IP lets one be.
const TRAIN_BYTES_MAX: usize = 65_535;

/// Datagrams waiting to leave by one socket, at most [`BATCH`].
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Outbox {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub(crate) fn push(&mut self, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.ends.push(self.bytes.len());
    }

    /// One datagram of several parts.
    pub(crate) fn push_parts(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The datagrams, each by itself.
    fn each(&self) -> impl Iterator<Item = &[u8]> {
        let begins = iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.bytes[begin..*end])
    }
}

/// Buffers of one system call, used for every socket of a thread in turn.
pub(crate) struct Exchange {
    inbox: Vec<u8>,
    send_headers: MultiHeaders<SockaddrStorage>,
    receive_headers: MultiHeaders<SockaddrStorage>,
    control: Vec<u8>,
    /// Bytes of each datagram of a train; 0: no trains.
    segment: u16,
    /// Whether a socket may still be set to a segment: so when trains were given up on the way.
    segmented: bool,
    refusal: Option<String>,
}

impl Exchange {
    /// For datagrams of `segment` bytes sent as trains; 0: no trains.
    pub(crate) fn new(segment: u16) -> Self {
        Self {
            inbox: vec![0; TRAIN_BYTES_MAX.max(BATCH * SLOT)],
            send_headers: MultiHeaders::preallocate(BATCH, None),
            receive_headers: MultiHeaders::preallocate(BATCH, None),
            control: nix::cmsg_space!(i32),
            segment,
            segmented: segment > 0,
            refusal: None,
        }
    }

    /// Why there are no trains although they were wanted.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// A socket that talks to `target` only, ready for this exchange.
    pub(crate) fn open(&mut self, target: SocketAddr) -> io::Result<UdpSocket> {
        let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        if self.segment > 0 {
            let set = setsockopt(&socket, UdpGsoSegment, &i32::from(self.segment));
            if let Err(errno) = set.and_then(|()| setsockopt(&socket, UdpGroSegment, &true)) {
                self.give_up_trains(&socket, errno);
            }
        }
        Ok(socket)
    }

    fn give_up_trains(&mut self, socket: &UdpSocket, errno: Errno) {
        // A socket that knows no segments needs no unsetting: its refusal changes nothing.
        let _ = setsockopt(socket, UdpGsoSegment, &0);
        let _ = setsockopt(socket, UdpGroSegment, &false);
        if self.segment > 0 {
            let why = format!("this kernel refuses datagram trains ({errno}): sent one by one with sendmmsg instead");
            self.refusal = Some(why);
        }
        self.segment = 0;
    }

    /// Sends what is in `outbox`, at most [`BATCH`]; how many datagrams the kernel took.
    ///
    /// # Errors
    /// `WouldBlock` when the kernel takes none now; `ConnectionRefused` when it was told that nobody listens there.
    pub(crate) fn send(&mut self, socket: &UdpSocket, outbox: &Outbox) -> io::Result<usize> {
        match self.try_send(socket, outbox) {
            // Invalid, or a card without checksums: what a kernel says to a train it cannot send.
            Err(Errno::EINVAL | Errno::EIO) if self.segmented => {
                self.give_up_trains(socket, Errno::EIO);
                self.try_send(socket, outbox).map_err(io::Error::from)
            }
            outcome => outcome.map_err(io::Error::from),
        }
    }

    fn try_send(&mut self, socket: &UdpSocket, outbox: &Outbox) -> nix::Result<usize> {
        if outbox.len() == 1 || self.segment > 0 {
            socket.send(&outbox.bytes).map_err(errno_of)?;
            return Ok(outbox.len());
        }
        let mut slices = [[IoSlice::new(&[])]; BATCH];
        for (slice, datagram) in slices.iter_mut().zip(outbox.each()) {
            *slice = [IoSlice::new(datagram)];
        }
        let count = outbox.len().min(BATCH);
        let addresses = [None::<SockaddrStorage>; BATCH];
        let fd = socket.as_raw_fd();
        let slices = &slices[..count];
        let sent = sendmmsg(fd, &mut self.send_headers, slices, &addresses[..count], [], MsgFlags::MSG_DONTWAIT)?;
        Ok(sent.count())
    }

    /// Makes one system call and hands every datagram of it to `take`. `wanted` is how many are waited for. `None`: there
    /// are none; else whether there may be more.
    ///
    /// # Errors
    /// `ConnectionRefused` when the kernel was told that nobody listens there.
    pub(crate) fn receive(
        &mut self,
        socket: &UdpSocket,
        wanted: usize,
        take: impl FnMut(&[u8]),
    ) -> io::Result<Option<bool>> {
        // Where trains were given up on the way, a socket that has sent nothing since may still be given trains.
        let outcome = if self.segmented {
            self.receive_train(socket, take)
        } else if wanted <= 1 {
            self.receive_one(socket, take)
        } else {
            self.receive_batch(socket, wanted.min(BATCH), take)
        };
        match outcome {
            Ok(more) => Ok(Some(more)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn receive_one(&mut self, socket: &UdpSocket, mut take: impl FnMut(&[u8])) -> nix::Result<bool> {
        let length = socket.recv(&mut self.inbox[..SLOT]).map_err(errno_of)?;
        take(&self.inbox[..length]);
        Ok(true)
    }

    fn receive_batch(&mut self, socket: &UdpSocket, wanted: usize, mut take: impl FnMut(&[u8])) -> nix::Result<bool> {
        let mut lengths = [0; BATCH];
        let mut count = 0;
        {
            let mut slots = self.inbox.chunks_exact_mut(SLOT);
            let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
                std::array::from_fn(|_| [IoSliceMut::new(slots.next().unwrap_or_default())]);
            let fd = socket.as_raw_fd();
            let slices = slices[..wanted].iter_mut();
            let results = recvmmsg(fd, &mut self.receive_headers, slices, MsgFlags::MSG_DONTWAIT, None)?;
            for (length, result) in lengths.iter_mut().zip(results) {
                *length = result.bytes.min(SLOT);
                count += 1;
            }
        }
        for (slot, length) in self.inbox.chunks_exact(SLOT).zip(&lengths[..count]) {
            take(&slot[..*length]);
        }
        Ok(count == wanted)
    }

    fn receive_train(&mut self, socket: &UdpSocket, mut take: impl FnMut(&[u8])) -> nix::Result<bool> {
        let (length, segment) = {
            let mut slices = [IoSliceMut::new(&mut self.inbox)];
            let (fd, control) = (socket.as_raw_fd(), Some(&mut self.control[..]));
            let message = recvmsg::<SockaddrStorage>(fd, &mut slices, control, MsgFlags::MSG_DONTWAIT)?;
            let segment = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::UdpGroSegments(segment) => usize::try_from(segment).ok(),
                _ => None,
            });
            (message.bytes, segment)
        };
        // Without the note it is a single datagram.
        for datagram in self.inbox[..length].chunks(segment.unwrap_or(length).max(1)) {
            take(datagram);
        }
        Ok(true)
    }
}

/// The kernel's number of an error of the standard library.
fn errno_of(error: io::Error) -> Errno {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number),
        None if error.kind() == ErrorKind::WouldBlock => Errno::EAGAIN,
        None => Errno::EIO,
    }
}
