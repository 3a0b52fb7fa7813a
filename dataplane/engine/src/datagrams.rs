//! Datagrams in and out of one shard's socket, 64 at a time: shared by both engines.
//!
//! One `recvmmsg`, one pass through the shard, one `sendmmsg`. A batch is the unit of a loop turn, so that the price
//! ring is drained between batches and TCP is not starved by a flood. This file knows sockets and addresses; what a
//! datagram says is the shard's business, and it never waits: what the kernel will not take at once is dropped and
//! counted, as a network would.
//!
//! A reply leaves from the address that the kernel's routing chooses. On a machine with several addresses bind to the
//! one that clients ask, or they will not know the reply for theirs.

use crate::lag::LagHistogram;
use crate::wiring;
use dataplane_core::shard::{DatagramStep, ReadyList, Shard};
use shared::limits::{DATAGRAM_IN_MAX, DATAGRAM_OUT_MAX};
use shared::moment::Moment;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};

/// Datagrams taken by one system call. At 64 the call itself is under 2 % of the work; more only adds waiting for
/// the first of the batch, about 30 µs as it is.
pub(crate) const DATAGRAM_BATCH: usize = 64;

/// Bytes of one receive slot: one more than we read, so that a longer datagram shows by its length.
const SLOT_IN: usize = DATAGRAM_IN_MAX + 1;

/// Everything one batch needs, allocated once. The headers point at their neighbours in the same allocation.
struct Batch {
    input: [[u8; SLOT_IN]; DATAGRAM_BATCH],
    output: [[u8; DATAGRAM_OUT_MAX]; DATAGRAM_BATCH],
    peers: [libc::sockaddr_storage; DATAGRAM_BATCH],
    input_vectors: [libc::iovec; DATAGRAM_BATCH],
    output_vectors: [libc::iovec; DATAGRAM_BATCH],
    received: [libc::mmsghdr; DATAGRAM_BATCH],
    replies: [libc::mmsghdr; DATAGRAM_BATCH],
}

/// The buffers of one shard's datagram socket.
pub(crate) struct Datagrams {
    /// Made by `Box::into_raw`, freed in `drop`; nothing else holds it.
    batch: NonNull<Batch>,
    unsent: u64,
}

/// Length of an address slot.
const PEER_BYTES: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;

impl Datagrams {
    /// Allocates the batch (about 125 KiB) and links its headers.
    pub(crate) fn new() -> Self {
        // SAFETY: every field is integers, byte arrays and raw pointers, for all of which zero is a value.
        let zeroed = unsafe { Box::<Batch>::new_zeroed().assume_init() };
        let batch = NonNull::from(Box::leak(zeroed));
        let place = batch.as_ptr();
        for slot in 0..DATAGRAM_BATCH {
            // SAFETY: `slot` is inside every array of the live allocation at `place`. Only addresses are taken and
            // stored; no reference is made that could alias.
            unsafe {
                let input = (&raw mut (*place).input[slot]).cast();
                (*place).input_vectors[slot] = libc::iovec { iov_base: input, iov_len: SLOT_IN };
                let output = (&raw mut (*place).output[slot]).cast();
                (*place).output_vectors[slot] = libc::iovec { iov_base: output, iov_len: 0 };
                let received = &raw mut (*place).received[slot].msg_hdr;
                (*received).msg_name = (&raw mut (*place).peers[slot]).cast();
                (*received).msg_namelen = PEER_BYTES;
                (*received).msg_iov = &raw mut (*place).input_vectors[slot];
                (*received).msg_iovlen = 1;
                let reply = &raw mut (*place).replies[slot].msg_hdr;
                (*reply).msg_iov = &raw mut (*place).output_vectors[slot];
                (*reply).msg_iovlen = 1;
            }
        }
        Self { batch, unsent: 0 }
    }

    /// Replies the kernel would not take, since start.
    pub(crate) const fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Takes one batch from the socket, lets the shard answer it, sends the replies. Connections that a tick has made
    /// ready meanwhile are added to `ready`. Answers whether more datagrams may be waiting: a level-triggered watch
    /// tells by itself, any other must come back.
    ///
    /// # Errors
    /// The socket is none, or the headers are wrong: a bug. Nothing of a peer's doing.
    pub(crate) fn serve(
        &mut self,
        socket: BorrowedFd<'_>,
        shard: &mut Shard,
        feed_lag: &mut LagHistogram,
        ready: &mut ReadyList,
        now: Moment,
    ) -> io::Result<bool> {
        let received = self.receive(socket)?;
        let mut replies = 0;
        for slot in 0..received {
            // A tick that came during the batch shows in the answers after it.
            if !shard.feed_is_empty() {
                wiring::drain(shard, feed_lag, now, ready);
            }
            replies += usize::from(self.answer(slot, replies, shard, now));
        }
        self.send(socket, replies);
        Ok(received == DATAGRAM_BATCH)
    }

    /// One `recvmmsg`; 0 when nothing waits.
    fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        loop {
            // SAFETY: the headers and all they point at live in the batch, which nothing else accesses during the
            // call; lengths were set to the true sizes. A null time-out is allowed and unused.
            let result = unsafe {
                let headers = (&raw mut (*self.batch.as_ptr()).received).cast();
                let count = DATAGRAM_BATCH as libc::c_uint;
                libc::recvmmsg(socket.as_raw_fd(), headers, count, libc::MSG_DONTWAIT, null_mut())
            };
            if let Ok(count) = usize::try_from(result) {
                return Ok(count.min(DATAGRAM_BATCH));
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

    /// Lets the shard answer the datagram in `slot`, into reply `reply`; whether there is a reply.
    #[inline]
    fn answer(&mut self, slot: usize, reply: usize, shard: &mut Shard, now: Moment) -> bool {
        // SAFETY: we own the batch alone, and the kernel is done with it until the next call. From here on it is
        // touched through this one reference only; its raw pointers are copied, never followed.
        let batch = unsafe { self.batch.as_mut() };
        let header = &mut batch.received[slot];
        let length = usize::try_from(header.msg_len).unwrap_or(SLOT_IN).min(SLOT_IN);
        let peer_length = header.msg_hdr.msg_namelen;
        // The kernel has put the address's true length here and wants the slot's the next time.
        header.msg_hdr.msg_namelen = PEER_BYTES;
        let Some(from) = address(&batch.peers[slot]) else { return false };
        match shard.serve_datagram(now, from, &batch.input[slot][..length], &mut batch.output[reply]) {
            DatagramStep::Silent => false,
            DatagramStep::Reply(bytes) => {
                let to = &mut batch.replies[reply].msg_hdr;
                to.msg_name = header.msg_hdr.msg_name;
                to.msg_namelen = peer_length;
                batch.output_vectors[reply].iov_len = bytes.min(DATAGRAM_OUT_MAX);
                true
            }
        }
    }

    /// Sends the first `count` replies. A reply the kernel refuses is passed over; when it has no room, the rest goes.
    fn send(&mut self, socket: BorrowedFd<'_>, count: usize) {
        let mut sent = 0;
        while sent < count {
            // SAFETY: `sent` < `count` ≤ the batch, so the headers are inside it; all they point at lives there too,
            // and nothing else accesses it during the call.
            let result = unsafe {
                let headers = (&raw mut (*self.batch.as_ptr()).replies).cast::<libc::mmsghdr>().add(sent);
                let left = (count - sent) as libc::c_uint;
                libc::sendmmsg(socket.as_raw_fd(), headers, left, libc::MSG_DONTWAIT)
            };
            if let Ok(taken) = usize::try_from(result) {
                sent += taken;
                continue;
            }
            match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    self.unsent += (count - sent) as u64;
                    return;
                }
                // The error is the first message's alone: no route to that peer, or a packet filter.
                _ => {
                    self.unsent += 1;
                    sent += 1;
                }
            }
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        // SAFETY: made by leaking a box in `new`, freed only here.
        drop(unsafe { Box::from_raw(self.batch.as_ptr()) });
    }
}

/// The peer's address; an IPv4 peer of a dual-stack socket is shown as IPv4. `None` for a family that is not IP.
#[inline]
fn address(peer: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(peer.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a `sockaddr_in` here; the storage is larger and aligned
            // for every address type.
            let peer = unsafe { &*(&raw const *peer).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(peer.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(peer.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, a `sockaddr_in6`.
            let peer = unsafe { &*(&raw const *peer).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(peer.sin6_addr.s6_addr);
            let port = u16::from_be(peer.sin6_port);
            Some(match IpAddr::V6(ip).to_canonical() {
                IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, port)),
                IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, peer.sin6_flowinfo, peer.sin6_scope_id)),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane_core::access::{KeyDirectory, hash_text};
    use dataplane_core::command::ShardParameters;
    use dataplane_core::shard::ShardSetup;
    use shared::asset::AssetDirectory;
    use shared::key::{KeyId, KeyRecord, Permissions};
    use socket2::SockAddr;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::time::Duration;

    /// A shard that knows one key and no asset.
    fn shard() -> Shard {
        let key = KeyRecord {
            id: KeyId(1),
            hash: hash_text(b"key"),
            limit_per_second: 1_000_000,
            expires_at_ms: 0,
            permissions: Permissions(Permissions::PRICES),
            udp_secret: [0; 16],
            month_used_up: false,
        };
        Shard::new(ShardSetup {
            index: 0,
            shards: 1,
            assets: Arc::new(AssetDirectory::new()),
            keys: Arc::new(KeyDirectory::build(vec![key], None, 1)),
            parameters: ShardParameters::default(),
            ticks: rtrb::RingBuffer::new(64).1,
            usage: rtrb::RingBuffer::new(64).0,
            hash_seed: 1,
        })
    }

    /// A serving socket and a client of it, over these two addresses.
    fn sockets(server: &str, client: &str) -> (UdpSocket, UdpSocket) {
        let server = tuning::sockets::udp_socket(server.parse().expect("an address")).expect("a socket");
        let client = UdpSocket::bind(client).expect("a socket");
        let port = server.local_addr().expect("bound").port();
        client.connect((client.local_addr().expect("bound").ip(), port)).expect("connected");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        (server, client)
    }

    /// Serves until nothing is left; the number of batches.
    fn serve_all(server: &UdpSocket, shard: &mut Shard, datagrams: &mut Datagrams) -> usize {
        let (mut ready, now) = (ReadyList::default(), tuning::clock::now());
        let mut feed_lag = LagHistogram::default();
        let mut serve =
            || datagrams.serve(server.as_fd(), shard, &mut feed_lag, &mut ready, now).expect("a good socket");
        (1..).find(|_| !serve()).expect("an end")
    }

    /// A request for an asset that is not there, padded so that the refusal may be told.
    fn request(id: u32) -> Vec<u8> {
        format!("{{\"key\":\"key\",\"asset\":\"NONE\",\"id\":{id},\"pad\":\"{}\"}}", "x".repeat(40)).into_bytes()
    }

    fn reply(client: &UdpSocket) -> String {
        let mut bytes = [0; 2_048];
        let length = client.recv(&mut bytes).expect("a reply");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn every_datagram_of_several_batches_is_answered_in_order() {
        let (server, client) = sockets("127.0.0.1:0", "127.0.0.1:0");
        let (mut shard, mut datagrams) = (shard(), Datagrams::new());
        // Twice, so that headers the kernel has written to are used again.
        for _ in 0..2 {
            for id in 0..150 {
                client.send(&request(id)).expect("sent");
            }
            assert_eq!(serve_all(&server, &mut shard, &mut datagrams), 3);
            for id in 0..150 {
                let reply = reply(&client);
                assert!(reply.contains(&format!("\"id\":{id},")) && reply.contains("asset_unknown"), "{id}: {reply}");
            }
        }
        assert_eq!((shard.counters().datagram_replies, datagrams.unsent()), (300, 0));
    }

    #[test]
    fn empty_and_oversized_ones_are_counted_and_harm_nobody() {
        let (server, client) = sockets("127.0.0.1:0", "127.0.0.1:0");
        let (mut shard, mut datagrams) = (shard(), Datagrams::new());
        let good = request(7);
        // Cut off at what we read, the long one would be a good request with blanks behind it.
        let mut long = good.clone();
        long.resize(DATAGRAM_IN_MAX + 100, b' ');
        for bytes in [&[][..], &long, &good[..]] {
            client.send(bytes).expect("sent");
        }
        serve_all(&server, &mut shard, &mut datagrams);
        assert_eq!(shard.counters().datagrams, 3);
        let answered = (0..shard.counters().datagram_replies).filter(|_| reply(&client).contains("asset_unknown"));
        assert_eq!(answered.count(), 1, "only the good one was understood");
    }

    #[test]
    fn an_ipv4_peer_of_a_dual_stack_socket_gets_its_reply() {
        if UdpSocket::bind("[::1]:0").is_err() {
            eprintln!("skipped: no IPv6 here");
            return;
        }
        for client in ["127.0.0.1:0", "[::1]:0"] {
            let (server, client) = sockets("[::]:0", client);
            client.send(&request(7)).expect("sent");
            serve_all(&server, &mut shard(), &mut Datagrams::new());
            assert!(reply(&client).contains("\"id\":7,"));
        }
    }

    #[track_caller]
    fn check(from: &str, expected: &str) {
        let from: SocketAddr = from.parse().expect("an address");
        let storage = SockAddr::from(from).as_storage();
        // SAFETY: both are the C library's `sockaddr_storage`, byte for byte.
        let storage: libc::sockaddr_storage = unsafe { std::mem::transmute_copy(&storage) };
        assert_eq!(address(&storage).map(|address| address.to_string()).as_deref(), Some(expected));
    }

    #[test]
    fn peers_are_shown_as_what_they_are() {
        check("127.0.0.1:2679", "127.0.0.1:2679");
        check("[2001:db8::7]:65535", "[2001:db8::7]:65535");
        check("[fe80::1%3]:53", "[fe80::1%3]:53");
        check("[::ffff:192.0.2.9]:1", "192.0.2.9:1");
    }

    #[test]
    fn another_family_is_nobody() {
        // SAFETY: zero is a value of this plain C structure; its family is then "unspecified".
        let nobody: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        assert_eq!(address(&nobody), None);
    }
}
