//! What the machine grants sockets: the limits of the process, those of the kernel, and how ours are opened.
//!
//! Every shard opens its own listener and datagram socket on the same port (`SO_REUSEPORT`), so the kernel spreads
//! the clients and no two shards share a queue.

use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Connections the kernel may hold that no shard has accepted yet; the kernel cuts it to `net.core.somaxconn`.
/// One shard accepts tens of thousands a second, so 4,096 is a tenth of a second of a reconnecting crowd.
pub const LISTEN_BACKLOG: i32 = 4_096;

/// Receive buffer asked for on the datagram socket, bytes; the kernel cuts it to `net.core.rmem_max`. A small
/// datagram costs about 768 bytes of it, so 4 MiB hold 5,000: 10 ms at 500,000 a second.
pub const DATAGRAM_RECEIVE_BYTES: usize = 4 * 1_024 * 1_024;

/// Send buffer asked for on the datagram socket, bytes: a burst of replies while the link is busy.
pub const DATAGRAM_SEND_BYTES: usize = 1_024 * 1_024;

/// A limit of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Limit {
    /// In force; `None` for no limit.
    pub soft: Option<u64>,
    /// What the process may raise it to by itself; `None` for no limit.
    pub hard: Option<u64>,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |number| number.to_string());
        write!(f, "{} (may be raised to {})", text(self.soft), text(self.hard))
    }
}

impl Limit {
    /// The limit on open descriptors.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn nofile() -> io::Result<Self> {
        Self::read(libc::RLIMIT_NOFILE)
    }

    /// The limit on locked memory, bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn memlock() -> io::Result<Self> {
        Self::read(libc::RLIMIT_MEMLOCK)
    }

    fn read(resource: libc::__rlimit_resource_t) -> io::Result<Self> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a live, writable `rlimit`, the only memory the call touches.
        if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let finite = |value: libc::rlim_t| (value != libc::RLIM_INFINITY).then_some(value);
        Ok(Self { soft: finite(limit.rlim_cur), hard: finite(limit.rlim_max) })
    }
}

/// Raises the limit on open descriptors as far as the process may; answers what is in force then. Call it before
/// the ring is probed: its file table must fit under the limit.
///
/// # Errors
/// What the kernel says; the limit is as it was.
pub fn raise_nofile() -> io::Result<Limit> {
    let limit = Limit::nofile()?;
    if limit.soft == limit.hard {
        return Ok(limit);
    }
    let hard = limit.hard.unwrap_or(libc::RLIM_INFINITY);
    let wanted = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: `wanted` is a live `rlimit` that the call only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Limit::nofile()
}

/// Opens one shard's listener: non-blocking, sharing its port with the other shards'.
///
/// # Errors
/// What the kernel says: the port is taken by another program, or the address is not ours.
pub fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address, Type::STREAM, Protocol::TCP)?;
    // Connections inherit it: a reply leaves at once, and is never held back for the acknowledgement of the last.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Opens one shard's datagram socket: non-blocking, sharing its port with the other shards'.
///
/// # Errors
/// See [`tcp_listener`].
pub fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(address, Type::DGRAM, Protocol::UDP)?;
    // More is asked for than may be granted: the kernel gives what its limits allow, and that is no error.
    socket.set_recv_buffer_size(DATAGRAM_RECEIVE_BYTES)?;
    socket.set_send_buffer_size(DATAGRAM_SEND_BYTES)?;
    send_whole(&socket, address)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Has datagrams leave in one piece or not at all, whatever a message says about the path: anybody can forge one that calls
/// it narrow, and every reply to that peer would be cut into fragments from then on. Ours are short enough for any path.
fn send_whole(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        set(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
    }
    // An IPv6 socket has both: this one is for its IPv4 peers.
    set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
}

/// Has a datagram socket hand out trains whole (`UDP_GRO`): datagrams of one sender and one length that a sender or a card
/// has put together come as one message, with their length in a control message. What reads from it must know that.
///
/// # Errors
/// What the kernel says: before Linux 5.0 there is no such thing, and every datagram comes alone.
pub fn take_trains(socket: BorrowedFd<'_>) -> io::Result<()> {
    switch_on(socket, libc::SOL_UDP, libc::UDP_GRO)
}

/// Has a datagram socket that is bound to all addresses tell, in a control message beside each datagram, which of them was
/// asked; so that the reply can leave from it.
///
/// # Errors
/// What the kernel says.
pub fn tell_asked_address(socket: BorrowedFd<'_>, bound: IpAddr) -> io::Result<()> {
    match bound {
        IpAddr::V4(_) => switch_on(socket, libc::IPPROTO_IP, libc::IP_PKTINFO),
        // Of IPv4 peers too, in IPv6's form.
        IpAddr::V6(_) => switch_on(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    }
}

/// Whether the kernel can cut one message into datagrams (`UDP_SEGMENT`, Linux 4.18).
#[must_use]
pub fn cuts_trains(socket: BorrowedFd<'_>) -> bool {
    get(socket, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok()
}

const INT_BYTES: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;

fn switch_on(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    set(socket, level, option, 1)
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    // SAFETY: `value` is a live `int` that the call only reads.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), INT_BYTES) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    let (fd, mut value, mut length) = (socket.as_raw_fd(), 0, INT_BYTES);
    let at: *mut libc::c_int = &raw mut value;
    // SAFETY: `value` is a live `int` and `length` says so; both are only written by the call.
    let result = unsafe { libc::getsockopt(fd, level, option, at.cast(), &raw mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Makes sure that no other program has these addresses, not even another copy of this one: sharing a port is for
/// the shards of one process, and the kernel lets any process of the same user join in.
///
/// # Errors
/// `EADDRINUSE` and the like, as `bind` says them.
pub fn check_free(tcp: SocketAddr, udp: SocketAddr) -> io::Result<()> {
    for (address, kind, protocol) in [(tcp, Type::STREAM, Protocol::TCP), (udp, Type::DGRAM, Protocol::UDP)] {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        prepare(&socket, address, kind)?;
        socket.bind(&address.into())?;
    }
    Ok(())
}

fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    prepare(&socket, address, kind)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn prepare(socket: &Socket, address: SocketAddr, kind: Type) -> io::Result<()> {
    if address.is_ipv6() {
        // An unspecified IPv6 address listens on both families; a specific one has nothing to share.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if kind == Type::STREAM {
        // A restart must not wait for the old connections' last minutes.
        socket.set_reuse_address(true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn the_descriptor_limit_ends_at_the_hard_one() {
        let raised = raise_nofile().expect("allowed");
        assert_eq!(raised.soft, raised.hard);
        assert_eq!(Limit::nofile().expect("readable"), raised);
    }

    #[test]
    fn shards_share_a_port_and_others_do_not() {
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            let Ok(first) = tcp_listener(SocketAddr::new(ip, 0)) else {
                assert!(ip.is_ipv6(), "IPv4 loopback is always there");
                continue;
            };
            let address = first.local_addr().expect("bound");
            let second = tcp_listener(address).expect("the same port again");
            assert_eq!(second.local_addr().expect("bound"), address);
            let datagrams = udp_socket(SocketAddr::new(ip, 0)).expect("a datagram socket");
            let datagram_address = datagrams.local_addr().expect("bound");
            udp_socket(datagram_address).expect("the same port again");
            let any = SocketAddr::new(ip, 0);
            assert!(check_free(address, any).is_err(), "a stranger gets no share");
            assert!(check_free(any, datagram_address).is_err(), "nor of the datagrams");
            check_free(any, any).expect("any port is free");
        }
    }

    #[test]
    fn datagrams_leave_whole_whatever_is_said_about_the_path() {
        let v4 = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
        let v6 = (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE);
        for (bound, options) in [("127.0.0.1:0", vec![v4]), ("[::1]:0", vec![v6]), ("[::]:0", vec![v4, v6])] {
            let Ok(socket) = udp_socket(bound.parse().expect("an address")) else {
                assert!(bound.starts_with('['), "IPv4 loopback is always there");
                continue;
            };
            for (level, option, expected) in options {
                assert_eq!(get(socket.as_fd(), level, option).expect("an option"), expected, "{bound} {level}");
            }
        }
    }

    #[test]
    fn an_unspecified_ipv6_listener_takes_ipv4_too() {
        let Ok(listener) = tcp_listener(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)) else {
            eprintln!("skipped: no IPv6 here");
            return;
        };
        let port = listener.local_addr().expect("bound").port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("reached over IPv4");
    }
}
